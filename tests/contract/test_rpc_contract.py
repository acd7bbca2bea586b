"""One suite for every way to call the daemon: in-process, over the socket with trio, and blocking (rpc.md §11.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.daemon.served import HEALTHY, UNCONFIRMED, Ops, claimed, serving
from tests.support.named import named
from thrum.identity.caller import claim_not_used
from thrum.model.errors import (
    AnswerTooLarge,
    DaemonUnavailable,
    ForeignKind,
    InternalError,
    InvalidParams,
    MessageNotFound,
    ShuttingDown,
    ThrumError,
    TimedOut,
    UnknownMethod,
)
from thrum.model.methods.agents import AGENT_WHOAMI, WhoamiResult
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.messages import (
    MESSAGE_LIST,
    MESSAGE_OUTBOX,
    MESSAGE_SEND,
    MESSAGE_WAIT,
    MessageListParams,
    SendParams,
    SendResult,
)
from thrum.model.methods.method import AnyMethod, Empty
from thrum.rpc._peercred import Peer
from thrum.rpc.client import BlockingClient, Client, open_client
from thrum.rpc.direct import open_direct
from thrum.rpc.dispatch import Call, Dispatcher, Drain, PeerConnection
from thrum.rpc.listener import bind_listener


@dataclass
class Way:
    client: Client
    ops: Ops
    drain: Drain


class _InThread:
    """The blocking client, called from another thread."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self.warnings = client.warnings

    async def call(self, method: AnyMethod, params: Any = None) -> Any:
        return await trio.to_thread.run_sync(lambda: self._client.call(method, params, timeout_seconds=30))

    async def delivered(self) -> None:
        pass


async def _newer(call: Call, params: MessageListParams) -> Any:
    raise ForeignKind("brand_new", -32099, "something new", remedy="upgrade")


@asynccontextmanager
async def _way(kind: str, path: Path) -> AsyncGenerator[Way]:
    ops = Ops()
    handlers = ops.handlers() | {MESSAGE_OUTBOX: _newer}
    if kind == "direct":
        dispatcher = Dispatcher(handlers, claimed)
        async with open_direct(dispatcher, PeerConnection(Peer(0, 0, 1))) as client:
            yield Way(client, ops, dispatcher.drain)
        return
    async with serving(path, handlers) as served:
        if kind == "client":
            async with open_client(served.path) as client:
                yield Way(client, ops, served.dispatcher.drain)
        else:
            with BlockingClient(served.path) as client:
                yield Way(_InThread(client), ops, served.dispatcher.drain)


ways = pytest.mark.parametrize("kind", ["direct", "client", "blocking"])


