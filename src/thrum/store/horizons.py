"""Horizons: what cleanups and purges made void (events.md §7). They only ever rise, and no fact takes one back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from thrum import clock
from thrum.events import PurgeExecuted

Order = tuple[str, str]
"""`(normalised time, event id)`: the order of facts, compared as text."""

AGENT: Final = "agent"
AUTHOR: Final = "author"
PURGE: Final = "purge"


class Horizons:
    """The table `horizons`. Read from SQLite each time it is asked, so that a rollback needs no second thought.

    Most repositories have none: that is remembered, as long as it holds. Nobody else may write the table meanwhile.
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

    def get(self, kind: str, id: str) -> Order | None:
        if self.none:
            return None
        return self._db.execute("SELECT at, event_id FROM horizons WHERE kind = ? AND id = ?", (kind, id)).fetchone()

    def covers(self, kind: str, id: str, order: Order) -> bool:
        """Whether a fact of this order is void by that horizon."""
        horizon = self.get(kind, id)
        return horizon is not None and order <= horizon

    def of_message(self, author: str) -> tuple[Order | None, str | None]:
        """The horizon of an author and the cutoff of the purge."""
        found: tuple[Order | None, str | None] = (None, None)
        if self.none:
            return found
        for kind, at, event_id in self._db.execute(
            "SELECT kind, at, event_id FROM horizons"
            " WHERE (kind = 'author' AND id = ?) OR (kind = 'purge' AND id = '')",
            (author,),
        ):
            found = ((at, event_id), found[1]) if kind == AUTHOR else (found[0], at)
        return found

    def of_agents(self, agent_ids: Sequence[str]) -> dict[str, Order]:
        """Those of these agents that were cleaned up (others may be among them)."""
        if len(agent_ids) == 1:
            horizon = self.get(AGENT, agent_ids[0])
            return {} if horizon is None else {agent_ids[0]: horizon}
        if not agent_ids or self.none:
            return {}
        rows = self._db.execute("SELECT id, at, event_id FROM horizons WHERE kind = 'agent'").fetchall()
        return {row[0]: (row[1], row[2]) for row in rows}

    def rise(self, kind: str, id: str, order: Order) -> bool:
        """Keep the greatest. False when it was as high already: then nothing new became void."""
        self._none = False
        return (
            self._db.execute(
                "INSERT INTO horizons VALUES (?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE"
                " SET at = excluded.at, event_id = excluded.event_id"
                " WHERE (horizons.at, horizons.event_id) < (excluded.at, excluded.event_id)",
                (kind, id, *order),
            ).rowcount
            > 0
        )


def purge_cutoff(fact: PurgeExecuted, at: str) -> str:
    """What a purge made at `at` voids up to: never the future. `""` when its cutoff is no time."""
    try:
        return min(clock.normalise(fact.cutoff), at)
    except ValueError:
        return ""
