"""Attempts to wake that are old leave the local journal, whole, and their rows with them (wake.md §5).

One goes when its last fact is older than a week and nothing that it offered still waits unseen: what waits has used up
some of its attempts, and its door may still hold it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final

from thrum.model.events import LOCAL_FILE
from thrum.store.projection.merge_wakes import Wakes, erase

_COUNTING: Final = "FROM hanging JOIN events USING (seq) WHERE state = 'applied' AND thing"
_OLD: Final = f"""
SELECT event_id FROM wake_attempts AS a JOIN hanging ON thing = '{Wakes.PREFIX}' || attempt_id JOIN events USING (seq)
WHERE state = 'applied' AND NOT EXISTS (SELECT 1 {_COUNTING} = '{Wakes.PREFIX}' || attempt_id
    AND (timestamp >= :before OR file <> '{LOCAL_FILE}'))
  AND NOT EXISTS (SELECT 1 FROM wake_messages AS w JOIN message_recipients AS r ON r.message_id = w.message_id
    WHERE w.attempt_id = a.attempt_id AND r.agent_id = a.agent_id AND r.seen_at IS NULL AND r.hidden = 0)"""
_ALL: Final = f"SELECT thing, seq {_COUNTING} > '{Wakes.PREFIX}' AND thing < '{Wakes.PREFIX[0]};'"
_LEFT: Final = f"""
SELECT attempt_id FROM wake_attempts WHERE NOT EXISTS (SELECT 1 {_COUNTING} = '{Wakes.PREFIX}' || attempt_id)"""


def facts_of_old_attempts(db: sqlite3.Connection, before: str) -> set[str]:
    """The ids of all facts of the attempts that may go. `before`: the time a week ago."""
    return {row[0] for row in db.execute(_OLD, {"before": before})}


def split_facts(db: sqlite3.Connection, gone: Collection[int]) -> set[int]:
    """Those numbers of facts that are to go whose attempt keeps other ones: what stayed would be another attempt."""
    attempts: dict[str, set[int]] = {}
    for key, seq in db.execute(_ALL):
        attempts.setdefault(key, set()).add(seq)
    return {seq for seqs in attempts.values() if not seqs.issubset(gone) for seq in seqs.intersection(gone)}


def forget_left_attempts(db: sqlite3.Connection) -> None:
    """Take away the rows of attempts whose facts are gone."""
    erase(db, [row[0] for row in db.execute(_LEFT).fetchall()])
