"""When this daemon's facts happened, and what they are called (events.md §2 "Stamping")."""

from __future__ import annotations

from thrum import clock, ids, limits, signatures
from thrum.store.door import Stamp


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
        """Let later stamps lie behind a horizon (RFC 3339), whoever set it: what is done next must not be void.

        A horizon more than a day ahead of the clock moves the base by that day only.
        """
        ahead = self._wall.now_ms() + limits.future_stamp_ms_max
        self._base_ms = max(self._base_ms, min(clock.parse_ms(time) + 1, ahead))
