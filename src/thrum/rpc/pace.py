"""How much of one turn of the event loop requests may take: many at once must not be as bad as a long one (rpc.md §1).

trio runs all tasks that are ready before it looks at its sockets again. 256 requests that cost 40 ms each and came
together would be one turn of 10 s.
"""

from __future__ import annotations

from time import perf_counter

import trio

from thrum import limits


class Pace(trio.abc.Instrument):
    """Lets requests begin while the turn is young, at least one a turn. To be added to the loop's instruments."""

    def __init__(self, turn_seconds: float = limits.turn_seconds) -> None:
        self._turn_seconds = turn_seconds
        self._began = perf_counter()
        self._is_first = True

    def after_io_wait(self, timeout: float) -> None:
        """A turn begins; trio calls this."""
        self._began = perf_counter()
        self._is_first = True

    async def wait(self) -> None:
        """Until a turn has time left. Without a checkpoint if this one has."""
        while not self._is_first and perf_counter() - self._began > self._turn_seconds:
            await trio.lowlevel.checkpoint()
        self._is_first = False
