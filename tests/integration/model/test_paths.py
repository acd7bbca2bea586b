"""Finding the repository, its state directory and its sockets, on real repositories."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.support.git.repository import git, make_repository
from tests.support.trusted import trust_here
from thrum.admin.init import InitOptions
from thrum.admin.init import initialise as init
from thrum.admin.worktree_setup import set_up_worktree
from thrum.identity.evidence import current_root
from thrum.model.dot_git import find_git, main_worktree
from thrum.model.errors import BadRedirect, NotARepository, NotInitialized
from thrum.model.paths import Layout, find_layout


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
    return make_repository(base / "app")


@pytest.fixture
def linked(repo: Path, base: Path) -> Path:
    git(repo, "worktree", "add", "-q", base / "app-auth")
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
def test_a_worktree_nested_in_the_main_root_resolves_to_itself(repo: Path) -> None:
    state = initialise(repo)
    git(repo, "worktree", "add", "-q", repo / "nested")
    (repo / "nested" / "sub").mkdir()
    layout = find_layout(repo / "nested" / "sub")
    assert (layout.root, layout.state_dir) == (repo / "nested", state)


@pytest.mark.spec("ID-12")
def test_a_submodule_and_a_vendored_clone_resolve_to_the_enclosing_root(repo: Path, base: Path) -> None:
    initialise(repo)
    other = make_repository(base / "other")
    git(repo, "submodule", "add", "-q", other, "sub")
    make_repository(repo / "vendor" / "lib")
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
    git(base, "init", "-q", "--bare", base / "hub.git")
    with pytest.raises(NotARepository, match="is a bare repository") as caught:
        find_layout(base / "hub.git")
    assert "git worktree add" in caught.value.remedy


def test_worktrees_of_a_bare_repository_share_the_state_of_the_one_that_has_it(repo: Path, base: Path) -> None:
    git(base, "clone", "-q", "--bare", repo, base / "hub" / ".git")
    for name in ("one", "two"):
        git(base / "hub", "worktree", "add", "-q", "-b", name, base / "hub" / name)
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
    vendored = make_repository(linked / "vendor")
    foreign = make_repository(base / "foreign")
    assert current_root(str(vendored), common, str(repo)) == str(linked)
    assert current_root(str(repo), common, str(repo)) == str(repo)
    assert current_root(str(foreign), common, str(repo)) is None
    assert current_root(str(base), common, str(repo)) is None
    shutil.rmtree(linked)
    assert current_root(str(linked), common, str(repo)) is None


# -- sockets
