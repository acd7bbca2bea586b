"""Clones of the simulator without any fault: the real store and the real round, and git in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.sim.clone import Clone
from tests.sim.faults import Chance
from tests.sim.git import FIRST_OBJECTS, REGULAR, Objects, Remote, blob_id, commit_of, copy_closure, put_commit
from tests.support.here import START_MS
from thrum.git.trees import TreeEntry
from thrum.identity.signing import Signer
from thrum.sync.round import Outcome
from thrum.sync.worktree import FIRST

Files = dict[str, bytes]


class CalmClones:
    """Stands in for the simulator's world: `clones`, and the `remote` that they share."""

    def __init__(self, directory: Path, count: int = 2) -> None:
        self.dice = random.Random(1)
        self.chance = Chance(self.dice, {})
        self.ms = START_MS
        self.remote = Remote()
        self.signers: dict[str, Signer | None] = {}
        self.clones: list[Clone] = []
        for number in range(count):
            (directory / str(number)).mkdir()
            self.clones.append(Clone(self, number, directory / str(number)))  # type: ignore[arg-type]
            self.clones[-1].start()

    def copy(self, tip: str, target: Objects) -> None:
        copy_closure(self.remote.objects, target, tip)

    def round(self, number: int, *, push: bool = True) -> Outcome:
        """A whole round of a clone, which then rebuilds if it has to."""
        clone = self.clones[number]
        self.ms += 1_000
        clone.begin_round(fetch=True, push=push)
        assert clone.steps is not None
        for _ in clone.steps:
            pass
        if clone.must_reopen:
            clone.stop("superseded")
            clone.start()
        return clone.outcome

    def files(self) -> Files:
        """The files of the remote's branch."""
        remote = self.remote
        entries = commit_of(remote.objects, remote.tip).files if remote.tip else ()
        return {entry.path.decode(): remote.objects[entry.object_id] for entry in entries}  # type: ignore[misc]

    def push(self, change: Callable[[Files], object]) -> None:
        """A stranger changes files and pushes them."""
        remote = self.remote
        remote.objects |= FIRST_OBJECTS
        files = self.files()
        change(files)
        entries: list[TreeEntry] = []
        for path, data in files.items():
            remote.objects[blob_id(data)] = data
            entries.append(TreeEntry(path.encode(), REGULAR, blob_id(data)))
        remote.move(put_commit(remote.objects, entries, remote.tip or FIRST, "stranger", 2))

    def come_to_rest(self) -> bool:
        """Rounds of all until nobody has anything to push; False if that never comes."""
        for _ in range(10):
            sent = sum(self.round(number).sent for number in range(len(self.clones)))
            if not sent and {self.remote.tip} == {clone.repo.ref for clone in self.clones}:
                return True
        return False

    def close(self) -> None:
        for clone in self.clones:
            clone.leave()
