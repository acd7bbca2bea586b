"""The way to the daemon from the user's own process: over its socket, started first if it may be."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from thrum.cli import sandbox
from thrum.cli.session import CallerProbe
from thrum.identity.runtimes import Link, RuntimeNames
from thrum.model import files
from thrum.model.errors import DaemonUnavailable, RuntimeNotFound
from thrum.model.paths import Layout
from thrum.rpc.client import Client, open_client


def connector(env: Mapping[str, str]) -> Callable[[Layout, bool], AbstractAsyncContextManager[Client]]:
    """`Session.connect` of a process with these variables."""

    @asynccontextmanager
    async def connect(layout: Layout, autostart: bool) -> AsyncGenerator[Client]:
        path = Path(env.get("THRUM_SOCKET") or layout.socket_path)
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(open_client(path))
            except DaemonUnavailable as error:
                reason = error.details.get("reason")
                if reason == "forbidden":
                    raise sandbox.refusal(path, env) from error
                if reason not in ("missing", "refused"):
                    raise
                if env.get("THRUM_SOCKET"):
                    remedy = "correct or unset THRUM_SOCKET"
                    message = f"no daemon answers at {path} (THRUM_SOCKET)"
                    raise DaemonUnavailable(message, remedy=remedy, reason=reason, socket=str(path)) from error
                if not autostart:
                    message = f"no daemon is running for {layout.main_root}"
                    raise DaemonUnavailable(message, reason=reason, socket=str(path)) from error
                await start(layout, env)
                client = await stack.enter_async_context(open_client(path))
            yield client

    return connect


async def start(layout: Layout, env: Mapping[str, str], *, local: bool = False, force: bool = False) -> int:
    """Start the daemon unless it runs, with these variables, and wait until it answers; its pid."""
    from thrum.daemon.launch import start_in_background

    return await trio.to_thread.run_sync(lambda: start_in_background(layout, env, local=local, force=force))


def stopped_on_purpose(layout: Layout) -> bool:
    """Whether the last daemon was told to stop: then a command that only waited for it does not start it again."""
    return files.is_file(layout.stopped_mark)


def seconds_since_start(now_ms: int) -> float:
    """How long this process has been running; 0 where that can't be told."""

    from thrum.identity.processes import open_process_table

    try:
        own = open_process_table().read(os.getpid())
    except OSError:
        own = None
    return max(0.0, now_ms / 1000 - own.started_at) if own is not None and own.started_at else 0.0


def runtime_names(env: Mapping[str, str], layout: Layout) -> RuntimeNames:
    """Which programs are runtimes, for a user with these variables at those places."""
    from thrum.identity.guard_modes import LiveSettings, runtimes_file

    return LiveSettings(layout, runtimes_file(env)).runtime_names()


def check_runtime(env: Mapping[str, str], layout: Layout | None, name: str) -> None:
    """Raise RuntimeNotFound for what is not a runtime that thrum or the user knows. `layout`: None before `init`."""
    from thrum.cli.parser import did_you_mean, near
    from thrum.identity.guard_modes import LiveSettings, runtimes_file
    from thrum.identity.runtimes import runtime_named, runtimes

    known = runtimes(LiveSettings(layout, runtimes_file(env)).runtime_names())
    if runtime_named(name) not in known:
        close = near(name, known)
        remedy = f"{did_you_mean(close) or 'one of ' + ', '.join(known)}; your own: ~/.thrum/runtimes.json"
        raise RuntimeNotFound(f'no runtime "{name}" is known', remedy=remedy, suggestions=close or None)


def own_links(env: Mapping[str, str], layout: Layout) -> Sequence[Link]:
    """This process's ancestors, nearest first."""

    from thrum.identity.processes import open_process_table
    from thrum.identity.runtimes import links_of

    table = open_process_table()
    try:
        return links_of(table, table.chain(os.getppid()), runtime_names(env, layout))
    except OSError:
        return ()


def check_no_agent(env: Mapping[str, str], layout: Layout | None, act: str) -> None:
    """Raise NotAPerson when this process is an agent's, for an act that is none's (rpc.md §3, Na); the daemon's log has
    who did it. The same judgement as the daemon's, for what a command does without one.

    `layout`: where thrum is set up already; None: not yet. `act`: the act, in a word or two.
    """
    from thrum.identity.person import judge_own_process
    from thrum.identity.runtimes import KNOWN_RUNTIMES
    from thrum.model.log import append_line

    def record(level: str, message: str, fields: dict[str, Any]) -> None:
        if layout is not None:
            append_line(layout.log_file, level, message, fields)

    judge_own_process(KNOWN_RUNTIMES if layout is None else runtime_names(env, layout), act, record)


def own_probe(env: Mapping[str, str], layout: Layout) -> CallerProbe:
    """What the kernel says of this process."""
    from thrum.cli.own_probe import OwnProbe  # only a command that uses an identity asks

    return OwnProbe(env, layout)
