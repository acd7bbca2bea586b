"""When rounds run: on change, on a timer, on demand, after failures; and what is said of them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from thrum.model.errors import StoreFailed
from thrum.sync import loop
from thrum.sync.loop import BESIDE_MAX, BRISK_PEEK_SECONDS, PEEK_SECONDS, Loop, Mode, State, Status, SyncRequest
from thrum.sync.ports import RemoteFailed
from thrum.sync.round import Outcome

SECONDS = 120.0


@dataclass
class Desk:
    """A loop over rounds of the test's making."""

    mode: Mode = field(default_factory=lambda: Mode(False, interval_seconds=1000.0, debounce_seconds=0.01))
    raises: list[Exception] = field(default_factory=list[Exception])
    """What the next rounds raise, in turn."""
    received: int = 0
    committed: int = 0
    unconfirmed: bool = False
    seen: str | None = None
    """What a peek gives."""
    tip: str = ""
    """Where rounds leave the branch."""
    gate: threading.Event | None = None
    """A round goes on until it is set."""
    requests: list[SyncRequest] = field(default_factory=list[SyncRequest])
    states: list[State] = field(default_factory=list[State])
    stopped: bool = False
    interrupted: bool = False
    tidy: Callable[[], None] = lambda: None
    peek: Callable[[], str | None] | None = None
    """In place of `seen`."""

    def __post_init__(self) -> None:
        self.loop = Loop(
            mode=lambda: self.mode,
            run_round=self.run,
            peek=lambda: self.peek() if self.peek is not None else self.seen,
            tidy=lambda: self.tidy(),
            interrupt=self.interrupt,
            now_ms=lambda: 1_700_000_000_000,
            on_status=self.hear,
        )

    def run(self, request: SyncRequest, outcome: Outcome, is_stopping: Callable[[], bool]) -> None:
        self.requests.append(request)
        while self.gate is not None and not self.gate.wait(0.001):
            if is_stopping():
                self.stopped = True
                return
        outcome.received, outcome.committed, outcome.unconfirmed = self.received, self.committed, self.unconfirmed
        outcome.tip = self.tip
        if self.raises:
            raise self.raises.pop(0)

    def interrupt(self) -> None:
        self.interrupted = True

    def hear(self, status: Status) -> None:
        if not self.states or self.states[-1] != status.state:
            self.states.append(status.state)

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(SECONDS):
            while not condition():  # noqa: ASYNC110
                await trio.sleep(0.002)

    async def rounds(self, count: int) -> None:
        """That many have ended."""
        await self.until(lambda: len(self.requests) >= count and self.loop.status.state not in ("idle", "syncing"))


def tombstoned(_: object) -> None:
    pass


async def test_it_asks_the_remote_when_it_begins_and_then_pushes_changes_without_asking(nursery: trio.Nursery) -> None:
    desk = Desk()
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    desk.loop.note_change()
    await desk.rounds(2)
    assert desk.requests == [SyncRequest(fetch=True, push=True), SyncRequest(fetch=False, push=True)]
    assert desk.states == ["syncing", "synced", "syncing", "synced"]


async def test_changes_that_come_together_are_one_round(nursery: trio.Nursery) -> None:
    desk = Desk()
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    for _ in range(20):
        desk.loop.note_change()
    await desk.rounds(2)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert len(desk.requests) == 2


async def test_a_change_right_after_a_round_waits_so_that_others_come_along(nursery: trio.Nursery) -> None:
    desk = Desk(Mode(False, interval_seconds=1000.0, debounce_seconds=0.2))
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    ended = trio.current_time()
    desk.loop.note_change()
    await desk.rounds(2)
    assert trio.current_time() - ended > 0.15


async def test_rounds_go_on_while_the_disk_is_cared_for_but_not_for_ever(nursery: trio.Nursery) -> None:
    done, begun = threading.Event(), list[int]()

    def tidy() -> None:
        begun.append(len(desk.requests))
        done.wait(SECONDS)

    desk = Desk(tidy=tidy)
    nursery.start_soon(desk.loop.serve_sync)
    for _ in range(BESIDE_MAX):
        report = await desk.loop.force(SECONDS)
        assert report is not None
    assert begun == [1]
    assert await desk.loop.force(SECONDS) is not None
    assert await desk.loop.force(0.05) is None
    done.set()
    await desk.rounds(BESIDE_MAX + 2)


