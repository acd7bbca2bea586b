"""Daemons: which ones declare that they are of this project, and which are accepted here (events.md §9, §11).

The tables behind `thrum.model.origins.Origins`, the judgement of every line. What is kept in memory of them is read
again after each change and each rollback.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from thrum.model.events import Accepted, AgentHidden, DaemonFact, DaemonKeyed, DaemonSucceeded
from thrum.model.origins import OURS, Origins
from thrum.store.database import get_meta, set_meta
from thrum.store.projection.watermarks import Order

CLOSED = "before_closed"
"""The key of `schema_meta` that is set once no later unsigned line counts as from before signing."""


class Daemons:
    """`own`: this daemon's id and its previous ones."""

    def __init__(self, db: sqlite3.Connection, own: frozenset[str]) -> None:
        self._db = db
        self._own = own
        self._origins: Origins | None = None

    @property
    def origins(self) -> Origins:
        """What the tables say now."""
        if self._origins is None:
            self._origins = load_origins(self._db, self._own)
        return self._origins

    def forget(self) -> None:
        """Look again: something was rolled back, or changed."""
        self._origins = None

    def merge(self, fact: DaemonFact, order: Order) -> bool:
        """Keep what a fact says; whether that was new. Its origin must have signed it, or it is of this machine."""
        before = self._db.total_changes
        if isinstance(fact, DaemonKeyed):
            self._key(fact)
        elif isinstance(fact, DaemonSucceeded):
            self._insert("successions", fact.origin_daemon, fact.previous_id)
        elif isinstance(fact, AgentHidden):
            self._insert("hidden_agents", fact.agent_id, fact.of)
        else:
            self._accept(fact, order)
        self.forget()
        return self._db.total_changes > before

    def _insert(self, table: str, *values: str) -> None:
        self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(values))})", values)

    def _key(self, fact: DaemonKeyed) -> None:
        origin = fact.origin_daemon
        self._row(origin)
        self._db.execute("UPDATE daemons SET keyed = 1 WHERE daemon_id = ? AND keyed = 0", (origin,))
        for repo_id in fact.repo_ids:
            self._insert("daemon_projects", origin, repo_id)
        for root in fact.roots:
            self._insert("daemon_roots", origin, root)

    def _accept(self, fact: Accepted, order: Order) -> None:
        match fact.kind:
            case "before" if fact.lines:
                self._db.executemany("INSERT OR IGNORE INTO lines_before VALUES (?)", [(line,) for line in fact.lines])
            case "before" if not get_meta(self._db, CLOSED):
                set_meta(self._db, CLOSED, "1")
            case "origin" | "gone":
                column = "accepted" if fact.kind == "origin" else "gone"
                self._row(fact.id)
                self._db.execute(f"UPDATE daemons SET {column} = 1 WHERE daemon_id = ? AND {column} = 0", (fact.id,))
                if fact.of and fact.kind == "origin":
                    self._succeed(fact.of, fact.id, order)
            case "holder":
                self._db.execute(
                    "INSERT INTO holders VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET at = excluded.at, event_id = excluded.event_id"
                    " WHERE (at, event_id) < (excluded.at, excluded.event_id)",
                    (fact.id, fact.of, *order),
                )
            case "project":
                self._insert("daemon_projects", OURS, fact.id)
            case _:
                pass

    def _succeed(self, former: str, successor: str, order: Order) -> None:
        """The last word of a person counts."""
        self._row(former)
        self._db.execute(
            "UPDATE daemons SET successor = ?2, successor_at = ?3, successor_event = ?4 WHERE daemon_id = ?1"
            " AND (successor_at, successor_event) < (?3, ?4)",
            (former, successor, *order),
        )

    def _row(self, daemon_id: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO daemons (daemon_id) VALUES (?)", (daemon_id,))


def load_origins(db: sqlite3.Connection, own: frozenset[str]) -> Origins:
    """What a connection sees now. It asks that connection for lines from before signing as long as it is used."""
    projects: dict[str, set[str]] = defaultdict(set)
    accepted: set[str] = set()
    former: dict[str, str] = {}
    for daemon_id, keyed, is_accepted, successor in db.execute(
        "SELECT daemon_id, keyed, accepted, successor FROM daemons"
    ):
        if keyed:
            projects[daemon_id] = set()
        if is_accepted:
            accepted.add(daemon_id)
        if successor:
            former[daemon_id] = successor
    ours: set[str] = set()
    for daemon_id, repo_id in db.execute("SELECT daemon_id, repo_id FROM daemon_projects"):
        if daemon_id in own or daemon_id == OURS:
            ours.add(repo_id)
        if daemon_id != OURS:
            projects[daemon_id].add(repo_id)
    return Origins(
        own=own | {OURS},
        closed=bool(get_meta(db, CLOSED)),
        is_before=lambda hash: db.execute("SELECT 1 FROM lines_before WHERE hash = ?", (hash,)).fetchone() is not None,
        accepted=accepted,
        projects=projects,
        ours=ours,
        # A daemon with a key signs for itself, no matter what another claims to have been.
        successors=_last_successors({old: new for old, new in former.items() if old not in projects}, own),
    )


def _last_successors(former: dict[str, str], own: frozenset[str]) -> dict[str, str]:
    """Who is who now, over several steps. An own id has no successor but this daemon, and succession has no cycles."""
    found: dict[str, str] = {}
    for old in former:
        seen, last = {old}, former[old]
        while last in former and last not in seen:
            seen.add(last)
            last = former[last]
        if old not in own and last not in own and last not in seen:
            found[old] = last
    return found
