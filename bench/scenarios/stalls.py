"""How long the daemon's loop stands still while a client of its own user does its worst: nobody else is served then."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench import watched
from bench.measure import Bench, Goal, Row
from bench.place import Repository, open_repository, write_inbox
from thrum.bus.socket import SubSocket
from thrum.model.methods.agents import AGENT_REGISTER, RegisterParams
from thrum.model.methods.daemon import BUS_INFO, HEALTH
from thrum.model.methods.messages import MESSAGE_SEND
from thrum.rpc.client import BlockingClient

STALL_MS = 50
"""What the issue allows."""


class Watched:
    """A repository whose daemon reports its longest turn."""

    def __init__(self, repository: Repository, report: Path, pid: int) -> None:
        self.repository = repository
        self.pid = pid
        self._report = report

    def longest(self, attack: Callable[[], object]) -> dict[str, float]:
        """What the longest turn took while `attack` ran, and until the daemon has answered after it."""
        self._tell()
        attack()
        with self.client() as client:
            client.call(HEALTH)
        return self._tell()

    def _tell(self) -> dict[str, float]:
        self._report.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        end = time.monotonic() + 60
        while not self._report.exists():
            if time.monotonic() > end:
                raise SystemExit("bench: the daemon does not report")
            time.sleep(0.005)
        return json.loads(self._report.read_text())

    def client(self) -> BlockingClient:
        """One more connection."""
        return BlockingClient(self.repository.socket)

    def connected(self) -> socket.socket:
        """One more connection, by hand."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self.repository.socket)
        connection.settimeout(60)
        return connection

    def ask(self, *lines: bytes) -> list[Any]:
        """Send the lines at once, from one connection, and read as many answers."""
        with self.connected() as connection:
            return ask(connection, *lines)


@contextmanager
def watching(repository: Repository) -> Generator[Watched]:
    """Restart the daemon as one that is watched."""
    repository.stop()
    report = repository.main.parent / "report.json"
    root = Path(__file__).parent.parent.parent
    environ = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, watched.__file__, str(repository.main), str(report)], env=environ)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                BlockingClient(repository.socket).close()
                break
            except Exception:
                if time.monotonic() > end or process.poll() is not None:
                    raise
                time.sleep(0.05)
        time.sleep(1)  # it warms up
        yield Watched(repository, report, process.pid)
    finally:
        process.terminate()
        process.wait()


def line(method: str, params: object, number: int = 1) -> bytes:
    """One request."""
    text = params if isinstance(params, bytes) else msgspec.json.encode(params)
    return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}\n' % (number, method.encode(), text)


def ask(connection: socket.socket, *lines: bytes) -> list[Any]:
    """Send the lines at once and read as many answers."""
    connection.sendall(b"".join(lines))
    received = bytearray()
    count = 0
    while count < len(lines):
        data = connection.recv(1 << 20)
        if not data:
            break
        count += data.count(b"\n")
        received += data
    return [msgspec.json.decode(answer) for answer in received.splitlines()]


def measure(bench: Bench) -> list[Row]:
    """A row for each thing that was tried."""
    if not Path("/proc/self/status").exists():
        return []
    unseen = bench.pick(200, 33_000, 33_000)
    with open_repository(bench.directory, 2) as repository:
        write_inbox(repository, unseen)
        with watching(repository) as daemon, chdir(repository.worktrees[1]):
            quiet = daemon.longest(lambda: [daemon.ask(line("health", {})) for _ in range(bench.pick(10, 500, 1000))])
            rows: list[Row] = []
            for name, attack in attacks(bench, daemon, unseen).items():
                bench.say(f"stalls: {name}")
                found = daemon.longest(attack)
                more: dict[str, float | str] = {"clock_ms": found["clock_ms"], "turns": float(found["turns"])}
                goal = Goal(at_most=STALL_MS)
                rows.append(Row(name, found["cpu_ms"], "ms", quiet["cpu_ms"], "answering health", goal, more))
    return rows


