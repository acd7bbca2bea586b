"""One suite for every door: what the loop relies on (thrum.wake.door). The judge is what the model was given.

A door joins by a rig in `RIGS`: an async context manager that yields one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import trio
import trio.testing

from tests.support.runtimes.codex_rig import codex_rig
from tests.support.wake.fake_door import FakeDoor
from tests.support.wake.rigs import socket_rig, typed_rig, waiter_rig
from thrum.model.attempt_ids import new_token, tokens_in
from thrum.model.wake_types import Failed, Reachable, Refused
from thrum.runtimes.doors.claude import WaiterDoor
from thrum.runtimes.doors.turn_end import TurnEndDoor, TurnEnds
from thrum.runtimes.waiters import Waiters
from thrum.wake.door import Door
from thrum.wake.text import Letter, batch, notice, with_token

SECONDS = 120


class DoorRig(Protocol):
    """A door, a runtime that it leads to, and what that runtime's model was given."""

    @property
    def door(self) -> Door: ...
    @property
    def agent(self) -> Reachable: ...

    async def heard(self, count: int) -> Sequence[str]:
        """Wait until the model was given so many texts, then give all that it has been given."""
        ...

    async def close(self) -> None:
        """From now on nobody listens at the door."""
        ...

    async def occupy(self) -> None:
        """From now on the moment is wrong (a draft, a dialog), or the door has no such moments: then raise Skipped."""
        ...

    async def stall(self) -> trio.Event:
        """The next offer says nothing as long as it is not cancelled; the event tells that it has begun."""
        ...


class _StallingDoor(FakeDoor):
    begun: trio.Event | None = None

    async def offer(self, agent: Reachable, text: str) -> Any:
        if self.begun is not None:
            begun, self.begun = self.begun, None
            begun.set()
            await trio.sleep_forever()
        return await super().offer(agent, text)


@dataclass
class FakeRig:
    agent: Reachable = field(default_factory=lambda: Reachable("bob", "idle", 0.0, (100, "start"), "claude", "s1"))
    texts: list[str] = field(default_factory=list[str])
    arrived: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.door = _StallingDoor(self.hear)

    def hear(self, agent: Reachable, text: str) -> None:
        self.texts.append(text)
        self.arrived.set()
        self.arrived = trio.Event()

    async def heard(self, count: int) -> Sequence[str]:
        with trio.fail_after(SECONDS):
            while len(self.texts) < count:
                await self.arrived.wait()
        await trio.testing.wait_all_tasks_blocked()
        return self.texts

    async def close(self) -> None:
        self.door.is_open = False

    async def occupy(self) -> None:
        self.door.answers.extend([Refused("a draft")] * 10)

    async def stall(self) -> trio.Event:
        self.door.begun = trio.Event()
        return self.door.begun


@asynccontextmanager
async def fake_rig() -> AsyncIterator[DoorRig]:
    yield FakeRig()


@dataclass
class WaiterRig:
    """Hooks that wait in a daemon: a new one sleeps as soon as one has handed over what it was given."""

    door: Door
    waiters: Waiters
    agent: Reachable
    texts: list[str] = field(default_factory=list[str])
    arrived: trio.Event = field(default_factory=trio.Event)
    is_open: bool = True

    async def serve(self) -> None:
        process = self.agent.process
        assert process is not None
        while self.is_open and (waiter := await self.waiters.wait(process)) is not None and waiter.text:
            self.texts.append(waiter.text)
            waiter.taken()
            self.arrived.set()
            self.arrived = trio.Event()

    async def heard(self, count: int) -> Sequence[str]:
        with trio.fail_after(SECONDS):
            while len(self.texts) < count:
                await self.arrived.wait()
        await trio.testing.wait_all_tasks_blocked()
        return self.texts

    async def close(self) -> None:
        assert self.agent.process is not None
        self.is_open = False
        self.waiters.dismiss(self.agent.process)
        await trio.testing.wait_all_tasks_blocked()

    async def occupy(self) -> None:
        pytest.skip("a hook that waits is never at the wrong moment")

    async def stall(self) -> trio.Event:
        pytest.skip("a hook that waits has the text at once")


