"""Claude Code: its registry tells its state, and a background hook that ends with status 2 wakes it (asyncRewake).

Measured with 2.1.332 and 2.1.197 (docs/runtimes.md): what such a hook says on stderr goes to the model at once when it
is idle, after the running tool when it works, and fires UserPromptSubmit with the text: the proof.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from thrum.model.wake_types import DoorState, Offered, Process, Reachable, State
from thrum.runtimes.waiters import Waiters

WAITER: Final = "claude.waiter"
_TAKES: Final[frozenset[State]] = frozenset({"idle", "working", "unknown"})
_STATES: Final[Mapping[str, State]] = {"idle": "idle", "busy": "working", "waiting": "dialog"}
_ENTRY_BYTES_MAX: Final = 65536
_PRINTING: Final = frozenset({"-p", "--print"})


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """A file of `~/.claude/sessions`, named by the pid, as the program writes it whenever something changes."""

    pid: int = 0
    session_id: str = ""
    cwd: str = ""
    proc_start: str = ""
    version: str = ""
    status: str = ""
    messaging_socket_path: str = ""
    status_updated_at: float = 0
    """Milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the registry says of one process."""

    state: State
    since_ms: float
    session: str
    version: str


def config_dir(environ: Mapping[str, str]) -> str:
    """Where a Claude with these variables keeps its files; empty where they do not tell."""
    if given := environ.get("CLAUDE_CONFIG_DIR", ""):
        return given if os.path.isabs(given) else ""
    home = environ.get("HOME", "")
    return f"{home}/.claude" if os.path.isabs(home) else ""


def read_session(directory: str, process: Process) -> Session | None:
    """What the registry in `directory` (`config_dir`) says of that very process; None: nothing, or of another one.

    Blocking: one small file.
    """
    entry = read_entry(directory, process)
    return None if entry is None else session_of(entry, process)


def read_entry(directory: str, process: Process) -> Entry | None:
    """That process's own entry in the registry; None: there is none, or it is of another one. Blocking."""
    try:
        with Path(directory, "sessions", f"{process[0]}.json").open("rb") as file:
            entry = msgspec.json.decode(file.read(_ENTRY_BYTES_MAX), type=Entry)
    except (OSError, msgspec.MsgspecError):
        return None
    return entry if session_of(entry, process) is not None else None


def session_of(entry: Entry, process: Process) -> Session | None:
    """The same of an entry. The file of a process that was killed stays, and its pid may be another's by now."""
    if entry.pid != process[0] or not process[1].endswith(f"/{entry.proc_start}"):
        return None
    return Session(_STATES.get(entry.status, "unknown"), entry.status_updated_at, entry.session_id, entry.version)


def is_interactive(argv: tuple[str, ...]) -> bool:
    """Whether a person can be at it: with `-p` it answers once, and waits for its background hooks before it begins."""
    return _PRINTING.isdisjoint(argv)


class WaiterDoor:
    """The background hook. It is there while one sleeps; a wake uses it up, and the next event starts another.

    OpenCode's plugin keeps such a one, too: a door of the same kind, by another `name`.
    """

    def __init__(self, waiters: Waiters, name: str = WAITER) -> None:
        self._waiters = waiters
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def state(self, agent: Reachable) -> DoorState:
        return DoorState(self._name, agent.hooks_fired, self._waiters.has(agent.process), _TAKES)

    async def offer(self, agent: Reachable, text: str) -> Offered:
        return await self._waiters.hand(agent.process, text)
