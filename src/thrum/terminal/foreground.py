"""Who owns the foreground of a pane's terminal: whose keys a typed line would be.

Neither the screen nor tmux's `pane_current_command` tells: a live agent under `bash -c` is `bash` there, and a shell
can draw any prompt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, Literal, NamedTuple

import trio

from thrum.identity.processes import ProcessTable, is_live
from thrum.terminal._shell import SHELLS

Owner = Literal["agent", "child", "shell", "other", "unknown"]
"""The agent's own process group; one that the agent started (an editor, a pager); the pane's shell; another program;
what can't be told."""

_PS_SECONDS_MAX: Final = 3.0


class Foreground(NamedTuple):
    """Who owns it, and its group's first process; 0 where that can't be told."""

    owner: Owner
    pid: int = 0


UNTOLD: Final = Foreground("unknown")


async def foreground(pane_pid: int, agent_pid: int, table: ProcessTable) -> Foreground:
    """Who has the foreground of the terminal that a pane's first process has. Never raises.

    `agent_pid` is the agent's runtime process; 0 for a pane without one, and as good as that if it has ended.
    """
    try:
        leader = await _foreground_group(pane_pid)
        if leader <= 0:
            return UNTOLD
        if not is_live(table.read(agent_pid)):
            agent_pid = 0
        if agent_pid and os.getpgid(agent_pid) == leader and _same_terminal(pane_pid, agent_pid, table):
            return Foreground("agent", leader)
        chain = [process.pid for process in table.chain(leader)]
    except OSError:
        return UNTOLD
    if agent_pid in chain:
        return Foreground("child", leader)
    if leader == pane_pid or pane_pid in chain:
        return Foreground("shell" if _is_shell(leader, table) else "other", leader)
    return Foreground("other", leader)


def _same_terminal(one: int, other: int, table: ProcessTable) -> bool:
    """Whether two processes have the same terminal; a group of that number may be elsewhere. Raises OSError."""
    first, second = table.terminal(one), table.terminal(other)
    return first is not None and second is not None and first.name == second.name


def _is_shell(pid: int, table: ProcessTable) -> bool:
    """Whether it takes commands: one that runs a command given on its line (`bash -c`) waits for it, or asks itself."""
    program = table.program(pid)
    return program.comm.removeprefix("-") in SHELLS and "-c" not in program.argv[1:2]


async def _foreground_group(pane_pid: int) -> int:
    """The process group that a process's terminal listens to; 0 if it has none. Raises OSError."""
    if sys.platform == "linux":
        return _by_proc(pane_pid)
    return await _by_ps(pane_pid)


def _by_proc(pane_pid: int) -> int:
    data = Path(f"/proc/{pane_pid}/stat").read_bytes()
    # After the name, which may hold blanks: state, parent, group, session, terminal, foreground group.
    return int(data[data.rindex(b")") + 2 :].split(None, 6)[5])


async def _by_ps(pane_pid: int) -> int:
    """The same on macOS, whose kernel tells it only to `ps`. Raises OSError."""
    with trio.move_on_after(_PS_SECONDS_MAX):
        done = await trio.run_process(
            ("ps", "-o", "tpgid=", "-p", str(pane_pid)), capture_stdout=True, capture_stderr=True, check=False, cwd="/"
        )
        text = done.stdout.decode("ascii", "replace").strip()
        return int(text) if text.lstrip("-").isdigit() else 0
    return 0
