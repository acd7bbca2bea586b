"""How many requests begin in one turn of the loop (rpc.md §1), told by trio's own turns."""

from __future__ import annotations

import time
from collections import Counter

import pytest
import trio

from thrum.rpc._pace import Pace


class Turns(trio.abc.Instrument):
    """Counts them."""

    def __init__(self) -> None:
        self.number = 0

    def after_io_wait(self, timeout: float) -> None:
        self.number += 1


@pytest.mark.parametrize(("turn_seconds", "most"), [(0.0, 1), (0.01, 3)])
async def test_requests_that_come_at_once_begin_a_few_a_turn(turn_seconds: float, most: int) -> None:
    pace, turns = Pace(turn_seconds), Turns()
    begun: Counter[int] = Counter()
    trio.lowlevel.add_instrument(turns)

    async def request() -> None:
        await pace.wait()
        begun[turns.number] += 1
        time.sleep(0.005)  # noqa: ASYNC251  what it costs the loop

    try:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(request)
    finally:
        trio.lowlevel.remove_instrument(turns)
    assert begun.total() == 16
    assert max(begun.values()) <= most


async def test_a_turn_without_requests_is_not_told_of() -> None:
    pace = Pace()
    await pace.wait()
    await pace.wait()
    await trio.lowlevel.checkpoint()
    with pytest.raises(KeyError):
        trio.lowlevel.remove_instrument(pace)
    await pace.wait()
    pace.close()
    pace.close()
