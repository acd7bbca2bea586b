"""A terminal in a root of the daemon that a test runs in its own process: real commands, real operations."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.daemon.in_process import Agent, Daemon
from thrum.cli.app import run
from thrum.cli.session import Session
from thrum.model.clock import Clock, SystemClock
from thrum.model.errors import DaemonUnavailable
from thrum.model.paths import Layout
from thrum.rpc.client import Client


@dataclass
class Terminal:
    """Runs command lines. `agent` None: no daemon runs."""

    root: Path
    agent: Agent | None
    env: dict[str, str] = field(default_factory=dict[str, str])
    local: bool = True
    tty: int = 0
    width: int = 0
    stdin: bytes = b""
    clock: Clock = field(default_factory=SystemClock)
    out: bytes = b""
    err: bytes = b""

    async def write_out(self, data: bytes) -> None:
        self.out += data

    async def write_err(self, data: bytes) -> None:
        self.err += data

    async def flush(self) -> None:
        pass

    async def read_stdin(self) -> bytes:
        return self.stdin

    async def offers_stdin(self) -> bool:
        return bool(self.stdin)

    @asynccontextmanager
    async def _connect(self, _layout: Layout, _autostart: bool) -> AsyncGenerator[Client]:
        if self.agent is None:
            raise DaemonUnavailable("no daemon is running", reason="missing")
        yield self.agent.client

    async def status(self, *argv: str, stdin: str = "") -> int:
        """Execute one command line; what it prints is in `out` and `err`."""
        self.out = self.err = b""
        self.stdin = stdin.encode()
        session = Session(self, self.env, str(self.root), self.local, self._connect, clock=self.clock)
        return await run(argv, session)

    async def says(self, *argv: str, stdin: str = "") -> str:
        """What a command that succeeds prints."""
        assert await self.status(*argv, stdin=stdin) == 0, self.err.decode()
        return self.out.decode()

    async def json(self, *argv: str, stdin: str = "") -> Any:
        return json.loads(await self.says(*argv, "--json", stdin=stdin))

    async def refused(self, *argv: str, stdin: str = "", status: int = 1) -> dict[str, Any]:
        """The error of a command that fails."""
        assert await self.status(*argv, "--json", stdin=stdin) == status, (self.out, self.err)
        return json.loads(self.out)["error"]


async def open_terminal(daemon: Daemon, name: str, role: str = "implementer") -> Terminal:
    """An agent in the main root of `daemon`, at a terminal there."""
    root = daemon.ctx.here.layout.root
    return Terminal(root, await daemon.registered(name, role, root=str(root)))