@asynccontextmanager
async def _waiter_rig(door: Door, waiters: Waiters, runtime: str) -> AsyncIterator[DoorRig]:
    rig = WaiterRig(door, waiters, Reachable("bob", "idle", 0.0, (100, "start"), runtime, "s1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.serve)
        await trio.testing.wait_all_tasks_blocked()
        yield rig
        nursery.cancel_scope.cancel()


def opencode_rig() -> AbstractAsyncContextManager[DoorRig]:
    waiters = Waiters()
    return _waiter_rig(WaiterDoor(waiters, "opencode.waiter"), waiters, "opencode")


def gemini_rig() -> AbstractAsyncContextManager[DoorRig]:
    ends = TurnEnds()
    return _waiter_rig(TurnEndDoor("gemini.turn_end", ends), ends.waiters, "gemini")


RIGS: dict[str, Callable[[], AbstractAsyncContextManager[DoorRig]]] = {
    "fake": fake_rig,
    "claude.waiter": waiter_rig,
    "claude.socket": socket_rig,
    "typed": typed_rig,
    "codex.server": lambda: codex_rig("codex.server"),
    "codex.queue": lambda: codex_rig("codex.queue"),
    "opencode.waiter": opencode_rig,
    "gemini.turn_end": gemini_rig,
}


@pytest.fixture(params=sorted(RIGS))
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[DoorRig]:
    async with RIGS[request.param]() as made:
        yield made


def text_of(rig: DoorRig, *bodies: str) -> tuple[str, str]:
    """What a wake says by such a door, and its token."""
    token, one_line = new_token(), rig.door.state(rig.agent).one_line
    authors = [f"agent_with_a_long_name_{at}" if one_line else "alice" for at in range(len(bodies))]
    letters = [Letter(f"msg_01KGHF3N80{at:016}", authors[at], body) for at, body in enumerate(bodies)]
    return with_token((notice if one_line else batch)(letters)[1], token, one_line=one_line), token


async def test_its_state_is_its_own_and_leads_to_no_dialog_and_no_ended_runtime(rig: DoorRig) -> None:
    state = rig.door.state(rig.agent)
    assert state.name == rig.door.name and state.open
    assert not state.takes & {"dialog", "gone"}
    assert (state.failures, state.resting_until) == (0, 0.0)


async def test_what_it_says_arrives_once_with_the_token_as_the_last_word(rig: DoorRig) -> None:
    text, token = text_of(rig, "hi")
    assert await rig.door.offer(rig.agent, text) == "offered"
    given = await rig.heard(1)
    assert [tokens_in(each) for each in given] == [(token,)]


async def test_a_text_as_long_as_it_may_be_arrives_whole(rig: DoorRig) -> None:
    text, token = text_of(rig, *[f"grüße {number}\n" + "ü😀'\"$(x)`\\ " * 120 for number in range(20)])
    assert (340 < len(text) <= 400) if rig.door.state(rig.agent).one_line else (8_000 < len(text) < 9_000)
    assert await rig.door.offer(rig.agent, text) == "offered"
    (given,) = await rig.heard(1)
    assert "".join(text.split()) in "".join(given.split()), "but for blanks, which a screen may set otherwise"
    assert tokens_in(given) == (token,)


async def test_what_it_says_one_after_the_other_arrives_in_that_order(rig: DoorRig) -> None:
    said = [text_of(rig, str(number)) for number in range(3)]
    for number, (text, _) in enumerate(said):
        assert await rig.door.offer(rig.agent, text) == "offered"
        await rig.heard(number + 1)
    assert [tokens_in(each)[0] for each in await rig.heard(3)] == [token for _, token in said]


async def test_where_nobody_listens_it_has_failed_and_said_nothing(rig: DoorRig) -> None:
    await rig.close()
    assert not rig.door.state(rig.agent).open
    outcome = await rig.door.offer(rig.agent, text_of(rig, "hi")[0])
    assert isinstance(outcome, Failed) and outcome.why
    assert await rig.heard(0) == []


async def test_at_the_wrong_moment_it_refuses_and_says_nothing_then_or_later(rig: DoorRig) -> None:
    await rig.occupy()
    outcome = await rig.door.offer(rig.agent, text_of(rig, "hi")[0])
    assert isinstance(outcome, Refused) and outcome.why
    assert await rig.heard(0) == []


async def test_cancelled_before_it_has_said_anything_it_never_says_it(rig: DoorRig) -> None:
    begun = await rig.stall()
    text, _ = text_of(rig, "revoked")
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.door.offer, rig.agent, text)
            await begun.wait()
            nursery.cancel_scope.cancel()
    after, token = text_of(rig, "after")
    assert await rig.door.offer(rig.agent, after) == "offered"
    assert [tokens_in(each) for each in await rig.heard(1)] == [(token,)]
