"""Codex' two doors before its stand-in, for the contract suite: a real process, real sockets, a scripted model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.places import ROOT
from thrum.model.attempt_ids import tokens_in
from thrum.model.wake_types import Offered, Reachable
from thrum.runtimes.codex.server import CodexServer
from thrum.runtimes.doors.codex import Program, QueueDoor, ServerDoor

SECONDS = 60
RUNTIMES = ROOT / "tests" / "runtimes"


@dataclass
class CodexRig:
    """An app-server with one thread."""

    top: Path
    server: CodexServer
    process: subprocess.Popen[bytes]
    agent: Reachable
    door: Any

    async def heard(self, count: int) -> Sequence[str]:
        await _until(lambda: len(self._texts()) >= count)
        await _until(lambda: all(thread.state != "working" for thread in self.server.threads.values()))
        return self._texts()

    def _texts(self) -> list[str]:
        lines = (self.top / "model.jsonl").read_text().splitlines()
        news = [entry["new"] for entry in map(json.loads, lines) if "new" in entry]
        return [new for new in news if tokens_in(new)]

    async def close(self) -> None:
        self.process.kill()
        self.process.wait()
        (self.top / "bin/codex").unlink()
        await _until(lambda: not self.server.is_connected)

    async def occupy(self) -> None:
        if isinstance(self.door, QueueDoor):
            pytest.skip("a queue takes everything")
        await self.server.say(self.agent.session, "RUN: ASK true")
        await _until(lambda: self.server.threads[self.agent.session].state == "dialog")

    async def stall(self) -> trio.Event:
        if isinstance(self.door, QueueDoor):
            pytest.skip("a queue says nothing before it says all")
        os.kill(self.process.pid, signal.SIGSTOP)
        self.door = _Stalled(self.door, self.process.pid)
        return self.door.begun


class _Stalled:
    """The server is stopped as long as an offer is not cancelled."""

    def __init__(self, door: ServerDoor, pid: int) -> None:
        self.inner, self.pid, self.begun = door, pid, trio.Event()
        self.name, self.state = door.name, door.state

    async def offer(self, agent: Reachable, text: str) -> Offered:
        self.begun.set()
        try:
            return await self.inner.offer(agent, text)
        finally:
            os.kill(self.pid, signal.SIGCONT)


async def _until(condition: Callable[[], object]) -> None:
    with trio.fail_after(SECONDS):
        while True:
            if condition():
                return
            await trio.sleep(0.02)


def _furnish(top: Path) -> tuple[Path, Path]:
    """The stand-in, and the model's log."""
    (top / "bin").mkdir()
    (top / ".codex").mkdir()
    program, log = top / "bin/codex", top / "model.jsonl"
    program.write_text(f"#!{sys.executable}\n" + (RUNTIMES / "standins/codex.py").read_text())
    program.chmod(0o755)
    log.touch()
    return program, log


@asynccontextmanager
async def codex_rig(door: str) -> AsyncIterator[CodexRig]:
    with tempfile.TemporaryDirectory(prefix="codex-") as name:
        top = Path(name)
        program, log = _furnish(top)
        environ = {"HOME": name, "PATH": os.environ["PATH"], "CODEX_HOME": str(top / ".codex")}
        started: list[subprocess.Popen[bytes]] = []
        try:
            port = _free_port()
            started.append(_start([sys.executable, str(RUNTIMES / "scripted_model.py"), str(port), str(log)], environ))
            (top / ".codex/config.toml").write_text(
                f'model_provider = "local"\n[model_providers.local]\nbase_url = "http://127.0.0.1:{port}/v1"\n'
            )
            started.append(_start([str(program), "app-server", "--listen", "unix://"], environ))
            async with trio.open_nursery() as nursery:
                server = CodexServer(str(top / ".codex"), lambda thread: None)
                nursery.start_soon(server.serve)
                await _until(lambda: server.is_connected and log.read_text())
                assert server._connection is not None
                made = await server._connection.call("thread/start", {"cwd": name})
                await _until(lambda: made["thread"]["id"] in server.threads)
                agent = Reachable("bob", "idle", 0.0, (started[1].pid, "start"), "codex", made["thread"]["id"])
                doors = {
                    "codex.server": ServerDoor(lambda thread: server if thread in server.threads else None),
                    "codex.queue": QueueDoor(
                        lambda thread: False,
                        lambda agent: Program((sys.executable, str(program)), environ) if program.exists() else None,
                    ),
                }
                yield CodexRig(top, server, started[1], agent, doors[door])
                nursery.cancel_scope.cancel()
        finally:
            for process in started:
                process.kill()
                process.wait()


def _start(argv: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
