"""`message.wait`: agents asleep in the daemon, woken by the commit. Nothing is delivered twice or missed between waits.

Every agent has a wait queue: its waiters in order of arrival, and the ids of messages that were handed to one of them
and are not yet known to have arrived. A message ends one wait that it fits: first come those below the agent's
live process, then the newest, for an older one may have been left by a session that is gone. If that answer cannot be
delivered, the next one gets it. Source: rpc.md §7.

Existing messages are scanned once, when a wait begins; after that only new ones are looked at. Both in bounded steps,
one per turn of the event loop, however long the inbox is and however many wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from thrum.identity.evidence import Failed
from thrum.model import clock, limits
from thrum.model.errors import AgentNotRegistered, BadTime, Busy, InvalidParams, ShuttingDown
from thrum.model.events import AgentAliased, AnyFact, MessageCreated, MessageReceipt, WakeAttempted
from thrum.model.methods.messages import WaitParams, WaitResult
from thrum.model.wire_types import Message
from thrum.ops.context import Call, Context, caller_id, evidence_of
from thrum.ops.liveness import owner_alive
from thrum.ops.reading import check_seq
from thrum.ops.sessions import ensure_session
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View, Wanted

Found = tuple[Sequence[Message], int]
Living = tuple[int, str]
"""A process: its pid, and what tells it from others of that pid."""

_A_TURN: Final = 500
"""What `WaitQueues.serve` does in one turn of the loop: messages looked at, with `_A_LOOK` for each look at some."""
_A_LOOK: Final = 20


class _Everything:
    def __contains__(self, _message_id: object) -> bool:
        return True


_ALL: Final = _Everything()
_SAID_NOTHING: Final = frozenset({"expired", "failed", "refused", "revoked"})
"""Outcomes of attempts after which their messages may go to others."""


@dataclass(slots=True, eq=False)
class _Waiter:
    view: View
    wanted: Wanted
    limit: int
    above: Collection[Living | None] = ()
    """The processes that it is below, itself among them."""
    owner: Callable[[], Living | None] = lambda: None
    """The agent's live process, looked up each time."""
    looks_back: bool = True
    """Whether it still goes through what was there before; then `missed` is what came meanwhile."""
    missed: set[str] = field(default_factory=set[str])
    woken: trio.Event = field(default_factory=trio.Event)
    found: Found | None = None
    failure: Exception | None = None
    stopped: bool = False
    now_ms: Callable[[], int] = lambda: 0

    def wanted_now(self) -> Wanted:
        """What it waits for, as of this moment."""
        return msgspec.structs.replace(self.wanted, at=clock.format_ms(self.now_ms()))

    @property
    def takes_turns(self) -> bool:
        """Whether a message handed to this waiter is held back from the others (`since = unseen`)."""
        return self.wanted.unseen


@dataclass(slots=True)
class _WaitQueue:
    waiters: list[_Waiter] = field(default_factory=list[_Waiter])
    handed_out: set[str] = field(default_factory=set[str])
    fresh: set[str] = field(default_factory=set[str])
    """Messages that came, or that are no longer held back, and were not offered to any waiter yet."""

    @property
    def awaits_an_answer(self) -> bool:
        """Whether somebody waits for what is told although it is quiet."""
        return any(waiter.wanted.reply_to for waiter in self.waiters)


