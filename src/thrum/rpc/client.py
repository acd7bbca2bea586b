"""The daemon, reached over its Unix socket: a trio client and a blocking one.

`call` takes a method's constant (`thrum.model.methods`) and its parameters, returns its result, and raises the classes
of `thrum.model.errors`. No client starts a daemon: the `reason` of DaemonUnavailable says whether that would help.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import msgspec
import trio

from thrum.model import limits
from thrum.model.errors import DaemonUnavailable, InvalidParams, TimedOut
from thrum.model.guards import Refusal, refusal_error
from thrum.model.methods.method import AnyMethod, Method, P, Params, R
from thrum.rpc import _framing as framing
from thrum.rpc import sockets
from thrum.rpc._peercred import peer_of
from thrum.rpc.jsonrpc import Reply, decode_reply, encode_request, error_of
from thrum.rpc.stream import Gone, Wire

_encode = msgspec.json.Encoder().encode
_CHUNK = 64 * limits.KIB
_FULL = frozenset({errno.EAGAIN, errno.ENOTCONN})
"""A full backlog, as connect and the first send see it."""
_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ECONNREFUSED: "refused",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
}
_RETRY_SECONDS_MAX = 0.25


class Client(Protocol):
    """What `rpc.client` and `rpc.direct` have in common; one contract suite tests both."""

    warnings: list[str]
    """What the daemon said beside its answers, in order."""

    async def call(self, method: Method[P, R], params: P | None = None) -> R:
        """The result of `method`; without `params` each has its default."""
        ...

    async def delivered(self) -> None:
        """The answers so far have reached the user."""
        ...


def encode_params(params: Params | None) -> bytes:
    """The JSON text of a parameter object. Raises InvalidParams for what JSON can't hold."""
    try:
        return b"{}" if params is None else _encode(params)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParams(f"the parameters can't be written as JSON: {error}") from None


@cache
def _decoder(method: AnyMethod) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(method.result)


def decode_result(method: Method[Any, R], text: bytes | msgspec.Raw) -> R:
    """The result that the JSON `text` holds."""
    return _decoder(method).decode(text)


def _unavailable(path: Path | str, error: OSError) -> DaemonUnavailable:
    reason = _REASONS.get(error.errno or 0, "failed")
    why = "no daemon is running" if reason in ("missing", "refused") else (error.strerror or str(error))
    return DaemonUnavailable(f"cannot reach the daemon at {path}: {why}", reason=reason)


def _died(path: Path | str) -> DaemonUnavailable:
    return DaemonUnavailable(f"the daemon at {path} closed the connection", reason="closed")


# -- trio


class RpcClient:
    """One connection, any number of calls at a time. A call that is cancelled is still executed by the daemon."""

    def __init__(self, wire: Wire, path: Path | str) -> None:
        self._wire = wire
        self._path = path
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Pending] = {}
        self._closed = trio.Event()
        self.warnings: list[str] = []

    async def call(self, method: Method[P, R], params: P | None = None) -> R:
        """The result of `method`. Raises the ThrumErrors of the call; DaemonUnavailable if the daemon went."""
        if self._closed.is_set():
            raise _died(self._path)
        number = next(self._ids)
        line = encode_request(number, method.name, encode_params(params))
        pending = self._waiting[number] = _Pending()
        try:
            try:
                await self._wire.send(line)
            except Gone:
                # What it said last may be on the way: the reader sees to its end.
                pass
            reply = await pending.wait()
        finally:
            del self._waiting[number]
        if reply is None:
            raise _died(self._path)
        self.warnings += reply.warnings
        return _result(method, reply)

    async def delivered(self) -> None:
        """The daemon saw to it when it handed the answer over."""

    async def wait_closed(self) -> None:
        """Until the daemon is gone: what shows its death earliest."""
        await self._closed.wait()

    async def serve_replies(self) -> None:
        """Hand out what comes; `open_client` runs it."""
        lines = framing.LineSplitter(limits.answer_line_bytes_max)
        try:
            while data := await self._wire.receive():
                for line in lines.feed(data):
                    self._hand_out(decode_reply(line))
        except (framing.Overlong, msgspec.DecodeError, UnicodeDecodeError):
            pass  # it is no daemon of ours: as good as none
        finally:
            self._closed.set()
            for pending in self._waiting.values():
                pending.set(None)

    def _hand_out(self, reply: Reply) -> None:
        if isinstance(reply.id, int):
            if (pending := self._waiting.get(reply.id)) is not None:
                pending.set(reply)
        elif reply.id is None:
            # About the connection as a whole: it refuses us, or a line of ours.
            for pending in self._waiting.values():
                pending.set(reply)


class _Pending:
    """One answer that is waited for."""

    __slots__ = ("_came", "_reply")

    def __init__(self) -> None:
        self._came = trio.Event()
        self._reply: Reply | None = None

    def set(self, reply: Reply | None) -> None:
        if not self._came.is_set():
            self._reply = reply
            self._came.set()

    async def wait(self) -> Reply | None:
        await self._came.wait()
        return self._reply


