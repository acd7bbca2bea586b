"""A call that is cancelled at any of its awaits leaves everything whole (rpc.md §7, events.md §11, §12)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
import trio.testing

from tests.support.daemon.in_process import Agent, Daemon, open_daemon
from thrum.model.methods.messages import MESSAGE_SEND, MESSAGE_WAIT
from thrum.rpc.direct import open_direct
from thrum.store.api import Decision

STEPS_MAX = 60
NOTHING: Decision[None] = Decision([], lambda _view, _seqs: None)

Mode = Literal["before", "after", "writer"]
"""When to cancel: as a step of the call's task is due, so that the cancellation meets what it awaits next; when a step
is over, so that what it awaits now is aborted; when a step of the committer is over, in the middle of its batch."""


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope around the n-th step of a task."""

    def __init__(self, step: int, mode: Mode) -> None:
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self._steps = 0
        self._step = step
        self._mode = mode

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._mode == "before" and task is self.task:
            self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is None or self._mode == "before":
            return
        if task is self.task if self._mode == "after" else task.name.endswith("serve_commits"):
            self._count()

    def _count(self) -> None:
        self._steps += 1
        if self._steps == self._step:
            self.scope.cancel()


async def cancelled_at(step: int, mode: Mode, body: Callable[[], Awaitable[None]]) -> bool:
    """Carry `body` out and cancel it there; whether it was still running then."""
    instrument = CancelAtStep(step, mode)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            instrument.task = trio.lowlevel.current_task()
            await body()
        instrument.task = None
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return instrument.scope.cancel_called


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncGenerator[tuple[Daemon, Agent, Agent]]:
    async with open_daemon(tmp_path) as daemon:
        yield daemon, await daemon.registered("furiosa"), await daemon.registered("nux")


async def cancelled_at_every_step(round_: Callable[[int, Mode], Awaitable[bool]]) -> int:
    """Execute rounds with the cancellation a step later each, until one ends before its step. How many there were."""
    rounds = 0
    modes: tuple[Mode, ...] = ("before", "after", "writer")
    for mode in modes:
        for step in range(1, STEPS_MAX):
            rounds += 1
            if not await round_(step, mode):
                break
        else:
            raise AssertionError("more steps than the test knows of")
    return rounds


async def quiet(daemon: Daemon) -> None:
    """Until all that was handed over is done, with nothing left of it in anyone's hands."""
    await daemon.ctx.journal.commit(lambda _view, _stamp: NOTHING)
    assert not daemon.dispatcher.drain._polls
    assert daemon.parts.wait_queues.is_empty, "someone still waits, or holds messages back"
    assert daemon.parts.committer.statistics().waiting == 0


async def test_a_send_that_is_cancelled_anywhere_is_stored_whole_or_not_and_its_key_makes_it_once(
    tmp_path: Path,
) -> None:
    stored_anyway = 0
    async with both(tmp_path) as (daemon, furiosa, nux):

        async def round_(step: int, mode: Mode) -> bool:
            nonlocal stored_anyway
            text = f"{mode} {step}"
            params: dict[str, Any] = {"content": text, "to": ["nux"], "client_key": f"key.{mode}.{step}"}
            done: list[Any] = []

            async def send() -> None:
                async with open_direct(daemon.dispatcher, furiosa.connection) as client:
                    done.append(await client.call(MESSAGE_SEND, params))
                    await client.delivered()

            reached = await cancelled_at(step, mode, send)
            await quiet(daemon)
            page = await nux("message.list", for_agent="nux", page_size=5)
            found = [message for message in page.messages if message.body.content == text]
            assert len(found) <= 1 and (found or not done), "answered before it was stored"
            stored_anyway += bool(found) and not done
            again = await furiosa("message.send", **params)
            assert again.replayed == bool(found)
            told = await nux("message.wait", timeout_ms=0)
            assert [message.message_id for message in told.messages] == [again.message_id]
            return reached

        rounds = await cancelled_at_every_step(round_)
        assert stored_anyway, "no cancellation came between the hand-over and the answer"
    async with open_daemon(tmp_path) as daemon:
        assert (await daemon.as_agent("nux")("message.list", for_agent="nux")).total == rounds


async def told_to(daemon: Daemon, nux: Agent, told: list[str], mark: str) -> None:
    """A wait as a command makes it: what it was told goes out, then counts as seen."""
    async with open_direct(daemon.dispatcher, nux.connection) as client:
        result = await client.call(MESSAGE_WAIT, {"timeout_ms": 60_000, "mark": mark})
        await trio.lowlevel.checkpoint()  # the output goes out
        told += [message.body.content for message in result.messages]
        await client.delivered()


@pytest.mark.parametrize("when", ["there before", "comes meanwhile"])
@pytest.mark.parametrize("mark", ["seen", "read"])
async def test_a_wait_that_is_cancelled_anywhere_neither_loses_nor_doubles_a_message(
    tmp_path: Path, when: str, mark: str
) -> None:
    told_later = 0
    async with both(tmp_path) as (daemon, furiosa, nux):

        async def round_(step: int, mode: Mode) -> bool:
            nonlocal told_later
            text = f"{mode} {step}"
            told: list[str] = []

            async def come() -> None:
                await furiosa("message.send", content=text, to=["nux"])

            async def wait() -> None:
                await told_to(daemon, nux, told, mark)

            if when == "there before":
                await come()
                reached = await cancelled_at(step, mode, wait)
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(come)
                    reached = await cancelled_at(step, mode, wait)
            await quiet(daemon)
            rest = await nux("message.wait", timeout_ms=0, mark=mark)
            told_later += len(rest.messages)
            assert told + [message.body.content for message in rest.messages] == [text], (mode, step)
            return reached

        await cancelled_at_every_step(round_)
        assert told_later, "no cancellation came before the delivery"


async def test_a_cancelled_wait_hands_its_message_to_the_wait_behind_it(tmp_path: Path) -> None:
    async with both(tmp_path) as (daemon, furiosa, nux):

        async def round_(step: int, mode: Mode) -> bool:
            text = f"{mode} {step}"
            told: list[str] = []

            async def wait() -> None:
                await told_to(daemon, nux, told, "seen")

            async def be_behind(nursery: trio.Nursery) -> None:
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await furiosa("message.send", content=text, to=["nux"])
                await trio.testing.wait_all_tasks_blocked(0.001)
                nursery.cancel_scope.cancel()

            reached = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(be_behind, nursery)
                reached = await cancelled_at(step, mode, wait)
                await trio.sleep_forever()
            await quiet(daemon)
            assert told == [text], (mode, step)
            return reached

        await cancelled_at_every_step(round_)
