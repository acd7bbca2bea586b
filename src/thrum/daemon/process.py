"""The process of a daemon: its lock, its log, and the pipe over which it reports to the process that started it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import msgspec
import trio

from thrum.daemon import launch
from thrum.daemon.app import Report, run_daemon
from thrum.daemon.build import Start
from thrum.model import files, limits, paths, settings
from thrum.model.config import LiveConfig
from thrum.model.errors import DaemonStartFailed, ThrumError
from thrum.model.log import open_log
from thrum.model.paths import Layout
from thrum.rpc.listener import few_open_files, raise_open_file_limit

log = logging.getLogger("thrum.daemon")

SWITCH_SECONDS = 0.0005
"""How long one thread may keep the interpreter while another waits for it: a flush that is done is answered soon."""


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the daemon of `arguments[0]`, with `--local`, `--force`; the exit status, 0 after a clean stop.

    `environ`: the variables of this process.
    """
    report = _reporter(environ.get(launch.REPORT_VARIABLE, ""))
    environ = {name: value for name, value in environ.items() if name != launch.REPORT_VARIABLE}
    try:
        os.umask(0o077)
        layout = paths.find_layout(Path(arguments[0]))
        files.ensure_private_dir(layout.thrum_sync_dir)
        descriptor = _lock(layout)
        if descriptor is None:
            report(launch.Report("held"))
            return 1
        files.note_holder(descriptor)
        hostname = environ.get("THRUM_HOSTNAME") or os.uname().nodename
        environ = launch.daemon_environment(layout, environ)
        start = Start(layout, hostname, environ, local="--local" in arguments, lock=descriptor)
        _run(start, report)
    except Exception as error:
        report(launch.report_failure(_refusal(error)))
        return 1
    return 0


def _lock(layout: Layout) -> int | None:
    """The daemon's lock, or None if another has it. Who only looks whether one runs holds it for a moment."""
    for _ in range(20):
        descriptor = files.try_lock(layout.lock_file)
        if descriptor is not None:
            return descriptor
        time.sleep(0.005)
    return None


def _refusal(error: BaseException) -> ThrumError:
    """The one refusal inside whatever came out of the task tree."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, ThrumError):
        return error
    if (busy := files.shortage(error)) is not None:
        return DaemonStartFailed(f"the daemon did not start: {busy.message}", remedy=busy.remedy)
    if isinstance(error, OSError):
        return launch.unwritable(error)
    return DaemonStartFailed(f"the daemon did not start: {type(error).__name__}: {error}")


def _run(start: Start, report: Report) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what was loaded stays: the collector need not look at it
    gc.enable()
    gc.set_threshold(*limits.gc_threshold)
    live = LiveConfig(start.layout.config_file)
    with open_log(start.layout.log_file, live.current()[settings.LOG_LEVEL]):
        try:
            connections = raise_open_file_limit()
            if few := few_open_files(files.open_files_max()):
                log.warning("%s", few)
            trio.run(run_daemon, replace(start, connections=connections), live, report)
        except ThrumError as error:
            log.error("the daemon does not start: %s; %s", error.message, error.remedy)
            raise
        except BaseException:
            log.exception("the daemon fails")
            raise


def _reporter(asked: str) -> Report:
    """Tell the process that started us how far we are, over the pipe of that number; silent if it didn't ask. The pipe
    is closed with the last word.
    """
    if not asked.isdecimal():
        return lambda report: None
    descriptor: list[int] = [int(asked)]
    os.set_inheritable(descriptor[0], False)

    def tell(report: launch.Report) -> None:
        if not descriptor:
            return
        with contextlib.suppress(OSError):
            os.write(descriptor[0], msgspec.json.encode(report) + b"\n")
        if report.state != "rebuilding":
            os.close(descriptor.pop())

    return tell