@ways
async def test_parameters_may_be_a_struct_a_mapping_or_nothing(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        assert await way.client.call(HEALTH) == HEALTHY
        assert await way.client.call(HEALTH, {}) == HEALTHY
        assert await way.client.call(HEALTH, Empty()) == HEALTHY
        claimed_one = await way.client.call(AGENT_WHOAMI, Empty(caller_agent_id="alice"))
        assert isinstance(claimed_one, WhoamiResult) and claimed_one.agent_id == "alice"


@ways
async def test_what_is_to_be_said_of_the_caller_rides_beside_the_answer(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        assert await way.client.call(HEALTH) == HEALTHY
        assert way.client.warnings == []
        assert await way.client.call(HEALTH, Empty(caller_agent_id=UNCONFIRMED)) == HEALTHY
        assert way.client.warnings == [claim_not_used(UNCONFIRMED)]


@ways
async def test_text_of_every_kind_survives(kind: str, tmp_path: Path) -> None:
    text = 'ü\u2028\x00\x1b\U0001f600"\\\n'
    async with _way(kind, tmp_path / "s") as way:
        way.ops.commit.set()
        sent = await way.client.call(MESSAGE_SEND, SendParams(content=text))
        assert isinstance(sent, SendResult) and sent.message_id == f"msg_{text}"
        assert way.ops.sent == [text]


@ways
@pytest.mark.parametrize(
    ("method", "params", "error", "details"),
    [
        ("no.such", {}, UnknownMethod, {}),
        ("message.send", {}, InvalidParams, {"field": "content"}),
        ("health", {"verbose": True}, InvalidParams, {"field": "verbose"}),
        ("message.get", {"message_id": "m"}, MessageNotFound, {"suggestions": ["x"]}),
        ("team.list", {}, InternalError, {}),
    ],
)
async def test_errors_are_of_their_own_class(
    kind: str, method: str, params: dict[str, Any], error: type[ThrumError], details: dict[str, Any], tmp_path: Path
) -> None:
    async with _way(kind, tmp_path / "s") as way:
        with pytest.raises(error) as caught:
            await way.client.call(named(method), params)
        assert type(caught.value) is error
        assert caught.value.details == details
        assert await way.client.call(HEALTH) == HEALTHY


@ways
async def test_an_error_of_a_newer_daemon_keeps_its_words(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        with pytest.raises(ThrumError, match="something new") as caught:
            await way.client.call(MESSAGE_OUTBOX)
        assert (caught.value.kind, caught.value.remedy) == ("brand_new", "upgrade")


@ways
async def test_what_json_cannot_hold_is_refused_before_it_leaves(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        for params in ({"content": "\udcff"}, {"content": object()}):
            with pytest.raises(InvalidParams):
                await way.client.call(MESSAGE_SEND, params)
        assert await way.client.call(HEALTH) == HEALTHY


@ways
async def test_an_answer_beyond_the_limit_is_refused(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        with pytest.raises(AnswerTooLarge):
            await way.client.call(MESSAGE_LIST, {"page_size": 20_000})
        page = await way.client.call(MESSAGE_LIST, {"page_size": 1000})
        assert len(page.messages) == 1000


@ways
async def test_an_answer_that_was_given_is_told_as_delivered(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        way.ops.release.set()
        await way.client.call(MESSAGE_WAIT, {"author_id": "w"})
        await way.client.delivered()
        await way.ops.settled.wait()
        assert (way.ops.delivered, way.ops.lost) == (["w"], [])


@ways
async def test_a_wait_ends_with_the_daemon(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ShuttingDown) as caught:
                await way.client.call(MESSAGE_WAIT, {"author_id": "w"})
            assert caught.value.details["retry_after_ms"] > 0

        await way.ops.wait_began.wait()
        way.drain.begin(30)


@pytest.mark.parametrize("kind", ["direct", "client"])
async def test_calls_of_one_client_run_side_by_side(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(way.client.call, MESSAGE_SEND, {"content": str(number)})
        await trio.testing.wait_all_tasks_blocked()
        assert len(way.ops.sent) == 20
        assert await way.client.call(AGENT_WHOAMI) is not None
        way.ops.commit.set()


@pytest.mark.parametrize("kind", ["direct", "client"])
async def test_who_leaves_loses_the_answers_it_waits_for(kind: str, tmp_path: Path) -> None:
    async with _way(kind, tmp_path / "s") as way:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(way.client.call, MESSAGE_WAIT, {"author_id": "w"})
            await way.ops.wait_began.wait()
            nursery.cancel_scope.cancel()
        ops = way.ops
        if kind == "client":
            # The daemon hears of it when the connection ends.
            assert not ops.lost
    assert ops.lost == ["w"] and not ops.delivered


async def test_answers_that_a_command_never_printed_are_lost(tmp_path: Path) -> None:
    ops = Ops()
    ops.release.set()
    dispatcher = Dispatcher(ops.handlers(), claimed)
    async with open_direct(dispatcher, PeerConnection(Peer(0, 0, 1))) as client:
        await client.call(MESSAGE_WAIT, {"author_id": "printed"})
        await client.delivered()
        await client.call(MESSAGE_WAIT, {"author_id": "swallowed"})
    assert (ops.delivered, ops.lost) == (["printed"], ["swallowed"])


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: None, "missing"),
        (lambda path: bind_listener(path).close(), "refused"),
        (lambda path: path.write_text(""), "refused"),
        (lambda path: path.symlink_to("gone/away"), "missing"),
    ],
)
async def test_why_there_is_no_daemon_is_told_apart(
    prepare: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "s")
    with pytest.raises(DaemonUnavailable) as caught:
        async with open_client(tmp_path / "s"):
            pass
    assert caught.value.details["reason"] == reason
    with pytest.raises(DaemonUnavailable) as caught:
        BlockingClient(tmp_path / "s")
    assert caught.value.details["reason"] == reason


async def test_a_link_in_the_place_of_a_socket_is_not_followed(tmp_path: Path) -> None:
    var = tmp_path / ".thrum" / "var"
    await trio.Path(var).mkdir(parents=True)
    async with serving(tmp_path / "s", Ops().handlers()):
        await trio.Path(var / "thrum.sock").symlink_to(tmp_path / "s")
        with pytest.raises(DaemonUnavailable) as caught:
            async with open_client(var / "thrum.sock"):
                pass
    assert caught.value.details["reason"] == "missing"


async def test_a_late_answer_does_not_disturb_the_next_call(tmp_path: Path) -> None:
    ops = Ops()
    async with serving(tmp_path / "s", ops.handlers()) as served:

        def calls() -> Any:
            with BlockingClient(served.path) as client:
                with pytest.raises(TimedOut):
                    client.call(MESSAGE_WAIT, timeout_seconds=0.01)
                trio.from_thread.run_sync(ops.release.set)
                assert client.call(HEALTH) == HEALTHY
                return client.call(AGENT_WHOAMI)

        assert (await trio.to_thread.run_sync(calls)).agent_id == "bob"


async def test_an_error_raised_while_a_client_is_open_comes_out_as_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Ops().handlers()) as served:
        with pytest.raises(KeyError):
            async with open_client(served.path):
                raise KeyError
