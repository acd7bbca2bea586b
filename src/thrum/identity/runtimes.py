"""Which processes are agent runtimes, and which of a caller's chain to record (identity.md §5).

Pure but for `Runtimes`."""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from thrum.identity.processes import Process, ProcessTable, Program

_NAMES: dict[str, tuple[str, ...]] = {
    "claude": ("claude",),
    "codex": ("codex",),
    "gemini": ("gemini",),
    "opencode": ("opencode", ".opencode"),
    "auggie": ("auggie",),
    "amp": ("amp",),
    "aider": ("aider",),
    "kiro-cli": ("kiro-cli",),
    "cursor": ("cursor-agent",),
}
_PACKAGES: dict[str, str] = {
    "@anthropic-ai/claude-code": "claude",
    "@openai/codex": "codex",
    "@google/gemini-cli": "gemini",
    "opencode-ai": "opencode",
    "@augmentcode/auggie": "auggie",
    "@sourcegraph/amp": "amp",
}
_SHARED: dict[str, str] = {"codex": "app-server"}
"""Runtimes of which one process serves many sessions, and the word in its command line that says so: all terminals of a
CODEX_HOME are served by one `codex app-server`, and tools and hooks run in it, with the environment and the parent of
the process that started it first."""
_SHARED_NAMES = tuple(_SHARED)
_PROGRAMS_MAX: Final = 4_096
_KEPT_SECONDS: Final = 1.0
"""How long the programs of a chain are believed before they are looked up again."""
SESSION_VARIABLE: Final = "CODEX_THREAD_ID"
"""What the tools of such a server have in their environment: which of its sessions they are of."""
MARKS: Final[Mapping[str, str]] = {
    "CLAUDECODE": "claude",
    "CLAUDE_CODE_ENTRYPOINT": "claude",
    "CODEX_THREAD_ID": "codex",
    "CODEX_SANDBOX": "codex",
    "CODEX_SANDBOX_NETWORK_DISABLED": "codex",
    "CODEX_CI": "codex",
    "GEMINI_CLI": "gemini",
    "OPENCODE": "opencode",
    "AUGMENT_AGENT": "auggie",
    "AMP_CURRENT_THREAD_ID": "amp",
    "CURSOR_AGENT": "cursor",
    "CLINE_ACTIVE": "cline",
    "COPILOT_CLI": "copilot",
    "GOOSE_TERMINAL": "goose",
    "ANTIGRAVITY_AGENT": "antigravity",
    "AI_AGENT": "an agent",
}
"""Variables that runtimes set for what they start, each with the runtime. Those that an editor sets in a person's
terminal too (CLAUDE_CODE_SSE_PORT, CURSOR_TRACE_ID) are none."""
_SHELLS = frozenset(
    ("sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "ash", "busybox", "tcsh", "csh", "pwsh", "nu", "elvish")
)
_INTERPRETER = re.compile(r"node|nodejs|bun|deno|python[\d.]*|pypy[\d.]*|ruby[\d.]*")
_TAKES_NEXT = frozenset({"-r", "--require", "--import", "--loader", "-W", "-X", "-C"})
_ENDS_SEARCH = frozenset({"-e", "--eval", "-c", "-p", "-"})
_SUFFIX = re.compile(r"\.(?:js|mjs|cjs|ts|py|rb)$")
_COMM_CHARS = 15


@dataclass(frozen=True, slots=True)
class RuntimeNames:
    """Process names and package directories, each with the runtime it stands for. Made by `runtime_names`."""

    by_name: Mapping[str, str]
    by_package: Mapping[str, str] = field(default_factory=dict[str, str])
    cursor: bool = True
    """Whether a bare `agent` under a cursor path counts."""
    own: frozenset[str] = frozenset()
    """The user's own, though no process be told by them."""


def runtime_names(
    processes: Mapping[str, Iterable[str]] | None = None, commands: Mapping[str, str] | None = None
) -> RuntimeNames:
    """The known runtimes, changed by `runtime.processes` of the configuration and by the user's own runtimes.

    `processes`: `{"mytool": ["mytool"]}` adds names to a runtime, `{"aider": []}` takes the runtime away. `commands`:
    how each of the user's own is started; what goes by a name that is known already keeps its runtime.
    """
    names = dict(_NAMES)
    for runtime, added in (processes or {}).items():
        names[runtime] = (*names.get(runtime, ()), *added) if (added := tuple(added)) else ()
    by_name: dict[str, str] = {}
    for runtime, spellings in names.items():
        for name in spellings:
            by_name[name] = runtime
            # The kernel cuts a command's name.
            by_name.setdefault(name[:_COMM_CHARS], runtime)
    for runtime, command in (commands or {}).items():
        program = _program_of(command)
        if program and names.get(runtime) != ():
            by_name.setdefault(program, runtime)
            by_name.setdefault(program[:_COMM_CHARS], runtime)
    by_package = {package: runtime for package, runtime in _PACKAGES.items() if names[runtime]}
    return RuntimeNames(by_name, by_package, cursor=bool(names["cursor"]), own=frozenset(commands or ()))


def _program_of(command: str) -> str:
    """The process name that a command line gives rise to; empty for none, and for a shell, which is not a runtime.

    An interpreter's is that of its script: not everything that it runs is this runtime.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    program = os.path.basename(words[0]) if words else ""
    if _INTERPRETER.fullmatch(program):
        program = _SUFFIX.sub("", os.path.basename(_script(words)))
    return "" if program in _SHELLS else program


KNOWN_RUNTIMES = runtime_names()


def runtimes(names: RuntimeNames) -> list[str]:
    """Every runtime that may be named: those recognized by their processes, and the two without a process."""
    return sorted({*names.by_name.values(), *names.own, "shell", "cli-only"})


def runtime_named(text: str) -> str:
    """A runtime as people may write it, in its one spelling."""
    return "kiro-cli" if text == "kiro" else text


def runtime_of_process(program: Program, names: RuntimeNames = KNOWN_RUNTIMES) -> str | None:
    """The runtime that a process is, or None. Shells and their scripts never are: what they start may be."""
    exe = os.path.basename(program.exe.removesuffix(" (deleted)"))
    argv0 = os.path.basename(program.argv[0]) if program.argv else ""
    if (exe or argv0).removeprefix("-") in _SHELLS:
        return None
    spellings = (exe, program.comm, argv0)
    for name in spellings:
        if name in names.by_name:
            return names.by_name[name]
    if names.cursor and "agent" in spellings and "cursor" in program.exe + "\n" + "".join(program.argv[:1]):
        return "cursor"
    if any(_INTERPRETER.fullmatch(name) for name in spellings):
        return _runtime_of_script(_script(program.argv), names)
    return None


def is_shared_server(program: Program, names: RuntimeNames = KNOWN_RUNTIMES) -> bool:
    """Whether a process serves many sessions of its runtime at once (identity.md §11, C3a)."""
    runtime = runtime_of_process(program, names)
    return runtime in _SHARED and _SHARED[runtime] in program.argv[1:]


def may_be_shared_server(comm: str, names: RuntimeNames = KNOWN_RUNTIMES) -> bool:
    """Whether a process of that command name is worth the look at its program that `is_shared_server` takes."""
    if comm in _SHELLS:
        return False
    return (
        comm.startswith(_SHARED_NAMES)
        or names.by_name.get(comm) in _SHARED
        # Node gives its process the name of its first thread.
        or comm == "MainThread"
        or _INTERPRETER.fullmatch(comm) is not None
    )


def _script(argv: Sequence[str]) -> str:
    """What an interpreter was told to run: a path, or a module's name; empty for inline code."""
    runner = os.path.basename(argv[0]) if argv else ""
    words = iter(argv[1:])
    for word in words:
        if word in _ENDS_SEARCH:
            return ""
        if word in ("-m", "--"):
            return next(words, "")
        if word in _TAKES_NEXT:
            next(words, None)
        elif not word.startswith("-") and not (word == "run" and runner in ("bun", "deno")):
            return word
    return ""


def _runtime_of_script(script: str, names: RuntimeNames) -> str | None:
    if not script:
        return None
    named = names.by_name.get(_SUFFIX.sub("", os.path.basename(script)))
    if named is not None:
        return named
    path = f"/{script}/"
    return next((runtime for package, runtime in names.by_package.items() if f"/{package}/" in path), None)


@dataclass(frozen=True, slots=True)
class Link:
    """One process of a chain, as the decisions need it."""

    pid: int
    started: str = ""
    started_at: float = 0.0
    state: str = "S"
    runtime: str | None = None
    shared: bool = False
    """Whether it serves many sessions: neither it nor who started it tells which of them the caller is of."""


def link_of(process: Process, program: Program, names: RuntimeNames = KNOWN_RUNTIMES) -> Link:
    """One process of a chain, by its program."""
    return Link(
        process.pid,
        process.started,
        process.started_at,
        process.state,
        runtime_of_process(program, names),
        is_shared_server(program, names),
    )


def links_of(table: ProcessTable, chain: Iterable[Process], names: RuntimeNames = KNOWN_RUNTIMES) -> tuple[Link, ...]:
    """A chain with the runtime of each process; reads every process's program."""
    return tuple(link_of(process, table.program(process.pid), names) for process in chain)


class Runtimes:
    """Which runtime each process is, shared among the peers of one daemon; believed for a second."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, str], tuple[Link, float]] = {}

    def links(self, table: ProcessTable, chain: Iterable[Process], names: RuntimeNames, now: float) -> tuple[Link, ...]:
        """A chain with the runtime of each process; `now` a monotonic time in seconds."""
        return tuple(self._link(table, each, names, now) for each in chain)

    def any(self, table: ProcessTable, chain: Iterable[Process], names: RuntimeNames, now: float) -> bool:
        """Whether a runtime is among them."""
        return any(self._link(table, each, names, now).runtime is not None for each in chain)

    def _link(self, table: ProcessTable, process: Process, names: RuntimeNames, now: float) -> Link:
        known = self._known
        key = (process.pid, process.started, process.comm)
        found = known.get(key)
        if found is not None and now < found[1]:
            return found[0]
        if len(known) >= _PROGRAMS_MAX:
            known.clear()
        # A process may become another program, therefore not for ever.
        link = link_of(process, table.program(process.pid), names)
        known[key] = (link, now + _KEPT_SECONDS)
        return link


def proving(chain: Sequence[Link]) -> Sequence[Link]:
    """The links that tell who the caller is: those below a shared server."""
    return next((chain[:index] for index, link in enumerate(chain) if link.shared), chain)


def binding_pid(chain: Sequence[Link], owned: Mapping[int, str], identity: str) -> int:
    """The pid to record for `identity`, or 0: the nearest runtime, or the outermost of the same name above it.

    `owned` maps live pids to the identity that has them. Side processes of a session come and go, the session stays:
    hence the climb. A nearest runtime that owns another identity binds nothing.
    """
    runtimes = [link for link in proving(chain) if link.runtime is not None and link.pid > 1]
    bound = 0
    for link in runtimes:
        if link.runtime != runtimes[0].runtime or owned.get(link.pid, identity) != identity:
            break
        bound = link.pid
    return bound
