"""What is the user's of a repository and what is thrum's: git's own commands and rounds meet nowhere (promise 5)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git.clones import contents, git, layout_of, make_clone, make_origin, sync, write
from tests.support.git.opened_repository import open_repository
from tests.support.git.servers import PASSWORD, USER, open_http
from thrum.model.errors import NotAvailable
from thrum.sync.branch import ensure_branch, read_branch
from thrum.sync.mirror_refspecs import Meeting, meetings, writer
from thrum.sync.repository import GitRepository
from thrum.sync.worktree import on_branch

LINES = b'{"e":1}\n{"e":2}\n'
MIRROR = "+refs/*:refs/*"
USUAL = "+refs/heads/*:refs/remotes/origin/*"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def alice(top: Path) -> Iterator[GitRepository]:
    make_origin(top)
    with open_repository(make_clone(top, "alice", "origin.git"), os.environ) as repo:
        yield repo


@pytest.fixture
def bob(alice: GitRepository, top: Path) -> Iterator[GitRepository]:
    with open_repository(make_clone(top, "bob", "origin.git"), os.environ) as repo:
        yield repo


def users(root: Path) -> dict[str, object]:
    """All of a git directory that is not thrum's: every ref but ours, and every file that git keeps beside objects."""
    git_dir = root / git(root, "rev-parse", "--git-common-dir")
    refs = git(root, "for-each-ref", "--format=%(refname) %(symref) %(objectname)").splitlines()
    ours = ("refs/heads/a-sync ", "refs/thrum/")
    found: dict[str, object] = {"refs": [line for line in refs if not line.startswith(ours)]}
    skipped = {"objects", "thrum-sync", "worktrees", "refs", "logs"}
    for path in sorted(path for path in git_dir.rglob("*") if path.is_file()):
        where = path.relative_to(git_dir)
        if where.parts[0] not in skipped or (where.parts[0] == "logs" and "a-sync" not in where.parts):
            found[str(where)] = path.read_bytes()
    return found


@pytest.mark.parametrize("refspecs", [[USUAL], ["+refs/heads/main:refs/remotes/origin/main"], [MIRROR]], ids=str)
def test_neither_fetch_nor_push_moves_anything_of_the_users(
    alice: GitRepository, bob: GitRepository, top: Path, refspecs: list[str]
) -> None:
    write(bob, {"events.jsonl": LINES})
    sync(bob)
    root = top / "alice"
    git(root, "fetch", "-q")
    git(root, "remote", "set-head", "origin", "-d")  # newer versions of git make it anew with a fetch
    git(root, "config", "--unset-all", "remote.origin.fetch")
    for refspec in refspecs:
        git(root, "config", "--add", "remote.origin.fetch", refspec)
    for name in ("fetch.prune", "fetch.writeCommitGraph", "remote.origin.mirror"):
        git(root, "config", name, "true")
    before = users(root)
    assert "FETCH_HEAD" in before and "refs/remotes/origin/a-sync" in str(before["refs"])
    for number in range(3):
        theirs = write(bob, {"events.jsonl": LINES * (number + 2)})
        sync(bob)
        assert alice.fetch() == theirs
        assert alice.move(alice.tip(), theirs)
        ours = write(alice, {"messages/nux.jsonl": LINES * (number + 1)})
        assert alice.push(ours)
        assert alice.remote_tip() == ours == sync(bob)
        assert users(root) == before
    assert git(top / "origin.git", "for-each-ref", "--format=%(refname)").split() == [
        "refs/heads/a-sync",
        "refs/heads/main",
    ]


def test_what_the_users_fetch_brings_or_prunes_does_not_matter(
    alice: GitRepository, bob: GitRepository, top: Path
) -> None:
    first = write(bob, {"events.jsonl": LINES})
    sync(bob)
    assert alice.fetch() == first
    second = write(bob, {"events.jsonl": LINES * 2})
    sync(bob)
    git(top / "alice", "fetch", "-q", "--all", "--prune")
    assert alice.remote_tip() == first, "what thrum has seen, not the user"
    assert alice.fetch() == second
    git(top / "alice", "update-ref", "-d", "refs/remotes/origin/a-sync")
    git(top / "alice", "remote", "prune", "origin")
    assert alice.remote_tip() == second
    assert alice.move(alice.tip(), second)
    assert alice.push(write(alice, {"messages/nux.jsonl": LINES}))


