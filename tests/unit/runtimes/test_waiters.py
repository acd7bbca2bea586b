"""Waiters: one for each process of a runtime, used up by a wake, and an answer counts once it was taken."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from thrum.model.errors import ShuttingDown
from thrum.model.wake_types import Failed, Process
from thrum.runtimes.waiters import Waiter, Waiters

ONE: Process = (100, "boot/1")
OTHER: Process = (200, "boot/2")


async def _sleep(waiters: Waiters, process: Process, woken: list[Waiter | None]) -> None:
    woken.append(await waiters.wait(process))


async def test_a_waiter_gets_its_answer_and_is_used_up(nursery: trio.Nursery) -> None:
    changes: list[Process] = []
    waiters = Waiters(changes.append)
    woken: list[Waiter | None] = []
    nursery.start_soon(_sleep, waiters, ONE, woken)
    await wait_all_tasks_blocked()
    assert waiters.has(ONE)
    assert not waiters.has(OTHER)
    outcome: list[object] = []

    async def hand() -> None:
        outcome.append(await waiters.hand(ONE, "mail"))

    nursery.start_soon(hand)
    await wait_all_tasks_blocked()
    assert woken[0] is not None
    assert woken[0].text == "mail"
    assert not outcome  # it has the answer only when it says so
    assert not waiters.has(ONE)
    woken[0].taken()
    await wait_all_tasks_blocked()
    assert outcome == ["offered"]
    assert changes == [ONE, ONE]


async def test_an_answer_that_is_lost_was_not_said(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    woken: list[Waiter | None] = []
    nursery.start_soon(_sleep, waiters, ONE, woken)
    await wait_all_tasks_blocked()
    outcome: list[object] = []

    async def hand() -> None:
        outcome.append(await waiters.hand(ONE, "mail"))

    nursery.start_soon(hand)
    await wait_all_tasks_blocked()
    assert woken[0] is not None
    woken[0].lost()
    await wait_all_tasks_blocked()
    assert isinstance(outcome[0], Failed)


async def test_where_no_waiter_sleeps_nothing_is_said() -> None:
    waiters = Waiters()
    assert isinstance(await waiters.hand(ONE, "mail"), Failed)
    assert isinstance(await waiters.hand(None, "mail"), Failed)


async def test_of_one_process_only_one_sleeps(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    woken: list[Waiter | None] = []
    nursery.start_soon(_sleep, waiters, ONE, woken)
    await wait_all_tasks_blocked()
    assert await waiters.wait(ONE) is None
    assert waiters.has(ONE)
    nursery.start_soon(_sleep, waiters, OTHER, woken)
    await wait_all_tasks_blocked()
    assert waiters.has(OTHER)
    nursery.cancel_scope.cancel()


async def test_a_waiter_whose_connection_ends_while_it_is_given_its_answer_was_told_nothing() -> None:
    waiters = Waiters()
    outcome: list[object] = []

    async def hand() -> None:
        outcome.append(await waiters.hand(ONE, "mail"))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(waiters.wait, ONE)
                await wait_all_tasks_blocked()
                scope.cancel()
                nursery.start_soon(hand)
    assert isinstance(outcome[0], Failed)
    assert waiters.is_empty


async def test_a_process_that_ends_takes_its_waiter_along_in_silence(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    woken: list[Waiter | None] = []
    nursery.start_soon(_sleep, waiters, ONE, woken)
    await wait_all_tasks_blocked()
    waiters.dismiss(ONE)
    waiters.dismiss(OTHER)
    await wait_all_tasks_blocked()
    assert woken[0] is not None
    assert woken[0].text == ""
    assert waiters.is_empty


async def test_a_daemon_that_stops_says_so_to_each_and_to_those_that_come() -> None:
    waiters = Waiters()
    refused: list[type[Exception]] = []

    async def sleep() -> None:
        try:
            await waiters.wait(ONE)
        except ShuttingDown as error:
            refused.append(type(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleep)
        await wait_all_tasks_blocked()
        waiters.close()
    assert refused == [ShuttingDown]
    with pytest.raises(ShuttingDown):
        await waiters.wait(OTHER)


async def test_one_that_never_says_whether_it_has_the_answer_counts_as_told(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    waiters = Waiters()
    woken: list[Waiter | None] = []
    nursery.start_soon(_sleep, waiters, ONE, woken)
    await wait_all_tasks_blocked()
    assert await waiters.hand(ONE, "mail") == "offered"  # better unseen than told twice