class WaitQueues:
    """All who wait. Lives in the daemon's loop; `serve` runs beside it."""

    def __init__(self) -> None:
        self._wait_queues: dict[str, _WaitQueue] = {}
        self._count = 0
        self._closed = False
        self._called = trio.Event()
        self._to_serve: dict[str, None] = {}
        self._one_step = trio.Lock()
        self.served: Callable[[str], None] = lambda agent_id: None
        """Called when an agent's waiters were offered what came, or gave something back: the rest is for its doors."""
        self.reserved: Callable[[str], Collection[str]] = lambda agent_id: ()
        """What a door of the agent was given, and may have said: it is in no waiter's hand (wake.md §5)."""
        self.has_door: Callable[[str], bool] = lambda agent_id: False
        """Whether the agent has a door to its model: a wait that is not below its live process comes after it."""

    @property
    def is_empty(self) -> bool:
        """Whether there are no waiters and nothing is held back."""
        return not self._wait_queues

    def announce(self, facts: Iterable[AnyFact]) -> None:
        """Facts were committed: wake whom they reach."""
        for fact in facts:
            if isinstance(fact, MessageCreated):
                for agent_id in self._wait_queues.keys() & set(fact.recipients):
                    if not fact.quiet or self._wait_queues[agent_id].awaits_an_answer:
                        self._offer_later(agent_id, (fact.message_id,))
            elif isinstance(fact, WakeAttempted) and fact.outcome in _SAID_NOTHING:
                if fact.agent_id in self._wait_queues:
                    self._offer_later(fact.agent_id, fact.message_ids)
            elif isinstance(fact, AgentAliased) and fact.agent_id in self._wait_queues:
                self._offer_later(fact.agent_id, fact.stored)

    def dismiss(self, agent_id: str, why: str) -> None:
        """No agent has that name any more: tell those that wait under it."""
        wait_queue = self._wait_queues.get(agent_id)
        for waiter in wait_queue.waiters if wait_queue is not None else ():
            if not waiter.woken.is_set():
                waiter.failure = AgentNotRegistered(why, remedy="wait again under that name")
                waiter.woken.set()

    def close(self) -> None:
        """The daemon stops: every wait ends with ShuttingDown."""
        self._closed = True
        for wait_queue in self._wait_queues.values():
            for waiter in wait_queue.waiters:
                waiter.stopped = True
                waiter.woken.set()

    async def wait(self, agent_id: str, waiter: _Waiter, timeout_seconds: float) -> Found | None:
        """What the waiter found, or None after the timeout. What was found is handed out until `settle`."""
        if self._closed:
            raise _stopping()
        if self._count >= limits.long_polls_max:
            raise Busy("the daemon is busy: too many waits", retry_after_ms=1000)
        deadline = trio.current_time() + timeout_seconds
        wait_queue = self._wait_queues.setdefault(agent_id, _WaitQueue())
        wait_queue.waiters.append(waiter)
        self._count += 1
        try:
            await self._look_back(wait_queue, waiter)
            with trio.move_on_at(deadline):
                await waiter.woken.wait()
            if waiter.failure is not None:
                raise waiter.failure
            if waiter.stopped:
                raise _stopping()
            return waiter.found
        except trio.Cancelled:
            if waiter.found is not None:
                self._put_back(agent_id, waiter.found[0])
            raise
        finally:
            self._count -= 1
            waiter.woken.set()  # the queue skips it from now on
            wait_queue.waiters.remove(waiter)
            self._leave(agent_id)

    def settle(self, agent_id: str, messages: Sequence[Message]) -> None:
        """An answer arrived and is marked, or was lost: its messages are no longer held back."""
        self._put_back(agent_id, messages)
        self._leave(agent_id)

    async def serve(self) -> None:
        """Offer what comes to those who wait, for as long as this runs: a bounded number of looks a turn."""
        done = 0
        while True:
            await self._called.wait()
            self._called = trio.Event()
            while self._to_serve:
                agent_id = next(iter(self._to_serve))
                del self._to_serve[agent_id]
                if (wait_queue := self._wait_queues.get(agent_id)) is None:
                    self.served(agent_id)
                    continue
                fresh, wait_queue.fresh = wait_queue.fresh, set()
                for waiter in _in_turn(wait_queue.waiters):
                    if waiter.looks_back:
                        waiter.missed |= fresh
                    elif not waiter.woken.is_set():
                        done += _A_LOOK + len(fresh)
                        self._offer(wait_queue, waiter, fresh, len(fresh))
                        if done >= _A_TURN or waiter.found is not None:
                            done = 0
                            await trio.lowlevel.checkpoint()
                self._leave(agent_id)
                self.served(agent_id)

    def _offer_later(self, agent_id: str, message_ids: Iterable[str]) -> None:
        wait_queue = self._wait_queues[agent_id]
        wait_queue.fresh.update(message_ids)
        self._to_serve[agent_id] = None
        self._called.set()

    def held_back(self, agent_id: str) -> Collection[str]:
        """What is in a waiter's hand, or will be offered to those that wait before anything else happens."""
        wait_queue = self._wait_queues.get(agent_id)
        return () if wait_queue is None else wait_queue.handed_out | (wait_queue.fresh if wait_queue.waiters else set())

    def _held_back(self, wait_queue: _WaitQueue, waiter: _Waiter) -> Container[str]:
        if not waiter.takes_turns:
            return ()
        agent_id = waiter.wanted.agent_id
        if self.has_door(agent_id) and waiter.owner() not in waiter.above:
            return _ALL
        return wait_queue.handed_out.union(self.reserved(agent_id))

    def _put_back(self, agent_id: str, messages: Sequence[Message]) -> None:
        wait_queue = self._wait_queues.get(agent_id)
        if wait_queue is not None:
            released = {message.message_id for message in messages}
            wait_queue.handed_out -= released
            self._offer_later(agent_id, released)

    def _leave(self, agent_id: str) -> None:
        wait_queue = self._wait_queues.get(agent_id)
        if wait_queue is not None and not wait_queue.waiters and not wait_queue.handed_out:
            del self._wait_queues[agent_id]

    async def _look_back(self, wait_queue: _WaitQueue, waiter: _Waiter) -> None:
        """Offer the waiter what was there before it came."""
        try:
            while not waiter.woken.is_set():
                found, count = await self._gather(wait_queue, waiter)
                waiter.missed.update(message_id for _, message_id in found)
                missed, waiter.missed = waiter.missed, set()
                self._offer(wait_queue, waiter, missed, count + len(missed) - len(found))
                if count == len(found):
                    break
                # There was more than was kept, and others were handed all of that meanwhile.
        finally:
            waiter.looks_back = False

    async def _gather(self, wait_queue: _WaitQueue, waiter: _Waiter) -> tuple[Sequence[tuple[int, str]], int]:
        """The first messages that fit and are not held back, enough for one answer, and how many there are in all."""
        kept: list[tuple[int, str]] = []
        count = 0
        steps = waiter.view.matching_steps(waiter.wanted_now())
        while not waiter.woken.is_set():
            async with self._one_step:
                step = next(steps, None)
                await trio.lowlevel.checkpoint()
            if step is None:
                break
            held_back = self._held_back(wait_queue, waiter)
            step = [entry for entry in step if entry[1] not in held_back]
            count += len(step)
            kept = heapq.nsmallest(2 * limits.wait_limit_max, [*kept, *step])
        return kept, count

    def _offer(self, wait_queue: _WaitQueue, waiter: _Waiter, message_ids: Collection[str], count: int) -> None:
        """Let one waiter look at some messages, of `count`. A look that fails is its waiter's alone."""
        held_back = self._held_back(wait_queue, waiter)
        ids = [message_id for message_id in message_ids if message_id not in held_back]
        if not ids or waiter.woken.is_set():
            return
        try:
            fitting = [message_id for _, message_id in waiter.view.matching_among(waiter.wanted_now(), ids)]
            messages = waiter.view.messages_that_fit(waiter.wanted.agent_id, fitting[: waiter.limit]) if fitting else []
        except Exception as error:
            waiter.failure = error
            waiter.woken.set()
            return
        if messages:
            # What did not fit any more is not left over either.
            waiter.found = messages, max(0, count - (len(message_ids) - len(fitting)) - len(messages))
            if waiter.takes_turns:
                wait_queue.handed_out.update(message.message_id for message in messages)
            waiter.woken.set()