def attacks(bench: Bench, daemon: Watched, unseen: int) -> dict[str, Callable[[], object]]:
    """What is tried, by its name."""
    waits = bench.pick(20, 300, 300)
    size = bench.pick(100_000, 8_000_000, 8_000_000)
    topics = bench.pick(500, 100_000, 100_000)
    strings = b"[" + b'"a",' * (size // 4) + b'"a"]'
    nested = b"[" + b"[]," * (size // 3) + b"[]]"
    return {
        f"{topics:,} subscriptions of one subscriber": lambda: _subscribe(daemon, topics),
        f"message.wait with {unseen:,} unseen": lambda: _wait(daemon, 1, {"mark": "none"}, 1),
        f"{waits} waits of one agent, {unseen:,} unseen that fit none": lambda: _wait(
            daemon, waits, {"author_id": "nobody", "timeout_ms": 5000}, 0
        ),
        f"{waits} waits since a number that is to come": lambda: _wait(
            daemon, waits, {"since": "now", "timeout_ms": 5000}, 0
        ),
        "an inbox page of 1,000": lambda: daemon.ask(line("message.list", {"for_agent": "agent1", "page_size": 1000})),
        f"a list of {size // 4:,} strings": lambda: daemon.ask(
            line("message.send", b'{"content":"x","to":' + strings + b"}")
        ),
        f"{size // 3:,} nested lists": lambda: daemon.ask(
            line("message.send", b'{"content":"x","structured":{"x":' + nested + b"}}")
        ),
        "a field that nobody knows, as large": lambda: daemon.ask(line("message.send", b'{"nobody":' + nested + b"}")),
        "a body as large": lambda: daemon.ask(line("message.send", {"content": "x" * size, "to": ["@agent0"]})),
        "a body as large, escaped": lambda: daemon.ask(
            line("message.send", b'{"content":"' + b"\\u00e9" * (size // 6) + b'","to":["@agent0"]}')
        ),
        "a command with as many words": lambda: daemon.ask(
            line("cli.run", b'{"cwd":"/","argv":' + strings + b',"program":""}')
        ),
        "a line of nothing but brackets": lambda: daemon.ask(b"[" * (size - 2) + b"\n"),
        "300,000 lines of garbage": lambda: _garbage(daemon, bench.pick(1000, 300_000, 300_000)),
        f"marking {unseen:,} as read": lambda: daemon.ask(line("message.markRead", {"all": True})),
        f"{waits} waits of as many agents, one message to all": lambda: _wait_as_many(daemon, waits),
    }


def _subscribe(daemon: Watched, count: int) -> None:
    with daemon.client() as client:
        endpoint = client.call(BUS_INFO).endpoint
    subscriber = SubSocket()
    try:
        subscriber.connect(endpoint)
        for number in range(count):
            subscriber.subscribe(b"agent/a%d/" % number)
        subscriber.subscribe(b"all/")
        end = time.monotonic() + 60
        heard = 0
        last = b""
        while time.monotonic() < end and last != b"all/head":
            frame = subscriber.receive_nowait()
            if frame is None:
                subscriber.wait_blocking(0.1)
                continue
            last = frame.topic
            heard += 1
        time.sleep(6)  # one round of heads
    finally:
        subscriber.close()
        time.sleep(1)


def _wait(daemon: Watched, count: int, params: dict[str, object], answers: int) -> None:
    """So many waits on one connection; a message comes; then so many answers are read, and the rest is left."""
    with daemon.connected() as connection:
        connection.sendall(b"".join(line("message.wait", params, number) for number in range(count)))
        # Who calls is where this process stands: it stays until the daemon has looked.
        connection.sendall(line("health", {}, count))
        while b'"id":%d,' % count not in connection.recv(1 << 20):
            pass
        with chdir(daemon.repository.worktrees[0]), daemon.client() as client:
            client.call(MESSAGE_SEND, {"content": "wake up", "to": ["@agent1"]})
        received = b""
        while received.count(b"\n") < answers:
            received += connection.recv(1 << 20)


def _wait_as_many(daemon: Watched, count: int) -> None:
    names = [f"many{number}" for number in range(count)]
    with ExitStack() as stack, daemon.client() as client:
        for name in names:
            client.call(AGENT_REGISTER, RegisterParams(name=name, role="crowd", module=name, bind_pid=False))
        connection = stack.enter_context(daemon.connected())
        params = [{"caller_agent_id": name, "timeout_ms": 60_000} for name in names]
        connection.sendall(b"".join(line("message.wait", said, number) for number, said in enumerate(params)))
        with chdir(daemon.repository.worktrees[0]), daemon.client() as other:
            other.call(MESSAGE_SEND, {"content": "wake up", "to": ["@everyone"]})
        received = b""
        while received.count(b"\n") < count:
            received += connection.recv(1 << 20)


def _garbage(daemon: Watched, count: int) -> None:
    with daemon.connected() as connection:
        connection.setblocking(False)
        left = memoryview(b"!\n" * count)
        answered = 0
        while answered < count:
            try:
                if left:
                    left = left[connection.send(left) :]
            except BlockingIOError:
                pass
            try:
                answered += connection.recv(1 << 20).count(b"\n")
            except BlockingIOError:
                time.sleep(0)
