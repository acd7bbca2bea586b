"""JSON-RPC over a Unix socket: connections, pipelined requests, and every bound of rpc.md §1.

One task reads a connection, one task each carries out a request. Requests that write are started in the order of their
lines, and a handler hands its decision to the committer before its first other await: so they commit in that order.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from thrum import api, limits
from thrum.errors import Busy, InvalidParams, InvalidRequest, LineTooLong, ThrumError
from thrum.identity.guards import Refusal, refusal_error, refusal_fields
from thrum.rpc import framing
from thrum.rpc.dispatch import RETRY_AFTER_MS, RUN, Deliveries, Dispatcher, PeerConnection, invalid_params
from thrum.rpc.jsonrpc import BadRequest, Request, RequestId, decode_request, encode_answer, encode_error
from thrum.rpc.peercred import Peer, peer_of
from thrum.rpc.run import RunCommand, serve_framed
from thrum.rpc.wire import Gone, Wire

log = logging.getLogger("thrum.rpc")

_SPARE_FILES = 256
_ACCEPT_PAUSE_SECONDS = 0.05


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one server allows; tests make it small."""

    connections: int = limits.connections_max
    requests_per_connection: int = limits.requests_per_connection_max
    requests_in_flight: int = limits.requests_in_flight_max
    line_bytes: int = limits.request_line_bytes_max
    line_seconds: float = limits.line_seconds_max
    stall_seconds: float = limits.answer_stall_seconds_max


