"""Typed queries on the projection: agents, sessions, work, groups, keys, the sequence; `inbox` has those on messages.

A `View` reads through one connection: a reader's sees what is committed, the writer's sees the open transaction, too. A
method answers from one or a few statements; who needs them to agree holds a transaction. Times are text, what is absent
is `""`, `0` or False. Source: events.md §10, rpc.md §5.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from thrum.model import wire_types
from thrum.model.events import LOCAL_FILE, Commit, FileChange, Pair
from thrum.model.origins import BEFORE, OLD_REALM
from thrum.store.database import get_meta
from thrum.store.projection.watermarks import Watermarks
from thrum.store.queries import _purge_preview as purge_preview
from thrum.store.queries._group_views import GroupViews
from thrum.store.queries.rows import (
    AgentRow,
    AttemptRow,
    ClientKeyRow,
    EventRow,
    GroupMark,
    GroupRow,
    InboxPage,
    InboxQuery,
    Member,
    MessageHead,
    MessageRow,
    OriginRow,
    PlaceRow,
    PurgeCounts,
    RegistrationRow,
    SessionRow,
    UnseenRow,
    Wanted,
)
from thrum.store.schema import DEFERRED, FOREIGN_FORMAT, JOURNAL_FORMAT, JOURNAL_FORMAT_KNOWN

__all__ = [
    "AgentRow",
    "AttemptRow",
    "ClientKeyRow",
    "EventRow",
    "GroupMark",
    "GroupRow",
    "InboxPage",
    "InboxQuery",
    "Member",
    "MessageHead",
    "MessageRow",
    "OriginRow",
    "PlaceRow",
    "PurgeCounts",
    "RegistrationRow",
    "SessionRow",
    "UnseenRow",
    "View",
    "Wanted",
]

_OF_HOLDER: Final = (
    "(ifnull(a.live, 0) = 0 OR {0}.origin_daemon = a.origin_daemon"
    f" OR iif(a.origin_daemon IN ({{1}}), {{0}}.origin_daemon IN ({{1}}), {{0}}.trust = {BEFORE}))"
)
"""Whether what was begun in the name of an agent `a` is from the daemon that holds it; from any if none does.
Before there were signatures that could not be told, but for this daemon's own agents.
"""
_AGENT: Final = """
SELECT a.agent_id, kind, name, role, module, display, hostname, worktree, registered_at, origin_daemon, live, reg_at,
  reg_event, worktree_path, agent_pid, agent_pid_started, runtime, tmux_session, runtime_session,
  transcript, pane, hooks_seen_at, place_at, place_event, status, status_by, status_asks, status_at, status_event,
  a.seen_at,  exited_at,
  max(registered_at, place_at, a.seen_at,
    ifnull((SELECT max(started_at) FROM sessions AS s WHERE s.agent_id = a.agent_id AND {session}), ''),
    ifnull((SELECT max(ended_at) FROM sessions AS s WHERE s.agent_id = a.agent_id AND {session}), ''),
    ifnull((SELECT created_at FROM messages AS m WHERE m.agent_id = a.agent_id AND {message}
      ORDER BY created_at DESC LIMIT 1), ''))
FROM agents AS a"""
_SESSION_COLUMNS: Final = "session_id, s.agent_id, started_at, start_event, ended_at, end_reason, end_event, s.seen_at"
_SESSION: Final = """
SELECT {columns} FROM sessions AS s LEFT JOIN agents AS a ON a.agent_id = s.agent_id AND a.live = 1 WHERE {session}"""
_NEWEST_OPEN: Final = " AND s.agent_id = ? AND ended_at = '' ORDER BY started_at DESC, start_event DESC LIMIT 1"
_WORK: Final = """
SELECT w.session_id, w.agent_id, branch, worktree_path, unmerged_commits, uncommitted_files, changed_files,
  file_changes, git_updated_at, current_task, task_updated_at, intent, intent_updated_at