def _in_turn(waiters: Sequence[_Waiter]) -> Sequence[_Waiter]:
    """In the order in which a message is offered: below the agent's live process first, then the newest."""
    owner = waiters[0].owner() if len(waiters) > 1 else None
    newest_first = waiters[::-1]
    return sorted(newest_first, key=lambda waiter: owner not in waiter.above)


def _stopping() -> ShuttingDown:
    return ShuttingDown("the daemon is stopping", retry_after_ms=500)


async def wait(ctx: Context, wait_queues: WaitQueues, call: Call, params: WaitParams) -> WaitResult:
    """Sleep until a message comes that wakes the caller: any that is addressed to it but quiet ones (an answer
    that is waited for may be quiet), and those that were replaced or have expired.
    """
    agent_id = caller_id(call)
    if not 0 <= params.timeout_ms <= limits.wait_max_ms:
        raise InvalidParams(f"timeout_ms must be 0 to {limits.wait_max_ms}", remedy="wait again", field="timeout_ms")
    if not 1 <= params.limit <= limits.wait_limit_max:
        raise InvalidParams(f"limit must be 1 to {limits.wait_limit_max}", remedy="ask for fewer", field="limit")
    wanted = _wanted(ctx.view, agent_id, params)
    waiter = _Waiter(
        ctx.view,
        wanted,
        params.limit,
        _above(call),
        lambda: _live_process(ctx, agent_id),
        now_ms=ctx.clock.now_ms,
    )
    found = await wait_queues.wait(agent_id, waiter, params.timeout_ms / 1000)
    messages, remaining = found or ((), 0)
    if messages:
        _mark_when_delivered(ctx, wait_queues, call, agent_id, messages, params)
    return WaitResult(
        status="received" if messages else "timeout",
        messages=tuple(messages),
        next_seq=messages[-1].seq if messages else ctx.view.head_seq(),
        epoch=ctx.view.epoch,
        remaining=remaining,
    )


