"""Which process writes to the pipe on stdin. Linux tells through /proc; elsewhere it is unknown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from thrum.identity.processes import open_process_table

_PROC = "/proc"


def has_writer(fd: int) -> bool:
    """Whether a process that is no ancestor of this one holds the other end of a pipe, as `make test` does in
    `make test | thrum send`: it will write or end. An ancestor, such as an agent's runtime, may have left it open for
    good.
    """
    try:
        pipe = os.readlink(f"{_PROC}/self/fd/{fd}")
        ancestors = {each.pid for each in open_process_table().chain(os.getpid())}
    except OSError:
        return False
    return any(_writes(pid, pipe) for pid in _pids() if pid not in ancestors)


def _pids() -> Iterator[int]:
    yield from (int(name) for name in os.listdir(_PROC) if name.isdecimal())


def _writes(pid: int, pipe: str) -> bool:
    """Whether the process has the pipe open for writing; not, where another user hides that."""
    with suppress(OSError):
        for fd in os.listdir(f"{_PROC}/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"{_PROC}/{pid}/fd/{fd}") == pipe and _is_for_writing(
                    Path(f"{_PROC}/{pid}/fdinfo/{fd}")
                ):
                    return True
    return False


def _is_for_writing(fdinfo: Path) -> bool:
    with fdinfo.open() as file:
        flags = next((int(line.split()[1], 8) for line in file if line.startswith("flags:")), os.O_RDONLY)
    return flags & os.O_ACCMODE != os.O_RDONLY
