"""Git in memory: content-addressed objects, a remote with its one branch, and a clone's view of both.

The same contract as the real one (`thrum.sync.ports.Repository`), with a network that may do what networks do: it says
nothing, answers late, answers with what was true a while ago, or does what it was asked and loses the answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.sim.faults import Chance, Killed, Violation
from thrum.git.trees import TreeEntry
from thrum.model.errors import StoreFailed
from thrum.sync.ports import RemoteFailed, RemoteInfo
from thrum.sync.worktree import FIRST

Files = dict[str, TreeEntry]
REGULAR = 0o100644


class Commit(NamedTuple):
    files: tuple[TreeEntry, ...]
    """Sorted: the whole tree, flat."""
    parent: str
    message: str


Objects = dict[str, "bytes | Commit"]


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def put_commit(objects: Objects, files: Iterable[TreeEntry], parent: str, message: str, seconds: int) -> str:
    """Add a commit to objects that hold its blobs already."""
    commit = Commit(tuple(sorted(files)), parent, message)
    _check_tree(objects, commit.files)
    name = hashlib.sha1(repr((commit, seconds)).encode(), usedforsecurity=False).hexdigest()
    objects[name] = commit
    return name


def _check_tree(objects: Objects, files: tuple[TreeEntry, ...]) -> None:
    """What git itself would not take: a path twice, a file that is a directory too, a blob that is not there."""
    paths = {entry.path for entry in files}
    if len(paths) != len(files):
        raise Violation("a tree holds a path twice")
    for entry in files:
        if entry.object_id not in objects:
            raise Violation(f"a tree names a blob that is not there: {entry}")
        directory = entry.path
        while b"/" in directory:
            directory = directory.rpartition(b"/")[0]
            if directory in paths:
                raise Violation(f"a tree holds {directory!r} as a file and as a directory")


def commit_of(objects: Objects, name: str) -> Commit:
    found = objects[name]
    assert isinstance(found, Commit)
    return found


def history(objects: Objects, name: str) -> list[str]:
    """A commit and all its ancestors, the newest first."""
    found: list[str] = []
    while name:
        found.append(name)
        name = commit_of(objects, name).parent
    return found


def copy_closure(source: Objects, target: Objects, name: str) -> None:
    """What a fetch or a push carries."""
    while name and name not in target:
        commit = commit_of(source, name)
        for entry in commit.files:
            target[entry.object_id] = source[entry.object_id]
        target[name] = commit
        name = commit.parent


FIRST_OBJECTS: Objects = {FIRST: Commit((), "", "thrum: first")}


@dataclass
class Remote:
    """The bare repository. `past` is everything that its branch was ever at, `seen` every commit that was on it. `late`
    are pushes that are still on their way: what it was at, and what it shall be.
    """

    objects: Objects = field(default_factory=dict)
    tip: str = ""
    past: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    late: list[tuple[str, str]] = field(default_factory=list)

    def move(self, tip: str) -> None:
        self.tip = tip
        self.past.append(tip)
        while tip and tip not in self.seen:
            self.seen.add(tip)
            tip = commit_of(self.objects, tip).parent

    def deliver(self, number: int, *, again: bool) -> None:
        """A late push comes in; with `again` it will come in once more."""
        old, new = self.late[number] if again else self.late.pop(number)
        if self.tip == old:
            self.move(new)


@dataclass
class Network:
    """How one clone reaches the remote. `chance` decides what goes wrong."""

    remote: Remote
    chance: Chance
    is_offline: bool = False


class MemoryRepository:
    """One clone's side. Objects that are not durable yet are in `loose`: a loss of power takes them."""

    def __init__(self, network: Network, died: Callable[[], None]) -> None:
        self.network = network
        self.objects: Objects = dict(FIRST_OBJECTS)
        self.loose: set[str] = set()
        self.young: set[str] = set()
        """What was put there, or was found there, since the branch moved last."""
        self.ref = ""
        self.tracking = ""
        self._died = died

    # -- what happens to it

    def ensure(self) -> None:
        """What the daemon's start does: the branch begins at the remote's, or at the first commit."""
        if not self.ref:
            self.ref = self.tracking or FIRST
            self.objects |= FIRST_OBJECTS

    def lose_power(self) -> None:
        for name in self.loose:
            self.objects.pop(name, None)
        self.loose.clear()

    def collect_garbage(self) -> None:
        """`git gc`: what neither ref reaches goes, unless it is young."""
        kept: Objects = {name: self.objects[name] for name in self.loose | self.young if name in self.objects}
        for tip in (self.ref, self.tracking):
            copy_closure(self.objects, kept, tip)
        self.objects = kept

    def _maybe_fail(self, what: str) -> None:
        chance = self.network.chance
        if chance("git kill"):
            self._died()
            raise Killed(f"in {what}")
        if chance("git full"):
            raise StoreFailed(f"no space left on device ({what})")

    # -- ports.Repository

    def remote(self) -> RemoteInfo | None:
        return RemoteInfo("origin", "memory", "")

    def tip(self) -> str:
        return self.ref

    def remote_tip(self) -> str:
        return self.tracking

    def files(self, commit: str) -> Files:
        if not commit:
            return {}
        return {entry.path.decode("utf-8", "surrogateescape"): entry for entry in self._commit(commit).files}

    def blob(self, object_id: str) -> bytes:
        found = self.objects.get(object_id)
        if not isinstance(found, bytes):
            raise StoreFailed(f"no blob {object_id}")
        return found

    def blob_size(self, object_id: str) -> int:
        return len(self.blob(object_id))

    def add_blob(self, data: bytes) -> str:
        self._maybe_fail("add_blob")
        name = blob_id(data)
        if name not in self.objects:
            self.objects[name] = data
            self.loose.add(name)
        self.young.add(name)
        return name

    def add_commit(self, files: Iterable[TreeEntry], parent: str, message: str, seconds: int) -> str:
        self._maybe_fail("add_commit")
        if parent:
            self._commit(parent)
        name = put_commit(self.objects, files, parent, message, seconds)
        self.loose.add(name)
        return name

    def move(self, old: str, new: str) -> bool:
        self._maybe_fail("move")
        if self.ref != old:
            return False
        self._commit(new)
        self.loose.clear()
        self.young.clear()
        self.ref = new
        return True

    def descends(self, commit: str, ancestor: str) -> bool:
        self._commit(ancestor)
        return ancestor in history(self.objects, commit)

    def fetch(self) -> str:
        remote, chance = self.network.remote, self.network.chance
        self._refuse_offline()
        if chance("fetch lost"):
            raise RemoteFailed("offline", "no answer", "")
        tip = remote.tip
        if chance("fetch stale") and remote.past:
            tip = remote.past[chance.below(len(remote.past))]
        copy_closure(remote.objects, self.objects, tip)
        self.loose -= remote.objects.keys()
        self.tracking = tip
        if chance("fetch answer lost"):
            raise RemoteFailed("failed", "the connection broke", "")
        return tip

    def push(self, commit: str) -> bool:
        remote, chance = self.network.remote, self.network.chance
        self._refuse_offline()
        self._commit(commit)
        if chance("push lost"):
            raise RemoteFailed("offline", "no answer", "")
        old = remote.tip
        if old and (old not in self.objects or old not in history(self.objects, commit)):
            return False
        copy_closure(self.objects, remote.objects, commit)
        if chance("push late"):
            remote.late.append((old, commit))
            raise RemoteFailed("offline", "no answer yet", "")
        if old != commit:
            remote.move(commit)
        if chance("push repeated"):
            remote.late.append((old, commit))
        if chance("push answer lost"):
            raise RemoteFailed("offline", "the answer was lost", "")
        self.tracking = commit
        return True

    def _refuse_offline(self) -> None:
        if self.network.is_offline:
            raise RemoteFailed("offline", "no network", "")

    def _commit(self, name: str) -> Commit:
        found = self.objects.get(name)
        if not isinstance(found, Commit):
            raise StoreFailed(f"no commit {name}")
        return found
