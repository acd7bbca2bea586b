"""The daemon itself: its health, its end, its bus and its facts, and the command line that runs inside it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from thrum.model import limits
from thrum.model.methods.method import Access, Empty, Method, Params
from thrum.model.wire_types import DaemonIdentity, Hint

PROTOCOL: Final = 1
"""Rises when an older client would misread an answer."""


class HealthResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    status: Literal["ok", "degraded"]
    problems: tuple[str, ...] = ()
    uptime_ms: int
    version: str
    protocol: int
    repo_id: str
    pid: int
    epoch: str
    seq: int
    sync_state: str
    local_only: bool
    local_only_reason: str = ""
    last_sync_at: str = ""
    websocket_port: int = 0
    identity: DaemonIdentity | None = None


HEALTH: Final = Method(name="health", params=Empty, result=HealthResult, access=Access.ANONYMOUS)


class StopParams(Params, kw_only=True):
    drain_ms: int = int(limits.drain_seconds * 1000)


class StopResult(msgspec.Struct):
    stopping: bool


DAEMON_STOP: Final = Method(
    name="daemon.stop", params=StopParams, result=StopResult, access=Access.OPERATOR, transports="U"
)


class BusInfo(msgspec.Struct, kw_only=True):
    endpoint: str
    epoch: str
    seq: int
    protocol: int
    tick_seconds: float
    preview_max: int
    topics: tuple[str, ...]


BUS_INFO: Final = Method(name="bus.info", params=Empty, result=BusInfo, access=Access.ANONYMOUS, transports="U")


class EventsSinceParams(Params, kw_only=True):
    after_seq: int
    epoch: str = ""
    topics: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    limit: int = limits.since_limit_default
    wait_ms: int = 0
    full: bool = False
    local: bool = True


class EventsSince(msgspec.Struct, kw_only=True):
    epoch: str
    events: tuple[Hint, ...]
    next_seq: int
    head_seq: int
    more: bool


EVENTS_SINCE: Final = Method(
    name="events.since", params=EventsSinceParams, result=EventsSince, access=Access.ANONYMOUS, long_poll=True
)


class CliRunParams(Params, kw_only=True):
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = {}
    width: int = 0
    tty: int = 0
    stdin: str = ""
    frames: Literal["json", "raw"] = "json"
    program: str = ""
    client_key: str = ""


class CliRunResult(msgspec.Struct):
    exit_status: int
    stdout: str
    stderr: str


CLI_RUN: Final = Method(
    name="cli.run", params=CliRunParams, result=CliRunResult, access=Access.ANONYMOUS, transports="U", long_poll=True
)
