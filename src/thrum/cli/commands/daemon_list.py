"""daemon list: every daemon of this user, whatever repository it serves. Source: cli.md §2 "W3"."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import trio

from thrum.cli import render
from thrum.cli.parser import RUN
from thrum.cli.run import Answer, Run
from thrum.cli.text import line
from thrum.cli.values import span
from thrum.identity.processes import RunningDaemon, daemons_of_user
from thrum.model.errors import ThrumError
from thrum.model.methods.agents import TEAM_LIST, TeamListParams
from thrum.model.paths import find_layout
from thrum.rpc.client import BlockingClient

_ANSWER_SECONDS = 2.0


class Listed(msgspec.Struct, omit_defaults=True):
    """One row. `agents`: those of this machine with a session; left out where the daemon gives no answer."""

    repo_path: str
    pid: int
    uptime_ms: int
    rss_bytes: int
    agents: int | None = None


async def list_daemons(*, run: Annotated[Run, RUN]) -> Answer:
    run.require_own_process()
    found = await trio.to_thread.run_sync(daemons_of_user)
    agents: dict[int, int] = {}
    async with trio.open_nursery() as nursery:
        for each in found:
            nursery.start_soon(_ask, each, agents)
    listed = [_row(each, agents.get(each.pid), run.now_ms) for each in found]
    silent = [
        f"the daemon of {each.repo_path} (pid {each.pid}) does not answer" for each in listed if each.agents is None
    ]
    said = "" if listed else "No daemon is running."
    return Answer({"daemons": listed}, said=said, data=table(listed), warnings=tuple(silent))


def _row(daemon: RunningDaemon, agents: int | None, now_ms: int) -> Listed:
    uptime_ms = max(0, now_ms - int(daemon.started_at * 1000))
    return Listed(daemon.root, daemon.pid, uptime_ms, daemon.rss_bytes, agents)


async def _ask(daemon: RunningDaemon, agents: dict[int, int]) -> None:
    count = await trio.to_thread.run_sync(_agents_of, daemon, abandon_on_cancel=True)
    if count is not None:
        agents[daemon.pid] = count


def _agents_of(daemon: RunningDaemon) -> int | None:
    """How many agents of this machine have a session there; None without an answer."""
    try:
        path = find_layout(Path(daemon.root)).socket_path
        with BlockingClient(path, connect_seconds=_ANSWER_SECONDS) as client:
            params = TeamListParams(include_files=False)
            team = client.call(TEAM_LIST, params, timeout_seconds=_ANSWER_SECONDS)
    except (ThrumError, OSError):
        return None
    return sum(each.is_local for each in team.members)


def table(listed: list[Listed]) -> str:
    """`REPOSITORY PID UP MEMORY AGENTS`, a line each; paths are never shortened."""
    if not listed:
        return ""
    rows = [
        [
            line(each.repo_path),
            str(each.pid),
            span(each.uptime_ms),
            f"{each.rss_bytes / 2**20:.0f} MB",
            "?" if each.agents is None else str(each.agents),
        ]
        for each in listed
    ]
    return render.table(["REPOSITORY", "PID", "UP", "MEMORY", "AGENTS"], rows, width=0, flexible=0)
