"""One way from a method's name to its answer: checks, keys, bounds, and what follows an answer."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.support.daemon.served import Ops, claimed
from thrum.identity.caller import Caller
from thrum.model import limits
from thrum.model.errors import (
    Busy,
    IdentityMismatch,
    InternalError,
    InvalidParams,
    ShuttingDown,
    TimedOut,
    UnknownMethod,
    WrongTransport,
)
from thrum.model.methods.daemon import HEALTH, HealthResult
from thrum.model.methods.method import Access, Empty, Method
from thrum.rpc._peercred import Peer
from thrum.rpc.dispatch import Call, Dispatcher, PeerConnection

PEER = Peer(0, 0, 1)


def _connection(transport: str = "U") -> PeerConnection:
    return PeerConnection(PEER, transport)


async def _call(dispatcher: Dispatcher, method: str, transport: str = "U", /, **params: Any) -> Any:
    answer = await dispatcher.dispatch(_connection(transport), method, msgspec.json.encode(params))
    return msgspec.json.decode(answer.result)


async def test_unknown_internal_and_foreign_methods_do_not_exist() -> None:
    secret = Method(name="secret", params=Empty, result=HealthResult, access=Access.INTERNAL)
    local = Method(name="local", params=Empty, result=HealthResult, transports="U")
    ops = Ops()
    dispatcher = Dispatcher({secret: ops.health, local: ops.health}, claimed)
    with pytest.raises(UnknownMethod):
        await _call(dispatcher, "no.such")
    with pytest.raises(UnknownMethod):
        await _call(dispatcher, "secret")
    assert (await _call(dispatcher, "secret", "I"))["status"] == "ok"
    assert (await _call(dispatcher, "local"))["status"] == "ok"
    with pytest.raises(WrongTransport):
        await _call(dispatcher, "local", "W")


@pytest.mark.parametrize(
    ("params", "field", "message"),
    [
        (b'{"content":"x","acting_as":"bob"}', "acting_as", "unknown field: acting_as"),
        (b'{"content":"x","scopes":[{"type":"a","value":"b","x":1}]}', None, None),
        (b"{}", "content", "missing field: content"),
        (b'{"content":"x","scopes":[{"type":"a"}]}', "scopes[0].value", "missing field: scopes[0].value"),
        (b'{"content":7}', "content", "content: expected `str`, got `int`"),
        (b'{"content":null}', "content", "content: expected `str`, got `null`"),
        (b"[]", None, "expected `object`, got `array`"),
        (b'{"content":"\xff"}', None, "not JSON"),
        (b'{"content":"x","client_key":"a b"}', "client_key", "not a client_key"),
        (b'{"content":"x","client_key":"' + b"k" * 65 + b'"}', "client_key", "not a client_key"),
    ],
)
async def test_parameters_that_do_not_fit_are_refused_by_name(params: bytes, field: str | None, message: str) -> None:
    ops = Ops()
    ops.commit.set()
    dispatcher = Dispatcher(ops.handlers(), claimed)
    if message is None:
        await dispatcher.dispatch(_connection(), "message.send", params)  # shapes inside are open to newer fields
        return
    with pytest.raises(InvalidParams, match=r"message\.send") as caught:
        await dispatcher.dispatch(_connection(), "message.send", params)
    assert message in caught.value.message
    assert caught.value.details.get("field") == field
    assert not ops.sent


async def test_who_speaks_for_others_is_told_to_speak_as_itself() -> None:
    with pytest.raises(InvalidParams) as caught:
        await _call(Dispatcher(Ops().handlers(), claimed), "message.send", content="x", disclose=True)
    assert caught.value.remedy == "send as yourself"


async def test_a_refused_caller_never_reaches_the_handler() -> None:
    def refuse(connection: PeerConnection, claim: str, method: Method) -> Caller:
        raise IdentityMismatch(f"you are not {claim}")

    ops = Ops()
    dispatcher = Dispatcher(ops.handlers(), refuse)
    for method in ops.handlers():
        params = {"message.send": {"content": "x"}, "message.get": {"message_id": "m"}}.get(method.name, {})
        with pytest.raises(IdentityMismatch):
            await _call(dispatcher, method.name, caller_agent_id="alice", **params)
    assert not ops.calls and not ops.sent


async def test_a_client_key_names_the_call_by_actor_method_and_parameters() -> None:
    ops = Ops()
    ops.commit.set()
    dispatcher = Dispatcher(ops.handlers(), claimed)

    async def key_of(**params: Any) -> Any:
        await _call(dispatcher, "message.send", **params)
        return ops.calls[-1].key

    first = await key_of(content="x", to="@bob", client_key="k.1")
    assert (first.actor, first.key, len(first.digest)) == ("bob", "k.1", 16)
    assert await key_of(to="@bob", format="markdown", content="x", client_key="k.1") == first
    other_key = await key_of(content="x", to="@bob", client_key="k.2", caller_agent_id="alice")
    assert (other_key.actor, other_key.digest) == ("alice", first.digest)
    assert (await key_of(content="y", to="@bob", client_key="k.1")).digest != first.digest
    assert await key_of(content="x") is None


async def test_an_unforeseen_error_is_logged_under_the_number_that_the_caller_gets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError) as caught:
        await _call(Dispatcher(Ops().handlers(), claimed), "team.list")
    number = caught.value.message.split()[2]
    assert number in caplog.text and "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in caught.value.message


async def test_a_request_that_takes_too_long_is_cancelled_and_says_so(autojump_clock: object) -> None:
    ops = Ops()
    with pytest.raises(TimedOut):
        await _call(Dispatcher(ops.handlers(), claimed), "message.send", content="x")
    assert trio.current_time() > 0


async def test_what_follows_an_answer_runs_once_with_its_fate() -> None:
    fates: list[str] = []

    async def later() -> None:
        await trio.lowlevel.checkpoint()
        fates.append("async ok")

    async def handler(call: Call, params: Empty) -> HealthResult:
        call.when_delivered(lambda: fates.append("ok"), lambda: fates.append("lost"))
        call.when_delivered(later)
        raise_it = call.connection.transport == "I"
        if raise_it:
            raise ShuttingDown("no")
        return await Ops().health(call, params)

    dispatcher = Dispatcher({HEALTH: handler}, claimed)
    answer = await dispatcher.dispatch(_connection(), "health", b"{}")
    assert fates == []
    await answer.deliveries.settle(True)
    await answer.deliveries.settle(True)
    assert fates == ["ok", "async ok"]
    with pytest.raises(ShuttingDown):
        await dispatcher.dispatch(_connection("I"), "health", b"{}")
    assert fates == ["ok", "async ok", "lost"]


async def test_a_hook_that_fails_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    fates: list[str] = []

    async def handler(call: Call, params: Empty) -> HealthResult:
        call.when_delivered(lambda: 1 / 0)
        call.when_delivered(lambda: fates.append("ok"))
        return await Ops().health(call, params)

    answer = await Dispatcher({HEALTH: handler}, claimed).dispatch(_connection(), "health", b"{}")
    await answer.deliveries.settle(True)
    assert fates == ["ok"] and "ZeroDivisionError" in caplog.text


async def test_a_stopping_daemon_ends_its_waits_and_finishes_the_rest() -> None:
    ops = Ops()
    dispatcher = Dispatcher(ops.handlers(), claimed)
    answers: list[str] = []

    async def send() -> None:
        answers.append((await _call(dispatcher, "message.send", content="x"))["message_id"])

    async def wait() -> None:
        with pytest.raises(ShuttingDown) as caught:
            await _call(dispatcher, "message.wait", author_id="w")
        assert caught.value.details["retry_after_ms"] > 0
        answers.append("wait")
        ops.commit.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        dispatcher.drain.begin(3)
        dispatcher.drain.begin(5)
    assert dispatcher.drain.seconds == 3
    assert answers == ["wait", "msg_x"]
    assert (ops.cancelled, ops.lost) == (["w"], ["w"])
    with pytest.raises(ShuttingDown):
        await _call(dispatcher, "message.wait")


async def test_no_more_calls_wait_than_the_limit_allows() -> None:
    ops = Ops()
    dispatcher = Dispatcher(ops.handlers(), claimed)
    async with trio.open_nursery() as nursery:
        for _ in range(limits.long_polls_max):
            nursery.start_soon(_call, dispatcher, "message.wait")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Busy):
            await _call(dispatcher, "message.wait")
        assert (await _call(dispatcher, "health"))["seq"] == 7
        ops.release.set()
    assert not dispatcher.drain._polls
