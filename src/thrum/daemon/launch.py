"""Start and stop the daemon of a repository from another process.

A daemon is started detached: a session of its own, no descriptor of its starter kept (an open pipe would hang a hook),
no variable of git's, of an agent's identity or of a runtime's tools inherited. It reports its progress over one pipe,
then closes it.
Source: rpc.md §1, cli.md 1.9, stack.md "Processes".
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from thrum.identity.guard_modes import LiveSettings, runtimes_file
from thrum.identity.person import judge_own_process
from thrum.identity.processes import is_daemon, open_process_table
from thrum.identity.runtimes import MARKS
from thrum.model import files, limits
from thrum.model.config import sync_override
from thrum.model.errors import DaemonLocked, DaemonStartFailed, DaemonUnavailable, StoreFailed, ThrumError, from_wire
from thrum.model.log import append_line, open_to_append
from thrum.model.methods.daemon import DAEMON_STOP
from thrum.model.paths import Layout
from thrum.rpc import sockets
from thrum.rpc.client import BlockingClient

REPORT_VARIABLE = "THRUM_REPORT_FD"
_NOT_INHERITED = ("GIT_", "THRUM_NAME", "THRUM_ROLE", "THRUM_MODULE", "THRUM_DISPLAY", "THRUM_AGENT_ID", "THRUM_HOME")
_PID_SECONDS = 0.5
"""How long a daemon that has its lock may take to write its pid into it."""


class Report(msgspec.Struct, omit_defaults=True):
    """What a starting daemon says: `rebuilding` while it works on the database, then once one of the others."""

    state: Literal["rebuilding", "ready", "held", "failed"]
    pid: int = 0
    kind: str = ""
    code: int = 0
    message: str = ""
    remedy: str = ""
    details: dict[str, Any] = {}


def answers(layout: Layout) -> bool:
    """Whether a process listens on the daemon's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            sockets.connect(layout.socket_path, probe.connect)
        except OSError:
            return False
    return True


def start_in_background(layout: Layout, environ: Mapping[str, str], *, local: bool = False, force: bool = False) -> int:
    """Start the daemon and wait until it answers; its pid. One that runs already is fine. `environ`: this process's.

    Raises DaemonStartFailed (with its last word), DaemonLocked (one runs but does not answer), or the error that the
    daemon itself met (NotARepository, ConfigInvalid, StoreFailed …).
    """
    deadline = time.monotonic() + limits.start_seconds_max
    while True:
        holder = files.lock_holder(layout.lock_file)
        if holder is not None:
            if _wait_until_it_answers(layout, deadline):
                return files.lock_holder(layout.lock_file) or holder
            if files.lock_holder(layout.lock_file) is None and time.monotonic() < deadline:
                continue  # it ended in between
            raise DaemonLocked(f"another daemon holds {layout.main_root} (pid {holder}) but does not answer")
        try:
            pid = _spawn(layout, environ, local=local, force=force)
        except OSError as error:
            raise unwritable(error) from error
        if pid is not None:
            return pid
        # Another start won the lock in between: wait for that one.
        if time.monotonic() > deadline:
            raise _too_slow(layout)


def _too_slow(layout: Layout) -> DaemonStartFailed:
    """The machine may only be busy: then the daemon keeps starting, and is ready for the next command."""
    return DaemonStartFailed(
        f"the daemon did not start within {limits.start_seconds_max:g} s: the machine may be busy",
        remedy="repeat the command; if that fails again: thrum daemon logs -n 20",
        log=str(layout.log_file),
    )


def daemon_command(layout: Layout, *, local: bool, force: bool) -> list[str]:
    """The command line of a daemon. With -P Python does not import from its working directory: a repository may contain
    a `thrum/daemon.py`, or a `trio.py`.
    """
    flags = ["--local"] * local + ["--force"] * force
    return [sys.executable, "-P", "-m", "thrum.daemon", str(layout.main_root), *flags]


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process that starts a daemon, as the daemon gets it."""
    return {name: value for name, value in environ.items() if not name.startswith(_NOT_INHERITED) and name not in MARKS}


def daemon_environment(layout: Layout, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What a starting daemon goes by: its own environment, but for a THRUM_LOCAL=0 that an agent started it with.

    To sync where the settings say local only is no agent's to decide (rpc.md §3, Na). Told in the log.
    """
    if sync_override(environ):
        names = LiveSettings(layout, runtimes_file(environ)).runtime_names()
        try:
            judge_own_process(names, "THRUM_LOCAL=0", partial(append_line, layout.log_file))
        except ThrumError:
            return {name: value for name, value in environ.items() if name != "THRUM_LOCAL"}
    return environ


