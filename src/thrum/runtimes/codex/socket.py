"""The control socket of Codex' app-server: JSON-RPC over WebSocket over a Unix socket. One home of wsproto.

The socket is found by a link in CODEX_HOME, and the server at its end has to be this user's. Everything has a bound:
messages are at most `MESSAGE_BYTES_MAX`, each call has a deadline, and a server that breaks a rule is left. Measured
with 0.171.0; the protocol is experimental, so what is unknown is passed over.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import msgspec
import trio
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Message, Ping, Request, TextMessage
from wsproto.utilities import ProtocolError

from thrum.version import VERSION

MESSAGE_BYTES_MAX: Final = 16 << 20
CONNECT_SECONDS: Final = 10.0
CALL_SECONDS: Final = 10.0
SEND_SECONDS: Final = 10.0
_READ_BYTES: Final = 65536
_UCRED: Final = struct.Struct("3i")

Notify = Callable[[str, dict[str, Any]], None]
"""Told of each notification: its method and parameters."""


class ServerGone(Exception):
    """There is no such server, it is not this user's, or it broke the protocol. Its text says what."""


class NotAnswered(ServerGone):
    """A call was handed over, and no answer came: whether the server has acted on it is not known."""


class Refusal(Exception):
    """The server's answer is an error. Its text is the server's own, on one line."""


def control_socket(home: str) -> str:
    """Where the app-server of a CODEX_HOME listens, free of links. Raises ServerGone."""
    link = os.path.join(home, "app-server-control", "app-server-control.sock")
    path = os.path.realpath(link)
    try:
        owner = os.stat(path).st_uid
    except OSError as error:
        raise ServerGone(f"no app-server in {home}: {(error.strerror or str(error)).lower()}") from error
    if owner != os.geteuid():
        raise ServerGone(f"the app-server's socket in {home} belongs to another user")
    return path


