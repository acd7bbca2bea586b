"""Rewriting journals without the lines that may go (events.md §11 "Compaction").

In two steps, so that no call waits for a large journal. A `Drafter` reads the journals as of one commit
and writes what stays beside them, in any thread, while the writer continues. `swap`, which is the writer's, adds what
came since and puts the drafts in place, in one transaction with the projection: rows of lines that went go, the others
get their new offsets and keep their numbers. A kill between the renames and the commit shows as another inode, and the
projection is rebuilt.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from thrum.model import events, files, ids, origins, signatures
from thrum.model.event_specs import EVENT_SPECS, quoted
from thrum.model.events import (
    AnyFact,
    Body,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    MessageReceipt,
    SessionStarted,
    UnknownEvent,
)
from thrum.model.tombstones import Order, branch_file_of, is_tombstoned, superseded_ids, tombstoned_ids
from thrum.store import database
from thrum.store._old_attempts import facts_of_old_attempts, forget_left_attempts, split_facts
from thrum.store._superseded import superseded_locally
from thrum.store.journal import FileState, JournalChanged, JournalFiles, bare, line_id_of, sync_data
from thrum.store.queries.views import View
from thrum.store.schema import SUPERSEDED

_PREFIX: Final = ".compact."
"""How the names of drafts begin."""
_COPY_BYTES: Final = 1 << 20
_SWEEPABLE: Final = quoted(type_ for type_, spec in EVENT_SPECS.items() if spec.sweepable)
_COALESCING: Final = quoted(type_ for type_, spec in EVENT_SPECS.items() if spec.coalesces)


class Draft(NamedTuple):
    """What stays of a journal, written beside it.

    `mark` is the journal as it was read: its inode, and how far. `gone`: number and id of each fact whose row goes.
    `shifts`: what lay at or behind `start` lies `bytes` further ahead now, for the last such start. `last_mark`: what
    the projection remembers of the last line that stays, `""` if none does.
    """

    file: str
    path: Path
    mark: FileState
    lines_gone: int
    bytes_gone: int
    gone: tuple[tuple[int, str], ...]
    shifts: tuple[tuple[int, int], ...]
    last_mark: str


class Weight(NamedTuple):
    """Bytes of a journal, and how many of them are tombstoned, or of kinds that later lines replace: a guess that costs
    no look at the file.
    """

    total: int
    tombstoned: int
    replaceable: int


class _Line(NamedTuple):
    """`digest` is that of the line without its signature: a copy may have one that the line it copies has not."""

    offset: int
    length: int
    order: Order
    digest: int
    fact: AnyFact
    who: origins.Provenance
    signed: bool


def discard(drafts: Iterable[Draft]) -> None:
    """Take drafts away that are not in place."""
    for draft in drafts:
        with suppress(OSError):
            draft.path.unlink(missing_ok=True)


def discard_leftovers(journals: JournalFiles) -> None:
    """Take away what a kill left of drafts. Raises OSError."""
    for directory in (journals.local_journal.parent, journals.branch_dir, journals.branch_dir / events.MESSAGES_DIR):
        for path in directory.glob(f"{_PREFIX}*"):
            path.unlink()


# -- what may go


class Drafter:
    """Journals and projection as of one commit. A context manager, for one thread at a time; it blocks.

    `ahead`: the greatest time of a fact that counts today; a later one replaces nothing. `old`: that before which
    attempts to wake leave; `""`: none do.
    """

    def __init__(
        self, database_path: Path, journals: JournalFiles, own: frozenset[str], ahead: str, old: str = ""
    ) -> None:
        self._path = database_path
        self._journals = journals
        self._own = own
        self._ahead = ahead
        self._old = old

    def __enter__(self) -> Drafter:
        self._db = database.open_reader(self._path)
        try:
            self._db.execute("BEGIN")
            view = View(self._db, self._own)
            self._head_seq = view.head_seq()
            self._tombstones = view.still_tombstones()
            self._local = view.origins().local()
            self._offsets = database.offsets(self._db)
        except BaseException:
            self._db.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def weights(self) -> dict[str, Weight]:
        """Of every journal. What is not sweepable, an end of a session, is never tombstoned for a journal."""
        rows = self._db.execute(
            "SELECT file, sum(length),"
            f" sum(CASE WHEN state = 'void' AND type IN {_SWEEPABLE} THEN length ELSE 0 END),"
            f" sum(CASE WHEN state <> 'void' AND (type IN {_COALESCING} OR (type = 'wake.attempt' AND timestamp < ?))"
            " THEN length ELSE 0 END) FROM events GROUP BY file",
            (self._old,),
        )
        found = {row[0]: Weight(*row[1:]) for row in rows}
        # A copy of a receipt has no row of its own.
        copies = self._db.execute(
            "SELECT actor, sum(length) FROM events WHERE file = ? AND type = 'message.receipt' AND state = 'void'"
            " GROUP BY actor",
            (events.LOCAL_FILE,),
        )
        for actor, length in copies:
            file = f"{events.MESSAGES_DIR}/{ids.file_stem(actor)}.jsonl"
            if file in self._offsets:
                total, tombstoned, replaceable = found.get(file, Weight(0, 0, 0))
                found[file] = Weight(total + length, tombstoned + length, replaceable)
        return found

    def draft(self, file: str, share_min: float = 0.0) -> Draft | None:
        """What stays of a journal, durable; None if no line may go, or lines of less than that share of its bytes.

        A journal that is not as the projection says gives None too: others find that. Raises OSError, sqlite3.Error.
        """
        offset = self._offsets.get(file)
        if offset is None or _inode(self._journals.path(file)) != offset.inode:
            return None
        gone, rows = self._gone(file, offset.applied_offset)
        size = sum(line.length for line in gone)
        if not gone or size < share_min * offset.applied_offset:
            return None
        name = _PREFIX + secrets.token_hex(8)  # unique, even if an earlier one was abandoned
        draft = Draft(
            file,
            self._journals.path(file).with_name(name),
            FileState(offset.inode, offset.applied_offset),
            len(gone),
            size,
            tuple(rows),
            tuple(_shifts(gone)),
            self._last_mark(offset, gone),
        )
        try:
            _write(self._journals.path(file), draft, gone)
        except JournalChanged:
            discard([draft])
            return None
        except BaseException:
            discard([draft])
            raise
        return draft

    def _gone(self, file: str, end: int) -> tuple[list[_Line], list[tuple[int, str]]]:
        """The lines that may go, in their order, and the numbered facts that go with them."""
        lines: dict[str, list[_Line]] = {}
        for line in self._usable(file, end):
            lines.setdefault(line.fact.event_id, []).append(line)
        # Of two lines of one id one is the fact: such ids are left alone.
        contested = {id for id, found in lines.items() if len({line.digest for line in found}) > 1}
        found = [line for some in lines.values() for line in some]
        tombstoned = tombstoned_ids([(line.order, line.fact, line.who) for line in found], self._tombstones)
        tombstoned = (tombstoned | self._tombstoned_receipts(found)) - contested
        rest = [
            line
            for line in found
            if line.order[0] <= self._ahead
            and line.fact.event_id not in tombstoned
            and line.fact.event_id not in contested
        ]
        if file == events.LOCAL_FILE:
            replaced = superseded_locally((line.order, line.fact) for line in rest)
            replaced |= facts_of_old_attempts(self._db, self._old) & {line.fact.event_id for line in rest}
        else:
            replaced = superseded_ids((line.order, line.fact, line.signed) for line in rest)
        gone: dict[str, int] = {}
        copied = (
            self._copied(lines[event_id][0] for event_id in tombstoned) if file == events.LOCAL_FILE else set[str]()
        )
        for event_id in (tombstoned | replaced) - copied:
            may_go, seq = self._may_go(file, event_id, lines[event_id])
            if may_go:
                gone[event_id] = seq
        kept = split_facts(self._db, {*gone.values()}) if file == events.LOCAL_FILE else ()
        rows = [(seq, event_id) for event_id, seq in gone.items() if seq not in kept]
        return sorted(line for _, event_id in rows for line in lines[event_id]), [row for row in rows if row[0]]

    def _tombstoned_receipts(self, lines: Sequence[_Line]) -> set[str]:
        """Receipts of messages that are tombstoned here: their own lines don't tell whose the message was."""
        if not self._tombstones.purges:
            return set()
        rows = self._db.execute("SELECT event_id FROM events WHERE type = 'message.receipt' AND state = 'void'")
        tombstoned = {row[0] for row in rows}
        return {line.fact.event_id for line in lines if isinstance(line.fact, MessageReceipt)} & tombstoned

    def _copied(self, lines: Iterable[_Line]) -> set[str]:
        """Those receipts of which a journal that travels still holds a copy: that goes first. A line never stays
        without its row.
        """
        wanted: dict[str, dict[int, str]] = {}
        for line in lines:
            if isinstance(line.fact, MessageReceipt):
                wanted.setdefault(branch_file_of(line.fact), {})[line.digest] = line.fact.event_id
        found: set[str] = set()
        for file, digests in wanted.items():
            if (offset := self._offsets.get(file)) is not None:
                for raw, _, _ in self._journals.iter_lines(file, 0, offset.applied_offset):
                    if (event_id := digests.get(_digest(raw))) is not None:
                        found.add(event_id)
        return found

    def _usable(self, file: str, end: int) -> Iterable[_Line]:
        """The lines that are facts for this program, without what takes room and decides nothing."""
        local = file == events.LOCAL_FILE
        for raw, offset, length in self._journals.iter_lines(file, 0, end):
            try:
                fact = events.decode(raw)
            except events.BadLine:
                continue
            if isinstance(fact, UnknownEvent) or (not local and events.never_travels(fact)):
                continue
            if isinstance(fact, MessageCreated | MessageEdited):
                fact = msgspec.structs.replace(fact, body=Body("", ""))
            if isinstance(fact, MessageCreated):
                fact = msgspec.structs.replace(fact, scopes=(), refs=(), audiences=(), recipients=())
            signed = not local and signatures.is_signed(raw, fact.origin_daemon)
            who = self._local if local else self._tombstones.provenance(bare(raw), fact)
            yield _Line(offset, length, events.order_of(fact), _digest(raw), fact, who, signed)

    def _may_go(self, file: str, event_id: str, lines: Sequence[_Line]) -> tuple[bool, int]:
        """Whether the projection agrees, and the number of the fact whose row lies at one of these lines (0:
        at none).
        """
        row = self._db.execute(
            "SELECT seq, file, offset, length FROM events WHERE event_id = ?", (event_id,)
        ).fetchone()
        if row is None:
            return True, 0
        seq, home, offset, length = row
        if home != file:
            # A copy of a line that counts elsewhere. If they differ, this one lost and stays for people to see.
            same = _digest(self._journals.read_line(home, offset, length)) == lines[0].digest
            return same and not self._is_shown(lines[0]), 0
        # The greatest number stays: the next one is made from it.
        return seq < self._head_seq and not self._is_shown(lines[0]), seq

    def _is_shown(self, line: _Line) -> bool:
        """Whether the projection shows what the line made. It never does, but for lines in a wrong journal."""
        fact = line.fact
        if isinstance(fact, MessageCreated):
            sql, values = "messages WHERE message_id = ? AND create_event = ?", (fact.message_id, fact.event_id)
        elif isinstance(fact, SessionStarted):
            sql, values = "sessions WHERE session_id = ? AND start_event = ?", (fact.session_id, fact.event_id)
        elif isinstance(fact, MessageEdited | MessageDeleted) and not is_tombstoned(
            fact, line.order, line.who, self._tombstones
        ):
            sql, values = "messages WHERE message_id = ?", (fact.message_id,)
        else:
            return False
        return self._db.execute(f"SELECT 1 FROM {sql}", values).fetchone() is not None

    def _last_mark(self, offset: database.JournalPosition, gone: Sequence[_Line]) -> str:
        """What is remembered of the last line that stays."""
        end = offset.applied_offset
        for line in reversed(gone):
            if line.offset + line.length != end:
                break
            end = line.offset
        if end == offset.applied_offset or end == 0:
            return offset.last_event_id if end else ""
        return line_id_of(self._journals.last_line(offset.file, end).raw)


