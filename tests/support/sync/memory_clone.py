"""What a round needs, in memory: journals that are byte strings, and rounds run to their end or step by step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.sim.faults import Chance
from tests.sim.git import MemoryRepository, Network, Remote, blob_id, commit_of, put_commit
from thrum.git.trees import TreeEntry
from thrum.model import events
from thrum.model.tombstones import Tombstones
from thrum.sync.ports import Arrived, FilePosition, Ingested, JournalMoved, Surplus
from thrum.sync.round import Outcome, RoundOrder, Steps, sync_round


class MemoryJournals:
    """`sync.ports.Journals` over a dictionary: everything counts as soon as it is appended."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.inode = 1
        self.tombstoned = Tombstones()
        self.memory: dict[str, str] = {}
        self.asked: list[str] = []
        """The journals that were read, in order."""
        self.arrived: list[Arrived] = []
        self.surplus: list[Surplus] = []
        self.repo_ids: frozenset[str] = frozenset()
        self.read_only = False
        self.closed = 0
        """How often it was said that all of a remote's branch was ingested."""
        self.moves = 0
        """How often reading finds another file in a journal's place."""

    def add(self, *facts: Any) -> None:
        for fact in facts:
            self.append(events.file_of(fact), events.encode(fact))

    def append(self, file: str, raw: bytes) -> None:
        self.files[file] = self.files.get(file, b"") + raw + b"\n"

    # -- ports.Journals

    def file_positions(self) -> dict[str, FilePosition]:
        return {file: FilePosition(self.inode, len(data)) for file, data in self.files.items()}

    def head_seq(self) -> int:
        return sum(data.count(b"\n") for data in self.files.values())

    def read(self, file: str, position: FilePosition) -> bytes:
        self.asked.append(file)
        if self.moves:
            self.moves -= 1
            raise JournalMoved
        return self.files[file][: position.end]

    def tombstones(self) -> Tombstones:
        return self.tombstoned

    def ingest(self, arrived: Sequence[Arrived]) -> Ingested:
        self.arrived += arrived
        new = 0
        for file, raw in arrived:
            try:
                events.decode(raw)
            except events.BadLine as bad:
                if bad.reason != "bad_field":
                    continue
            self.append(file, raw)
            new += 1
        return Ingested(new, len(arrived) - new)

    def count_quarantined(self, surplus: Sequence[Surplus]) -> None:
        self.surplus += surplus

    def project(self) -> frozenset[str]:
        return self.repo_ids

    def is_read_only(self) -> bool:
        return self.read_only

    def close_before(self) -> None:
        self.closed += 1

    def copy_receipts(self) -> int:
        return 0

    def recall(self) -> Mapping[str, str]:
        return dict(self.memory)

    def remember(self, values: Mapping[str, str]) -> None:
        self.memory |= values


class MemoryClone:
    """One clone: its journals, its branch, and a remote that others may share."""

    def __init__(self, remote: Remote, name: str = "here") -> None:
        self.name = name
        self.chance = Chance(random.Random(1), {})
        self.network = Network(remote, self.chance)
        self.repo = MemoryRepository(self.network, lambda: None)
        self.repo.ensure()
        self.journals = MemoryJournals()
        self.outcome = Outcome()

    def begin(self, *, fetch: bool = True, push: bool = True) -> Steps:
        self.outcome = Outcome()
        return sync_round(self.repo, self.journals, RoundOrder(fetch, push, f"user@{self.name}", 1), self.outcome)

    def sync(self, *, fetch: bool = True, push: bool = True) -> Outcome:
        """A whole round. Raises what it raises."""
        for _ in self.begin(fetch=fetch, push=push):
            pass
        return self.outcome

    def blob(self, file: str) -> bytes:
        """A journal as the clone's branch has it."""
        return self.repo.blob(self.repo.files(self.repo.ref)[file].object_id)

    def subject(self) -> str:
        return self.repo.objects[self.repo.ref].message  # type: ignore[union-attr]


def tampered(remote: Remote, change: Callable[[dict[str, tuple[int, bytes]]], None]) -> None:
    """Somebody pushes a tree that no daemon would: `change` gets mode and bytes of each file."""
    files = {
        entry.path.decode(): (entry.mode, remote.objects[entry.object_id])
        for entry in commit_of(remote.objects, remote.tip).files
    }
    change(files)  # type: ignore[arg-type]
    entries: list[TreeEntry] = []
    for path, (mode, data) in files.items():
        assert isinstance(data, bytes)
        remote.objects[blob_id(data)] = data
        entries.append(TreeEntry(path.encode(), mode, blob_id(data)))
    remote.move(put_commit(remote.objects, entries, remote.tip, "tampered", 2))
