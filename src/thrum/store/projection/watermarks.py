"""Watermarks: what cleanups and purges tombstoned (events.md §7). They only ever rise, and no fact takes one back.

Each is of a *realm* (`thrum.model.origins`): a fact is tombstoned only by watermarks of realms
that it is in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from thrum.model import clock
from thrum.model.events import PurgeExecuted

Order = tuple[str, str]
"""`(normalised time, event id)`: the order of facts, compared as text."""

AGENT: Final = "agent"
AUTHOR: Final = "author"
PURGE: Final = "purge"


class Watermarks:
    """The table `horizons`. Read from SQLite each time it is asked, so that a rollback needs no second thought.

    Most repositories have none: that is remembered, as long as it holds. Nothing else may write the table meanwhile.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._none: bool | None = None

    @property
    def none(self) -> bool:
        """Whether nothing was ever cleaned up or purged."""
        if self._none is None:
            self._none = self._db.execute("SELECT 1 FROM horizons LIMIT 1").fetchone() is None
        return self._none

    def get(self, kind: str, id: str, realms: Collection[str]) -> Order | None:
        """The greatest one of these realms."""
        if self.none:
            return None
        rows = self._db.execute("SELECT realm, at, event_id FROM horizons WHERE kind = ? AND id = ?", (kind, id))
        return max(((at, event_id) for realm, at, event_id in rows if realm in realms), default=None)

    def latest(self, *kinds: str) -> str:
        """The time of the last one of these kinds, of any realm; empty: there is none."""
        if self.none:
            return ""
        marks = ", ".join("?" * len(kinds))
        return self._db.execute(f"SELECT max(at) FROM horizons WHERE kind IN ({marks})", kinds).fetchone()[0] or ""

    def covers(self, kind: str, id: str, order: Order, realms: Collection[str]) -> bool:
        """Whether a fact of this order in these realms is tombstoned by that watermark."""
        watermark = self.get(kind, id, realms)
        return watermark is not None and order <= watermark

    def of_message(self, author: str, realms: Collection[str]) -> tuple[Order | None, str | None]:
        """The watermark of an author and the cutoff of the purge."""
        if self.none:
            return None, None
        purge = self.get(PURGE, "", realms)
        return self.get(AUTHOR, author, realms), None if purge is None else purge[0]

    def of_agents(self, agent_ids: Sequence[str], realms: Collection[str]) -> Mapping[str, Order]:
        """Those of these agents that were cleaned up (others may be among them)."""
        if not agent_ids or self.none:
            return {}
        if len(agent_ids) == 1:
            watermark = self.get(AGENT, agent_ids[0], realms)
            return {} if watermark is None else {agent_ids[0]: watermark}
        found: dict[str, Order] = {}
        for id, realm, at, event_id in self._db.execute(
            "SELECT id, realm, at, event_id FROM horizons WHERE kind = 'agent'"
        ):
            if realm in realms:
                found[id] = max(found.get(id, ("", "")), (at, event_id))
        return found

    def rise(self, kind: str, id: str, realm: str, order: Order) -> bool:
        """Keep the greatest. False when it was as high already: then nothing more was tombstoned."""
        self._none = False
        return (
            self._db.execute(
                "INSERT INTO horizons VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, id, realm) DO UPDATE"
                " SET at = excluded.at, event_id = excluded.event_id"
                " WHERE (horizons.at, horizons.event_id) < (excluded.at, excluded.event_id)",
                (kind, id, realm, *order),
            ).rowcount
            > 0
        )


def purge_cutoff(fact: PurgeExecuted, at: str) -> str:
    """What a purge made at `at` tombstones up to: never the future. `""` when its cutoff is no time."""
    try:
        return min(clock.normalise(fact.cutoff), at)
    except ValueError:
        return ""