def _digest(raw: bytes) -> int:
    """Alike for lines that are the same fact, signed or not."""
    return hash(signatures.unsigned(bare(raw)))


def _shifts(gone: Iterable[_Line]) -> list[tuple[int, int]]:
    shifts: list[tuple[int, int]] = []
    total = 0
    for line in gone:
        if shifts and shifts[-1][0] == line.offset:
            shifts.pop()
        total += line.length
        shifts.append((line.offset + line.length, total))
    return shifts


def _inode(path: Path) -> int:
    """0 for what is no file or not there."""
    try:
        return files.lstat(path).st_ino
    except FileNotFoundError:
        return 0


# -- writing and putting in place


def _write(journal: Path, draft: Draft, gone: Sequence[_Line]) -> None:
    """Write the draft, durably. Raises OSError, JournalChanged."""
    draft.path.unlink(missing_ok=True)
    target = files.create_file(draft.path)
    try:
        position = 0
        for line in gone:
            _copy(journal, draft.mark.inode, target, position, line.offset)
            position = line.offset + line.length
        _copy(journal, draft.mark.inode, target, position, draft.mark.size)
        os.fsync(target)
    finally:
        os.close(target)


def _copy(journal: Path, inode: int, target: int, start: int, end: int) -> None:
    """Append bytes of a journal to a draft. Raises OSError; JournalChanged if it is another file by now, or shorter."""
    if start == end:
        return
    source = files.open_nofollow(journal, os.O_RDONLY)
    try:
        if os.fstat(source).st_ino != inode:
            raise _changed(journal)
        while start < end:
            data = os.pread(source, min(_COPY_BYTES, end - start), start)
            if not data:
                raise _changed(journal)
            start += len(data)
            files.write_all(target, data)
    finally:
        os.close(source)


