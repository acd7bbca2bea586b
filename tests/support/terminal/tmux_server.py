"""A tmux server of a test's own: its socket in a directory of its own, no configuration, gone at the end."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.support.terminal.screens import Recorded
from thrum.identity.processes import open_process_table
from thrum.terminal.tmux import Server, Tmux
from thrum.terminal.typing import TmuxPane

STAND_IN = Path(__file__).with_name("stand_in.py")
HANG_SECONDS = 60.0

installed = shutil.which("tmux") is not None


@dataclass
class OwnServer:
    """The server, and what a test does with it."""

    folder: Path
    tmux: Tmux
    clients: list[int] = field(default_factory=list[int])

    async def show(self, row: Recorded, name: str = "work", lag: float = 0.0) -> StandIn:
        """A session in which a stand-in draws a recorded screen; returns when it is drawn."""
        screen, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        screen.write_text(json.dumps(row.row), encoding="utf-8")
        argv = (sys.executable, "-S", "-E", str(STAND_IN), str(screen), str(log), str(lag))
        pane = await self.start(name, *argv, size=row.size)
        shown = StandIn(self, pane, row.runtime, log, await self.pid(pane))
        await shown.logged(lambda entries: {"ready": True} in entries)
        await until(lambda: self._shows(pane, row))
        return shown

    async def _shows(self, pane: str, row: Recorded) -> bool:
        return (await self.tmux.look(pane)).screen.texts == row.screen.texts

    async def start(self, name: str, *argv: str, size: tuple[int, int] = (80, 24)) -> str:
        """A session of that name that runs a program; the id of its pane."""
        width, height = size
        said = await self.tmux.run(
            ("new-session", "-d", "-P", "-F", "#{pane_id}", "-s", name, "-x", str(width), "-y", str(height), *argv),
            ("set-option", "-g", "status", "off"),
        )
        return said.strip()

    async def pid(self, pane: str) -> int:
        return (await self.tmux.look(pane)).pane_pid

    def attach(self, name: str, size: tuple[int, int]) -> int:
        """A person's terminal that shows a session; returns what to write keys to."""
        pid, terminal = pty.fork()
        if pid == 0:
            server = self.tmux.server
            os.execvpe(
                "tmux",
                ["tmux", *server.flags, "attach-session", "-t", f"={name}"],
                {**self.tmux.environ, "TERM": "xterm-256color"},
            )
        import fcntl
        import struct
        import termios

        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.clients.append(terminal)
        return terminal


@dataclass
class StandIn:
    """A runtime's stand-in in a pane."""

    server: OwnServer
    pane: str
    runtime: str
    log: Path
    pid: int

    def port(self, **changes: Any) -> TmuxPane:
        """The pane, to type into; between the looks no second goes by."""
        arguments: dict[str, Any] = {"agent_pid": self.pid, "table": open_process_table(), "sleep": hurried, **changes}
        return TmuxPane(self.server.tmux, self.pane, **arguments)

    def entries(self) -> list[dict[str, Any]]:
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def submitted(self) -> list[str]:
        """The lines that Enter has sent."""
        return [entry["submitted"] for entry in self.entries() if "submitted" in entry]

    def typed(self) -> str:
        """Every key that has come in."""
        return "".join(entry["key"] for entry in self.entries() if "key" in entry)

    async def logged(self, wanted: Callable[[list[dict[str, Any]]], bool]) -> None:
        async def is_there() -> bool:
            return wanted(self.entries())

        await until(is_there)


async def hurried(seconds: float) -> None:
    """What waits between two looks in a test: no longer than what a program takes to draw."""
    await trio.sleep(min(seconds, 0.1))


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it; the bound is only for hangs."""
    with trio.fail_after(HANG_SECONDS):
        while not await true():  # noqa: ASYNC110 - another process does it
            await trio.sleep(0.01)


@asynccontextmanager
async def own_server() -> AsyncIterator[OwnServer]:
    folder = Path(tempfile.mkdtemp(prefix="thrum-tmux-"))
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "SHELL": "/bin/sh",
        "TMUX_TMPDIR": str(folder),
    }
    server = OwnServer(folder, Tmux(environ, Server(path=str(folder / "socket"), config="/dev/null"), seconds_max=30))
    try:
        yield server
    finally:
        for terminal in server.clients:
            os.close(terminal)
        with trio.CancelScope(shield=True):
            await trio.run_process(
                ("tmux", *server.tmux.server.flags, "kill-server"), check=False, env=environ, stderr=subprocess.DEVNULL
            )
        shutil.rmtree(folder, ignore_errors=True)
