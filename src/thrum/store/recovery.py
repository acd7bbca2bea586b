"""Opening the store: recover the journals, bring the projection up to them or rebuild it (events.md §10, §11 "Start").

The journals are right by definition once their tails are fixed. A projection is kept if every journal is still the
file, and holds at its offset the line, that the projection remembers; otherwise a new one is rebuilt beside it and
renamed into place. So a deleted, damaged or outdated database costs time and a new epoch, never a fact.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import trio

from thrum.identity.signing import Signer
from thrum.model import clock, events, files, ids, limits
from thrum.model.errors import StoreFailed
from thrum.model.paths import Layout
from thrum.model.wire_types import DaemonIdentity
from thrum.store import _founding as founding
from thrum.store import database
from thrum.store import rebuild as rebuilding
from thrum.store._ownership import Seal
from thrum.store._stamping import Stamper, base_of
from thrum.store._verification import note_verified, verify_journals
from thrum.store.committer import Committer
from thrum.store.committer import Statistics as CommitterStatistics
from thrum.store.compaction import discard_leftovers
from thrum.store.failures import database_refusal
from thrum.store.journal import JournalFiles, line_id_of, recover_tail, refusal
from thrum.store.projection.core import Projection
from thrum.store.projection.entry import Entry, entry_of
from thrum.store.quarantine import Quarantine
from thrum.store.queries import fts
from thrum.store.queries.views import View
from thrum.store.writer import Committed, Writer

log: Final = logging.getLogger("thrum.store")

_BEHIND_BYTES_MAX: Final = 64 * limits.MIB
"""With more than this to apply, rebuilding is quicker than going on."""

_PROBE_BYTES_MAX: Final = 8 * limits.MIB
"""A database up to this size is checked page by page at start; damage in a larger one shows when it is read."""


class Recovery(NamedTuple):
    """What opening the store had to do."""

    rebuilt: str
    """Why the projection was rebuilt; `""` if the old one was kept."""
    applied: int
    """Facts that lay behind the projection."""
    quarantined: int
    """Lines in quarantine, old ones included."""


class Statistics(NamedTuple):
    """`committer` counts since the start; the rest is the state of the store."""

    committer: CommitterStatistics
    journals: int
    journal_bytes: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Store:
    """An open store. `view` sees committed facts only and belongs to the event loop's thread.

    `committer.serve_commits` is the caller's to run.
    """

    committer: Committer
    view: View
    epoch: str
    identity: DaemonIdentity
    journals: JournalFiles
    quarantine: Quarantine
    recovery: Recovery
    path: Path
    """The database."""
    own: frozenset[str]
    signer: Signer | None = None
    idle: list[tuple[int, sqlite3.Connection]] = field(default_factory=list[tuple[int, sqlite3.Connection]])
    """An unused connection, with its file's inode: to open one takes a millisecond."""

    @contextmanager
    def reading(self) -> Generator[View]:
        """A view of one moment over a connection of its own, for any one thread. Raises StoreFailed, also for what the
        database refuses to the caller within.
        """
        try:
            inode = self.path.stat().st_ino
        except FileNotFoundError as error:
            raise StoreFailed(f"{self.path} was removed", cause="database_damaged") from error
        try:
            db = self._connect(inode)
            try:
                db.execute("BEGIN")
                yield View(db, self.own)
                db.execute("ROLLBACK")
                db.execute("PRAGMA shrink_memory")
            except BaseException:
                db.close()
                raise
        except sqlite3.Error as error:
            raise database_refusal(error, "read") from error
        self.idle.append((inode, db))
        self.close_idle(but=1)

    def _connect(self, inode: int) -> sqlite3.Connection:
        with suppress(IndexError):
            opened_on, db = self.idle.pop()
            if opened_on == inode:
                return db
            db.close()
        return database.open_reader(self.path)

    def close_idle(self, but: int = 0) -> None:
        """Close unused connections."""
        while len(self.idle) > but:
            with suppress(IndexError):
                self.idle.pop()[1].close()

    def statistics(self) -> Statistics:
        """How much there is; looks at the file system."""
        names = self.journals.names()
        size = sum(self.journals.end(file) for file in names)
        return Statistics(self.committer.statistics(), len(names), size, len(self.quarantine))


