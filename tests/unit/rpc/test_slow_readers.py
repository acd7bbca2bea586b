"""Clients that ask and do not read: they stand in nobody's way, what is kept for them is bounded in sum (rpc.md §1)."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.daemon.served import HEALTHY, Ops, Served, Talk, request, serving, talking
from thrum.model import limits
from thrum.model.methods.daemon import HEALTH, CliRunParams, HealthResult
from thrum.model.methods.method import Empty
from thrum.rpc._memory_budget import Shared
from thrum.rpc._outbox import Outbox
from thrum.rpc.dispatch import Call, PeerConnection
from thrum.rpc.framed_run import RunIO
from thrum.rpc.server import Bounds
from thrum.rpc.stream import Gone, Wire

settled = trio.testing.wait_all_tasks_blocked
PAGE = {"page_size": 1000}
"""An answer of about 1.2 MB: more than any socket buffer here holds."""
PAGE_BYTES = 1_100_000


class Flood:
    """A connection that sends `count` requests for a page without ever reading."""

    def __init__(self, talk: Talk, count: int) -> None:
        self.talk = talk
        self._lines = b"".join(request("message.list", PAGE, n) for n in range(count))

    async def send(self) -> None:
        try:
            await self.talk.send(self._lines)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def is_closed(self) -> bool:
        """Read on: whether the end comes before the last answer."""
        while await self.talk.read_some():
            pass
        return True


@asynccontextmanager
async def floods(served: Served, connections: int, count: int) -> AsyncGenerator[Sequence[Flood]]:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        found = [Flood(await stack.enter_async_context(talking(served.path)), count) for _ in range(connections)]
        for flood in found:
            nursery.start_soon(flood.send)
            await settled()
        yield found
        nursery.cancel_scope.cancel()


async def test_who_pipelines_and_never_reads_holds_no_request_slot(tmp_path: Path) -> None:
    bounds = Bounds(requests_in_flight=8, requests_per_connection=4)
    async with (
        serving(tmp_path / "s", Ops().handlers(), bounds=bounds) as served,
        floods(served, 12, 100),
        talking(served.path) as other,
    ):
        for number in range(50):
            assert (await other.ask("message.list", {"page_size": 1}, number))["id"] == number


async def test_a_connection_with_too_much_unsent_is_read_no_further_until_it_reads(tmp_path: Path) -> None:
    ops = Ops()
    bounds = Bounds(unsent_bytes=3 * PAGE_BYTES, requests_per_connection=2)
    async with serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served, floods(served, 1, 40) as (flood,):
        # What is posted, what may be under way when the bound is reached, and the one that the socket has begun with.
        assert 3 <= ops.listed <= 3 + 2 + 1
        answered = {(await flood.talk.read())["id"] for _ in range(40)}
        assert answered == set(range(40)) and ops.listed == 40
        await settled()
        assert len(ops.delivered) == 40 and not ops.lost


async def test_the_unsent_answers_of_all_connections_are_bounded_in_sum_and_the_oldest_waits_no_longer(
    tmp_path: Path,
) -> None:
    bounds = Bounds(unsent_all_bytes=5 * PAGE_BYTES)
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served, floods(served, 8, 2) as found:
        # The youngest are served in full, whoever came first was closed.
        assert {(await found[-1].talk.read())["id"] for _ in range(2)} == {0, 1}
        assert await found[0].is_closed()
        async with talking(served.path) as reader:
            assert (await reader.ask("message.list", PAGE))["id"] == 1
        assert len(ops.lost) >= 2 * (8 - 5)


async def test_a_large_answer_to_a_reader_does_not_fall_to_many_small_ones_that_nobody_reads(tmp_path: Path) -> None:
    ops = Ops()
    bounds = Bounds(unsent_all_bytes=4 * PAGE_BYTES)
    async with serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served, floods(served, 3, 1) as found:
        async with talking(served.path) as reader:
            await reader.send(request("message.list", {"page_size": 3000}))
            await settled()
            assert len((await reader.read())["result"]["messages"]) == 3000
        assert await found[0].is_closed()


async def test_connections_that_do_not_read_make_room_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.model.limits.unread_seconds", -math.inf)
    bounds = Bounds(connections=3)
    async with serving(tmp_path / "s", Ops().handlers(), bounds=bounds) as served, floods(served, 3, 2) as found:
        async with talking(served.path) as fourth:
            assert (await fourth.ask("health"))["id"] == 1
        assert await found[0].is_closed()


async def test_a_client_that_only_ended_its_side_gets_large_answers_whole(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Ops().handlers()) as served, talking(served.path) as talk:
        await talk.send(b"".join(request("message.list", PAGE, n) for n in range(5)))
        await talk.stream.send_eof()
        await settled()
        assert {(await talk.read())["id"] for _ in range(5)} == set(range(5))
        assert await talk.read_line() == b""


async def test_a_stop_waits_for_answers_that_are_being_read(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Ops().handlers()) as served, talking(served.path) as talk:
        await talk.send(b"".join(request("message.list", PAGE, n) for n in range(3)))
        await settled()
        served.dispatcher.drain.begin(30)
        assert {(await talk.read())["id"] for _ in range(3)} == {0, 1, 2}
        await served.done.wait()


async def test_the_output_of_a_run_that_nobody_reads_is_bounded_in_sum(tmp_path: Path) -> None:
    started: list[int] = []

    async def prints(streams: RunIO, params: CliRunParams, connection: PeerConnection) -> int:
        started.append(1)
        await streams.write_stdout(b"x" * PAGE_BYTES)
        return 0

    run = request("cli.run", {"argv": ["inbox"], "cwd": "/", "frames": "raw", "program": "0.1.0"})
    bounds = Bounds(unsent_all_bytes=3 * PAGE_BYTES)
    async with (
        serving(tmp_path / "s", Ops().handlers(), bounds=bounds, run_command=prints) as served,
        AsyncExitStack() as stack,
    ):
        talks = [await stack.enter_async_context(talking(served.path)) for _ in range(4)]
        for talk in talks:
            await talk.send(run)
            await settled()
        assert len(started) == 4
        received = 0
        while data := await talks[0].read_some():
            received += len(data)
        assert received < PAGE_BYTES
        received = 0
        while data := await talks[-1].read_some():
            received += len(data)
        assert received > PAGE_BYTES


# -- what is sent


async def test_large_lines_that_are_not_whole_are_bounded_in_sum_and_the_first_begun_is_closed(tmp_path: Path) -> None:
    ops = Ops()
    ops.commit.set()
    bounds = Bounds(started_lines_bytes=400_000)
    half = request("message.send", {"content": "x" * 160_000})
    async with serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served, AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(served.path)) for _ in range(3)]
        for talk in talks:
            await talk.send(half[:-10])
            await settled()
        assert await talks[0].read_line() == b""
        for talk in talks[1:]:
            await talk.send(half[-10:])
            assert "result" in await talk.read()
        # What is whole is held no more.
        await talks[1].send(half[:-10])
        await settled()
        await talks[2].send(half)
        assert "result" in await talks[2].read()


async def test_large_requests_under_way_are_bounded_in_sum_and_small_ones_go_on(tmp_path: Path) -> None:
    ops = Ops()
    bounds = Bounds(large_requests_bytes=400_000)
    large = {"content": "x" * 160_000}
    async with (
        serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served,
        talking(served.path) as talk,
        talking(served.path) as other,
    ):
        await talk.send(request("message.send", large, 1) + request("message.send", large, 2))
        await settled()
        refused = await other.ask("message.send", large, 3)
        assert refused["error"]["data"]["kind"] == "busy" and refused["id"] == 3
        assert "retry_after_ms" in refused["error"]["data"]["details"]
        assert "result" in await other.ask("health")
        ops.commit.set()
        assert {(await talk.read())["id"] for _ in range(2)} == {1, 2}
        assert "result" in await other.ask("message.send", large, 4)


async def test_a_wait_keeps_no_large_parameters(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Ops().handlers()) as served, talking(served.path) as talk:
        answer = await talk.ask("message.wait", {"author_id": "x" * limits.large_request_bytes})
        assert answer["error"]["data"]["kind"] == "invalid_params"


async def test_what_a_run_keeps_of_its_stdin_is_bounded_in_sum_and_given_back(tmp_path: Path) -> None:
    reading = trio.Event()
    go_on = trio.Event()

    async def reads(streams: RunIO, params: CliRunParams, connection: PeerConnection) -> int:
        size = 0
        while piece := await streams.read_stdin():
            size += len(piece)
        reading.set()
        await go_on.wait()
        return size % 200

    def frames(size: int) -> bytes:
        whole = b"s" + limits.frame_bytes_max.to_bytes(4, "big") + b"y" * limits.frame_bytes_max
        return whole * (size // limits.frame_bytes_max) + b"s\0\0\0\0"

    run = request("cli.run", {"argv": ["send", "-"], "cwd": "/", "frames": "raw", "program": "0.1.0"})
    bounds = Bounds(large_requests_bytes=10 * limits.frame_bytes_max)
    async with (
        serving(tmp_path / "s", Ops().handlers(), bounds=bounds, run_command=reads) as served,
        talking(served.path) as first,
        talking(served.path) as second,
        talking(served.path) as third,
    ):
        await first.send(run + frames(8 * limits.frame_bytes_max))
        await reading.wait()
        await second.send(run)
        received = b""
        with contextlib.suppress(trio.BrokenResourceError):
            await second.send(frames(8 * limits.frame_bytes_max))
        while data := await second.read_some():
            received += data
        assert b"too many large requests" in received and received.endswith(b"x\0\0\0\1\1")
        go_on.set()
        while await first.read_some():
            pass
        await third.send(run + frames(8 * limits.frame_bytes_max))
        received = b""
        while data := await third.read_some():
            received += data
        assert b"Error" not in received


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_garbage_leaves_others_their_turn_after_every_line(tmp_path: Path) -> None:
    lines = 2_000
    async with serving(tmp_path / "s", Ops().handlers()) as served, talking(served.path) as talk:
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await talk.send(b"!\n" * lines)
        for _ in range(lines):
            assert (await talk.read())["error"]["code"] == -32700
        trio.lowlevel.remove_instrument(turns)
        assert turns.count >= lines


# -- the outbox by itself


@asynccontextmanager
async def outbox(bytes_max: int = 1 << 30) -> AsyncGenerator[tuple[Outbox, socket.socket, list[str]]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    gone: list[str] = []
    with theirs, Wire(ours, stall_seconds=60) as wire:
        async with trio.open_nursery() as nursery:
            yield Outbox(wire, nursery, Shared(bytes_max), lambda: gone.append("gone")), theirs, gone
            nursery.cancel_scope.cancel()


async def read_to(theirs: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await trio.lowlevel.wait_readable(theirs)
        data += theirs.recv(1 << 20)
    return data


async def test_pieces_go_out_whole_and_in_order_and_each_hears_its_fate_once() -> None:
    async with outbox() as (box, theirs, gone):
        pieces = [bytes([n % 251]) * (1 + (n * 7919) % 30_000) for n in range(500)]
        fates: list[tuple[int, bool]] = []
        for n, piece in enumerate(pieces):
            box.post(piece, lambda delivered, n=n: fates.append((n, delivered)))
        assert 0 < len(fates) < 500
        assert await read_to(theirs, sum(map(len, pieces))) == b"".join(pieces)
        await box.wait_below(1)
        assert fates == [(n, True) for n in range(500)] and not gone
        assert box.held_since == math.inf


async def test_a_sender_that_is_cancelled_has_sent_all_the_same() -> None:
    async with outbox() as (box, theirs, _):
        with trio.move_on_after(0):
            await box.send(b"x" * 2_000_000)
        box.post(b"next\n")
        assert (await read_to(theirs, 2_000_005)).endswith(b"xnext\n")


async def test_once_the_other_end_is_gone_everything_is_lost_and_said_so_once() -> None:
    async with outbox() as (box, theirs, gone):
        fates: list[bool] = []
        box.post(b"x" * 2_000_000, fates.append)
        box.post(b"y", fates.append)
        theirs.close()
        await settled()
        box.post(b"z", fates.append)
        with pytest.raises(Gone):
            await box.send(b"z")
        assert fates == [False, False, False] and gone == ["gone"]


# -- how much of a turn


async def test_requests_that_came_together_do_not_all_begin_in_one_turn(tmp_path: Path) -> None:
    turns = Turns()
    begun: Counter[int] = Counter()

    async def slow(call: Call, params: Empty) -> HealthResult:
        begun[turns.count] += 1
        end = time.perf_counter() + 0.01
        while time.perf_counter() < end:
            pass
        return HEALTHY

    async with serving(tmp_path / "s", {HEALTH: slow}) as served, AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(served.path)) for _ in range(8)]
        trio.lowlevel.add_instrument(turns)
        for talk in talks:
            await talk.send(b"".join(request("health", {}, n) for n in range(5)))
        for talk in talks:
            assert {(await talk.read())["id"] for _ in range(5)} == set(range(5))
        trio.lowlevel.remove_instrument(turns)
    assert sum(begun.values()) == 40 and max(begun.values()) == 1


async def test_a_list_or_an_object_of_a_large_request_is_bounded_and_a_text_is_not(tmp_path: Path) -> None:
    ops = Ops()
    ops.commit.set()
    many = ["a"] * (limits.structure_bytes_max // 4 + 10)
    nested = {"x": [[]] * (limits.structure_bytes_max // 3 + 10)}
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        for field, value in (("to", many), ("structured", nested), ("nobody", many)):
            refused = (await talk.ask("message.send", {"content": "x", field: value}))["error"]["data"]
            assert (refused["kind"], refused["details"]["field"]) == ("invalid_params", field)
        assert "result" in await talk.ask("message.send", {"content": "[" * (2 << 20)})
        # In a large line that is no request nothing more is looked for.
        await talk.send(b'{"id":7,"nobody":"' + b"x" * 100_000 + b'"}\n')
        refused = await talk.read()
        assert (refused["error"]["code"], refused["id"]) == (-32600, None)
        assert "result" in await talk.ask("health")
