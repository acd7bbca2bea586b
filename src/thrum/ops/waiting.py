"""`message.wait`: agents asleep in the daemon, woken by the commit. Nothing is told twice, nothing slips between waits.

Every agent has a desk: its waiters in the order in which they came, and the ids of messages that were handed to one of
them and are not yet known to have arrived. A message ends one wait, the longest waiting one that it fits; if that
answer cannot be delivered, the next one gets it. Source: rpc.md §7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from thrum import clock, limits
from thrum.api import Message, WaitParams, WaitResult
from thrum.errors import BadTime, Busy, InvalidParams, ShuttingDown
from thrum.events import AnyFact, MessageCreated, MessageReceipt
from thrum.ops.house import Call, House, agent_of
from thrum.ops.reading import check_seq
from thrum.ops.sessions import ensure_session
from thrum.store.door import Decision, Stamp
from thrum.store.views import View

Found = tuple[Sequence[Message], int]


@dataclass(slots=True, eq=False)
class _Waiter:
    look: Callable[[set[str]], Found]
    takes_turns: bool
    """Whether a message handed to this waiter is held back from the others (`since = unseen`)."""
    woken: trio.Event = field(default_factory=trio.Event)
    found: Found | None = None
    failure: Exception | None = None
    stopped: bool = False


@dataclass(slots=True)
class _Desk:
    waiters: list[_Waiter] = field(default_factory=list[_Waiter])
    handed_out: set[str] = field(default_factory=set[str])


class Desks:
    """All who wait. Lives in the daemon's loop: no method blocks."""

    def __init__(self) -> None:
        self._desks: dict[str, _Desk] = {}
        self._count = 0
        self._closed = False

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits and nothing is held back."""
        return not self._desks

    def announce(self, facts: Iterable[AnyFact]) -> None:
        """Facts were committed: wake whom they reach."""
        for agent_id in {agent_id for fact in facts for agent_id in _reached(fact)} & self._desks.keys():
            self._serve(agent_id)

    def close(self) -> None:
        """The daemon stops: every wait ends with ShuttingDown."""
        self._closed = True
        for desk in self._desks.values():
            for waiter in desk.waiters:
                waiter.stopped = True
                waiter.woken.set()

    async def wait(self, agent_id: str, waiter: _Waiter, timeout_seconds: float) -> Found | None:
        """What the waiter found, or None after the timeout. What was found is handed out until `settle`."""
        if self._closed:
            raise _stopping()
        if self._count >= limits.long_polls_max:
            raise Busy("the daemon is busy: too many waits", retry_after_ms=1000)
        desk = self._desks.setdefault(agent_id, _Desk())
        desk.waiters.append(waiter)
        self._count += 1
        try:
            self._serve(agent_id)
            with trio.move_on_after(timeout_seconds):
                await waiter.woken.wait()
            if waiter.failure is not None:
                raise waiter.failure
            if waiter.stopped:
                raise _stopping()
            return waiter.found
        except trio.Cancelled:
            if waiter.found is not None:
                desk.handed_out.difference_update(message.message_id for message in waiter.found[0])
            raise
        finally:
            self._count -= 1
            desk.waiters.remove(waiter)
            self._serve(agent_id)

    def settle(self, agent_id: str, messages: Sequence[Message]) -> None:
        """An answer arrived and is marked, or was lost: its messages are no longer held back."""
        desk = self._desks.get(agent_id)
        if desk is not None:
            desk.handed_out.difference_update(message.message_id for message in messages)
            self._serve(agent_id)

    def _serve(self, agent_id: str) -> None:
        desk = self._desks.get(agent_id)
        if desk is None:
            return
        for waiter in desk.waiters:
            if not waiter.woken.is_set():
                self._offer(desk, waiter)
        if not desk.waiters and not desk.handed_out:
            self._desks.pop(agent_id, None)

    @staticmethod
    def _offer(desk: _Desk, waiter: _Waiter) -> None:
        """Let one waiter look. A look that fails is its waiter's alone: the others are served."""
        try:
            found = waiter.look(desk.handed_out if waiter.takes_turns else set())
        except Exception as error:
            waiter.failure = error
            waiter.woken.set()
            return
        if found[0]:
            waiter.found = found
            if waiter.takes_turns:
                desk.handed_out.update(message.message_id for message in found[0])
            waiter.woken.set()


def _reached(fact: AnyFact) -> Sequence[str]:
    return fact.recipients if isinstance(fact, MessageCreated) and not fact.quiet else ()


def _stopping() -> ShuttingDown:
    return ShuttingDown("the daemon is stopping", retry_after_ms=500)


async def wait(house: House, desks: Desks, call: Call, params: WaitParams) -> WaitResult:
    """Sleep until a message comes that wakes the caller: any that is addressed to it but team posts."""
    agent_id = agent_of(call)
    if not 0 <= params.timeout_ms <= limits.wait_max_ms:
        raise InvalidParams(f"timeout_ms must be 0 to {limits.wait_max_ms}", remedy="wait again", field="timeout_ms")
    if not 1 <= params.limit <= limits.wait_limit_max:
        raise InvalidParams(f"limit must be 1 to {limits.wait_limit_max}", remedy="ask for fewer", field="limit")
    waiter = _Waiter(_look(house.view, agent_id, params), takes_turns=params.since == "unseen")
    found = await desks.wait(agent_id, waiter, params.timeout_ms / 1000)
    messages, remaining = found or ((), 0)
    if messages:
        _mark_when_delivered(house, desks, call, agent_id, messages, params)
    return WaitResult(
        status="received" if messages else "timeout",
        messages=tuple(messages),
        next_seq=messages[-1].seq if messages else house.view.head_seq(),
        epoch=house.view.epoch,
        remaining=remaining,
    )


def _look(view: View, agent_id: str, params: WaitParams) -> Callable[[set[str]], Found]:
    if params.since == "unseen":
        return lambda exclude: view.unseen(
            agent_id,
            scope=params.scope,
            mention_role=params.mention_role,
            author_id=params.author_id,
            limit=params.limit,
            exclude=exclude,
        )
    after_seq, created_after = _since(view, params.since)
    return lambda exclude: view.arrived(
        agent_id,
        after_seq=after_seq,
        created_after=created_after,
        scope=params.scope,
        mention_role=params.mention_role,
        author_id=params.author_id,
        limit=params.limit,
        exclude=exclude,
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
    house: House, desks: Desks, call: Call, agent_id: str, messages: Sequence[Message], params: WaitParams
) -> None:
    """Receipts are written once the answer was handed over; a lost answer's messages go to the next waiter."""

    async def mark() -> None:
        try:
            if params.mark != "none":
                await house.journal.commit(_receipts(agent_id, messages, params.mark))
        finally:
            desks.settle(agent_id, messages)

    call.when_delivered(mark, lambda: desks.settle(agent_id, messages))


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
