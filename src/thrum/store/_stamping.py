"""Timestamps and ids of this daemon's facts (events.md §2 "Stamping")."""

from __future__ import annotations

import sqlite3

from thrum.model import clock, ids, limits, signatures
from thrum.model.origins import OLD_REALM
from thrum.store.api import Stamp

_LOOKED_AT = 100


class Stamper:
    """Reads the clock so that this daemon's facts only ever rise in order, also over a restart (events.md §2).

    `base_ms` is where an earlier run left off (0: nowhere). Its ids say that this daemon made them.
    """

    def __init__(self, wall: clock.Clock, daemon_id: str, base_ms: int = 0, ulids: ids.Ulids | None = None) -> None:
        self.daemon_id = daemon_id
        self._wall = wall
        self._ulids = ulids or signatures.CertifiedUlids(daemon_id)
        self._base_ms = base_ms

    @property
    def base_ms(self) -> int:
        """No later stamp is below this, in milliseconds since 1970."""
        return self._base_ms

    def stamp(self) -> Stamp:
        """One reading for one call."""
        self._base_ms = max(self._wall.now_ms(), self._base_ms)
        return Stamp(self._base_ms, self._ulids, self.daemon_id)

    def move_past(self, time: str) -> None:
        """Let later stamps lie behind a watermark (RFC 3339), no matter who set it: what is done next must not be
        tombstoned.

        A watermark more than a day ahead of the clock moves the base by that day only.
        """
        ahead = self._wall.now_ms() + limits.future_stamp_ms_max
        self._base_ms = max(self._base_ms, min(clock.parse_ms(time) + 1, ahead))


def base_of(db: sqlite3.Connection, own: frozenset[str], now_ms: int) -> int:
    """Where the stamps of a run begin at least: past the greatest id that this daemon gave, and past every watermark.

    A millisecond past it: the ids of two runs don't rise within one, and might even be the same. What lies more than a
    day ahead of the clock is passed over, for its clock was wrong. `own`: its id and its previous ones.
    """
    ahead_ms = now_ms + limits.future_stamp_ms_max
    marks = ", ".join("?" for _ in own)
    rows = db.execute(
        f"SELECT event_id FROM events WHERE event_id < ? AND origin_daemon IN ({marks}) AND state <> 'hidden'"
        f" ORDER BY event_id DESC LIMIT {_LOOKED_AT}",  # one from before certified ids may not be a ULID
        ("evt_" + ids.ulid_of(ahead_ms + 1 << 80), *own),
    )
    base = max((ms + 1 for (event_id,) in rows if (ms := ids.ulid_ms(event_id)) is not None), default=0)
    for realm, text in db.execute("SELECT realm, at FROM horizons"):
        if realm == OLD_REALM or realm in own:
            base = max(base, min(clock.parse_ms(text) + 1, ahead_ms))
    return base
