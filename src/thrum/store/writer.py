"""The one writer, without an event loop: decides, stamps, applies, appends, flushes and commits a batch of calls.

Two halves (events.md §11). Deciding and applying (`begin`, `carry_out`) happen where the callers are, inside one open
transaction, each call seeing the earlier ones. `flush` does what waits for the disk and may run in another thread;
meanwhile nothing else may touch the writer. `committer` drives it from trio, tests may drive it without.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from thrum import clock, events, ids, limits
from thrum.api import ClientKey
from thrum.errors import BodyTooLarge, ClientKeyReused, InternalError, NewerFormat, StoreFailed, ThrumError
from thrum.events import AnyFact, Sealed
from thrum.store import database
from thrum.store.door import Decide, Decision, Stamp
from thrum.store.journal import JournalFiles, Standing, refusal
from thrum.store.projection import Entry, Projection
from thrum.store.views import View
from thrum.store.words import Words

log: Final = logging.getLogger("thrum.store")

_BUSY_MS: Final = 100
_SWEEPS: Final = (events.AgentCleaned, events.PurgeExecuted)


class Stamper:
    """Reads the clock so that this daemon's facts only ever rise in order, also over a restart (events.md §2).

    `base_ms` is where an earlier run left off (0: nowhere).
    """

    def __init__(self, wall: clock.Clock, daemon_id: str, base_ms: int = 0, ulids: ids.Ulids | None = None) -> None:
        self.daemon_id = daemon_id
        self._wall = wall
        self._ulids = ulids or ids.Ulids()
        self._base_ms = base_ms

    @property
    def base_ms(self) -> int:
        """No later stamp is below this, in milliseconds since 1970."""
        return self._base_ms

    def stamp(self) -> Stamp:
        """One reading for one call."""
        self._base_ms = max(self._wall.now_ms(), self._base_ms)
        return Stamp(self._base_ms, self._ulids, self.daemon_id)

    def move_past(self, time: str) -> None:
        """Let later stamps lie behind a horizon (RFC 3339), whoever set it: what is done next must not be void.

        A horizon more than a day ahead of the clock moves the base by that day only.
        """
        ahead = self._wall.now_ms() + limits.future_stamp_ms_max
        self._base_ms = max(self._base_ms, min(clock.parse_ms(time) + 1, ahead))


class Committed(NamedTuple):
    """A fact that is on disk and in the picture. `state` is the projection's word for what became of it."""

    seq: int
    fact: AnyFact | Sealed
    state: str


Replay = Callable[[View, AnyFact, int], Any]


class Call:
    """One call's way through a batch: what it wants, then its answer or its error."""

    __slots__ = ("answer", "decide", "error", "key", "replay")

    def __init__(self, decide: Decide[Any], key: ClientKey | None = None, replay: Replay | None = None) -> None:
        self.decide = decide
        self.key = key
        self.replay = replay
        self.answer: Any = None
        self.error: Exception | None = None