def swap(
    db: sqlite3.Connection, journals: JournalFiles, drafts: Sequence[Draft]
) -> tuple[dict[str, database.JournalPosition], int]:
    """Put drafts in place, and commit the open transaction: the new offsets, and how many bytes went.

    One whose journal was rewritten meanwhile, or was told more of an attempt that goes, is left out. Raises OSError
    and sqlite3.Error: nothing has changed; JournalChanged: the store must be reopened.
    """
    file_states = journals.file_states()
    drafts = [draft for draft in drafts if _fits(db, draft, file_states.get(draft.file))]
    offsets = database.offsets(db)
    moved: dict[str, database.JournalPosition] = {}
    for draft in drafts:
        file_state = _catch_up(journals.path(draft.file), draft, file_states[draft.file])
        before = offsets[draft.file]
        grew = before.applied_offset > draft.mark.size
        mark = before.last_event_id if grew else draft.last_mark
        moved[draft.file] = database.JournalPosition(
            draft.file, *file_state, before.applied_lines - draft.lines_gone, mark
        )
    head = _head_seq(db)
    _move_rows(db, drafts)
    assert _head_seq(db) == head, (
        "the greatest number stays: given again, it would name another fact to those that has it"
    )
    for offset in moved.values():
        database.set_offset(db, offset)
    with journals.still:
        _rename(db, journals, drafts, file_states)
        journals.settle({file: FileState(offset.inode, offset.applied_offset) for file, offset in moved.items()})
        journals.exchanged += 1
    return moved, sum(draft.bytes_gone for draft in drafts)


