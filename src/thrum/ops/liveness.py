"""Is the process that a record names still that process? Asked of the kernel, never of heartbeats (identity.md §5)."""

from __future__ import annotations

import os
from typing import Protocol

from thrum.identity.processes import ProcessTable, same_process
from thrum.identity.runtimes import KNOWN_RUNTIMES, RuntimeNames, runtime_of_process
from thrum.model import clock


class Recorded(Protocol):
    """A record that may name a process."""

    @property
    def agent_pid(self) -> int: ...
    @property
    def agent_pid_started(self) -> str: ...
    @property
    def place_at(self) -> str: ...


def owner_alive(record: Recorded, processes: ProcessTable, names: RuntimeNames = KNOWN_RUNTIMES) -> bool:
    """Whether the recorded process lives. A process that cannot be read counts as dead: nothing proves it."""
    if record.agent_pid <= 1:
        return False
    try:
        seen = processes.read(record.agent_pid)
    except OSError:
        return False
    return same_process(
        record.agent_pid_started,
        seconds(record.place_at),
        seen,
        lambda: runtime_of_process(processes.program(record.agent_pid), names) is not None,
    )


class Housed(Protocol):
    """A record that may say where its agent lives."""

    @property
    def is_own(self) -> bool: ...
    @property
    def worktree_path(self) -> str: ...


def worktree_missing(record: Housed) -> bool:
    """Whether an agent of this daemon lived in a directory that is not there any more. One look at the file system."""
    return record.is_own and bool(record.worktree_path) and not os.path.isdir(record.worktree_path)


def seconds(text: str) -> float:
    """Seconds since 1970 of a time in the projection; 0 for none."""
    return clock.parse_ms(text) / 1000 if text else 0.0
