"""What lies below a horizon that just rose: the rows to look at again (events.md §7, "Horizons")."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from thrum import clock, ids
from thrum.origins import BEFORE, LOOSE, SIGNED, Standing
from thrum.store.horizons import Order
from thrum.store.merge_messages import BELOW_HORIZON, DELETED
from thrum.voids import message_ms

_MESSAGE_PREFIX: Final = "msg_"
_MESSAGE_ID_CHARS: Final = len(_MESSAGE_PREFIX) + 26


Found = tuple[str, str, int]
"""A thing: its id, its create's origin and trust."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What lies in one realm. `standing(origin, trust)` judges a create."""

    realm: str
    standing: Callable[[str, int], Standing]

    def only(self, things: Iterable[Found]) -> list[str]:
        """Of these things the ids of those that a sweep of the realm may void."""
        return [id for id, origin, trust in things if self.realm in self.standing(origin, trust).under]

    def near(self, things: Iterable[Found]) -> list[str]:
        """The same, and those of which only what they were told may be void."""
        return [
            id
            for id, origin, trust in things
            if any(self.realm in self.standing(origin, each).under for each in {trust, SIGNED, BEFORE, LOOSE})
        ]


def hide_below(db: sqlite3.Connection, agent_id: str, horizon: Order) -> None:
    """The inbox of a cleaned agent starts afresh above its horizon."""
    for before, after in ((0, BELOW_HORIZON), (DELETED, DELETED | BELOW_HORIZON)):
        # A condition on a literal, so that the partial indexes of the inbox serve.
        shown = "hidden = 0" if before == 0 else f"hidden <> 0 AND hidden = {before}"
        db.execute(
            f"UPDATE message_recipients SET hidden = {after} WHERE agent_id = ?1 AND {shown} AND stored_at <= ?2"
            " AND (stored_at < ?2 OR (SELECT create_event FROM messages"
            " WHERE messages.message_id = message_recipients.message_id) <= ?3)",
            (agent_id, *horizon),
        )


def groups_of(db: sqlite3.Connection, agent_id: str, horizon: Order) -> list[str]:
    """Groups that the agent was added to at or before its horizon."""
    rows = db.execute(
        "SELECT group_id FROM group_members WHERE member_type = 'agent' AND member_value = ?"
        " AND (added_at, add_event) <= (?, ?)",
        (agent_id, *horizon),
    )
    return [row[0] for row in rows.fetchall()]


def sessions_below(db: sqlite3.Connection, agent_id: str, horizon: Order) -> list[Found]:
    """Sessions of the agent that started at or before its horizon."""
    return db.execute(
        "SELECT session_id, origin_daemon, trust FROM sessions"
        " WHERE agent_id = ? AND (started_at, start_event) <= (?, ?)",
        (agent_id, *horizon),
    ).fetchall()


def sessions_told_below(db: sqlite3.Connection, agent_id: str, horizon: Order) -> list[Found]:
    """Sessions of the agent that stay, but were told something that is void now."""
    return db.execute(
        "SELECT DISTINCT session_id, sessions.origin_daemon, sessions.trust"
        " FROM sessions JOIN hanging ON thing = 's:' || session_id JOIN events USING (seq)"
        " WHERE agent_id = ? AND type IN ('agent.update', 'agent.seen') AND (timestamp, event_id) <= (?, ?)",
        (agent_id, *horizon),
    ).fetchall()


def sessions_ended_before(db: sqlite3.Connection, cutoff: str) -> list[Found]:
    sql = "SELECT session_id, origin_daemon, trust FROM sessions WHERE ended_at <> '' AND ended_at < ?"
    return db.execute(sql, (cutoff,)).fetchall()


def messages_below(db: sqlite3.Connection, author: str, horizon: Order) -> list[Found]:
    """Messages of the author whose create lies at or below its horizon."""
    return db.execute(
        "SELECT message_id, origin_daemon, trust FROM messages"
        " WHERE agent_id = ? AND (created_at, create_event) <= (?, ?)",
        (author, *horizon),
    ).fetchall()


def messages_before(db: sqlite3.Connection, cutoff: str) -> list[Found]:
    """Messages whose own time lies before the cutoff of a purge."""
    cutoff_ms = clock.parse_ms(cutoff)
    # The least id of that millisecond; ids of another form are looked at one by one.
    first = _MESSAGE_PREFIX + ids.Ulids(bytes).at(max(cutoff_ms, 0))
    rows = db.execute(
        "SELECT message_id, origin_daemon, trust, created_at FROM messages WHERE message_id < ? OR created_at < ?"
        " OR length(message_id) <> ? OR substr(message_id, 1, 4) <> ?",
        (first, cutoff, _MESSAGE_ID_CHARS, _MESSAGE_PREFIX),
    )
    return [row[:3] for row in rows.fetchall() if message_ms(row[0], row[3]) < cutoff_ms]