def _wait_until_it_answers(layout: Layout, deadline: float) -> bool:
    pause = 0.005
    while True:
        if answers(layout):
            return True
        if time.monotonic() > deadline:
            return False
        if files.lock_holder(layout.lock_file) is None:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _spawn(layout: Layout, environ: Mapping[str, str], *, local: bool, force: bool) -> int | None:
    """The new daemon's pid once it answers, or None if another one got the lock first."""
    files.ensure_private_dir(layout.var_dir)
    reader, writer = os.pipe()
    try:
        os.set_inheritable(writer, True)
        environment = child_environment(environ) | {REPORT_VARIABLE: str(writer)}
        arguments = daemon_command(layout, local=local, force=force)
        log = open_to_append(layout.log_file)
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
                pass_fds=(writer,),
            )
        finally:
            os.close(log)
        os.close(writer)
        writer = -1
        return _read_reports(reader, process, layout)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _read_reports(reader: int, process: subprocess.Popen[bytes], layout: Layout) -> int | None:
    buffer = b""
    while True:
        ready, _, _ = select.select([reader], [], [], limits.start_seconds_max)
        chunk = os.read(reader, 65536) if ready else b""
        if not ready:
            raise _too_slow(layout)
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            report = msgspec.json.decode(line, type=Report)
            match report.state:
                case "ready":
                    # It lives on: don't wait for it; it is init's child once we are gone.
                    process.returncode = 0
                    return report.pid
                case "held":
                    process.wait()
                    return None
                case "failed":
                    process.wait()
                    raise from_wire(report.kind, report.code, report.message, report.remedy, report.details)
                case "rebuilding":
                    continue
        if not chunk:
            process.wait()
            raise DaemonStartFailed(f"the daemon did not start: {_last_log_line(layout)}", log=str(layout.log_file))


def _last_log_line(layout: Layout) -> str:
    try:
        lines = files.read_bytes(layout.log_file).decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:500] if lines else "it logged nothing"


def unwritable(error: OSError) -> StoreFailed:
    """What the operating system refused, with its fix."""
    path = error.filename or "its files"
    return StoreFailed(f"could not write {path}: {error.strerror}", remedy=files.remedy_of(error, path))


def report_failure(error: ThrumError) -> Report:
    """How a starting daemon tells what stopped it."""
    return Report("failed", 0, error.kind, error.code, error.message, error.remedy, error.details)


def wait_until_gone(layout: Layout, pid: int, seconds: float) -> bool:
    """Whether the daemon `pid` let go of its lock in time: then everything it had is on disk and closed.

    Another one may hold it by then: a client that found none has started it.
    """
    deadline = time.monotonic() + seconds
    pause = 0.005
    while files.lock_holder(layout.lock_file) == pid:
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _named_holder(layout: Layout) -> int | None:
    """As `files.lock_holder`, with a little patience for a pid that is about to be written."""
    deadline = time.monotonic() + _PID_SECONDS
    while (pid := files.lock_holder(layout.lock_file)) == 0 and time.monotonic() < deadline:
        time.sleep(0.005)
    return pid


def _is_daemon(pid: int) -> bool:
    """Whether the process of that pid is a daemon of thrum's: the file may name one of long ago, for the moment in
    which a new one has the lock and has not written its own, or of another container.
    """
    return is_daemon(open_process_table().program(pid))


def stop_running(layout: Layout, *, insist: bool = False) -> int | None:
    """Stop the daemon as house.md says; its pid, or None if none ran. One that is starting is stopped when it has
    started, one that is stopping is waited for.

    `insist`: one that does not answer is sent SIGTERM, then SIGKILL (it loses no answered request). Else DaemonLocked.
    """
    deadline = time.monotonic() + limits.start_seconds_max
    stopped: int | None = None
    while (pid := _named_holder(layout)) is not None:
        if _wait_until_it_answers(layout, deadline) and _ask_to_stop(layout):
            if wait_until_gone(layout, pid, limits.drain_seconds + limits.start_seconds_max):
                return pid
            break
        if time.monotonic() > deadline:
            break
        stopped = pid
        time.sleep(0.01)
    if pid is None:
        return stopped
    if not insist or pid <= 1 or not _is_daemon(pid):
        raise DaemonLocked(f"another daemon holds {layout.main_root} (pid {pid}) but does not answer")
    for number, seconds in ((signal.SIGTERM, limits.drain_seconds + 1), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until_gone(layout, pid, seconds):
            return pid
    raise DaemonUnavailable(f"the daemon (pid {pid}) cannot be stopped", remedy=f"kill -9 {pid}")


def _ask_to_stop(layout: Layout) -> bool:
    try:
        with contextlib.closing(BlockingClient(layout.socket_path, connect_seconds=1.0)) as client:
            client.call(DAEMON_STOP, timeout_seconds=limits.drain_seconds)
    except ThrumError:
        return False
    return True
