"""What must hold while several things happen at once in one daemon: waits, hints, marks, files, a truncated stream."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.daemon.in_process import Agent, open_daemon
from tests.support.here import HandClock
from thrum.bus.publisher import Publisher
from thrum.daemon import launch
from thrum.daemon.shutdown import Ending
from thrum.model.errors import DaemonLocked, DaemonUnavailable, InternalError, InvalidParams, StoreFailed
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.messages import MESSAGE_SEND
from thrum.model.paths import Layout
from thrum.rpc.client import RpcClient
from thrum.rpc.dispatch import Drain
from thrum.rpc.stream import Gone, Wire
from thrum.store.queries.views import View, Wanted


async def arrived(agent: Agent, results: list[Any], **params: Any) -> None:
    try:
        results.append(await agent("message.wait", **{"timeout_ms": 60_000} | params))
    except InternalError as error:
        results.append(error)


def contents(result: Any) -> list[str]:
    return [message.body.content for message in result.messages]


# -- waits


async def test_a_look_that_fails_is_its_waiters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        failed: list[Any] = []
        told: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: arrived(nux, failed, since="now"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(arrived, daemon.as_agent("nux"), told)
            await trio.testing.wait_all_tasks_blocked()

            look = View.matching_among

            def fail(view: View, wanted: Wanted, ids: Sequence[str]) -> Any:
                if not wanted.unseen:
                    raise sqlite3.OperationalError("database is locked")
                return look(view, wanted, ids)

            monkeypatch.setattr(View, "matching_among", fail)
            await furiosa("message.send", content="wake", to=["nux"])
        assert isinstance(failed[0], InternalError) and contents(told[0]) == ["wake"]
        assert daemon.parts.wait_queues.is_empty


async def test_waits_are_woken_although_the_bus_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")

        def fail(*_args: Any, **_named: Any) -> None:
            raise RuntimeError("no bus")

        monkeypatch.setattr(Publisher, "publish", fail)
        told: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrived, nux, told)
            await trio.testing.wait_all_tasks_blocked()
            await furiosa("message.send", content="wake", to=["nux"])
        assert contents(told[0]) == ["wake"]


@pytest.mark.parametrize(
    "method, params",
    [
        ("message.wait", {"timeout_ms": 0, "since": 2**63}),
        ("message.wait", {"timeout_ms": 0, "since": -1}),
        ("message.list", {"after_seq": 2**63}),
        ("message.list", {"page": 2**63}),
        ("message.outbox", {"page": 2**63}),
    ],
)
async def test_a_number_that_no_database_holds_is_refused(tmp_path: Path, method: str, params: dict[str, Any]) -> None:
    async with open_daemon(tmp_path) as daemon:
        nux = await daemon.registered("nux")
        with pytest.raises(InvalidParams):
            await nux(method, **params)


# -- events.since


async def test_a_follower_is_told_of_a_burst_longer_than_one_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.model.limits.since_scan_max", 2)
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        await nux("message.send", content="session", to=["furiosa"])
        answers: list[Any] = []

        async def follow() -> None:
            after = daemon.ctx.view.head_seq()
            params = {"after_seq": after, "topics": ["agent/nux/"], "wait_ms": 60_000}
            answers.append(await nux("events.since", **params))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            # One batch, of which the first look sees what is not asked for.
            for _ in range(5):
                nursery.start_soon(lambda: nux("message.send", content="other", to=["furiosa"]))
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(lambda: furiosa("message.send", content="mine", to=["nux"]))
        assert answers[0].more or answers[0].events, "it slept on although there was more to look at"


async def test_a_long_look_lets_others_have_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrum.daemon.event_feed._SLICE_SECONDS", 0)
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await daemon.registered("nux")
        for number in range(20):
            await furiosa("message.send", content=str(number), to=["nux"])
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            answer = await furiosa("events.since", after_seq=0, limit=1000)
            nursery.cancel_scope.cancel()
        assert len(answer.events) >= 20 and turns >= 20


async def test_a_journal_that_was_edited_under_the_projection_has_it_rebuilt(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa = await daemon.registered("furiosa")
        await daemon.registered("nux")
        sent = await furiosa("message.send", content="as it was", to=["nux"])
        path = daemon.ctx.here.layout.branch_dir / "messages" / "furiosa.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"event_id":"evt_', b'"event_id":"evx_'))
        with pytest.raises(StoreFailed):
            await furiosa("events.since", after_seq=sent.seq - 1)
        assert daemon.parts.committer.cause == "database_damaged"


# -- marks


async def test_marking_all_takes_turns_and_spares_what_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.ops.messages._MARKED_AT_ONCE", 2)
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        for number in range(5):
            await furiosa("message.send", content=str(number), to=["nux"])
        whole = daemon.store.committer.commit
        commits = 0

        async def commit(*args: Any, **named: Any) -> Any:
            nonlocal commits
            result = await whole(*args, **named)
            commits += 1
            if commits == 1:
                await furiosa("message.send", content="late", to=["nux"])
            return result

        monkeypatch.setattr(daemon.store.committer, "commit", commit)
        marked = await nux("message.markRead", all=True)
        assert (marked.marked_count, marked.remaining) == (5, 1)
        assert contents(await nux("message.list", for_agent="nux", unread=True)) == ["late"]


async def test_what_came_just_at_the_moment_is_marked_and_not_called_skipped(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        furiosa, nux = await daemon.registered("furiosa"), await daemon.registered("nux")
        sent = await furiosa("message.send", content="x", to=["nux"])
        marked = await nux("message.markRead", message_ids=[sent.message_id], marked_before=sent.created_at)
        assert (marked.marked_count, marked.skipped_count) == (1, 0)


# -- files beside the journal


async def test_a_registration_whose_file_cannot_be_written_says_so_and_is_fixed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_daemon(tmp_path) as daemon:
        home = tmp_path / "w"
        home.mkdir()
        nobody = daemon.as_agent("", str(home))
        wanted = {"name": "nux", "role": "implementer", "module": "nux"}

        def full(*_args: Any, **_named: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "nux.json")

        with monkeypatch.context() as disk:
            disk.setattr("thrum.identity.files.atomic_write", full)
            with pytest.raises(StoreFailed, match=r"identity file could not be written: nux.json: No space left"):
                await nobody("agent.register", **wanted)
        again = await nobody("agent.register", **wanted)
        assert again.agent_id == "nux"
        assert (home / ".thrum" / "identities" / "nux.json").exists()


# -- a stream that is truncated


@contextmanager
def pair() -> Generator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    with Wire(ours) as wire, theirs:
        yield wire, theirs


async def test_nothing_is_sent_behind_a_line_that_was_cut_off() -> None:
    with pair() as (wire, theirs):
        with trio.move_on_after(0.01):
            await wire.send(b"x" * 8_000_000)
        with pytest.raises(Gone):
            await wire.send(b"a new line\n")
        received = b""
        while data := theirs.recv(1 << 20):
            received += data
        assert received.strip(b"x") == b""


async def test_a_cancelled_sender_that_has_sent_nothing_tears_nothing() -> None:
    with pair() as (wire, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, b"x" * 4_000_000)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.01):
                await wire.send(b"never\n")
            received = 0
            theirs.setblocking(False)
            while received < 4_000_000:
                await trio.lowlevel.wait_readable(theirs)
                received += len(theirs.recv(1 << 20))
        await wire.send(b"next\n")
        assert theirs.recv(100) == b"next\n"


async def test_a_client_whose_call_was_truncated_says_that_the_daemon_is_gone(tmp_path: Path) -> None:
    with pair() as (wire, theirs):
        client = RpcClient(wire, tmp_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.serve_replies)
            with trio.move_on_after(0.01):
                await client.call(MESSAGE_SEND, {"content": "x" * 8_000_000})
            await client.wait_closed()
            with pytest.raises(DaemonUnavailable):
                await client.call(HEALTH)
            nursery.cancel_scope.cancel()
        del theirs


# -- the end of a daemon


def test_an_end_for_good_prevails_over_a_new_life_whichever_came_first() -> None:
    async def main() -> None:
        first, second = Ending(Drain()), Ending(Drain())
        first.reopen()
        assert first.again
        first.stop()
        second.stop()
        second.reopen()
        assert not first.again and not second.again and not second.lost

    trio.run(main)


def layout_in(root: Path) -> Layout:
    (root / ".thrum" / "var").mkdir(parents=True)
    (root / ".git" / "thrum-sync").mkdir(parents=True)
    return Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")


@contextmanager
def lock_held(layout: Layout, pid: int) -> Generator[None]:
    descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, f"{pid}\n".encode())
        yield
    finally:
        os.close(descriptor)


def test_a_stop_is_over_when_another_daemon_has_the_lock(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    with lock_held(layout, 4_000_002):
        assert launch.wait_until_gone(layout, 4_000_001, 0.0)
        assert not launch.wait_until_gone(layout, 4_000_002, 0.0)


def test_no_other_program_is_killed_for_the_pid_in_the_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.model.limits.start_seconds_max", 0.05)
    layout = layout_in(tmp_path)
    # This very process: it would not live to see the end of the test.
    with lock_held(layout, os.getpid()), pytest.raises(DaemonLocked):
        launch.stop_running(layout, insist=True)


# -- clocks


DAY_MS = 86_400_000


@pytest.mark.parametrize("jump_ms", [-30 * DAY_MS, -3_600_000, -1, DAY_MS - 60_000, 40 * DAY_MS])
async def test_a_clock_that_jumps_disorders_nothing_neither_while_running_nor_over_restarts(
    tmp_path: Path, jump_ms: int
) -> None:
    clock = HandClock()
    ids: list[str] = []
    for life in range(4):
        async with open_daemon(tmp_path, clock) as daemon:
            if life == 0:
                await daemon.registered("furiosa")
                await daemon.registered("nux")
            furiosa, nux = daemon.as_agent("furiosa"), daemon.as_agent("nux")
            for step in range(3):
                text = f"{life} {step}"
                sent = await furiosa("message.send", content=text, to=["nux"])
                ids.append(sent.message_id)
                told = await nux("message.wait", timeout_ms=0)
                assert contents(told) == [text], "told once, at once"
                for message_id in (ids[0], sent.message_id):
                    await furiosa("message.edit", message_id=message_id, content=f"edited {text}")
                    found = (await nux("message.get", message_id=message_id)).message
                    assert found.body.content == f"edited {text}", "an edit takes effect where it is made"
                await furiosa("session.setIntent", intent=text)
                assert (await furiosa("agent.whoami")).intent == text
                clock.ms += jump_ms if step == 1 else 5
            clock.ms += -jump_ms if life % 2 else 1
    assert len(set(ids)) == len(ids)
    if abs(jump_ms) < DAY_MS:  # beyond it a clock that was wrong is not gone on with
        assert ids == sorted(ids), "ids rise as they were given"