FROM work_contexts AS w"""
_EVENT: Final = (
    "SELECT seq, event_id, type, timestamp, origin_daemon, actor, message_id, file, offset, length, state FROM events"
)
_commits = msgspec.json.Decoder(tuple[Commit, ...])
_changes = msgspec.json.Decoder(tuple[FileChange, ...])
_paths = msgspec.json.Decoder(tuple[str, ...])


class View(GroupViews):
    """All queries. `own`: this daemon's id and its previous ones; `epoch`: of this projection."""

    def __init__(self, db: sqlite3.Connection, own: frozenset[str]) -> None:
        super().__init__(db, own)
        self.epoch = get_meta(db, "epoch")
        ids = ", ".join("'" + id.replace("'", "''") + "'" for id in sorted(own | {""}))
        self._agent_rows = _AGENT.format(session=_OF_HOLDER.format("s", ids), message=_OF_HOLDER.format("m", ids))
        self._session_rows = _SESSION.format(columns=_SESSION_COLUMNS, session=_OF_HOLDER.format("s", ids))
        self._open_session_id = (
            _SESSION.format(columns="session_id", session=_OF_HOLDER.format("s", ids)) + _NEWEST_OPEN
        )

    # -- the sequence

    def head_seq(self) -> int:
        """The greatest number given so far; 0 in an empty projection."""
        return self._db.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0]

    def newer_format(self) -> bool:
        """Whether a later program changed the rules of these journals: then nothing may be written (events.md §13)."""
        return int(get_meta(self._db, JOURNAL_FORMAT) or 0) > JOURNAL_FORMAT_KNOWN

    def foreign_format(self) -> bool:
        """Whether a later program of another daemon changed them: then nothing goes to where it writes."""
        return int(get_meta(self._db, FOREIGN_FORMAT) or 0) > JOURNAL_FORMAT_KNOWN

    def event(self, event_id: str) -> EventRow | None:
        row = self._db.execute(f"{_EVENT} WHERE event_id = ?", (event_id,)).fetchone()
        return None if row is None else EventRow(*row)

    def event_at(self, seq: int) -> EventRow | None:
        row = self._db.execute(f"{_EVENT} WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else EventRow(*row)

    def events_after(self, seq: int, limit: int) -> list[EventRow]:
        """Facts above a number, ascending, tombstoned and pending ones too."""
        rows = self._db.execute(f"{_EVENT} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
        return [EventRow(*row) for row in rows.fetchall()]

    def client_key(self, actor: str, key: str) -> ClientKeyRow | None:
        """The main fact of an earlier call with that key (events.md §12)."""
        row = self._db.execute(
            "SELECT event_id, digest FROM client_keys WHERE actor = ? AND client_key = ? ORDER BY at, event_id LIMIT 1",
            (actor, key),
        ).fetchone()
        return None if row is None else ClientKeyRow(*row)

    def watermark(self, kind: str, id: str) -> tuple[str, str] | None:
        """`(time, event id)` of the watermark `agent` or `author` of an id, or of `purge` with id `""`: the greatest of
        those that tombstoned what this daemon writes.
        """
        return Watermarks(self._db).get(kind, id, self.origins().local().under)

    def sweeps_here(self, event_id: str) -> bool:
        """Whether a cleanup or purge tombstones what this daemon writes."""
        rows = self._db.execute("SELECT realm FROM horizons WHERE event_id = ?", (event_id,))
        return any(row[0] == OLD_REALM or row[0] in self._own for row in rows)

    def would_purge(self, cutoff: str) -> PurgeCounts:
        """What a purge by this daemon up to a time would take away now."""
        return purge_preview.count(self._db, cutoff, self.origins())

    def is_own(self, origin_daemon: str) -> bool:
        """Whether facts of that origin are this daemon's, by its present id or an earlier one."""
        return origin_daemon != "" and origin_daemon in self._own

    # -- what is synced

    def sync_state(self) -> dict[str, str]:
        """What `Committer.remember` kept. Empty after the projection was rebuilt."""
        return dict(self._db.execute("SELECT key, value FROM sync_state").fetchall())

    def unpushed(self, seq: int) -> int:
        """How many facts of this daemon above a number belong on the branch; tombstoned ones don't."""
        marks = ", ".join("?" * len(self._own))
        return self._db.execute(
            "SELECT count(*) FROM events WHERE seq > ? AND file <> ? AND state NOT IN ('void', 'hidden')"
            f" AND origin_daemon IN ({marks})",
            (seq, LOCAL_FILE, *self._own),
        ).fetchone()[0]

    def receipts_to_copy(self, seq: int) -> list[tuple[str, str]]:
        """`(message, recipient)` of local receipts above a number that another daemon's sender has to hear of.

        The daemon that registered the recipient last: that is where it reads.
        """
        marks = ", ".join("?" * len(self._own))
        return self._db.execute(
            "SELECT DISTINCT e.message_id, e.actor FROM events AS e JOIN messages AS m ON m.message_id = e.message_id"
            " WHERE e.seq > ? AND e.type = 'message.receipt' AND e.file = ?"
            f" AND e.state = 'applied' AND m.origin_daemon NOT IN ({marks})",
            (seq, LOCAL_FILE, *self._own),
        ).fetchall()

    def local_receipts(self, message_id: str, agent_id: str) -> list[EventRow]:
        """The receipts of one recipient of a message in the local journal, first ones first."""
        rows = self._db.execute(
            f"{_EVENT} JOIN hanging USING (seq) WHERE thing = 'm:' || ? AND type = 'message.receipt' AND actor = ?"
            " AND file = ? ORDER BY timestamp, event_id",
            (message_id, agent_id, LOCAL_FILE),
        )
        return [EventRow(*row) for row in rows.fetchall()]

    def deferred_count(self) -> int:
        """How many facts wait for their day."""
        return self._db.execute(
            "SELECT count(*) FROM hanging WHERE thing > ?1 AND thing < ?1 || ':'", (DEFERRED,)
        ).fetchone()[0]

    # -- agents

    def agent(self, agent_id: str) -> AgentRow | None:
        """What is known of an id, also when it is not (or no longer) registered."""
        row = self._db.execute(f"{self._agent_rows} WHERE a.agent_id = ?", (agent_id,)).fetchone()
        return None if row is None else self._agent(row)

    def address(self, agent_id: str) -> tuple[str, int] | None:
        """Whose agent a registered id is, by its origin, and how many daemons have one of that id; None for none."""
        return self._db.execute(
            "SELECT origin_daemon, (SELECT count(*) FROM registrations AS r WHERE r.agent_id = ?1 AND r.live = 1)"
            " FROM agents WHERE agent_id = ?1 AND live = 1",
            (agent_id,),
        ).fetchone()

    def elsewhere(self, agent_ids: Sequence[str]) -> set[str]:
        """Those of these ids that are another daemon's agents."""
        rows = self._db.execute(
            "SELECT agent_id FROM agents WHERE live = 1 AND agent_id IN (SELECT value FROM json_each(?))"
            " AND origin_daemon NOT IN (SELECT value FROM json_each(?))",
            (json.dumps(agent_ids), json.dumps(sorted(self._own))),
        )
        return {row[0] for row in rows}

    def is_live(self, agent_id: str) -> bool:
        """Whether an agent, user or proxy of exactly this id is registered."""
        row = self._db.execute("SELECT live FROM agents WHERE agent_id = ?", (agent_id,)).fetchone()
        return row is not None and row[0] == 1

    def agents(self, *, role: str = "", module: str = "", kind: str = "", live: bool = True) -> list[AgentRow]:
        """Registered ones, newest registration first; with `live=False` also what was never registered."""
        terms, values = ["1" if not live else "a.live = 1"], list[str]()
        for column, value in (("role", role), ("module", module), ("kind", kind)):
            if value:
                terms.append(f"a.{column} = ?")
                values.append(value)
        rows = self._db.execute(
            f"{self._agent_rows} WHERE {' AND '.join(terms)} ORDER BY registered_at DESC, a.agent_id DESC", values
        )
        return [self._agent(row) for row in rows.fetchall()]

    def _agent(self, row: Sequence[Any]) -> AgentRow:
        values = list(row)
        values[10] = bool(row[10])
        values.append(row[9] in self._own)
        return AgentRow(*values)

    def agent_ids(self) -> set[str]:
        """Every registered id."""
        return {row[0] for row in self._db.execute("SELECT agent_id FROM agents WHERE live = 1")}

    def roles(self) -> dict[str, list[str]]:
        """Role -> registered ids, sorted."""
        found: dict[str, list[str]] = {}
        for role, agent_id in self._db.execute(
            "SELECT role, agent_id FROM agents WHERE live = 1 ORDER BY role, agent_id"
        ):
            found.setdefault(role, []).append(agent_id)
        return found

    def id_differing_in_case(self, agent_id: str) -> str | None:
        """A registered id that a file system may take for this one, if there is one."""
        row = self._db.execute(
            "SELECT agent_id FROM agents WHERE live = 1 AND agent_id <> ?1 AND lower(agent_id) = lower(?1) LIMIT 1",
            (agent_id,),
        ).fetchone()
        return row[0] if row else None

    def agent_places(self) -> list[PlaceRow]:
        """Where the registered agents of this machine are."""
        rows = self._db.execute(
            "SELECT agent_id, worktree_path, agent_pid, agent_pid_started FROM agents"
            " WHERE live = 1 AND worktree_path <> '' ORDER BY agent_id"
        )
        return [PlaceRow(*row) for row in rows.fetchall()]

    # -- sessions and work

    def session_items(self, session_id: str) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
        """Scopes and refs that are on a session now."""
        rows = self._db.execute(
            "SELECT kind, type, value FROM session_items WHERE session_id = ? AND add_at >= remove_at AND add_at <> ''"
            " ORDER BY add_at, add_event, type, value",
            (session_id,),
        ).fetchall()
        scopes, refs = ([Pair(row[1], row[2]) for row in rows if row[0] == kind] for kind in ("scope", "ref"))
        return tuple(scopes), tuple(refs)

    def session(self, session_id: str) -> SessionRow | None:
        row = self._db.execute(f"{self._session_rows} AND session_id = ?", (session_id,)).fetchone()
        return None if row is None else SessionRow(*row)

    def open_session(self, agent_id: str) -> SessionRow | None:
        """The agent's newest session that has not ended."""
        row = self._db.execute(
            f"{self._session_rows}{_NEWEST_OPEN}",
            (agent_id,),
        ).fetchone()
        return None if row is None else SessionRow(*row)

    def open_session_id(self, agent_id: str) -> str:
        """Of its newest session that has not ended; `""` without one."""
        row = self._db.execute(self._open_session_id, (agent_id,)).fetchone()
        return "" if row is None else row[0]

    def open_sessions(self) -> dict[str, SessionRow]:
        """By agent, the newest one of each."""
        rows = self._db.execute(f"{self._session_rows} AND ended_at = '' ORDER BY started_at, start_event")
        return {row[1]: SessionRow(*row) for row in rows.fetchall()}

    def sessions(self, agent_id: str = "", active_only: bool = False) -> list[SessionRow]:
        """Newest first."""
        terms = ["s.agent_id = ?1" if agent_id else "?1 = ''"]
        if active_only:
            terms.append("ended_at = ''")
        rows = self._db.execute(
            f"{self._session_rows} AND {' AND '.join(terms)} ORDER BY started_at DESC, start_event DESC", (agent_id,)
        )
        return [SessionRow(*row) for row in rows.fetchall()]

    def work(self, session_id: str) -> wire_types.WorkContext | None:
        """What a session works on, ended or not."""
        row = self._db.execute(f"{_WORK} WHERE w.session_id = ?", (session_id,)).fetchone()
        return None if row is None else _work(row)

    def note(self, agent_id: str) -> tuple[str, str] | None:
        """The notes that an agent put on the branch last, where it is registered, and when (events.md §4)."""
        return self._db.execute(
            "SELECT content, saved_at FROM agent_contexts AS c"
            " LEFT JOIN registrations AS r ON r.agent_id = c.agent_id AND r.home = c.home"
            " LEFT JOIN agents AS a ON a.agent_id = c.agent_id AND a.live = 1"
            " WHERE c.agent_id = ? AND (a.agent_id IS NULL OR a.reg_event = r.reg_event)"
            " ORDER BY saved_at DESC LIMIT 1",
            (agent_id,),
        ).fetchone()

    def contexts(self, agent_id: str = "", branch: str = "", file: str = "") -> list[wire_types.WorkContext]:
        """What is worked on in the open sessions. `file`: a path, the end of one from a `/` on, or a directory with
        its trailing `/`.
        """
        terms, values = ["s.ended_at = ''"], list[str]()
        if agent_id:
            terms.append("w.agent_id = ?")
            values.append(agent_id)
        if branch:
            terms.append("w.branch = ?")
            values.append(branch)
        if file:
            match = (
                "substr(f.path, 1, length(?)) = ?"
                if file.endswith("/")
                else "(f.path = ? OR substr(f.path, -length(?) - 1) = '/' || ?)"
            )
            terms.append(f"EXISTS (SELECT 1 FROM work_files AS f WHERE f.session_id = w.session_id AND {match})")
            values += [file] * match.count("?")
        rows = self._db.execute(
            f"{_WORK} JOIN ({self._session_rows}) AS s USING (session_id) WHERE {' AND '.join(terms)}"
            " ORDER BY w.agent_id, started_at, session_id",
            values,
        )
        return [_work(row) for row in rows.fetchall()]

    def intents(self) -> dict[str, str]:
        """Session -> what it is or was about, of all that said so."""
        return dict(self._db.execute("SELECT session_id, intent FROM work_contexts WHERE intent <> ''").fetchall())


def _work(row: Sequence[Any]) -> wire_types.WorkContext:
    return wire_types.WorkContext(
        session_id=row[0],
        agent_id=row[1],
        branch=row[2],
        worktree_path=row[3],
        unmerged_commits=_commits.decode(row[4]) if row[4] else (),
        uncommitted_files=_paths.decode(row[5]) if row[5] else (),
        changed_files=_paths.decode(row[6]) if row[6] else (),
        file_changes=_changes.decode(row[7]) if row[7] else (),
        git_updated_at=row[8],
        current_task=row[9],
        task_updated_at=row[10],
        intent=row[11],
        intent_updated_at=row[12],
    )
