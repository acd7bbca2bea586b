"""The command line inside the daemon: a launcher's argv, run against the same dispatcher as any client's calls."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from thrum import api
from thrum.cli import app
from thrum.cli.terminal import NeedsOwnProcess, Session
from thrum.errors import InvalidParams
from thrum.identity.evidence import Failed
from thrum.identity.runtime import Link
from thrum.paths import Places
from thrum.rpc.client import Client
from thrum.rpc.direct import open_direct
from thrum.rpc.dispatch import Dispatcher, PeerConnection
from thrum.rpc.run import RunIO


class LauncherTerminal:
    """The terminal at the other end of a launcher's connection."""

    def __init__(self, streams: RunIO, width: int, tty: int) -> None:
        self._streams = streams
        self.width = width
        self.tty = tty

    async def write_out(self, data: bytes) -> None:
        await self._streams.write_stdout(data)

    async def write_err(self, data: bytes) -> None:
        await self._streams.write_stderr(data)

    async def flush(self) -> None:
        await self._streams.flush()

    async def read_stdin(self) -> bytes:
        pieces: list[bytes] = []
        while piece := await self._streams.read_stdin():
            pieces.append(piece)
        return b"".join(pieces)


async def run_inside(
    streams: RunIO, params: api.CliRunParams, connection: PeerConnection, dispatcher: Dispatcher, places: Places
) -> int | None:
    """Exit status of the command, or None when it must run in the launcher's own process."""
    if not os.path.isabs(params.cwd) or "\0" in params.cwd:
        raise InvalidParams("cwd must be an absolute path", field="cwd")
    async with open_direct(dispatcher, connection) as client:

        @asynccontextmanager
        async def connect(wanted: Places, _autostart: bool) -> AsyncGenerator[Client]:
            await trio.lowlevel.checkpoint()
            if wanted.state_dir != places.state_dir:
                raise NeedsOwnProcess  # another repository, by --repo or THRUM_HOME
            yield client

        session = Session(
            terminal=LauncherTerminal(streams, params.width, params.tty),
            env=params.env,
            cwd=params.cwd,
            local=False,
            connect=connect,
            key=params.client_key,
            links=lambda: _links(connection),
        )
        try:
            return await app.run(list(params.argv), session)
        except NeedsOwnProcess:
            return None


def _links(connection: PeerConnection) -> Sequence[Link]:
    """The launcher's ancestors; none if they cannot be read: then they choose nothing, and prove nothing either."""
    try:
        return connection.evidence.links(trio.current_time())
    except Failed:
        return ()
