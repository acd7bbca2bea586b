"""The terminals of Codex: processes with a person at them, which one app-server may serve all (identity.md C3a).

Linux alone: elsewhere none are found, and an agent's terminal is only known where it was recorded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from thrum.identity.processes import ProcessTable, is_live
from thrum.identity.runtimes import KNOWN_RUNTIMES, RuntimeNames, is_shared_server, runtime_of_process

_NO_TERMINAL: Final = frozenset({"app-server", "exec", "queue", "mcp-server", "exec-server", "login", "doctor"})
"""Words after which it is no conversation with a person, as the first argument."""


@dataclass(frozen=True, slots=True)
class CodexTerminal:
    """One process of Codex that has a terminal, the outermost of its name. `cwd` is free of links."""

    pid: int
    started: str
    started_at: float
    """Seconds since 1970."""
    cwd: str


def codex_terminals(
    table: ProcessTable, names: RuntimeNames = KNOWN_RUNTIMES, proc: str = "/proc"
) -> list[CodexTerminal]:
    """Those of this user, the oldest first. Blocking: one small file for each of the user's processes."""
    found: dict[int, CodexTerminal] = {}
    above: dict[int, int] = {}
    try:
        pids = [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        terminal = _look(table, pid, names, proc)
        if terminal is not None:
            found[pid], above[pid] = terminal
    outermost = [each for pid, each in found.items() if above[pid] not in found]
    return sorted(outermost, key=lambda each: (each.started_at, each.pid))


def terminal_at(
    table: ProcessTable, pid: int, names: RuntimeNames = KNOWN_RUNTIMES, proc: str = "/proc"
) -> CodexTerminal | None:
    """The same of one process, whatever is above it; None if it is none."""
    found = _look(table, pid, names, proc)
    return None if found is None else found[0]


def _look(table: ProcessTable, pid: int, names: RuntimeNames, proc: str) -> tuple[CodexTerminal, int] | None:
    try:
        if os.stat(f"{proc}/{pid}").st_uid != os.geteuid():
            return None
        seen = table.read(pid)
        if seen is None or not is_live(seen):
            return None
        program = table.program(pid)
        if runtime_of_process(program, names) != "codex" or is_shared_server(program, names):
            return None
        if _NO_TERMINAL & set(program.argv[1:3]) or table.terminal(pid) is None:
            return None
        return CodexTerminal(pid, seen.started, seen.started_at, table.cwd(pid)), seen.ppid
    except (OSError, ValueError):
        return None  # it ended meanwhile
