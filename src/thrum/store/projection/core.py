"""Applying facts to the projection, one at a time, in any order, any number of times (events.md §7 to §9).

The projection is a function of the *set* of facts. What a single fact does:

- What its line is to this machine (`thrum.model.origins`) decides whether it counts, and what it may change.
- Facts about an agent set registers that keep the order of their winner (`merge_agents`).
- Messages, sessions and groups are *entities*: rows that begin with a create. The smallest create that no watermark
  tombstones stands; edits, ends, receipts, members … are merged into it, or wait until it is there.
- All other facts about an entity are remembered in `hanging`, so that an entity whose create changes (a smaller one
came, or the current one was tombstoned) is erased and rebuilt from its facts, read from the journals.
- A cleanup or purge raises a watermark and tombstones what lies below.
- A fact of another daemon stamped more than a day ahead of the clock is deferred until then: no daemon takes the future
  out of effect.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, NamedTuple, assert_never

from thrum.model import clock, events, limits, signatures
from thrum.model.events import (
    LOCAL_FILE,
    SWEEPS,
    Accepted,
    AgentAliased,
    AgentCleaned,
    AgentContextSaved,
    AgentExited,
    AgentHidden,
    AgentPlaced,
    AgentRegistered,
    AgentSeen,
    AgentStatusSet,
    AgentUpdated,
    AnyFact,
    DaemonFact,
    DaemonKeyed,
    DaemonSucceeded,
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
    SessionEnded,
    SessionItemsChanged,
    SessionStarted,
    UnknownEvent,
    WakeAttempted,
    bare,
)
from thrum.model.origins import BEFORE, HIDDEN, OURS, SIGNED, STRANGE, Provenance, is_well_named, line_hash, rank
from thrum.store.database import get_meta, set_meta
from thrum.store.projection import sweep
from thrum.store.projection.entities import Entity, ReadLine
from thrum.store.projection.entity_builder import EntityBuilder, State, messages_of
from thrum.store.projection.entry import Entry, client_key_row, entry_of, event_row
from thrum.store.projection.watermarks import AGENT, AUTHOR, PURGE, Order, purge_cutoff
from thrum.store.schema import DEFERRED, FOREIGN_FORMAT, JOURNAL_FORMAT, KEYLESS, REGISTERED, SUPERSEDED

UNANNOUNCED: Final = frozenset({"void", "not_yours", "hidden", "bad_name"})
"""What became of facts that change nothing and are never announced."""

_AGENT: Final = "a:"
_EVERYBODY: Final = "*"  # no origin is called so
_INSERT_EVENT: Final = """
INSERT INTO events (event_id, type, timestamp, origin_daemon, actor, message_id, file, offset, length, trust, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'applied') ON CONFLICT (event_id) DO NOTHING"""


class Applied(NamedTuple):
    """What became of a fact. `pending`: it has no effect now, because its thing is not there, because it does not
    count for the create that stands, because its day has not come, or because its origin has not said that it is of
    this project. `not_yours`: its origin may not change that. `hidden`: unsigned, of an origin that does not count.
    `known`: the same line was there; `seq` is its old number, nothing happened.

    `conflict`: another line of the same id was there. `wins`: the new one is of lesser rank (`origins.rank`), so it
    is the fact, and the projection must be rebuilt; otherwise the new one goes to quarantine.
    """

    seq: int
    state: State
    wins: bool = False


def deferral_limit(now_ms: int) -> str:
    """The greatest time of a foreign fact that counts at once: what is later waits for its day."""
    return clock.format_ms(now_ms + limits.future_stamp_ms_max)


def may_wait(fact: AnyFact, own: frozenset[str]) -> bool:
    """Whether a fact from the future is deferred: one of another daemon, or without an origin; and
    whatever tombstones others, since a stranger may write this daemon's name into a fact.
    """
    if isinstance(fact, DaemonKeyed):
        return False  # or one whose clock once ran ahead would never count
    foreign = not fact.origin_daemon or fact.origin_daemon not in own
    return foreign or isinstance(fact, SWEEPS)


def is_rival(entry: Entry, file: str, *, is_same: bool) -> bool:
    """Whether a line is to be minded when the one of its id that is the fact, in the journal `file`, goes. `is_same`:
    both say the same; what lies here and travels too is known to do so (`receipts`).
    """
    return not (is_same and LOCAL_FILE in (file, entry.file))


class Released(NamedTuple):
    """A held fact whose day has come, with its old number, and what became of it now."""

    seq: int
    fact: AnyFact
    state: State


class Projection(EntityBuilder):
    """The projection's one hand. Every method runs inside a transaction that the caller holds and may roll back: then
    `rolled_back` must be told.

    `own`: this daemon's id and its previous ones. `now_ms` is the wall clock.
    """

    def __init__(
        self, db: sqlite3.Connection, own: frozenset[str], read_line: ReadLine, now_ms: Callable[[], int]
    ) -> None:
        super().__init__(db, own, read_line)
        self._own = own
        self._now_ms = now_ms
        self.outdated = False
        """Whether a fact since then changed what others are: `schema_meta` says so, if it was not rolled back."""
        self.touched: set[str] = set()
        """Agents of whom another origin said since then that they are its own, or are no more."""
        self.released: list[Released] = []
        """What waited for its origin to say that it is of this project, and counts now."""

    def judge(self, entry: Entry) -> Provenance:
        """What a line is to this machine."""
        if entry.file == LOCAL_FILE:
            return self._local
        return self._daemons.origins.judge(entry.raw, entry.fact.origin_daemon, signed=entry.signed)

    def apply(self, entry: Entry) -> Applied:
        """Number a fact and merge it into the projection. Idempotent; the order of calls does not matter."""
        order = events.order_of(entry.fact)
        who = self.judge(entry)
        cursor = self._db.execute(_INSERT_EVENT, (*event_row(entry, order[0]), who.trust))
        if cursor.rowcount == 0:
            return self._known(entry, order, who)
        seq = cursor.lastrowid
        assert seq is not None
        self._lines.keep(entry.file, entry.offset, entry.raw)
        return Applied(seq, self.project(seq, entry, order, who))

    def flushed(self) -> None:
        """Everything applied so far can be read from the journals. Optional: it only frees memory."""
        self._lines.forget()

    def rolled_back(self) -> None:
        """What was applied since some moment is undone."""
        self._daemons.forget()

    def project(self, seq: int, entry: Entry, order: Order, who: Provenance | None = None) -> State:
        """Merge a fact whose row in `events` is already marked as applied."""
        fact = entry.fact
        who = who or self.judge(entry)
        if isinstance(fact, UnknownEvent):
            state = "sealed"
        elif who.trust == HIDDEN:
            state = "hidden"
        elif who.trust == STRANGE and not isinstance(fact, DaemonKeyed):
            self._remember(KEYLESS + fact.origin_daemon, seq)
            state = "pending"
        elif may_wait(fact, self._own) and order[0] > deferral_limit(self._now_ms()):
            self._remember(DEFERRED + order[0], seq)
            state = "pending"
        else:
            state = self._merge(fact, order, seq, entry.file, who)
        if state != "applied":
            self._db.execute("UPDATE events SET state = ? WHERE seq = ?", (state, seq))
        if not isinstance(fact, UnknownEvent) and fact.client_key and who.home == OURS and who.trust < HIDDEN:
            # Kept as long as the fact is, tombstoned or not: with its line it goes (compaction).
            self._db.execute("INSERT OR IGNORE INTO client_keys VALUES (?, ?, ?, ?, ?)", client_key_row(fact, order))
        return state

    def release_due_facts(self) -> list[Released]:
        """Merge what was held and whose day has come."""
        rows = self._db.execute(
            "SELECT thing, seq, file, offset, length FROM hanging JOIN events USING (seq)"
            " WHERE thing > ? AND thing <= ? ORDER BY timestamp, event_id",
            (DEFERRED, DEFERRED + deferral_limit(self._now_ms())),
        ).fetchall()
        return [self._again(*row) for row in rows]

    def unsigned_before(self) -> tuple[list[str], set[str]]:
        """The hashes of all lines that count as from before signing, and their origins."""
        rows = self._db.execute(
            "SELECT origin_daemon, file, offset, length FROM events WHERE trust BETWEEN 1 AND 3 AND trust = ?",
            (BEFORE,),
        ).fetchall()
        hashes = [line_hash(bare(self._lines.read(file, offset, length))) for _, file, offset, length in rows]
        return hashes, {row[0] for row in rows}

    def note_rival(self, entry: Entry) -> None:
        """A line that `apply` found to be known, or to have lost, lies in a journal beside the one that is the fact."""
        file, offset, length = self._db.execute(
            "SELECT file, offset, length FROM events WHERE event_id = ?", (entry.fact.event_id,)
        ).fetchone()
        if (file, offset) == (entry.file, entry.offset):
            return
        other = signatures.unsigned(bare(self._lines.read(file, offset, length)))
        if is_rival(entry, file, is_same=other == signatures.unsigned(bare(entry.raw))):
            self._note_rival(entry.fact.event_id)

    def _note_rival(self, event_id: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO rivals VALUES (?)", (event_id,))

    def holder_to_note(self, agent_id: str) -> str:
        """See `Agents.holder_to_note`."""
        return self._agents.holder_to_note(agent_id)

    def _again(self, key: str, seq: int, file: str, offset: int, length: int) -> Released:
        """Project what hung under a key of `hanging` that has come."""
        raw = bare(self._lines.read(file, offset, length))
        fact = events.decode(raw)
        assert not isinstance(fact, UnknownEvent)
        deferred = self._db.execute("DELETE FROM hanging WHERE thing = ? AND seq = ?", (key, seq)).rowcount
        assert deferred == 1, "a released fact was deferred, and is released once: it must not be merged twice"
        who = self.judge(entry := entry_of(fact, raw, file, offset, length))
        self._db.execute("UPDATE events SET state = 'applied', trust = ? WHERE seq = ?", (who.trust, seq))
        return Released(seq, fact, self.project(seq, entry, events.order_of(fact), who))

    # -- one fact

    def _known(self, entry: Entry, order: Order, who: Provenance) -> Applied:
        """A line of this id is here: the same, or the one of lesser rank is the fact (`thrum.model.origins.rank`)."""
        seq, file, offset, length, trust, state = self._db.execute(
            "SELECT seq, file, offset, length, trust, state FROM events WHERE event_id = ?", (entry.fact.event_id,)
        ).fetchone()
        if (file, offset) == (entry.file, entry.offset):
            return Applied(seq, "known")
        stored = rank(bare(self._lines.read(file, offset, length)), trust)
        new = rank(bare(entry.raw), who.trust)
        if new >= stored:
            return Applied(seq, "known" if new[1] == stored[1] else "conflict")
        if state != "hidden" and trust != STRANGE:
            return Applied(seq, "conflict", wins=True)
        # It changed nothing so far, and stays in its journal.
        self._note_rival(entry.fact.event_id)
        self._db.execute("DELETE FROM hanging WHERE seq = ?", (seq,))
        self._db.execute(
            "UPDATE events SET event_id = ?, type = ?, timestamp = ?, origin_daemon = ?, actor = ?, message_id = ?,"
            " file = ?, offset = ?, length = ?, trust = ?, state = 'applied' WHERE seq = ?",
            (*event_row(entry, order[0]), who.trust, seq),
        )
        self._lines.keep(entry.file, entry.offset, entry.raw)
        return Applied(seq, self.project(seq, entry, order, who))

    def _merge(self, fact: AnyFact, order: Order, seq: int, file: str, who: Provenance) -> State:
        if who.home != OURS and who.trust != BEFORE and not is_well_named(fact):
            return "bad_name"
        match fact:
            case MessageCreated():
                return self._create(self.messages, fact.message_id, fact, order, seq, who)
            case MessageReceipt():
                if file != LOCAL_FILE:
                    self._remember(REGISTERED + fact.agent_id, seq)
                return self._add_dependent(self.messages, fact.message_id, fact, order, seq, file, who)
            case MessageEdited() | MessageDeleted():
                return self._add_dependent(self.messages, fact.message_id, fact, order, seq, file, who)
            case SessionStarted():
                return self._create(self.sessions, fact.session_id, fact, order, seq, who)
            case SessionEnded() | SessionItemsChanged():
                return self._add_dependent(self.sessions, fact.session_id, fact, order, seq, file, who)
            case AgentUpdated():
                return self._update(fact, order, seq, file, who)
            case GroupCreated():
                return self._create(self.groups, fact.group_id, fact, order, seq, who)
            case GroupMemberAdded() | GroupMemberRemoved():
                if fact.member_type == "agent":
                    self._remember(REGISTERED + fact.member_value, seq)
                return self._add_dependent(self.groups, fact.group_id, fact, order, seq, file, who)
            case GroupUpdated() | GroupDeleted():
                return self._add_dependent(self.groups, fact.group_id, fact, order, seq, file, who)
            case AgentCleaned():
                self._clean(fact, order, who)
            case PurgeExecuted():
                self._purge(fact, order, who)
            case JournalFormat():
                key = JOURNAL_FORMAT if who.home == OURS else FOREIGN_FORMAT
                set_meta(self._db, key, str(max(fact.format, int(get_meta(self._db, key) or 0))))
            case AgentSeen():
                if not self._agents.merge_local(fact, order, who):
                    return "void"
                if fact.session_id:
                    self._add_dependent(self.sessions, fact.session_id, fact, order, seq, file, who)
            case AgentPlaced() | AgentStatusSet() | AgentExited():
                return "applied" if self._agents.merge_local(fact, order, who) else "void"
            case AgentRegistered():
                return self._register(fact, order, seq, who)
            case AgentAliased():
                return self._merge_alias(fact, order, seq, file, who)
            case AgentContextSaved():
                self._remember(_AGENT + fact.agent_id, seq)
                return "applied" if self._agents.merge(fact, order, who) else "void"
            case WakeAttempted():
                if self._wakes.is_purged(order, who):
                    return "void"
                self._remember(self._wakes.PREFIX + fact.attempt_id, seq)
                self._tell_attempt(fact.attempt_id)
            case DaemonKeyed() | DaemonSucceeded() | Accepted() | AgentHidden():
                return self._introduce(fact, order, who)
            case _:
                assert_never(fact)
        return "applied"

    def _update(self, fact: AgentUpdated, order: Order, seq: int, file: str, who: Provenance) -> State:
        if self._watermarks.covers(AGENT, fact.agent_id, order, who.under):
            return "void"
        session_ids = dict.fromkeys(work.session_id for work in fact.work_contexts)
        states: set[State] = set()
        for session_id in session_ids:
            states.add(self._add_dependent(self.sessions, session_id, fact, order, seq, file, who))
        state = states.pop() if len(states) == 1 else "applied"
        return "applied" if state == "void" else state

    def _purge(self, fact: PurgeExecuted, order: Order, who: Provenance) -> None:
        cutoff = purge_cutoff(fact, order[0])
        if cutoff and self._watermarks.rise(PURGE, "", who.acts, (cutoff, fact.event_id)):
            swept = sweep.Swept(who.acts, self._daemons.origins)
            self._revoke(self.messages, swept.only(sweep.messages_before(self._db, swept, cutoff)))
            self._revoke(self.sessions, swept.only(sweep.sessions_ended_before(self._db, swept, cutoff)))
            if who.acts in self._local.under:
                for attempt_id in self._wakes.told_before(cutoff):
                    self._tell_attempt(attempt_id)

    # -- agents

    def _register(self, fact: AgentRegistered, order: Order, seq: int, who: Provenance) -> State:
        if who.home != OURS:
            self.touched.add(fact.agent_id)
        first = self._agents.note_registrar(fact.agent_id, who.home)
        self._remember(_AGENT + fact.agent_id, seq)
        counts = self._agents.merge(fact, order, who)
        self._agents.refresh(fact.agent_id)
        if first:
            self._rejudge(fact.agent_id, who.home)
        return "applied" if counts else "void"

    def _clean(self, fact: AgentCleaned, order: Order, who: Provenance) -> None:
        agent_id, realm = fact.agent_id, who.acts
        if who.home != OURS:
            self.touched.add(agent_id)
        first = self._agents.note_registrar(agent_id, who.home)
        swept = sweep.Swept(realm, self._daemons.origins)
        if self._watermarks.rise(AGENT, agent_id, realm, order):
            own = realm in self._local.under
            if own:
                self._agents.forget_local(agent_id, order)
                sweep.hide_below(self._db, agent_id, order)
            self._reapply_below(agent_id, swept)
            for group_id in sweep.groups_of(self._db, agent_id, order):
                self._settle(self.groups, group_id)
            self._revoke(self.sessions, swept.only(sweep.sessions_below(self._db, swept, agent_id, order)))
            for session_id in sweep.sessions_reported_below(self._db, swept, agent_id, order, own=own):
                self._settle(self.sessions, session_id)
        if fact.messages and self._watermarks.rise(AUTHOR, agent_id, realm, order):
            self._revoke(self.messages, swept.only(sweep.messages_below(self._db, swept, agent_id, order)))
        if first:
            self._rejudge(agent_id, who.home)

    def _reapply_below(self, agent_id: str, swept: sweep.Swept) -> None:
        """What the origins below a watermark that rose said of an agent, from everything of that which was not
        tombstoned.
        """
        self._agents.forget_told(agent_id, swept.homes)
        for seq, order, fact, _, who in self._facts_of(_AGENT + agent_id, swept):
            assert isinstance(fact, AgentRegistered | AgentContextSaved)
            state = "applied" if self._agents.merge(fact, order, who) else "void"
            self._db.execute("UPDATE events SET state = ? WHERE seq = ?", (state, seq))
        self._agents.refresh(agent_id)

    def _rejudge(self, agent_id: str, home: str) -> None:
        """Who may speak for the agent changed: that home may, if it is this daemon no other, or for all of them."""
        everybody = home in (OURS, _EVERYBODY)
        found: dict[tuple[str, str], Entity] = {}
        for seq, _, fact, _, who in self._facts_of(REGISTERED + agent_id):
            if not everybody and who.home != home:
                continue
            if isinstance(fact, AgentAliased):  # it need not be about a message that is here
                state = self._state_of(fact, who)
                self._db.execute("UPDATE events SET state = ? WHERE seq = ?", (state, seq))
            if isinstance(fact, MessageReceipt | AgentAliased):
                found |= {("m", message_id): self.messages for message_id in messages_of(fact)}
            elif isinstance(fact, GroupMemberAdded | GroupMemberRemoved):
                found["g", fact.group_id] = self.groups
        for (_, id), entity in found.items():
            if entity.winner(id) is not None:
                self._settle(entity, id)
        home_of = self._daemons.origins.home
        replies = [(parent, home_of(origin)) for parent, origin in self.messages.answered_by(agent_id)]
        for parent in {parent for parent, by in replies if by != OURS and (everybody or by == home)}:
            self.messages.refresh_parent(parent)

    # -- daemons

    def _introduce(self, fact: DaemonFact, order: Order, who: Provenance) -> State:
        if isinstance(fact, DaemonKeyed | DaemonSucceeded) and who.trust not in (SIGNED, STRANGE):
            return "not_yours"
        before = self._daemons.origins
        spoke: set[str] = set()
        if isinstance(fact, Accepted) and fact.kind == "holder":
            spoke = self._agents.speakers(fact.id)
        if not self._daemons.merge(fact, order):
            return "applied"
        match fact:
            case DaemonKeyed():
                if fact.origin_daemon not in before.projects and self._has_unsigned(fact.origin_daemon, HIDDEN - 1):
                    self._outdate(fact)  # what was not signed counts no more
                self._admit_origins()
            case Accepted(kind="project"):
                self._admit_origins()
            case Accepted(kind="holder"):
                self._agents.refresh(fact.id)
                if self._agents.speakers(fact.id) != spoke:
                    self._rejudge(fact.id, _EVERYBODY)
            case Accepted(kind="gone"):
                for agent_id in self._agents.registered_by(fact.id):
                    self._agents.refresh(agent_id)
            case Accepted(kind="origin"):
                if (before.closed and self._has_unsigned(fact.id, HIDDEN, HIDDEN)) or (
                    fact.of and self._has_facts(fact.of)
                ):
                    self._outdate(fact)
            case Accepted(kind="before"):
                if not fact.lines or before.closed:
                    self._apply_closing(fact)
            case AgentHidden():
                self._agents.refresh(fact.agent_id)
            case _:
                pass
        return "applied"

    def _has_unsigned(self, origin: str, most: int, least: int = BEFORE) -> bool:
        sql = "SELECT 1 FROM events WHERE origin_daemon = ? AND trust BETWEEN 1 AND 3 AND trust BETWEEN ? AND ? LIMIT 1"
        return self._db.execute(sql, (origin, least, most)).fetchone() is not None

    def _has_facts(self, origin: str) -> bool:
        sql = "SELECT 1 FROM events WHERE origin_daemon = ? LIMIT 1"
        return self._db.execute(sql, (origin,)).fetchone() is not None

    def _apply_closing(self, fact: Accepted) -> None:
        """Each unsigned line counts as before or not. Those that did, and are all listed, stay as they are."""
        counting, hidden = self._db.execute(
            "SELECT count(*) FILTER (WHERE trust = ?), count(*) FILTER (WHERE trust = ?) FROM events"
            " WHERE trust BETWEEN 1 AND 3",
            (BEFORE, HIDDEN),
        ).fetchone()
        named = {row[0] for row in self._db.execute("SELECT hash FROM lines_before")}
        if len(named) != counting or (fact.lines and hidden) or not named.issuperset(self.unsigned_before()[0]):
            self._outdate(fact)

    def _outdate(self, fact: AnyFact) -> None:
        """What changes is too much to be followed line by line."""
        set_meta(self._db, SUPERSEDED, fact.event_id)
        self.outdated = True

    def _admit_origins(self) -> None:
        """Let count what waited for its origin to say that it is of this project, where it has."""
        keys = self._db.execute(
            "SELECT DISTINCT thing FROM hanging WHERE thing > ?1 AND thing < ?2", (KEYLESS, KEYLESS[:-1] + ";")
        ).fetchall()
        for (key,) in keys:
            if self._daemons.origins.is_of_project(key.removeprefix(KEYLESS)):
                rows = self._db.execute(
                    "SELECT seq, file, offset, length FROM hanging JOIN events USING (seq) WHERE thing = ?"
                    " ORDER BY timestamp, event_id",
                    (key,),
                ).fetchall()
                self.released += [self._again(key, *row) for row in rows]
