"""JSON-RPC over a Unix socket: connections, pipelined requests, and every bound of rpc.md §1.

One task reads a connection, one task each executes a request. Requests that write are started in the order of their
lines, and a handler hands its decision to the committer before its first other await: so they commit in that order.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import trio

from thrum.model import limits
from thrum.model.errors import Busy, InvalidParams, InvalidRequest, LineTooLong, ThrumError
from thrum.model.guards import Refusal, refusal_error, refusal_fields
from thrum.model.methods.daemon import CLI_RUN, CliRunParams
from thrum.model.methods.method import AnyMethod
from thrum.rpc import _framing as framing
from thrum.rpc._memory_budget import Large, Shared
from thrum.rpc._outbox import Outbox
from thrum.rpc._pace import Pace
from thrum.rpc._peercred import Peer, peer_of
from thrum.rpc.dispatch import Answer, Deliveries, Dispatcher, PeerConnection, invalid_params
from thrum.rpc.framed_run import RunCommand, Streams, serve_framed
from thrum.rpc.jsonrpc import BadRequest, Request, RequestId, check_large, decode_request, encode_answer, encode_error
from thrum.rpc.listener import Spare
from thrum.rpc.stream import Gone, Wire

log = logging.getLogger("thrum.rpc")

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one server allows; tests make it small."""

    connections: int = limits.connections_max
    requests_per_connection: int = limits.requests_per_connection_max
    requests_in_flight: int = limits.requests_in_flight_max
    line_bytes: int = limits.request_line_bytes_max
    line_seconds: float = limits.line_seconds_max
    stall_seconds: float = limits.answer_stall_seconds_max
    unsent_bytes: int = limits.unsent_bytes_max
    unsent_all_bytes: int = limits.unsent_all_bytes_max
    started_lines_bytes: int = limits.started_lines_bytes_max
    large_requests_bytes: int = limits.large_requests_bytes_max


async def serve_rpc(
    listeners: Sequence[socket.socket],
    dispatcher: Dispatcher,
    *,
    run_command: RunCommand | None = None,
    program: str = "",
    on_connect: Callable[[PeerConnection], None] | None = None,
    on_arrival: Callable[[PeerConnection], Awaitable[None]] | None = None,
    bounds: Bounds | None = None,
) -> None:
    """Serve until `dispatcher.drain` begins and its calls are done or its seconds are over.

    Closes the listeners when it stops to accept. `run_command` executes `cli.run` with raw frames; a launcher whose
    `program` differs is told to run the command itself. `on_connect` sees each peer as it connects,
    `on_arrival` before its first request.
    """
    server = _Server(dispatcher, run_command, program, on_connect, on_arrival, bounds or Bounds())
    try:
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
    finally:
        server.pace.close()