def _result(method: Method[Any, R], reply: Reply) -> R:
    error = error_of(reply)
    if error is not None:
        raise error
    return decode_result(method, b"null" if reply.result is msgspec.UNSET else reply.result)


@asynccontextmanager
async def open_client(
    path: Path | str, *, connect_seconds: float = limits.start_seconds_max
) -> AsyncGenerator[RpcClient]:
    """Connect to the daemon's socket at `path`. Leaving closes the connection: open calls of it are cancelled.

    A full backlog is waited for, `connect_seconds` at most. Raises DaemonUnavailable with `reason` in its details:
    `missing`, `refused` (no daemon listens: one may be started), `forbidden` (a sandbox: it may not), `busy`, `failed`.
    """
    failure: BaseException | None = None
    with Wire(await _connect(path, connect_seconds), stall_seconds=math.inf) as wire:
        client = RpcClient(wire, path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.serve_replies)
            try:
                yield client
            except (trio.Cancelled, GeneratorExit):
                raise
            except BaseException as error:
                failure = error  # past the nursery, which would wrap it in a group
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _connect(path: Path | str, seconds: float) -> socket.socket:
    deadline = trio.current_time() + seconds
    pause = 0.002
    while True:
        connected = _try_connect(path)
        if isinstance(connected, socket.socket):
            return connected
        error = connected
        if error.errno not in _FULL:
            raise _unavailable(path, error) from error
        if trio.current_time() > deadline:
            raise DaemonUnavailable(f"the daemon at {path} is too busy to answer", reason="busy") from error
        await trio.sleep(pause)
        pause = min(pause * 2, _RETRY_SECONDS_MAX)


def _try_connect(path: Path | str) -> socket.socket | OSError:
    """Raises ForeignUser when another user's process listens there: it could read along and answer anything."""
    attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    attempt.setblocking(False)
    try:
        sockets.connect(path, attempt.connect)
    except OSError as error:
        attempt.close()
        # Too long a path can hold no socket.
        return error if error.errno else FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if (uid := peer_of(attempt).uid) != os.getuid():
        attempt.close()
        raise refusal_error(Refusal("unauthenticated_rpc", "foreign_uid", owner_uid=uid), caller_pid=os.getpid())
    return attempt


# -- blocking


class BlockingClient:
    """The same for programs without trio; one call at a time, for one thread."""

    def __init__(self, path: Path | str, *, connect_seconds: float = limits.start_seconds_max) -> None:
        """Connect; raises as `open_client` does."""
        self._path = path
        self._ids = itertools.count(1)
        self._lines = framing.LineSplitter(limits.answer_line_bytes_max)
        self._came: list[bytes] = []
        self._socket = self._connect(connect_seconds)
        self.warnings: list[str] = []

    def _connect(self, seconds: float) -> socket.socket:
        deadline = time.monotonic() + seconds
        pause = 0.002
        while True:
            connected = _try_connect(self._path)
            if isinstance(connected, socket.socket):
                connected.setblocking(True)
                return connected
            error = connected
            if error.errno not in _FULL:
                raise _unavailable(self._path, error) from error
            if time.monotonic() > deadline:
                raise DaemonUnavailable(f"the daemon at {self._path} is too busy to answer", reason="busy") from error
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_SECONDS_MAX)

    def call(self, method: Method[P, R], params: P | None = None, *, timeout_seconds: float | None = None) -> R:
        """The result of `method`. Raises the ThrumErrors of the call; DaemonUnavailable if the daemon went.

        After `timeout_seconds` TimedOut; the daemon may still carry it out, and later calls are not disturbed.
        """
        number = next(self._ids)
        line = encode_request(number, method.name, encode_params(params))
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        try:
            self._socket.settimeout(timeout_seconds)
            self._socket.sendall(line)
        except TimeoutError as error:
            self.close()  # half a line is on the way
            raise TimedOut(f"{method.name}: the daemon does not read") from error
        except OSError:
            pass  # its last word may be on the way
        while True:
            reply = self._next_reply(method.name, deadline)
            if reply.id == number or reply.id is None:
                self.warnings += reply.warnings
                return _result(method, reply)

    def _next_reply(self, method: str, deadline: float | None) -> Reply:
        while not self._came:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimedOut(f"{method}: no answer in time")
            try:
                self._socket.settimeout(remaining)
                data = self._socket.recv(_CHUNK)
                self._came += self._lines.feed(data)
            except TimeoutError as error:
                raise TimedOut(f"{method}: no answer in time") from error
            except (OSError, framing.Overlong) as error:
                raise _died(self._path) from error
            if not data:
                raise _died(self._path)
        try:
            return decode_reply(self._came.pop(0))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _died(self._path) from error

    def fileno(self) -> int:
        """For select: readable without a call under way means that the daemon is gone."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
