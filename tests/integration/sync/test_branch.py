"""The branch a-sync and its linked worktree, judged by git itself."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.support.git.repository import commit, git, layout_of, make_repository, put_commit
from thrum.git.trees import TreeEntry, index_bytes
from thrum.model import limits
from thrum.model.errors import NotAvailable, StoreFailed, UnsafeRepository
from thrum.model.paths import Layout
from thrum.sync.branch import branch_state, ensure_branch, origin_url, read_branch, verify_owner

FIRST = "90843369767a3f41f94cd357d4493648e1154213"
ENVIRON = os.environ


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = Path(os.path.realpath(tmp_path)) / "app"
    make_repository(path, {"a.txt": "one\n"})
    return path


def push_journals(root: Path, origin: Path, lines: dict[str, str]) -> str:
    """Give the clone `origin` a branch a-sync that holds these files; the commit."""
    made = put_commit(root, origin.parent / "index", lines, message="sync")
    git(root, "push", "-q", str(origin), f"{made}:refs/heads/a-sync")
    (origin.parent / "index").unlink()
    return made


@pytest.fixture
def clone(root: Path) -> Iterator[Path]:
    """A clone whose origin has journals on a-sync."""
    origin = root.parent / "origin.git"
    git(root.parent, "clone", "-q", "--bare", "app", "origin.git")
    push_journals(root, origin, {"events.jsonl": '{"e":1}\n', "messages/nux.jsonl": '{"m":1}\n', "messages/.x": "no"})
    git(root.parent, "clone", "-q", "origin.git", "clone")
    yield root.parent / "clone"


def test_the_first_commit_is_alike_in_every_clone(root: Path) -> None:
    made = ensure_branch(layout_of(root), ENVIRON)
    assert (made.tip, made.branch, made.worktree_made) == (FIRST, "made", True)
    assert git(root, "rev-parse", "a-sync") == FIRST
    assert git(root, "log", "-1", "--format=%an|%ae|%at|%cn|%ce|%ct|%s|%P", "a-sync") == (
        "thrum|thrum@localhost|0|thrum|thrum@localhost|0|thrum: first|"
    )


def test_git_sees_a_clean_locked_worktree_on_both_sides(root: Path) -> None:
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    (layout.branch_dir / "messages" / "nux.jsonl").write_text("{}\n")
    assert git(root, "status", "--porcelain") == ""
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    listed = git(root, "worktree", "list", "--porcelain")
    assert f"worktree {layout.branch_dir}\nHEAD {FIRST}\ndetached\nlocked thrum keeps" in listed
    assert git(root, "fsck", "--strict") == ""


def test_the_users_work_tree_index_and_head_keep_their_bytes(root: Path) -> None:
    def bytes_of() -> dict[str, bytes]:
        names = ("HEAD", "index", "config", "logs/HEAD", "info/exclude", "refs/heads/main")
        return {name: (root / ".git" / name).read_bytes() for name in names}

    (root / "a.txt").write_text("changed\n")
    (root / "b.txt").write_text("staged\n")
    git(root, "add", "b.txt")
    before, status = bytes_of(), git(root, "status", "--porcelain")
    ensure_branch(layout_of(root), ENVIRON)
    assert bytes_of() == before
    assert git(root, "status", "--porcelain") == status
    assert sorted(path.name for path in root.iterdir()) == [".git", "a.txt", "b.txt"]


def test_directories_are_0700_and_files_0600_whatever_the_umask(root: Path) -> None:
    layout = layout_of(root)
    old = os.umask(0)
    try:
        ensure_branch(layout, ENVIRON)
    finally:
        os.umask(old)
    for path in (layout.thrum_sync_dir, *layout.thrum_sync_dir.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_run_writes_nothing(root: Path) -> None:
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)

    def stamps() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (root / ".git").rglob("*") if path.name != "setup.lock"}

    before = stamps()
    again = ensure_branch(layout, ENVIRON)
    assert (again.tip, again.branch, again.worktree_made) == (FIRST, "there", False)
    assert stamps() == before


def test_looking_writes_nothing_and_foresees_the_same(root: Path) -> None:
    layout = layout_of(root)
    before = sorted((root / ".git").rglob("*"))
    foreseen = branch_state(layout, ENVIRON)
    assert sorted((root / ".git").rglob("*")) == before
    assert (foreseen.branch, foreseen.worktree_made) == ("made", True)
    ensure_branch(layout, ENVIRON)
    assert branch_state(layout, ENVIRON).branch == "there"


@pytest.mark.parametrize(
    "command",
    [
        "gc --prune=now",
        "worktree prune --expire=now",
        "worktree repair",
        "stash -u",
        "clean -fdxq",
        "reset --hard -q",
        "switch -q -c other",
        "fsck",
    ],
)
def test_gits_housekeeping_leaves_the_journals(root: Path, command: str) -> None:
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    journal = layout.branch_dir / "events.jsonl"
    journal.write_text('{"e":1}\n')
    (root / "untracked.txt").write_text("x")
    git(root, *command.split())
    assert journal.read_text() == '{"e":1}\n'
    assert not ensure_branch(layout, ENVIRON).worktree_made
    assert git(layout.branch_dir, "status", "--porcelain") == ""


@pytest.mark.parametrize("command", ["reset --hard -q", "checkout -q -f", "stash -u", "clean -fdq", "restore ."])
def test_commands_inside_the_worktree_leave_the_journals(clone: Path, command: str) -> None:
    layout = layout_of(clone)
    ensure_branch(layout, ENVIRON)
    journal = layout.branch_dir / "events.jsonl"
    journal.write_text('{"e":1}\n{"e":2}\n')
    git(layout.branch_dir, *command.split(), check=False)
    assert journal.read_text() == '{"e":1}\n{"e":2}\n'
    assert git(layout.branch_dir, "status", "--porcelain") == ""


@pytest.mark.parametrize("command", ["worktree remove", "worktree remove --force"])
def test_git_refuses_to_remove_what_thrum_needs(root: Path, command: str) -> None:
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    git(root, *command.split(), str(layout.branch_dir), check=False)
    assert layout.branch_dir.is_dir()


def test_a_clone_begins_at_its_origins_branch_and_gets_its_journals(clone: Path) -> None:
    layout = layout_of(clone)
    made = ensure_branch(layout, ENVIRON)
    assert made.branch == "taken"
    assert made.tip == git(clone, "rev-parse", "origin/a-sync") == git(clone, "rev-parse", "a-sync")
    assert (layout.branch_dir / "events.jsonl").read_text() == '{"e":1}\n'
    assert (layout.branch_dir / "messages" / "nux.jsonl").read_text() == '{"m":1}\n'
    assert sorted(os.listdir(layout.branch_dir / "messages")) == ["nux.jsonl"]
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    assert git(layout.branch_dir, "ls-files", "-v").splitlines()[0].startswith("s")  # skip-worktree, assume-unchanged


def test_a_journal_that_is_there_is_never_replaced_by_the_branchs(clone: Path) -> None:
    layout = layout_of(clone)
    ensure_branch(layout, ENVIRON)
    (layout.branch_dir / "events.jsonl").write_text("newer\n")
    (layout.branch_dir / "messages" / "nux.jsonl").unlink()
    ensure_branch(layout, ENVIRON)
    assert (layout.branch_dir / "events.jsonl").read_text() == "newer\n"
    assert (layout.branch_dir / "messages" / "nux.jsonl").read_text() == '{"m":1}\n'


def test_a_moved_repository_is_fixed(root: Path) -> None:
    ensure_branch(layout_of(root), ENVIRON)
    moved = root.with_name("moved")
    root.rename(moved)
    layout = layout_of(moved)
    made = ensure_branch(layout, ENVIRON)
    assert not made.worktree_made
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    assert str(layout.branch_dir) in git(moved, "worktree", "list")
    assert len(list((moved / ".git" / "worktrees").iterdir())) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda layout, admin: (admin / "index").unlink(),
        lambda layout, admin: (admin / "index").write_bytes(b"rubbish"),
        lambda layout, admin: shutil.rmtree(admin),
        lambda layout, admin: (admin / "gitdir").unlink(),
        lambda layout, admin: (admin / "locked").unlink(),
        lambda layout, admin: (admin / "HEAD").write_text("ref: refs/heads/main\n"),
        lambda layout, admin: (admin / "HEAD").write_text("ref: refs/heads/a-sync\n"),
        lambda layout, admin: (admin / "HEAD").write_text(""),
        lambda layout, admin: (layout.branch_dir / ".git").unlink(),
        lambda layout, admin: (layout.branch_dir / ".git").write_text("gitdir: /nowhere\n"),
        lambda layout, admin: (layout.branch_dir / ".gitignore").unlink(),
    ],
    ids=[
        "no index",
        "bad index",
        "no record",
        "no gitdir",
        "unlocked",
        "other head",
        "on the branch, as in earlier versions",
        "empty head",
        "no .git",
        "bad .git",
        "no ignore",
    ],
)
def test_a_harmed_worktree_is_fixed_at_start(clone: Path, harm: Callable[[Layout, Path], object]) -> None:
    layout = layout_of(clone)
    ensure_branch(layout, ENVIRON)
    admin = clone / ".git" / "worktrees" / "a-sync"
    harm(layout, admin)
    ensure_branch(layout, ENVIRON)
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    assert git(layout.branch_dir, "rev-parse", "HEAD") == git(clone, "rev-parse", "a-sync")
    assert git(layout.branch_dir, "branch", "--show-current") == ""
    assert "locked thrum" in git(clone, "worktree", "list", "--porcelain")
    assert (layout.branch_dir / "events.jsonl").read_text() == '{"e":1}\n'


def test_a_worktree_of_the_users_own_that_is_called_a_sync_stays(root: Path) -> None:
    git(root, "worktree", "add", "-q", "-b", "mine", str(root.parent / "a-sync"))
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    assert git(root.parent / "a-sync", "branch", "--show-current") == "mine"
    assert git(layout.branch_dir, "rev-parse", "HEAD") == FIRST


def test_a_repository_without_commits_will_do(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "empty")
    root = Path(os.path.realpath(tmp_path)) / "empty"
    assert ensure_branch(layout_of(root), ENVIRON).tip == FIRST
    assert git(root, "status", "--porcelain") == ""
    commit(root, {"a.txt": "one\n"}, "add a.txt")
    assert git(root, "branch", "--format=%(refname:short)").splitlines() == ["a-sync", "main"]


def test_a_detached_head_stays_detached(root: Path) -> None:
    git(root, "checkout", "-q", "--detach")
    head = git(root, "rev-parse", "HEAD")
    ensure_branch(layout_of(root), ENVIRON)
    assert git(root, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert git(root, "rev-parse", "HEAD") == head


def test_packed_refs_are_read(clone: Path) -> None:
    git(clone, "pack-refs", "--all")
    assert ensure_branch(layout_of(clone), ENVIRON).branch == "taken"
    git(clone, "pack-refs", "--all")
    assert ensure_branch(layout_of(clone), ENVIRON).branch == "there"


def test_from_a_linked_worktree_the_shared_git_directory_is_used(root: Path) -> None:
    git(root, "worktree", "add", "-q", str(root.parent / "feature"))
    layout = layout_of(root.parent / "feature")
    ensure_branch(layout, ENVIRON)
    assert layout.branch_dir == root / ".git" / "thrum-sync" / "a-sync"
    assert git(root.parent / "feature", "status", "--porcelain") == ""
    assert git(root, "status", "--porcelain") == ""


def test_a_worktree_of_a_bare_repository_will_do(root: Path) -> None:
    git(root.parent, "clone", "-q", "--bare", "app", "bare.git")
    git(root.parent / "bare.git", "worktree", "add", "-q", str(root.parent / "tree"))
    layout = layout_of(root.parent / "tree")
    ensure_branch(layout, ENVIRON)
    assert layout.branch_dir == root.parent / "bare.git" / "thrum-sync" / "a-sync"
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    assert git(root.parent / "tree", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda root: git(root, "config", "extensions.partialClone", "origin"),
        lambda root: git(root, "config", "core.repositoryformatversion", "1"),
        lambda root: git(root, "config", "core.sparseCheckout", "true"),
        lambda root: git(root, "config", "extensions.worktreeConfig", "true"),
    ],
    ids=["partial clone", "format 1", "sparse checkout", "worktree config"],
)
def test_unusual_repositories_will_do(clone: Path, make: Callable[[Path], object]) -> None:
    git(clone, "config", "core.repositoryformatversion", "1")
    make(clone)
    layout = layout_of(clone)
    assert ensure_branch(layout, ENVIRON).branch == "taken"
    assert (layout.branch_dir / "messages" / "nux.jsonl").read_text() == '{"m":1}\n'
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    assert ensure_branch(layout, ENVIRON).branch == "there"


def test_the_git_command_makes_the_same_first_commit(root: Path) -> None:
    git(root, "config", "core.repositoryformatversion", "1")
    git(root, "config", "extensions.partialClone", "origin")
    assert ensure_branch(layout_of(root), ENVIRON).tip == FIRST


def test_a_sha256_repository_will_do(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--object-format=sha256", "new")
    root = Path(os.path.realpath(tmp_path)) / "new"
    commit(root, {"a.txt": "one\n"}, "add a.txt")
    layout = layout_of(root)
    assert len(ensure_branch(layout, ENVIRON).tip) == 64
    assert git(layout.branch_dir, "status", "--porcelain") == ""
    assert git(root, "fsck", "--strict") == ""


def test_reftables_are_refused_with_the_fix(root: Path) -> None:
    (root / ".git" / "reftable").mkdir()
    with pytest.raises(NotAvailable, match="reftables") as caught:
        ensure_branch(layout_of(root), ENVIRON)
    assert "git refs migrate" in caught.value.remedy
    assert not (layout_of(root).branch_dir).exists()


def test_a_branch_of_the_projects_own_is_refused_and_stays(root: Path) -> None:
    git(root, "branch", "a-sync")
    with pytest.raises(NotAvailable, match="not thrum's"):
        ensure_branch(layout_of(root), ENVIRON)
    assert git(root, "rev-parse", "a-sync") == git(root, "rev-parse", "main")
    assert not layout_of(root).branch_dir.exists()


def test_a_branch_that_is_checked_out_elsewhere_is_refused(clone: Path) -> None:
    git(clone, "switch", "-q", "a-sync")
    with pytest.raises(NotAvailable, match=f"checked out in {clone}"):
        ensure_branch(layout_of(clone), ENVIRON)


def test_a_locked_ref_is_named(root: Path) -> None:
    (root / ".git" / "refs" / "heads" / "a-sync.lock").touch()
    with pytest.raises(StoreFailed, match=r"a-sync\.lock"):
        ensure_branch(layout_of(root), ENVIRON)


def test_a_lost_commit_is_told_to_who_reads_it_and_stops_no_start(root: Path) -> None:
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    (root / ".git" / "refs" / "heads" / "a-sync").write_text("1" * 40 + "\n")
    assert ensure_branch(layout, ENVIRON).branch == "there"
    with pytest.raises(StoreFailed, match="cannot read branch a-sync") as caught, read_branch(layout, ENVIRON):
        pass
    assert caught.value.remedy and "git update-ref -d refs/heads/a-sync" in caught.value.remedy


def test_a_file_where_a_directory_must_be_is_named(root: Path) -> None:
    (root / ".git" / "thrum-sync").write_text("")
    with pytest.raises(StoreFailed, match=r"could not write .*thrum-sync"):
        ensure_branch(layout_of(root), ENVIRON)


def test_the_environment_of_a_hook_leads_nowhere_else(root: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "GIT_DIR": str(tmp_path), "GIT_INDEX_FILE": str(tmp_path / "i"), "GIT_WORK_TREE": "/"}
    git(root, "config", "core.repositoryformatversion", "1")
    git(root, "config", "extensions.partialClone", "origin")
    assert ensure_branch(layout_of(root), environ).tip == FIRST


def _ensure(root: Path) -> str:
    return ensure_branch(layout_of(root), ENVIRON).tip


def test_eight_at_once_make_one(root: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        assert set(pool.map(_ensure, [root] * 8)) == {FIRST}
    assert len(list((root / ".git" / "worktrees").iterdir())) == 1
    assert git(layout_of(root).branch_dir, "status", "--porcelain") == ""


def test_what_a_killed_call_began_is_taken_up(root: Path) -> None:
    begun = root / ".git" / "worktrees" / "a-sync"
    begun.mkdir(parents=True)
    (begun / ".locked.abc.tmp").touch()
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    assert os.listdir(root / ".git" / "worktrees") == ["a-sync"]
    assert git(layout.branch_dir, "status", "--porcelain") == ""


def test_a_branch_below_the_name_is_told_in_gits_words(root: Path) -> None:
    git(root, "branch", "a-sync/x")
    with pytest.raises(StoreFailed, match="'refs/heads/a-sync/x' exists"):
        ensure_branch(layout_of(root), ENVIRON)
    git(root, "config", "core.repositoryformatversion", "1")
    git(root, "config", "extensions.partialClone", "origin")
    with pytest.raises(StoreFailed, match="'refs/heads/a-sync/x' exists"):
        ensure_branch(layout_of(root), ENVIRON)


def test_outside_git_only_the_folder_is_made(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path, state_dir=tmp_path / ".thrum", main_root=tmp_path, common_dir=None)
    assert ensure_branch(layout, ENVIRON).worktree_made
    assert sorted(os.listdir(tmp_path / ".thrum" / "var" / "a-sync")) == ["events.jsonl", "messages"]
    assert not ensure_branch(layout, ENVIRON).worktree_made


def test_a_foreign_tree_cannot_write_elsewhere(root: Path) -> None:
    blob = git(root, "hash-object", "-w", "--stdin", stdin=b"evil\n")
    inner = bytes.fromhex(blob)
    tree = git(root, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=b"100644 ..\0" + inner)
    names = b"100644 events.jsonl\0" + inner + b"40000 messages\0" + bytes.fromhex(tree)
    top = git(root, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=names)
    git(root, "update-ref", "refs/heads/a-sync", git(root, "commit-tree", top, "-m", "x"))
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    assert os.listdir(layout.branch_dir / "messages") == []
    assert (layout.branch_dir / "events.jsonl").read_text() == "evil\n"


@pytest.mark.parametrize("harm", ["large", "unreadable"])
def test_a_journal_that_no_round_would_ingest_is_passed_over_at_the_start(
    root: Path, harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    git(root.parent, "init", "-q", "--bare", "origin.git")
    files = {"messages/far.jsonl": '{"m":2}\n' * 100, "messages/nux.jsonl": '{"m":1}\n'}
    commit = push_journals(root, root.parent / "origin.git", files)
    git(root, "update-ref", "refs/heads/a-sync", commit)
    if harm == "large":
        monkeypatch.setattr(limits, "author_journal_bytes_max", 100)
    else:
        far = git(root, "rev-parse", "a-sync:messages/far.jsonl")
        lost = root / ".git" / "objects" / far[:2] / far[2:]
        lost.chmod(0o600)
        lost.write_bytes(b"")
    layout = layout_of(root)
    ensure_branch(layout, ENVIRON)
    assert os.listdir(layout.branch_dir / "messages") == ["nux.jsonl"]
    assert "journal far.jsonl of branch a-sync is skipped" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_another_users_repository_is_refused_unless_git_is_told_that_it_is_safe(root: Path, tmp_path: Path) -> None:
    for path in (root, root / ".git"):
        os.chown(path, 12345, 12345)
    config = tmp_path / "gitconfig"
    config.write_text("")
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": str(config)}
    with pytest.raises(UnsafeRepository, match="belongs to another user") as caught:
        ensure_branch(Layout(root, root / ".thrum", root, root / ".git"), environ)
    assert caught.value.remedy == f"git config --global --add safe.directory {root}"
    assert not (root / ".git" / "thrum-sync").exists()
    config.write_text(f"[safe]\n\tdirectory = {root}\n")
    verify_owner(root, root / ".git", environ)


def test_the_origins_url_is_gits_effective_one(root: Path) -> None:
    assert origin_url(root / ".git", ENVIRON) == ""
    git(root, "remote", "add", "origin", "gh:me/app")
    git(root, "config", "url.https://example.org/.insteadOf", "gh:")
    assert origin_url(root / ".git", ENVIRON) == "https://example.org/me/app"


def test_long_names_fit_the_index(root: Path) -> None:
    blob = git(root, "hash-object", "-w", "--stdin", stdin=b"x")
    names = [f"messages/{'n' * length}.jsonl" for length in range(1, 40)] + ["m" * 5000]
    index = root.parent / "index"
    index.write_bytes(index_bytes(TreeEntry(name.encode(), 0o100644, blob) for name in names))
    environ = {**os.environ, "GIT_INDEX_FILE": str(index)}
    listed = subprocess.run(["git", "ls-files"], cwd=root, env=environ, check=True, capture_output=True)
    assert sorted(listed.stdout.decode().split()) == sorted(names)
