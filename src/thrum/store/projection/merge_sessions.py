"""Sessions: start and end, their items, and what is worked on in them (events.md §9).

The three registers of a work context (git, task, intent) are each the last by their own `*_updated_at`, ties by the
order of the facts. An update or a sign of life counts only for a session of the agent that it names.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from thrum.model import clock
from thrum.model.events import (
    AgentSeen,
    AgentUpdated,
    AnyFact,
    Pair,
    SessionEnded,
    SessionItemsChanged,
    SessionStarted,
    Work,
)
from thrum.model.origins import Provenance
from thrum.store.projection.entities import Winner
from thrum.store.projection.watermarks import AGENT, PURGE, Order, Watermarks

SESSION_TABLES: Final = ("sessions", "session_items", "work_contexts", "work_files")
_encode = msgspec.json.Encoder().encode


class Sessions:
    """The thing `s:`; see `entities.Entity` for the contract."""

    prefix = "s:"
    create_type = "agent.session.start"

    def __init__(self, db: sqlite3.Connection, watermarks: Watermarks) -> None:
        self._db = db
        self._watermarks = watermarks

    def winner(self, session_id: str) -> Winner | None:
        row = self._db.execute(
            "SELECT trust, started_at, start_event, origin_daemon FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
        return None if row is None else Winner(*row)

    def is_tombstoned(self, create: AnyFact, order: Order, who: Provenance) -> bool:
        assert isinstance(create, SessionStarted)
        return self._watermarks.covers(AGENT, create.agent_id, order, who.under)

    def insert(self, create: AnyFact, order: Order, seq: int, who: Provenance) -> None:
        assert isinstance(create, SessionStarted)
        self._db.execute(
            "INSERT INTO sessions (session_id, agent_id, started_at, start_event, origin_daemon, trust)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (create.session_id, create.agent_id, *order, create.origin_daemon, who.trust),
        )
        self._items(create.session_id, "scope", "add", create.scopes, order)
        self._items(create.session_id, "ref", "add", create.refs, order)

    def erase(self, session_id: str) -> None:
        for table in SESSION_TABLES:
            self._db.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))

    def is_doomed(self, session_id: str, who: Provenance) -> bool:
        """Whether its end lies before the purge's cutoff."""
        purge = self._watermarks.get(PURGE, "", who.under)
        if purge is None:
            return False
        row = self._db.execute("SELECT ended_at FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        return row is not None and row[0] != "" and row[0] < purge[0]

    def merge(self, session_id: str, fact: AnyFact, order: Order, file: str, who: Provenance) -> bool:
        if isinstance(fact, SessionEnded):
            return self._merge_end(session_id, fact, order)
        if isinstance(fact, SessionItemsChanged):
            self._items(session_id, "scope", "add", fact.add_scopes, order)
            self._items(session_id, "scope", "remove", fact.remove_scopes, order)
            self._items(session_id, "ref", "add", fact.add_refs, order)
            self._items(session_id, "ref", "remove", fact.remove_refs, order)
            return True
        assert isinstance(fact, AgentUpdated | AgentSeen)
        if not self._is_of(session_id, fact.agent_id) or self._watermarks.covers(
            AGENT, fact.agent_id, order, who.under
        ):
            return False
        if isinstance(fact, AgentSeen):
            self._db.execute(
                "UPDATE sessions SET seen_at = max(seen_at, ?) WHERE session_id = ?", (order[0], session_id)
            )
            return True
        for work in fact.work_contexts:
            if work.session_id == session_id:
                self._merge_work(fact.agent_id, work, order)
        return True

    def _is_of(self, session_id: str, agent_id: str) -> bool:
        row = self._db.execute("SELECT agent_id FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        return row is not None and row[0] == agent_id

    def _merge_end(self, session_id: str, fact: SessionEnded, order: Order) -> bool:
        self._db.execute(
            "UPDATE sessions SET ended_at = ?2, end_event = ?3, end_reason = ?4 WHERE session_id = ?1"
            " AND (end_event = '' OR (ended_at, end_event) > (?2, ?3))",
            (session_id, *order, fact.reason),
        )
        return True

    def _items(self, session_id: str, kind: str, verb: str, pairs: Sequence[Pair], order: Order) -> None:
        """Add-wins: the row keeps the greatest add and the greatest remove."""
        for pair in pairs:
            key = (session_id, kind, pair.type, pair.value)
            self._db.execute(
                f"INSERT INTO session_items (session_id, kind, type, value, {verb}_at, {verb}_event)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                f" SET {verb}_at = excluded.{verb}_at, {verb}_event = excluded.{verb}_event"
                f" WHERE ({verb}_at, {verb}_event) < (excluded.{verb}_at, excluded.{verb}_event)",
                (*key, *order),
            )

    def _merge_work(self, agent_id: str, work: Work, order: Order) -> None:
        session_id = work.session_id
        self._db.execute(
            "INSERT OR IGNORE INTO work_contexts (session_id, agent_id) VALUES (?, ?)", (session_id, agent_id)
        )
        if at := _time(work.task_updated_at):
            self._register(session_id, "task", at, order, {"current_task": work.current_task})
        if at := _time(work.intent_updated_at):
            self._register(session_id, "intent", at, order, {"intent": work.intent})
        at = _time(work.git_updated_at)
        if at and self._register(session_id, "git", at, order, _git_columns(work)):
            self._db.execute("DELETE FROM work_files WHERE session_id = ?", (session_id,))
            changed = dict.fromkeys((*work.changed_files, *(change.path for change in work.file_changes)), "changed")
            paths = changed | dict.fromkeys(work.uncommitted_files, "uncommitted")
            self._db.executemany(
                "INSERT INTO work_files VALUES (?, ?, ?)", [(path, session_id, state) for path, state in paths.items()]
            )

    def _register(self, session_id: str, name: str, at: str, order: Order, columns: dict[str, str]) -> bool:
        """Set one register, unless it holds something later. Says whether it was set."""
        assignments = "".join(f", {column} = ?" for column in columns)
        updated = self._db.execute(
            f"UPDATE work_contexts SET {name}_updated_at = ?, {name}_at = ?, {name}_event = ?{assignments}"
            f" WHERE session_id = ? AND ({name}_updated_at, {name}_at, {name}_event) < (?, ?, ?)",
            (at, *order, *columns.values(), session_id, at, *order),
        )
        return updated.rowcount > 0


def _git_columns(work: Work) -> dict[str, str]:
    return {
        "branch": work.branch,
        "worktree_path": work.worktree_path,
        "unmerged_commits": _json(work.unmerged_commits),
        "uncommitted_files": _json(work.uncommitted_files),
        "changed_files": _json(work.changed_files),
        "file_changes": _json(work.file_changes),
    }


def _json(values: Sequence[Any]) -> str:
    return _encode(values).decode() if values else ""


def _time(text: str) -> str:
    """A register's time, or `""` when it has none that can be compared."""
    try:
        return clock.normalise(text) if text else ""
    except ValueError:
        return ""
