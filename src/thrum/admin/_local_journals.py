"""The journals of this machine, to compare a branch with them."""

from __future__ import annotations

from collections.abc import Mapping

from thrum.identity import signing
from thrum.store.audit import event_id_of
from thrum.store.ingest import classify_line
from thrum.store.journal import JournalFiles
from thrum.store.quarantine import Kept, digest
from thrum.sync import merge


class LocalJournals:
    """The journals of this machine, one at a time in memory."""

    def __init__(self, journals: JournalFiles, ends: Mapping[str, int]) -> None:
        self._journals = journals
        self._ends = ends
        self._file = ""
        self._data = b""
        self._lines: set[bytes] | None = None
        self._ids: set[str] | None = None

    def data(self, file: str) -> bytes:
        """What counts of it."""
        if file != self._file:
            self._file, self._lines, self._ids, self._data = file, None, None, b""
            if self._ends.get(file):
                with self._journals.path(file).open("rb") as journal:
                    self._data = journal.read(self._ends[file])
        return self._data

    def lines(self, file: str) -> set[bytes]:
        data = self.data(file)
        if self._lines is None:
            self._lines = set(merge.split_lines(data))
        return self._lines

    def has(self, file: str, event_id: str) -> bool:
        """Whether a fact of that id is in it."""
        lines = self.lines(file)
        if self._ids is None:
            self._ids = {event_id_of(raw) for raw in lines}
        return event_id in self._ids

    def lacks(self, file: str, raw: bytes, kept: Kept) -> bool:
        """Whether a line ought to be in it, and is not. An unusable line ought not, unless it is a fact that is
        here, in other words; what was quarantined ought not either.
        """
        if raw in self.lines(file) or kept.has(file, digest(raw)):
            return False
        classified = classify_line(file, raw, signing.flaw_of(raw))
        if classified.fact is None and classified.file:
            return True
        is_known = self.has(file, event_id_of(raw))
        if classified.fact is None:
            return is_known and not kept.is_full(file, classified.reason)
        return not (is_known and kept.is_full(file, "id_conflict"))
