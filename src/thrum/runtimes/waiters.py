"""Who sleeps in the daemon until there is mail for the agent of its runtime: `thrum hook claude wait`.

A wake uses a waiter up. Of one process of a runtime only one sleeps at a time: what its later hooks start ends at once.
An answer counts as handed over when the waiter took it, before it prints a byte: without that nothing was said, after
that it is not given again (wake.md §4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from thrum.model.errors import ShuttingDown
from thrum.model.wake_types import Failed, Offered, Process

TAKE_SECONDS: Final = 10.0
"""How long a waiter that was given an answer may take to say that it has it; it takes milliseconds."""
GONE: Final = "the waiter is gone"


def _stopping() -> ShuttingDown:
    return ShuttingDown("the daemon is stopping", retry_after_ms=500)


@dataclass(slots=True, eq=False)
class Waiter:
    """One that sleeps. `text`: what it was given; empty: nothing, it is to end in silence."""

    text: str = ""
    woken: trio.Event = field(default_factory=trio.Event)
    settled: trio.Event = field(default_factory=trio.Event)
    is_taken: bool = False

    def taken(self) -> None:
        """It has the answer: from now on it prints it, whatever becomes of the daemon."""
        self.is_taken = True
        self.settled.set()

    def lost(self) -> None:
        """The answer did not reach it."""
        self.settled.set()


class Waiters:
    """All waiters of one daemon, by the process of the runtime that started them."""

    def __init__(self, changed: Callable[[Process], None] = lambda process: None) -> None:
        """`changed`: called when a process has a waiter, or has none any more."""
        self._waiting: dict[Process, Waiter] = {}
        self._absent: dict[Process, float] = {}
        self._changed = changed
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether none sleeps here."""
        return not self._waiting

    def absent_since(self, process: Process) -> float | None:
        """Since when none of that process sleeps here, at the earliest since that was first asked; trio's seconds.
        None: one does."""
        if process in self._waiting:
            return None
        return self._absent.setdefault(process, trio.current_time())

    def forget(self, process: Process) -> None:
        """The process has ended."""
        self._absent.pop(process, None)

    def has(self, process: Process | None) -> bool:
        """Whether a waiter of that process sleeps here."""
        return process in self._waiting

    async def wait(self, process: Process) -> Waiter | None:
        """Sleep until there is mail. Its caller says `taken` or `lost` of what comes back with a text.

        None at once where a waiter of that process sleeps already. Raises ShuttingDown.
        """
        waiter = self.add(process)
        return None if waiter is None else await self.sleep(process, waiter)

    def add(self, process: Process) -> Waiter | None:
        """A waiter of that process, from now on; None where there is one. Its caller calls `sleep` or `leave`.

        Raises ShuttingDown.
        """
        if process in self._waiting:
            return None
        if self._closed:
            raise _stopping()
        waiter = self._waiting[process] = Waiter()
        self._absent.pop(process, None)
        self._changed(process)
        return waiter

    async def sleep(self, process: Process, waiter: Waiter) -> Waiter:
        """Sleep until it is woken; see `wait`."""
        try:
            await waiter.woken.wait()
        except trio.Cancelled:
            waiter.lost()
            raise
        finally:
            self.leave(process, waiter)
        if self._closed and not waiter.text:
            raise _stopping()
        return waiter

    def close(self) -> None:
        """The daemon stops: those that sleep here look for the next one."""
        self._closed = True
        for waiter in self._waiting.values():
            waiter.woken.set()

    def dismiss(self, process: Process) -> None:
        """The process ended, or its agent is gone: its waiter ends in silence."""
        waiter = self._waiting.get(process)
        if waiter is not None:
            self.leave(process, waiter)
            waiter.woken.set()

    async def hand(self, process: Process | None, text: str) -> Offered:
        """Give a waiter of that process its answer, and return when it has it. Failed: nothing was said.

        Cancelled before a waiter was woken, nothing was said; from then on it is not cancelled any more.
        """
        await trio.lowlevel.checkpoint()
        waiter = None if process is None else self._waiting.get(process)
        if process is None or waiter is None:
            return Failed(GONE)
        self.leave(process, waiter)
        waiter.text = text
        waiter.woken.set()
        with trio.CancelScope(shield=True), trio.move_on_after(TAKE_SECONDS):
            await waiter.settled.wait()
        if not waiter.settled.is_set():
            return "offered"  # it may have been printed: better unseen than told twice
        return "offered" if waiter.is_taken else Failed(GONE)

    def leave(self, process: Process, waiter: Waiter) -> None:
        """It sleeps no more; nothing where it has left."""
        if self._waiting.get(process) is waiter:
            del self._waiting[process]
            self._absent[process] = trio.current_time()
            self._changed(process)