def _head_seq(db: sqlite3.Connection) -> int | None:
    return db.execute("SELECT max(seq) FROM events").fetchone()[0]


def _fits(db: sqlite3.Connection, draft: Draft, file_state: FileState | None) -> bool:
    if file_state is None or file_state.inode != draft.mark.inode or file_state.size < draft.mark.size:
        return False
    # One more fact of an attempt may have come meanwhile.
    return draft.file != events.LOCAL_FILE or not split_facts(db, {seq for seq, _ in draft.gone})


def _catch_up(journal: Path, draft: Draft, file_state: FileState) -> FileState:
    """Add what was appended since the draft was made; how the draft is now, durable."""
    target = files.open_nofollow(draft.path, os.O_WRONLY | os.O_APPEND)
    try:
        _copy(journal, file_state.inode, target, draft.mark.size, file_state.size)
        sync_data(target)
        status = os.fstat(target)
    finally:
        os.close(target)
    return FileState(status.st_ino, status.st_size)


def _move_rows(db: sqlite3.Connection, drafts: Sequence[Draft]) -> None:
    db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (seq INTEGER PRIMARY KEY, event_id TEXT)")
    db.execute(
        "CREATE TEMP TABLE IF NOT EXISTS shifts (file TEXT, start INTEGER, bytes INTEGER, PRIMARY KEY (file, start))"
        " WITHOUT ROWID"
    )
    db.executemany("INSERT INTO gone VALUES (?, ?)", [row for draft in drafts for row in draft.gone])
    db.executemany(
        "INSERT INTO shifts VALUES (?, ?, ?)", [(draft.file, *shift) for draft in drafts for shift in draft.shifts]
    )
    db.execute("DELETE FROM client_keys WHERE event_id IN (SELECT event_id FROM gone)")
    db.execute("DELETE FROM hanging WHERE seq IN (SELECT seq FROM gone)")
    forget_left_attempts(db)
    rival = db.execute("SELECT event_id FROM gone JOIN rivals USING (event_id) LIMIT 1").fetchone()
    if rival is not None:
        database.set_meta(db, SUPERSEDED, rival[0])  # another line is the fact from now on
    db.execute("DELETE FROM events WHERE seq IN (SELECT seq FROM gone)")
    db.execute(
        "UPDATE events SET offset = offset - ifnull((SELECT bytes FROM shifts"
        " WHERE shifts.file = events.file AND start <= offset ORDER BY start DESC LIMIT 1), 0)"
        " WHERE file IN (SELECT file FROM shifts)"
    )
    db.execute("DELETE FROM gone")
    db.execute("DELETE FROM shifts")


def _rename(
    db: sqlite3.Connection, journals: JournalFiles, drafts: Sequence[Draft], file_states: dict[str, FileState]
) -> None:
    """From the first rename on there is no way back but to reopen the store."""
    for draft in drafts:
        path = journals.path(draft.file)
        status = files.lstat(path)
        if (status.st_ino, status.st_size) != file_states[draft.file]:
            raise _changed(path)
    begun = False
    try:
        for draft in drafts:
            os.rename(draft.path, journals.path(draft.file))
            begun = True
        for directory in {draft.path.parent for draft in drafts}:
            files.sync_directory(directory)
        db.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        if not begun:
            raise
        message = f"could not finish rewriting the journals: {error}"
        raise JournalChanged(message, cause="journal_changed") from error


def _changed(path: Path) -> JournalChanged:
    return JournalChanged(f"could not write {path}: another program replaced or changed it", cause="journal_changed")
