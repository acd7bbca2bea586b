"""daemon start|stop|restart|status|logs. Source: cli.md §3.13."""

from __future__ import annotations

import gzip
import os
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import trio

from thrum.cli import render
from thrum.cli.connect import check_no_agent
from thrum.cli.connect import start as start_daemon
from thrum.cli.parser import RUN, option, switch
from thrum.cli.run import Answer, Run
from thrum.cli.text import indent, line, one_line
from thrum.cli.values import absolute, parse_time, span
from thrum.model import files
from thrum.model.clock import format_ms
from thrum.model.config import load_config, sync_override
from thrum.model.errors import NotARepository
from thrum.model.guards import Refusal, refusal_error
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.method import Empty
from thrum.model.paths import Layout

Local = Annotated[bool, switch("fetch and push nothing, for this start")]
Force = Annotated[bool, switch("also outside a git repository")]
_FOLLOW_SECONDS = 0.2


def _layout(run: Run, force: bool) -> Layout:
    """Where a daemon may run. Raises the guard `non_git_bootstrap` outside git."""
    try:
        layout = run.layout()
    except NotARepository as error:
        raise _not_git(run) from error
    if layout.common_dir is None and not force:
        raise _not_git(run)
    return layout


def _not_git(run: Run) -> Exception:
    return refusal_error(Refusal("non_git_bootstrap", "not_a_git_repo"), caller_cwd=run.session.cwd)


def _socket(layout: Layout) -> str:
    from thrum.rpc.sockets import real_path

    return real_path(layout.socket_path)


def _action(layout: Layout, status: str, pid: int | None) -> dict[str, Any]:
    document: dict[str, Any] = {"status": status, "repo_path": str(layout.main_root)}
    if pid:
        document |= {"pid": pid}
    if status in ("started", "already_running", "restarted"):
        document |= {"socket": _socket(layout)}
    return document


async def _check_wish(run: Run, layout: Layout) -> None:
    """A daemon that is to sync whatever the settings say is no agent's to start. Raises NotAPerson."""
    if sync_override(run.session.env):
        await trio.to_thread.run_sync(check_no_agent, run.session.env, layout, "THRUM_LOCAL=0")


