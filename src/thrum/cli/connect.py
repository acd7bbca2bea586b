"""The way to the daemon from the user's own process: over its socket, started first if it may be."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from thrum.cli import sandbox
from thrum.cli.session import CallerProbe
from thrum.identity.files import Identity
from thrum.identity.processes import OwnerState, Process
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
                await start(layout)
                client = await stack.enter_async_context(open_client(path))
            yield client

    return connect


async def start(layout: Layout, *, local: bool = False, force: bool = False) -> int:
    """Start the daemon unless it runs, and wait until it answers; its pid."""
    from thrum.daemon.launch import start_in_background

    return await trio.to_thread.run_sync(lambda: start_in_background(layout, local=local, force=force))


def stopped_on_purpose(layout: Layout) -> bool:
    """Whether the last daemon was told to stop: then nobody who only waited for it starts it again."""
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
    """Raise RuntimeNotFound for what is no runtime that thrum or the user knows. `layout`: None before `init`."""
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


class _OwnProbe:
    """The `CallerProbe` of a command in its own process: its ancestors, and the identity files of all worktrees."""

    def __init__(self, env: Mapping[str, str], layout: Layout) -> None:
        from thrum.identity.processes import open_process_table

        self._env = env
        self.pid = os.getppid()
        self._layout = layout
        self._table = open_process_table()
        self._chain = self._table.chain(self.pid)

    def owner(self) -> tuple[str, str] | None:
        from thrum.cli.acting import roots_of
        from thrum.identity.files import list_identities

        found: dict[tuple[int, str], tuple[float, str, str]] = {}
        for root in roots_of(self._layout):
            for each in list_identities(root / ".thrum" / "identities"):
                identity = each.identity
                if identity is not None and identity.agent_pid:
                    key, entry = identity.owner, (identity.updated_seconds, identity.name, str(root))
                    found[key] = max(found.get(key, entry), entry)
        for process in self._proving():
            known = found.get((process.pid, process.started))
            if known is not None:
                return known[1:]
        return None

    def _proving(self) -> Iterator[Process]:
        """The ancestors that tell who this is: those below a server of many sessions."""
        from thrum.identity.runtimes import is_shared_server, may_be_shared_server

        for process in self._chain:
            if may_be_shared_server(process.comm) and is_shared_server(self._table.program(process.pid)):
                return
            yield process

    def is_meant(self, agent_id: str) -> bool:
        return self._table.terminal(os.getpid()) is not None or self._env.get("THRUM_NAME") == agent_id

    def has_runtime(self) -> bool:
        from thrum.identity.runtimes import links_of

        names = runtime_names(self._env, self._layout)
        return any(link.runtime is not None for link in links_of(self._table, self._chain, names))

    def state_of(self, agent_id: str, identity: Identity | None) -> OwnerState:
        from thrum.identity.processes import same_process
        from thrum.identity.runtimes import runtime_of_process

        if identity is None or identity.agent_pid <= 1:
            return "none"
        pid = identity.agent_pid
        seen = self._table.read(pid)

        def is_runtime() -> bool:
            names = runtime_names(self._env, self._layout)
            return runtime_of_process(self._table.program(pid), names) is not None

        if not same_process(identity.agent_pid_started, identity.updated_seconds, seen, is_runtime):
            return "dead"
        return "chain" if any(each.pid == pid for each in self._chain) else "elsewhere"

    def is_news(self, what: str) -> bool:
        return True  # only a daemon remembers

    def record(self, outcome: str, fields: Mapping[str, Any]) -> None:
        from thrum.identity.guard_modes import FIRE
        from thrum.model.log import append_line

        append_line(self._layout.log_file, "warning", FIRE, {**fields, "outcome": outcome})


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


def own_probe(env: Mapping[str, str], layout: Layout) -> CallerProbe | None:
    """What the kernel says of this process; None where it says nothing."""
    try:
        return _OwnProbe(env, layout)
    except OSError:
        return None
