"""A command that runs in the daemon for a launcher, or for a JSON-RPC client (rpc.md §6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import trio

from thrum.model import limits
from thrum.model.errors import NotAvailable, ThrumError
from thrum.model.methods.daemon import CLI_RUN, CliRunParams, CliRunResult
from thrum.rpc import _framing as framing
from thrum.rpc._memory_budget import Large
from thrum.rpc.dispatch import Call, Handler, PeerConnection, internal_error
from thrum.rpc.jsonrpc import RequestId, encode_error
from thrum.rpc.stream import Gone

_STDIN_FRAMES = 2
"""That wait to be asked for. A launcher sends one when it is asked."""


class RunIO(Protocol):
    """The three streams of a command, wherever its launcher is."""

    async def write_stdout(self, data: bytes) -> None: ...

    async def write_stderr(self, data: bytes) -> None: ...

    async def read_stdin(self) -> bytes:
        """The next bytes, `b""` at the end. Nothing is read before it is asked for."""
        ...

    async def flush(self) -> None:
        """Until everything written so far is out of the launcher's hands. Only then may messages be marked."""
        ...


RunCommand = Callable[[RunIO, CliRunParams, PeerConnection], Awaitable["int | None"]]
"""Runs one command line and gives its exit status; None, before anything was written or read: it must run in the
launcher's own process. It is cancelled when the launcher goes away."""


class Streams(NamedTuple):
    """What a raw run needs of its connection."""

    receive: Callable[[], Awaitable[bytes]]
    """Some bytes, `b""` at the end."""
    send: Callable[[bytes], Awaitable[None]]
    """Returns when all is handed over. Raises Gone."""
    large: Large
    """Where what it keeps of stdin is counted."""
    received: bytes
    """What came before."""


class FramedRun:
    """The streams of a raw run. When the launcher goes away, `cancel` is called and their users are cancelled."""

    def __init__(self, streams: Streams, cancel: Callable[[], None]) -> None:
        self._streams = streams
        self._cancel = cancel
        self._to_stdin, self._stdin = trio.open_memory_channel[bytes](_STDIN_FRAMES)
        self._stdin_ended = False
        self._stdin_bytes = self._counted = 0
        self._flushed = trio.Event()
        self.begun = False
        """Whether the launcher was sent a frame."""

    async def write_stdout(self, data: bytes) -> None:
        await self._write(framing.STDOUT, data)

    async def write_stderr(self, data: bytes) -> None:
        await self._write(framing.STDERR, data)

    async def _write(self, kind: bytes, data: bytes) -> None:
        # All of it at once: so what waits is counted, and a run whose output is not read is bounded like any other
        # answer.
        if data:
            await self.send(b"".join(framing.output_frames(kind, data)))

    async def read_stdin(self) -> bytes:
        if self._stdin_ended:
            return b""
        try:
            data = self._stdin.receive_nowait()
        except trio.WouldBlock:
            await self.send(framing.frame(framing.WANT_STDIN))
            data = await self._stdin.receive()
        self._stdin_ended = not data
        self._count(data)
        return data

    def _count(self, data: bytes) -> None:
        """Commands keep their whole stdin. Raises Busy."""
        self._stdin_bytes += len(data)
        if self._stdin_bytes > limits.large_request_bytes:
            self._counted += self._streams.large.take_more(self._stdin_bytes - self._counted)

    def close(self) -> None:
        """The run is over, and with it what it kept."""
        self._streams.large.give_back(self._counted)
        self._counted = 0

    async def flush(self) -> None:
        if self.begun:
            self._flushed = trio.Event()
            await self.send(framing.frame(framing.FLUSH))
            await self._flushed.wait()

    async def send(self, data: bytes) -> None:
        self.begun = True
        try:
            await self._streams.send(data)
        except Gone:
            self._cancel()
            await trio.lowlevel.checkpoint()

    async def serve_input(self) -> None:
        """Take what the launcher sends, until it goes away or breaks the rules."""
        splitter = framing.FrameSplitter()
        data = self._streams.received
        while True:
            try:
                frames = splitter.feed(data)
            except ValueError:
                break
            for frame in frames:
                if frame.kind == framing.FLUSHED:
                    self._flushed.set()
                else:
                    await self._to_stdin.send(frame.payload)
            data = await self._streams.receive()
            if not data:
                break
        self._cancel()


class CollectedRun:
    """The streams of a run whose whole output is one JSON answer. It is flushed when it is written."""

    def __init__(self, stdin: str) -> None:
        self._stdin = stdin.encode()
        self._stdout: list[bytes] = []
        self._stderr: list[bytes] = []

    async def write_stdout(self, data: bytes) -> None:
        self._stdout.append(data)

    async def write_stderr(self, data: bytes) -> None:
        self._stderr.append(data)

    async def read_stdin(self) -> bytes:
        data, self._stdin = self._stdin, b""
        return data

    async def flush(self) -> None:
        pass

    def result(self, status: int) -> CliRunResult:
        stdout = b"".join(self._stdout).decode(errors="replace")
        stderr = b"".join(self._stderr).decode(errors="replace")
        return CliRunResult(status, stdout, stderr)


def collected_run_handler(run_command: RunCommand) -> Handler:
    """The handler of `cli.run` with `frames = json`."""

    async def run(call: Call, params: CliRunParams) -> CliRunResult:
        streams = CollectedRun(params.stdin)
        status = await run_command(streams, params, call.connection)
        if status is None:
            words = " ".join(params.argv[:2])
            raise NotAvailable(f"needs a process of its own: thrum {words}", remedy="run it in a shell")
        return streams.result(status)

    return run


async def serve_framed(
    streams: Streams,
    run_command: RunCommand,
    request_id: RequestId,
    params: CliRunParams,
    connection: PeerConnection,
) -> None:
    """Run one command over frames, to its last frame or until the launcher goes away."""
    async with trio.open_nursery() as nursery:
        run = FramedRun(streams, nursery.cancel_scope.cancel)
        nursery.start_soon(run.serve_input)
        try:
            status = await run_command(run, params, connection)
            if status is None:
                await run.send(framing.frame(framing.RUN_YOURSELF))
            else:
                await run.send(framing.frame(framing.EXIT, bytes([status & 0xFF])))
        except Exception as error:
            await _fail(run, request_id, error)
        finally:
            run.close()
        nursery.cancel_scope.cancel()


async def _fail(run: FramedRun, request_id: RequestId, error: Exception) -> None:
    """A command that failed as none should: before its first frame the launcher can still run it itself."""
    refusal = error if isinstance(error, ThrumError) else internal_error(CLI_RUN.name, error)
    if not run.begun:
        await run.send(encode_error(request_id, refusal))
        return
    # Its message may be foreign text: made harmless, and never at the start of a line.
    said = (each.encode("unicode_escape") for each in (refusal.message, refusal.remedy))
    await run.write_stderr(b"Error: %b\n  fix: %b\n" % tuple(said))
    await run.send(framing.frame(framing.EXIT, b"\x01"))