async def start(
    *,
    local: Local = False,
    force: Force = False,
    foreground: Annotated[bool, switch("run in this process, and end with it")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    from thrum.daemon.launch import answers, child_environment, daemon_command

    layout = _layout(run, force)
    holder = await trio.to_thread.run_sync(files.lock_holder, layout.lock_file)
    if holder is not None and await trio.to_thread.run_sync(answers, layout):
        said = f"✓ Daemon already running (pid {holder})"
        return Answer(_action(layout, "already_running", holder), said=said)
    await _check_wish(run, layout)
    if foreground:
        await run.finish(Answer(_action(layout, "started", os.getpid()), said=f"✓ Daemon started (pid {os.getpid()})"))
        command = daemon_command(layout, local=local, force=force)
        os.execve(command[0], command, child_environment(run.session.env))
    pid = await start_daemon(layout, run.session.env, local=local, force=force)
    return Answer(_action(layout, "started", pid), said=f"✓ Daemon started (pid {pid})")


async def stop(*, run: Annotated[Run, RUN]) -> Answer:
    run.require_own_process()
    from thrum.daemon.launch import stop_running

    layout = run.layout()
    pid = await trio.to_thread.run_sync(stop_running, layout)
    if pid is None:
        return Answer(_action(layout, "not_running", None), said="Daemon is not running")
    return Answer(_action(layout, "stopped", pid), said="✓ Daemon stopped")


async def restart(*, local: Local = False, force: Force = False, run: Annotated[Run, RUN]) -> Answer:
    run.require_own_process()
    from thrum.daemon.launch import stop_running

    layout = _layout(run, force)
    await _check_wish(run, layout)
    # One that runs is not stopped for one that would not start.
    await trio.to_thread.run_sync(load_config, layout.config_file)
    await trio.to_thread.run_sync(lambda: stop_running(layout, insist=True))
    pid = await start_daemon(layout, run.session.env, local=local, force=force)
    return Answer(_action(layout, "restarted", pid), said=f"✓ Daemon restarted (pid {pid})")


async def status(*, run: Annotated[Run, RUN]) -> Answer:
    layout = run.layout()
    if await run.client_if_running() is None:
        document = {"running": False, "status": "stopped", "repo_path": str(layout.main_root)}
        return Answer(document, data="Daemon:   not running", status=0 if run.flags.json else 1)
    health = await run.call(HEALTH, Empty())
    socket = _socket(layout)
    document = {
        "running": True,
        "status": "running",
        "pid": health.pid,
        "repo_path": str(layout.main_root),
        "socket": socket,
        "uptime": span(health.uptime_ms),
        "uptime_ms": health.uptime_ms,
        "version": health.version,
        "sync_state": health.sync_state,
    }
    if health.websocket_port:
        document["ws_port"] = health.websocket_port
    if health.identity is not None:
        document["identity"] = msgspec.to_builtins(health.identity)
    return Answer(document, data=render.daemon_status(health, socket))


# -- logs


async def logs(
    *,
    lines: Annotated[int, option("N", "only the last N lines; 0: all", "-n", "--lines")] = 50,
    follow: Annotated[bool, switch("keep printing until interrupted", "-f", "--follow")] = False,
    since: Annotated[str, option("T", "only lines since then")] = "",
    run: Annotated[Run, RUN],
) -> Answer | int:
    if lines < 0:
        raise run.command.error(f"--lines is 0 or more, not {lines}")
    path = run.layout().log_file
    after = format_ms(parse_time(since, "--since", run.now_ms)) if since else ""
    if follow:
        run.require_own_process()
    found = await trio.to_thread.run_sync(_last, path, lines, after)
    if not follow:
        text = "\n".join(log_text(each) for each in found)
        nothing = f"Nothing in the log since {since}." if since else "The log is empty."
        return Answer({"path": str(path), "lines": found}, said="" if found else nothing, data=text)
    for each in found:
        await _print(run, each)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_follow, run, path)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
    return 0


def _last(path: Path, count: int, after: str) -> list[dict[str, Any]]:
    """The last entries, oldest first, rotated files included. No log is no entries."""
    kept: deque[dict[str, Any]] = deque(maxlen=count or None)
    if not files.is_file(path):
        return []
    rotated = [
        name for name in files.names_in(path.parent) if name.startswith(f"{path.name}.") and name.endswith(".gz")
    ]
    for old in reversed(rotated) if not count or _line_count(path) < count else ():
        with (
            suppress(OSError, EOFError),
            _opened(path.with_name(old)) as file,
            gzip.open(file, "rt", encoding="utf-8", errors="replace") as packed,
        ):
            kept.extend(_entries(packed, after))
    with suppress(FileNotFoundError), _opened(path) as file, TextIOWrapper(file, "utf-8", "replace") as plain:
        kept.extend(_entries(plain, after))
    return list(kept)


def _line_count(path: Path) -> int:
    with _opened(path) as file:
        return sum(1 for _ in file)


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(files.open_file(path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def _entries(some: Iterator[str], after: str) -> Iterator[dict[str, Any]]:
    time = ""
    for text in some:
        entry = log_entry(text.rstrip("\n"), time)
        time = entry["time"]
        if time >= after:
            yield entry


def log_entry(text: str, time: str) -> dict[str, Any]:
    """One line of the log. A bare one (what Python printed as it died) belongs to the time of the one before."""
    bare = {"time": time, "level": "error", "message": text}
    try:
        entry = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        return bare
    return bare | entry if all(isinstance(entry.get(key, ""), str) for key in bare) else bare


def log_text(entry: dict[str, Any]) -> str:
    """`2026-02-03T10:00:00Z info     serving  pid=7718`."""
    known = ("time", "level", "message", "traceback")
    fields = " ".join(one_line(f"{key}={value}") for key, value in entry.items() if key not in known)
    head = " ".join(
        part for part in (absolute(entry["time"]), line(f"{entry['level']:<7}"), one_line(entry["message"])) if part
    )
    # Python's own words, and in them anybody's.
    traceback = "\n" + indent(str(entry["traceback"])) if entry.get("traceback") else ""
    return head + (f"  {fields}" if fields else "") + traceback


async def _print(run: Run, entry: dict[str, Any]) -> None:
    if run.flags.json:
        await run.write_json(entry)
    else:
        await run.write(log_text(entry))


async def _follow(run: Run, path: Path) -> None:
    """Print what is appended from now on; a rotated log is followed into its new file."""
    position, inode = _end_of(path)
    rest, time = b"", ""
    while True:
        await trio.sleep(_FOLLOW_SECONDS)
        with suppress(FileNotFoundError), _opened(path) as file:
            found = os.fstat(file.fileno())
            if found.st_ino != inode or found.st_size < position:
                position, inode, rest = 0, found.st_ino, b""
            file.seek(position)
            data = file.read()
            position += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for each in whole:
                entry = log_entry(each.decode("utf-8", "replace"), time)
                time = entry["time"]
                await _print(run, entry)


def _end_of(path: Path) -> tuple[int, int]:
    found = files.status(path)
    return (0, 0) if found is None else (found.st_size, found.st_ino)
