"""The end of a turn as a door: open while its hook sleeps, and never twice in a row."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from thrum.model.wake_types import Failed, Process, Reachable
from thrum.runtimes import hooks
from thrum.runtimes.doors.turn_end import RESTS, WORKS, TurnEndDoor, TurnEnds
from thrum.runtimes.hooks import HookEvent

BOB: Process = (100, "boot/1")
AGENT = Reachable("bob", "idle", 0.0, BOB, "gemini", "s1")


def _end(**payload: object) -> HookEvent:
    return hooks.read("gemini", "AfterAgent", payload)


async def test_it_is_open_while_the_hook_sleeps_and_its_answer_counts_once_it_was_taken(nursery: trio.Nursery) -> None:
    ends = TurnEnds()
    door = TurnEndDoor("gemini.turn_end", ends)
    assert not door.state(AGENT).open
    end = ends.begin(BOB, _end())
    assert end is not None
    assert door.state(AGENT).open
    outcomes: list[object] = []

    async def offer() -> None:
        outcomes.append(await door.offer(AGENT, "mail"))

    nursery.start_soon(offer)
    assert (await ends.waiters.sleep(BOB, end)).text == "mail"
    await wait_all_tasks_blocked()
    assert outcomes == []
    end.taken()
    await wait_all_tasks_blocked()
    assert outcomes == ["offered"]
    assert not door.state(AGENT).open
    assert isinstance(await door.offer(AGENT, "more"), Failed)


async def test_a_turn_that_was_prolonged_ends_and_the_next_one_may_be_prolonged_again() -> None:
    ends = TurnEnds()
    first = ends.begin(BOB, _end())
    assert first is not None
    ends.prolong(BOB)
    ends.waiters.leave(BOB, first)
    assert ends.begin(BOB, _end()) is None
    assert ends.begin(BOB, _end()) is not None


async def test_what_the_program_says_is_over_stays_over() -> None:
    ends = TurnEnds()
    assert ends.begin(BOB, _end(stop_hook_active=True)) is None
    assert ends.begin(BOB, hooks.read("cursor", "stop", {"status": "aborted"})) is None
    assert ends.begin(BOB, hooks.read("cursor", "stop", {"status": "completed", "loop_count": 5})) is None
    assert ends.begin(BOB, hooks.read("claude", "Stop", {})) is None, "another door is Claude's"
    assert ends.begin(BOB, hooks.read("gemini", "AfterTool", {})) is None
    assert ends.begin(BOB, hooks.read("cursor", "stop", {"status": "completed", "loop_count": 1})) is not None


async def test_an_event_told_twice_is_answered_once() -> None:
    ends = TurnEnds()
    assert ends.begin(BOB, _end()) is not None
    assert ends.begin(BOB, _end()) is None


def test_why_it_is_not_open_says_when_it_will_be() -> None:
    door = TurnEndDoor("gemini.turn_end", TurnEnds())
    assert door.state(AGENT).why == RESTS
    assert door.state(Reachable("bob", "working", 0.0, BOB, "gemini")).why == WORKS
