"""An hour of five agents at work, 1,000 messages, the real loop: each seen, each told once, no more wakes than bursts.

The judge is what the models were given. Time is simulated, a run takes seconds; a seed says all of it.
"""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import pytest
import trio
from tests.support.fake_door import FakeDoor
from tests.support.wake_world import Runtime, World
from trio.testing import MockClock

from thrum.model.wake_types import Failed, Refused

AGENTS = 5
MESSAGES = 1_000
HOUR = 3_600.0


class Hour:
    """Who sends what and when, and what the runtimes and their people do meanwhile."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.bursts: dict[str, int] = {}

    def add_agents(self) -> None:
        for number in range(AGENTS):
            runtime = self.world.add(f"bob{number}")
            runtime.tool_seconds = self.rng.uniform(0, 7)
            runtime.turn_seconds = self.rng.uniform(5, 90)
            self.bursts[runtime.agent_id] = 0

    async def send(self) -> None:
        """Bursts, each committed in one go, at random times of the hour."""
        sizes: list[int] = []
        while sum(sizes) < MESSAGES:
            sizes.append(min(self.rng.choice([1, 1, 2, 3, 5, 20]), MESSAGES - sum(sizes)))
        times = sorted(self.rng.uniform(0, HOUR) for _ in sizes)
        for at, size in zip(times, sizes, strict=True):
            await trio.sleep(max(0.0, at - trio.current_time()))
            agent_id = self.rng.choice(sorted(self.bursts))
            kind = self.rng.random()
            self.bursts[agent_id] += 1
            self.world.send(
                agent_id, size, urgent=kind < 0.05, answers_own=kind > 0.9, author=self.rng.choice(["alice", "carol"])
            )

    async def live(self, runtime: Runtime) -> None:
        """Its person prompts it, dialogs open and are answered, now and then the conversation is cleared."""
        while True:
            await trio.sleep(self.rng.expovariate(1 / 90))
            deed = self.rng.random()
            if runtime.state == "idle" and deed < 0.7:
                trio.lowlevel.spawn_system_task(runtime.work)
            elif runtime.state == "working" and deed < 0.5:
                runtime.become("dialog")
                await trio.sleep(self.rng.uniform(1, 200))
                runtime.become("working")
                trio.lowlevel.spawn_system_task(runtime.work)
            elif runtime.state == "idle" and deed < 0.8:
                runtime.restart(self.rng.choice(["", f"s{trio.current_time()}"]))

    async def trouble(self, doors: list[FakeDoor]) -> None:
        """Doors that fail, refuse, lose and delay, a store that fails, a daemon that is killed."""
        while True:
            await trio.sleep(self.rng.expovariate(1 / 20))
            door = self.rng.choice(doors)
            door.loses = self.rng.random() < 0.2
            door.is_open = self.rng.random() < 0.9
            door.knock_seconds = self.rng.choice([0.0, 0.0, 1.5])
            door.delays_seconds = self.rng.choice([0.0, 0.0, 1.0, 20.0])
            door.answers = deque(self.rng.choice([[], [], [Refused("a draft")], [Failed("nobody took it")] * 2]))
            self.world.failures = self.rng.choice([0, 0, 0, 2])
            if self.rng.random() < 0.3:
                self.world.killed_at = self.world.steps + self.rng.randrange(1, 12)

    def calm(self, doors: list[FakeDoor]) -> None:
        self.world.failures, self.world.killed_at = 0, -1
        for door in doors:
            door.loses, door.is_open = False, True
            door.knock_seconds = door.delays_seconds = 0.0
            door.answers.clear()


async def run_hour(world: World, seed: int, troubled: bool) -> Hour:
    hour = Hour(world, seed)
    hour.add_agents()
    doors = [door for of_one in world.doors.values() for door in of_one]
    async with world.serving():
        async with trio.open_nursery() as nursery:
            for runtime in world.runtimes.values():
                nursery.start_soon(hour.live, runtime)
            if troubled:
                nursery.start_soon(hour.trouble, doors)
            await hour.send()
            nursery.cancel_scope.cancel()
        # What is at work ends its turns; what used up its attempts goes with one message more.
        hour.calm(doors)
        for runtime in world.runtimes.values():
            if runtime.state == "dialog":
                runtime.become("idle")
        await trio.sleep(2 * HOUR)
        if troubled:
            for agent_id in world.runtimes:
                world.send(agent_id)
            await trio.sleep(HOUR)
    return hour


@pytest.mark.parametrize("seed", range(3))
async def test_a_thousand_messages_are_seen_and_told_once_by_no_more_wakes_than_bursts(
    autojump_clock: MockClock, tmp_path: Path, seed: int
) -> None:
    world = World(tmp_path / "proofs")
    hour = await run_hour(world, seed, troubled=False)
    assert len(world.seen) == len(set(world.seen)) == MESSAGES
    for agent_id, runtime in world.runtimes.items():
        told = runtime.told()
        assert set(told.values()) == {1} and len(told) == sum(m.to == agent_id for m in world.messages.values())
        assert len(runtime.heard) <= hour.bursts[agent_id]


@pytest.mark.short(4)
@pytest.mark.parametrize("seed", range(100))
async def test_in_an_hour_of_trouble_every_message_is_seen_and_none_is_told_twice(
    autojump_clock: MockClock, tmp_path: Path, seed: int
) -> None:
    world = World(tmp_path / "proofs")
    await run_hour(world, seed, troubled=True)
    assert sorted(world.seen) == sorted(world.messages), "each has one receipt"
    assert {name for of_one in world.runtimes.values() for name, times in of_one.told().items() if times > 1} == set()
    assert {outcome for _, outcome in world.outcomes("bob0")} > {"proved", "expired"}