@asynccontextmanager
async def open_store(
    layout: Layout,
    identity: DaemonIdentity,
    own: frozenset[str],
    *,
    wall: clock.Clock,
    program: str,
    boot_id: str,
    signer: Signer | None = None,
    on_commit: Callable[[Sequence[Committed]], None] | None = None,
) -> AsyncGenerator[Store]:
    """The store of one repository, recovered. The caller holds the daemon's lock.

    `own` are the daemon's id and its previous ones; `boot_id` is a text that changes when the machine boots (`""`: not
    known, then every stop that was not clean counts as one). What is written is signed by `signer`. Raises StoreFailed.
    `serve_commits` must have ended before the block does.
    """
    opening = partial(open_blocking, layout, identity, own, wall=wall, program=program, boot_id=boot_id, signer=signer)
    opened = await trio.to_thread.run_sync(opening)
    committer = Committer(opened.writer, on_commit)
    store = Store(
        committer,
        opened.view,
        opened.view.epoch,
        identity,
        opened.journals,
        opened.quarantine,
        opened.recovery,
        opened.path,
        own,
        signer,
    )
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            store.close_idle()
            await trio.to_thread.run_sync(opened.close, committer.cause)


class Opened(NamedTuple):
    """The parts of an open store, without an event loop."""

    writer: Writer
    view: View
    reader: sqlite3.Connection
    journals: JournalFiles
    quarantine: Quarantine
    recovery: Recovery
    path: Path
    seal: Seal

    def close(self, cause: str = "") -> None:
        """Close it, cleanly unless `cause` says that it has to be recovered: `database_damaged` drops the
        projection.
        """
        self.writer.rollback()
        self.reader.close()
        self.journals.close()
        try:
            if not cause:
                database.set_durably(self.writer.db, {"clean_stop": "1"})
                note_verified(self.journals)
        except (OSError, sqlite3.Error) as error:
            log.warning("the stop could not be recorded: %s", error)
        finally:
            self.writer.db.close()
            if cause == "database_damaged":
                database.remove(self.path)
            elif not cause:
                with suppress(OSError):
                    self.seal.note(clean=True)


def open_blocking(
    layout: Layout,
    identity: DaemonIdentity,
    own: frozenset[str],
    *,
    wall: clock.Clock,
    program: str,
    boot_id: str,
    signer: Signer | None = None,
) -> Opened:
    """What `open_store` does, in the calling thread."""
    journals = JournalFiles(layout.branch_dir, layout.local_journal)
    quarantine = Quarantine(layout.quarantine, wall)
    try:
        journals.prepare()
        discard_leftovers(journals)
        files.ensure_private_dir(layout.database.parent)
        seal = Seal(layout.trusted_dir / "picture.json", layout.database)
        seal.remove_foreign_files()
        return _Opening(journals, quarantine, layout.database, identity, own, wall, program, signer, seal).run(boot_id)
    except OSError as error:
        raise refusal(error) from error
    except sqlite3.DatabaseError as error:
        raise StoreFailed(f"could not write {layout.database}: {error}") from error


class _MustRebuild(Exception):
    """The projection can't be kept; the text says why."""


