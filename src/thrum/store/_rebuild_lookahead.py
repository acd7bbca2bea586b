"""What rebuilding has to know before it judges the first line: which daemons and agents belong together,
which daemons may write for an agent, what is tombstoned.

It reads `events.jsonl` once, and the few lines of the local journal about others. Everything else can then be judged in
one pass.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from thrum.model import clock, events
from thrum.model.event_specs import EVENT_SPECS
from thrum.model.events import (
    SPECS,
    AgentCleaned,
    AgentRegistered,
    AnyFact,
    DaemonFact,
    MessageCreated,
    PurgeExecuted,
    UnknownEvent,
)
from thrum.model.origins import BEFORE, HIDDEN, OURS, Origins, Provenance, is_well_named
from thrum.model.tombstones import message_ms
from thrum.store.projection.entry import Entry
from thrum.store.projection.merge_agents import may_speak
from thrum.store.projection.merge_daemons import Daemons
from thrum.store.projection.watermarks import AGENT, AUTHOR, PURGE, Order, Watermarks, purge_cutoff

INTRODUCTIONS: Final = tuple(cls for cls, spec in SPECS.items() if spec.ahead == "who")
SAID_AHEAD: Final = tuple(cls for cls, spec in SPECS.items() if spec.ahead)
_STARTS: Final = tuple(
    b'{"type":"%b"' % type_.encode() for type_, spec in EVENT_SPECS.items() if spec.ahead == "who" and not spec.shared
)


def may_introduce(raw: bytes) -> bool:
    """Whether a line of the local journal may say what others are to this machine, by its first bytes."""
    return raw.startswith(_STARTS)


def may_be_key(raw: bytes) -> bool:
    """Whether a line may be a daemon's key, in whatever journal it lies."""
    return b"daemon.key" in raw


class LookAhead:
    """`is_deferred(fact, time)`: whether a fact waits for its day."""

    def __init__(
        self, db: sqlite3.Connection, own: frozenset[str], is_deferred: Callable[[AnyFact, str], bool]
    ) -> None:
        self._db = db
        self._own = own
        self._is_deferred = is_deferred
        self.origins = Origins()
        self.local = Origins(own=own | {OURS}).local()
        self.watermarks: dict[str, _Watermarks] = {}
        """What was tombstoned, by realm."""
        self.cleaned: dict[str, Order] = {}
        """Up to where the inbox of each agent is empty here."""
        self._registrars: dict[str, set[str]] = {}
        """Which homes ever registered or cleaned up an agent."""
        self._held_by: dict[str, set[str]] = {}
        """Which homes this machine noted as an agent's holders."""

    def look(self, introducing: Iterable[Entry]) -> None:
        """Learn from facts of the types SAID_AHEAD."""
        daemons = Daemons(self._db, self._own)
        judged: list[Entry] = []
        for entry in introducing:
            fact = entry.fact
            if isinstance(fact, INTRODUCTIONS):
                assert isinstance(fact, DaemonFact)
                # An unsigned key says nothing; what others wait for does not wait itself.
                if entry.signed:
                    daemons.merge(fact, events.order_of(fact))
            else:
                judged.append(entry)
        self.origins = daemons.origins
        for agent_id, origin in self._db.execute("SELECT agent_id, origin FROM holders"):
            self._held_by.setdefault(agent_id, set()).add(self.origins.home(origin))
        watermarks = Watermarks(self._db)
        for entry in judged:
            self._judge(entry, watermarks)
        self._db.executemany(
            "INSERT OR IGNORE INTO registrations (agent_id, home) VALUES (?, ?)",
            [(agent_id, home) for agent_id, homes in self._registrars.items() for home in homes],
        )
        for kind, id, realm, at, event_id in self._db.execute("SELECT kind, id, realm, at, event_id FROM horizons"):
            self.watermarks.setdefault(realm, _Watermarks()).keep(kind, id, (at, event_id))
            if kind == AGENT and realm in self.local.under:
                self.cleaned[id] = max((at, event_id), self.cleaned.get(id, ("", "")))

    def _judge(self, entry: Entry, watermarks: Watermarks) -> None:
        fact = entry.fact
        order = events.order_of(fact)
        who = self.origins.judge(entry.raw, fact.origin_daemon, signed=entry.signed)
        if who.trust >= HIDDEN or isinstance(fact, UnknownEvent) or self._is_deferred(fact, order[0]):
            return
        if isinstance(fact, AgentRegistered):
            if who.home == OURS or who.trust == BEFORE or is_well_named(fact):
                self._registrars.setdefault(fact.agent_id, set()).add(who.home)
        elif isinstance(fact, AgentCleaned):
            self._registrars.setdefault(fact.agent_id, set()).add(who.home)
            watermarks.rise(AGENT, fact.agent_id, who.acts, order)
            if fact.messages:
                watermarks.rise(AUTHOR, fact.agent_id, who.acts, order)
        elif isinstance(fact, PurgeExecuted) and (cutoff := purge_cutoff(fact, order[0])):
            watermarks.rise(PURGE, "", who.acts, (cutoff, fact.event_id))

    def may_mark(self, agent_id: str, home: str) -> bool:
        """Whether a home may say how far a message came with an agent; where it may not, the message itself decides."""
        return may_speak(home, self._registrars.get(agent_id, ()), self._held_by.get(agent_id, ()))

    def may_answer(self, agent_id: str, origin: str) -> bool:
        """Whether a reply of that origin by the agent is the agent's answer."""
        home = self.origins.home(origin)
        return home == OURS or self.may_mark(agent_id, home)

    def is_tombstoned(self, fact: MessageCreated, at: str, who: Provenance) -> bool:
        for realm in who.under:
            watermarks = self.watermarks.get(realm)
            if watermarks is None:
                continue
            author = watermarks.authors.get(fact.agent_id)
            if author is not None and (at, fact.event_id) <= author:
                return True
            if watermarks.purge_ms is not None and message_ms(fact.message_id, at) < watermarks.purge_ms:
                return True
        return False


class _Watermarks:
    """Those of one realm."""

    def __init__(self) -> None:
        self.agents: dict[str, Order] = {}
        self.authors: dict[str, Order] = {}
        self.purge_ms: int | None = None

    def keep(self, kind: str, id: str, order: Order) -> None:
        if kind == PURGE:
            self.purge_ms = clock.parse_ms(order[0])
        else:
            (self.agents if kind == AGENT else self.authors)[id] = order
