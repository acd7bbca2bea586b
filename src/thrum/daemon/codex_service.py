"""Agents in Codex that app-servers serve: a connection for each CODEX_HOME that an agent lives in, which thread is
whose, and `runtime.thread`. Composition.

A server tells all of its threads and not whose terminal has which. So a thread is an agent's where a hook of it ran
(session and directory), or where it is the only one that can be: begun after the only terminal in that worktree. What
is not certain is not bound: mail in another agent's conversation is worse than mail that waits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from thrum.identity.codex_terminals import CodexTerminal, codex_terminals, terminal_at
from thrum.identity.evidence import Roots
from thrum.identity.processes import is_live
from thrum.model.attempt_ids import tokens_in
from thrum.model.errors import AgentNotFound, NotAvailable, ThrumError
from thrum.model.events import AgentExited, AgentPlaced, AnyFact, UnknownEvent
from thrum.model.methods.method import AnyMethod
from thrum.model.methods.wake import RUNTIME_THREAD, RuntimeThreadParams, RuntimeThreadResult
from thrum.model.wake_types import Process, Reachable
from thrum.ops.context import Call, Context
from thrum.ops.liveness import owner_alive
from thrum.ops.pid_binding import follow_in_file
from thrum.ops.runtime_place import note_thread
from thrum.rpc import dispatch
from thrum.rpc.dispatch import Handler
from thrum.runtimes.codex.whose import Opened, Whose
from thrum.runtimes.doors.codex import Program, QueueDoor, ServerDoor, home_of, program_argv
from thrum.runtimes.hooks import HookEvent
from thrum.store.queries.views import AgentRow

if TYPE_CHECKING:
    from thrum.runtimes.codex.server import CodexServer, Thread

log = logging.getLogger("thrum.wake")

RUNTIME: Final = "codex"
SETTLE_SECONDS: Final = 0.5
"""How long a thread that could be the one is looked at, in case there is another."""
_LOOKED_SECONDS: Final = 1.0
"""How long it is believed which terminals are open."""
_EARLIER_MS: Final = 1_500.0
"""How much earlier than its terminal a thread may seem to have begun: starts are counted from the boot."""


@dataclass(slots=True)
class CodexService:
    """`look`: an agent may have changed; it is looked at again."""

    ctx: Context
    look: Callable[[str], None]
    server_door: ServerDoor = field(init=False)
    queue_door: QueueDoor = field(init=False)
    _servers: dict[str, CodexServer] = field(default_factory=dict[str, "CodexServer"])
    _scopes: dict[str, trio.CancelScope] = field(default_factory=dict[str, trio.CancelScope])
    _awaited_homes: dict[str, int] = field(default_factory=dict[str, int])
    _told_homes: dict[str, str] = field(default_factory=dict[str, str])
    """Of sessions whose hooks ran in a server: where that one lives."""
    _own_sessions: dict[str, Process] = field(default_factory=dict[str, Process])
    """Of sessions that no server runs (`--no-daemon`): the terminal's own process."""
    _spoken: list[str] = field(default_factory=list[str])
    """Sessions in which a person said something since they were looked at."""
    _whose: Whose = field(default_factory=Whose)
    _changed: trio.Event = field(default_factory=trio.Event)
    _news: trio.Event = field(default_factory=trio.Event)
    _rows: list[AgentRow] | None = None
    _terminals: tuple[Sequence[CodexTerminal], float] = ((), -_LOOKED_SECONDS)
    _roots: Roots = field(init=False)

    def __post_init__(self) -> None:
        self._roots = Roots(self.ctx.here.layout)
        self.server_door = ServerDoor(
            lambda session: self._server_of(session) if self.thread(session) is not None else None
        )
        self.queue_door = QueueDoor(lambda session: self._server_of(session) is not None, self._program_of)

    def handlers(self) -> dict[AnyMethod, Handler]:
        return dict((dispatch.row(RUNTIME_THREAD, self._thread),))

    # -- what others ask

    def thread(self, session: str) -> Thread | None:
        """A thread that a connected server has loaded, and that its agent certainly is in."""
        server = self._server_of(session) if session else None
        if server is None or any(
            each.runtime_session == session and self._whose.is_uncertain(each.agent_id) for each in self._agents()
        ):
            return None
        return server.threads.get(session)

    def has_terminal(self, worktree: str) -> bool:
        """Whether a terminal of Codex is open there, no matter whose."""
        return bool(self._terminals_in(worktree))

    def is_in_thread(self, agent_id: str) -> bool:
        """Whether that agent's place names a thread, though no process of its own."""
        return any(each.agent_id == agent_id and each.runtime_session for each in self._agents())

    def _server_of(self, session: str) -> CodexServer | None:
        return next((server for server in self._servers.values() if session in server.threads), None)

    def _program_of(self, agent: Reachable) -> Program | None:
        """How to call the Codex that an agent is in, if that has the session: another one would never take the row."""
        process = agent.process
        if process is None or (self._server_of(agent.session) is None and not self._is_own(agent)):
            return None
        try:
            program = self.ctx.processes.program(process[0])
            environ = self.ctx.processes.environ(process[0])
        except OSError:
            return None
        argv = program_argv(program.argv, program.exe)
        return Program(argv, environ) if argv else None

    def _is_own(self, agent: Reachable) -> bool:
        return self._own_sessions.get(agent.session) == agent.process

    # -- what happens

    def announce(self, facts: Iterable[AnyFact | UnknownEvent]) -> None:
        """Facts count from now on: where agents live may have changed."""
        if any(isinstance(fact, AgentPlaced | AgentExited) for fact in facts):
            self._rows = None
            self._changed.set()

    def noted(self, event: HookEvent, process: Process | None = None) -> None:
        """A hook told something of a session; `process`: the terminal's own, where that ran it."""
        if process is not None and event.session:
            self._own_sessions[event.session] = process
        if event.kind == "prompt":
            self.queue_door.turn_began(event.session, event.prompt)
            if not tokens_in(event.prompt):
                self._spoken.append(event.session)
                self._changed.set()
        elif event.kind == "session_end":
            self._own_sessions.pop(event.session, None)
            self.queue_door.forget(event.session)

    async def agent_of_session(self, event: HookEvent, server_pid: int) -> str:
        """The agent in whose session a hook ran that an app-server started; empty: none, or it is not certain.

        An unknown session is of the only agent of Codex in its worktree, if no second terminal is open there (wake.md
        §3). Raises ThrumError.
        """
        if event.runtime != RUNTIME or not event.session:
            return ""
        self._note_home(event.session, server_pid)
        root = self._root_of(event.cwd)
        bound = next((each for each in self._agents() if each.runtime_session == event.session), None)
        if bound is not None:
            if bound.worktree_path != root:
                return ""
            await self._bind(bound, event.session, event.transcript, self._terminal_of(bound), hooks=True)
            return bound.agent_id
        if event.kind not in ("session_start", "prompt") or self._whose.is_judged(event.session):
            return ""  # that of a terminal beside the agent's, which may be closed by now
        here = [each for each in self._agents(any_runtime=True) if root and each.worktree_path == root]
        rows = [each for each in here if each.runtime == RUNTIME and self._lives(each)]
        rows = rows or [each for each in here if not self._lives(each)]
        if len(rows) != 1 or len(self._terminals_in(root, again=True)) > 1:
            return ""
        await self._bind(rows[0], event.session, event.transcript, self._terminal_of(rows[0]), hooks=True)
        return rows[0].agent_id

    def _note_home(self, session: str, server_pid: int) -> None:
        home = self._home_of(server_pid)
        if home and self._told_homes.get(session) != home:
            self._told_homes[session] = home
            self._changed.set()
        if home in self._servers and not self._servers[home].is_connected:
            self._servers[home].poke()

    async def _bind(
        self, row: AgentRow, session: str, transcript: str, terminal: CodexTerminal | None, *, hooks: bool
    ) -> None:
        process = (terminal.pid, terminal.started) if terminal is not None else None
        own = (row.agent_pid, row.agent_pid_started) if self._lives(row) else None
        self._whose.bound(row.agent_id, session, process or own)
        if await note_thread(self.ctx, row.agent_id, session, transcript=transcript, process=process, hooks=hooks):
            log.info("bound to its thread", extra={"fields": {"agent": row.agent_id, "thread": session}})
            await follow_in_file(self.ctx, row.agent_id)
            self.look(row.agent_id)

    def _terminal_of(self, row: AgentRow) -> CodexTerminal | None:
        """The terminal of an agent that none is recorded of: the only one in its worktree that is no other agent's."""
        if self._lives(row):
            return None
        taken = {(each.agent_pid, each.agent_pid_started) for each in self._agents() if each.agent_id != row.agent_id}
        found = self._terminals_in(row.worktree_path, again=True)
        free = [each for each in found if (each.pid, each.started) not in taken]
        return free[0] if len(free) == 1 else None

    # -- servers

    async def serve(self) -> None:
        """Keep a connection for each CODEX_HOME that an agent lives in, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._changed = trio.Event()
                try:
                    self._follow(nursery)
                    await self._bind_what_is_certain()
                except ThrumError as error:
                    log.warning("codex: %s", error)
                await changed.wait()

    def _follow(self, nursery: trio.Nursery) -> None:
        wanted = self._homes()
        for home in self._servers.keys() - wanted:
            self._scopes.pop(home).cancel()
            del self._servers[home]
        if not wanted - self._servers.keys():
            return
        from thrum.runtimes.codex.server import CodexServer  # and wsproto: only where there is a Codex

        for home in wanted - self._servers.keys():
            server = self._servers[home] = CodexServer(home, self._on_thread)
            scope = self._scopes[home] = trio.CancelScope()
            nursery.start_soon(self._serve_one, server, scope)

    async def _serve_one(self, server: CodexServer, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    await server.serve()
                except Exception:
                    log.exception("codex app-server in %s", server.home)
                await trio.sleep(5)

    def _homes(self) -> set[str]:
        found = set(self._awaited_homes)
        for row in self._agents():
            if self._lives(row):
                found.add(self._home_of(row.agent_pid))
            elif not row.agent_pid:
                found.add(self._told_homes.get(row.runtime_session, ""))
                found |= {self._home_of(each.pid) for each in self._terminals_in(row.worktree_path)}
        return found - {""}

    def _home_of(self, pid: int) -> str:
        try:
            return home_of(self.ctx.processes.environ(pid))
        except OSError:
            return ""

    def _on_thread(self, thread_id: str) -> None:
        """A server told something of a thread; empty: its connection came or went."""
        news, self._news = self._news, trio.Event()
        news.set()
        if thread_id and self._server_of(thread_id) is None:
            self._whose.closed(thread_id)
        bound = False
        for row in self._agents():
            if not thread_id or row.runtime_session == thread_id:
                bound = True
                self.look(row.agent_id)
        if not bound or not thread_id:
            self._changed.set()

    async def _bind_what_is_certain(self) -> None:
        """Threads that began since the last look, and what people's prompts told of those that no agent had."""
        spoken, self._spoken = self._spoken, []
        for row in [each for each in self._agents() if each.runtime_session in spoken]:
            for thread, agent_id in self._whose.prompted(row.agent_id):
                await self._bind_by_id(agent_id, thread)
        for server in tuple(self._servers.values()):
            for thread in sorted(server.threads.values(), key=lambda each: each.created_ms):
                root = self._root_of(thread.cwd)
                rows = [each for each in self._agents() if root and each.worktree_path == root and self._lives(each)]
                if not rows or any(each.runtime_session == thread.id for each in self._agents()):
                    continue
                # What was there before thrum looked may be of a terminal that is closed.
                bound = {each.agent_id: each.runtime_session for each in rows}
                if not thread.is_new and all(bound.values()):
                    continue
                terminals = self._opened(root, rows)
                agent_id = self._whose.began(thread.id, thread.created_ms + _EARLIER_MS, terminals, bound)
                if agent_id:
                    await self._bind_by_id(agent_id, thread.id)

    def _opened(self, root: str, rows: Sequence[AgentRow]) -> list[Opened]:
        by_process = {(each.agent_pid, each.agent_pid_started): each.agent_id for each in rows}
        return [
            Opened(at, each.started_at * 1000, by_process.get(at, ""))
            for each in self._terminals_in(root, again=True)
            for at in ((each.pid, each.started),)
        ]

    async def _bind_by_id(self, agent_id: str, thread: str) -> None:
        found = next((each for each in self._agents() if each.agent_id == agent_id), None)
        if found is not None:
            await self._bind(found, thread, "", None, hooks=False)

    # -- runtime.thread

    async def _thread(self, _call: Call, params: RuntimeThreadParams) -> RuntimeThreadResult:
        """Wait for the thread of the terminal that was started for an agent, and record it. Raises AgentNotFound,
        NotAvailable: none came in time, or it can't be told which is its."""
        row = self.ctx.view.agent(params.agent_id)
        if row is None or not row.live or not row.is_own or not row.worktree_path:
            raise AgentNotFound(f"agent not found: {params.agent_id}")
        pid = params.pid or (row.agent_pid if self._lives(row) else 0)
        if pid and params.pid and not self._lives_at(pid):
            raise NotAvailable(f"there is no process {pid}", remedy="start codex, then repeat this")
        home = params.home or (self._home_of(pid) if pid else "")
        if not home:
            raise NotAvailable("it is not known where that codex keeps its files", remedy="codex --no-daemon")
        self._awaited_homes[home] = self._awaited_homes.get(home, 0) + 1
        self._changed.set()
        try:
            with trio.move_on_after(max(0, params.timeout_ms) / 1000):
                return await self._wait_thread(row, pid, home)
        finally:
            self._awaited_homes[home] -= 1
            if not self._awaited_homes[home]:
                del self._awaited_homes[home]
            self._changed.set()
        why, remedy = self._why_no_thread(row, pid, home)
        raise NotAvailable(why, remedy=remedy)

    async def _wait_thread(self, row: AgentRow, pid: int, home: str) -> RuntimeThreadResult:
        seen: set[str] = set()
        while True:
            news = self._news
            found = self._candidates(row, pid, home)
            if len(found) == 1 and found[0].id in seen:
                terminal = terminal_at(self.ctx.processes, pid, self.ctx.runtime_names()) if pid else None
                await self._bind(row, found[0].id, "", terminal, hooks=False)
                return RuntimeThreadResult(thread=found[0].id, worktree=row.worktree_path)
            fresh = {each.id for each in found}
            with trio.move_on_after(SETTLE_SECONDS) as patience:
                await news.wait()
            seen = fresh if patience.cancelled_caught else set()

    def _candidates(self, row: AgentRow, pid: int, home: str) -> list[Thread]:
        """The threads that may be of that terminal: in its worktree, not older than it, and no other agent's."""
        server = self._servers.get(home)
        if server is None:
            return []
        others = {each.runtime_session for each in self._agents() if each.agent_id != row.agent_id}
        seen = self.ctx.processes.read(pid) if pid else None
        began = seen.started_at * 1000 - _EARLIER_MS if seen is not None else 0.0
        found = [
            each
            for each in server.threads.values()
            if each.id not in others and each.created_ms >= began and self._root_of(each.cwd) == row.worktree_path
        ]
        own = [each for each in found if each.id == row.runtime_session]
        return own or found

    def _why_no_thread(self, row: AgentRow, pid: int, home: str) -> tuple[str, str]:
        remedy = f"in its terminal, once it has answered: thrum quickstart --name {row.agent_id}"
        if len(self._candidates(row, pid, home)) > 1:
            return f"several threads of codex began in {row.worktree_path}: which is {row.agent_id}'s?", remedy
        server = self._servers.get(home)
        if server is None or not server.is_connected:
            return f"codex has no app-server in {home}: {server.problem if server else ''}", "codex --no-daemon"
        return "codex has no thread there yet: does it ask something?", "answer it; the thread is found then"

    # -- agents and terminals

    def _agents(self, *, any_runtime: bool = False) -> list[AgentRow]:
        if self._rows is None:
            self._rows = [each for each in self.ctx.view.agents(kind="agent") if each.is_own and each.worktree_path]
        return [each for each in self._rows if any_runtime or each.runtime == RUNTIME]

    def _lives(self, row: AgentRow) -> bool:
        return row.agent_pid > 1 and owner_alive(row, self.ctx.processes, self.ctx.runtime_names())

    def _lives_at(self, pid: int) -> bool:
        try:
            return is_live(self.ctx.processes.read(pid))
        except OSError:
            return True

    def _root_of(self, directory: str) -> str:
        if not os.path.isabs(directory):
            return ""
        return self._roots.of(os.path.realpath(directory), trio.current_time()) or ""

    def _terminals_in(self, root: str, *, again: bool = False) -> list[CodexTerminal]:
        found, looked = self._terminals
        now = trio.current_time()
        if again or now - looked >= _LOOKED_SECONDS:
            found = codex_terminals(self.ctx.processes, self.ctx.runtime_names())
            self._terminals = (found, now)
        return [each for each in found if self._root_of(each.cwd) == root]
