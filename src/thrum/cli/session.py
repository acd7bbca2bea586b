"""What a command runs on: a terminal, an environment, a place, and a way to the daemon.

A command does not know whether it runs in the daemon for a launcher, or in the user's own process: both hand it a
`Session`. What only works in the user's own process asks for it by raising `NeedsOwnProcess`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

from thrum.cli.pipes import has_writer
from thrum.identity.files import Identity
from thrum.identity.processes import OwnerState
from thrum.identity.runtimes import Link
from thrum.model import limits
from thrum.model.clock import Clock, SystemClock
from thrum.model.paths import Layout, find_layout
from thrum.rpc.client import Client

TTY_IN, TTY_OUT, TTY_ERR = 1, 2, 4
"""Bits of `Terminal.tty` (rpc.md §6)."""

PIECE_BYTES = 4096
"""What a pipe that is ready takes without blocking (POSIX: PIPE_BUF)."""


class NeedsOwnProcess(Exception):
    """The command must run in the user's own process. Raised before any output; the daemon answers with frame `l`."""


class OutputLost(Exception):
    """Stdout cannot be written, as on a full disk: said on stderr, and the end. `str`: why, in the system's words."""


class Terminal(Protocol):
    """Where output goes and stdin comes from.

    Raises BrokenPipeError when the reader of stdout has gone, OutputLost when it can't be written.
    """

    @property
    def width(self) -> int:
        """Columns for tables and previews; 0: unlimited."""
        ...

    @property
    def tty(self) -> int: ...

    async def write_out(self, data: bytes) -> None: ...

    async def write_err(self, data: bytes) -> None: ...

    async def flush(self) -> None:
        """Return once everything written so far was really handed over."""
        ...

    async def read_stdin(self) -> bytes:
        """All of stdin, to its end."""
        ...

    async def offers_stdin(self) -> bool:
        """Whether stdin counts where no word asked for it: a file, a pipe that another command writes to, or what says
        something (or ends) within `limits.stdin_seconds_max` (cli.md §3.3). So no command hangs on a stdin that a
        parent left open."""
        ...


Connect = Callable[[Layout, bool], AbstractAsyncContextManager[Client]]
"""`connect(layout, autostart)`: the daemon of that repository, for as long as the block runs; started first if it is
not there and `autostart` says so. Raises DaemonUnavailable, DaemonStartFailed …; in the daemon NeedsOwnProcess when the
layout is another repository's."""


class CallerProbe(Protocol):
    """What the kernel says of the caller, for the guard `cross_worktree`. Each raises OSError when it says nothing."""

    @property
    def pid(self) -> int:
        """The process that ran `thrum`."""
        ...

    def owner(self) -> tuple[str, str] | None:
        """The agent that the caller's processes prove, and its root."""
        ...

    def has_runtime(self) -> bool:
        """Whether a runtime is among them."""
        ...

    def is_deliberate(self, agent_id: str) -> bool:
        """Whether naming an agent that runs elsewhere is on purpose: at a terminal, or in the first environment."""
        ...

    def state_of(self, agent_id: str, identity: Identity | None) -> OwnerState:
        """The owner state of an identity, by its file if there is one."""
        ...

    def is_news(self, what: str) -> bool:
        """Whether the shell that ran `thrum` was not told this before, as far as is remembered; from now on it was."""
        ...

    def record(self, outcome: str, fields: Mapping[str, Any]) -> None:
        """Leave `identity_guard_fire` in the daemon's log."""
        ...


def _no_links(_layout: Layout) -> Sequence[Link]:
    return ()


def _no_probe(_layout: Layout) -> CallerProbe | None:
    return None


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the command line."""

    terminal: Terminal
    env: Mapping[str, str]
    """Claims: the caller's THRUM_* variables, NO_COLOR, TERM, COLUMNS."""
    cwd: str
    local: bool
    """Whether this is the user's own process."""
    connect: Connect
    key: str = ""
    """The launcher's `client_key`: with it a repeated run does nothing twice."""
    handed_over: bool = False
    """Whether a daemon had this very run before, and then this process was asked to do it."""
    links: Callable[[Layout], Sequence[Link]] = _no_links
    """The caller's ancestors, nearest first, with what counts as a runtime in the repository of that layout; looked at
    only when the choice of an identity needs them."""
    caller_probe: Callable[[Layout], CallerProbe | None] = _no_probe
    """What is known of the caller, in the repository of that layout; None: nothing."""
    find_layout: Callable[[Path], Layout] = find_layout
    """The layout that a directory belongs to; the daemon remembers them from one command to the next."""
    notices: Callable[[Callable[[], Layout]], Sequence[str]] = lambda layout: ()
    """Warnings to print with any command's result, for callers in those directories."""
    clock: Clock = field(default_factory=SystemClock)


def own_environment() -> dict[str, str]:
    """Of this process; the one place where the command line reads it."""
    return dict(os.environ)


def own_directory() -> str:
    """The working directory of this process, or what it was before it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return own_environment().get("PWD", "/")


class OwnTerminal:
    """The real one: descriptors 0, 1 and 2 of this process."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.tty = sum(bit for bit, fd in ((TTY_IN, 0), (TTY_OUT, 1), (TTY_ERR, 2)) if _is_tty(fd))
        self.width = width_of(env, self.tty)

    async def write_out(self, data: bytes) -> None:
        try:
            await _write(1, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(error.strerror or str(error)) from error

    async def write_err(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # as in the launcher: it is not worth an error
            await _write(2, data)

    async def flush(self) -> None:
        """Nothing is held back: what `write_out` took was written."""

    async def read_stdin(self) -> bytes:
        return await trio.to_thread.run_sync(_read_all, abandon_on_cancel=True)

    async def offers_stdin(self) -> bool:
        return await is_offered(0)


def width_of(env: Mapping[str, str], tty: int) -> int:
    """`COLUMNS`, else the terminal, else 0 for unlimited (cli.md §1.8)."""
    columns = env.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    return shutil.get_terminal_size((0, 0)).columns if tty & TTY_OUT else 0


def _is_tty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


async def is_offered(fd: int) -> bool:
    """`Terminal.offers_stdin` of a descriptor of this process."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    if stat.S_ISREG(mode):
        return True
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        with trio.move_on_after(limits.stdin_seconds_max):
            await trio.lowlevel.wait_readable(fd)
            return True
    if stat.S_ISFIFO(mode) and has_writer(fd):
        await trio.lowlevel.wait_readable(fd)  # it speaks, or its writers end
        return True
    return False


def _read_all() -> bytes:
    pieces: list[bytes] = []
    while piece := os.read(0, 65536):
        pieces.append(piece)
    return b"".join(pieces)


async def _write(fd: int, data: bytes) -> None:
    """Write all of `data`; waits for a slow reader without holding up the rest of the program."""
    view = memoryview(data)
    while view:
        try:
            await trio.lowlevel.wait_writable(fd)
            piece = view[:PIECE_BYTES]
        except (PermissionError, ValueError):
            piece = view  # a plain file: always ready, and nothing that can be waited for
        try:
            view = view[os.write(fd, piece) :]
        except BlockingIOError:
            continue
