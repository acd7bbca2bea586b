"""Journals hold only what was verified (events.md §11 Signatures): how far each was verified, and what comes after.

What this program appends it has signed or verified before. A program from before signing believed every line, and may
have run here before this one, or in between. So at each start the lines that this program has not put there are looked
at, and forged ones leave the journal. Signatures cost 0.1 ms each: what was looked at is remembered, by the projection
and, since that may be deleted, in `verified.json` beside the journals.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from thrum.identity import signing
from thrum.model import events
from thrum.model.files import atomic_write
from thrum.store import database
from thrum.store.journal import FileState, JournalFiles, Line
from thrum.store.schema import SCHEMA_VERSION

_decode: Final = msgspec.json.Decoder(dict[str, tuple[int, int]]).decode


def verify_journals(
    journals: JournalFiles,
    projection: Path,
    quarantine_line: Callable[[str, int, bytes, str], None],
    flush: Callable[[], None],
) -> None:
    """Check the lines not checked yet, remove forged ones, and remember it. Before anything else reads the
    journals; the caller holds the daemon's lock. What was quarantined is durable after `flush`. Raises OSError.
    """
    recorded, rebuilt = _recorded(journals), None
    for file in journals.names():
        file_state = journals.accept_state(file)
        if file == events.LOCAL_FILE or file_state is None:
            continue
        start = _end(recorded.get(file), file_state)
        if start < file_state.size:
            rebuilt = _rebuilt(projection) if rebuilt is None else rebuilt
            start = max(start, _end(rebuilt.get(file), file_state))
        forged = [
            (line, flaw)
            for line in journals.iter_lines(file, _line_start(journals, file, start), file_state.size)
            if (flaw := signing.flaw_of(line.raw))
        ]
        for line, flaw in forged:
            quarantine_line(file, line.offset, line.raw, flaw)
        if forged:
            flush()
            _cut(journals.path(file), [line for line, _ in forged])
            journals.accept_state(file)
    note_verified(journals)


def note_verified(journals: JournalFiles) -> None:
    """Remember that all of the journals was looked at. Raises OSError."""
    ends = {file: file_state for file, file_state in journals.file_states().items() if file != events.LOCAL_FILE}
    if ends != _recorded(journals):
        atomic_write(_record_of(journals), msgspec.json.encode(ends), durable=False)


def _record_of(journals: JournalFiles) -> Path:
    return journals.local_journal.with_name("verified.json")


def _recorded(journals: JournalFiles) -> dict[str, FileState]:
    try:
        return {file: FileState(*ends) for file, ends in _decode(_record_of(journals).read_bytes()).items()}
    except (OSError, msgspec.MsgspecError):
        return {}


def _rebuilt(projection: Path) -> Mapping[str, FileState]:
    """Up to where this program's projection was brought. An older program's says nothing."""
    if not projection.exists():
        return {}
    try:
        with closing(database.open_reader(projection)) as db:
            if database.get_meta(db, "schema_version") != str(SCHEMA_VERSION):
                return {}
            return {file: FileState(each.inode, each.applied_offset) for file, each in database.offsets(db).items()}
    except sqlite3.Error:
        return {}


def _end(known: FileState | None, now: FileState) -> int:
    return 0 if known is None or known.inode != now.inode or known.size > now.size else known.size


def _line_start(journals: JournalFiles, file: str, start: int) -> int:
    """`start` if a line begins there; else the beginning: it is not the file that it was."""
    if start:
        with journals.path(file).open("rb") as handle:
            handle.seek(start - 1)
            if handle.read(1) != b"\n":
                return 0
    return start


def _cut(path: Path, lines: list[Line]) -> None:
    data, begin, kept = path.read_bytes(), 0, list[bytes]()
    for line in lines:
        kept.append(data[begin : line.offset])
        begin = line.offset + line.length
    atomic_write(path, b"".join([*kept, data[begin:]]))
