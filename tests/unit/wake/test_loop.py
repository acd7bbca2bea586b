"""The loop that wakes: facts before doors, revoked until said, proved once, restarted anywhere."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.wake.fake_door import FakeDoor
from tests.support.wake.world import Runtime, World
from thrum.model.attempt_ids import new_token, tokens_in
from thrum.model.wake_types import Failed, Reachable, Refused
from thrum.wake import proofs
from thrum.wake.attempts import NO_PROOF


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "proofs")


def waiter(runtime_world: World, **fields: object) -> FakeDoor:
    """The only door of bob, who is made here, as the test wants it."""
    runtime = runtime_world.add("bob")
    door = FakeDoor(runtime.hear, **fields)  # pyright: ignore[reportArgumentType]
    runtime_world.doors["bob"] = [door]
    return door


async def test_a_message_reaches_an_idle_agents_model_at_once_and_its_receipt_is_by_proof(
    autojump_clock: MockClock, world: World
) -> None:
    bob = world.add("bob")
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(0.01)
        assert [at for at, _ in bob.heard] == [0]
        assert world.seen == sent and world.outcomes() == [("waiter", "proved")]
        assert [each.outcome for each in world.facts] == ["offered", "proved"]


async def test_the_fact_is_on_disk_before_the_door_is_called(autojump_clock: MockClock, world: World) -> None:
    door = waiter(world, knock_seconds=1.0)
    world.commit_seconds = 1.0
    async with world.serving():
        world.send("bob")
        await trio.sleep(0.5)
        assert (door.calls, world.facts) == (0, [])
        await trio.sleep(1.0)
        assert (door.calls, world.outcomes()) == (1, [("waiter", "offered")])


async def test_a_burst_of_a_hundred_is_two_wakes_at_most(autojump_clock: MockClock, world: World) -> None:
    bob = world.add("bob")
    async with world.serving():
        sent: list[str] = []
        for _ in range(50):
            sent += world.send("bob")
            await trio.sleep(0.004)
        await trio.sleep(1)
        assert sorted(world.seen) == sorted(sent) and len(bob.heard) == 2
        assert set(bob.told().values()) == {1}


async def test_who_has_nothing_unseen_costs_no_task_and_no_wakeup(autojump_clock: MockClock, world: World) -> None:
    for number in range(100):
        world.add(f"bob{number}")
    async with world.serving():
        world.send("bob1")
        await trio.sleep(60)
        began = trio.lowlevel.current_statistics().tasks_living
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(3_600)
        trio.lowlevel.remove_instrument(turns)
        assert turns.steps <= 10, "the test's own"
        assert trio.lowlevel.current_statistics().tasks_living == began < 20


class Turns(trio.abc.Instrument):
    """Counts how often any task goes on."""

    steps = 0

    def before_task_step(self, task: object) -> None:
        self.steps += 1


# -- revoked


async def test_what_is_read_before_the_door_has_said_it_is_never_said(autojump_clock: MockClock, world: World) -> None:
    door = waiter(world, knock_seconds=5.0)
    bob = world.runtimes["bob"]
    async with world.serving():
        one, two = world.send("bob", 2)
        await trio.sleep(1)
        world.take(one)
        await trio.sleep(20)
        assert world.outcomes() == [("waiter", "revoked"), ("waiter", "proved")]
        assert bob.told() == {two: 1} and door.calls == 2


async def test_with_nothing_left_to_say_nothing_more_is_tried(autojump_clock: MockClock, world: World) -> None:
    door = waiter(world, knock_seconds=5.0)
    async with world.serving():
        (one,) = world.send("bob")
        await trio.sleep(1)
        world.take(one)
        await trio.sleep(20)
        assert world.outcomes() == [("waiter", "revoked")] and door.calls == 1
        assert world.runtimes["bob"].heard == []


@pytest.mark.parametrize("state", ["dialog", "gone"])
async def test_a_dialog_that_opens_while_a_door_takes_its_time_is_told_nothing(
    autojump_clock: MockClock, world: World, state: str
) -> None:
    waiter(world, knock_seconds=5.0)
    bob = world.runtimes["bob"]
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(1)
        bob.become(state)  # pyright: ignore[reportArgumentType]
        await trio.sleep(3_600)
        assert bob.heard == bob.kept == [] and world.outcomes() == [("waiter", "revoked")]
        bob.become("idle")
        await trio.sleep(10)
        assert world.seen == sent and len(bob.heard) == 1


# -- doors that fail, refuse, lose, lie


async def test_a_door_that_fails_twice_rests_and_the_next_one_is_used(autojump_clock: MockClock, world: World) -> None:
    bob = world.add("bob")
    world.doors["bob"][0].answers = deque([Failed("nobody listens")] * 2)
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(1)
        assert world.outcomes() == [("waiter", "failed"), ("waiter", "failed"), ("typed", "proved")]
        await trio.sleep(100)
        world.send("bob")
        await trio.sleep(1)
        assert world.outcomes()[3:] == [("typed", "proved")]
        await trio.sleep(600)
        world.send("bob")
        await trio.sleep(1)
        assert world.outcomes()[4:] == [("waiter", "proved")]
        assert world.seen[:1] == sent and len(bob.heard) == 3


async def test_a_door_that_refuses_is_asked_seldom_and_at_once_when_the_state_changes(
    autojump_clock: MockClock, world: World
) -> None:
    door = waiter(world, answers=deque([Refused("a draft")] * 1_000))
    bob = world.runtimes["bob"]
    async with world.serving():
        world.send("bob")
        await trio.sleep(24 * 3_600)
        assert door.calls < 160
        assert set(world.outcomes()) == {("waiter", "refused")} and bob.heard == []
        door.answers.clear()
        bob.become("idle")
        await trio.sleep(1)
        assert len(bob.heard) == 1


async def test_what_a_door_loses_the_next_one_says_after_60_s_idle(autojump_clock: MockClock, world: World) -> None:
    bob = world.add("bob")
    world.doors["bob"][0].loses = True
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(59)
        assert world.outcomes() == [("waiter", "offered")]
        await trio.sleep(2)
        assert world.outcomes() == [("waiter", "expired"), ("typed", "proved")]
        assert world.seen == sent and len(bob.heard) == 1


async def test_what_all_doors_lost_rides_along_with_the_next_message(autojump_clock: MockClock, world: World) -> None:
    door = waiter(world, loses=True)
    async with world.serving():
        (one,) = world.send("bob")
        await trio.sleep(24 * 3_600)
        assert door.calls == 1 and world.outcomes() == [("waiter", "expired")]
        door.loses = False
        (two,) = world.send("bob")
        await trio.sleep(1)
        assert world.runtimes["bob"].told() == {one: 1, two: 1} and sorted(world.seen) == [one, two]


async def test_a_door_without_proof_says_it_once_and_no_other_door_does(
    autojump_clock: MockClock, world: World
) -> None:
    bob = world.add("bob")
    bob.has_hooks = False
    for door in world.doors["bob"]:
        door.proves = False
    async with world.serving():
        (one,) = world.send("bob")
        await trio.sleep(3_600)
        (two,) = world.send("bob")
        await trio.sleep(3_600)
        assert bob.told() == {one: 1, two: 1} and world.seen == []
        assert [(each.door, each.detail) for each in world.facts] == [("waiter", NO_PROOF)] * 2


async def test_a_proof_that_comes_after_its_attempt_has_ended_still_gives_receipts(
    autojump_clock: MockClock, world: World
) -> None:
    waiter(world, delays_seconds=100.0)
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(99)
        assert world.outcomes() == [("waiter", "expired")] and world.seen == []
        await trio.sleep(2)
        assert world.seen == sent and world.outcomes() == [("waiter", "expired")]


@pytest.mark.parametrize("trouble", ["doubles", "lies"])
async def test_a_token_that_is_shown_twice_or_against_its_door_gives_one_receipt(
    autojump_clock: MockClock, world: World, trouble: str
) -> None:
    waiter(world, **{trouble: True})
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(3_600)
        assert world.seen == sent and world.outcomes()[-1] != ("waiter", "offered")


async def test_a_door_that_breaks_may_have_said_it_and_is_not_called_again(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    door = waiter(world)

    def hear(agent: Reachable, text: str) -> None:
        raise RuntimeError("a bug")

    door.hear = hear
    async with world.serving():
        world.send("bob")
        await trio.sleep(3_600)
        assert door.calls == 1 and world.outcomes() == [("waiter", "expired")]
    assert "a bug" in caplog.text


async def test_nobody_knows_a_token_that_was_never_said(autojump_clock: MockClock, world: World) -> None:
    world.add("bob")
    async with world.serving():
        assert world.daemon is not None and not await world.daemon.loop.prove(new_token())


async def test_no_token_is_in_the_log(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    waiter(world, answers=deque([Failed("nobody listens")]))
    world.failures = 1
    async with world.serving():
        world.send("bob")
        await trio.sleep(10)
        assert len(world.seen) == 1
    assert "nobody listens" in caplog.text and not tokens_in(caplog.text)


# -- sessions and processes


@pytest.mark.parametrize("session", ["s2", ""])
async def test_a_new_session_or_process_ends_what_is_open_and_another_door_says_it(
    autojump_clock: MockClock, world: World, session: str
) -> None:
    bob = world.add("bob")
    bob.turns_by_itself = False
    world.doors["bob"][0].loses = True
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(10)
        world.doors["bob"][0].loses = False
        bob.restart(session)
        await trio.sleep(1)
        assert world.outcomes() == [("waiter", "expired"), ("typed" if session else "waiter", "proved")]
        assert world.seen == sent and len(bob.heard) == 1


async def test_while_working_mail_is_offered_once_a_minute_and_urgent_mail_at_once(
    autojump_clock: MockClock, world: World
) -> None:
    bob = world.add("bob")
    bob.turns_by_itself = False
    bob.become("working")
    async with world.serving():
        for number in range(180):
            world.send("bob", urgent=number == 100)
            await trio.sleep(1)
        assert [round(at) for at, _ in bob.heard] == [0, 60, 100, 160]
        await trio.sleep(60)
        assert len(world.seen) == 180


# -- the daemon's own troubles


async def test_while_the_store_fails_no_door_is_called_and_all_goes_on_when_it_works_again(
    autojump_clock: MockClock, world: World
) -> None:
    door = waiter(world)
    async with world.serving():
        world.failures = 4
        sent = world.send("bob")
        await trio.sleep(14)
        assert door.calls == 0 and world.facts == []
        await trio.sleep(10)
        assert door.calls == 1 and world.seen == sent


async def test_an_outcome_that_cannot_be_written_is_written_when_the_store_works_again(
    autojump_clock: MockClock, world: World
) -> None:
    door = waiter(world, answers=deque([Failed("nobody listens")]), knock_seconds=1.0)
    async with world.serving():
        world.send("bob")
        await trio.sleep(0.5)
        world.failures = 3
        await trio.sleep(60)
        assert door.calls == 2 and world.outcomes() == [("waiter", "failed"), ("waiter", "proved")]


async def test_a_proof_that_found_no_daemon_is_read_at_start_and_no_second_door_is_called(
    autojump_clock: MockClock, world: World
) -> None:
    waiter(world, delays_seconds=5.0)
    bob = world.runtimes["bob"]
    async with world.serving():
        sent = world.send("bob")
        await trio.sleep(1)
        assert world.daemon is not None
        world.daemon.kill()
        world.daemon = None
        await trio.sleep(0.5)
    await trio.sleep(10)
    assert len(proofs.left(world.proofs_dir)) == 1 and world.seen == []
    async with world.serving():
        await trio.sleep(1)
        assert world.seen == sent and world.outcomes() == [("waiter", "proved")]
        assert proofs.left(world.proofs_dir) == [] and len(bob.heard) == 1


async def test_a_proof_that_was_left_while_the_daemon_lives_is_read_before_a_second_door(
    autojump_clock: MockClock, world: World
) -> None:
    bob = world.add("bob")
    bob.has_hooks = False
    async with world.serving():
        world.send("bob")
        await trio.sleep(30)
        proofs.leave(world.proofs_dir, tokens_in(bob.heard[0][1])[0])
        await trio.sleep(3_600)
        assert world.outcomes() == [("waiter", "proved")] and len(bob.heard) == 1


async def test_a_proof_that_cannot_be_written_down_waits_and_keeps_nothing_else(
    autojump_clock: MockClock, world: World
) -> None:
    bob = world.add("bob")
    bob.has_hooks = False
    async with world.serving():
        (one,) = world.send("bob")
        await trio.sleep(1)
    proofs.leave(world.proofs_dir, tokens_in(bob.heard[0][1])[0])
    proofs.leave(world.proofs_dir, new_token())
    world.failures = 1
    async with world.serving():
        await trio.sleep(1)
        assert world.seen == [] and len(proofs.left(world.proofs_dir)) == 1, "the one that nobody knows is forgotten"
        await trio.sleep(3_600)
        assert world.seen == [one] and len(bob.heard) == 1 and proofs.left(world.proofs_dir) == []


def test_only_tokens_are_read_from_the_proofs(tmp_path: Path) -> None:
    token = new_token()
    assert proofs.left(tmp_path / "proofs") == []
    proofs.leave(tmp_path / "proofs", token)
    proofs.leave(tmp_path / "proofs", token)
    for name in ("wak_short", f"{token}x", "README"):
        (tmp_path / "proofs" / name).write_text("")
    assert proofs.left(tmp_path / "proofs") == [token]
    with pytest.raises(ValueError, match="not a token"):
        proofs.leave(tmp_path, "../evil")
    proofs.remove(tmp_path / "proofs", token)
    proofs.remove(tmp_path / "proofs", token)
    assert proofs.left(tmp_path / "proofs") == []


@pytest.mark.parametrize("killed_at", range(1, 14))
async def test_killed_between_any_two_steps_nothing_is_lost_and_nothing_is_told_twice(
    autojump_clock: MockClock, world: World, killed_at: int
) -> None:
    bob: Runtime = world.add("bob")
    world.commit_seconds = 0.1
    world.doors["bob"][0].knock_seconds = 0.1
    world.doors["bob"][0].delays_seconds = 0.25
    world.doors["bob"][1].delays_seconds = 0.25
    world.doors["bob"][0].answers = deque([Failed("nobody took it")])
    world.killed_at = killed_at
    async with world.serving():
        sent = world.send("bob", 3)
        await trio.sleep(100)
        sent += world.send("bob", 2)
        await trio.sleep(300)
        assert world.steps >= 12
        assert sorted(world.seen) == sorted(sent)
        assert set(bob.told().values()) == {1}, "and the model was told each once"
