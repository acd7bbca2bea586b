"""Connections and their bounds: order, pipelining, slow and greedy clients, and stopping."""

from __future__ import annotations

import os
import socket
import stat
from functools import partial
from pathlib import Path

import trio
import trio.testing

from tests.support.daemon.served import Ops, request, serving, talking
from thrum.identity.caller import Caller
from thrum.model.methods.daemon import DAEMON_STOP, StopParams, StopResult
from thrum.model.methods.method import Method, Params
from thrum.rpc._peercred import peer_of
from thrum.rpc.dispatch import Call, PeerConnection
from thrum.rpc.listener import bind_listener
from thrum.rpc.server import Bounds

settled = trio.testing.wait_all_tasks_blocked


def test_the_kernel_says_who_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == (os.getuid(), os.getgid(), os.getpid())


def test_the_socket_is_its_owners_alone_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_listener(path).close()
    with bind_listener(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_changing_requests_of_one_connection_reach_the_committer_in_the_order_of_their_lines(
    tmp_path: Path,
) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        for start in range(0, 300, 30):
            # Many at once, as many as may be in flight, between others that write nothing.
            lines: list[bytes] = []
            for number in range(start, start + 30):
                lines.append(request("message.send", {"content": str(number)}, number))
            await talk.send(b"".join(lines))
            await settled()
            ops.commit.set()
            answers = {(await talk.read())["id"] for _ in lines}
            assert answers == set(range(start, start + 30))
            ops.commit = trio.Event()
    assert ops.sent == [str(number) for number in range(300)]


async def test_answers_come_when_they_are_ready_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        await talk.send(request("message.wait", {}, "slow") + b"\n \r\n" + request("health", {}, "fast"))
        assert (await talk.read())["id"] == "fast"
        ops.release.set()
        assert (await talk.read())["id"] == "slow"


async def test_a_request_without_id_is_executed_though_its_sender_hangs_up(tmp_path: Path) -> None:
    ops = Ops()
    ops.commit.set()
    async with serving(tmp_path / "s", ops.handlers()) as served:
        async with talking(served.path) as talk:
            await talk.send(request("message.send", {"content": "x"}, None) + request("no.such", {}, None))
            assert (await talk.ask("health"))["id"] == 1
        await settled()
    assert ops.sent == ["x"]


async def test_a_client_that_goes_away_cancels_what_it_waits_for(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served:
        async with talking(served.path) as talk:
            await talk.send(request("message.wait", {"author_id": "w"}) + request("message.send", {"content": "x"}, 2))
            await ops.wait_began.wait()
        await ops.wait_ended.wait()
        await settled()
    assert ops.cancelled == ["w"] and ops.lost == ["w"] and not ops.delivered


async def test_who_only_ended_its_side_still_gets_its_answers_but_no_wait(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        await talk.send(request("message.wait", {}, 1) + request("message.send", {"content": "x"}, 2))
        await talk.stream.send_eof()
        await settled()
        ops.commit.set()
        assert (await talk.read())["id"] == 2
        assert await talk.read_line() == b""


async def test_what_follows_an_answer_runs_after_it_was_handed_over(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        await talk.send(request("message.wait", {"author_id": "w"}))
        await ops.wait_began.wait()
        assert not ops.delivered
        ops.release.set()
        await talk.read()
        await ops.settled.wait()
    assert (ops.delivered, ops.lost) == (["w"], [])


async def test_a_connection_is_not_read_while_too_much_of_it_is_under_way(tmp_path: Path) -> None:
    ops = Ops()
    async with (
        serving(tmp_path / "s", ops.handlers(), bounds=Bounds(requests_per_connection=3)) as served,
        talking(served.path) as talk,
        talking(served.path) as other,
    ):
        await talk.send(b"".join(request("message.send", {"content": str(n)}, n) for n in range(10)))
        await settled()
        assert ops.sent == ["0", "1", "2"]
        assert (await other.ask("health"))["result"]["seq"] == 7
        ops.commit.set()
        assert {(await talk.read())["id"] for _ in range(10)} == set(range(10))
        assert ops.sent == [str(n) for n in range(10)]


async def test_waits_are_not_counted_as_requests_in_flight(tmp_path: Path) -> None:
    ops = Ops()
    bounds = Bounds(requests_per_connection=2, requests_in_flight=3)
    async with serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served, talking(served.path) as talk:
        await talk.send(b"".join(request("message.wait", {}, n) for n in range(20)))
        await settled()
        assert ops.waiting == 20
        assert (await talk.ask("health", {}, "h"))["id"] == "h"


async def test_all_connections_together_have_a_bound(tmp_path: Path) -> None:
    ops = Ops()
    bounds = Bounds(requests_in_flight=4)
    async with (
        serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served,
        talking(served.path) as one,
        talking(served.path) as two,
    ):
        for talk in (one, two):
            await talk.send(b"".join(request("message.send", {"content": "x"}, n) for n in range(3)))
        await settled()
        assert len(ops.sent) == 4
        ops.commit.set()
        for talk in (one, two):
            assert {(await talk.read())["id"] for _ in range(3)} == {0, 1, 2}


async def test_the_longest_idle_connection_makes_room_for_a_new_one(tmp_path: Path) -> None:
    ops = Ops()
    async with (
        serving(tmp_path / "s", ops.handlers(), bounds=Bounds(connections=3)) as served,
        talking(served.path) as waits,
        talking(served.path) as idle,
        talking(served.path) as asked,
    ):
        await waits.send(request("message.wait"))
        await ops.wait_began.wait()
        await idle.ask("health")
        await asked.ask("health")
        async with talking(served.path) as fourth:
            assert (await fourth.ask("health"))["id"] == 1
            assert await idle.read_line() == b""
            assert (await asked.ask("health"))["id"] == 1
            await fourth.send(request("message.wait"))
            await asked.send(request("message.wait"))
            await settled()
            async with talking(served.path) as fifth:
                assert (await fifth.read())["error"]["data"]["kind"] == "busy"
                assert await fifth.read_line() == b""


async def test_a_started_line_must_become_whole_in_time(tmp_path: Path) -> None:
    bounds = Bounds(line_seconds=0.05)
    async with (
        serving(tmp_path / "s", Ops().handlers(), bounds=bounds) as served,
        talking(served.path) as talk,
        talking(served.path) as silent,
    ):
        await talk.send(request("health")[:20])
        assert await talk.read_line() == b""
        assert (await silent.ask("health"))["id"] == 1


async def test_a_reader_that_stands_still_is_closed_and_the_others_are_served(tmp_path: Path) -> None:
    bounds = Bounds(stall_seconds=0.05)
    ops = Ops()
    async with (
        serving(tmp_path / "s", ops.handlers(), bounds=bounds) as served,
        talking(served.path) as slow,
        talking(served.path) as other,
    ):
        await slow.send(b"".join(request("message.list", {"page_size": 1000}, n) for n in range(5)))
        assert (await other.ask("health"))["id"] == 1
        await ops.settled.wait()
        received = 0
        while data := await slow.read_some():
            received += len(data)
        assert received < 1_000_000
        assert "list" in ops.lost


async def test_an_answer_that_is_too_large_asks_for_less(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Ops().handlers()) as served, talking(served.path) as talk:
        answer = await talk.ask("message.list", {"page_size": 20_000})
        assert answer["error"]["data"]["kind"] == "answer_too_large"
        assert "result" in await talk.ask("message.list", {"page_size": 2})


async def test_a_stopping_server_answers_what_it_began_and_takes_nothing_new(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        await talk.send(request("message.wait", {}, 1) + request("message.send", {"content": "x"}, 2))
        await settled()
        served.dispatcher.drain.begin(30)
        assert (await talk.read())["error"]["data"]["kind"] == "shutting_down"
        await talk.send(request("message.send", {"content": "y"}, 3))
        answer = await talk.read()
        assert (answer["id"], answer["error"]["data"]["kind"]) == (3, "shutting_down")
        ops.commit.set()
        assert (await talk.read())["id"] == 2
        await served.done.wait()
        assert await talk.read_line() == b""
    assert ops.sent == ["x"]


async def test_a_stop_cuts_off_what_outlasts_its_time(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served, talking(served.path) as talk:
        await talk.send(request("message.send", {"content": "x"}))
        await settled()
        served.dispatcher.drain.begin(0.05)
        await served.done.wait()
        assert await talk.read_line() == b""


async def test_a_handler_can_stop_the_server_once_its_answer_is_out(tmp_path: Path) -> None:
    async def stop(call: Call, params: StopParams) -> StopResult:
        drain = served.dispatcher.drain
        call.when_delivered(partial(drain.begin, params.drain_ms / 1000), drain.begin)
        return StopResult(True)

    async with serving(tmp_path / "s", {DAEMON_STOP: stop}) as served, talking(served.path) as talk:
        assert (await talk.ask("daemon.stop"))["result"] == {"stopping": True}
        await served.done.wait()


async def test_every_request_is_judged_anew_by_the_connections_evidence(tmp_path: Path) -> None:
    met: list[PeerConnection] = []
    seen: list[tuple[object, str]] = []

    def met_first(connection: PeerConnection) -> None:
        connection.evidence = len(met)
        met.append(connection)

    def identify(connection: PeerConnection, method: Method, params: Params) -> Caller:
        seen.append((connection.evidence, params.caller_agent_id))
        return Caller("bob", "agent")

    async with serving(tmp_path / "s", Ops().handlers(), identify=identify, on_connect=met_first) as served:
        async with talking(served.path) as talk:
            await talk.ask("health")
            await talk.ask("health", {"caller_agent_id": "bob"})
            assert met[0].alive and met[0].peer.pid == os.getpid()
        await settled()
        assert not met[0].alive
    assert seen == [(0, ""), (0, "bob")]
