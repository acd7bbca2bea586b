"""How much of one turn of the event loop requests may take: many at once must not be as bad as a long one (rpc.md §1).

trio runs all tasks that are ready before it looks at its sockets again. 256 requests that cost 40 ms each and came
together would be one turn of 10 s.
"""

from __future__ import annotations

from time import perf_counter

import trio

from thrum.model import limits


class Pace(trio.abc.Instrument):
    """Lets requests begin while the turn is young, at least one a turn.

    trio tells when the turn is over, which costs every turn: it is asked to in those alone in which requests wait.
    """

    def __init__(self, turn_seconds: float = limits.turn_seconds) -> None:
        self._turn_seconds = turn_seconds
        self._began: float | None = None
        """When the first request of this turn began; None before."""

    def after_io_wait(self, timeout: float) -> None:
        """A turn begins; trio calls this."""
        self.close()

    def close(self) -> None:
        """Ask to be told of no turn any more."""
        if self._began is not None:
            self._began = None
            trio.lowlevel.remove_instrument(self)

    async def wait(self) -> None:
        """Until a turn has time left. Without a checkpoint if this one has."""
        while self._began is not None and perf_counter() - self._began > self._turn_seconds:
            await trio.lowlevel.checkpoint()
        if self._began is None:
            self._began = perf_counter()
            trio.lowlevel.add_instrument(self)
