"""A dedicated thread for disk writes: one wake-up there and one back, half the cost of a thread pool."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")


class Flusher:
    """Runs one piece of work at a time for trio tasks. Use it as a context manager, inside a trio run."""

    def __init__(self) -> None:
        self._work: deque[tuple[Callable[[], Any], trio.lowlevel.Task] | None] = deque()
        self._waiting = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, name="thrum-flush", daemon=True)

    def __enter__(self) -> Flusher:
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.append(None)
        self._waiting.release()
        self._thread.join()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work()` gives or raises, from the other thread. Cannot be cancelled: what was begun is finished."""
        self._work.append((work, trio.lowlevel.current_task()))
        self._waiting.release()
        result: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return result

    def _serve(self) -> None:
        while True:
            self._waiting.acquire()
            item = self._work.popleft()
            if item is None:
                return
            work, task = item
            self._token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.capture(work))
