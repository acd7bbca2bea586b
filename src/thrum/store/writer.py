"""The one writer, without an event loop: decides, stamps, applies, appends, flushes and commits a batch of calls.

Two halves (events.md §11). Deciding and applying (`begin`, `execute`) happen where the callers are, inside one open
transaction, each call seeing the earlier ones. `flush` does the disk writes and may run in another thread;
meanwhile nothing else may touch the writer. `committer` drives it from trio, tests may drive it without.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from thrum.identity.signing import Signer
from thrum.model import events, limits, origins, signatures
from thrum.model.errors import BodyTooLarge, ClientKeyReused, InternalError, NewerFormat, StoreFailed, ThrumError
from thrum.model.events import SWEEPS, AnyFact, UnknownEvent
from thrum.model.methods.method import ClientKey
from thrum.model.tombstones import Tombstones, is_tombstoned
from thrum.store import database
from thrum.store._calls import Call as Call
from thrum.store._calls import Committed as Committed
from thrum.store._calls import Errand as Errand
from thrum.store._forwarding import handed_on
from thrum.store._founding import accepts_of_before
from thrum.store._stamping import Stamper
from thrum.store.api import Decision
from thrum.store.compaction import Draft, swap
from thrum.store.failures import database_refusal, internal, is_failure_of_the_disk
from thrum.store.ingest import Classified, Found, Ingested, Verified
from thrum.store.journal import FileState, JournalFiles, line_id_of, refusal
from thrum.store.projection.core import Projection, Released
from thrum.store.projection.entry import Entry, entry_of
from thrum.store.projection.merge_daemons import CLOSED
from thrum.store.quarantine import Quarantine, QuarantineBatch
from thrum.store.queries.fts import FullTextIndex
from thrum.store.queries.views import View
from thrum.store.schema import SUPERSEDED

R = TypeVar("R")

_BUSY_MS: Final = 100


class _Line(NamedTuple):
    """A line of the batch: its length with the newline, what is remembered if it is the last, whether it is to sign."""

    file: str
    length: int
    mark: str
    to_sign: bool = False


class _Winner(NamedTuple):
    """A line of the batch that supersedes another of its id."""

    event_id: str
    raw: bytes
    rank: origins.Rank


class Writer:
    """The write side of one store: a connection, the projection over it, and the journals.

    `db` and `view` (over that connection) are not used by anything else. Every method blocks.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        projection: Projection,
        view: View,
        journals: JournalFiles,
        stamper: Stamper,
        quarantine: Quarantine,
        signer: Signer | None = None,
    ) -> None:
        self.db = db
        self._signer = signer  # without one nothing is signed
        self.stamper = stamper
        self.superseded = False
        """Whether the journals hold a smaller line for some fact than the projection shows: it has to be rebuilt."""
        self.released: list[Released] = []
        """Facts of earlier batches that the last one let count."""
        self.restored_at = ""
        """Own facts stamped no later may come back from the branch: a backup from before them was restored."""
        self._projection = projection
        self._view = view
        self._words = FullTextIndex(db)
        self._journals = journals
        self._quarantine = quarantine
        self._smaller: dict[str, origins.Rank] = {}
        """The ranks of lines that supersede others, by event id, since the store was opened."""
        self._offsets = database.offsets(db)
        self._newer_format = False
        self._forget()
        # `begin` runs on the loop: another process that holds the database for long must not stop the daemon.
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    def _forget(self) -> None:
        self._buffers: dict[str, bytearray] = {}
        self._committed: list[Committed] = []
        self._lines: list[_Line] = []
        self._to_quarantine = QuarantineBatch(self._quarantine)
        self._winners: list[_Winner] = []
        self._due: list[Released] = []
        self._touched = False
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
            raise database_refusal(error) from error

    def execute(self, call: Call) -> None:
        """Decide one call and apply its facts; `call` gets its answer, or the error that it alone must see.

        The answer may go out after `flush` only. Raises StoreFailed if the database fails: then the whole batch has to
        be rolled back.
        """
        try:
            self._execute(call)
        except ThrumError as error:
            call.error = error
        except sqlite3.DatabaseError as error:
            if is_failure_of_the_disk(error):
                raise database_refusal(error) from error
            call.error = internal(error)
        except Exception as error:
            call.error = internal(error)

    @property
    def is_full(self) -> bool:
        """Whether the batch has reached its limits."""
        return len(self._lines) >= limits.batch_facts_max or self._bytes >= limits.batch_bytes_max

    @property
    def has_work(self) -> bool:
        """Whether the batch would write anything."""
        return bool(self._lines or self._to_quarantine) or self._touched

    def flush(self) -> list[Committed]:
        """Append, flush, commit: then the batch is on disk. Returns its facts in the order of `seq`.

        Raises StoreFailed (JournalChanged if a journal is not as remembered); then nothing of the batch remains.
        """
        try:
            self._sign()
            self._flush_quarantine()
            after = self._journals.append(self._buffers)
            try:
                swept = any(isinstance(entry.fact, SWEEPS) for entry in (*self._committed, *self._due))
                self._words.wrote(len(self._committed), self._bytes, swept=swept)
                moved = self._moved(after)
                for offset in moved.values():
                    database.set_offset(self.db, offset)
                for event_id, _, _ in self._winners:
                    database.set_meta(self.db, SUPERSEDED, event_id)
                self.db.execute("COMMIT")
            except BaseException:
                self._roll_database_back()
                self._journals.undo()
                raise
        except BaseException as error:
            self.rollback()
            if isinstance(error, sqlite3.Error):
                raise database_refusal(error) from error
            raise
        self._journals.settle(after)
        self._offsets.update(moved)
        self._projection.flushed()
        self._smaller.update((event_id, rank) for event_id, _, rank in self._winners)
        self.superseded = bool(self._smaller) or self._is_outdated()
        self.released, self._projection.released = self._projection.released, []
        committed = self._committed
        for entry in (*committed, *self._due):
            # One that waits for its day tombstones nothing yet.
            if entry.state != "pending":
                self._note_watermark(entry.fact)
        self._forget()
        return committed

    def compact(self, drafts: Sequence[Draft]) -> int:
        """Put rewritten journals in place, by itself, between two batches; how many bytes went.

        Nothing happens under a newer format, or when the projection has to be rebuilt. Raises StoreFailed.
        """
        self.begin()
        try:
            if self._newer_format or database.get_meta(self.db, SUPERSEDED):
                return 0
            moved, size = swap(self.db, self._journals, drafts)
        except OSError as error:
            raise refusal(error) from error
        except sqlite3.Error as error:
            raise database_refusal(error) from error
        finally:
            self.rollback()
        self._offsets.update(moved)
        self._projection.flushed()
        self.superseded = bool(database.get_meta(self.db, SUPERSEDED))
        return size

    def rollback(self) -> None:
        """Drop the open batch, if there is one."""
        self._roll_database_back()
        self._projection.rolled_back()
        self._forget()

    def _sign(self) -> None:
        """Make the signatures for which the buffers have room. Here, where the loop does not wait for it; a thread of
        its own would cost a message more in being woken than it takes to sign one (docs/decisions/0042).
        """
        if self._signer is None:
            return
        ends: dict[str, int] = {}
        for file, length, _, to_sign in self._lines:
            start = ends.get(file, 0)
            ends[file] = start + length
            if to_sign:
                buffer, stop = self._buffers[file], start + length - 1
                buffer[start:stop] = self._signer.sign(bytes(buffer[start : stop - signatures.SIGNED_BYTES]))

    def _moved(self, after: dict[str, FileState]) -> dict[str, database.JournalPosition]:
        """The projection's position in each touched file once this batch is committed."""
        moved: dict[str, database.JournalPosition] = {}
        for file, _, mark, _ in self._lines:
            known = moved.get(file) or self._offsets.get(file)
            lines = 1 if known is None else known.applied_lines + 1
            moved[file] = database.JournalPosition(file, *after[file], lines, mark)
        for file, position in moved.items():
            end = self._offsets[file].applied_offset if file in self._offsets else 0
            assert end < position.applied_offset, "offsets rise: what a replay begins behind was applied"
        return moved

    def _flush_quarantine(self) -> None:
        """Put into quarantine what the batch quarantines, before anything of it counts. Raises StoreFailed."""
        try:
            self._to_quarantine.flush()
        except OSError as error:
            raise refusal(error) from error

    def _roll_database_back(self) -> None:
        # SQLite itself rolls back on some failures; then there is nothing left to do.
        with contextlib.suppress(sqlite3.Error):
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    def _is_outdated(self) -> bool:
        """Whether a fact changed what others are to this machine."""
        outdated = self._projection.outdated and bool(database.get_meta(self.db, SUPERSEDED))
        self._projection.outdated = False
        return outdated

    def _note_watermark(self, fact: AnyFact | UnknownEvent) -> None:
        if not isinstance(fact, SWEEPS) or not self._view.sweeps_here(fact.event_id):
            return
        self.stamper.move_past(fact.timestamp)
        if isinstance(fact, events.PurgeExecuted):
            with contextlib.suppress(ValueError):  # the cutoff may be any text, the fact is on disk all the same
                self.stamper.move_past(fact.cutoff)

    # -- one call

    def _execute(self, call: Call) -> None:
        if isinstance(call, Errand):
            call.answer = self._undoable(partial(call.work, self))
            return
        if self._newer_format:
            raise NewerFormat("the journal was written by a newer thrum")
        if call.key is not None and self._replayed(call, call.key):
            return
        decision = call.decide(self._view, self.stamper.stamp())
        if not decision.facts:
            call.answer = decision.answer(self._view, ())
            return
        call.answer = self._undoable(partial(self._write, decision, call.key))

    def _undoable(self, work: Callable[[], R]) -> R:
        """Do the work of one call; if it fails, the batch is as it was before."""
        before = len(self._committed), len(self._lines), len(self._to_quarantine), len(self._winners), len(self._due)
        self.db.execute("SAVEPOINT one_call")
        try:
            answer = work()
        except BaseException:
            self._take_back(*before)
            raise
        self.db.execute("RELEASE one_call")
        return answer

    def _write(self, decision: Decision[R], key: ClientKey | None) -> R:
        return decision.answer(self._view, self._apply(decision, key))

    def _replayed(self, call: Call, key: ClientKey) -> bool:
        """Answer a call that was executed before from its main fact; False if it was not (events.md §12)."""
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
            raise InternalError(f"the projection names the fact {event_id} and does not hold it")
        try:
            fact = events.decode(self._journals.read_line(row.file, row.offset, row.length))
        except OSError as error:
            raise refusal(error, "read") from error
        except events.BadLine:
            fact = None
        if fact is None or isinstance(fact, UnknownEvent) or fact.event_id != event_id:
            raise StoreFailed(
                f"{row.file} was edited: it does not hold {event_id} where the database has it",
                remedy="repeat the command: the database is rebuilt",
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
            file = events.file_of(fact)
            to_sign = self._signer is not None and file != events.LOCAL_FILE
            length = len(raw) + 1 + (signatures.SIGNED_BYTES if to_sign else 0)
            if length > limits.line_bytes_max:
                raise BodyTooLarge(f"the fact takes {length} bytes; at most {limits.line_bytes_max} fit a line")
            signed = to_sign or file == events.LOCAL_FILE
            applied = self._projection.apply(Entry(fact, raw, file, self._end(file), length, signed))
            if applied.state in ("known", "conflict"):
                raise InternalError(f"the id {fact.event_id} was given twice")
            self._append(file, raw, fact.event_id, to_sign=to_sign)
            self._committed.append(Committed(applied.seq, fact, applied.state))
            if mine is not None:
                self._keyed[fact.event_id] = (fact, applied.seq)
            seqs.append(applied.seq)
        assert not seqs or seqs[-1] - seqs[0] == len(seqs) - 1, "seq is dense in a call: there is none to miss between"
        return seqs

    def _end(self, file: str) -> int:
        """Where the next line of a journal will lie."""
        buffer = self._buffers.get(file)
        return self._journals.end(file) + (0 if buffer is None else len(buffer))

    def _append(self, file: str, raw: bytes, mark: str, *, to_sign: bool = False) -> None:
        buffer = self._buffers.setdefault(file, bytearray())
        before = len(buffer)
        buffer += raw
        buffer += bytes(signatures.SIGNED_BYTES if to_sign else 0) + b"\n"
        length = len(buffer) - before
        self._bytes += length
        self._lines.append(_Line(file, length, mark, to_sign))

    def _take_back(self, facts: int, lines: int, quarantined: int, winners: int, due: int) -> None:
        """Undo one call: the batch is again as it was when it had that many of each."""
        # Fails when SQLite has rolled the whole batch back by itself: that error is on its way already.
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("ROLLBACK TO one_call")
            self.db.execute("RELEASE one_call")
        self._projection.rolled_back()
        for committed in self._committed[facts:]:
            self._keyed.pop(committed.fact.event_id, None)
        for file, length, _, _ in self._lines[lines:]:
            del self._buffers[file][-length:]
            self._bytes -= length
        del self._committed[facts:], self._lines[lines:], self._winners[winners:], self._due[due:]
        self._to_quarantine.cut(quarantined)
        self._buffers = {file: buffer for file, buffer in self._buffers.items() if buffer}

    # -- errands

    def ingest(self, arrived: Sequence[Verified]) -> Ingested:
        """Work of an errand: number, apply and append what came on the branch and is not here, byte for byte.

        It works under a newer format, and may be repeated.
        """
        tombstones = self._view.tombstones()
        facts, winners, quarantined = len(self._committed), len(self._winners), 0
        for file, raw, classified in arrived:
            if classified.fact is None:
                quarantined += self._refuse(file, raw, classified)
            elif isinstance(classified.fact, UnknownEvent) or not self._is_tombstoned(classified.fact, raw, tombstones):
                quarantined += self._receive(classified.fact, classified.file, file, raw)
        new = [each.fact for each in self._committed[facts:]]
        new += [events.decode(raw) for _, raw, _ in self._winners[winners:]]  # facts that are here, in other words
        ours = sum(fact.timestamp > self.restored_at and self._view.is_own(fact.origin_daemon) for fact in new)
        self._note_holders()
        self._forward_old_mail(new)
        return Ingested(len(new), quarantined, ours)

    def count_quarantined(self, surplus: Sequence[tuple[str, str, int, int]]) -> None:
        """Work of an errand: see `Quarantine.count`."""
        self._to_quarantine.surplus += surplus

    def _is_tombstoned(self, fact: AnyFact, raw: bytes, tombstones: Tombstones) -> bool:
        return bool(tombstones) and is_tombstoned(
            fact, events.order_of(fact), tombstones.provenance(raw, fact), tombstones
        )

    def _note_holders(self) -> None:
        """An id that is held elsewhere stays with its first holder: no agent takes a name by an early date."""
        for agent_id in sorted(self._projection.touched):
            origin = self._projection.holder_to_note(agent_id)
            if origin:
                fact = self.stamper.stamp().make(events.Accepted, kind="holder", id=agent_id, of=origin)
                self._apply(Decision((fact,), lambda _view, _seqs: None), None)
        self._projection.touched.clear()

    def _forward_old_mail(self, new: Sequence[AnyFact | UnknownEvent]) -> None:
        """What was sent to an agent by its old name, when the new one was not known, is that agent's all the same."""
        facts = handed_on(self._view, self.stamper.stamp(), new)
        if facts:
            self._apply(Decision(facts, lambda _view, _seqs: None), None)

    def close_before(self) -> None:
        """Work of an errand: what comes unsigned from now on is not from before signing."""
        if database.get_meta(self.db, CLOSED):
            return
        stamp = self.stamper.stamp()
        words = accepts_of_before(*self._projection.unsigned_before())
        facts = [stamp.make(events.Accepted, kind=kind, id=id, of=of, lines=some) for kind, id, of, some in words]
        self._apply(Decision(facts, lambda _view, _seqs: None), None)

    def keep(self, values: Mapping[str, str], copies: Sequence[Found] = ()) -> None:
        """Work of an errand: keep values of the sync, and with them append lines whose facts have their numbers."""
        last = dict(copies)
        for file, raw in copies:
            self._append(file, raw, line_id_of(raw) if raw is last[file] else "")
        database.set_sync_state(self.db, values)
        self._touched = True

    def release_due_facts(self) -> list[Released]:
        """Work of an errand: apply what waited for its day."""
        try:
            due = self._projection.release_due_facts()
        except events.BadLine as error:
            raise StoreFailed("a journal was edited: the database is rebuilt", cause="database_damaged") from error
        self._due += due
        self._touched = self._touched or bool(due)
        return due

    def _refuse(self, file: str, raw: bytes, classified: Classified) -> bool:
        """A line that can't be used: to quarantine, and into the journal too if it is to stay. True if it is new."""
        new = self._to_quarantine.add(file, raw, classified.reason)
        if classified.file and (new or not self._has_line(file, raw)):
            self._append(classified.file, raw, line_id_of(raw))
        return new

    def _receive(self, fact: AnyFact | UnknownEvent, home: str, file: str, raw: bytes) -> bool:
        """A usable fact; True if another line is the fact, and this one went to quarantine."""
        entry = entry_of(fact, raw, home, self._end(home), len(raw) + 1)
        applied = self._projection.apply(entry)
        if applied.state == "known":
            return False
        if applied.state == "conflict":
            # What is rebuilt when the batch counts: until then the line of least rank is known here only.
            rank = origins.rank(raw, self._projection.judge(entry).trust)
            known = next((each.rank for each in reversed(self._winners) if each.event_id == fact.event_id), None)
            known = known or self._smaller.get(fact.event_id)
            if known is not None and known <= rank:
                return known[1] != rank[1] and self._to_quarantine.add(file, raw, "id_conflict")
            if not applied.wins:
                return self._to_quarantine.add(file, raw, "id_conflict")
            self._winners.append(_Winner(fact.event_id, raw, rank))
        else:
            self._committed.append(Committed(applied.seq, fact, applied.state))
        self._append(home, raw, fact.event_id)
        return applied.state == "bad_name" and self._to_quarantine.add(home, raw, "bad_name")

    def _has_line(self, file: str, raw: bytes) -> bool:
        """Whether a journal holds a line, on disk or by this batch."""
        if b"\n" + raw + b"\n" in b"\n" + self._buffers.get(file, b""):
            return True
        try:
            return self._journals.holds(file, raw)
        except OSError as error:
            raise refusal(error, "read") from error
