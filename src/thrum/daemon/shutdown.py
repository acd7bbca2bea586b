"""How a daemon ends: by a signal, when its directory is gone, or after a day without use.

Services of `daemon/app.py`. Source: rpc.md §1, house.md "Stop".
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import trio

from thrum.daemon.parts import DaemonParts
from thrum.model import files, limits, paths
from thrum.model.errors import ThrumError
from thrum.model.paths import Layout
from thrum.rpc.dispatch import Drain
from thrum.rpc.sockets import Bound

log = logging.getLogger("thrum.daemon")


@dataclass(slots=True)
class Ending:
    """How one life of the task tree ends. The first word begins the drain; the last one decides what follows."""

    drain: Drain
    again: bool = False
    """Whether another life follows."""
    lost: bool = False
    """Whether the place is gone, or another daemon's by now: then nothing is written there any more."""
    unmeant: bool = False
    """Whether it ends by itself."""

    def stop(self) -> None:
        """For good."""
        self.again = False
        self.drain.begin()

    def leave(self) -> None:
        """For good, and touch nothing."""
        self.lost = True
        self.stop()

    def end_idle(self) -> None:
        """It is unused: the next command starts another one, and a wait may do so too."""
        self.unmeant = True
        self.stop()

    def reopen(self) -> None:
        """To live again; not if the end is near already."""
        if not self.drain.begun:
            self.again = True
            self.drain.begin()


def is_needed(parts: DaemonParts) -> bool:
    """Whether an agent of this daemon has an open session, or there are waits or listeners: programs, pages, peers."""
    view = parts.ctx.view
    sessions = view.open_sessions()
    own = any(row.is_own and row.agent_id in sessions for row in view.agents())
    return own or parts.publisher.listened or not parts.wait_queues.is_empty or not parts.wake.waiters.is_empty


class Idleness:
    """Since when this daemon has been unused. `is_needed`: whether it is in use now; `now`: monotonic seconds."""

    def __init__(self, is_needed: Callable[[], bool], now: Callable[[], float]) -> None:
        self._is_needed = is_needed
        self._now = now
        self._since = now()

    def touch(self) -> None:
        """A client connected."""
        self._since = self._now()

    async def watch(self, rest: Callable[[], None]) -> None:
        """Call `rest` once the daemon was unused for `limits.idle_seconds_max`."""
        while True:
            if self._is_needed():
                self.touch()
            left = self._since + limits.idle_seconds_max - self._now()
            if left <= 0:
                log.info("unused for a day: stopping")
                rest()
                return
            await trio.sleep(min(left, limits.idle_check_seconds))


async def watch_signals(stop: Callable[[], None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            log.info("signal %s", signal.Signals(number).name)
            stop()


async def watch_place(layout: Layout, mine: Bound, is_locked: Callable[[], bool], leave: Callable[[], None]) -> None:
    """A daemon whose sockets, lock or state directory are gone, or another's, is unreachable: it stops (rpc.md §1)."""
    looks = 0
    while looks < 2:  # one alone may have come when nothing could be opened
        placed = mine.are_there and is_locked() and _counts(layout)
        looks = 0 if placed or files.is_short() else looks + 1
        await trio.sleep(0.05 if looks else limits.state_check_seconds)
    log.warning("the socket, the lock or the state directory is gone: stopping")
    leave()


def _counts(layout: Layout) -> bool:
    try:
        return paths.counts(layout.main_root)
    except ThrumError:
        return False


def note_stop(layout: Layout, ending: Ending) -> None:
    """Record that this stop is deliberate: then a command that only waits does not start a daemon again."""
    if not (ending.again or ending.lost or ending.unmeant):
        with contextlib.suppress(OSError):
            os.close(files.open_file(layout.stopped_mark, os.O_WRONLY | os.O_CREAT))