class Connection:
    """An open connection. `serve_connection` makes it; one task reads, any may call."""

    def __init__(self, stream: trio.SocketStream, notify: Notify) -> None:
        self._stream = stream
        self._notify = notify
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._sending = trio.Lock()
        self._answers: dict[int, trio.Event] = {}
        self._answered: dict[int, dict[str, Any]] = {}
        self._last = 0
        self._parts: list[str] = []
        self._size = 0
        self._gone = trio.Event()

    async def call(self, method: str, params: dict[str, Any], seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """The result. Raises Refusal; NotAnswered, if the server may have acted on it; ServerGone, if not."""
        if self._gone.is_set():
            raise ServerGone("the connection has ended")
        self._last += 1
        number = self._last
        event = self._answers[number] = trio.Event()
        try:
            await self._send({"id": number, "method": method, "params": params})
            with trio.move_on_after(seconds):
                await event.wait()
            if (answer := self._answered.pop(number, None)) is None:
                raise NotAnswered(f"no answer to {method}")
        finally:
            self._answers.pop(number, None)
            self._answered.pop(number, None)
        if (error := answer.get("error")) is not None:
            raise Refusal(_words_of(error))
        result = answer.get("result")
        return cast("dict[str, Any]", result) if isinstance(result, dict) else {}

    async def read(self) -> None:
        """Take what comes until the server ends. Raises ServerGone."""
        try:
            while True:
                try:
                    data = await self._stream.receive_some(_READ_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise ServerGone("the connection broke") from error
                if not data:
                    raise ServerGone("the server closed the connection")
                await self._take(bytes(data))
        finally:
            self._gone.set()
            for event in self._answers.values():
                event.set()

    async def shake_hands(self) -> None:
        """WebSocket's handshake. Raises ServerGone."""
        await self._write(self._ws.send(Request(host="localhost", target="/")))
        while self._ws.state is ConnectionState.CONNECTING:
            data = await self._stream.receive_some(_READ_BYTES)
            if not data:
                raise ServerGone("it is no WebSocket server")
            await self._take(bytes(data))
        if self._ws.state is not ConnectionState.OPEN:
            raise ServerGone("it is no WebSocket server")

    async def introduce(self) -> None:
        """The app-server's own greeting: before it nothing else is answered. Raises ServerGone, Refusal."""
        await self.call("initialize", {"clientInfo": {"name": "thrum", "title": "thrum", "version": VERSION}})
        await self._send({"method": "initialized"})

    async def _send(self, message: dict[str, Any]) -> None:
        text = msgspec.json.encode(message).decode()
        async with self._sending:
            if self._gone.is_set():
                raise ServerGone("the connection has ended")
            await self._write(self._ws.send(Message(data=text)))

    async def _write(self, data: bytes) -> None:
        # Half a frame would be the end of the connection: what has begun is finished, or it is left.
        with trio.CancelScope(shield=True), trio.move_on_after(SEND_SECONDS) as scope:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._gone.set()
                raise ServerGone("the connection broke") from error
        if scope.cancelled_caught:
            self._gone.set()
            await trio.aclose_forcefully(self._stream)
            raise NotAnswered("the server does not read")

    async def _take(self, data: bytes) -> None:
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                await self._take_event(event)
        except ProtocolError as error:
            raise ServerGone(f"the server broke WebSocket's rules: {error}") from error

    async def _take_event(self, event: object) -> None:
        match event:
            case TextMessage():
                self._size += len(event.data)
                if self._size > MESSAGE_BYTES_MAX:
                    raise ServerGone("the server sent too long a message")
                self._parts.append(event.data)
                if event.message_finished:
                    text = "".join(self._parts)
                    self._parts, self._size = [], 0
                    self._take_message(text)
            case BytesMessage():
                raise ServerGone("the server sent bytes")
            case Ping():
                async with self._sending:
                    await self._write(self._ws.send(event.response()))
            case CloseConnection():
                raise ServerGone("the server closed the connection")
            case AcceptConnection():
                pass
            case _:
                raise ServerGone("it is no WebSocket server")

    def _take_message(self, text: str) -> None:
        try:
            found = msgspec.json.decode(text)
        except msgspec.MsgspecError:
            return
        if not isinstance(found, dict):
            return
        message = cast("dict[str, Any]", found)
        number, method = message.get("id"), message.get("method")
        if isinstance(method, str):
            params = message.get("params")
            # A request of the server's is for its terminals: they answer it.
            if number is None:
                self._notify(method, cast("dict[str, Any]", params) if isinstance(params, dict) else {})
        elif isinstance(number, int) and (event := self._answers.get(number)) is not None:
            self._answered[number] = message
            event.set()


async def serve_connection(home: str, notify: Notify, use: Callable[[Connection], Awaitable[None]]) -> None:
    """Connect to the app-server of a CODEX_HOME, introduce thrum, and read until the server ends; `use` begins then,
    and is cancelled at the end. Always ends with ServerGone, unless it is cancelled.
    """
    path = await trio.to_thread.run_sync(control_socket, home)
    found = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream = trio.SocketStream(found)
    try:
        connection = Connection(stream, notify)
        with trio.move_on_after(CONNECT_SECONDS) as scope:
            try:
                await found.connect(path)
                if not _is_own(found):
                    raise ServerGone("the app-server belongs to another user")
                await connection.shake_hands()
            except (trio.BrokenResourceError, OSError) as error:
                raise ServerGone(f"no app-server answers: {error}") from error
        if scope.cancelled_caught:
            raise ServerGone("the app-server does not answer")
        ended = ServerGone("the connection has ended")

        async def until_gone(part: Callable[[], Awaitable[None]], *, ends: bool) -> None:
            nonlocal ended
            try:
                await part()
            except ServerGone as error:
                ended = error
            except Refusal as error:
                ended = ServerGone(f"the app-server refuses: {error}")
            else:
                if not ends:
                    return
            nursery.cancel_scope.cancel()

        async def begin() -> None:
            await connection.introduce()
            await use(connection)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(until_gone, connection.read, ends=True))
            nursery.start_soon(partial(until_gone, begin, ends=False))
        raise ended
    finally:
        await trio.aclose_forcefully(stream)


def _is_own(connected: trio.socket.SocketType) -> bool:
    """Whether this user is at the other end; where the kernel does not say it, the socket's owner has to do."""
    if sys.platform != "linux":
        return True
    _, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid == os.geteuid()


def _words_of(error: object) -> str:
    said: object = cast("dict[str, Any]", error).get("message") if isinstance(error, dict) else error
    return " ".join(str(said or "an error without words").split())[:200]
