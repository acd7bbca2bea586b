"""Attempts to wake an agent: of all facts that share an attempt's id one row (wake.md §5).

A row is rebuilt from all its facts whenever one comes: they are two or three. So their order cannot show in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from thrum.model.events import WakeAttempted
from thrum.model.origins import Provenance
from thrum.store.projection.watermarks import PURGE, Order, Watermarks

OFFERED: Final = "offered"
PROVED: Final = "proved"

Told = tuple[Order, WakeAttempted]


class Attempt(NamedTuple):
    """The columns of `wake_attempts` behind its key, and the messages."""

    agent_id: str
    door: str
    process: str
    offered_at: str
    offered_event: str
    outcome: str
    detail: str
    ended_at: str
    ended_event: str
    message_ids: tuple[str, ...]


def attempt_of(facts: Sequence[Told]) -> Attempt:
    """What the facts of one attempt, at least one, say together.

    First by order (time, event id), as in all merges: the first `offered` says what was offered, to whom, and how; the
    first that is not `offered` how it ended, for good. Only what was `proved` names what was really said.
    """
    ordered = sorted(facts, key=lambda told: told[0])
    offers = [told for told in ordered if told[1].outcome == OFFERED]
    ends = [told for told in ordered if told[1].outcome != OFFERED]
    first = (offers or ends)[0][1]
    last = (ends or offers)[0][1]
    named = last if last.outcome == PROVED else first
    return Attempt(
        first.agent_id,
        first.door,
        first.process,
        *(offers[0][0] if offers else ("", "")),
        last.outcome,
        last.detail,
        *(ends[0][0] if ends else ("", "")),
        tuple(dict.fromkeys(named.message_ids)),
    )


class Wakes:
    """The rows of `wake_attempts` and `wake_messages`. Their facts are remembered under `PREFIX` and the id."""

    PREFIX: Final = "w:"

    def __init__(self, db: sqlite3.Connection, watermarks: Watermarks) -> None:
        self._db = db
        self._watermarks = watermarks

    def is_purged(self, order: Order, who: Provenance) -> bool:
        """Whether a purge takes a fact out of effect: by its own time."""
        cutoff = self._watermarks.get(PURGE, "", who.under)
        return cutoff is not None and order[0] < cutoff[0]

    def tell(self, attempt_id: str, facts: Sequence[Told]) -> None:
        """Rebuild the rows of an attempt from everything that counts; none if nothing does."""
        erase(self._db, [attempt_id])
        if facts:
            attempt = attempt_of(facts)
            self._db.execute(
                "INSERT INTO wake_attempts (attempt_id, agent_id, door, process, offered_at, offered_event, outcome,"
                " detail, ended_at, ended_event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (attempt_id, *attempt[:-1]),
            )
            self._db.executemany(
                "INSERT INTO wake_messages VALUES (?, ?, ?)",
                [(attempt_id, message_id, position) for position, message_id in enumerate(attempt.message_ids)],
            )

    def told_before(self, cutoff: str) -> list[str]:
        """The attempts of which a fact that shows lies before that time."""
        rows = self._db.execute(
            "SELECT attempt_id FROM wake_attempts"
            " WHERE (offered_at <> '' AND offered_at < ?1) OR (ended_at <> '' AND ended_at < ?1)",
            (cutoff,),
        )
        return [row[0] for row in rows.fetchall()]


def erase(db: sqlite3.Connection, attempt_ids: Iterable[str]) -> None:
    """Take away every row of these attempts."""
    keys = [(attempt_id,) for attempt_id in attempt_ids]
    for table in ("wake_attempts", "wake_messages"):
        db.executemany(f"DELETE FROM {table} WHERE attempt_id = ?", keys)
