"""Git's side of a round on real repositories, judged by git itself."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.daemon.repo import wait_until
from tests.support.git.clones import SECONDS_SINCE_1970, contents, git, layout_of, make_clone, make_origin, sync, write
from tests.support.git.opened_repository import open_repository
from thrum.git.reader import FILES_MAX, open_reader
from thrum.git.trees import TreeEntry
from thrum.model.errors import NotAvailable, StoreFailed, UnsafeRepository
from thrum.model.paths import Layout
from thrum.sync.branch import ensure_branch
from thrum.sync.ports import RemoteFailed, RemoteInfo
from thrum.sync.repository import GitRepository
from thrum.sync.visibility import Readers, Visibility, confirm

FIRST = "90843369767a3f41f94cd357d4493648e1154213"
LINES = b'{"e":1}\n{"e":2}\n'


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def alice(top: Path) -> Iterator[GitRepository]:
    """A clone of a bare repository beside it."""
    make_origin(top)
    with open_repository(make_clone(top, "alice", "origin.git"), os.environ) as repo:
        yield repo


@pytest.fixture
def bob(alice: GitRepository, top: Path) -> Iterator[GitRepository]:
    with open_repository(make_clone(top, "bob", "origin.git"), os.environ) as repo:
        yield repo


def clean(root: Path) -> None:
    """Git finds nothing wrong, and nothing to do."""
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert git(root, "status", "--porcelain") == ""
    assert git(layout_of(root).branch_dir, "status", "--porcelain") == ""


def test_what_is_written_is_what_git_reads(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES, "messages/nux.jsonl": b'{"m":1}\n'}, "sync: 1 message from alice@host")
    root = top / "alice"
    assert git(root, "rev-parse", "a-sync") == tip == alice.tip()
    assert git(root, "show", "a-sync:messages/nux.jsonl") == '{"m":1}'
    assert git(root, "log", "-1", "--format=%an|%ae|%at|%cn|%ce|%ct|%s|%P", "a-sync") == (
        f"thrum|thrum@localhost|{SECONDS_SINCE_1970}|thrum|thrum@localhost|{SECONDS_SINCE_1970}"
        f"|sync: 1 message from alice@host|{FIRST}"
    )
    clean(root)
    assert contents(alice, tip) == {"events.jsonl": LINES, "messages/nux.jsonl": b'{"m":1}\n'}
    assert alice.blob_size(alice.files(tip)["events.jsonl"].object_id) == len(LINES)


def test_our_objects_and_gits_have_the_same_ids_and_modes(alice: GitRepository, top: Path) -> None:
    by_us = alice.add_blob(b"the same\n")
    assert alice.blob(by_us) == b"the same\n"
    assert by_us == git(top / "alice", "hash-object", "--stdin", stdin=b"the same\n")
    by_git = git(top / "alice", "hash-object", "-w", "--stdin", stdin=b"another\n")
    objects = top / "alice" / ".git" / "objects"
    paths = [objects / each[:2] / each[2:] for each in (by_us, by_git)]
    assert len({stat.S_IMODE(path.stat().st_mode) for path in paths}) == 1
    assert len({stat.S_IMODE(path.parent.stat().st_mode) for path in paths}) == 1


def test_an_object_that_is_there_is_not_written_again(alice: GitRepository, top: Path) -> None:
    write(alice, {"events.jsonl": LINES})
    objects = top / "alice" / ".git" / "objects"
    loose = {path: path.stat().st_ino for path in objects.glob("??/*")}
    alice.add_blob(LINES)
    assert {path: path.stat().st_ino for path in objects.glob("??/*")} == loose
    git(top / "alice", "gc", "-q")
    assert not list(objects.glob("??/*"))
    alice.add_blob(LINES)
    assert not list(objects.glob("??/*"))


def test_an_object_that_is_there_is_made_young_so_that_no_gc_takes_it(alice: GitRepository, top: Path) -> None:
    lost = alice.add_blob(b"no ref leads to it\n")
    alice.close_packs()
    path = top / "alice" / ".git" / "objects" / lost[:2] / lost[2:]
    os.utime(path, (0, 0))
    assert alice.add_blob(b"no ref leads to it\n") == lost
    alice.close_packs()
    git(top / "alice", "gc", "-q")
    assert alice.blob(lost) == b"no ref leads to it\n"


@pytest.mark.parametrize("rubbish", [b"", b"\0" * 30, b"x\x9crubbish"], ids=["empty", "zeros", "rubbish"])
def test_an_object_that_a_power_cut_left_broken_is_replaced(alice: GitRepository, top: Path, rubbish: bytes) -> None:
    object_id = alice.add_blob(LINES)
    assert alice.blob(object_id) == LINES
    path = top / "alice" / ".git" / "objects" / object_id[:2] / object_id[2:]
    path.chmod(0o600)
    path.write_bytes(rubbish)
    assert alice.add_blob(LINES) == object_id
    assert alice.blob(object_id) == LINES


def test_a_full_disk_leaves_no_rubbish_and_the_next_try_succeeds(alice: GitRepository, top: Path) -> None:
    data = os.urandom(200_000)
    objects = top / "alice" / ".git" / "objects"
    before = sorted(objects.rglob("*"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
        with pytest.raises(StoreFailed, match="could not write"):
            alice.add_blob(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path for path in objects.rglob("*") if path not in before and path.is_file()] == []
    assert alice.blob(alice.add_blob(data)) == data


def test_other_paths_travel_on_unchanged(alice: GitRepository, top: Path) -> None:
    blob = alice.add_blob(b"#!/bin/sh\n")
    names = [b"a.b", b"a/deep/er/x.sh", b"a0", b"messages/nux.jsonl", b"r\xe4tsel \xff", b"zz/y"]
    modes = dict.fromkeys(names, 0o100644) | {b"a/deep/er/x.sh": 0o100755, b"zz/y": 0o120000}
    entries = [TreeEntry(name, mode, blob) for name, mode in modes.items()]
    entries.append(TreeEntry(b"module", 0o160000, FIRST))
    commit = alice.add_commit(entries, alice.tip(), "sync", SECONDS_SINCE_1970)
    assert alice.move(alice.tip(), commit)
    assert sorted(alice.files(commit).values()) == sorted(entries)
    assert alice.add_commit(alice.files(commit).values(), FIRST, "sync", SECONDS_SINCE_1970) == commit
    clean(top / "alice")


def test_where_a_directory_is_no_file_can_be(alice: GitRepository) -> None:
    blob = alice.add_blob(LINES)
    paths = [b"messages", b"messages/nux.jsonl", b"messages/nux.jsonl/x"]
    commit = alice.add_commit([TreeEntry(path, 0o100644, blob) for path in paths], "", "sync", SECONDS_SINCE_1970)
    assert list(alice.files(commit)) == ["messages/nux.jsonl/x"]


def _tree(root: Path, *entries: tuple[str, str, str]) -> str:
    """A tree of (mode, name, id), whatever git thinks of it."""
    data = b"".join(mode.encode() + b" " + name.encode() + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    return git(root, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data)


def test_names_that_lead_elsewhere_are_left_out(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    blob = alice.add_blob(LINES)
    inner = _tree(root, ("100644", "x", blob))
    tree = _tree(
        root, *[("40000", name, inner) for name in (".", "..", ".GIT", ".git", "ok")], ("100644", "a/../b", blob)
    )
    commit = git(root, "commit-tree", tree, "-m", "hostile")
    assert list(alice.files(commit)) == ["ok/x"]


@pytest.mark.parametrize("mode", ["60000", "0", "20000", "100664", "100711", "7777777777777100644", "10000100644"])
def test_odd_modes_are_read_as_git_reads_them_and_its_gc_still_runs(alice: GitRepository, top: Path, mode: str) -> None:
    root = top / "alice"
    odd = "2" * 40 if int(mode, 8) & 0o170000 != 0o100000 else alice.add_blob(LINES)
    tree = _tree(root, (mode, "README", odd), ("100644", "events.jsonl", alice.add_blob(LINES)))
    assert alice.move(alice.tip(), git(root, "commit-tree", tree, "-p", alice.tip(), "-m", "odd"))
    ours = alice.files(alice.tip())["README"]
    assert git(root, "ls-tree", "a-sync", "README").startswith(f"{ours.mode:06o} ")
    ensure_branch(layout_of(root), os.environ)
    git(layout_of(root).branch_dir, "status", "--porcelain")
    git(root, "gc", "--quiet")


def test_a_tree_that_is_a_bomb_is_refused_at_once(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    tree, mode = alice.add_blob(LINES), "100644"
    for _ in range(10):
        tree = _tree(root, *[(mode, f"d{number}", tree) for number in range(10)])
        mode = "40000"
    with pytest.raises(StoreFailed, match=f"more than {FILES_MAX:,} files"):
        alice.files(git(root, "commit-tree", tree, "-m", "bomb"))


def test_a_tree_deeper_than_any_directory_is_read_to_a_bound(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    tree = _tree(root, ("100644", "x", alice.add_blob(LINES)))
    for _ in range(500):
        tree = _tree(root, ("40000", "d", tree))
    assert alice.files(git(root, "commit-tree", tree, "-m", "deep")) == {}


def test_the_branch_is_moved_only_from_where_it_is(alice: GitRepository, top: Path) -> None:
    old = alice.tip()
    new = write(alice, {"events.jsonl": LINES})
    assert not alice.move(old, old)
    assert alice.tip() == new
    assert not alice.move("", old)
    assert not alice.move("1" * 40, old)
    assert alice.tip() == new
    clean(top / "alice")


def test_a_branch_that_somebody_took_away_is_made_anew(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES})
    git(top / "alice", "update-ref", "-d", "refs/heads/a-sync")
    assert alice.tip() == ""
    assert not alice.move(FIRST, tip)
    assert alice.move("", tip)
    assert alice.tip() == tip
    clean(top / "alice")


def test_a_worktree_that_somebody_took_away_is_made_anew(alice: GitRepository, top: Path) -> None:
    shutil.rmtree(top / "alice" / ".git" / "worktrees")
    write(alice, {"events.jsonl": LINES})
    clean(top / "alice")


@pytest.mark.parametrize("age_seconds", [0, 3600])
def test_a_lock_left_by_a_kill_is_removed_when_it_is_old(alice: GitRepository, top: Path, age_seconds: int) -> None:
    lock = top / "alice" / ".git" / "refs" / "heads" / "a-sync.lock"
    lock.touch()
    then = lock.stat().st_mtime - age_seconds
    os.utime(lock, (then, then))
    if age_seconds:
        write(alice, {"events.jsonl": LINES})
        assert not lock.exists()
    else:
        with pytest.raises(StoreFailed, match=r"a-sync\.lock"):
            write(alice, {"events.jsonl": LINES})
        assert alice.tip() == FIRST


def test_our_ref_locked_by_a_killed_fetch_is_freed(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    sync(bob)
    alice.fetch()
    tip = write(bob, {"events.jsonl": LINES})
    sync(bob)
    lock = top / "alice" / ".git" / "refs" / "thrum" / "origin" / "a-sync.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (1_000_000_000, 1_000_000_000))
    assert alice.fetch() == tip


def test_what_one_pushes_the_other_fetches(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    assert (alice.fetch(), alice.remote_tip()) == ("", "")
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    assert alice.remote_tip() == tip
    assert bob.remote_tip() == ""
    assert bob.fetch() == tip == bob.remote_tip()
    assert contents(bob, tip) == {"events.jsonl": LINES}
    assert bob.descends(tip, bob.tip())
    assert not bob.descends(bob.tip(), tip)
    assert bob.move(bob.tip(), tip)
    assert bob.push(tip)
    clean(top / "bob")


def test_who_is_slower_at_pushing_hears_so_and_goes_on(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    first = write(alice, {"events.jsonl": LINES})
    lost = write(bob, {"messages/nux.jsonl": LINES})
    assert alice.push(first)
    assert not bob.push(lost)
    assert git(top / "origin.git", "rev-parse", "a-sync") == first
    assert bob.fetch() == first
    assert not bob.descends(lost, first)
    assert not bob.push(lost)
    files = bob.files(first) | bob.files(lost)
    anew = bob.add_commit(files.values(), first, "sync", SECONDS_SINCE_1970)
    assert bob.move(lost, anew)
    assert bob.push(anew)
    assert alice.fetch() == anew
    clean(top / "bob")


def test_a_branch_deleted_at_the_remote_is_seen_and_pushed_again(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    git(top / "origin.git", "update-ref", "-d", "refs/heads/a-sync")
    assert alice.fetch() == ""
    assert alice.remote_tip() == ""
    assert alice.push(tip)
    assert alice.remote_tip() == tip


def test_a_branch_rewritten_at_the_remote_is_followed(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    git(top / "origin.git", "update-ref", "refs/heads/a-sync", FIRST)
    assert alice.fetch() == FIRST
    assert alice.tip() == tip


def test_history_is_compared_beyond_the_nearest_commits(alice: GitRepository) -> None:
    commits = [alice.tip()]
    files = {"events.jsonl": TreeEntry(b"events.jsonl", 0o100644, alice.add_blob(LINES))}
    for number in range(40):
        commits.append(alice.add_commit(files.values(), commits[-1], f"sync {number}", SECONDS_SINCE_1970))
    assert alice.descends(commits[-1], commits[0])
    assert alice.descends(commits[-1], commits[-2])
    assert not alice.descends(commits[0], commits[-1])
    with pytest.raises(StoreFailed):
        alice.descends(commits[-1], "1" * 40)


def test_nothing_else_is_fetched_or_pushed(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    root = top / "bob"
    git(root, "commit", "-q", "--allow-empty", "-m", "mine")
    git(root, "tag", "-a", "v1", "-m", "v1")
    git(root, "config", "push.followTags", "true")
    git(root, "config", "remote.origin.push", "refs/heads/*:refs/heads/*")
    sync(bob)
    assert git(top / "origin.git", "for-each-ref", "--format=%(refname)").splitlines() == [
        "refs/heads/a-sync",
        "refs/heads/main",
    ]
    git(root, "push", "-q", "origin", "main", "v1")
    alices = top / "alice"
    before = git(alices, "for-each-ref", "refs/heads/main", "refs/remotes/origin/main", "refs/tags")
    git(alices, "config", "fetch.prune", "true")
    git(alices, "config", "remote.origin.tagOpt", "--tags")
    assert alice.fetch() == bob.tip()
    assert git(alices, "for-each-ref", "refs/heads/main", "refs/remotes/origin/main", "refs/tags") == before
    assert not (alices / ".git" / "FETCH_HEAD").exists()


def test_a_clone_of_one_branch_follows_ours_too(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    layout = make_clone(top, "single", f"file://{top}/origin.git", "--single-branch", "--branch", "main", "--depth=1")
    with open_repository(layout, os.environ) as single:
        assert single.fetch() == tip
        assert single.move(single.tip(), tip)
        newer = write(single, {"events.jsonl": LINES * 2})
        assert single.push(newer)
        assert single.remote_tip() == newer
        assert single.descends(newer, FIRST)
    assert alice.fetch() == newer


def test_a_shallow_clone_knows_no_more_than_git_does(alice: GitRepository, top: Path) -> None:
    for count in (1, 2, 3):
        tip = write(alice, {"events.jsonl": LINES * count})
    sync(alice)
    layout = make_clone(top, "shallow", f"file://{top}/origin.git", "--depth=1", "--no-single-branch")
    with open_repository(layout, os.environ) as shallow:
        newer = write(alice, {"events.jsonl": LINES * 4})
        sync(alice)
        assert shallow.fetch() == newer
        own = write(shallow, {"messages/nux.jsonl": LINES})
        assert not shallow.descends(own, newer)
        assert not shallow.descends(newer, own)
        assert shallow.descends(own, tip)


def test_the_users_hooks_do_not_run(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    hooks = root / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "reference-transaction", "post-update", "update", "pre-auto-gc", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{top}/ran-{name}'\nexit 1\n")
        (hooks / name).chmod(0o755)
    git(root, "config", "core.hooksPath", str(hooks))
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    assert alice.fetch() == tip
    assert list(top.glob("ran-*")) == []


def test_packed_refs_are_read_and_moved(alice: GitRepository, top: Path) -> None:
    sync(alice)
    git(top / "alice", "pack-refs", "--all")
    git(top / "alice", "branch", "a-sync-other", "main")
    assert (alice.tip(), alice.remote_tip()) == (FIRST, FIRST)
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    assert (alice.tip(), alice.remote_tip()) == (tip, tip)


def _rebase_in_progress(root: Path) -> None:
    git(root, "config", "sequence.editor", "sed -i 's/^pick/edit/'")
    git(root, "commit", "-q", "--allow-empty", "-m", "one")
    git(root, "rebase", "-q", "-i", "--root", check=False)
    assert (root / ".git" / "rebase-merge").is_dir()


@pytest.mark.parametrize(
    "disturb",
    [
        lambda root: git(root, "gc", "-q", "--prune=now"),
        lambda root: git(root, "repack", "-a", "-d", "-q"),
        lambda root: git(root, "worktree", "prune", "--expire=now"),
        lambda root: git(root, "stash", "-u"),
        lambda root: git(root, "clean", "-fdxq"),
        lambda root: git(root, "checkout", "-q", "--detach"),
        lambda root: git(root, "pack-refs", "--all"),
        lambda root: git(root, "reflog", "expire", "--expire=all", "--all"),
        lambda root: git(root, "remote", "prune", "origin"),
        lambda root: git(root, "commit-graph", "write", "--reachable"),
        lambda root: (git(root, "gc", "-q"), git(root, "multi-pack-index", "write")),
        _rebase_in_progress,
    ],
    ids=[
        "gc",
        "repack",
        "worktree prune",
        "stash",
        "clean",
        "detached head",
        "pack-refs",
        "reflog",
        "prune",
        "commit-graph",
        "midx",
        "rebase",
    ],
)
def test_what_the_user_does_with_git_does_no_harm(
    alice: GitRepository, bob: GitRepository, top: Path, disturb: Callable[[Path], object]
) -> None:
    root = top / "alice"
    before = write(alice, {"events.jsonl": LINES})
    sync(alice)
    (root / "untracked").write_text("x\n")
    disturb(root)
    status = git(root, "rev-parse", "--abbrev-ref", "HEAD")
    assert contents(alice, before) == {"events.jsonl": LINES}
    tip = write(alice, {"events.jsonl": LINES * 2})
    assert sync(alice) == tip
    assert sync(bob) == tip
    bobs = write(bob, {"messages/nux.jsonl": LINES})
    assert sync(bob) == bobs == sync(alice)
    assert git(root, "rev-parse", "--abbrev-ref", "HEAD") == status
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert git(layout_of(root).branch_dir, "status", "--porcelain") == ""


def test_what_git_packed_and_removed_is_found_without_opening_anew(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES})
    blob = alice.files(tip)["events.jsonl"].object_id
    for number in range(3):
        git(top / "alice", "commit", "-q", "--allow-empty", "-m", str(number))
        git(top / "alice", "gc", "-q", "--prune=now")
        assert alice.blob(blob) == LINES
        assert alice.blob_size(blob) == len(LINES)


@pytest.mark.parametrize("delta", ["true", "false"])
def test_what_packed_journals_hold_is_told_without_a_process(alice: GitRepository, top: Path, delta: str) -> None:
    """A push of 2,000 journals comes as a pack: a process for each took half a minute."""
    lines = [b'{"e":%d}\n' % number for number in range(5_000)]
    wanted = {alice.add_blob(data): len(data) for data in (b"".join(lines[: 7**n]) for n in range(6))}
    files = {f"messages/a{number}.jsonl": alice.blob(blob) for number, blob in enumerate(wanted)}
    write(alice, files)
    root = top / "alice"
    git(root, "-c", f"repack.useDeltaBaseOffset={delta}", "repack", "-adfq", "--depth=50")
    git(root, "prune-packed")
    kinds = git(root, "verify-pack", "-v", *map(str, (root / ".git" / "objects" / "pack").glob("*.idx")))
    assert "chain length" in kinds
    with open_reader(root / ".git", {"PATH": "/nowhere"}) as reader:
        assert {blob: reader.blob_size(blob) for blob in wanted} == wanted


def test_a_size_is_told_without_going_through_all_that_is_packed(
    alice: GitRepository, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packs are the user's own too: millions of objects."""
    blob = alice.add_blob(LINES)
    write(alice, {"events.jsonl": LINES})
    git(top / "alice", "repack", "-adfq")
    git(top / "alice", "prune-packed")

    def all_of_it(_index: object) -> None:
        raise AssertionError("goes through the whole index")

    monkeypatch.setattr("dulwich.pack.PackIndex.__iter__", all_of_it)
    monkeypatch.setattr("dulwich.pack.PackIndex2._itersha", all_of_it, raising=False)
    with open_reader(top / "alice" / ".git", {"PATH": "/nowhere"}) as reader:
        assert reader.blob_size(blob) == len(LINES)
        with pytest.raises(NotAvailable):  # nor is there a git to ask
            reader.blob_size("1" * 40)


