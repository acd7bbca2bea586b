"""This daemon and its time, as tests know them."""

from __future__ import annotations

from thrum.model import clock

DAEMON = "d_01KGH87Y00BBBBBBBBBBBBBBBB"
START_MS = clock.parse_ms("2026-02-03T10:00:00.000Z")


class HandClock:
    """A wall clock that stands still until a test moves it."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms
