"""A served dispatcher with handlers of the tests' own, and lines to talk to it by hand."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from thrum.identity.caller import Caller, claim_not_used
from thrum.model.errors import MessageNotFound
from thrum.model.events import Body
from thrum.model.methods.agents import AGENT_WHOAMI, TEAM_LIST, TeamListParams, TeamListResult, WhoamiResult
from thrum.model.methods.daemon import CLI_RUN, HEALTH, HealthResult
from thrum.model.methods.messages import (
    MESSAGE_GET,
    MESSAGE_LIST,
    MESSAGE_SEND,
    MESSAGE_WAIT,
    MessageGetParams,
    MessageGetResult,
    MessageListParams,
    MessageListResult,
    SendParams,
    SendResult,
    WaitParams,
    WaitResult,
)
from thrum.model.methods.method import AnyMethod, Empty, Params
from thrum.model.wire_types import Message
from thrum.rpc.dispatch import Call, Dispatcher, Handler, Handlers, Identify, PeerConnection
from thrum.rpc.framed_run import RunCommand, collected_run_handler
from thrum.rpc.listener import bind_listener
from thrum.rpc.server import Bounds, serve_rpc

HEALTHY = HealthResult(
    status="ok",
    uptime_ms=1,
    version="0.1.0",
    protocol=1,
    repo_id="r_test",
    pid=1,
    epoch="e",
    seq=7,
    sync_state="idle",
    local_only=False,
)
BOB = Caller("bob", "agent", proven=True)


UNCONFIRMED = "unconfirmed"
"""A claim that is not used, with a warning."""


def claimed(connection: PeerConnection, method: AnyMethod, params: Params) -> Caller:
    """Believes every claim: who calls is identity's business and tested there."""
    claim = params.caller_agent_id
    if claim == UNCONFIRMED:
        return Caller(None, warnings=(claim_not_used(claim),))
    return Caller(claim, "agent") if claim else BOB


@dataclass
class Ops:
    """Handlers that answer, wait, fail or write when told to."""

    sent: list[str] = field(default_factory=list[str])
    """Contents in the order in which the fake committer got them."""
    cancelled: list[str] = field(default_factory=list[str])
    delivered: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    settled: trio.Event = field(default_factory=trio.Event)
    waiting: int = 0
    listed: int = 0
    wait_began: trio.Event = field(default_factory=trio.Event)
    wait_ended: trio.Event = field(default_factory=trio.Event)
    release: trio.Event = field(default_factory=trio.Event)
    commit: trio.Event = field(default_factory=trio.Event)
    calls: list[Call] = field(default_factory=list[Call])

    def handlers(self) -> dict[AnyMethod, Handler]:
        return {
            HEALTH: self.health,
            MESSAGE_SEND: self.send,
            MESSAGE_GET: self.get,
            MESSAGE_LIST: self.list,
            MESSAGE_WAIT: self.wait,
            AGENT_WHOAMI: self.whoami,
            TEAM_LIST: self.team,
        }

    async def health(self, call: Call, params: Empty) -> HealthResult:
        self.calls.append(call)
        return HEALTHY

    async def send(self, call: Call, params: SendParams) -> SendResult:
        """Hands its decision over at once, and answers when it is committed."""
        self.calls.append(call)
        self.sent.append(params.content)
        await self.commit.wait()
        return SendResult(
            message_id=f"msg_{params.content[:20]}",
            created_at="2026-02-03T10:00:00.000Z",
            seq=len(self.sent),
            resolved_to=1,
            audiences=(),
            recipients=(),
        )

    async def get(self, call: Call, params: MessageGetParams) -> MessageGetResult:
        raise MessageNotFound(f"message not found: {params.message_id}", suggestions=["x"])

    async def list(self, call: Call, params: MessageListParams) -> MessageListResult:
        """A big answer: `page_size` messages of 1 KiB."""
        self.listed += 1
        call.when_delivered(partial(self.delivered.append, "list"), partial(self._settle, self.lost, "list"))
        body = Body("plain", "x" * 1024)
        one = Message(message_id="m", seq=1, agent_id="a", body=body, created_at="", deleted=False, is_read=True)
        return MessageListResult(messages=(one,) * params.page_size, unread=0)

    async def wait(self, call: Call, params: WaitParams) -> WaitResult:
        call.when_delivered(
            partial(self._settle, self.delivered, params.author_id), partial(self._settle, self.lost, params.author_id)
        )
        self.waiting += 1
        self.wait_began.set()
        try:
            await self.release.wait()
        except trio.Cancelled:
            self.cancelled.append(params.author_id)
            raise
        finally:
            self.waiting -= 1
            self.wait_ended.set()
        return WaitResult(status="timeout", messages=(), next_seq=1, epoch="e", remaining=0)

    def _settle(self, where: list[str], what: str) -> None:
        where.append(what)
        self.settled.set()

    async def whoami(self, call: Call, params: Empty) -> WhoamiResult:
        agent_id = call.caller.agent_id or ""
        return WhoamiResult(agent_id=agent_id, role="r", module="m", display="", source="flags")

    async def team(self, call: Call, params: TeamListParams) -> TeamListResult:
        raise ZeroDivisionError("a bug")


@dataclass
class Served:
    path: Path
    dispatcher: Dispatcher
    nursery: trio.Nursery
    done: trio.Event


@asynccontextmanager
async def serving(
    path: Path,
    handlers: Handlers,
    *,
    identify: Identify = claimed,
    bounds: Bounds | None = None,
    run_command: RunCommand | None = None,
    on_connect: Callable[[PeerConnection], None] | None = None,
    request_seconds: float = 10.0,
) -> AsyncGenerator[Served]:
    """A server on `path`, in this process."""
    all_handlers = dict(handlers)
    if run_command is not None:
        all_handlers[CLI_RUN] = collected_run_handler(run_command)
    dispatcher = Dispatcher(all_handlers, identify, request_seconds=request_seconds)
    done = trio.Event()
    listener = bind_listener(path)

    async def serve() -> None:
        await serve_rpc(
            [listener],
            dispatcher,
            run_command=run_command,
            program="0.1.0",
            bounds=bounds,
            on_connect=on_connect,
        )
        done.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield Served(path, dispatcher, nursery, done)
            nursery.cancel_scope.cancel()


class Talk:
    """A connection by hand: bytes out, lines in."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(self, method: str, params: Any = None, request_id: int | str = 1) -> dict[str, Any]:
        await self.send(request(method, params, request_id))
        return await self.read()

    async def read(self) -> dict[str, Any]:
        line = await self.read_line()
        assert line, "the connection was closed"
        return msgspec.json.decode(line)

    async def read_line(self) -> bytes:
        """One line, `b""` at the end."""
        while b"\n" not in self._buffer:
            data = await self.read_some()
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    async def read_some(self) -> bytes:
        try:
            return await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return b""


@asynccontextmanager
async def talking(path: Path) -> AsyncGenerator[Talk]:
    connected = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await connected.connect(str(path))
    async with trio.SocketStream(connected) as stream:
        yield Talk(stream)


def request(method: str, params: Any = None, request_id: int | str | None = 1) -> bytes:
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    if request_id is not None:
        body["id"] = request_id
    return msgspec.json.encode(body) + b"\n"
