"""Waits for the ends of processes: by a pidfd, so one is known in milliseconds, else by a look every two seconds."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from thrum.model import limits
from thrum.model.files import open_files_max


class ProcessEnds:
    """Those that wait in one daemon. A pidfd is an open file: with many processes and few files others had none."""

    def __init__(self) -> None:
        self._pidfds = 0
        self._pidfds_max = open_files_max() // 8

    async def wait(self, pid: int, lives: Callable[[], bool]) -> None:
        """Until the process that has that pid now ends. `lives`: whether it is the expected one, alive."""
        if self._pidfds >= self._pidfds_max:
            await _sweep(lives)
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):
            # No pidfds here, or no more of them.
            await _sweep(lives)
            return
        self._pidfds += 1
        try:
            # After the opening: the descriptor is of the process that has the pid now.
            if lives():
                await trio.lowlevel.wait_readable(descriptor)
        finally:
            self._pidfds -= 1
            trio.lowlevel.notify_closing(descriptor)
            os.close(descriptor)


async def _sweep(lives: Callable[[], bool]) -> None:
    while True:
        if not lives():
            return
        await trio.sleep(limits.sweep_seconds)