class Writer:
    """The write side of one store: a connection, the projection over it, and the journals.

    `db` and `view` (over that connection) are used by nobody else. Every method blocks.
    """

    def __init__(
        self, db: sqlite3.Connection, projection: Projection, view: View, journals: JournalFiles, stamper: Stamper
    ) -> None:
        self.db = db
        self.stamper = stamper
        self._projection = projection
        self._view = view
        self._words = Words(db)
        self._journals = journals
        self._offsets = database.offsets(db)
        self._newer_format = False
        self._forget()
        # `begin` runs on the loop: whoever else holds the database for long must not stop the daemon.
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    def _forget(self) -> None:
        self._buffers: dict[str, bytearray] = {}
        self._committed: list[Committed] = []
        self._lines: list[tuple[str, int]] = []
        self._keyed: dict[str, tuple[AnyFact, int]] = {}
        self._bytes = 0

    # -- one batch

    def begin(self) -> None:
        """Open a batch. Raises StoreFailed; then there is none."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self._newer_format = self._view.newer_format()
        except sqlite3.Error as error:
            self.rollback()
            raise _database_refusal(error) from error

    def carry_out(self, call: Call) -> None:
        """Decide one call and apply its facts; `call` gets its answer, or the error that it alone must see.

        The answer may go out after `flush` only. Raises StoreFailed if the database fails: then the whole batch has to
        be rolled back.
        """
        try:
            self._carry_out(call)
        except ThrumError as error:
            call.error = error
        except sqlite3.DatabaseError as error:
            if _is_failure_of_the_disk(error):
                raise _database_refusal(error) from error
            call.error = _internal(error)
        except Exception as error:
            call.error = _internal(error)

    @property
    def is_full(self) -> bool:
        """Whether the batch has reached its limits."""
        return len(self._committed) >= limits.batch_facts_max or self._bytes >= limits.batch_bytes_max

    @property
    def has_facts(self) -> bool:
        """Whether the batch would write anything."""
        return bool(self._committed)

    def flush(self) -> list[Committed]:
        """Append, flush, commit: then the batch is on disk. Returns its facts in the order of `seq`.

        Raises StoreFailed (JournalChanged if a journal is not as remembered); then nothing of the batch remains.
        """
        try:
            after = self._journals.append(self._buffers)
            try:
                swept = any(isinstance(entry.fact, _SWEEPS) for entry in self._committed)
                self._words.wrote(len(self._committed), self._bytes, swept=swept)
                moved = self._moved(after)
                for offset in moved.values():
                    database.set_offset(self.db, offset)
                self.db.execute("COMMIT")
            except BaseException:
                self._roll_database_back()
                self._journals.undo()
                raise
        except BaseException as error:
            self.rollback()
            if isinstance(error, sqlite3.Error):
                raise _database_refusal(error) from error
            raise
        self._journals.settle(after)
        self._offsets.update(moved)
        self._projection.flushed()
        committed = self._committed
        self._forget()
        for entry in committed:
            self._mind_horizon(entry.fact)
        return committed

    def rollback(self) -> None:
        """Drop the open batch, if there is one."""
        self._roll_database_back()
        self._forget()

    def _moved(self, after: dict[str, Standing]) -> dict[str, database.Offset]:
        """Where the picture stands in each touched file once this batch counts."""
        moved: dict[str, database.Offset] = {}
        for (file, _), (_, fact, _) in zip(self._lines, self._committed, strict=True):
            known = moved.get(file) or self._offsets.get(file)
            lines = 1 if known is None else known.applied_lines + 1
            moved[file] = database.Offset(file, *after[file], lines, fact.event_id)
        return moved

    def _roll_database_back(self) -> None:
        # SQLite itself rolls back on some failures; then there is nothing left to do.
        with contextlib.suppress(sqlite3.Error):
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    def _mind_horizon(self, fact: AnyFact | Sealed) -> None:
        if isinstance(fact, _SWEEPS):
            self.stamper.move_past(fact.timestamp)
        if isinstance(fact, events.PurgeExecuted):
            with contextlib.suppress(ValueError):  # the cutoff may be any text, the fact is on disk all the same
                self.stamper.move_past(fact.cutoff)

    # -- one call

    def _carry_out(self, call: Call) -> None:
        if self._newer_format:
            raise NewerFormat("the journal was written by a newer thrum")
        if call.key is not None and self._replayed(call, call.key):
            return
        decision = call.decide(self._view, self.stamper.stamp())
        if not decision.facts:
            call.answer = decision.answer(self._view, ())
            return
        mark = len(self._committed)
        self.db.execute("SAVEPOINT one_call")
        try:
            seqs = self._apply(decision, call.key)
            call.answer = decision.answer(self._view, seqs)
        except BaseException:
            self._take_back(mark)
            raise
        self.db.execute("RELEASE one_call")

    def _replayed(self, call: Call, key: ClientKey) -> bool:
        """Answer a call that was carried out before from its main fact; False if it was not (events.md §12)."""
        row = self._view.client_key(key.actor, key.key)
        if row is None:
            return False
        if row.method_digest != key.digest:
            raise ClientKeyReused(f'the client key "{key.key}" was used for another call', client_key=key.key)
        if call.replay is None:
            return False
        found = self._keyed.get(row.event_id) or self._read(row.event_id)
        call.answer = call.replay(self._view, *found)
        return True

    def _read(self, event_id: str) -> tuple[AnyFact, int]:
        row = self._view.event(event_id)
        if row is None:
            raise InternalError(f"the picture names the fact {event_id} and does not hold it")
        try:
            fact = events.decode(self._journals.read_line(row.file, row.offset, row.length))
        except OSError as error:
            raise refusal(error, "read") from error
        except events.BadLine:
            fact = None
        if fact is None or isinstance(fact, Sealed) or fact.event_id != event_id:
            raise StoreFailed(
                f"{row.file} was edited: it does not hold {event_id} where the database has it",
                remedy="repeat the command: the database is painted anew",
                cause="database_damaged",
            )
        return fact, row.seq

    def _apply(self, decision: Decision[Any], key: ClientKey | None) -> list[int]:
        seqs: list[int] = []
        for index, fact in enumerate(decision.facts):
            mine = key if index == decision.main else None
            if mine is not None:
                fact = msgspec.structs.replace(fact, client_key=mine.key, client_digest=mine.digest)
            raw = events.encode(fact)
            length = len(raw) + 1
            if length > limits.line_bytes_max:
                raise BodyTooLarge(f"the fact takes {length} bytes; at most {limits.line_bytes_max} fit a line")
            file = events.file_of(fact)
            buffer = self._buffers.setdefault(file, bytearray())
            applied = self._projection.apply(Entry(fact, raw, file, self._journals.end(file) + len(buffer), length))
            if applied.state in ("known", "conflict"):
                raise InternalError(f"the id {fact.event_id} was given twice")
            buffer += raw
            buffer += b"\n"
            self._bytes += length
            self._lines.append((file, length))
            self._committed.append(Committed(applied.seq, fact, applied.state))
            if mine is not None:
                self._keyed[fact.event_id] = (fact, applied.seq)
            seqs.append(applied.seq)
        return seqs

    def _take_back(self, facts: int) -> None:
        """Undo one call: the batch is again as it was when it had that many facts."""
        # Fails when SQLite has rolled the whole batch back by itself: that error is on its way already.
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("ROLLBACK TO one_call")
            self.db.execute("RELEASE one_call")
        for committed in self._committed[facts:]:
            self._keyed.pop(committed.fact.event_id, None)
        for file, length in self._lines[facts:]:
            del self._buffers[file][-length:]
            self._bytes -= length
        del self._committed[facts:], self._lines[facts:]
        self._buffers = {file: buffer for file, buffer in self._buffers.items() if buffer}


# -- errors


_DISK_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def _is_failure_of_the_disk(error: sqlite3.Error) -> bool:
    """Whether the database failed, not the statement: then no call of the batch can be kept."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DISK_CODES


def _database_refusal(error: sqlite3.Error) -> StoreFailed:
    cause = "database_damaged" if database.is_damage(error) else None
    return StoreFailed(f"could not write the database: {error}", cause=cause)


def _internal(error: Exception) -> InternalError:
    """What a caller sees of a bug: a number by which the log can be searched."""
    reference = secrets.token_hex(4)
    log.error("internal error %s", reference, exc_info=error)
    return InternalError(f"internal error {reference}", id=reference)
