"""Who counts as a person, or at least not as an agent: the access levels Pe and Na (rpc.md §3).

This stops accidents and obedient agents. A hostile program of the same user can forge all of it: start itself without
an agent among its ancestors, with another environment, on its own terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from thrum.identity.processes import CHAIN_MAX, Process, ProcessTable, Terminal, is_daemon, open_process_table
from thrum.identity.runtimes import MARKS, RuntimeNames, runtime_of_process
from thrum.model.errors import NotAPerson
from thrum.model.guards import Refusal, refusal_error
from thrum.model.methods.method import Access

ACT: Final = "person_act"
"""The message of the record that each allowed act leaves in the log."""
REFUSED: Final = "not_a_person"

Record = Callable[[str, str, dict[str, Any]], None]
"""`record(level, message, fields)`: one line for the daemon's log."""


@dataclass(frozen=True, slots=True)
class Ancestry:
    """What the kernel says of a process that wants to do a person's act."""

    pid: int = 0
    chain: tuple[str, ...] = ()
    """The command names of the process and its ancestors, nearest first."""
    cut: bool = False
    """There are more of them than were looked at."""
    runtime: str = ""
    """The nearest runtime among them."""
    runtime_pid: int = 0
    daemon_pid: int = 0
    """The nearest thrum daemon among its ancestors."""
    mark: str = ""
    """A runtime's variable in the first environment of one of them (`MARKS`)."""
    mark_pid: int = 0
    terminal: Terminal | None = None
    agent: str = ""
    """The agent whose process has the same terminal."""


def look_at_ancestry(
    table: ProcessTable,
    chain: Sequence[Process],
    names: RuntimeNames,
    placed: Iterable[int] = (),
    agent_of: Callable[[int], str] = lambda pid: "",
) -> Ancestry:
    """Look at a process and its ancestors (`chain`). `placed`: pids that are recorded for agents; `agent_of` tells the
    agent that such a process is, or `""`. Raises OSError when the process itself can't be read.

    Everything is looked at now: these are rare acts, and nothing is believed from before.
    """
    pid = chain[0].pid
    cut = len(chain) >= CHAIN_MAX and chain[-1].ppid > 1
    chain = (*chain, *_first_process(table, chain[-1]))
    runtime, runtime_pid, daemon_pid = "", 0, 0
    for each in chain:
        program = table.program(each.pid)
        found = runtime_of_process(program, names)
        if found and not runtime:
            runtime, runtime_pid = found, each.pid
        if each.pid != pid and not daemon_pid and is_daemon(program):
            daemon_pid = each.pid
    mark, mark_pid = _mark(table, chain)
    terminal = table.terminal(pid)
    agent = "" if terminal is None else _agent_at(table, terminal, placed, agent_of)
    commands = tuple(each.comm for each in chain)
    return Ancestry(pid, commands, cut, runtime, runtime_pid, daemon_pid, mark, mark_pid, terminal, agent)


def _first_process(table: ProcessTable, topmost: Process) -> tuple[Process, ...]:
    """Pid 1, where the chain leads to it: in a container it may be the runtime itself."""
    if topmost.ppid != 1:
        return ()
    try:
        first = table.read(1)
    except OSError:
        return ()  # hidden, as that of another user may be
    return (first,) if first is not None else ()


def _mark(table: ProcessTable, chain: Sequence[Process]) -> tuple[str, int]:
    """The first runtime's variable, and whose environment it is in.

    Of its ancestors', too: who takes such a variable away for one command is still below a shell that has it.
    """
    for each in chain:
        try:
            environ: Container[str] = table.environ(each.pid)
        except OSError:
            if each is chain[0]:
                raise
            continue  # another user's, as a login is
        for variable in MARKS:
            if variable in environ:
                return variable, each.pid
    return "", 0


def _agent_at(table: ProcessTable, terminal: Terminal, placed: Iterable[int], agent_of: Callable[[int], str]) -> str:
    for pid in placed:
        try:
            other = table.terminal(pid)
        except OSError:
            continue
        if other is not None and other.name == terminal.name and (agent := agent_of(pid)):
            return agent
    return ""


def obstacle(ancestry: Ancestry, level: Access) -> str:
    """What rules out a person, in words; empty: nothing. Pure.

    `level`: PERSON asks for a person at a terminal, NOT_AN_AGENT only that no agent is above: scripts, containers and
    CI set repositories up without a terminal.
    """
    if ancestry.runtime:
        return f"{ancestry.runtime} (pid {ancestry.runtime_pid}) is among the ancestors"
    if ancestry.daemon_pid:
        return f"a thrum daemon (pid {ancestry.daemon_pid}) is among the ancestors"
    if ancestry.mark:
        return f"{ancestry.mark} of {MARKS[ancestry.mark]} is in the environment of pid {ancestry.mark_pid}"
    if ancestry.cut:
        return f"it has more than {CHAIN_MAX} ancestors"
    if level is not Access.PERSON:
        return ""
    if ancestry.terminal is None:
        return "no terminal"
    if not ancestry.terminal.foreground:
        return f"it runs in the background of {ancestry.terminal.name}"
    if ancestry.agent:
        return f"@{ancestry.agent} runs in this terminal, {ancestry.terminal.name}"
    return ""


def judge_own_process(names: RuntimeNames, act: str, record: Record) -> None:
    """`check_person_act` for this very process, NOT_AN_AGENT: for what a command does without a daemon. Raises
    CallerUnproved too.
    """
    pid = os.getpid()
    table = open_process_table()
    try:
        ancestry = look_at_ancestry(table, table.chain(pid), names)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        refusal = Refusal("unauthenticated_rpc", "introspection_failed", step="process", cause=cause)
        raise refusal_error(refusal, caller_pid=pid) from error
    check_person_act(ancestry, Access.NOT_AN_AGENT, act, record)


def check_person_act(ancestry: Ancestry, level: Access, what: str, record: Record) -> None:
    """Let a person's act pass, or raise NotAPerson; either way who it was is recorded. `what`: the act, in a word."""
    fields: dict[str, Any] = {
        "act": what,
        "caller_pid": ancestry.pid,
        "chain": " < ".join(ancestry.chain),
    }
    if ancestry.terminal is not None:
        fields["terminal"] = ancestry.terminal.name
    reason = obstacle(ancestry, level)
    if reason:
        record("warning", REFUSED, {**fields, "reason": reason})
        raise NotAPerson(f"this needs a person at a terminal: {reason}", reason=reason, caller_pid=ancestry.pid)
    record("info", ACT, fields)