@dataclass(slots=True)
class _Opening:
    journals: JournalFiles
    quarantine: Quarantine
    path: Path
    identity: DaemonIdentity
    own: frozenset[str]
    wall: clock.Clock
    program: str
    signer: Signer | None
    seal: Seal
    found: list[str] = field(default_factory=list[str])
    """Where lines lie that were quarantined."""

    @property
    def fresh(self) -> Path:
        """Where a new projection is rebuilt."""
        return self.path.with_name(self.path.name + ".new")

    def run(self, boot_id: str) -> Opened:
        database.remove(self.fresh)
        names = self.journals.names()
        for file in names:
            recover_tail(self.journals, file, self.quarantine_durably)
        verify_journals(self.journals, self.path, self.quarantine_line, self.quarantine.flush)
        rebuilt, applied = "", 0
        try:
            db, applied = self.bring_up_to_date(names, boot_id)
        except _MustRebuild as why:
            rebuilt = str(why)
            log.info("rebuilding: %s", rebuilt)
            db = self.rebuild(names)
        try:
            database.set_identity(db, self.identity, clock.format_ms(self.wall.now_ms()))
            self.seal.note(clean=False)
            database.set_durably(db, {"clean_stop": "", "boot_id": boot_id})
            self.quarantine.flush()
            if self.found:
                more = f", and {len(self.found) - 1} more" if self.found[1:] else ""
                log.warning("%s%s; kept in %s", self.found[0], more, self.quarantine.path.name)
            recovery = Recovery(rebuilt, applied, len(self.quarantine))
            stamper = Stamper(self.wall, self.identity.daemon_id, base_of(db, self.own, self.wall.now_ms()))
            projection = Projection(db, self.own, self.journals.read_line, self.wall.now_ms)
            writer = Writer(db, projection, View(db, self.own), self.journals, stamper, self.quarantine, self.signer)
            reader = database.open_reader(self.path)
        except BaseException:
            db.close()
            raise
        return Opened(
            writer, View(reader, self.own), reader, self.journals, self.quarantine, recovery, self.path, self.seal
        )

    # -- going on with the projection that is there

    def bring_up_to_date(self, names: list[str], boot_id: str) -> tuple[sqlite3.Connection, int]:
        """The projection brought up to the journals, and how many facts that took. Raises _MustRebuild."""
        if not self.path.exists():
            raise _MustRebuild("there is none")
        try:
            db = database.open_writer(self.path)
        except sqlite3.DatabaseError as error:
            raise _MustRebuild(str(error)) from error
        try:
            offsets = self.check(db, names)
            applied = self.catch_up(db, names, offsets)
            same_run = database.get_meta(db, "boot_id") == boot_id != ""
            if not same_run and not database.get_meta(db, "clean_stop"):
                # SQLite may have lost commits whose numbers went out: cursors of that numbering must be refused.
                database.set_meta(db, "epoch", ids.Ulids().at(self.wall.now_ms()))
        except (sqlite3.DatabaseError, events.BadLine) as error:
            db.close()
            raise _MustRebuild(str(error)) from error
        except BaseException:
            db.close()
            raise
        return db, applied

    def check(self, db: sqlite3.Connection, names: list[str]) -> dict[str, database.JournalPosition]:
        """The projection's positions in the journals, if it fits them. Raises _MustRebuild."""
        if not self.seal.fits(db):
            raise _MustRebuild("it was not made here")
        if not database.is_current(db, self.identity.daemon_id):
            raise _MustRebuild("it is damaged, another version's or another daemon's")
        if self.path.stat().st_size <= _PROBE_BYTES_MAX and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise _MustRebuild("it is damaged")
        offsets = database.offsets(db)
        for offset in offsets.values():
            if flaw := self.flaw_of(offset):
                raise _MustRebuild(f"{offset.file} {flaw}")
        ends = {file: offset.applied_offset for file, offset in offsets.items()}
        behind = sum(self.journals.end(file) - ends.get(file, 0) for file in names)
        if behind > _BEHIND_BYTES_MAX:
            raise _MustRebuild(f"{behind} bytes of the journals are not in it")
        return offsets

    def flaw_of(self, offset: database.JournalPosition) -> str:
        """What makes a journal another one than the projection remembers; `""` if nothing does."""
        file_state = self.journals.accept_state(offset.file)
        if file_state is None:
            return "is gone"
        if file_state.inode != offset.inode:
            return "was replaced"
        if file_state.size < offset.applied_offset:
            return "is shorter than before"
        if offset.applied_offset:
            raw = self.journals.last_line(offset.file, offset.applied_offset).raw
            if not raw.endswith(b"\n") or line_id_of(raw) != offset.last_event_id:
                return "holds other lines than before"
        return ""

    def catch_up(self, db: sqlite3.Connection, names: list[str], offsets: dict[str, database.JournalPosition]) -> int:
        """Apply what lies behind the projection, in one transaction with the offsets, and what waited for its day."""
        applied = 0
        db.execute("BEGIN IMMEDIATE")
        projection = Projection(db, self.own, self.journals.read_line, self.wall.now_ms)
        projection.release_due_facts()
        for file in names:
            known = offsets.get(file)
            start, lines = (0, 0) if known is None else (known.applied_offset, known.applied_lines)
            if start == self.journals.end(file):
                continue
            self.journals.sync(file)
            scan = _Scan(self, file, start)
            for entry in scan:
                result = projection.apply(entry)
                if result.state == "conflict":
                    if result.wins:
                        raise _MustRebuild(f"{file} holds a line that counts more for the fact {entry.fact.event_id}")
                    self.quarantine_line(file, entry.offset, entry.raw, "id_conflict", stays=True)
                if result.state in ("known", "conflict"):
                    projection.note_rival(entry)
                applied += result.state != "known"
            database.set_offset(db, self.offset_at_end(file, lines + scan.lines))
        if projection.outdated:
            raise _MustRebuild("the trust in other daemons changed")
        fts.follow(db)
        self.quarantine.flush()
        db.execute("COMMIT")
        return applied

    # -- rebuilding a new one

    def rebuild(self, names: list[str]) -> sqlite3.Connection:
        """A new projection of all journals, in place of the old one. A kill at any point leaves a right one,
        or none.
        """
        fresh = self.fresh
        now = self.wall.now_ms()
        if self.signer is not None and (
            count := founding.name_unsigned_lines(self.journals, self.identity.daemon_id, now)
        ):
            log.info("%d lines from before signing still count", count)
            names = self.journals.names()
        scans = [_Scan(self, file, 0) for file in names]
        for file in names:
            self.journals.sync(file)
        rebuilt = rebuilding.rebuild(
            fresh,
            [rebuilding.Source(scan.file, scan.entries) for scan in scans],
            self.own,
            self.journals.read_line,
            epoch=ids.Ulids().at(now),
            now_ms=now,
            program=self.program,
        )
        for lost in rebuilt.lost:
            self.quarantine_line(lost.file, lost.offset, lost.raw, "id_conflict", stays=True)
        self.quarantine.flush()
        with closing(database.open_writer(fresh)) as db:
            db.execute("BEGIN IMMEDIATE")
            for scan in scans:
                database.set_offset(db, self.offset_at_end(scan.file, scan.lines))
            database.set_identity(db, self.identity, clock.format_ms(now))
            self.seal.put(db)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.sync(fresh)
        # A leftover log of the old database must never meet the new one.
        database.remove(self.path)
        os.rename(fresh, self.path)
        files.sync_directory(self.path.parent)
        return database.open_writer(self.path)

    def offset_at_end(self, file: str, lines: int) -> database.JournalPosition:
        file_state = self.journals.accept_state(file)
        if file_state is None:
            raise StoreFailed(f"{self.journals.path(file)} was removed while it was read", cause="journal_changed")
        mark = line_id_of(self.journals.last_line(file, file_state.size).raw) if file_state.size else ""
        return database.JournalPosition(file, file_state.inode, file_state.size, lines, mark)

    # -- lines that can't be used

    def quarantine_line(self, file: str, offset: int, raw: bytes, reason: str, *, stays: bool = False) -> None:
        if self.quarantine.add(file, offset, raw, reason, stays=stays):
            self.found.append(f"{file}, byte {offset}: {reason}")

    def quarantine_durably(self, file: str, offset: int, raw: bytes, reason: str) -> None:
        self.quarantine_line(file, offset, raw, reason)
        self.quarantine.flush()


class _Scan:
    """The usable lines of a journal from a place on, as often as one iterates; the others go to quarantine."""

    def __init__(self, opening: _Opening, file: str, start: int) -> None:
        self.file = file
        self.lines = 0
        self._opening = opening
        self._start = start
        self._end = opening.journals.end(file)

    def __iter__(self) -> Iterator[Entry]:
        return self.entries()

    def entries(self, wanted: Callable[[bytes], bool] | None = None) -> Iterator[Entry]:
        """See `rebuild.Source`."""
        file, local = self.file, self.file == events.LOCAL_FILE
        decode = events.decode
        lines = 0
        for raw, offset, length in self._opening.journals.iter_lines(file, self._start, self._end):
            lines += 1
            if wanted is not None and not wanted(raw):
                continue
            try:
                fact = decode(raw)
                if not local and events.never_travels(fact):
                    raise events.BadLine("local_type_on_branch")
            except events.BadLine as bad:
                self._opening.quarantine_line(file, offset, raw, bad.reason, stays=True)
                continue
            yield entry_of(fact, raw, file, offset, length)
        self.lines = lines
