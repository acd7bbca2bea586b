"""The real doors for the contract suite, each with its other side: a socket, a waiter, a pane of tmux."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.terminal import screens
from tests.support.terminal.tmux_server import OwnServer, StandIn, hurried, installed, own_server, until
from thrum.identity.processes import Process as Seen
from thrum.identity.processes import ProcessMap, Program, open_process_table
from thrum.model.wake_types import Offered, Process, Reachable
from thrum.runtimes.doors.claude import WaiterDoor
from thrum.runtimes.doors.claude_socket import SocketDoor
from thrum.runtimes.waiters import Waiters
from thrum.terminal.pane_looks import PaneLooks, Place
from thrum.terminal.typed_door import TypedDoor
from thrum.terminal.typing import TmuxPane

SECONDS = 60


@dataclass
class Stalled:
    """A door whose next offer says nothing as long as it is not cancelled."""

    inner: Any
    begun: trio.Event | None = None

    @property
    def name(self) -> str:
        return self.inner.name

    def state(self, agent: Reachable) -> Any:
        return self.inner.state(agent)

    async def offer(self, agent: Reachable, text: str) -> Offered:
        if self.begun is not None:
            begun, self.begun = self.begun, None
            begun.set()
            await trio.sleep_forever()
        return await self.inner.offer(agent, text)


@dataclass
class _Heard:
    texts: list[str] = field(default_factory=list[str])

    async def heard(self, count: int) -> Sequence[str]:
        async def is_there() -> bool:
            return len(self.texts) >= count

        await until(is_there)
        await trio.sleep(0.1)
        return self.texts


@dataclass
class SocketRig(_Heard):
    """A listener of this process stands for Claude's."""

    folder: Path = Path()
    closed: list[Callable[[], Any]] = field(default_factory=list[Callable[[], Any]])

    def __post_init__(self) -> None:
        pid, started = os.getpid(), "boot/77"
        self.process: Process = (pid, started)
        self.table = ProcessMap(Seen(pid, 1, started, 0.0))
        self.table.environs[pid] = {"CLAUDE_CONFIG_DIR": str(self.folder)}
        self.table.programs[pid] = Program("claude", "", ("claude",))
        self.agent = Reachable("bob", "idle", 0.0, self.process, "claude", "s1")
        self.socket = self.folder / "s.sock"
        (self.folder / "sessions").mkdir()
        self.entry({"messagingSocketPath": str(self.socket)})
        inner = SocketDoor(self.table, lambda process: 0.0, 0.0, managed=[str(self.folder / "managed")])
        self.door = Stalled(inner)

    def entry(self, more: dict[str, object]) -> None:
        told = {"pid": self.process[0], "sessionId": "s1", "cwd": str(self.folder), "procStart": "77", **more}
        (self.folder / "sessions" / f"{self.process[0]}.json").write_text(json.dumps(told))

    async def receive(self, peer: trio.SocketStream) -> None:
        data = b""
        async with peer:
            async for chunk in peer:
                data += chunk
        for line in data.splitlines():
            self.texts.append(json.loads(line)["message"]["content"])

    async def close(self) -> None:
        self.closed.pop()()
        self.socket.unlink()
        self.door.inner.forget(self.process)
        await trio.lowlevel.checkpoint()

    async def occupy(self) -> None:
        """Settings allow bypass mode from now on."""
        (self.folder / "settings.json").write_text('{"permissions": {"defaultMode": "bypassPermissions"}}')
        await trio.lowlevel.checkpoint()

    async def stall(self) -> trio.Event:
        self.door.begun = begun = trio.Event()
        return begun


@asynccontextmanager
async def socket_rig() -> AsyncIterator[SocketRig]:
    with tempfile.TemporaryDirectory(prefix="thrum-cc-") as folder:
        rig = SocketRig(folder=Path(folder))
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        await listener.bind(str(rig.socket))
        listener.listen()
        stream = trio.SocketListener(listener)
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def serve() -> None:
                with scope:
                    await trio.serve_listeners(rig.receive, [stream], handler_nursery=nursery)

            nursery.start_soon(serve)
            rig.closed.append(scope.cancel)
            yield rig
            nursery.cancel_scope.cancel()


@dataclass
class WaiterRig(_Heard):
    """A task that waits again as soon as it was woken stands for the runtime's hooks."""

    def __post_init__(self) -> None:
        self.process: Process = (100, "start")
        self.agent = Reachable("bob", "idle", 0.0, self.process, "claude", "s1")
        self.waiters = Waiters()
        self.door = Stalled(WaiterDoor(self.waiters))
        self.scope = trio.CancelScope()

    async def serve(self) -> None:
        with self.scope:
            while True:
                waiter = await self.waiters.wait(self.process)
                assert waiter is not None
                waiter.taken()
                self.texts.append(waiter.text)

    async def close(self) -> None:
        self.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def occupy(self) -> None:
        pytest.skip("it has no wrong moments: the runtime holds what a waiter says")

    async def stall(self) -> trio.Event:
        self.door.begun = begun = trio.Event()
        return begun


@asynccontextmanager
async def waiter_rig() -> AsyncIterator[WaiterRig]:
    rig = WaiterRig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.serve)
        await trio.testing.wait_all_tasks_blocked()
        yield rig
        nursery.cancel_scope.cancel()


@dataclass
class TypedRig:
    """A stand-in that draws a recorded screen of Claude's in a real pane."""

    server: OwnServer
    shown: StandIn
    late: float = 0.0
    begun: trio.Event | None = None

    def __post_init__(self) -> None:
        table = open_process_table()
        seen = table.read(self.shown.pid)
        assert seen is not None
        self.process: Process = (seen.pid, seen.started)
        self.agent = Reachable("bob", "idle", 0.0, self.process, "claude", "s1")
        self.panes = PaneLooks(self.server.tmux.environ, table, lambda: trio.current_time() + self.late)
        self.door = TypedDoor(self.panes, table, port=self._port)

    def _port(self, place: Place, pid: int) -> TmuxPane:
        return self.shown.port(sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        if self.begun is not None:
            begun, self.begun = self.begun, None
            begun.set()
            await trio.sleep_forever()
        await hurried(seconds)

    async def heard(self, count: int) -> Sequence[str]:
        await self.shown.logged(lambda entries: sum("submitted" in each for each in entries) >= count)
        return self.shown.submitted()

    async def look(self) -> None:
        await self.panes.look("claude", self.process)

    async def close(self) -> None:
        await self.server.tmux.run(("kill-pane", "-t", self.shown.pane))
        table = open_process_table()

        async def is_gone() -> bool:
            return (seen := table.read(self.shown.pid)) is None or seen.state == "Z"

        await until(is_gone)
        self.late = 60.0

    async def occupy(self) -> None:
        await self.server.tmux.keys(self.shown.pane, "x")
        await self.shown.logged(lambda entries: {"key": "x"} in entries)

    async def stall(self) -> trio.Event:
        self.begun = begun = trio.Event()
        return begun


@asynccontextmanager
async def typed_rig() -> AsyncIterator[TypedRig]:
    if not installed:
        pytest.skip("tmux is not installed")
    async with own_server() as server:
        rig = TypedRig(server, await server.show(screens.one("claude", "idle_empty", (80, 24))))

        async def is_open() -> bool:
            await rig.look()
            return rig.door.state(rig.agent).open

        await until(is_open)
        yield rig