async def test_the_timer_asks_the_remote(nursery: trio.Nursery) -> None:
    desk = Desk(Mode(False, interval_seconds=0.02, debounce_seconds=0.01))
    nursery.start_soon(desk.loop.serve_sync)
    await desk.until(lambda: len(desk.requests) >= 3)
    assert all(request.fetch for request in desk.requests)


async def test_local_only_neither_fetches_nor_pushes(nursery: trio.Nursery) -> None:
    desk = Desk(Mode(True, "a setting", interval_seconds=0.02))
    nursery.start_soon(desk.loop.serve_sync)
    desk.loop.note_change()
    await desk.rounds(1)
    assert desk.requests[0] == SyncRequest(fetch=False, push=False)
    assert desk.loop.status.state == "local-only" and not desk.loop.status.last_sync_at_ms


@pytest.mark.parametrize(("committed", "result"), [(0, "nothing_to_do"), (1, "synced")])
async def test_local_only_says_whether_there_was_anything_to_commit(
    nursery: trio.Nursery, committed: int, result: str
) -> None:
    desk = Desk(Mode(True, interval_seconds=1000.0), committed=committed)
    nursery.start_soon(desk.loop.serve_sync)
    report = await desk.loop.force(SECONDS)
    assert report is not None and report.result == result


async def test_force_waits_for_a_round_that_begins_after_it(nursery: trio.Nursery) -> None:
    desk = Desk(gate=threading.Event())
    nursery.start_soon(desk.loop.serve_sync)
    await desk.until(lambda: len(desk.requests) == 1)
    reports: list[object] = []

    async def force() -> None:
        reports.append(await desk.loop.force(SECONDS))

    nursery.start_soon(force)
    await trio.testing.wait_all_tasks_blocked(0.01)
    desk.received = 3
    assert desk.gate is not None
    desk.gate.set()
    await desk.until(lambda: bool(reports))
    assert len(desk.requests) == 2, "never two at once, and the one under way does not count"
    assert desk.loop.status.state == "synced"


async def test_a_push_that_is_held_back_is_no_success(nursery: trio.Nursery) -> None:
    desk = Desk(unconfirmed=True)
    nursery.start_soon(desk.loop.serve_sync)
    report = await desk.loop.force(SECONDS)
    assert report is not None and report.result == "error"
    assert (desk.loop.status.state, desk.loop.status.remedy) == ("error", "thrum sync enable")


