"""Agents: registrations, place, status and signs of life, each a register of its own (events.md §9).

Every origin has its own registration of an id; the row of `agents` carries that of the one that *holds* the id here,
and what this machine knows of its place and life. A row may begin with any fact; it is `live` once an origin holds it,
and it is gone when nothing of it lies above the watermark.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, Final

from thrum.model.events import (
    AgentAliased,
    AgentContextSaved,
    AgentExited,
    AgentPlaced,
    AgentRegistered,
    AgentSeen,
    AgentStatusSet,
)
from thrum.model.origins import OURS, SIGNED, Origins, Provenance
from thrum.store.projection.merge_daemons import Daemons
from thrum.store.projection.watermarks import AGENT, Order, Watermarks

LocalFact = AgentPlaced | AgentStatusSet | AgentSeen | AgentExited
ToldFact = AgentRegistered | AgentContextSaved

_FIELDS: Final = (
    "kind, name, role, module, display, hostname, worktree, registered_at, origin_daemon, reg_at, reg_event"
)
_REGISTRATION: Final = ", ".join(f"{name} = ?" for name in _FIELDS.split(", "))
_NOBODY: Final = ("",) * 11
_EMPTY: Final = {
    "place": "worktree_path = '', agent_pid = 0, agent_pid_started = '', runtime = '', tmux_session = '', "
    "runtime_session = '', transcript = '', pane = '', hooks_seen_at = '', place_at = '', place_event = ''",
    "status": "status = '', status_by = '', status_asks = '', status_at = '', status_event = ''",
    "seen": "seen_at = '', seen_event = ''",
    "exited": "exited_at = '', exited_event = ''",
}
"""What each register is when nothing was said: it is named by its order columns `{name}_at`, `{name}_event`."""


def may_speak(home: str, registrars: Collection[str], held_by: Collection[str]) -> bool:
    """Whether a home may say what an agent read, answered, joined or left. `registrars`: the homes that registered or
    cleaned it up once; `held_by`: those that this machine noted as its holders. Who takes a name too gets no say.
    """
    if OURS in registrars:
        return home == OURS
    return home in registrars and (not held_by or home in held_by)


def registrars_of(db: sqlite3.Connection, agent_id: str) -> set[str]:
    """The homes that registered or cleaned up the agent once."""
    return {row[0] for row in db.execute("SELECT home FROM registrations WHERE agent_id = ?", (agent_id,))}


def holders_of(db: sqlite3.Connection, agent_id: str, origins: Origins) -> set[str]:
    """The homes that this machine noted as the agent's holders."""
    rows = db.execute("SELECT origin FROM holders WHERE agent_id = ?", (agent_id,))
    return {origins.home(row[0]) for row in rows}


def is_out(db: sqlite3.Connection, agent_id: str, home: str, origins: Origins) -> bool:
    """Whether the home is gone, or its agent hidden here."""
    hidden = db.execute("SELECT origin FROM hidden_agents WHERE agent_id = ?", (agent_id,)).fetchall()
    if any(origins.home(row[0]) == home for row in hidden):
        return True
    return db.execute("SELECT 1 FROM daemons WHERE daemon_id = ? AND gone = 1", (home,)).fetchone() is not None


def others_of(db: sqlite3.Connection, agent_id: str, origins: Origins) -> list[str]:
    """The origins of live registrations of the id by others than this daemon. Unsigned ones count as no one's."""
    rows = db.execute(
        "SELECT home, origin_daemon FROM registrations WHERE agent_id = ? AND live = 1 AND signed = 1 AND home <> ?"
        " ORDER BY registered_at, home",
        (agent_id, OURS),
    ).fetchall()
    return [origin for home, origin in rows if not is_out(db, agent_id, home, origins)]