def _above(call: Call) -> Collection[Living]:
    """The caller's processes, as the kernel told them when it connected; none where it does not tell."""
    try:
        return frozenset((each.pid, each.started) for each in evidence_of(call).chain())
    except Failed:
        return ()


def _live_process(ctx: Context, agent_id: str) -> Living | None:
    row = ctx.view.agent(agent_id)
    if row is None or not owner_alive(row, ctx.processes, ctx.runtime_names()):
        return None
    seen = ctx.processes.read(row.agent_pid)
    return None if seen is None else (seen.pid, seen.started)


def _wanted(view: View, agent_id: str, params: WaitParams) -> Wanted:
    unseen = params.since == "unseen"
    after_seq, created_after = (None, "") if unseen else _since(view, params.since)
    return Wanted(
        agent_id=agent_id,
        unseen=unseen,
        after_seq=after_seq,
        created_after=created_after,
        scope=params.scope,
        addressed_to=params.mention_role,
        author_id=params.author_id,
        reply_to=params.reply_to,
    )


def _since(view: View, since: int | str) -> tuple[int | None, str]:
    if since == "now":
        return view.head_seq(), ""
    if isinstance(since, int):
        check_seq(since, "since")
        return since, ""
    try:
        return None, clock.normalise(since)
    except ValueError as error:
        raise BadTime(f'bad time "{since}" for since', remedy="unseen, now, a seq, or RFC 3339") from error


def _mark_when_delivered(
    ctx: Context, wait_queues: WaitQueues, call: Call, agent_id: str, messages: Sequence[Message], params: WaitParams
) -> None:
    """Receipts are written once the answer was handed over; a lost answer's messages go to the next waiter."""

    async def mark() -> None:
        try:
            if params.mark != "none":
                await ctx.journal.commit(_receipts(agent_id, messages, params.mark))
        finally:
            wait_queues.settle(agent_id, messages)

    call.when_delivered(mark, lambda: wait_queues.settle(agent_id, messages))


def _receipts(agent_id: str, messages: Sequence[Message], state: str) -> Callable[[View, Stamp], Decision[None]]:
    def decide(view: View, stamp: Stamp) -> Decision[None]:
        marked = view.markable(agent_id, [message.message_id for message in messages], state)
        facts: list[AnyFact] = []
        if marked:
            session_id, facts = ensure_session(view, stamp, agent_id)
            facts += [
                stamp.make(
                    MessageReceipt,
                    message_id=message_id,
                    agent_id=agent_id,
                    session_id=session_id,
                    receipt_type=state,
                )
                for message_id in marked
            ]
        return Decision(facts, lambda _view, _seqs: None)

    return decide
