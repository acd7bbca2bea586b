"""Agents: registration, place, status and signs of life, each a register of its own (events.md §9).

A row may begin with any of them; it is `live` once it has a registration above the agent's horizon, and it is gone when
nothing of it lies above.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from thrum.events import (
    AgentContextSaved,
    AgentExited,
    AgentPlaced,
    AgentRegistered,
    AgentSeen,
    AgentStatusSet,
)
from thrum.store.horizons import AGENT, Horizons, Order

AgentFact = AgentRegistered | AgentPlaced | AgentStatusSet | AgentSeen | AgentExited | AgentContextSaved

_EMPTY: Final = {
    "reg": "kind = '', name = '', role = '', module = '', display = '', hostname = '', worktree = '', "
    "registered_at = '', origin_daemon = '', live = 0, reg_at = '', reg_event = ''",
    "place": "worktree_path = '', agent_pid = 0, agent_pid_started = '', runtime = '', tmux_session = '', "
    "place_at = '', place_event = ''",
    "status": "status = '', status_by = '', status_at = '', status_event = ''",
    "seen": "seen_at = '', seen_event = ''",
    "exited": "exited_at = '', exited_event = ''",
}
"""What each register is when nothing was said: it is named by its order columns `{name}_at`, `{name}_event`."""


class Agents:
    def __init__(self, db: sqlite3.Connection, horizons: Horizons) -> None:
        self._db = db
        self._horizons = horizons

    def merge(self, fact: AgentFact, order: Order) -> bool:
        """False when the fact is void."""
        agent_id = fact.agent_id
        if self._horizons.covers(AGENT, agent_id, order):
            return False
        if isinstance(fact, AgentContextSaved):
            self._db.execute(
                "INSERT INTO agent_contexts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET content = excluded.content, saved_at = excluded.saved_at, event_id = excluded.event_id"
                " WHERE (saved_at, event_id) < (excluded.saved_at, excluded.event_id)",
                (agent_id, fact.content, *order),
            )
            return True
        self._db.execute("INSERT OR IGNORE INTO agents (agent_id) VALUES (?)", (agent_id,))
        if isinstance(fact, AgentRegistered):
            self._register(fact, order)
        elif isinstance(fact, AgentPlaced):
            self._place(fact, order)
        elif isinstance(fact, AgentStatusSet):
            self._set(agent_id, "status", order, "status = ?, status_by = ?", (fact.status, fact.by))
        else:
            self._set(agent_id, "seen" if isinstance(fact, AgentSeen) else "exited", order, "", ())
        return True

    def _register(self, fact: AgentRegistered, order: Order) -> None:
        self._db.execute(
            "UPDATE agents SET live = 1, registered_at = ?2 WHERE agent_id = ?1"
            " AND (registered_at = '' OR registered_at > ?2)",
            (fact.agent_id, order[0]),
        )
        self._set(
            fact.agent_id,
            "reg",
            order,
            "kind = ?, name = ?, role = ?, module = ?, display = ?, hostname = ?, worktree = ?, origin_daemon = ?",
            (
                fact.kind,
                fact.name,
                fact.role,
                fact.module,
                fact.display,
                fact.hostname,
                fact.worktree,
                fact.origin_daemon,
            ),
        )

    def _place(self, fact: AgentPlaced, order: Order) -> None:
        self._set(
            fact.agent_id,
            "place",
            order,
            "worktree_path = ?, agent_pid = ?, agent_pid_started = ?, runtime = ?, tmux_session = ?",
            (fact.worktree_path, fact.agent_pid, fact.agent_pid_started, fact.runtime, fact.tmux_session),
        )

    def _set(self, agent_id: str, register: str, order: Order, assignments: str, values: tuple[str | int, ...]) -> None:
        """Last wins, the record as a whole."""
        at, event = f"{register}_at", f"{register}_event"
        self._db.execute(
            f"UPDATE agents SET {assignments}{', ' if assignments else ''}{at} = ?, {event} = ?"
            f" WHERE agent_id = ? AND ({at}, {event}) < (?, ?)",
            (*values, *order, agent_id, *order),
        )

    def forget(self, agent_id: str, horizon: Order) -> None:
        """An agent was cleaned up: everything at or below the horizon is as if never said."""
        for register, empty in _EMPTY.items():
            self._db.execute(
                f"UPDATE agents SET {empty} WHERE agent_id = ? AND ({register}_at, {register}_event) <= (?, ?)",
                (agent_id, *horizon),
            )
        self._db.execute(
            "UPDATE agents SET registered_at = (SELECT min(timestamp) FROM hanging JOIN events USING (seq)"
            " WHERE thing = 'a:' || ?1 AND (timestamp, event_id) > (?2, ?3)) WHERE agent_id = ?1 AND live = 1",
            (agent_id, *horizon),
        )
        self._db.execute(
            "DELETE FROM agents WHERE agent_id = ?"
            " AND reg_at = '' AND place_at = '' AND status_at = '' AND seen_at = '' AND exited_at = ''",
            (agent_id,),
        )
        self._db.execute(
            "DELETE FROM agent_contexts WHERE agent_id = ? AND (saved_at, event_id) <= (?, ?)", (agent_id, *horizon)
        )