class Agents:
    def __init__(self, db: sqlite3.Connection, watermarks: Watermarks, daemons: Daemons) -> None:
        self._db = db
        self._watermarks = watermarks
        self._daemons = daemons

    # -- what this machine knows

    def merge_local(self, fact: LocalFact, order: Order, who: Provenance) -> bool:
        """False when the fact is tombstoned."""
        agent_id = fact.agent_id
        if self._watermarks.covers(AGENT, agent_id, order, who.under):
            return False
        self._db.execute("INSERT OR IGNORE INTO agents (agent_id) VALUES (?)", (agent_id,))
        if isinstance(fact, AgentPlaced):
            self._place(fact, order)
        elif isinstance(fact, AgentStatusSet):
            said = (fact.status, fact.by, fact.asks)
            self._set(agent_id, "status", order, "status = ?, status_by = ?, status_asks = ?", said)
        else:
            self._set(agent_id, "seen" if isinstance(fact, AgentSeen) else "exited", order, "", ())
        return True

    def _place(self, fact: AgentPlaced, order: Order) -> None:
        self._set(
            fact.agent_id,
            "place",
            order,
            "worktree_path = ?, agent_pid = ?, agent_pid_started = ?, runtime = ?, tmux_session = ?,"
            " runtime_session = ?, transcript = ?, pane = ?, hooks_seen_at = ?",
            (
                fact.worktree_path,
                fact.agent_pid,
                fact.agent_pid_started,
                fact.runtime,
                fact.tmux_session,
                fact.runtime_session,
                fact.transcript,
                fact.pane,
                fact.hooks_seen_at,
            ),
        )

    def _set(self, agent_id: str, register: str, order: Order, assignments: str, values: tuple[str | int, ...]) -> None:
        """Last wins, the record as a whole."""
        at, event = f"{register}_at", f"{register}_event"
        self._db.execute(
            f"UPDATE agents SET {assignments}{', ' if assignments else ''}{at} = ?, {event} = ?"
            f" WHERE agent_id = ? AND ({at}, {event}) < (?, ?)",
            (*values, *order, agent_id, *order),
        )

    def forget_local(self, agent_id: str, watermark: Order) -> None:
        """The agent was cleaned up here: everything at or below the watermark is as if never said."""
        for register, empty in _EMPTY.items():
            self._db.execute(
                f"UPDATE agents SET {empty} WHERE agent_id = ? AND ({register}_at, {register}_event) <= (?, ?)",
                (agent_id, *watermark),
            )
        self._drop_shell(agent_id)

    # -- what origins say of it

    def merge(self, fact: ToldFact, order: Order, who: Provenance) -> bool:
        """False when the fact is tombstoned. A registration shows once `refresh` has looked who holds the id."""
        if self._watermarks.covers(AGENT, fact.agent_id, order, who.under):
            return False
        if isinstance(fact, AgentRegistered):
            self._register(fact, order, who)
            return True
        self._db.execute(
            "INSERT INTO agent_contexts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET content = excluded.content, saved_at = excluded.saved_at, event_id = excluded.event_id"
            " WHERE (saved_at, event_id) < (excluded.saved_at, excluded.event_id)",
            (fact.agent_id, who.home, fact.content, *order),
        )
        return True

    def _register(self, fact: AgentRegistered, order: Order, who: Provenance) -> None:
        """Last wins, but a signed one over all others; since when it is registered, all of them tell."""
        self.note_registrar(fact.agent_id, who.home)
        key = (fact.agent_id, who.home)
        signed = int(who.trust == SIGNED)
        self._db.execute(
            "UPDATE registrations SET live = 1, registered_at = ?3 WHERE agent_id = ?1 AND home = ?2"
            " AND (registered_at = '' OR registered_at > ?3)",
            (*key, order[0]),
        )
        self._db.execute(
            "UPDATE registrations SET signed = ?, kind = ?, name = ?, role = ?, module = ?, display = ?, hostname = ?,"
            " worktree = ?, origin_daemon = ?, reg_at = ?, reg_event = ? WHERE agent_id = ? AND home = ?"
            " AND (signed, reg_at, reg_event) < (?, ?, ?)",
            (
                signed,
                fact.kind,
                fact.name,
                fact.role,
                fact.module,
                fact.display,
                fact.hostname,
                fact.worktree,
                fact.origin_daemon,
                *order,
                *key,
                signed,
                *order,
            ),
        )

    def note_registrar(self, agent_id: str, home: str) -> bool:
        """That home registered or cleaned up the agent once; whether that is new."""
        sql = "INSERT OR IGNORE INTO registrations (agent_id, home) VALUES (?, ?)"
        return self._db.execute(sql, (agent_id, home)).rowcount > 0

    def note_alias(self, fact: AgentAliased, order: Order, who: Provenance) -> None:
        """The id under which that home's agent continues, and since when. The reader checks who may say so."""
        self._db.execute(
            "INSERT INTO agent_aliases VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at,"
            " event_id = excluded.event_id WHERE (at, event_id) < (excluded.at, excluded.event_id)",
            (fact.agent_id, fact.of, who.home, *order),
        )

    def is_registrar(self, agent_id: str, home: str) -> bool:
        """Whether that home registered or cleaned up the agent once."""
        sql = "SELECT 1 FROM registrations WHERE agent_id = ? AND home = ?"
        return self._db.execute(sql, (agent_id, home)).fetchone() is not None

    def speaks(self, agent_id: str, home: str) -> bool:
        """See `may_speak`."""
        return home in self.speakers(agent_id)

    def speakers(self, agent_id: str) -> set[str]:
        """The homes that speak for the agent."""
        registrars = registrars_of(self._db, agent_id)
        held_by = holders_of(self._db, agent_id, self._daemons.origins)
        return {home for home in registrars if may_speak(home, registrars, held_by)}

    def forget_told(self, agent_id: str, homes: Collection[str] | None) -> None:
        """As if these homes (None: all) had never said anything of the agent, but who did: to be merged again."""
        where, values = "agent_id = ?", [agent_id]
        if homes is not None:
            where += f" AND home IN ({', '.join('?' for _ in homes)})"
            values += homes
        self._db.execute(
            "UPDATE registrations SET live = 0, signed = 0, kind = '', name = '', role = '', module = '', display = '',"
            " hostname = '', worktree = '', registered_at = '', origin_daemon = '', reg_at = '', reg_event = ''"
            f" WHERE {where}",
            values,
        )
        self._db.execute(f"DELETE FROM agent_contexts WHERE {where}", values)

    # -- who holds an id

    def refresh(self, agent_id: str) -> None:
        """Let the row of the agent show its holder's registration."""
        row = self._holder(agent_id)
        if row is not None:
            self._db.execute("INSERT OR IGNORE INTO agents (agent_id) VALUES (?)", (agent_id,))
        values = _NOBODY if row is None else row[2:]
        self._db.execute(
            f"UPDATE agents SET live = ?, {_REGISTRATION} WHERE agent_id = ?", (int(row is not None), *values, agent_id)
        )
        if row is None:
            self._drop_shell(agent_id)

    def _holder(self, agent_id: str) -> tuple[Any, ...] | None:
        """Home, whether signed, and the columns _FIELDS of the registration that shows; None if the id is free.

        This daemon's; else the one that this machine was told last; else of the signed ones the one that was
        registered first; an unsigned one only where no signed one is live: the last of them, as of old.
        """
        rows = self._db.execute(
            f"SELECT home, signed, {_FIELDS} FROM registrations WHERE agent_id = ? AND live = 1 ORDER BY home",
            (agent_id,),
        ).fetchall()
        if not rows:
            return None
        if rows[0][0] == OURS:
            return rows[0]
        origins = self._daemons.origins
        rows = [row for row in rows if not is_out(self._db, agent_id, row[0], origins)]
        signed = {row[0]: row for row in rows if row[1]}
        if not signed:
            return max(rows, key=lambda row: row[-2:]) if rows else None
        home = self._daemons.origins.home
        for (origin,) in self._db.execute(
            "SELECT origin FROM holders WHERE agent_id = ? ORDER BY at DESC, event_id DESC", (agent_id,)
        ):
            if home(origin) in signed:
                return signed[home(origin)]
        return min(signed.values(), key=lambda row: (row[9], row[0]))

    def holder_to_note(self, agent_id: str) -> str:
        """The origin that holds an id elsewhere, if this machine has not been told so: it shall stay with that one."""
        row = self._holder(agent_id)
        if row is None or row[0] == OURS or not row[1]:
            return ""
        told = self._db.execute(
            "SELECT origin FROM holders WHERE agent_id = ? ORDER BY at DESC, event_id DESC LIMIT 1", (agent_id,)
        ).fetchone()
        return "" if told is not None and self._daemons.origins.home(told[0]) == row[0] else row[10]

    def registered_by(self, home: str) -> list[str]:
        """The agents that a home registered."""
        return [row[0] for row in self._db.execute("SELECT agent_id FROM registrations WHERE home = ?", (home,))]

    def _drop_shell(self, agent_id: str) -> None:
        self._db.execute(
            "DELETE FROM agents WHERE agent_id = ?"
            " AND reg_at = '' AND place_at = '' AND status_at = '' AND seen_at = '' AND exited_at = ''",
            (agent_id,),
        )
