"""Codex: a turn through the app-server that serves its terminals, else a row in its own queue.

Both fire UserPromptSubmit with the text when the model is given it: the proof. Measured with 0.171.0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from thrum.model.attempt_ids import tokens_in
from thrum.model.wake_types import DoorState, Failed, Offered, Reachable, State

SERVER: Final = "codex.server"
QUEUE: Final = "codex.queue"
QUEUE_SECONDS: Final = 30.0
"""How long `codex queue` may take; it takes a tenth of a second."""
LATE_SECONDS: Final = 30.0
"""How long an agent is idle, with a server that could start a turn, before its queue is used."""
_STARTED: Final[frozenset[State]] = frozenset({"idle", "working"})
_QUEUED: Final[frozenset[State]] = frozenset({"idle", "unknown"})
_KEPT_ALIVE: Final = ("HOME", "PATH", "CODEX_HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "USER")


def home_of(environ: Mapping[str, str]) -> str:
    """CODEX_HOME of a Codex with these variables; empty where they do not tell."""
    if given := environ.get("CODEX_HOME", ""):
        return given if os.path.isabs(given) else ""
    home = environ.get("HOME", "")
    return f"{home}/.codex" if os.path.isabs(home) else ""


class Server(Protocol):
    """What the door asks of a server (`runtimes.codex.server.CodexServer`)."""

    async def say(self, thread_id: str, text: str) -> Offered: ...
    def lost_of(self, thread_id: str) -> str: ...


class ServerDoor:
    """`turn/start` where the thread is idle, `turn/steer` where it works. Only a loaded thread is led to."""

    def __init__(self, server_of: Callable[[str], Server | None]) -> None:
        """`server_of`: the server that has a thread loaded, by its id."""
        self._server_of = server_of

    @property
    def name(self) -> str:
        return SERVER

    def state(self, agent: Reachable) -> DoorState:
        server = self._server_of(agent.session) if agent.session else None
        lost = server.lost_of(agent.session) if server is not None else ""
        return DoorState(SERVER, agent.hooks_fired, server is not None, _STARTED, lost=lost)

    async def offer(self, agent: Reachable, text: str) -> Offered:
        await trio.lowlevel.checkpoint()
        server = self._server_of(agent.session) if agent.session else None
        if server is None:
            return Failed("no app-server has the thread loaded")
        return await server.say(agent.session, text)


@dataclass(frozen=True, slots=True)
class Program:
    """What `codex queue` is called with: the program and the variables of the terminal that the agent is in."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]


@dataclass(slots=True)
class _Row:
    token: str
    turns: int


@dataclass(slots=True)
class QueueDoor:
    """`codex queue`: a row that the program that has the thread takes when it is idle; after Escape with the next turn.

    `program_of`: of an agent's terminal, None where it is not known. While a row waits the runtime holds it. Where a
    server has the thread (`is_served`) it is the last resort: after Escape it would wait for the person's next turn.
    """

    is_served: Callable[[str], bool]
    program_of: Callable[[Reachable], Program | None]
    _rows: dict[str, _Row] = field(default_factory=dict[str, _Row])
    """By thread: what was put into its queue last, and how many turns have begun since."""

    @property
    def name(self) -> str:
        return QUEUE

    def state(self, agent: Reachable) -> DoorState:
        is_open = bool(agent.session) and self.program_of(agent) is not None
        row = self._rows.get(agent.session)
        held = row is not None and row.turns == 0 and agent.hooks_fired
        late = not self.is_served(agent.session) or trio.current_time() - agent.state_since >= LATE_SECONDS
        takes = _QUEUED if late else frozenset[State]()
        return DoorState(QUEUE, agent.hooks_fired, is_open, takes, held=held)

    def turn_began(self, session: str, prompt: str) -> None:
        """A hook told what a model is given: a row is not held for longer than until the next turn has begun."""
        row = self._rows.get(session)
        if row is not None:
            row.turns += 1
            if row.token in tokens_in(prompt):
                del self._rows[session]

    def forget(self, session: str) -> None:
        """The thread is over."""
        self._rows.pop(session, None)

    async def offer(self, agent: Reachable, text: str) -> Offered:
        await trio.lowlevel.checkpoint()
        program = self.program_of(agent) if agent.session else None
        if program is None:
            return Failed("it is not known which program the agent runs in")
        argv = [*program.argv, "queue", "--thread", agent.session, "--message", text]
        environ = {name: program.environ[name] for name in _KEPT_ALIVE if name in program.environ}
        done = None
        try:
            with trio.CancelScope(shield=True), trio.move_on_after(QUEUE_SECONDS):
                done = await trio.run_process(
                    argv, env=environ, stdin=b"", capture_stdout=True, capture_stderr=True, check=False
                )
        except OSError as error:
            return Failed(f"codex queue: {(error.strerror or str(error)).lower()}")
        if done is None:
            return "offered"  # it may stand in the queue
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            return Failed(f"codex queue: {said[-1][:200] if said else f'status {done.returncode}'}")
        tokens = tokens_in(text)
        self._rows[agent.session] = _Row(tokens[-1] if tokens else "", 0)
        return "offered"


def program_argv(argv: Sequence[str], exe: str) -> tuple[str, ...]:
    """How to call the program of a terminal again: its interpreter and script, or the program itself."""
    name = os.path.basename(argv[0]) if argv else ""
    if name in ("node", "nodejs", "bun") and len(argv) > 1 and os.path.isabs(argv[1]):
        return (exe or argv[0], argv[1])
    if name.startswith("python") and len(argv) > 1 and os.path.isabs(argv[1]):
        return (exe or argv[0], argv[1])
    return (exe,) if exe else ()
