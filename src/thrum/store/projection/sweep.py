"""The rows below a watermark that just rose, to be judged again (events.md §7, "Horizons")."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from thrum.model import clock, ids
from thrum.model.event_specs import EVENT_SPECS, quoted
from thrum.model.events import LOCAL_FILE
from thrum.model.origins import Origins, Provenance
from thrum.model.tombstones import message_ms
from thrum.store.projection.merge_messages import BELOW_WATERMARK, DELETED
from thrum.store.projection.watermarks import Order

_MESSAGE_PREFIX: Final = "msg_"
_MESSAGE_ID_CHARS: Final = len(_MESSAGE_PREFIX) + 26
_TOLD: Final = quoted(
    type_ for type_, spec in EVENT_SPECS.items() if spec.entity == "session" and spec.cleanup and not spec.begins
)
"""Types of facts about a session that only a cleanup of its agent takes out of effect."""

Found = tuple[str, str, int]
"""A thing: its id, its create's origin and trust."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What is in one realm. Entities of origins outside it are not even read."""

    realm: str
    origins: Origins

    @property
    def where(self) -> str:
        """The condition on the origin of a thing; it takes `origins_json`."""
        return "origin_daemon IN (SELECT value FROM json_each(:origins))" if self._under is not None else "1"

    @property
    def origins_json(self) -> str:
        return json.dumps(self._under or ())

    @property
    def homes(self) -> set[str] | None:
        """The origins whose lines may be in it; None: any."""
        return None if self._under is None else {self.origins.home(origin) for origin in self._under}

    @property
    def _under(self) -> tuple[str, ...] | None:
        return self.origins.under(self.realm)

    def provenance(self, origin: str, trust: int) -> Provenance:
        """What lines of that origin and trust are."""
        return self.origins.provenance(origin, trust)

    def only(self, entities: Iterable[Found]) -> list[str]:
        """Of these things the ids of those that a sweep of the realm may tombstone."""
        return [id for id, origin, trust in entities if self.realm in self.provenance(origin, trust).under]


def hide_below(db: sqlite3.Connection, agent_id: str, watermark: Order) -> None:
    """The inbox of a cleaned agent starts afresh above its watermark."""
    for before, after in ((0, BELOW_WATERMARK), (DELETED, DELETED | BELOW_WATERMARK)):
        # A condition on a literal, so that the partial indexes of the inbox serve.
        shown = "hidden = 0" if before == 0 else f"hidden <> 0 AND hidden = {before}"
        db.execute(
            f"UPDATE message_recipients SET hidden = {after} WHERE agent_id = ?1 AND {shown} AND stored_at <= ?2"
            " AND (stored_at < ?2 OR (SELECT create_event FROM messages"
            " WHERE messages.message_id = message_recipients.message_id) <= ?3)",
            (agent_id, *watermark),
        )


def groups_of(db: sqlite3.Connection, agent_id: str, watermark: Order) -> list[str]:
    """Groups that the agent was added to at or before its watermark."""
    rows = db.execute(
        "SELECT group_id FROM group_members WHERE member_type = 'agent' AND member_value = ?"
        " AND (added_at, add_event) <= (?, ?)",
        (agent_id, *watermark),
    )
    return [row[0] for row in rows.fetchall()]


def sessions_below(db: sqlite3.Connection, swept: Swept, agent_id: str, watermark: Order) -> list[Found]:
    """Sessions of the agent that started at or before its watermark."""
    rows = db.execute(
        f"SELECT session_id, origin_daemon, trust FROM sessions WHERE {swept.where}"
        " AND agent_id = :agent AND (started_at, start_event) <= (:at, :event)",
        _values(swept, watermark, agent=agent_id),
    )
    return rows.fetchall()


def sessions_reported_below(
    db: sqlite3.Connection, swept: Swept, agent_id: str, watermark: Order, *, own: bool
) -> list[str]:
    """Sessions of the agent, whosever they are, that were told something that is tombstoned now: that goes by who told
    it. `own`: what lies in the local journal is tombstoned too.
    """
    rows = db.execute(
        "SELECT DISTINCT session_id, events.origin_daemon, events.trust, file = :local"
        " FROM sessions JOIN hanging ON thing = 's:' || session_id JOIN events USING (seq)"
        f" WHERE ({swept.where.replace('origin_daemon', 'events.origin_daemon')} OR file = :local)"
        f" AND agent_id = :agent AND type IN {_TOLD} AND (timestamp, event_id) <= (:at, :event)",
        _values(swept, watermark, agent=agent_id) | {"local": LOCAL_FILE},
    ).fetchall()
    found = [row[0] for row in rows if row[3] and own]
    return list(dict.fromkeys(found + swept.only(row[:3] for row in rows if not row[3])))


def sessions_ended_before(db: sqlite3.Connection, swept: Swept, cutoff: str) -> list[Found]:
    rows = db.execute(
        f"SELECT session_id, origin_daemon, trust FROM sessions WHERE {swept.where}"
        " AND ended_at <> '' AND ended_at < :cutoff",
        {"origins": swept.origins_json, "cutoff": cutoff},
    )
    return rows.fetchall()


def messages_below(db: sqlite3.Connection, swept: Swept, author: str, watermark: Order) -> list[Found]:
    """Messages of the author whose create lies at or below its watermark."""
    rows = db.execute(
        f"SELECT message_id, origin_daemon, trust FROM messages WHERE {swept.where}"
        " AND agent_id = :agent AND (created_at, create_event) <= (:at, :event)",
        _values(swept, watermark, agent=author),
    )
    return rows.fetchall()


def messages_before(db: sqlite3.Connection, swept: Swept, cutoff: str) -> list[Found]:
    """Messages whose own time lies before the cutoff of a purge."""
    cutoff_ms = clock.parse_ms(cutoff)
    # The least id of that millisecond; ids of another form are looked at one by one.
    first = _MESSAGE_PREFIX + ids.Ulids(bytes).at(max(cutoff_ms, 0))
    rows = db.execute(
        f"SELECT message_id, origin_daemon, trust, created_at FROM messages WHERE {swept.where}"
        " AND (message_id < :first OR created_at < :cutoff"
        " OR length(message_id) <> :length OR substr(message_id, 1, 4) <> :prefix)",
        {
            "origins": swept.origins_json,
            "first": first,
            "cutoff": cutoff,
            "length": _MESSAGE_ID_CHARS,
            "prefix": _MESSAGE_PREFIX,
        },
    )
    return [row[:3] for row in rows.fetchall() if message_ms(row[0], row[3]) < cutoff_ms]


def _values(swept: Swept, watermark: Order, *, agent: str) -> dict[str, str]:
    return {"origins": swept.origins_json, "agent": agent, "at": watermark[0], "event": watermark[1]}