class _Server:
    """What the connections of one server share."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        run_command: RunCommand | None,
        program: str,
        on_connect: Callable[[PeerConnection], None] | None,
        on_arrival: Callable[[PeerConnection], Awaitable[None]] | None,
        bounds: Bounds,
    ) -> None:
        self.dispatcher = dispatcher
        self.run_command = run_command
        self.program = program
        self.on_connect = on_connect
        self.on_arrival = on_arrival
        self.bounds = bounds
        self.slots = trio.Semaphore(bounds.requests_in_flight)
        self.unsent = Shared(bounds.unsent_all_bytes)
        self.started = Shared(bounds.started_lines_bytes)
        self.pace = Pace()
        self.large = Large(bounds.large_requests_bytes)
        self.background: trio.Nursery
        self._uid = os.getuid()
        self._connections: set[_Connection] = set()
        self._active = 0
        self._quiet = trio.Event()

    # -- accepting

    async def serve_listener(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        spare = Spare()
        is_short = False
        with listener, contextlib.closing(spare):
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    accepted, _ = listener.accept()
                    is_short = False
                except (BlockingIOError, ConnectionError, InterruptedError):
                    continue
                except OSError as error:
                    if error.errno not in _SHORTAGES:
                        raise
                    if not is_short:
                        log.warning("cannot accept: %s", error)
                    is_short = True
                    self._close_idlest()
                    await spare.turn_away(listener)
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
            return Busy("too many connections", retry_after_ms=limits.retry_after_ms, limit=self.bounds.connections)
        return None

    def _close_idlest(self) -> bool:
        """Close the connection that has asked nothing for the longest time, or else the one that has not read its
        answers for the longest time; False if all of them wait for answers.
        """
        now = trio.current_time()
        idle = [connection for connection in self._connections if connection.unanswered == 0]
        if idle:
            idlest = min(idle, key=lambda connection: connection.idle_since)
        else:
            idlest = min(self._connections, key=lambda connection: connection.outbox.held_since, default=None)
            if idlest is None or idlest.outbox.held_since > now - limits.unread_seconds:
                return False
        self._connections.discard(idlest)
        idlest.abort()
        return True

    async def _serve_connection(self, connection: _Connection) -> None:
        try:
            if self.on_arrival is not None:
                await self.on_arrival(connection.peer)
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
    """From here on the connection belongs to one run.

    `received`: what came behind its line; `size`: what it has taken of the room for large requests.
    """

    request_id: RequestId
    params: CliRunParams
    received: bytes
    size: int


class _Connection:
    """One client: a reader, and a task for each of its requests."""

    def __init__(self, server: _Server, wire: Wire, peer: Peer) -> None:
        self.peer = PeerConnection(peer)
        self.idle_since = trio.current_time()
        self.unanswered = 0
        self.outbox = Outbox(wire, server.background, server.unsent, self.abort)
        self.held_since = math.inf
        """When the line began that is not whole yet, if it is a large one."""
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

    def give_up(self) -> None:
        """Large lines that are not whole hold too much memory, and this one began first."""
        log.info("a connection is closed: too many large requests are incomplete")
        self._hold_line(0)
        self.abort()

    def close(self) -> None:
        self.peer.alive = False
        self._hold_line(0)
        self.outbox.close()
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
            data = await self._receive(deadline)
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
            self._hold_line(self._lines.pending)
            begun = bool(lines)
            for number, line in enumerate(lines):
                if line and not line.isspace() and (takeover := await self._take(line, requests)) is not None:
                    received = b"".join(later + b"\n" for later in lines[number + 1 :]) + self._lines.rest()
                    self._hold_line(0)
                    return takeover._replace(received=received)
            # A connection that waits for its next line keeps nothing of the last one.
            del data, lines
            if not self._lines.pending:
                deadline = math.inf
            elif begun or deadline == math.inf:
                deadline = trio.current_time() + self._server.bounds.line_seconds

    async def _receive(self, deadline: float) -> bytes | None:
        """Some bytes, `b""` at the end, None after the deadline."""
        if deadline == math.inf:
            return await self._wire.receive()
        with trio.CancelScope(deadline=deadline):
            return await self._wire.receive()
        return None

    def _hold_line(self, size: int) -> None:
        """A line of which `size` bytes came so far is not whole. It is counted when it is a large one."""
        if size <= limits.large_request_bytes:
            size = 0
        if size or self.held_since != math.inf:
            self.held_since = min(self.held_since, trio.current_time()) if size else math.inf
            self._server.started.set(self, size)

    async def _finish_half_closed(self) -> None:
        """`printf … | nc -N` has sent everything and still listens: it gets its answers, but waits end."""
        if self._wire.is_hung_up():
            self.peer.alive = False
            return
        for _ in range(self._server.bounds.requests_per_connection):
            await self._slots.acquire()
        await self.outbox.wait_below(1)

    async def _refuse_line(self) -> None:
        limit = self._server.bounds.line_bytes
        self._hold_line(0)
        self.outbox.post(encode_error(None, LineTooLong(f"a line has more than {limit} bytes", limit=limit)))
        await self.outbox.wait_below(1)
        await self._wire.close_kindly(self._server.bounds.line_seconds)

    async def _take(self, line: bytes, requests: trio.Nursery) -> _Takeover | None:
        """Start what one line asks for. Waits as long as too much is under way, or the answers are not read."""
        await self.outbox.wait_below(self._server.bounds.unsent_bytes)
        server = self._server
        size = 0
        try:
            request = decode_request(line)
            if server.dispatcher.drain.begun:
                if request.id is msgspec.UNSET:
                    return None
                raise BadRequest(server.dispatcher.drain.refuse(), request.id)
            method = server.dispatcher.method(request.method)
            if len(line) > limits.large_request_bytes:
                await trio.lowlevel.checkpoint()
            size = self._make_room(len(line), request, method)
            if request.method == CLI_RUN.name and (takeover := self._takeover(request, size)) is not None:
                return takeover
        except BadRequest as bad:
            server.large.give_back(size)
            self.outbox.post(encode_error(bad.id, bad.error))
            # Nothing has been awaited yet: a client that only sends garbage must not starve the others.
            await trio.lowlevel.checkpoint()
            return None
        held = self._slots_of(method)
        try:
            for slots in held:
                await _acquire(slots)
        except trio.Cancelled:
            server.large.give_back(size)
            raise
        self._begin()
        # A notification is not cancelled when its sender goes away.
        nursery = requests if request.id is not msgspec.UNSET else server.background
        mutating = method is not None and method.mutating
        nursery.start_soon(self._execute, request, held, size, mutating)
        if mutating:
            # trio runs the tasks of one round in any order. This one's first step is in an earlier round than the next.
            await trio.lowlevel.checkpoint()
        return None

    def _make_room(self, size: int, request: Request, method: AnyMethod | None) -> int:
        """Count a large request: what is to be given back of it. Raises BadRequest."""
        try:
            if size > limits.large_request_bytes and method is not None and method.long_poll and method is not CLI_RUN:
                # It would keep its place for as long as it waits.
                message = f"{method.name}: the parameters of a wait take {limits.large_request_bytes} bytes at most"
                raise InvalidParams(message, limit=limits.large_request_bytes, bytes=size)
            if size > limits.large_request_bytes:
                check_large(request.params)
            return self._server.large.take(size)
        except ThrumError as error:
            raise BadRequest(error, _id_of(request)) from None

    def _slots_of(self, method: AnyMethod | None) -> Sequence[trio.Semaphore]:
        """What a request occupies. A run may wait for an hour, so it is bound only within its connection."""
        if method is CLI_RUN:
            return (self._runs,)
        return () if method is not None and method.long_poll else (self._slots, self._server.slots)

    async def _execute(self, request: Request, held: Sequence[trio.Semaphore], size: int, mutating: bool) -> None:
        """Make the answer and post it. What the request occupied is free before the answer is sent."""
        line: bytes | None = None
        deliveries: Deliveries | None = None
        try:
            if not mutating:  # their order is that of their lines
                await self._server.pace.wait()
            line, deliveries = await self._answer(request)
        finally:
            self._server.large.give_back(size)
            for slots in held:
                slots.release()
            if line is None:
                self._end()
        if line is not None:
            self.outbox.post(line, partial(self._settle, deliveries))

    async def _answer(self, request: Request) -> tuple[bytes | None, Deliveries | None]:
        """The line to be sent, None if none is wanted, and what waits for its fate."""
        answer: Answer | None = None
        try:
            answer = await self._server.dispatcher.dispatch(self.peer, request.method, request.params)
            if request.id is not msgspec.UNSET:
                return encode_answer(request.id, answer.result, answer.warnings), answer.deliveries
            error = None
        except ThrumError as refused:
            error = refused
        if answer is not None:
            await answer.deliveries.settle(False)
        if request.id is not msgspec.UNSET and error is not None:
            return encode_error(request.id, error), None
        if error is not None:
            log.warning("%s, which wants no answer: %s: %s", request.method, error.kind, error.message)
        return None, None

    def _settle(self, deliveries: Deliveries | None, delivered: bool) -> None:
        """An answer was handed over, or is lost."""
        if deliveries:
            self._server.background.start_soon(deliveries.settle, delivered)
        self._end()

    def _begin(self) -> None:
        self.unanswered += 1
        self._server.begin()

    def _end(self) -> None:
        self.unanswered -= 1
        if self.unanswered == 0:
            self.idle_since = trio.current_time()
        self._server.end()

    # -- a command for a launcher

    def _takeover(self, request: Request, size: int) -> _Takeover | None:
        """The run that a `cli.run` begins, if it is a raw one. Raises BadRequest."""
        if self._server.run_command is None:
            return None
        request_id = _id_of(request)
        try:
            params = _run_params.decode(request.params)
        except msgspec.ValidationError as error:
            raise BadRequest(invalid_params(CLI_RUN.name, error), request_id) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(
                InvalidParams(f"{CLI_RUN.name}: the parameters are not JSON: {error}"), request_id
            ) from None
        if params.frames != "raw":
            return None
        if self.unanswered or request_id is None:
            message = "cli.run with raw frames needs an id, and a connection without open requests"
            raise BadRequest(InvalidRequest(message), request_id)
        return _Takeover(request_id, params, b"", size)

    async def _run(self, run: _Takeover, run_command: RunCommand) -> None:
        self._begin()
        try:
            if run.params.program != self._server.program:
                self.outbox.post(framing.frame(framing.RUN_YOURSELF))
                await self.outbox.wait_below(1)
                return
            await self._server.pace.wait()
            streams = Streams(self._wire.receive, self.outbox.send, self._server.large, run.received)
            await serve_framed(streams, run_command, run.request_id, run.params, self.peer)
        finally:
            self._server.large.give_back(run.size)
            self._end()


_run_params = msgspec.json.Decoder(CliRunParams)


def _id_of(request: Request) -> RequestId | None:
    return None if request.id is msgspec.UNSET else request.id


async def _acquire(slots: trio.Semaphore) -> None:
    """Without a checkpoint when one is free."""
    try:
        slots.acquire_nowait()
    except trio.WouldBlock:
        await slots.acquire()