def bind_listener(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, 0600; one that was left there is replaced. Call it under the daemon's lock.

    Raises OSError: path too long, or a file system that takes no sockets.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(limits.listen_backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def raise_open_file_limit(connections: int = limits.connections_max) -> None:
    """Let this process hold that many connections, as far as the hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve_rpc(
    listeners: Sequence[socket.socket],
    dispatcher: Dispatcher,
    *,
    run_command: RunCommand | None = None,
    program: str = "",
    on_connect: Callable[[PeerConnection], None] | None = None,
    bounds: Bounds | None = None,
) -> None:
    """Serve until `dispatcher.drain` begins and its calls are done or its seconds are over.

    Closes the listeners when it stops to accept. `run_command` carries out `cli.run` with raw frames; a launcher whose
    `program` differs is told to run the command itself. `on_connect` sees each peer before its first request.
    """
    server = _Server(dispatcher, run_command, program, on_connect, bounds or Bounds())
    async with trio.open_nursery() as background:
        server.background = background
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as acceptors:
                for listener in listeners:
                    acceptors.start_soon(server.serve_listener, listener, connections)
                await dispatcher.drain.wait_begun()
                acceptors.cancel_scope.cancel()
            with trio.move_on_after(dispatcher.drain.seconds):
                await server.wait_quiet()
            connections.cancel_scope.cancel()


class _Server:
    """What the connections of one server share."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        run_command: RunCommand | None,
        program: str,
        on_connect: Callable[[PeerConnection], None] | None,
        bounds: Bounds,
    ) -> None:
        self.dispatcher = dispatcher
        self.run_command = run_command
        self.program = program
        self.on_connect = on_connect
        self.bounds = bounds
        self.slots = trio.Semaphore(bounds.requests_in_flight)
        self.background: trio.Nursery
        self._uid = os.getuid()
        self._connections: set[_Connection] = set()
        self._active = 0
        self._quiet = trio.Event()

    # -- accepting

    async def serve_listener(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        with listener:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    accepted, _ = listener.accept()
                except (BlockingIOError, ConnectionError, InterruptedError):
                    continue
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    log.warning("cannot accept: %s", error)
                    self._close_idlest()
                    await trio.sleep(_ACCEPT_PAUSE_SECONDS)
                    continue
                self._admit(accepted, nursery)

    def _admit(self, accepted: socket.socket, nursery: trio.Nursery) -> None:
        wire = Wire(accepted, stall_seconds=self.bounds.stall_seconds)
        try:
            peer = peer_of(accepted)
        except OSError as error:
            log.warning("the kernel does not say who connects: %s", error)
            wire.close()
            return
        if (refusal := self._refusal(peer)) is not None:
            nursery.start_soon(_refuse, wire, refusal)
            return
        connection = _Connection(self, wire, peer)
        if self.on_connect is not None:
            self.on_connect(connection.peer)
        self._connections.add(connection)
        nursery.start_soon(self._serve_connection, connection)

    def _refusal(self, peer: Peer) -> ThrumError | None:
        if peer.uid != self._uid:
            refusal = Refusal("unauthenticated_rpc", "foreign_uid", owner_uid=self._uid)
            fields = refusal_fields(refusal, caller_pid=peer.pid) | {"caller_uid": peer.uid, "outcome": "denied"}
            log.warning("identity_guard_fire", extra={"fields": fields})
            return refusal_error(refusal, caller_pid=peer.pid)
        if len(self._connections) >= self.bounds.connections and not self._close_idlest():
            return Busy("too many connections", retry_after_ms=RETRY_AFTER_MS, limit=self.bounds.connections)
        return None

    def _close_idlest(self) -> bool:
        """Close the connection that has asked nothing for the longest time; False if all of them wait for answers."""
        idle = [connection for connection in self._connections if connection.unanswered == 0]
        if not idle:
            return False
        idlest = min(idle, key=lambda connection: connection.idle_since)
        self._connections.discard(idlest)
        idlest.abort()
        return True

    async def _serve_connection(self, connection: _Connection) -> None:
        try:
            await connection.serve()
        except Exception:
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)
            connection.close()

    # -- counting

    def begin(self) -> None:
        self._active += 1

    def end(self) -> None:
        self._active -= 1
        if self._active == 0:
            self._quiet.set()

    async def wait_quiet(self) -> None:
        """Until no request is under way."""
        while self._active:
            self._quiet = trio.Event()
            await self._quiet.wait()


async def _refuse(wire: Wire, refusal: ThrumError) -> None:
    with wire:
        try:
            await wire.send(encode_error(None, refusal))
        except Gone:
            pass


class _Takeover(NamedTuple):
    """From here on the connection belongs to one run. `received`: what came behind its line."""

    request_id: RequestId
    params: api.CliRunParams
    received: bytes


class _Connection:
    """One client: a reader, and a task for each of its requests."""

    def __init__(self, server: _Server, wire: Wire, peer: Peer) -> None:
        self.peer = PeerConnection(peer)
        self.idle_since = trio.current_time()
        self.unanswered = 0
        self._server = server
        self._wire = wire
        self._slots = trio.Semaphore(server.bounds.requests_per_connection)
        self._runs = trio.Semaphore(server.bounds.requests_per_connection)
        self._scope = trio.CancelScope()
        self._lines = framing.LineSplitter(server.bounds.line_bytes)

    def abort(self) -> None:
        """End it at once, with whatever it still does."""
        self.peer.alive = False
        self._scope.cancel()

    def close(self) -> None:
        self.peer.alive = False
        self._wire.close()

    async def serve(self) -> None:
        with self._scope:
            async with trio.open_nursery() as requests:
                takeover = await self._read_requests(requests)
                requests.cancel_scope.cancel()
            if takeover is not None and self._server.run_command is not None:
                await self._run(takeover, self._server.run_command)

    # -- reading

    async def _read_requests(self, requests: trio.Nursery) -> _Takeover | None:
        """Until there is nothing more to read, or a run takes the connection over."""
        deadline = math.inf
        while True:
            if deadline == math.inf:
                data = await self._wire.receive()
            else:
                data = None
                with trio.CancelScope(deadline=deadline):
                    data = await self._wire.receive()
            if data is None:
                return None
            if not data:
                await self._finish_half_closed()
                return None
            try:
                lines = self._lines.feed(data)
            except framing.Overlong:
                await self._refuse_line()
                return None
            for number, line in enumerate(lines):
                if line and not line.isspace() and (takeover := await self._take(line, requests)) is not None:
                    received = b"".join(later + b"\n" for later in lines[number + 1 :]) + self._lines.rest()
                    return takeover._replace(received=received)
            if not self._lines.pending:
                deadline = math.inf
            elif lines or deadline == math.inf:
                deadline = trio.current_time() + self._server.bounds.line_seconds

    async def _finish_half_closed(self) -> None:
        """`printf … | nc -N` has said all and still listens: it gets its answers, though no wait goes on for it."""
        if self._wire.is_hung_up():
            self.peer.alive = False
            return
        for _ in range(self._server.bounds.requests_per_connection):
            await self._slots.acquire()

    async def _refuse_line(self) -> None:
        limit = self._server.bounds.line_bytes
        await self._say(encode_error(None, LineTooLong(f"a line has more than {limit} bytes", limit=limit)))
        await self._wire.close_kindly(self._server.bounds.line_seconds)

    async def _take(self, line: bytes, requests: trio.Nursery) -> _Takeover | None:
        """Start what one line asks for. Waits as long as too much is under way, or nobody reads the answers."""
        await self._wire.wait_sent()
        server = self._server
        try:
            request = decode_request(line)
            if server.dispatcher.drain.begun:
                if request.id is msgspec.UNSET:
                    return None
                raise BadRequest(server.dispatcher.drain.refuse(), request.id)
            if request.method == RUN and (takeover := self._takeover(request)) is not None:
                return takeover
        except BadRequest as bad:
            await self._say(encode_error(bad.id, bad.error))
            return None
        method = server.dispatcher.method(request.method)
        held = self._slots_of(method)
        for slots in held:
            await _acquire(slots)
        self._begin()
        # What wants no answer is not ended by whoever sent it.
        nursery = requests if request.id is not msgspec.UNSET else server.background
        nursery.start_soon(self._carry_out, request, held)
        if method is not None and method.mutating:
            # trio runs the tasks of one round in any order. This one's first step is in an earlier round than the next.
            await trio.lowlevel.checkpoint()
        return None

    def _slots_of(self, method: api.Method | None) -> Sequence[trio.Semaphore]:
        """What a request occupies. A run may wait for an hour, so it is bound only within its connection."""
        if method is not None and method.name == RUN:
            return (self._runs,)
        return () if method is not None and method.long_poll else (self._slots, self._server.slots)

    # -- answering

    async def _carry_out(self, request: Request, held: Sequence[trio.Semaphore]) -> None:
        try:
            await self._answer(request)
        except Gone as gone:
            log.debug("a client is gone: %s", gone)
            self.abort()
        finally:
            for slots in held:
                slots.release()
            self._end()

    async def _answer(self, request: Request) -> None:
        deliveries: Deliveries | None = None
        delivered = False
        try:
            try:
                answer = await self._server.dispatcher.dispatch(self.peer, request.method, request.params)
                deliveries = answer.deliveries
                if request.id is msgspec.UNSET:
                    return
                line = encode_answer(request.id, answer.result, answer.warnings)
                await self._wire.send(line)
                delivered = True
            except ThrumError as error:
                if request.id is msgspec.UNSET:
                    log.warning("%s, which wants no answer: %s: %s", request.method, error.kind, error.message)
                    return
                await self._wire.send(encode_error(request.id, error))
        finally:
            if deliveries:
                if delivered:
                    self._server.background.start_soon(deliveries.settle, True)
                else:
                    await deliveries.settle(False)

    async def _say(self, line: bytes) -> None:
        try:
            await self._wire.send(line)
        except Gone:
            self.abort()
            await trio.lowlevel.checkpoint()

    def _begin(self) -> None:
        self.unanswered += 1
        self._server.begin()

    def _end(self) -> None:
        self.unanswered -= 1
        if self.unanswered == 0:
            self.idle_since = trio.current_time()
        self._server.end()

    # -- a command for a launcher

    def _takeover(self, request: Request) -> _Takeover | None:
        """The run that a `cli.run` begins, if it is a raw one. Raises BadRequest."""
        if self._server.run_command is None:
            return None
        request_id = _id_of(request)
        try:
            params = _run_params.decode(request.params)
        except msgspec.ValidationError as error:
            raise BadRequest(invalid_params(RUN, error), request_id) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(InvalidParams(f"{RUN}: the parameters are not JSON: {error}"), request_id) from None
        if params.frames != "raw":
            return None
        if self.unanswered or request_id is None:
            message = "cli.run with raw frames needs an id, and a connection without open requests"
            raise BadRequest(InvalidRequest(message), request_id)
        return _Takeover(request_id, params, b"")

    async def _run(self, run: _Takeover, run_command: RunCommand) -> None:
        self._begin()
        try:
            if run.params.program != self._server.program:
                await self._say(framing.frame(framing.RUN_YOURSELF))
                return
            await serve_framed(self._wire, run.received, run_command, run.request_id, run.params, self.peer)
        finally:
            self._end()


_run_params = msgspec.json.Decoder(api.CliRunParams)


def _id_of(request: Request) -> RequestId | None:
    return None if request.id is msgspec.UNSET else request.id


async def _acquire(slots: trio.Semaphore) -> None:
    """Without a checkpoint when one is free."""
    try:
        slots.acquire_nowait()
    except trio.WouldBlock:
        await slots.acquire()
