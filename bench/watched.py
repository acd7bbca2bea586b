"""A daemon whose event loop is watched: how long its turns take, in CPU time of the loop's thread and by the clock.

    watched.py MAIN_ROOT REPORT_FILE

On SIGUSR1 it writes what the longest turn since the last report took into the file, one JSON object, and begins anew.
CPU time is what a turn costs on a machine of one's own; the clock also counts what other processes and threads took.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

import trio

from thrum.daemon import process


class Turns(trio.abc.Instrument):
    """The longest turn of the loop: from the end of one wait for I/O to the begin of the next."""

    def __init__(self) -> None:
        self._cpu = self._clock = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget what was."""
        self.cpu_max = self.clock_max = 0.0
        self.count = 0

    def after_io_wait(self, timeout: float) -> None:
        self._cpu, self._clock = time.thread_time(), time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1
        self.cpu_max = max(self.cpu_max, time.thread_time() - self._cpu)
        self.clock_max = max(self.clock_max, time.perf_counter() - self._clock)


def main() -> int:
    """Run as the module says."""
    root, report = sys.argv[1], Path(sys.argv[2])
    turns = Turns()

    def tell(_number: int, _frame: FrameType | None) -> None:
        found = {"cpu_ms": turns.cpu_max * 1000, "clock_ms": turns.clock_max * 1000, "turns": turns.count}
        turns.begin()
        fresh = report.with_suffix(".new")
        fresh.write_text(json.dumps(found))
        os.replace(fresh, report)

    signal.signal(signal.SIGUSR1, tell)
    trio.run = partial(trio.run, instruments=[turns])
    return process.main([root], os.environ)


if __name__ == "__main__":
    sys.exit(main())