def test_what_an_earlier_version_had_seen_is_taken_over(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    first = write(bob, {"events.jsonl": LINES})
    sync(bob)
    root = top / "alice"
    git(root, "fetch", "-q")
    (root / ".git/worktrees/a-sync/HEAD").write_text("ref: refs/heads/a-sync\n")
    assert alice.remote_tip() == first == alice.fetch()
    ensure_branch(layout_of(root), os.environ)
    assert alice.move(alice.tip(), first)
    assert git(layout_of(root).branch_dir, "rev-parse", "HEAD") == first
    with read_branch(layout_of(root), os.environ) as branch:
        assert branch is not None
        assert [entry.path for entry in branch.at_remote("origin") or ()] == [b"events.jsonl"]
    second = write(alice, {"events.jsonl": LINES * 2})
    assert alice.push(second)
    assert alice.remote_tip() == second
    assert git(root, "rev-parse", "refs/remotes/origin/a-sync") == first


def test_a_push_obeys_all_that_is_configured_of_its_remote(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    tip = write(alice, {"events.jsonl": LINES})
    with open_http(top, password=True) as url:
        git(top / "origin.git", "config", "http.receivepack", "true")
        git(root, "config", f"url.{url}/.pushInsteadOf", "shop:")
        git(root, "config", f"url.{top}/.insteadOf", "shop:")
        git(root, "config", "credential.helper", f"!f() {{ echo username={USER}; echo password={PASSWORD}; }}; f")
        git(root, "remote", "set-url", "origin", "shop:origin.git")
        assert alice.push(tip)
        assert git(top / "origin.git", "rev-parse", "a-sync") == tip
    git(root, "remote", "set-url", "origin", f"file://{top}/origin.git")
    git(root, "config", "remote.origin.receivepack", f"touch {top}/asked; git-receive-pack")
    environ = {**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.abbrev", "GIT_CONFIG_VALUE_0": "12"}
    with open_repository(layout_of(root), environ) as again:
        tip = write(again, {"events.jsonl": LINES * 2})
        assert again.push(tip)
    assert (top / "asked").exists()
    assert git(top / "origin.git", "rev-parse", "a-sync") == tip


@pytest.mark.parametrize("value", ["", "refuse", "warn", "ignore", "updateInstead"])
def test_a_push_from_outside_leaves_the_journals_alone(alice: GitRepository, top: Path, value: str) -> None:
    bobs = make_clone(top, "bob", "origin.git")
    root = top / "bob"
    if value:
        git(root, "config", "receive.denyCurrentBranch", value)
    git(top / "alice", "remote", "set-url", "origin", str(root))
    with open_repository(bobs, os.environ) as bob:
        write(bob, {"events.jsonl": LINES})
        (bobs.branch_dir / "events.jsonl").write_bytes(LINES + b"not committed yet\n")
        stat = (bobs.branch_dir / "events.jsonl").stat()
        assert alice.move(alice.tip(), alice.fetch())
        tip = write(alice, {"events.jsonl": LINES * 2, "messages/nux.jsonl": LINES})
        assert alice.push(tip)
        assert bob.tip() == tip
        now = (bobs.branch_dir / "events.jsonl").stat()
        assert (now.st_ino, now.st_size, now.st_mtime_ns) == (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        assert not (bobs.branch_dir / "messages" / "nux.jsonl").exists()
        newer = write(bob, {"messages/furiosa.jsonl": LINES})
        assert git(bobs.branch_dir, "status", "--porcelain") == ""
        assert contents(bob, newer)["messages/nux.jsonl"] == LINES
        assert alice.fetch() == newer
    assert git(root, "status", "--porcelain") == ""


@pytest.mark.parametrize("linked", [False, True])
def test_a_branch_that_somebody_looks_at_is_not_moved_under_them(alice: GitRepository, top: Path, linked: bool) -> None:
    root = where = top / "alice"
    tip = write(alice, {"events.jsonl": LINES})
    if linked:
        where = top / "linked"
        git(root, "worktree", "add", "-q", str(where), "a-sync")
    else:
        git(root, "switch", "-q", "a-sync")
    with pytest.raises(NotAvailable, match=f"checked out in {where}") as caught:
        write(alice, {"events.jsonl": LINES * 2})
    assert alice.tip() == tip
    assert git(where, "status", "--porcelain") == ""
    assert ensure_branch(layout_of(root), os.environ).tip == tip, "a daemon starts all the same"
    command = caught.value.remedy.partition(", then")[0].replace("OTHER_BRANCH", "-c other")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    newer = write(alice, {"events.jsonl": LINES * 2})
    assert alice.tip() == newer
    assert on_branch(layout_of(root).common_dir or root, layout_of(root).branch_dir) is None


@pytest.mark.parametrize(
    ("ref", "refspecs", "found"),
    [
        ("refs/heads/a-sync", [USUAL], ""),
        ("refs/heads/a-sync", [MIRROR], MIRROR),
        ("refs/heads/a-sync", ["refs/heads/*:refs/heads/*"], "refs/heads/*:refs/heads/*"),
        ("refs/heads/a-sync", ["+refs/heads/a-*c:refs/heads/a-*c"], "+refs/heads/a-*c:refs/heads/a-*c"),
        ("refs/heads/a-sync", ["refs/heads/a-sync:refs/heads/a-sync"], "refs/heads/a-sync:refs/heads/a-sync"),
        ("refs/heads/a-sync", ["refs/heads/main", "+refs/tags/*:refs/tags/*", ""], ""),
        ("refs/heads/a-sync", [MIRROR, "^refs/heads/a-sync"], ""),
        ("refs/heads/a-sync", ["^refs/heads/a-*", MIRROR], ""),
        ("refs/heads/a-sync", [MIRROR, "^refs/heads/main"], MIRROR),
        ("refs/heads/a-sync", ["+refs/other/*:refs/heads/*", "^refs/heads/a-sync"], "+refs/other/*:refs/heads/*"),
        ("refs/thrum/origin/a-sync", [MIRROR, "^refs/heads/a-sync"], MIRROR),
        ("refs/thrum/origin/a-sync", [MIRROR, "^refs/thrum/*"], ""),
    ],
)
def test_which_refspec_writes_to_a_ref(ref: str, refspecs: list[str], found: str, top: Path) -> None:
    assert writer(ref, refspecs) == found
    # Git's own word for it.
    git(top, "init", "-q", "--bare", "there.git")
    commit = git(top / "there.git", "commit-tree", git(top / "there.git", "mktree"), "-m", "x")
    for name in (ref, "refs/other/a-sync", "refs/heads/main"):
        git(top / "there.git", "update-ref", name, commit)
    git(top, "init", "-q", "--bare", "here.git")
    here = top / "here.git"
    git(here, "remote", "add", "origin", "../there.git")
    git(here, "config", "--unset-all", "remote.origin.fetch")
    for refspec in refspecs:
        git(here, "config", "--add", "remote.origin.fetch", refspec) if refspec else None
    git(here, "fetch", "-q")
    assert git(here, "for-each-ref", ref).split()[:1] == ([commit] if found else [])


def test_a_mirror_is_told_with_what_keeps_it_off(alice: GitRepository, top: Path) -> None:
    root, common = top / "alice", top / "alice/.git"
    assert meetings(common, os.environ) == []
    git(root, "config", "remote.origin.fetch", MIRROR)
    (met,) = meetings(common, os.environ)
    assert met[:2] == ("origin", MIRROR) and str(met) == "git fetch origin moves a-sync, too (+refs/*:refs/*)"
    tip = write(alice, {"events.jsonl": LINES})
    assert alice.push(tip)
    newer = write(alice, {"events.jsonl": LINES * 2})
    git(root, "config", "remote.origin.mirror", "true")
    subprocess.run(met.remedy, shell=True, check=True, cwd=root)
    assert meetings(common, os.environ) == []
    git(root, "fetch", "-q", "--prune", "--update-head-ok")
    assert (alice.tip(), git(root, "rev-parse", "refs/thrum/origin/a-sync")) == (newer, tip)
    assert meetings(common, os.environ) == list[Meeting]()


def test_a_mirrors_fetch_takes_the_branch_back_and_thrum_goes_on(alice: GitRepository, top: Path) -> None:
    git(top, "clone", "-q", "--mirror", "origin.git", "mirror.git")
    git(top / "mirror.git", "worktree", "add", "-q", "-b", "feat", str(top / "feat"))
    ensure_branch(layout_of(top / "feat"), os.environ)
    with open_repository(layout_of(top / "feat"), os.environ) as repo:
        tip = write(repo, {"events.jsonl": LINES})
        git(top / "feat", "fetch", "-q")
        assert repo.push(tip)
        write(repo, {"events.jsonl": LINES * 2})
        git(top / "feat", "fetch", "-q", "--prune")
        assert repo.tip() == tip, "as the remote has it"
        assert repo.remote_tip() == ""
        assert repo.fetch() == tip
        newer = write(repo, {"events.jsonl": LINES * 2})
        assert repo.push(newer)
        assert repo.remote_tip() == newer


# -- git gc --prune=now, which takes what no ref leads to when it looks


def test_what_a_gc_took_while_a_round_ran_is_there_again_with_the_next_one(
    alice: GitRepository, bob: GitRepository, top: Path
) -> None:
    root = top / "alice"
    objects = root / ".git/objects"
    before = set(objects.glob("??/*"))
    tip = write(alice, {"events.jsonl": LINES, "messages/nux.jsonl": LINES * 2})
    alice.close_packs()
    for path in set(objects.glob("??/*")) - before:
        path.unlink()
    alice.resume()
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert contents(alice, tip) == {"events.jsonl": LINES, "messages/nux.jsonl": LINES * 2}
    for path in set(objects.glob("??/*")) - before:
        path.unlink()
    assert alice.push(tip), "and when it was taken before the push"
    assert bob.fetch() == tip
    git(root, "gc", "-q", "--prune=now")
    left = set(objects.rglob("*"))
    alice.resume()
    assert set(objects.rglob("*")) == left, "what is packed is there"


def test_what_a_gc_took_of_a_fetch_is_fetched_again(alice: GitRepository, bob: GitRepository, top: Path) -> None:
    objects = top / "alice/.git/objects"
    before = set(objects.rglob("*"))
    tip = write(bob, {"events.jsonl": LINES})
    sync(bob)
    assert alice.fetch() == tip
    alice.close_packs()
    for path in set(objects.rglob("*")) - before:
        path.unlink() if path.is_file() else None
    assert alice.fetch() == tip
    assert contents(alice, tip) == {"events.jsonl": LINES}
    assert git(top / "alice", "fsck", "--strict", "--no-dangling") == ""
