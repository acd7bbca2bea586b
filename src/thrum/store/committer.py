"""The committer: the one task that writes (house.md, "One writer"; events.md §11).

Calls queue up; whatever waits is decided and applied on the loop, flushed in a worker thread in one hop, and answered
when it is on disk. While a batch flushes the next one gathers: that is the group commit.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import trio

from thrum import limits
from thrum.api import ClientKey
from thrum.errors import Busy, ShuttingDown, StoreFailed
from thrum.events import AnyFact
from thrum.store.door import Decide
from thrum.store.flusher import Flusher
from thrum.store.views import View
from thrum.store.writer import Call, Committed, Writer

log: Final = logging.getLogger("thrum.store")

R = TypeVar("R")

_SLICE_SECONDS: Final = 0.005
"""How long a batch may decide before others on the loop get a turn."""

_RETRY_AFTER_MS: Final = 200


class Statistics(NamedTuple):
    """`waiting`: calls not begun. The rest counts from the start."""

    waiting: int
    calls: int
    batches: int
    facts: int
    failed_batches: int


class _Waiting(Call):
    __slots__ = ("begun", "done", "withdrawn")

    def __init__(self, decide: Decide[Any], key: ClientKey | None, replay: Callable[[View, AnyFact, int], Any] | None):
        super().__init__(decide, key, replay)
        self.done = trio.Event()
        self.begun = False
        self.withdrawn = False


class Committer:
    """Implements `door.Journal` over a `Writer`. `serve_commits` must run for calls to be answered.

    `on_commit` gets the facts of each batch in the order of `seq`, on the loop, once they are on disk.
    """

    def __init__(self, writer: Writer, on_commit: Callable[[Sequence[Committed]], None] | None = None) -> None:
        self.on_commit = on_commit
        self._writer = writer
        self._queue: deque[_Waiting] = deque()
        self._wake = trio.Event()
        self._closing = False
        self._degraded: str | None = None
        self._broken = trio.Event()
        self._cause = ""
        self._calls = self._batches = self._facts = self._failed = 0

    @property
    def degraded(self) -> str | None:
        """Why nothing can be written at present; None when all is well. Every call tries anew."""
        return self._degraded

    async def wait_broken(self) -> str:
        """Wait until a journal turned out to be changed by someone else, or the database to be damaged.

        Returns `journal_changed` or `database_damaged`. The store has to be opened anew: that recovers it.
        """
        await self._broken.wait()
        return self._cause

    @property
    def cause(self) -> str:
        """What `wait_broken` waits for; `""` as long as all is well."""
        return self._cause

    def condemn(self, cause: str = "database_damaged") -> None:
        """Say that the store has to be opened anew; with `database_damaged` its picture is then painted anew."""
        self._cause = self._cause or cause
        self._broken.set()

    def statistics(self) -> Statistics:
        """What it has done so far."""
        waiting = sum(not call.withdrawn for call in self._queue)
        return Statistics(waiting, self._calls, self._batches, self._facts, self._failed)

    async def commit(
        self,
        decide: Decide[R],
        *,
        key: ClientKey | None = None,
        replay: Callable[[View, AnyFact, int], R] | None = None,
    ) -> R:
        """See `door.Journal.commit`."""
        if self._closing:
            raise _stopping()
        if len(self._queue) >= limits.committer_waiting_max:
            raise _busy()
        call = _Waiting(decide, key, replay)
        self._queue.append(call)
        self._wake.set()
        try:
            with trio.move_on_after(limits.committer_wait_seconds) as scope:
                await call.done.wait()
            if scope.cancelled_caught:
                if not call.begun:
                    raise _busy()
                await call.done.wait()
        finally:
            # Whoever gave up before the call was begun has changed nothing.
            call.withdrawn = not call.begun
        if call.error is not None:
            raise call.error
        return call.answer

    async def serve_commits(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is asked for, until `drain` has let the last call through.

        Cancelled, it finishes the batch at hand and answers the calls that still wait with ShuttingDown.
        """
        task_status.started()
        try:
            with Flusher() as flusher:
                while True:
                    if self._queue:
                        with trio.CancelScope(shield=True):
                            await self._run_batch(flusher)
                        await trio.lowlevel.checkpoint_if_cancelled()
                    elif self._closing:
                        return
                    else:
                        self._wake = trio.Event()
                        await self._wake.wait()
        finally:
            self._closing = True
            while self._queue:
                self._finish(self._queue.popleft(), _stopping())

    def drain(self) -> None:
        """Take no more calls; `serve_commits` returns once those that wait are answered."""
        self._closing = True
        self._wake.set()

    # -- one batch

    async def _run_batch(self, flusher: Flusher) -> None:
        batch: list[_Waiting] = []
        self._batches += 1
        try:
            self._writer.begin()
            await self._decide(batch)
            if self._writer.has_facts:
                committed = await flusher.run(self._writer.flush)
                self._degraded = None
            else:
                self._writer.rollback()
                committed = []
        except StoreFailed as error:
            self._writer.rollback()
            self._fail(batch, error)
            return
        except Exception as error:
            # A bug. Whoever waits must hear of it, and the next batch may well succeed.
            log.exception("a batch failed")
            self._writer.rollback()
            self._fail(batch, StoreFailed(f"could not write: {error!r}"))
            return
        self._facts += len(committed)
        for call in batch:
            self._finish(call, call.error)
        if committed and self.on_commit is not None:
            try:
                self.on_commit(committed)
            except Exception:
                # The facts are on disk; a listener that missed them finds them in the store.
                log.exception("a listener failed on facts %d to %d", committed[0].seq, committed[-1].seq)

    async def _decide(self, batch: list[_Waiting]) -> None:
        pause_at = trio.current_time() + _SLICE_SECONDS
        while self._queue and not self._writer.is_full:
            call = self._queue.popleft()
            if call.withdrawn:
                continue
            call.begun = True
            batch.append(call)
            self._writer.carry_out(call)
            if trio.current_time() >= pause_at:
                await trio.lowlevel.cancel_shielded_checkpoint()
                pause_at = trio.current_time() + _SLICE_SECONDS

    def _fail(self, batch: list[_Waiting], error: StoreFailed) -> None:
        """Every call of the batch is told; if none was begun, the one at the head is, so that nobody waits for ever."""
        self._failed += 1
        if not batch:
            batch = [self._queue.popleft()]
        if self._degraded != error.message:
            log.error("nothing can be written: %s", error.message)
        self._degraded = error.message
        if "cause" in error.details:
            self.condemn(str(error.details["cause"]))
        for call in batch:
            self._finish(call, StoreFailed(error.message, remedy=error.remedy, **error.details))

    def _finish(self, call: _Waiting, error: Exception | None) -> None:
        self._calls += 1
        call.begun = True
        call.error = error
        call.done.set()


def _busy() -> Busy:
    return Busy("the daemon is busy", retry_after_ms=_RETRY_AFTER_MS)


def _stopping() -> ShuttingDown:
    return ShuttingDown("the daemon is stopping", retry_after_ms=_RETRY_AFTER_MS)
