"""The committer: the one task that writes (house.md, "One writer"; events.md §11).

Calls queue up; whatever waits is decided and applied on the loop, flushed in a worker thread in one hop, and answered
when it is on disk. While a batch flushes the next one gathers: that is the group commit.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import trio

from thrum.model import limits
from thrum.model.errors import Busy, ShuttingDown, StoreFailed
from thrum.model.events import SWEEPS, AnyFact, DaemonKeyed, tag_of
from thrum.model.methods.method import ClientKey
from thrum.store._flusher import Flusher
from thrum.store.api import Decide, Decision, Stamp
from thrum.store.compaction import Draft, discard
from thrum.store.failures import internal
from thrum.store.ingest import Found, Ingested, Verified, turns_of, verified
from thrum.store.queries.views import View
from thrum.store.writer import Call, Committed, Errand, Writer

log: Final = logging.getLogger("thrum.store")

R = TypeVar("R")

_SLICE_SECONDS: Final = 0.005
"""How long a batch may decide before others on the loop get a turn."""

_RETRY_AFTER_MS: Final = 200
_HEAVY_BYTES: Final = 64 * limits.KIB
"""A foreign line beyond it may take longer to apply than others on the loop should wait."""
_HEAVY_TYPES: Final = tuple(f'"{type_}"'.encode() for type_ in (*map(tag_of, SWEEPS), tag_of(DaemonKeyed)))
"""So may what sweeps rows away, and a key, for which much may have waited."""


class Statistics(NamedTuple):
    """`waiting`: calls not begun. The rest counts from the start. `claimed`: facts that came on the branch, say that
    they are of this daemon, and were not here.
    """

    waiting: int
    calls: int
    batches: int
    facts: int
    failed_batches: int
    claimed: int = 0


class Alone(Call):
    """A call that is a transaction of its own: `work`, a method of the writer, is done in the flusher's thread."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Writer], Any]) -> None:
        super().__init__(_no_decision)
        self.work = work


def _no_decision(_view: View, _stamp: Stamp) -> Decision[None]:
    raise AssertionError("it is no part of a batch")


class _Waiting:
    """A call in the queue, or in the batch at hand."""

    __slots__ = ("begun", "call", "done", "withdrawn")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.done = trio.Event()
        self.begun = False
        self.withdrawn = False


