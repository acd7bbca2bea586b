"""A daemon that only remembers what it was asked, and a terminal that remembers what was printed, in one order."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tests.support.here import HandClock
from tests.support.trusted import trust_here
from thrum.cli.app import run
from thrum.cli.session import NeedsOwnProcess, Session
from thrum.model import clock
from thrum.model.events import Pair
from thrum.model.methods.agents import RegisterConflict, RegisterResult
from thrum.model.methods.messages import SendResult
from thrum.model.methods.method import AnyMethod
from thrum.model.methods.sessions import SessionStartResult, SetIntentResult
from thrum.model.paths import Layout

NOW = clock.parse_ms("2026-02-03T12:00:00Z")
MSG = "msg_01HXE8Z7R9K3Q6M2W8F4VYABCD"
QUICK: Sequence[str] = ("quickstart", "max", "--role", "tester", "--module", "auth", "--intent", "T")


@dataclass
class FakeTerminal:
    """Remembers everything, in order; `story` is shared with the daemon's."""

    story: list[str]
    out: bytes = b""
    err: bytes = b""
    stdin: bytes = b""
    width: int = 0
    tty: int = 0
    broken: bool = False
    has_stdin_of_its_own: bool | None = False
    """None: it is a launcher's."""

    async def write_out(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        self.story.append("out")
        self.out += data

    async def write_err(self, data: bytes) -> None:
        self.err += data

    async def flush(self) -> None:
        self.story.append("flush")

    async def read_stdin(self) -> bytes:
        return self.stdin

    async def offers_stdin(self) -> bool:
        if self.has_stdin_of_its_own is None:
            raise NeedsOwnProcess
        return self.has_stdin_of_its_own


Answerer = Callable[[str, Any], Any]


@dataclass
class FakeDaemon:
    answer: Answerer
    story: list[str] = field(default_factory=list[str])
    calls: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    connections: int = 0
    warnings: list[str] = field(default_factory=list[str])

    async def call(self, method: AnyMethod, params: Any) -> Any:
        self.story.append(method.name)
        self.calls.append((method.name, json.loads(msgspec.json.encode(params))))
        found = self.answer(method.name, params)
        if isinstance(found, Exception):
            raise found
        return found

    async def delivered(self) -> None:
        self.story.append("delivered")

    @asynccontextmanager
    async def connect(self, layout: Layout, autostart: bool) -> AsyncGenerator[FakeDaemon]:
        del layout, autostart
        self.connections += 1
        yield self

    def asked(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == method]


def make_root(root: Path) -> Path:
    """A root with the identity `nux`."""
    (root / ".git").mkdir()
    state = root / ".thrum"
    (state / "identities").mkdir(parents=True)
    (state / "config.json").write_text("{}")
    add_identity(root, "nux")
    trust_here(root)
    return root


def add_identity(root: Path, name: str) -> None:
    agent = {"kind": "agent", "name": name, "role": "reviewer", "module": "auth"}
    document = {"version": 5, "repo_id": "r_0123456789AB", "agent": agent, "updated_at": "2026-02-03T10:00:00.000Z"}
    (root / ".thrum" / "identities" / f"{name}.json").write_text(json.dumps(document))


def session(
    daemon: FakeDaemon, root: Path, *, local: bool = False, env: dict[str, str] | None = None, **more: Any
) -> tuple[Session, FakeTerminal]:
    terminal = FakeTerminal(daemon.story, **more)
    made = Session(terminal, env or {}, str(root), local, daemon.connect, key="KEY", clock=HandClock(NOW))
    return made, terminal


def sent(**more: Any) -> SendResult:
    fields: dict[str, Any] = {
        "message_id": MSG,
        "created_at": clock.format_ms(NOW),
        "seq": 1,
        "resolved_to": 1,
        "audiences": (Pair("agent", "max"),),
        "recipients": (),
    }
    return SendResult(**(fields | more))


async def go(daemon: FakeDaemon, root: Path, *argv: str, **more: Any) -> tuple[int, str, str]:
    made, terminal = session(daemon, root, **more)
    status = await run(argv, made)
    return status, terminal.out.decode(), terminal.err.decode()


def always(result: Any) -> Answerer:
    return lambda method, params: result


def registering(*results: RegisterResult) -> FakeDaemon:
    left = list(results)

    def answer(method: str, params: Any) -> Any:
        match method:
            case "agent.register":
                return left.pop(0)
            case "session.start":
                return SessionStartResult(session_id="ses_1", agent_id="max", started_at=clock.format_ms(NOW))
            case _:
                return SetIntentResult(session_id="ses_1", intent="T", intent_updated_at=clock.format_ms(NOW))

    return FakeDaemon(answer)


def conflict(reason: Any) -> RegisterResult:
    held = RegisterConflict(
        existing_agent_id="max", registered_at=clock.format_ms(NOW), last_seen_at=clock.format_ms(NOW), reason=reason
    )
    return RegisterResult(agent_id="", status="conflict", conflict=held)
