"""Finding the repository, its state directory and its sockets, on real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.support.trusted import trust_here
from thrum.admin.init import InitOptions
from thrum.admin.init import initialise as init
from thrum.admin.worktree_setup import set_up_worktree
from thrum.identity.evidence import current_root
from thrum.model.dot_git import find_git, main_worktree
from thrum.model.errors import BadRedirect, DaemonStartFailed, NotARepository, NotInitialized
from thrum.model.paths import Layout, find_layout
from thrum.rpc.sockets import prepare_socket_dir, private_dir_flaw, socket_paths


def git(*args: str | Path, cwd: Path) -> None:
    subprocess.run(["git", *map(str, args)], cwd=cwd, check=True, capture_output=True)


def new_repository(path: Path) -> Path:
    path.mkdir(parents=True)
    git("init", "-q", cwd=path)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=path)
    return path


def initialise(root: Path) -> Path:
    state = root / ".thrum"
    (state / "identities").mkdir(parents=True)
    (state / "config.json").write_text("{}")
    return trust_here(root)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path.resolve()


@pytest.fixture
def repo(base: Path) -> Path:
    return new_repository(base / "app")


@pytest.fixture
def linked(repo: Path, base: Path) -> Path:
    git("worktree", "add", "-q", base / "app-auth", cwd=repo)
    return base / "app-auth"


def test_places_are_named_after_the_specification(repo: Path) -> None:
    state = initialise(repo)
    layout = find_layout(repo)
    common = repo / ".git"
    assert layout == Layout(root=repo, state_dir=state, main_root=repo, common_dir=common)
    assert layout.identities_dir == state / "identities"
    assert layout.context_dir == state / "context"
    assert layout.config_copy == state / "config.json"
    assert layout.config_file == common / "thrum-sync" / "config.json"
    assert layout.guard_file == common / "thrum-sync" / "guard-daemon.json"
    assert layout.database == state / "var" / "messages.db"
    assert layout.log_file == state / "var" / "daemon.log"
    assert layout.socket_path == state / "var" / "thrum.sock"
    assert layout.branch_dir == common / "thrum-sync" / "a-sync"
    assert layout.local_journal == common / "thrum-sync" / "local.jsonl"
    assert layout.quarantine == common / "thrum-sync" / "quarantine.jsonl"
    assert layout.lock_file == common / "thrum-sync" / "daemon.lock"
    assert layout.daemon_json == common / "thrum-sync" / "daemon.json"


@pytest.mark.spec("ID-09")
def test_root_and_state_are_found_from_any_depth_and_through_links(repo: Path, base: Path) -> None:
    initialise(repo)
    deep = repo / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (base / "link").symlink_to(deep)
    assert find_layout(deep).root == find_layout(base / "link").root == repo


@pytest.mark.spec("ID-10")
def test_a_linked_worktree_without_thrum_uses_the_main_ones_state(repo: Path, linked: Path) -> None:
    state = initialise(repo)
    layout = find_layout(linked)
    assert (layout.root, layout.state_dir, layout.main_root) == (linked, state, repo)
    assert layout.identities_dir == linked / ".thrum" / "identities"
    assert layout.common_dir == repo / ".git"


def test_identities_alone_do_not_make_a_linked_worktree_a_state_directory(repo: Path, linked: Path) -> None:
    state = initialise(repo)
    (linked / ".thrum" / "identities").mkdir(parents=True)
    trust_here(linked)
    assert find_layout(linked).state_dir == state


@pytest.mark.spec("ID-11")
def test_a_thrum_directory_without_marks_is_no_repository(base: Path) -> None:
    (base / ".thrum" / "worktrees").mkdir(parents=True)
    (base / ".thrum" / "runtimes.json").write_text("{}")
    with pytest.raises(NotARepository, match="not a git repository"):
        find_layout(base)


@pytest.mark.spec("ID-11")
def test_a_worktree_nested_in_the_main_root_resolves_to_itself(repo: Path) -> None:
    state = initialise(repo)
    git("worktree", "add", "-q", repo / "nested", cwd=repo)
    (repo / "nested" / "sub").mkdir()
    layout = find_layout(repo / "nested" / "sub")
    assert (layout.root, layout.state_dir) == (repo / "nested", state)


@pytest.mark.spec("ID-12")
def test_a_submodule_and_a_vendored_clone_resolve_to_the_enclosing_root(repo: Path, base: Path) -> None:
    initialise(repo)
    other = new_repository(base / "other")
    git("submodule", "add", "-q", other, "sub", cwd=repo)
    new_repository(repo / "vendor" / "lib")
    assert find_layout(repo / "sub").root == find_layout(repo / "vendor" / "lib").root == repo
    found = find_git(repo / "sub")
    assert found is not None and not found.linked


@pytest.mark.spec("ID-14")
def test_a_redirect_shares_state_and_keeps_identities_local(repo: Path, linked: Path) -> None:
    state = initialise(repo)
    (linked / ".thrum" / "identities").mkdir(parents=True)
    (linked / ".thrum" / "redirect").write_text(f"  {state}\n")
    trust_here(linked, state)
    layout = find_layout(linked)
    assert (layout.root, layout.state_dir, layout.main_root) == (linked, state, repo)
    assert layout.config_copy == state / "config.json"
    assert layout.identities_dir == linked / ".thrum" / "identities"


@pytest.mark.spec("ID-13")
def test_each_bad_redirect_has_its_own_words_and_never_falls_back(repo: Path, base: Path) -> None:
    state = initialise(repo)
    (base / "file").write_text("")
    (base / "self").symlink_to(state)
    chained = base / "chained"
    chained.mkdir()
    (chained / "redirect").write_text(str(state))
    cases = {
        " \n": "redirect file is empty",
        ".thrum": "redirect target must be absolute path",
        "~/.thrum": "redirect target must be absolute path",
        f"{base}/nowhere": "redirect target does not exist",
        f"{base}/file": "redirect target is not a directory",
        f"{state}": "redirect points to itself",
        f"{base}/self": "redirect points to itself",
        f"{chained}": "redirect chain detected.*only single-hop redirects are supported",
    }
    for text, words in cases.items():
        (state / "redirect").write_text(text)
        with pytest.raises(BadRedirect, match=words):
            find_layout(repo)


def test_without_state_the_error_names_the_fix(repo: Path, linked: Path, base: Path) -> None:
    for start in (repo, linked):
        with pytest.raises(NotInitialized, match=f"thrum is not initialized in {start}$"):
            find_layout(start)
    with pytest.raises(NotARepository, match="no such directory"):
        find_layout(base / "typo")
    git("init", "-q", "--bare", base / "hub.git", cwd=base)
    with pytest.raises(NotARepository, match="is a bare repository") as caught:
        find_layout(base / "hub.git")
    assert "git worktree add" in caught.value.remedy


def test_worktrees_of_a_bare_repository_share_the_state_of_the_one_that_has_it(repo: Path, base: Path) -> None:
    git("clone", "-q", "--bare", repo, base / "hub" / ".git", cwd=base)
    for name in ("one", "two"):
        git("worktree", "add", "-q", "-b", name, base / "hub" / name, cwd=base / "hub")
    one, two = base / "hub" / "one", base / "hub" / "two"
    found = find_git(two)
    assert found is not None and found.linked and main_worktree(found) is None
    state = initialise(one)
    assert find_layout(one).common_dir == base / "hub" / ".git"
    with pytest.raises(NotInitialized):
        find_layout(two)
    (two / ".thrum").mkdir()
    (two / ".thrum" / "redirect").write_text(str(state))
    trust_here(two, state)
    assert find_layout(two).main_root == one
    hub = find_git(base / "hub")
    assert hub is not None and hub.bare


def test_outside_git_the_journals_lie_beside_the_database(base: Path) -> None:
    state = initialise(base / "plain")
    layout = find_layout(base / "plain")
    assert layout.common_dir is None
    assert layout.local_journal == state / "var" / "local.jsonl"


def test_a_moved_or_broken_git_file_is_no_linked_worktree(repo: Path, base: Path) -> None:
    (base / "broken").mkdir()
    (base / "broken" / ".git").write_text("gitdir: /nowhere/at/all\n")
    found = find_git(base / "broken")
    assert found is not None and not found.linked
    (base / "broken" / ".git").write_text("rubbish")
    assert find_git(base / "broken") is None


def test_a_git_file_that_leads_nowhere_is_told_from_a_repository_without_thrum(repo: Path, base: Path) -> None:
    initialise(repo)
    options = InitOptions(hostname="h", environ=os.environ)
    lost, nested, copied = base / "lost", repo / "nested", repo / "vendor" / "lib"
    for root, kind in ((lost, "worktrees"), (nested, "worktrees"), (copied, "modules")):
        root.mkdir(parents=True)
        (root / ".git").write_text(f"gitdir: {base}/not-mounted/.git/{kind}/x\n")
    for root in (lost, nested, lost):
        for look in (find_layout, partial(set_up_worktree, main_repo=None, environ={}), partial(init, options=options)):
            with pytest.raises(NotARepository) as caught:
                look(root)
            assert f"{root}/.git leads to {base}/not-mounted/" in caught.value.message
        (root / ".thrum" / "identities").mkdir(parents=True, exist_ok=True)
    assert find_layout(copied).root == repo, "a copied submodule belongs to what is around it"
    assert not (base / "not-mounted").exists()


@pytest.mark.spec("ID-11", "ID-12")
def test_one_stands_in_the_nearest_root_of_this_repository(repo: Path, linked: Path, base: Path) -> None:
    initialise(repo)
    common = str(repo / ".git")
    vendored = new_repository(linked / "vendor")
    foreign = new_repository(base / "foreign")
    assert current_root(str(vendored), common, str(repo)) == str(linked)
    assert current_root(str(repo), common, str(repo)) == str(repo)
    assert current_root(str(foreign), common, str(repo)) is None
    assert current_root(str(base), common, str(repo)) is None
    shutil.rmtree(linked)
    assert current_root(str(linked), common, str(repo)) is None


# -- sockets


@pytest.fixture
def short_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.path.realpath(tmp_path_factory.mktemp("s")))


def layout_at(root: Path) -> Layout:
    return Layout(root=root, state_dir=initialise(root), main_root=root, common_dir=None)


def test_sockets_lie_beside_the_state_when_the_path_fits(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    layout.var_dir.mkdir()
    layout.socket_path.symlink_to("/stale")
    sockets = socket_paths(layout, short_base)
    assert (sockets.rpc, sockets.private_dir) == (layout.socket_path, None)
    assert sockets.bus == layout.var_dir / "bus.sock"
    prepare_socket_dir(layout, sockets)
    assert not layout.socket_path.is_symlink()
    assert layout.var_dir.stat().st_mode & 0o777 == 0o700


def test_a_long_path_gets_a_short_private_directory_that_is_found_without_a_link(base: Path, short_base: Path) -> None:
    layout = layout_at(base / ("long" * 30))
    sockets = socket_paths(layout, short_base)
    assert sockets == socket_paths(layout, short_base)
    assert sockets.private_dir is not None and len(os.fsencode(sockets.rpc)) <= 107
    for _ in range(2):
        prepare_socket_dir(layout, sockets)
        assert not os.path.lexists(layout.socket_path)
        assert private_dir_flaw(sockets.private_dir) is None


def test_a_file_system_without_sockets_gets_the_short_directory_too(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    assert socket_paths(layout, short_base, short=True).private_dir is not None


def test_a_short_directory_that_others_may_enter_or_that_is_a_link_is_refused(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    sockets = socket_paths(layout, short_base, short=True)
    assert sockets.private_dir is not None
    sockets.private_dir.mkdir()
    sockets.private_dir.chmod(0o755)
    with pytest.raises(DaemonStartFailed, match="is open to other users"):
        prepare_socket_dir(layout, sockets)
    sockets.private_dir.rmdir()
    sockets.private_dir.symlink_to(base)
    with pytest.raises(DaemonStartFailed, match="is not a directory"):
        prepare_socket_dir(layout, sockets)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_short_directory_of_another_user_is_refused(base: Path, short_base: Path) -> None:
    layout = layout_at(base / "r")
    sockets = socket_paths(layout, short_base, short=True)
    assert sockets.private_dir is not None
    sockets.private_dir.mkdir(mode=0o700)
    os.chown(sockets.private_dir, 12345, 12345)
    with pytest.raises(DaemonStartFailed, match="belongs to another user") as caught:
        prepare_socket_dir(layout, sockets)
    # A link of his, too; nobody but he and root can take either away.
    assert caught.value.remedy.startswith(f"as root: rm -r {sockets.private_dir}; or move the repository")
    sockets.private_dir.rmdir()
    sockets.private_dir.symlink_to(base)
    os.chown(sockets.private_dir, 12345, 12345, follow_symlinks=False)
    with pytest.raises(DaemonStartFailed, match="belongs to another user"):
        prepare_socket_dir(layout, sockets)