class Committer:
    """Implements `api.Journal` over a `Writer`. `serve_commits` must run for calls to be answered.

    `on_commit` gets the facts of each batch in the order of `seq`, on the loop, once they are on disk; `on_release`
    those that were committed long ago, and whose day has come.
    """

    def __init__(self, writer: Writer, on_commit: Callable[[Sequence[Committed]], None] | None = None) -> None:
        self.on_commit = on_commit
        self.on_release: Callable[[Sequence[Committed]], None] | None = None
        self._writer = writer
        self._queue: deque[_Waiting] = deque()
        self._wake = trio.Event()
        self._closing = False
        self._degraded: str | None = None
        self._broken = trio.Event()
        self._cause = ""
        self._calls = self._batches = self._facts = self._failed = self._claimed = 0

    @property
    def degraded(self) -> str | None:
        """Why nothing can be written at present; None when all is well. Every call tries again."""
        return self._degraded

    async def wait_broken(self) -> str:
        """Wait until a journal turned out to be changed by someone else, or the database to be damaged.

        Returns `journal_changed` or `database_damaged`. The store must be reopened: that recovers it.
        """
        await self._broken.wait()
        return self._cause

    @property
    def cause(self) -> str:
        """What `wait_broken` waits for; `""` as long as all is well."""
        return self._cause

    def request_reopen(self, cause: str = "database_damaged") -> None:
        """Say that the store must be reopened; with `database_damaged` its projection is then rebuilt."""
        self._cause = self._cause or cause
        self._broken.set()

    def note_restore(self, at: str) -> None:
        """A backup was restored then (a timestamp; empty: never): own earlier facts come back from the branch."""
        self._writer.restored_at = at

    def statistics(self) -> Statistics:
        """What it has done so far."""
        waiting = sum(not each.withdrawn for each in self._queue)
        return Statistics(waiting, self._calls, self._batches, self._facts, self._failed, self._claimed)

    async def commit(
        self,
        decide: Decide[R],
        *,
        key: ClientKey | None = None,
        replay: Callable[[View, AnyFact, int], R] | None = None,
        heavy: bool = False,
    ) -> R:
        """See `api.Journal.commit`."""
        call = Call(decide, key, replay)
        call.heavy = heavy
        await self._execute_call(call)
        return call.answer

    async def ingest(self, arrived: Iterable[Found]) -> Ingested:
        """Ingest lines found on the branch: `(journal, line without newline)`, at most a batch full of them.

        When it returns, what is usable is on disk, in the projection and announced, byte for byte as it came, and the
        rest in quarantine (events.md §11), forged lines among it. Repeating it is harmless. Raises StoreFailed, Busy,
        ShuttingDown: some may be ingested then. ValueError becomes an InternalError: a line was found in no journal of
        the branch.
        """
        try:
            looked_at = await trio.to_thread.run_sync(verified, arrived)
        except Exception as error:
            raise internal(error) from error
        calls = [_errand_of(some) for some in turns_of(looked_at)]
        await self._execute_call(*calls)
        answers: list[Ingested] = [call.answer for call in calls]
        ours = sum(answer.ours for answer in answers)
        if ours:
            log.warning("%d facts on the branch are attributed to this daemon, but were not in its journal", ours)
            self._claimed += ours
        return Ingested(sum(answer.new for answer in answers), sum(answer.quarantined for answer in answers), ours)

    async def remember(self, values: Mapping[str, str], copies: Sequence[Found] = ()) -> None:
        """Keep values of the sync beside the projection, and append copies of lines whose facts have their numbers:
        both or neither. Raises StoreFailed, Busy, ShuttingDown.
        """
        await self._execute_call(Errand(partial(Writer.keep, values=values, copies=copies)))

    async def count_quarantined(self, surplus: Sequence[tuple[str, str, int, int]]) -> None:
        """Count what is not even looked at here: a journal, a reason, lines, bytes. Raises StoreFailed, Busy,
        ShuttingDown.
        """
        await self._execute_call(Errand(partial(Writer.count_quarantined, surplus=surplus)))

    async def close_before(self) -> None:
        """See `Writer.close_before`. Raises StoreFailed, Busy, ShuttingDown."""
        errand = Errand(Writer.close_before)
        errand.heavy = True
        await self._execute_call(errand)

    async def compact(self, drafts: Sequence[Draft]) -> int:
        """Put rewritten journals in place, between two batches; how many bytes went. The drafts are gone
        afterwards, whatever happens. Raises StoreFailed, Busy, ShuttingDown.
        """
        try:
            call = Alone(partial(Writer.compact, drafts=drafts))
            await self._execute_call(call)
        finally:
            discard(drafts)
        return call.answer

    async def release_due_facts(self) -> int:
        """Apply what waited for its day and is due; how many. Raises StoreFailed, Busy, ShuttingDown."""
        call = Errand(Writer.release_due_facts)
        try:
            await self._execute_call(call)
        except StoreFailed as error:
            self._note_cause(error)
            raise
        due = [Committed(*entry) for entry in call.answer]
        if due and self.on_release is not None:
            self.on_release(due)
        return len(due)

    async def _execute_call(self, *calls: Call) -> None:
        """Have calls executed, one after the other. Raises the error of the first that failed."""
        if self._closing:
            raise _stopping()
        if len(self._queue) >= limits.committer_waiting_max:
            raise _busy()
        waiting = [_Waiting(call) for call in calls]
        self._queue.extend(waiting)
        self._wake.set()
        try:
            for each in waiting:
                with trio.move_on_after(limits.committer_wait_seconds) as scope:
                    await each.done.wait()
                if scope.cancelled_caught:
                    if not each.begun:
                        raise _busy()
                    await each.done.wait()
                if each.call.error is not None:
                    raise each.call.error
        finally:
            # A caller that gave up before its call was begun has changed nothing.
            for each in waiting:
                each.withdrawn = not each.begun

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
                            if isinstance(self._queue[0].call, Alone):
                                await self._run_alone(flusher)
                            else:
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
            await self._decide(batch, flusher)
            if self._writer.has_work:
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
            # A bug. Waiting callers must hear of it, and the next batch may well succeed.
            log.exception("a batch failed")
            self._writer.rollback()
            self._fail(batch, StoreFailed(f"could not write: {error!r}"))
            return
        self._facts += len(committed)
        if self._writer.superseded:
            self.request_reopen()
        for each in batch:
            self._finish(each, each.call.error)
        if committed and self.on_commit is not None:
            try:
                self.on_commit(committed)
            except Exception:
                # The facts are on disk; a listener that missed them finds them in the store.
                log.exception("a listener failed on facts %d to %d", committed[0].seq, committed[-1].seq)
        released = [Committed(*entry) for entry in self._writer.released]
        if released and self.on_release is not None:
            self.on_release(released)

    async def _run_alone(self, flusher: Flusher) -> None:
        """Execute one call that is a transaction of its own."""
        waiting = self._queue.popleft()
        if waiting.withdrawn:
            return
        call = waiting.call
        assert isinstance(call, Alone)
        waiting.begun = True
        try:
            call.answer = await flusher.run(partial(call.work, self._writer))
        except StoreFailed as error:
            log.error("%s", error.message)
            self._note_cause(error)
            self._finish(waiting, error)
        except Exception as error:
            self._finish(waiting, internal(error))
        else:
            if self._writer.superseded:
                self.request_reopen()
            self._finish(waiting, None)

    async def _decide(self, batch: list[_Waiting], flusher: Flusher) -> None:
        pause_at = trio.current_time() + _SLICE_SECONDS
        while self._queue and not self._writer.is_full and not isinstance(self._queue[0].call, Alone):
            waiting = self._queue.popleft()
            if waiting.withdrawn:
                continue
            waiting.begun = True
            batch.append(waiting)
            if waiting.call.heavy:
                await flusher.run(partial(self._writer.execute, waiting.call))
                continue
            self._writer.execute(waiting.call)
            if trio.current_time() >= pause_at:
                await trio.lowlevel.cancel_shielded_checkpoint()
                pause_at = trio.current_time() + _SLICE_SECONDS

    def _fail(self, batch: list[_Waiting], error: StoreFailed) -> None:
        """Every call of the batch gets the error; if none was begun, the one at the head does, so that no call waits
        forever."""
        self._failed += 1
        if not batch:
            batch = [self._queue.popleft()]
        if self._degraded != error.message:
            log.error("nothing can be written: %s", error.message)
        self._degraded = error.message
        self._note_cause(error)
        for each in batch:
            failed = StoreFailed(error.message, remedy=error.remedy, **error.details)
            failed.__cause__ = error  # behind it may lie a lack of open files, which passes
            self._finish(each, failed)

    def _note_cause(self, error: StoreFailed) -> None:
        if "cause" in error.details:
            self.request_reopen(str(error.details["cause"]))

    def _finish(self, waiting: _Waiting, error: Exception | None) -> None:
        self._calls += 1
        waiting.begun = True
        waiting.call.error = error
        waiting.done.set()


def _errand_of(arrived: Sequence[Verified]) -> Errand:
    """What sweeps away many rows, or makes many (a stranger may name 600,000 recipients), is not done on the loop."""
    errand = Errand(partial(Writer.ingest, arrived=arrived))
    errand.heavy = any(len(raw) > _HEAVY_BYTES or any(type_ in raw for type_ in _HEAVY_TYPES) for _, raw, _ in arrived)
    return errand


def _busy() -> Busy:
    return Busy("the daemon is busy", retry_after_ms=_RETRY_AFTER_MS)


def _stopping() -> ShuttingDown:
    return ShuttingDown("the daemon is stopping", retry_after_ms=_RETRY_AFTER_MS)
