"""The committer: what is answered is on disk, calls of one batch see each other, failures leave nothing behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.here import HandClock
from tests.support.store.disk import mounted
from tests.support.store.opened import editing, key_of, layout_at, opened, projection_of, resent, sending
from thrum.model import clock, events, ids, limits
from thrum.model.errors import Busy, ClientKeyReused, InternalError, ShuttingDown, StoreFailed, UnknownRecipient
from thrum.model.events import Body, MessageCreated
from thrum.store import database
from thrum.store._stamping import Stamper
from thrum.store.api import Decide, Decision, Stamp
from thrum.store.committer import Committer
from thrum.store.queries.views import View
from thrum.store.writer import Committed

AUTHOR_JOURNAL = "messages/furiosa.jsonl"


def lines(directory: Path, file: str = AUTHOR_JOURNAL) -> list[events.AnyFact | events.UnknownEvent]:
    path = layout_at(directory).branch_dir / file
    return [events.decode(line) for line in path.read_bytes().splitlines()]


async def test_an_answer_comes_when_the_fact_is_in_the_journal_and_in_the_projection(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        sent = await store.committer.commit(sending("hi"))
        (fact,) = lines(tmp_path)
        assert isinstance(fact, MessageCreated)
        assert (fact.message_id, fact.body.content) == (sent.message_id, "hi")
        row = store.view.message(sent.message_id)
        assert row is not None and row.seq == sent.seq == store.view.head_seq() == 1


async def test_many_callers_share_batches_and_numbers_are_consecutive(tmp_path: Path) -> None:
    heard: list[Committed] = []
    answers: dict[int, int] = {}

    async with opened(tmp_path, on_commit=heard.extend) as store:

        async def send(number: int) -> None:
            answers[number] = (await store.committer.commit(sending(str(number), author=f"a{number % 7}"))).seq

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(send, number)
        statistics = store.committer.statistics()
    assert sorted(answers.values()) == list(range(1, 301)) == [committed.seq for committed in heard]
    assert statistics.batches < 30
    assert (statistics.calls, statistics.facts, statistics.waiting) == (300, 300, 0)


async def test_a_call_sees_what_earlier_calls_of_its_batch_wrote(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(view: View, stamp: Stamp) -> Decision[None]:
        seen.append(view.head_seq())
        return Decision((), lambda view, seqs: None)

    async with opened(tmp_path) as store, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(store.committer.commit, sending("hi"))
            nursery.start_soon(store.committer.commit, look)
    assert seen == sorted(seen)
    assert len(seen) == 3


async def test_readers_see_nothing_before_it_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:

        def peek(view: View, stamp: Stamp) -> Decision[int]:
            decision = sending("hi")(view, stamp)
            return Decision(decision.facts, lambda inside, seqs: inside.head_seq() - store.view.head_seq())

        assert await store.committer.commit(peek) == 1
        assert store.view.head_seq() == 1


async def test_a_call_that_is_refused_or_broken_does_not_disturb_its_batch(tmp_path: Path) -> None:
    outcomes: list[object] = []

    def refuse(view: View, stamp: Stamp) -> Decision[None]:
        raise UnknownRecipient("no @nobody")

    def break_(view: View, stamp: Stamp) -> Decision[None]:
        raise ZeroDivisionError

    def break_after_apply(view: View, stamp: Stamp) -> Decision[None]:
        facts = [*sending("half")(view, stamp).facts, *sending("other", author="slit")(view, stamp).facts]

        def answer(view: View, seqs: Sequence[int]) -> None:
            raise ZeroDivisionError

        return Decision(facts, answer)

    def give_one_id_twice(view: View, stamp: Stamp) -> Decision[None]:
        facts = sending("twice")(view, stamp).facts
        return Decision([*facts, *facts], lambda view, seqs: None)

    async with opened(tmp_path) as store:

        async def call(decide: Decide[Any]) -> None:
            try:
                outcomes.append(await store.committer.commit(decide))
            except Exception as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                for decide in (sending("a"), refuse, break_, break_after_apply, give_one_id_twice, sending("b")):
                    nursery.start_soon(call, decide)
    assert outcomes.count(UnknownRecipient) == 3
    assert outcomes.count(InternalError) == 9
    facts = lines(tmp_path)
    assert sorted(fact.body.content for fact in facts if isinstance(fact, MessageCreated)) == [*"aaabbb"]
    assert not (layout_at(tmp_path).branch_dir / "messages/slit.jsonl").exists()
    live = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path) as store:
        assert store.view.head_seq() == 6
    assert projection_of(tmp_path) == live


async def test_a_batch_ends_at_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "batch_facts_max", 10)
    heard: list[int] = []
    async with (
        opened(tmp_path, on_commit=lambda batch: heard.append(len(batch))) as store,
        trio.open_nursery() as nursery,
    ):
        for _ in range(35):
            nursery.start_soon(store.committer.commit, sending("hi"))
    assert sum(heard) == 35
    assert max(heard) == 10


# -- client keys


async def test_a_repeated_call_gets_the_first_answer_also_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        first = await store.committer.commit(sending("hi"), key=key_of("k"), replay=resent)
        again = await store.committer.commit(sending("hi"), key=key_of("k"), replay=resent)
        assert again == (first.message_id, first.seq, True)
        with pytest.raises(ClientKeyReused):
            await store.committer.commit(sending("ho"), key=key_of("k", "f" * 16), replay=resent)
        other = await store.committer.commit(
            sending("hi", author="slit"), key=key_of("k", author="slit"), replay=resent
        )
        assert other.message_id != first.message_id
    async with opened(tmp_path) as store:
        assert await store.committer.commit(sending("hi"), key=key_of("k"), replay=resent) == again
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path) as store:
        rebuilt = await store.committer.commit(sending("hi"), key=key_of("k"), replay=resent)
        assert rebuilt.message_id == first.message_id
        assert rebuilt.replayed
    assert len(lines(tmp_path)) == 1


async def test_a_repeated_call_waits_for_the_first_one_that_still_runs(tmp_path: Path) -> None:
    answers: list[tuple[str, int, bool]] = []
    async with opened(tmp_path) as store:

        async def send() -> None:
            answers.append(await store.committer.commit(sending("hi"), key=key_of("k"), replay=resent))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send)
    assert len({answer[0] for answer in answers}) == 1
    assert sorted(answer[2] for answer in answers) == [False] + [True] * 19
    (fact,) = lines(tmp_path)
    assert (fact.client_key, fact.client_digest) == ("k", "0123456789abcdef")  # type: ignore[union-attr]


# -- waiting, stopping


async def test_a_call_that_waits_too_long_is_told_busy_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "committer_wait_seconds", 0.05)
    monkeypatch.setattr(limits, "committer_waiting_max", 3)
    async with opened(tmp_path) as store:
        idle = Committer(store.committer._writer)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Busy) as caught:
            await idle.commit(sending("hi"))
        assert caught.value.details["retry_after_ms"] > 0
        assert idle.statistics().waiting == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle.serve_commits)
            await idle.commit(sending("later"))
            idle.drain()
        assert store.view.head_seq() == 1


async def test_a_call_that_is_cancelled_in_the_queue_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        idle = Committer(store.committer._writer)  # pyright: ignore[reportPrivateUsage]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle.commit, sending("hi"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(idle.serve_commits)
            await idle.commit(sending("other"))
            idle.drain()
    assert len(lines(tmp_path)) == 1


async def test_draining_answers_who_waits_and_refuses_who_comes(tmp_path: Path) -> None:
    answered: list[int] = []
    async with opened(tmp_path) as store:

        async def send() -> None:
            answered.append((await store.committer.commit(sending("hi"))).seq)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0)
            store.committer.drain()
            with pytest.raises(ShuttingDown):
                await store.committer.commit(sending("late"))
    assert len(answered) == 5


async def test_cancelling_the_committer_finishes_its_batch_and_tells_the_rest(tmp_path: Path) -> None:
    outcomes: list[object] = []
    async with opened(tmp_path) as store:
        committer = Committer(store.committer._writer)  # pyright: ignore[reportPrivateUsage]

        async def send(text: str) -> None:
            try:
                outcomes.append((await committer.commit(sending(text))).seq)
            except ShuttingDown as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, "first")
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as serving:

                def stop(batch: Sequence[Committed]) -> None:
                    nursery.start_soon(send, "late")
                    serving.cancel_scope.cancel()

                committer.on_commit = stop
                serving.start_soon(committer.serve_commits)
    assert outcomes == [1, ShuttingDown]


# -- failing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "4m") as directory:
        yield directory


async def test_on_a_full_disk_calls_fail_reads_go_on_and_it_fixes_itself(small_disk: Path) -> None:
    async with opened(small_disk) as store:
        kept = await store.committer.commit(sending("kept"))
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"\0" * 4096)
        for _ in range(2):
            with pytest.raises(StoreFailed) as caught:
                await store.committer.commit(sending("x" * 100_000))
            assert store.committer.degraded == caught.value.message
            assert store.view.message(kept.message_id) is not None
        filler.unlink()
        await store.committer.commit(sending("y" * 100_000))
        assert store.committer.degraded is None
        assert store.view.head_seq() == 2
    assert len(lines(small_disk)) == 2
    live = projection_of(small_disk)
    layout_at(small_disk).database.unlink()
    async with opened(small_disk):
        pass
    assert projection_of(small_disk) == live


async def test_a_full_disk_under_the_database_alone_leaves_no_line_in_the_journal(
    tmp_path: Path, small_disk: Path
) -> None:
    home = small_disk / "home"
    home.mkdir()
    (tmp_path / "git").mkdir()
    (home / ".git").symlink_to(tmp_path / "git")
    async with opened(home) as store:
        await store.committer.commit(sending("kept"))
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"\0" * 4096)
        with pytest.raises(StoreFailed):
            for number in range(50):
                await store.committer.commit(sending(f"{number} " + "x" * 100_000))
        held = len(lines(home))
        assert held == store.view.head_seq()
        filler.unlink()
        await store.committer.commit(sending("after"))
        assert len(lines(home)) == held + 1 == store.view.head_seq()


async def test_every_call_of_a_failed_batch_is_told_with_an_error_of_its_own(tmp_path: Path) -> None:
    errors: list[StoreFailed] = []
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("first"))
        (layout_at(tmp_path).branch_dir / AUTHOR_JOURNAL).unlink()

        async def send() -> None:
            try:
                await store.committer.commit(sending("hi"))
            except StoreFailed as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
        assert len({id(error) for error in errors}) == 5
        assert {error.details["cause"] for error in errors} == {"journal_changed"}
        assert await store.committer.wait_broken() == "journal_changed"
        await store.committer.commit(sending("elsewhere", author="slit"))
        assert store.committer.statistics().failed_batches >= 1
    async with opened(tmp_path) as store:
        assert store.recovery.rebuilt == f"{AUTHOR_JOURNAL} is gone"
        assert store.view.head_seq() == 1
        await store.committer.commit(sending("again"))


async def test_a_bug_while_flushing_is_told_to_who_waits_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(database, "set_offset", fail)
            with pytest.raises(StoreFailed, match="ZeroDivisionError"):
                await store.committer.commit(sending("lost"))
        assert lines(tmp_path) == []
        await store.committer.commit(sending("kept"))
    assert len(lines(tmp_path)) == 1


async def test_a_listener_that_fails_does_not_stop_the_committer(tmp_path: Path) -> None:
    def fail(batch: Sequence[Committed]) -> None:
        raise ZeroDivisionError

    async with opened(tmp_path, on_commit=fail) as store:
        await store.committer.commit(sending("a"))
        await store.committer.commit(sending("b"))
        assert store.view.head_seq() == 2


async def test_a_database_that_another_program_holds_fails_the_call_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("a"))
        other = sqlite3.connect(layout_at(tmp_path).database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFailed, match="locked"):
            await store.committer.commit(sending("b"))
        other.execute("ROLLBACK")
        other.close()
        await store.committer.commit(sending("c"))
    assert len(lines(tmp_path)) == 2


# -- stamps


def test_stamps_rise_although_the_clock_steps_back() -> None:
    wall = HandClock()
    stamper = Stamper(wall, "d_x")
    orders: list[tuple[str, str]] = []
    for step in (0, 5, -1000, 0, 0, -1, 10_000, 0):
        wall.ms += step
        stamp = stamper.stamp()
        for _ in range(3):
            fact = stamp.make(MessageCreated, message_id=stamp.new_id("msg_"), agent_id="a", body=Body("plain", ""))
            orders.append(events.order_of(fact))
    assert orders == sorted(set(orders))


def test_a_watermark_moves_the_base_past_it_but_a_day_ahead_at_most() -> None:
    wall = HandClock()
    stamper = Stamper(wall, "d_x")
    stamper.move_past(clock.format_ms(wall.ms + 5000))
    assert stamper.stamp().ms == wall.ms + 5001
    stamper.move_past("2999-01-01T00:00:00.000Z")
    assert stamper.stamp().ms == wall.ms + limits.future_stamp_ms_max
    stamper.move_past("1999-01-01T00:00:00.000Z")
    assert stamper.stamp().ms == wall.ms + limits.future_stamp_ms_max


async def test_stamps_rise_over_a_restart_with_the_clock_set_back(tmp_path: Path) -> None:
    wall = HandClock()
    async with opened(tmp_path, wall=wall) as store:
        sent = await store.committer.commit(sending("first"))
        await store.committer.commit(editing(sent.message_id, "edited"))
    wall.ms -= 3_600_000
    async with opened(tmp_path, wall=wall) as store:
        await store.committer.commit(sending("second"))
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path, wall=wall) as store:
        await store.committer.commit(sending("third"))
    first, _, second, third = lines(tmp_path)
    assert events.order_of(first) < events.order_of(second) < events.order_of(third)


async def test_no_id_of_a_run_is_of_a_millisecond_in_which_a_run_before_gave_one(tmp_path: Path) -> None:
    wall = HandClock()
    async with opened(tmp_path, wall=wall) as store:
        sent = await store.committer.commit(sending("first"))
        wall.ms += 7
        await store.committer.commit(editing(sent.message_id, "what begins nothing"))
    async with opened(tmp_path, wall=wall) as store:
        await store.committer.commit(editing(sent.message_id, "in the same millisecond"))
    _, before, after = lines(tmp_path)
    assert ids.ulid_ms(after.event_id) == (ids.ulid_ms(before.event_id) or 0) + 1


async def test_a_base_more_than_a_day_ahead_is_not_taken_over(tmp_path: Path) -> None:
    wall = HandClock()
    wall.ms += 10 * limits.future_stamp_ms_max
    async with opened(tmp_path, wall=wall) as store:
        await store.committer.commit(sending("far"))
    wall.ms -= 10 * limits.future_stamp_ms_max
    async with opened(tmp_path, wall=wall) as store:
        await store.committer.commit(sending("near"))
    assert lines(tmp_path)[1].timestamp == clock.format_ms(wall.ms)


async def test_an_edit_takes_effect_where_it_was_made_although_the_clock_stepped_back(tmp_path: Path) -> None:
    wall = HandClock()
    async with opened(tmp_path, wall=wall) as store:
        sent = await store.committer.commit(sending("first"))
        for text in ("one", "two", "three"):
            wall.ms -= 1000
            await store.committer.commit(editing(sent.message_id, text))
            row = store.view.message(sent.message_id)
            assert row is not None and row.body_content == text
