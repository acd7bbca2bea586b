"""The branch on disk: rounds leave whole files, and the care for them leaves few packs, judged by git itself."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git.clones import contents, git, make_clone, make_origin, sync, write
from tests.support.git.opened_repository import open_repository
from thrum.sync import maintenance
from thrum.sync.repository import GitRepository


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def alice(top: Path) -> Iterator[GitRepository]:
    make_origin(top)
    with open_repository(make_clone(top, "alice", "origin.git"), os.environ) as repo:
        yield repo


def journal(lines: int) -> bytes:
    return b"".join(b'{"number":%d,"rest":"%s"}\n' % (number, os.urandom(30).hex().encode()) for number in range(lines))


def rounds(repo: GitRepository, data: bytes, count: int) -> str:
    tip = ""
    for number in range(count):
        data += b'{"more":%d}\n' % number
        tip = write(repo, {"messages/nux.jsonl": data})
    return tip


def packs(root: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_size for path in (root / ".git" / "objects" / "pack").glob("*.pack")}


def loose(root: Path) -> int:
    """Without the one commit of `main`, which is none of ours."""
    return int(git(root, "count-objects").split()[0]) - 1


def test_what_rounds_left_becomes_one_pack_of_deltas(alice: GitRepository, top: Path) -> None:
    root, data = top / "alice", journal(2_000)
    tip = rounds(alice, data, 8)
    whole = alice.blob_size(alice.files(tip)["messages/nux.jsonl"].object_id)
    before = packs(root)
    alice.maintain()
    (new,) = packs(root).keys() - before.keys()
    assert packs(root)[new] < whole
    assert loose(root) == 0
    assert contents(alice, tip)["messages/nux.jsonl"].startswith(data)
    assert git(root, "fsck", "--strict", "--no-dangling") == ""


def test_small_packs_are_joined_and_a_large_one_is_left_alone(
    alice: GitRepository, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_NEW_PACK_BYTES", 10_000)
    root, before = top / "alice", packs(top / "alice")
    rounds(alice, journal(5_000), 2)
    alice.maintain()
    (large,) = packs(root).keys() - before.keys()
    for _ in range(4):
        tip = rounds(alice, journal(10), 3)
        alice.maintain()
        assert large in packs(root)
        assert len(packs(root)) == len(before) + 2
        assert loose(root) == 0
    state = json.loads((top / "alice" / ".git" / "thrum-sync" / "packs.json").read_bytes())
    assert tip in state["packs"].values()
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert len(git(root, "rev-list", "a-sync").split()) == 15


def test_packs_that_git_took_over_are_forgotten(alice: GitRepository, top: Path) -> None:
    root = top / "alice"
    rounds(alice, journal(100), 3)
    alice.maintain()
    git(root, "gc", "-q")
    tip = rounds(alice, journal(100), 3)
    alice.maintain()
    assert git(root, "count-objects").startswith("0 ")
    assert len(packs(root)) == 2
    assert sync(alice) == tip
    assert git(root, "fsck", "--strict", "--no-dangling") == ""


def test_rounds_go_on_while_it_packs(alice: GitRepository, top: Path) -> None:
    data, tips = journal(2_000), list[str]()
    rounds(alice, data, 6)
    packing = threading.Thread(target=alice.maintain)
    packing.start()
    for number in range(8):
        data += b'{"beside":%d}\n' % number
        tips.append(write(alice, {"messages/nux.jsonl": data}))
    packing.join(60)
    assert not packing.is_alive()
    assert contents(alice, tips[-1])["messages/nux.jsonl"] == data
    assert sync(alice) == tips[-1]
    assert git(top / "alice", "fsck", "--strict", "--no-dangling") == ""
    alice.maintain()
    assert loose(top / "alice") == 0