def test_a_lost_object_is_told(alice: GitRepository) -> None:
    for look in (lambda: alice.blob("1" * 40), lambda: alice.blob_size("1" * 40), lambda: alice.files("1" * 40)):
        with pytest.raises(StoreFailed):
            look()


def test_a_ref_that_a_power_cut_emptied_is_told(alice: GitRepository, top: Path) -> None:
    (top / "alice" / ".git" / "refs" / "heads" / "a-sync").write_text("")
    with pytest.raises(StoreFailed, match="holds no commit"):
        alice.tip()


def test_in_anothers_repository_nothing_is_opened(
    alice: GitRepository, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    # Git finds it to be root's as well, so say that it may not be trusted.
    environ = {**os.environ, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    with pytest.raises(UnsafeRepository), open_repository(layout_of(top / "alice"), environ):
        pass


def test_another_remote_than_origin_will_do(alice: GitRepository, top: Path) -> None:
    git(top, "init", "-q", "--bare", "team.git")
    git(top / "alice", "remote", "add", "team/x", str(top / "team.git"))
    with open_repository(layout_of(top / "alice"), os.environ, remote="team/x") as repo:
        tip = write(repo, {"events.jsonl": LINES})
        assert repo.push(tip)
        assert repo.fetch() == tip == repo.remote_tip()
        assert git(top / "team.git", "rev-parse", "a-sync") == tip
    assert git(top / "alice", "rev-parse", "refs/thrum/team/x/a-sync") == tip


@pytest.mark.parametrize("name", ["nosuch", "", "-x", "--upload-pack=touch /tmp/owned"])
def test_a_remote_that_is_not_configured_is_none(alice: GitRepository, top: Path, name: str) -> None:
    with open_repository(layout_of(top / "alice"), os.environ, remote=name) as repo:
        assert repo.remote() is None
        assert repo.peek() is None
        with pytest.raises(RemoteFailed) as caught:
            repo.fetch()
        assert caught.value.trouble == "missing"


def test_the_remote_is_told_by_its_effective_url(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    git(root, "remote", "set-url", "origin", "team:app")
    git(root, "config", f"url.{top}/.insteadOf", "team:")
    (top / "app").symlink_to(top / "origin.git")
    info = alice.remote()
    assert info is not None
    assert (info.name, info.url, info.path) == ("origin", f"{top}/app", f"{top}/app")
    assert alice.fetch() == ""
    git(root, "remote", "set-url", "origin", "https://ann:secret@example.com/x.git?token=secret")
    git(root, "remote", "set-url", "--push", "origin", "ssh://git:secret@example.com/x.git")
    info, (pushed,) = alice.remote(), alice.push_remotes()
    assert info is not None
    assert (info.url, info.path) == ("https://example.com/x.git", "")
    assert (pushed.url, pushed.path) == ("ssh://git@example.com/x.git", "")


@pytest.mark.parametrize("options", [["--add"], ["--add", "--push"]])
def test_every_place_that_is_pushed_to_is_told(alice: GitRepository, top: Path, options: list[str]) -> None:
    first, second = str(top / "origin.git"), str(top / "second.git")
    git(top, "init", "-q", "--bare", second)
    if "--push" in options:
        git(top / "alice", "remote", "set-url", "--push", "origin", first)
    git(top / "alice", "remote", "set-url", *options, "origin", second)
    tip = write(alice, {"events.jsonl": LINES})
    assert [info.path for info in alice.push_remotes()] == [first, second]
    assert alice.push(tip)
    assert git(Path(second), "rev-parse", "a-sync") == tip


def test_nothing_is_pushed_while_others_may_read_one_of_the_places(top: Path) -> None:
    make_origin(top)
    layout = make_clone(top, "alice", "origin.git")
    private, open_one = RemoteInfo("origin", "/a", "/a"), RemoteInfo("origin", "host.invalid:x", "")
    visibility = Visibility(layout)
    with open_repository(layout, os.environ) as repo:
        assert visibility.may_push([private], repo.who_can_read)
        assert not visibility.may_push([], repo.who_can_read)
        assert not visibility.may_push([private, open_one], repo.who_can_read)
        assert visibility.unconfirmed([private, open_one], repo.who_can_read) == [(open_one, "unknown")]
        confirm(layout, open_one.url)
        assert visibility.may_push([private, open_one], repo.who_can_read)


def test_who_can_read_a_remote_is_not_asked_in_every_round(top: Path) -> None:
    make_origin(top)
    layout = make_clone(top, "alice", "origin.git")
    remotes = [RemoteInfo("origin", "git@host.invalid:x", "")]
    visibility, asked = Visibility(layout), list[RemoteInfo]()

    def ask(info: RemoteInfo) -> Readers:
        asked.append(info)
        return "unknown"

    for _ in range(3):
        assert not visibility.may_push(remotes, ask)
    assert len(asked) == 1
    visibility.forget(private=False)
    assert not visibility.may_push(remotes, ask)
    assert len(asked) == 2, "enable and force ask afresh"
    visibility.forget(private=True)
    confirm(layout, remotes[0].url)
    assert visibility.may_push(remotes, ask)
    assert len(asked) == 2, "what is confirmed need not be asked"


def test_a_look_from_beside_changes_when_the_remote_moves(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    seen = [alice.peek()]

    def changed() -> bool:
        seen.append(alice.peek())
        return seen[-1] != seen[-2]

    assert not changed()
    sync(bob)
    assert changed()
    assert not changed()
    write(bob, {"events.jsonl": LINES})
    assert not changed()
    sync(bob)
    assert changed()
    git(top / "origin.git", "pack-refs", "--all")
    assert changed()
    git(top / "origin.git", "update-ref", "-d", "refs/heads/a-sync")
    assert changed()
    (top / "origin.git").rename(top / "gone")
    assert changed()
    assert not changed()


@pytest.mark.parametrize("layout", ["", "/.git", "worktree"])
def test_a_look_from_beside_finds_the_refs_of_every_layout(alice: GitRepository, top: Path, layout: str) -> None:
    root = top / "other"
    git(top, "clone", "-q", "origin.git", "other")
    target = f"{root}{layout}"
    if layout == "worktree":
        target = str(top / "linked")
        git(root, "worktree", "add", "-q", target)
    git(top / "alice", "remote", "set-url", "origin", target)
    before = alice.peek()
    git(root, "branch", "a-sync", "main")
    assert alice.peek() != before


def test_what_is_no_repository_does_not_hold_up_a_look_from_beside(alice: GitRepository, top: Path) -> None:
    os.mkfifo(top / "fifo")
    git(top / "alice", "remote", "set-url", "origin", str(top / "fifo"))
    assert alice.peek() == "none"
    git(top / "alice", "remote", "set-url", "origin", "file:///tmp/x%00y")
    assert alice.peek() is None


def test_a_remote_elsewhere_is_not_looked_at_from_beside(alice: GitRepository, top: Path) -> None:
    for url in ("https://example.com/x", "git@example.com:x", "host:x", "git://example.com/x", "ext::sh -c x"):
        git(top / "alice", "remote", "set-url", "origin", url)
        assert alice.peek() is None, url


def test_a_sha256_repository_will_do(top: Path) -> None:
    git(top, "init", "-q", "--bare", "--object-format=sha256", "origin.git")
    layout: list[Layout] = []
    for name in ("alice", "bob"):
        git(top, "init", "-q", "--object-format=sha256", name)
        git(top / name, "remote", "add", "origin", "../origin.git")
        layout.append(layout_of(top / name))
        ensure_branch(layout[-1], os.environ)
    with open_repository(layout[0], os.environ) as alice, open_repository(layout[1], os.environ) as bob:
        tip = write(alice, {"events.jsonl": LINES, "messages/nux.jsonl": LINES})
        assert len(tip) == 64
        assert sync(alice) == tip == sync(bob)
        newer = write(bob, {"events.jsonl": LINES * 3})
        assert sync(bob) == newer == sync(alice)
        assert contents(alice, newer) == {"events.jsonl": LINES * 3, "messages/nux.jsonl": LINES}
        alice.maintain()
        assert contents(alice, newer) == {"events.jsonl": LINES * 3, "messages/nux.jsonl": LINES}
        assert alice.descends(newer, tip)
    clean(top / "alice")


def test_a_partial_clone_will_do(alice: GitRepository, top: Path) -> None:
    git(top / "origin.git", "config", "uploadpack.allowFilter", "true")
    first = write(alice, {"events.jsonl": LINES})
    sync(alice)
    layout = make_clone(top, "partial", f"file://{top}/origin.git", "--filter=blob:none")
    with open_repository(layout, os.environ) as partial:
        assert sync(partial) == first
        assert contents(partial, first) == {"events.jsonl": LINES}
        tip = write(partial, {"messages/nux.jsonl": LINES})
        assert sync(partial) == tip == sync(alice)
        newer = write(alice, {"messages/nux.jsonl": LINES * 9})
        assert sync(alice) == newer == partial.fetch()
        git(top / "partial", "remote", "set-url", "origin", "/nowhere/at/all")
        assert contents(partial, newer) == {"events.jsonl": LINES, "messages/nux.jsonl": LINES * 9}
        partial.maintain()
        assert contents(partial, newer) == {"events.jsonl": LINES, "messages/nux.jsonl": LINES * 9}
    assert git(top / "partial", "fsck", "--strict", "--no-dangling") == ""


def test_a_shared_repository_keeps_its_modes(alice: GitRepository, top: Path) -> None:
    git(top, "init", "-q", "--shared=group", "shared")
    root = top / "shared"
    layout = layout_of(root)
    ensure_branch(layout, os.environ)
    with open_repository(layout, os.environ) as repo:
        object_id = repo.add_blob(b"of the group\n")
    by_git = git(root, "hash-object", "-w", "--stdin", stdin=b"of git\n")
    objects = root / ".git" / "objects"
    paths = [objects / each[:2] / each[2:] for each in (object_id, by_git)]
    assert len({stat.S_IMODE(path.stat().st_mode) for path in paths}) == 1
    assert len({stat.S_IMODE(path.parent.stat().st_mode) for path in paths}) == 1


def test_what_is_cut_between_two_talks_does_not_begin_the_next(alice: GitRepository, top: Path) -> None:
    tip = write(alice, {"events.jsonl": LINES})
    alice.cut()
    with pytest.raises(RemoteFailed, match="stopped"):
        alice.push(tip)
    assert git(top / "origin.git", "for-each-ref", "refs/heads/a-sync") == ""
    alice.resume()
    assert alice.push(tip)


def test_who_can_read_is_a_question_that_a_stop_ends(alice: GitRepository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        answers: list[Readers] = []
        thread = threading.Thread(target=lambda: answers.append(alice.who_can_read(RemoteInfo("origin", url, ""))))
        thread.start()
        with server.accept()[0]:  # and says nothing
            begun = time.monotonic()
            alice.stop()
            thread.join(30)
        assert time.monotonic() - begun < 10
        assert answers == ["unknown"]
    wait_until(
        lambda: not [each for each in psutil.process_iter(["cmdline"]) if url in (each.info["cmdline"] or ())],
        "its end",
    )


def test_a_talk_under_way_can_be_ended_from_another_thread(alice: GitRepository, top: Path) -> None:
    begun = top / "begun"
    os.mkfifo(begun)
    command = f"sh -c 'echo > {begun}; sleep 600' -"
    git(top / "alice", "config", "remote.origin.uploadpack", command)
    caught: list[RemoteFailed] = []

    def talk() -> None:
        try:
            alice.fetch()
        except RemoteFailed as failed:
            caught.append(failed)

    thread = threading.Thread(target=talk)
    thread.start()
    begun.read_text()
    alice.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert "stopped" in caught[0].reason
    left = subprocess.run(["pgrep", "-f", str(begun)], capture_output=True, text=True)
    assert left.stdout == "", sys.platform
