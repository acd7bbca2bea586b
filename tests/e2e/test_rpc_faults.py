"""What clients can do to a daemon: cut, garble, flood, stall. The others are served meanwhile (rpc.md §11.3)."""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from tests.support.daemon.served import Ops, Served, request, serving, talking
from thrum.model import limits
from thrum.model.methods.messages import MESSAGE_SEND
from thrum.rpc.client import open_client
from thrum.rpc.server import Bounds


async def _is_well(served: Served) -> None:
    async with talking(served.path) as talk:
        assert (await talk.ask("health"))["result"]["seq"] == 7


async def test_a_request_cut_at_any_byte_harms_nobody(tmp_path: Path) -> None:
    ops = Ops()
    line = request("message.send", {"content": "ü", "client_key": "k"})
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as caller_probe:
        for cut in range(len(line)):
            async with talking(served.path) as talk:
                await talk.send(line[:cut])
            assert "result" in await caller_probe.ask("health")
        assert ops.sent == []
        ops.commit.set()
        async with talking(served.path) as talk:
            for byte in line:
                await talk.send(bytes([byte]))
            assert "result" in await talk.read()
        assert ops.sent == ["ü"]


async def test_garbage_is_answered_line_by_line(tmp_path: Path) -> None:
    chance = random.Random(1)
    async with serving(tmp_path / "s", Ops().handlers()) as served, talking(served.path) as talk:
        for size in (1, 10, 1000, 70_000):
            garbage = chance.randbytes(size).replace(b"\n", b"?")
            await talk.send(b"!" + garbage + b"\n")
            answer = await talk.read()
            assert (answer["id"], answer["error"]["code"]) == (None, -32700)
        assert "result" in await talk.ask("health")


async def test_a_line_of_nine_mib_is_refused_and_its_sender_hears_it(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "s", Ops().handlers()) as served,
        talking(served.path) as talk,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(talk.send, request("message.send", {"content": "x" * (9 << 20)}))
        answer = await talk.read()
        assert (answer["id"], answer["error"]["data"]["kind"]) == (None, "line_too_long")
        assert await talk.read_line() == b""
        await _is_well(served)


async def test_a_line_of_the_limit_is_taken(tmp_path: Path) -> None:
    ops = Ops()
    ops.commit.set()
    room = limits.request_line_bytes_max - len(request("message.send", {"content": ""})) + 1
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        assert "result" in await talk.ask("message.send", {"content": "x" * room})
        assert len(ops.sent[0]) == room


async def test_ten_thousand_lines_at_once_are_all_answered_and_the_others_too(tmp_path: Path) -> None:
    ops = Ops()
    ops.commit.set()
    count = 10_000
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        lines = [
            request("message.send", {"content": str(n)}, n) if n % 2 else request("health", {}, n) for n in range(count)
        ]
        answered: set[int] = set()

        async def read() -> None:
            while len(answered) < count:
                answer = await talk.read()
                assert "result" in answer
                answered.add(answer["id"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.send, b"".join(lines))
            nursery.start_soon(read)
            async with talking(served.path) as other:
                for _ in range(20):
                    assert "result" in await other.ask("health")
                assert len(answered) < count
        assert answered == set(range(count))
    assert ops.sent == [str(n) for n in range(1, count, 2)]


async def test_a_client_that_sends_and_never_reads_stops_only_itself(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as greedy:
        async with trio.open_nursery() as nursery:
            flood = b"".join(request("message.list", {"page_size": 100}, n) for n in range(2000))
            nursery.start_soon(greedy.send, flood)
            for _ in range(20):
                await _is_well(served)
            nursery.cancel_scope.cancel()
        # Its answers wait in bounded number: no more were begun than may be in flight, and what the socket holds.
        assert len(ops.delivered) < 100


async def test_a_flood_of_waits_is_refused_beyond_the_limit(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        count = limits.long_polls_max + 50
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.send, b"".join(request("message.wait", {}, n) for n in range(count)))
            for _ in range(50):
                assert (await talk.read())["error"]["data"]["kind"] == "busy"
        await _is_well(served)
        assert ops.waiting == limits.long_polls_max


async def test_many_clients_that_break_off_at_random_leave_nothing_behind(tmp_path: Path) -> None:
    ops = Ops()
    ops.commit.set()
    chance = random.Random(2)
    async with serving(tmp_path / "s", ops.handlers(), bounds=Bounds(connections=40)) as served:

        async def one(seed: int) -> None:
            own = random.Random(seed)
            async with talking(served.path) as talk:
                data = b"".join(
                    request(own.choice(["health", "message.wait", "message.send"]), {"content": "x"}, n)
                    if own.random() < 0.9
                    else own.randbytes(20) + b"\n"
                    for n in range(own.randrange(20))
                )
                with trio.move_on_after(own.random() / 50):
                    try:
                        await talk.send(data[: own.randrange(len(data) + 1)])
                        while await talk.read_some():
                            pass
                    except trio.BrokenResourceError:
                        pass

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(one, chance.randrange(1 << 30))
        await trio.testing.wait_all_tasks_blocked()
        assert ops.waiting == 0
        assert not served.dispatcher.drain._polls
        await _is_well(served)
        served.dispatcher.drain.begin(30)
        await served.done.wait()


async def test_a_client_notices_the_daemons_end_in_the_middle_of_calls(tmp_path: Path) -> None:
    ops = Ops()
    errors: list[str] = []
    async with serving(tmp_path / "s", ops.handlers()) as served, open_client(served.path) as client:

        async def call() -> None:
            try:
                await client.call(MESSAGE_SEND, {"content": "x"})
            except Exception as error:
                errors.append(getattr(error, "kind", repr(error)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            served.dispatcher.drain.begin(0)
            await client.wait_closed()
        await call()
    assert errors == ["daemon_unavailable"] * 6


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="thrum-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_another_user_is_refused_whatever_the_file_permissions_say(open_directory: Path) -> None:
    stranger = "import os,socket,sys; os.setgid(65534); os.setuid(65534); s=socket.socket(socket.AF_UNIX); "
    stranger += "s.connect(sys.argv[1]); sys.stdout.buffer.write(s.recv(65536)); assert not s.recv(1)"
    async with serving(open_directory / "s", Ops().handlers()) as served:
        served.path.chmod(0o777)
        done = await trio.run_process([sys.executable, "-c", stranger, str(served.path)], capture_stdout=True)
    assert msgspec.json.decode(done.stdout)["error"]["data"]["kind"] == "foreign_user"


@pytest.mark.skipif(sys.platform != "linux", reason="the backlog of macOS refuses instead")
async def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first = socket.socket(socket.AF_UNIX)
        first.connect(str(tmp_path / "s"))

        async def make_room() -> None:
            await trio.testing.wait_all_tasks_blocked()
            listener.accept()[0].close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_room)
            with trio.fail_after(10):
                async with open_client(tmp_path / "s"):
                    pass
        first.close()
