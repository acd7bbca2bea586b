"""The command line inside the daemon: a launcher's argv, run against the same dispatcher as any client's calls."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from thrum.cli import app
from thrum.cli.caller_probe import KernelProbe
from thrum.cli.session import NeedsOwnProcess, Session
from thrum.daemon.caller_memory import Told
from thrum.identity.evidence import Failed, PeerEvidence, Registry
from thrum.identity.files import Identity
from thrum.identity.guard_modes import record_fire
from thrum.identity.processes import OwnerState
from thrum.identity.runtimes import SESSION_VARIABLE, Link
from thrum.model import limits
from thrum.model.errors import InvalidParams, ThrumError
from thrum.model.files import is_same
from thrum.model.methods.daemon import CliRunParams
from thrum.model.paths import Layout
from thrum.rpc.client import Client
from thrum.rpc.direct import open_direct
from thrum.rpc.dispatch import Dispatcher, PeerConnection
from thrum.rpc.framed_run import RunIO


class LauncherTerminal:
    """The terminal at the other end of a launcher's connection."""

    def __init__(self, streams: RunIO, params: CliRunParams) -> None:
        self._streams = streams
        self._params = params
        self.width = params.width
        self.tty = params.tty

    async def write_out(self, data: bytes) -> None:
        await self._streams.write_stdout(data)

    async def write_err(self, data: bytes) -> None:
        await self._streams.write_stderr(data)

    async def flush(self) -> None:
        await self._streams.flush()

    async def read_stdin(self) -> bytes:
        """All of it; of what is longer than any request may be, no more than shows that."""
        pieces: list[bytes] = []
        size = 0
        while size <= limits.request_line_bytes_max and (piece := await self._streams.read_stdin()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    async def offers_stdin(self) -> bool:
        """What kind of stdin a launcher has, only a process that has it too can tell."""
        if self._params.frames == "raw":
            raise NeedsOwnProcess
        return bool(self._params.stdin)


async def run_inside(
    streams: RunIO,
    params: CliRunParams,
    connection: PeerConnection,
    dispatcher: Dispatcher,
    layout: Layout,
    registry: Callable[[], Registry],
    find_layout: Callable[[Path], Layout],
    notices: Callable[[Path], Sequence[str]] = lambda root: (),
    told: Told | None = None,
) -> int | None:
    """Exit status of the command, or None when it must run in the launcher's own process."""
    if not os.path.isabs(params.cwd) or "\0" in params.cwd:
        raise InvalidParams("cwd must be an absolute path", field="cwd")
    connection.evidence.runtime_session = params.env.get(SESSION_VARIABLE, "")
    if len(params.argv) > limits.run_words_max:
        return None  # reading so many words would block others

    def find_own(start: Path) -> Layout:
        """The places of a directory: root, mark and redirect are judged here, for the launcher looked at neither."""
        found = find_layout(start)
        if found.state_dir != layout.state_dir and not is_same(found.state_dir, layout.state_dir):
            raise NeedsOwnProcess  # another repository, by --repo, THRUM_HOME or a redirect
        return found

    def noticed(stand: Callable[[], Layout]) -> Sequence[str]:
        try:
            return notices(stand().root)
        except ThrumError:
            return ()  # the command itself says what is wrong there

    async with open_direct(dispatcher, connection) as client:

        @asynccontextmanager
        async def connect(_wanted: Layout, _autostart: bool) -> AsyncGenerator[Client]:
            await trio.lowlevel.checkpoint()
            yield client

        session = Session(
            terminal=LauncherTerminal(streams, params),
            env=params.env,
            cwd=params.cwd,
            local=False,
            connect=connect,
            key=params.client_key,
            links=lambda _: _links(connection),
            find_layout=find_own,
            notices=noticed,
            caller_probe=lambda _: _LauncherProbe(connection.evidence, registry, told or Told()),
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


class _LauncherProbe(KernelProbe):
    """The `CallerProbe` of a command that runs here: the kernel's word on the launcher."""

    def __init__(self, evidence: PeerEvidence, registry: Callable[[], Registry], told: Told) -> None:
        super().__init__(evidence, registry)
        self._told = told

    def state_of(self, agent_id: str, identity: Identity | None) -> OwnerState:
        del identity  # what its file says of a process is a copy, which any process may write
        return self._state_of(self._registry().by_id.get(agent_id))

    def is_news(self, what: str) -> bool:
        try:
            chain = self._evidence.chain()
        except Failed:
            return True
        return len(chain) < 2 or self._told.is_news(chain[1].pid, chain[1].started, what)

    def record(self, outcome: str, fields: Mapping[str, Any]) -> None:
        if outcome == "allowed":
            # The daemon's own judgement of the same would be a second record.
            self._evidence.told.add(str(fields.get("expected_agent", "")))
        record_fire(outcome, fields)