async def test_another_address_is_met_at_once_even_after_failures(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(loop, "BACKOFF_SECONDS_MIN", 300.0)
    desk = Desk(raises=[RemoteFailed("missing", "no such repository", "")])
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    desk.mode = Mode(False, addresses="/other.git", interval_seconds=1000.0, debounce_seconds=0.01)
    await desk.rounds(2)
    assert desk.requests[1].fetch and desk.loop.status.state == "synced"


async def test_force_gives_up_in_time_and_the_round_goes_on(nursery: trio.Nursery) -> None:
    desk = Desk(gate=threading.Event())
    nursery.start_soon(desk.loop.serve_sync)
    await desk.until(lambda: len(desk.requests) == 1)
    assert await desk.loop.force(0.02) is None
    assert desk.gate is not None
    desk.gate.set()
    await desk.rounds(2)


@pytest.mark.parametrize(
    ("error", "state", "trouble"),
    [
        (RemoteFailed("offline", "nobody answers", "git ls-remote origin"), "offline", "offline"),
        (RemoteFailed("refused", "a hook", "git push"), "error", "refused"),
        (StoreFailed("disk full"), "error", "failed"),
        (ValueError("a bug"), "error", "failed"),
    ],
)
async def test_a_failure_is_said_and_tried_again(
    error: Exception, state: str, trouble: str, nursery: trio.Nursery
) -> None:
    desk = Desk(raises=[error])
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    status = desk.loop.status
    assert (status.state, status.trouble) == (state, trouble) and status.last_error
    assert "nothing was recorded" not in status.remedy
    desk.loop.note_change()
    await desk.until(lambda: len(desk.requests) == 2)
    assert desk.requests[1].fetch, "after a failure it looks, though only something changed here"
    await desk.until(lambda: status.state == "synced")
    assert (status.last_error, status.remedy, status.trouble) == ("", "", "")


async def test_failures_wait_longer_each_time_and_force_does_not_wait() -> None:
    desk = Desk(raises=[RemoteFailed("offline", "nobody answers", "") for _ in range(20)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.loop.serve_sync)
        for count in range(1, 6):
            report = await desk.loop.force(SECONDS)
            assert report is not None and report.result == "error", count
        nursery.cancel_scope.cancel()
    assert desk.states[-1] == "stopped"


@pytest.mark.parametrize(("received", "seconds"), [(0, PEEK_SECONDS), (1, BRISK_PEEK_SECONDS)])
async def test_while_clones_talk_a_remote_on_this_machine_is_looked_at_more_often(
    nursery: trio.Nursery, received: int, seconds: float
) -> None:
    desk = Desk(received=received)
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    assert desk.loop.peek_seconds() == seconds


async def test_a_ref_that_moved_on_this_machine_is_fetched(nursery: trio.Nursery) -> None:
    desk = Desk(seen="one")
    nursery.start_soon(desk.loop.serve_sync)
    await desk.rounds(1)
    desk.seen = "two"
    await desk.rounds(2)
    assert desk.requests[1].fetch


async def test_what_another_clone_pushes_into_one_that_is_local_only_is_ingested(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(loop, "PEEK_SECONDS", 0.001)
    looks: list[int] = []
    desk = Desk(Mode(True, interval_seconds=1000.0), tip="one", peek=lambda: looks.append(1) or desk.seen, seen="one")
    nursery.start_soon(desk.loop.serve_sync)
    assert await desk.loop.force(SECONDS) is not None
    looks.clear()
    await desk.until(lambda: len(looks) > 5)
    assert len(desk.requests) == 1, "where it left the branch"
    desk.tip = desk.seen = "two"
    await desk.until(lambda: len(desk.requests) == 2)
    assert desk.requests[1] == SyncRequest(fetch=False, push=False)


@pytest.mark.parametrize("error", [OSError("no"), ValueError("embedded null byte"), struct.error("damaged")])
async def test_care_and_looks_that_stumble_end_nothing_and_are_logged_once(
    error: Exception, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(loop, "PEEK_SECONDS", 0.001)
    looks: list[int] = []

    def stumble() -> str | None:
        looks.append(1)
        raise error

    desk = Desk(peek=stumble, tidy=lambda: tombstoned(stumble()))
    nursery.start_soon(desk.loop.serve_sync)
    for _ in range(3):
        assert await desk.loop.force(SECONDS) is not None
    await desk.until(lambda: len(looks) > 20)
    assert sorted(record.message.partition(":")[0] for record in caplog.records) == [
        "looking at the remote",
        "packing the branch",
    ]


async def test_a_look_that_hangs_holds_up_neither_rounds_nor_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PEEK_SECONDS_MAX", 0.01)
    gate, looks = threading.Event(), list[int]()

    def hang() -> str | None:
        looks.append(1)
        gate.wait(SECONDS)
        return "late"

    desk = Desk(peek=hang)
    with trio.fail_after(SECONDS / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.loop.serve_sync)
            for _ in range(3):
                assert await desk.loop.force(SECONDS) is not None
            assert looks == [1], "not again before the first one has ended"
            gate.set()
            await desk.until(lambda: len(looks) > 1)
            nursery.cancel_scope.cancel()
    assert desk.states[-1] == "stopped"


async def test_a_setting_that_changes_counts_at_once(nursery: trio.Nursery) -> None:
    desk = Desk(Mode(True, interval_seconds=1000.0))
    nursery.start_soon(desk.loop.serve_sync)
    await trio.testing.wait_all_tasks_blocked()
    desk.mode = Mode(False, interval_seconds=1000.0)
    desk.loop.poke()
    await desk.rounds(1)
    assert desk.requests == [SyncRequest(fetch=True, push=True)]


async def test_a_stop_ends_the_round_after_its_step() -> None:
    desk = Desk(gate=threading.Event())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.loop.serve_sync)
        await desk.until(lambda: len(desk.requests) == 1)
        nursery.cancel_scope.cancel()
    assert desk.stopped and desk.interrupted and desk.states[-1] == "stopped"
