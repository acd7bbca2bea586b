"""`tmux.*`: sessions with an agent each, made, started, looked at and ended (cli.md 3.18). Composition of
`terminal`, the projection and `registering`.

An agent is registered before its runtime starts. Sessions are told apart by what thrum wrote on them; where one is that
is gone, its agent's place tells.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import trio

from thrum.admin import restart_snapshots
from thrum.cli.commands.hooks import own_program
from thrum.daemon import registering
from thrum.daemon.process_ends import ProcessEnds
from thrum.daemon.registering import Recruit
from thrum.daemon.restart_requests import Outcome, RestartRequests
from thrum.identity.evidence import current_root
from thrum.identity.files import Identity, list_identities
from thrum.identity.guard_modes import OwnRuntimes, runtimes_file
from thrum.identity.processes import same_process
from thrum.model import limits, settings
from thrum.model.config import Config
from thrum.model.errors import (
    AgentAlive,
    FileUnreadable,
    IdentityAlive,
    IdentityStale,
    InvalidParams,
    ModuleMissing,
    NoAgentInSession,
    NoSnapshot,
    NotAWorktree,
    RoleMissing,
    TmuxSessionExists,
    TmuxSessionNotFound,
    in_shell,
)
from thrum.model.methods.method import AnyMethod, Empty
from thrum.model.methods.terminals import (
    TMUX_CAPTURE,
    TMUX_CHECK_PANE,
    TMUX_CREATE,
    TMUX_KILL,
    TMUX_LAUNCH,
    TMUX_RESTART,
    TMUX_SEND,
    TMUX_SNAPSHOT,
    TMUX_STATUS,
    CheckPaneParams,
    CheckPaneResult,
    TmuxCaptureParams,
    TmuxCaptureResult,
    TmuxCreateParams,
    TmuxCreateResult,
    TmuxKillParams,
    TmuxKillResult,
    TmuxLaunchParams,
    TmuxLaunchResult,
    TmuxRestartParams,
    TmuxRestartResult,
    TmuxSendParams,
    TmuxSendResult,
    TmuxSession,
    TmuxSnapshotParams,
    TmuxSnapshotResult,
    TmuxStatusResult,
)
from thrum.ops.context import Call, Context, caller_id
from thrum.ops.identity_file import identities_of
from thrum.ops.liveness import owner_alive
from thrum.ops.runtime_place import note_terminal
from thrum.rpc.dispatch import Handler, row
from thrum.runtimes.per_run import arguments_for
from thrum.runtimes.presets import FALLBACK, read_own
from thrum.runtimes.programs import SHELL, command_of
from thrum.store.queries.views import AgentRow
from thrum.terminal.panes import RUNTIMES, classify
from thrum.terminal.screen import Screen
from thrum.terminal.sessions import Session, Sessions, pane_check, session_state
from thrum.terminal.tmux import Tmux

log = logging.getLogger("thrum.daemon")

_LINES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class TerminalService:
    """The terminals of one daemon. `environ`: what tmux and registrations are started with."""

    ctx: Context
    environ: Mapping[str, str]
    config: Callable[[], Config]
    ends: ProcessEnds
    requests: RestartRequests

    def handlers(self) -> dict[AnyMethod, Handler]:
        return dict(
            (
                row(TMUX_CREATE, self._create),
                row(TMUX_LAUNCH, self._launch),
                row(TMUX_STATUS, self._status),
                row(TMUX_CAPTURE, self._capture),
                row(TMUX_CHECK_PANE, self._check_pane),
                row(TMUX_SEND, self._send),
                row(TMUX_KILL, self._kill),
                row(TMUX_RESTART, self._restart),
                row(TMUX_SNAPSHOT, self._snapshot),
            )
        )

    @property
    def sessions(self) -> Sessions:
        return Sessions(Tmux(self.environ), self.ctx.here.daemon_id, self.ctx.processes)

    # -- making

    async def _create(self, _call: Call, params: TmuxCreateParams) -> TmuxCreateResult:
        root = self._root_of(params.cwd)
        await self._check_free(params.name, force=params.force)
        if params.no_agent:
            await self.sessions.create(params.name, params.cwd, runtime=SHELL, replace=params.force)
            return TmuxCreateResult(session=params.name, runtime=SHELL)
        recruit = await self.recruit(root, params)
        agent_id, warnings = await registering.register(recruit, self.environ)
        runtime = params.runtime or await self.preferred(root, agent_id)
        await self.open(params.name, params.cwd, agent_id, runtime, replace=params.force)
        identity = await trio.to_thread.run_sync(registering.identity_document, root, agent_id)
        return TmuxCreateResult(session=params.name, identity=identity, runtime=runtime, warnings=warnings)

    async def open(self, name: str, directory: str, agent_id: str, runtime: str, *, replace: bool = False) -> Session:
        """A session for an agent that is registered; that is noted in its place."""
        session = await self.sessions.create(name, directory, agent=agent_id, runtime=runtime, replace=replace)
        await note_terminal(self.ctx, agent_id, session.name, session.pane)
        return session

    async def recruit(self, root: str, params: TmuxCreateParams) -> Recruit:
        """Whom to register in a root. Raises IdentityAlive, IdentityStale, RoleMissing, ModuleMissing."""
        listed = await trio.to_thread.run_sync(list_identities, identities_of(root))
        identities = [each.identity for each in listed if each.identity is not None]
        for identity in identities:
            self._check_rests(identity, root)
        only = identities[0].name if len(identities) == 1 else ""
        name = params.agent_name.removeprefix("@") or only or params.name
        known = next((each for each in identities if each.name == name), None)
        if not params.force:
            for identity in identities:
                if identity.name != name and identity.agent_pid:
                    raise IdentityStale(f"@{identity.name} left an identity in {root}: its process is gone")
        role, module = params.role or (known.role if known else ""), params.module or (known.module if known else "")
        if not role:
            raise RoleMissing(f"@{name} needs a role", remedy=f"{_again(params.name)} --role ROLE --module MODULE")
        if not module:
            raise ModuleMissing(
                f"@{name} needs a module", remedy=f"{_again(params.name)} --role {role} --module MODULE"
            )
        return Recruit(root, name, role, module, params.intent, params.runtime, params.force)

    def _check_rests(self, identity: Identity, root: str) -> None:
        """Raise IdentityAlive for an agent of a root that runs, by the record or by its file."""
        record = self.ctx.view.agent(identity.name)
        by_record = record is not None and record.worktree_path == root and self._lives(record)
        if by_record or self._lives_by_file(identity):
            pid = record.agent_pid if by_record and record is not None else identity.agent_pid
            raise IdentityAlive(f"@{identity.name} runs in {root} (pid {pid})")

    def _lives_by_file(self, identity: Identity) -> bool:
        if identity.agent_pid <= 1:
            return False
        try:
            seen = self.ctx.processes.read(identity.agent_pid)
        except OSError:
            return True
        return same_process(identity.agent_pid_started, identity.updated_seconds, seen, lambda: True)

    async def _check_free(self, name: str, *, force: bool) -> None:
        """Refuse, while no agent is registered yet, a name that a session has."""
        found = await self.find(name)
        if found is not None and not force:
            raise TmuxSessionExists(f"there is a session {name!r}", remedy="repeat it with --force")

    def _root_of(self, cwd: str) -> str:
        """The root of this repository that a directory lies in. Raises NotAWorktree, InvalidParams."""
        if not os.path.isabs(cwd) or "\0" in cwd:
            raise InvalidParams("cwd must be an absolute path", field="cwd")
        layout = self.ctx.here.layout
        common = None if layout.common_dir is None else str(layout.common_dir)
        directory = os.path.realpath(cwd)
        root = current_root(directory, common, str(layout.main_root)) if os.path.isdir(directory) else None
        if root is None:
            raise NotAWorktree(f"{cwd} is not in a worktree of {layout.main_root}")
        return root

    # -- starting

    async def _launch(self, _call: Call, params: TmuxLaunchParams) -> TmuxLaunchResult:
        record = self._record_of(params.name)
        session = await self.find(params.name)
        if session is None and (record is None or not record.worktree_path):
            raise TmuxSessionNotFound(f"there is no session {params.name!r} of this daemon")
        agent_id = self.agent_in(params.name, session)
        runtime, argv = await self._runtime_for(session, agent_id, params.runtime)
        if session is None:
            assert record is not None
            session = await self.open(params.name, record.worktree_path, agent_id, runtime)
        warnings = await self._start(session, agent_id, runtime, (*argv, *params.arguments))
        return TmuxLaunchResult(params.name, runtime, warnings)

    async def _runtime_for(self, session: Session | None, agent_id: str, wanted: str) -> tuple[str, tuple[str, ...]]:
        """What to start, and how. Raises NoAgentInSession, RuntimeNotFound."""
        if not wanted and agent_id:
            root = self._root_of_agent(agent_id)
            wanted = await self.preferred(root, agent_id) if root else ""
        wanted = wanted or (session.runtime if session is not None else "")
        if wanted != SHELL and (not agent_id or not self.ctx.view.is_live(agent_id)):
            name = session.name if session is not None else ""
            raise NoAgentInSession(f"session {name} has no agent")
        presets, default = read_own(OwnRuntimes(runtimes_file(self.environ)))
        names, runtime = self.ctx.runtime_names(), wanted or default or FALLBACK
        return command_of(runtime, presets, names, self.environ, remedy=_NOT_FOUND)

    async def _start(self, session: Session, agent_id: str, runtime: str, argv: tuple[str, ...]) -> tuple[str, ...]:
        """Start it, with thrum's hooks for this run; what there is to warn of."""
        record = self.ctx.view.agent(agent_id) if agent_id else None
        if record is not None and self._lives(record):
            raise IdentityAlive(
                f"@{agent_id} runs already (pid {record.agent_pid})",
                remedy=f"thrum tmux restart {session.name} --force, or end that process",
            )
        variables = {"THRUM_NAME": agent_id} if agent_id else {}
        hooks: tuple[str, ...] = ()
        warning = ""
        if agent_id:
            hooks, warning = await trio.to_thread.run_sync(self._hooks_for, runtime, argv, session.directory)
        launched = await self.sessions.launch(session, (*argv, *hooks), variables, runtime=runtime)
        if agent_id:
            await note_terminal(self.ctx, agent_id, launched.name, launched.pane)
        return (warning,) if warning else ()

    def _hooks_for(self, runtime: str, argv: tuple[str, ...], directory: str) -> tuple[tuple[str, ...], str]:
        root = Path(self._root_of(directory))
        program = own_program(self.environ)
        return arguments_for(runtime, argv, program, self.ctx.here.layout.per_run_dir, root, self.environ)

    async def preferred(self, root: str, agent_id: str) -> str:
        """The runtime of an agent: its file's, `runtime.primary`, the user's default, claude."""
        listed = await trio.to_thread.run_sync(list_identities, identities_of(root))
        found = next((each.identity for each in listed if each.identity and each.identity.name == agent_id), None)
        own = found.preferred_runtime if found is not None else ""
        _, default = read_own(OwnRuntimes(runtimes_file(self.environ)))
        return own or self.config()[settings.PRIMARY_RUNTIME] or default or FALLBACK

    # -- looking

    async def _status(self, _call: Call, _params: Empty) -> TmuxStatusResult:
        sessions = await self.sessions.list()
        rows: list[TmuxSession] = []
        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(self._look, session, rows)
        there = {session.name for session in sessions}
        for record in self._placed():
            if record.tmux_session not in there:
                rows.append(
                    self._row(record.tmux_session, record.agent_id, "dead", record.runtime, record.worktree_path)
                )
        rows.sort(key=lambda each: each.name)
        return TmuxStatusResult(tuple(rows), await self.sessions.tmux.socket_path() if sessions else "")

    async def _look(self, session: Session, rows: list[TmuxSession]) -> None:
        agent_id = self.agent_in(session.name, session)
        record = self.ctx.view.agent(agent_id) if agent_id else None
        pid = record.agent_pid if record is not None and self._lives(record) else 0
        try:
            state = session_state(await self.sessions.facts(session, pid))
        except TmuxSessionNotFound:
            state = "dead"  # it ended meanwhile
        rows.append(self._row(session.name, agent_id, state, session.runtime, session.directory))

    def _row(self, name: str, agent_id: str, state: str, runtime: str, directory: str) -> TmuxSession:
        record = self.ctx.view.agent(agent_id) if agent_id else None
        return TmuxSession(
            name=name,
            agent=agent_id,
            role=record.role if record is not None else "",
            module=record.module if record is not None else "",
            state=state,  # pyright: ignore[reportArgumentType]
            runtime=runtime,
            branch=self.ctx.branch_of(directory) if directory else "",
        )

    async def _capture(self, _call: Call, params: TmuxCaptureParams) -> TmuxCaptureResult:
        if not 1 <= params.lines <= _LINES_MAX:
            raise InvalidParams(f"lines must be 1 to {_LINES_MAX}", field="lines")
        session = await self.sessions.find(params.name)
        return TmuxCaptureResult(session.name, await self.sessions.capture(session, params.lines))

    async def _check_pane(self, _call: Call, params: CheckPaneParams) -> CheckPaneResult:
        session = await self.sessions.find(params.session)
        if params.content:
            lines = tuple(params.content.removesuffix("\n").split("\n"))
            screen = Screen(lines, (max(map(len, lines)), len(lines)))
        else:
            screen = (await self.sessions.tmux.look(session.pane)).screen
        pane = classify(session.runtime, screen)
        agent_id = self.agent_in(session.name, session)
        record = self.ctx.view.agent(agent_id) if agent_id else None
        says_working = record is not None and record.status == "working"
        return CheckPaneResult(session.name, pane_check(pane, says_working), reason=f"the pane shows {pane}")

    # -- acting

    async def _send(self, _call: Call, params: TmuxSendParams) -> TmuxSendResult:
        text = params.text
        if not text.strip() or len(text) > limits.setting_chars_max * 16:
            raise InvalidParams("the text is empty, or too long to be typed", field="text")
        if not all(char.isprintable() or char in "\n\t" for char in text):
            raise InvalidParams("the text has control characters", remedy="leave them out", field="text")
        session = await self.sessions.find(params.name)
        screen = (await self.sessions.tmux.look(session.pane)).screen
        await self.sessions.send(session, text)
        shown = classify(session.runtime, screen) if session.runtime in RUNTIMES else ""
        return TmuxSendResult(session.name, sent=True, pane=shown)

    async def _kill(self, _call: Call, params: TmuxKillParams) -> TmuxKillResult:
        return TmuxKillResult(params.name, await self.kill(params.name))

    async def kill(self, name: str) -> bool:
        """End a session, and note in its agent's place that it has none; whether there was one.

        Raises TmuxSessionNotFound if no agent had it either.
        """
        session, record = await self.find(name), self._record_of(name)
        if session is None and record is None:
            raise TmuxSessionNotFound(f"there is no session {name!r} of this daemon")
        if session is not None:
            await self.sessions.kill(session)
        if record is not None:
            await note_terminal(self.ctx, record.agent_id, "", "")
        return session is not None

    async def _restart(self, _call: Call, params: TmuxRestartParams) -> TmuxRestartResult:
        session = await self.find(params.name)
        agent_id = self.agent_in(params.name, session)
        record = self.ctx.view.agent(agent_id) if agent_id else None
        if record is None:
            raise TmuxSessionNotFound(f"there is no session {params.name!r} of this daemon with an agent")
        runtime, argv = await self._runtime_for(session, agent_id, params.runtime)
        asked: Outcome | Literal[""] = ""
        lines, warnings = 0, tuple[str, ...]()
        if session is not None and not params.force:
            await self._check_idle(session, record)
            if self._lives(record):
                asked, lines = await self.requests.ask(agent_id, session.name, self.config()[settings.RESTART_PATIENCE])
        if asked != "saved":
            lines, kept = await self._keep(session if asked else None, record)
            warnings = _not_saved(agent_id, asked, kept, lines)
        if session is not None:
            await self.sessions.kill(session)
        await self._wait_gone(record)
        directory = session.directory if session is not None else record.worktree_path
        again = await self.open(params.name, directory, agent_id, runtime)
        await self._start(again, agent_id, runtime, argv)
        return TmuxRestartResult(params.name, runtime, lines, asked, warnings)

    async def _keep(self, session: Session | None, record: AgentRow) -> tuple[int, str]:
        """Keep what the runtime's record has, else what the session's pane shows; how many lines, and which it was."""
        try:
            if lines := await trio.to_thread.run_sync(self._take_snapshot, record):
                return lines, "its record"
        except FileUnreadable as error:  # before its first word a runtime has no record
            log.info("restart of %s: %s", record.agent_id, error)
        at_most = self.config()[settings.RESTART_LINES]
        known = await trio.to_thread.run_sync(restart_snapshots.read, record.worktree_path, record.agent_id)
        if session is None or known or at_most <= 0:
            return 0, ""
        shown = (await self.sessions.capture(session, at_most)).strip("\n")
        if not shown.strip() or not self._lives(record):
            return 0, ""
        await trio.to_thread.run_sync(restart_snapshots.save, record.worktree_path, record.agent_id, shown)
        return shown.count("\n") + 1, "what its pane showed"

    async def _check_idle(self, session: Session, record: AgentRow) -> None:
        """Raise AgentAlive for an agent that may be in the middle of something, or whose prompt holds a line."""
        facts = await self.sessions.facts(session, record.agent_pid if self._lives(record) else 0)
        if facts.process_alive and facts.pane != "idle_empty":
            raise AgentAlive(
                f"@{record.agent_id} may be at work: its pane shows {facts.pane}",
                remedy=f"wait until it is, or: thrum tmux restart {session.name} --force",
            )

    async def _snapshot(self, call: Call, params: TmuxSnapshotParams) -> TmuxSnapshotResult:
        agent_id = caller_id(call)
        record = self.ctx.view.agent(agent_id)
        if record is None or not record.worktree_path:
            raise NoSnapshot(f"@{agent_id} has no worktree here", remedy="thrum quickstart")
        if params.record and not os.path.isabs(params.record):
            raise InvalidParams("record must be an absolute path", field="record")
        told = msgspec.structs.replace(record, transcript=params.record or record.transcript)
        lines = await trio.to_thread.run_sync(self._take_snapshot, told)
        if not lines:
            why = f"nothing to keep in {told.transcript}" if told.transcript else "no record of a conversation is known"
            raise NoSnapshot(f"@{agent_id}: {why}", remedy="name the runtime's record: --jsonl PATH")
        self.requests.saved(agent_id, lines)
        log.info("restart snapshot", extra={"fields": {"agent": agent_id, "lines": lines, "reason": params.reason}})
        path = restart_snapshots.path_of(record.worktree_path, agent_id)
        return TmuxSnapshotResult(agent_id, str(path), lines)

    def _take_snapshot(self, record: AgentRow) -> int:
        lines_max = self.config()[settings.RESTART_LINES]
        return restart_snapshots.take(
            record.worktree_path, record.agent_id, record.transcript, record.runtime, lines_max
        )

    async def _wait_gone(self, record: AgentRow) -> None:
        """Until a runtime whose session was killed has ended. Raises AgentAlive if it stays."""
        with trio.move_on_after(_END_SECONDS_MAX):
            await self.ends.wait(record.agent_pid, lambda: self._lives(record))
            return
        raise AgentAlive(
            f"@{record.agent_id} goes on without its session (pid {record.agent_pid})", remedy="end it first"
        )

    # -- finding

    async def find(self, name: str) -> Session | None:
        """The session of that name, if this daemon made one."""
        try:
            return await self.sessions.find(name)
        except TmuxSessionNotFound:
            return None

    def _placed(self) -> list[AgentRow]:
        """The agents of this daemon that were put into a session."""
        return [each for each in self.ctx.view.agents(kind="agent") if each.is_own and each.tmux_session]

    def _record_of(self, name: str) -> AgentRow | None:
        return next((each for each in self._placed() if each.tmux_session == name), None)

    def agent_in(self, name: str, session: Session | None) -> str:
        """Whose session it is: as the agent's place tells, for an agent may be renamed; else as it was made."""
        record = self._record_of(name)
        return record.agent_id if record is not None else session.agent if session is not None else ""

    def _root_of_agent(self, agent_id: str) -> str:
        record = self.ctx.view.agent(agent_id)
        return record.worktree_path if record is not None else ""

    def _lives(self, record: AgentRow) -> bool:
        return owner_alive(record, self.ctx.processes, self.ctx.runtime_names())


_END_SECONDS_MAX: Final = 10.0
_WHY_NOT: Final[Mapping[str, str]] = {
    "seen": "was asked to save what it knows, and did not in time",
    "unseen": "could not be asked in time to save what it knows",
    "unreachable": "could not be asked to save what it knows: it has no door",
}


def _not_saved(agent_id: str, asked: str, kept: str, lines: int) -> tuple[str, ...]:
    """What is said of an agent that did not save; nothing of one that was not asked."""
    if asked not in _WHY_NOT:
        return ()
    return (f"@{agent_id} {_WHY_NOT[asked]}; kept: {f'{kept} ({lines} lines)' if lines else 'nothing'}",)


_NOT_FOUND: Final = "install it, or name another: --runtime R; after a change of PATH: thrum daemon restart"


def _again(name: str) -> str:
    return f"thrum tmux create {in_shell(name)}"
