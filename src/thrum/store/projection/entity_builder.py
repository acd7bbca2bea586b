"""Entities as functions of the facts about them: which create counts, and which of the rest (events.md §7 to §9)."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Literal

from thrum.model import events
from thrum.model.events import (
    AgentAliased,
    AgentUpdated,
    AnyFact,
    GroupMemberAdded,
    GroupMemberRemoved,
    MessageReceipt,
    SessionEnded,
    UnknownEvent,
    WakeAttempted,
    bare,
)
from thrum.model.origins import BEFORE, OURS, SIGNED, Origins, Provenance, may_change, may_say_of_session
from thrum.store.projection.entities import Entity, Lines, ReadLine, Winner
from thrum.store.projection.merge_agents import Agents
from thrum.store.projection.merge_daemons import Daemons
from thrum.store.projection.merge_groups import Groups
from thrum.store.projection.merge_messages import Messages
from thrum.store.projection.merge_sessions import Sessions
from thrum.store.projection.merge_wakes import Wakes
from thrum.store.projection.sweep import Swept
from thrum.store.projection.watermarks import Order, Watermarks
from thrum.store.schema import REGISTERED

State = Literal["applied", "pending", "sealed", "void", "not_yours", "hidden", "bad_name", "known", "conflict"]


def messages_of(fact: MessageReceipt | AgentAliased) -> tuple[str, ...]:
    """The messages that a fact is about."""
    return fact.message_ids if isinstance(fact, AgentAliased) else (fact.message_id,)


DependentFact = tuple[int, Order, AnyFact, str, Provenance]
"""A fact about an entity: its number, order, the fact, its file, and what its line is."""


class EntityBuilder:
    """The part of `Projection` that makes entities of the facts about them, and makes them again."""

    def __init__(self, db: sqlite3.Connection, own: frozenset[str], read_line: ReadLine) -> None:
        self._db = db
        self._lines = Lines(read_line)
        self._watermarks = Watermarks(db)
        self._daemons = Daemons(db, own)
        self._agents = Agents(db, self._watermarks, self._daemons)
        self._local = Origins(own=own | {OURS}).local()
        self.messages = Messages(db, self._watermarks, self._local, self._may_answer, self._may_replace)
        self.sessions = Sessions(db, self._watermarks)
        self.groups = Groups(db, self._watermarks)
        self._wakes = Wakes(db, self._watermarks)

    def _create(self, entity: Entity, id: str, fact: AnyFact, order: Order, seq: int, who: Provenance) -> State:
        if entity.is_tombstoned(fact, order, who):
            return "void"
        key = entity.prefix + id
        winner = entity.winner(id)
        if winner is None and not self._db.execute("SELECT 1 FROM hanging WHERE thing = ? LIMIT 1", (key,)).fetchone():
            entity.insert(fact, order, seq, who)
            return "applied"
        self._remember(key, seq)
        if winner is not None and (who.trust, *order) > winner[:3]:
            return "pending"
        self._settle(entity, id)
        return self._db.execute("SELECT state FROM events WHERE seq = ?", (seq,)).fetchone()[0]

    def _add_dependent(
        self, entity: Entity, id: str, fact: AnyFact, order: Order, seq: int, file: str, who: Provenance
    ) -> State:
        self._remember(entity.prefix + id, seq)
        winner = entity.winner(id)
        if winner is None:
            return "pending"
        if file != events.LOCAL_FILE and not self._may(fact, who, winner):
            return "not_yours"
        if not entity.merge(id, fact, order, file, who):
            return "pending"
        if entity.is_doomed(id, self._provenance_of(winner)):
            self._settle(entity, id)
            return "void"
        return "applied"

    def _merge_alias(self, fact: AgentAliased, order: Order, seq: int, file: str, who: Provenance) -> State:
        """An agent continues under another id: each of the listed messages that it had gets that recipient, too."""
        if who.trust == SIGNED:
            self._agents.note_alias(fact, order, who)
        for agent_id in (fact.agent_id, fact.of):
            self._remember(REGISTERED + agent_id, seq)
        for message_id in fact.message_ids:
            is_new = not self.messages.has_recipient(message_id, fact.agent_id)
            state = self._add_dependent(self.messages, message_id, fact, order, seq, file, who)
            if is_new and state == "applied" and self._has_early_receipts(message_id, fact.agent_id):
                self._settle(self.messages, message_id)
        return self._state_of(fact, who)

    def _merge_aliases(self, entity: Entity | None, id: str, handed: Collection[DependentFact]) -> dict[int, State]:
        """Everything by which a message went from one to another: an agent that got it from another comes after that
        one."""
        states: dict[int, State] = {}
        waiting: list[DependentFact] = []
        for each in handed:
            _, _, fact, _, who = each
            assert isinstance(fact, AgentAliased)
            states[each[0]] = self._state_of(fact, who)
            if states[each[0]] == "applied":
                waiting.append(each)
        while entity is not None and waiting:
            left = [each for each in waiting if not self._merge_into(entity, id, each)]
            if len(left) == len(waiting):
                break
            waiting = left
        return states

    def _merge_into(self, entity: Entity, id: str, dependent: DependentFact) -> bool:
        _, order, fact, file, who = dependent
        return entity.merge(id, fact, order, file, who)

    def _has_early_receipts(self, message_id: str, agent_id: str) -> bool:
        """Whether there are words on a message that were of no use before somebody was its recipient: how far it came
        with that one, and to whom that one handed it on.
        """
        sql = (
            "SELECT 1 FROM hanging JOIN events USING (seq)"
            " WHERE thing = ?1 AND (type = 'message.receipt' AND actor = ?2"
            " OR type = 'agent.alias' AND actor IN (SELECT agent_id FROM agent_aliases WHERE of = ?2)) LIMIT 1"
        )
        return self._db.execute(sql, (self.messages.prefix + message_id, agent_id)).fetchone() is not None

    def _state_of(self, fact: AgentAliased, who: Provenance) -> State:
        """It is about many messages: only the origin decides whether it counts."""
        return "applied" if self._may_alias(fact, who) else "not_yours"

    def _may_alias(self, fact: AgentAliased, who: Provenance) -> bool:
        """Only for one's own, the one that was and the one that is: another agent that takes the name is not renamed to
        it. And signed: before there were signatures no agent was renamed.
        """
        return who.trust == SIGNED and all(self._agents.speaks(id, who.home) for id in (fact.agent_id, fact.of))

    def _tell_attempt(self, attempt_id: str) -> None:
        """Make an attempt again from every fact about it that no purge took out of effect."""
        counting: list[tuple[Order, WakeAttempted]] = []
        for seq, order, fact, _, who in self._facts_of(Wakes.PREFIX + attempt_id):
            assert isinstance(fact, WakeAttempted)
            if self._wakes.is_purged(order, who):
                self._db.execute("UPDATE events SET state = 'void' WHERE seq = ?", (seq,))
            else:
                counting.append((order, fact))
        self._wakes.tell(attempt_id, counting)

    def _provenance_of(self, winner: Winner) -> Provenance:
        return self._daemons.origins.provenance(winner.origin, winner.trust)

    def _may(self, fact: AnyFact, who: Provenance, winner: Winner) -> bool:
        """Whether a fact of the branch may change what that create made (events.md §11 "Who may change what")."""
        if isinstance(fact, AgentAliased):
            return self._may_alias(fact, who)
        owner = self._provenance_of(winner)
        if isinstance(fact, MessageReceipt):
            if who.trust == owner.trust == BEFORE:
                return True
            return self._agents.speaks(fact.agent_id, who.home)
        if isinstance(fact, SessionEnded | AgentUpdated):
            return may_say_of_session(who, owner)
        if may_change(who, owner):
            return True
        if isinstance(fact, GroupMemberAdded | GroupMemberRemoved) and fact.member_type == "agent":
            return self._agents.is_registrar(fact.member_value, who.home)
        return False

    def _may_answer(self, agent_id: str, origin: str) -> bool:
        home = self._daemons.origins.home(origin)
        return home == OURS or self._agents.speaks(agent_id, home)

    def _may_replace(self, origin: str, trust: int, of_origin: str, of_trust: int) -> bool:
        provenance = self._daemons.origins.provenance
        return may_change(provenance(origin, trust), provenance(of_origin, of_trust))

    def _remember(self, key: str, seq: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO hanging VALUES (?, ?)", (key, seq))

    def _remember_winner(self, entity: Entity, id: str) -> None:
        winner = entity.winner(id)
        if winner is not None:
            self._db.execute(
                "INSERT OR IGNORE INTO hanging SELECT ?, seq FROM events WHERE event_id = ?",
                (entity.prefix + id, winner.event_id),
            )

    def _facts_of(self, key: str, swept: Swept | None = None) -> list[DependentFact]:
        """Everything that hangs under a key: number, order, fact, file, and what its line is. With `swept` what is not
        tombstoned, and may become so in that realm.
        """
        found: list[DependentFact] = []
        more = f" AND state <> 'void' AND {swept.where}" if swept else ""
        for seq, at, event_id, origin, trust, file, offset, length in self._db.execute(
            "SELECT seq, timestamp, event_id, origin_daemon, trust, file, offset, length"
            f" FROM hanging JOIN events USING (seq) WHERE thing = :key{more}",
            {"key": key, "origins": swept.origins_json if swept else ""},
        ).fetchall():
            fact = events.decode(bare(self._lines.read(file, offset, length)))
            assert not isinstance(fact, UnknownEvent)
            local = file == events.LOCAL_FILE
            who = self._local if local else self._daemons.origins.provenance(origin, trust)
            found.append((seq, (at, event_id), fact, file, who))
        return found

    def _settle(self, entity: Entity, id: str) -> None:
        """Make a thing again from every fact about it: the smallest create that is not tombstoned, then all
        the others.
        """
        self._remember_winner(entity, id)
        entity.erase(id)
        creates: list[tuple[Winner, int, AnyFact, Provenance]] = []
        others: list[DependentFact] = []
        states: dict[int, State] = {}
        for seq, order, fact, file, who in self._facts_of(entity.prefix + id):
            if events.type_of(fact) != entity.create_type:
                others.append((seq, order, fact, file, who))
            elif entity.is_tombstoned(fact, order, who):
                states[seq] = "void"
            else:
                creates.append((Winner(who.trust, *order, fact.origin_daemon), seq, fact, who))
                states[seq] = "pending"
        creates.sort(key=lambda create: create[0])
        winner = None
        if creates:
            winner, seq, fact, who = creates[0]
            entity.insert(fact, (winner.at, winner.event_id), seq, who)
            states[seq] = "applied"
        # Recipients first: marks are theirs.
        handed = [other for other in others if isinstance(other[2], AgentAliased)]
        states |= self._merge_aliases(entity if winner is not None else None, id, handed)
        for seq, order, fact, file, who in others:
            if isinstance(fact, AgentAliased):
                continue
            if winner is None:
                states[seq] = "pending"
            elif file != events.LOCAL_FILE and not self._may(fact, who, winner):
                states[seq] = "not_yours"
            else:
                states[seq] = "applied" if entity.merge(id, fact, order, file, who) else "pending"
        if winner is not None and entity.is_doomed(id, self._provenance_of(winner)):
            entity.erase(id)
            states = dict.fromkeys(states, "void")
        self._db.executemany(
            "UPDATE events SET state = ? WHERE seq = ?", [(state, seq) for seq, state in states.items()]
        )

    def _revoke(self, entity: Entity, ids: Iterable[str]) -> None:
        """A watermark rose above these entities. If another create may count, the entity is rebuilt."""
        for id in ids:
            key = entity.prefix + id
            rival = self._db.execute(
                "SELECT 1 FROM hanging JOIN events USING (seq) WHERE thing = ? AND type = ? LIMIT 1",
                (key, entity.create_type),
            ).fetchone()
            if rival is not None:
                self._settle(entity, id)
                continue
            self._remember_winner(entity, id)
            entity.erase(id)
            # By their numbers: given the query, SQLite looks at every fact there is.
            told = self._db.execute("SELECT seq FROM hanging WHERE thing = ?", (key,)).fetchall()
            sql = "UPDATE events SET state = 'void' WHERE seq = ? AND type <> 'agent.alias'"  # that has others, too
            self._db.executemany(sql, told)
