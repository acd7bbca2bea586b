"""Applying facts to the picture, one at a time, in any order, any number of times (events.md §7 to §9).

The picture is a function of the *set* of facts. What a single fact does:

- Facts about an agent set registers that keep the order of their winner (`merge_agents`).
- Messages, sessions and groups are *things*: rows that begin with a create. The smallest create that no horizon voids
  stands; edits, ends, receipts, members … are merged into it, or wait until it is there.
- Everything else that a thing was told is remembered in `hanging`, so that a thing whose create changes (a smaller one
  came, or the one that stood became void) is erased and made again from its facts, read from the journals.
- A cleanup or purge raises a horizon and makes void what lies below.
- A fact of another daemon stamped more than a day ahead of the clock waits for its day: nobody can void the future.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, Protocol

from thrum import clock, events, limits, signatures
from thrum.events import (
    LOCAL_FILE,
    AgentCleaned,
    AgentContextSaved,
    AgentExited,
    AgentPlaced,
    AgentRegistered,
    AgentSeen,
    AgentStatusSet,
    AgentUpdated,
    AnyFact,
    GroupCreated,
    GroupDeleted,
    GroupMemberAdded,
    GroupMemberRemoved,
    GroupUpdated,
    JournalFormat,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    MessageReceipt,
    PurgeExecuted,
    Sealed,
    SessionEnded,
    SessionItemsChanged,
    SessionStarted,
    bare,
)
from thrum.store import sweep
from thrum.store.database import get_meta, set_meta
from thrum.store.horizons import AGENT, AUTHOR, PURGE, Horizons, Order, purge_cutoff
from thrum.store.merge_agents import Agents
from thrum.store.merge_groups import Groups
from thrum.store.merge_messages import Messages
from thrum.store.merge_sessions import Sessions
from thrum.store.schema import HELD, JOURNAL_FORMAT

ReadLine = Callable[[str, int, int], bytes]
"""`read_line(file, offset, length)`: the line on disk, without its newline. Never asked for lines of the batch that is
being applied: the projection still holds those itself."""

State = Literal["applied", "pending", "sealed", "void", "known", "conflict"]

_FRESH_FACTS: Final = 4_096
_FRESH_BYTES: Final = 24 * 1024 * 1024
_INSERT_EVENT: Final = """
INSERT INTO events (event_id, type, timestamp, origin_daemon, actor, message_id, file, offset, length, signed, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'applied') ON CONFLICT (event_id) DO NOTHING"""


class Entry(NamedTuple):
    """A fact and where it lies. `raw` is without the newline, `length` counts it; a line that is signed only when the
    batch is flushed is told without its signature. `file`: relative, as events.md §1. `signed`: by its origin; what
    lies in the local journal is this daemon's own, and counts as signed.
    """

    fact: AnyFact | Sealed
    raw: bytes
    file: str
    offset: int
    length: int
    signed: bool


def entry_of(fact: AnyFact | Sealed, raw: bytes, file: str, offset: int, length: int) -> Entry:
    """The entry of a line as it lies in a journal, or will."""
    signed = file == LOCAL_FILE or signatures.is_signed(raw, fact.origin_daemon)
    return Entry(fact, raw, file, offset, length, signed)


class Applied(NamedTuple):
    """What became of a fact. `pending`: it has no effect now, because its thing is not there, because it does not
    count for the create that stands, or because its day has not come. `known`: the same fact was there; `seq` is its
    old number, nothing happened.

    `conflict`: another line of the same id was there. `wins`: the new one is of lesser rank (`signatures.rank`), so it
    is the fact and the picture must be painted anew; otherwise the new one goes to quarantine.
    """

    seq: int
    state: State
    wins: bool = False


class Thing(Protocol):
    """A kind of thing that begins with a create: its rows, as a function of the facts that count."""

    prefix: str
    create_type: str

    def winner(self, id: str, /) -> tuple[str, str] | None:
        """Order of the create that stands, None when the thing is not there."""
        ...

    def is_void(self, create: AnyFact, order: Order, /) -> bool:
        """Whether a horizon voids this create. Once true, true for ever."""
        ...

    def is_doomed(self, id: str, /) -> bool:
        """Whether a horizon voids the thing for what was merged into it."""
        ...

    def insert(self, create: AnyFact, order: Order, seq: int, /) -> None:
        """The rows of a thing that is not there."""
        ...

    def erase(self, id: str, /) -> None:
        """Every row of the thing, and what it gave to its neighbours."""
        ...

    def merge(self, id: str, fact: AnyFact, order: Order, file: str, /) -> bool:
        """One more fact for a thing that is there. False when it does not count."""
        ...


class Lines:
    """The bytes of facts: those of the last batches from memory, for they may not be on disk yet, others from disk."""

    def __init__(self, read_line: ReadLine) -> None:
        self._read_line = read_line
        self._young: dict[tuple[str, int], bytes] = {}
        self._old: dict[tuple[str, int], bytes] = {}
        self._bytes = 0

    def keep(self, file: str, offset: int, raw: bytes) -> None:
        # Two generations, each larger than a batch may be: whatever falls out was flushed long ago.
        self._young[file, offset] = raw
        self._bytes += len(raw)
        if len(self._young) > _FRESH_FACTS or self._bytes > _FRESH_BYTES:
            self._old, self._young, self._bytes = self._young, {}, 0

    def forget(self) -> None:
        self._young, self._old, self._bytes = {}, {}, 0

    def read(self, file: str, offset: int, length: int) -> bytes:
        raw = self._young.get((file, offset)) or self._old.get((file, offset))
        return self._read_line(file, offset, length) if raw is None else raw


def horizon_of_the_clock(now_ms: int) -> str:
    """The greatest time of a foreign fact that counts at once: what is later waits for its day."""
    return clock.format_ms(now_ms + limits.future_stamp_ms_max)


def may_wait(fact: AnyFact, own: frozenset[str]) -> bool:
    """Whether a fact from the future waits for its day: one of another daemon, or that does not say whose it is; and
    whatever voids others, since a stranger may write this daemon's name into a fact.
    """
    foreign = not fact.origin_daemon or fact.origin_daemon not in own
    return foreign or isinstance(fact, AgentCleaned | PurgeExecuted)


class Due(NamedTuple):
    """A held fact whose day has come, with its old number, and what became of it now."""

    seq: int
    fact: AnyFact
    state: State


class Projection:
    """The picture's one hand. Every method runs inside a transaction that the caller holds and may roll back.

    `own`: this daemon's id and its previous ones. `now_ms` is the wall clock.
    """

    def __init__(
        self, db: sqlite3.Connection, own: frozenset[str], read_line: ReadLine, now_ms: Callable[[], int]
    ) -> None:
        self._db = db
        self._own = own
        self._now_ms = now_ms
        self._lines = Lines(read_line)
        self._horizons = Horizons(db)
        self._agents = Agents(db, self._horizons)
        self.messages = Messages(db, self._horizons)
        self.sessions = Sessions(db, self._horizons)
        self.groups = Groups(db, self._horizons)

    def apply(self, entry: Entry) -> Applied:
        """Number a fact and merge it into the picture. Idempotent; the order of calls does not matter."""
        fact = entry.fact
        order = events.order_of(fact)
        cursor = self._db.execute(_INSERT_EVENT, event_row(entry, order[0]))
        if cursor.rowcount == 0:
            return self._known(entry)
        seq = cursor.lastrowid
        assert seq is not None
        self._lines.keep(entry.file, entry.offset, entry.raw)
        return Applied(seq, self.project(seq, entry, order))

    def flushed(self) -> None:
        """Everything applied so far can be read from the journals. Optional: it only frees memory."""
        self._lines.forget()

    def project(self, seq: int, entry: Entry, order: Order) -> State:
        """Merge a fact whose row in `events` stands already, as applied."""
        fact = entry.fact
        if isinstance(fact, Sealed):
            state = "sealed"
        elif may_wait(fact, self._own) and order[0] > horizon_of_the_clock(self._now_ms()):
            self._remember(HELD + order[0], seq)
            state = "pending"
        else:
            state = self._merge(fact, order, seq, entry.file)
        if state != "applied":
            self._db.execute("UPDATE events SET state = ? WHERE seq = ?", (state, seq))
        if not isinstance(fact, Sealed) and fact.client_key and fact.origin_daemon in self._own:
            # Kept as long as the fact is, void or not: with its line it goes (compaction).
            self._db.execute("INSERT OR IGNORE INTO client_keys VALUES (?, ?, ?, ?, ?)", client_key_row(fact, order))
        return state

    def apply_due(self) -> list[Due]:
        """Merge what was held and whose day has come."""
        due: list[Due] = []
        rows = self._db.execute(
            "SELECT thing, seq, file, offset, length FROM hanging JOIN events USING (seq)"
            " WHERE thing > ? AND thing <= ? ORDER BY timestamp, event_id",
            (HELD, HELD + horizon_of_the_clock(self._now_ms())),
        ).fetchall()
        for thing, seq, file, offset, length in rows:
            raw = bare(self._lines.read(file, offset, length))
            fact = events.decode(raw)
            assert not isinstance(fact, Sealed)
            self._db.execute("DELETE FROM hanging WHERE thing = ? AND seq = ?", (thing, seq))
            self._db.execute("UPDATE events SET state = 'applied' WHERE seq = ?", (seq,))
            state = self.project(seq, entry_of(fact, raw, file, offset, length), events.order_of(fact))
            due.append(Due(seq, fact, state))
        return due

    # -- one fact

    def _known(self, entry: Entry) -> Applied:
        seq, file, offset, length, signed = self._db.execute(
            "SELECT seq, file, offset, length, signed FROM events WHERE event_id = ?", (entry.fact.event_id,)
        ).fetchone()
        if (file, offset) == (entry.file, entry.offset):
            return Applied(seq, "known")
        stored = signatures.rank(bare(self._lines.read(file, offset, length)), bool(signed))
        new = signatures.rank(bare(entry.raw), entry.signed)
        if new[1] == stored[1] and new >= stored:
            return Applied(seq, "known")
        return Applied(seq, "conflict", wins=new < stored)

    def _merge(self, fact: AnyFact, order: Order, seq: int, file: str) -> State:
        match fact:
            case MessageCreated():
                return self._create(self.messages, fact.message_id, fact, order, seq)
            case MessageReceipt() | MessageEdited() | MessageDeleted():
                return self._hang(self.messages, fact.message_id, fact, order, seq, file)
            case SessionStarted():
                return self._create(self.sessions, fact.session_id, fact, order, seq)
            case SessionEnded() | SessionItemsChanged():
                return self._hang(self.sessions, fact.session_id, fact, order, seq, file)
            case AgentUpdated():
                return self._update(fact, order, seq, file)
            case GroupCreated():
                return self._create(self.groups, fact.group_id, fact, order, seq)
            case GroupMemberAdded() | GroupMemberRemoved() | GroupUpdated() | GroupDeleted():
                return self._hang(self.groups, fact.group_id, fact, order, seq, file)
            case AgentCleaned():
                self._clean(fact, order)
            case PurgeExecuted():
                self._purge(fact, order)
            case JournalFormat():
                set_meta(self._db, JOURNAL_FORMAT, str(max(fact.format, int(get_meta(self._db, JOURNAL_FORMAT) or 0))))
            case AgentSeen():
                if not self._agents.merge(fact, order):
                    return "void"
                if fact.session_id:
                    self._hang(self.sessions, fact.session_id, fact, order, seq, file)
            case AgentRegistered():
                if not self._agents.merge(fact, order):
                    return "void"
                self._remember("a:" + fact.agent_id, seq)
            case AgentPlaced() | AgentStatusSet() | AgentExited() | AgentContextSaved():
                if not self._agents.merge(fact, order):
                    return "void"
        return "applied"

    def _update(self, fact: AgentUpdated, order: Order, seq: int, file: str) -> State:
        if self._horizons.covers(AGENT, fact.agent_id, order):
            return "void"
        session_ids = dict.fromkeys(work.session_id for work in fact.work_contexts)
        states = {self._hang(self.sessions, session_id, fact, order, seq, file) for session_id in session_ids}
        return "pending" if states == {"pending"} else "applied"

    def _clean(self, fact: AgentCleaned, order: Order) -> None:
        if self._horizons.rise(AGENT, fact.agent_id, order):
            self._agents.forget(fact.agent_id, order)
            self.groups.forget_agent(fact.agent_id, order)
            sweep.hide_below(self._db, fact.agent_id, order)
            self._revoke(self.sessions, sweep.sessions_below(self._db, fact.agent_id, order))
            for session_id in sweep.sessions_told_below(self._db, fact.agent_id, order):
                self._settle(self.sessions, session_id)
        if fact.messages and self._horizons.rise(AUTHOR, fact.agent_id, order):
            self._revoke(self.messages, sweep.messages_below(self._db, fact.agent_id, order))

    def _purge(self, fact: PurgeExecuted, order: Order) -> None:
        cutoff = purge_cutoff(fact, order[0])
        if cutoff and self._horizons.rise(PURGE, "", (cutoff, fact.event_id)):
            self._revoke(self.messages, sweep.messages_before(self._db, cutoff))
            self._revoke(self.sessions, sweep.sessions_ended_before(self._db, cutoff))

    # -- things

    def _create(self, thing: Thing, id: str, fact: AnyFact, order: Order, seq: int) -> State:
        if thing.is_void(fact, order):
            return "void"
        key = thing.prefix + id
        winner = thing.winner(id)
        if winner is None and not self._db.execute("SELECT 1 FROM hanging WHERE thing = ? LIMIT 1", (key,)).fetchone():
            thing.insert(fact, order, seq)
            return "applied"
        self._remember(key, seq)
        if winner is not None and order > winner:
            return "pending"
        self._settle(thing, id)
        return self._db.execute("SELECT state FROM events WHERE seq = ?", (seq,)).fetchone()[0]

    def _hang(self, thing: Thing, id: str, fact: AnyFact, order: Order, seq: int, file: str) -> State:
        self._remember(thing.prefix + id, seq)
        if thing.winner(id) is None or not thing.merge(id, fact, order, file):
            return "pending"
        if thing.is_doomed(id):
            self._settle(thing, id)
            return "void"
        return "applied"

    def _remember(self, key: str, seq: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO hanging VALUES (?, ?)", (key, seq))

    def _remember_winner(self, thing: Thing, id: str) -> None:
        winner = thing.winner(id)
        if winner is not None:
            self._db.execute(
                "INSERT OR IGNORE INTO hanging SELECT ?, seq FROM events WHERE event_id = ?",
                (thing.prefix + id, winner[1]),
            )

    def _settle(self, thing: Thing, id: str) -> None:
        """Make a thing again from every fact about it: the smallest create that is not void, then all the others."""
        self._remember_winner(thing, id)
        thing.erase(id)
        creates: list[tuple[Order, int, AnyFact]] = []
        others: list[tuple[Order, int, AnyFact, str]] = []
        states: dict[int, State] = {}
        for seq, at, event_id, type_, file, offset, length in self._db.execute(
            "SELECT seq, timestamp, event_id, type, file, offset, length FROM hanging JOIN events USING (seq)"
            " WHERE thing = ?",
            (thing.prefix + id,),
        ).fetchall():
            fact = events.decode(bare(self._lines.read(file, offset, length)))
            assert not isinstance(fact, Sealed)
            if type_ != thing.create_type:
                others.append(((at, event_id), seq, fact, file))
            elif thing.is_void(fact, (at, event_id)):
                states[seq] = "void"
            else:
                creates.append(((at, event_id), seq, fact))
                states[seq] = "pending"
        creates.sort(key=lambda create: create[0])
        if creates:
            order, seq, fact = creates[0]
            thing.insert(fact, order, seq)
            states[seq] = "applied"
        for order, seq, fact, file in others:
            states[seq] = "applied" if creates and thing.merge(id, fact, order, file) else "pending"
        if thing.is_doomed(id):
            thing.erase(id)
            states = dict.fromkeys(states, "void")
        self._db.executemany(
            "UPDATE events SET state = ? WHERE seq = ?", [(state, seq) for seq, state in states.items()]
        )

    def _revoke(self, thing: Thing, ids: Iterable[str]) -> None:
        """A horizon rose above these things. Where another create may stand, the thing is made again."""
        for id in ids:
            key = thing.prefix + id
            rival = self._db.execute(
                "SELECT 1 FROM hanging JOIN events USING (seq) WHERE thing = ? AND type = ? LIMIT 1",
                (key, thing.create_type),
            ).fetchone()
            if rival is not None:
                self._settle(thing, id)
                continue
            self._remember_winner(thing, id)
            thing.erase(id)
            # By their numbers: given the query, SQLite looks at every fact there is.
            told = self._db.execute("SELECT seq FROM hanging WHERE thing = ?", (key,)).fetchall()
            self._db.executemany("UPDATE events SET state = 'void' WHERE seq = ?", told)


def event_row(entry: Entry, at: str) -> tuple[str | int, ...]:
    """The columns of `events` from event_id to signed."""
    fact = entry.fact
    if isinstance(fact, MessageCreated):
        # Most of them: spelled out.
        return (
            fact.event_id,
            "message.create",
            at,
            fact.origin_daemon,
            fact.agent_id or "system",
            fact.message_id,
            entry.file,
            entry.offset,
            entry.length,
            entry.signed,
        )
    return (
        fact.event_id,
        events.type_of(fact),
        at,
        fact.origin_daemon,
        events.actor_of(fact),
        getattr(fact, "message_id", ""),
        entry.file,
        entry.offset,
        entry.length,
        entry.signed,
    )


def client_key_row(fact: AnyFact, order: Order) -> tuple[str, str, str, str, str]:
    return (events.actor_of(fact), fact.client_key, *order, fact.client_digest)
