"""The tmux sessions that thrum makes: created, launched, told apart from all others, and ended (cli.md 3.18).

A session of thrum's carries options (`@thrum-managed`, `@thrum-dir` …). It is found by its whole name and acted on by
its id, and never without a look at those options in the same step: a stranger's session of that name is never
killed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import trio

from thrum.identity.processes import ProcessTable, is_live
from thrum.model.errors import AgentAlive, TmuxFailed, TmuxSessionExists, TmuxSessionNotFound, UsageError
from thrum.terminal._reading import PaneState
from thrum.terminal.foreground import Foreground, foreground
from thrum.terminal.panes import classify
from thrum.terminal.tmux import PaneRow, Tmux, is_unwanted

SIZE: Final = (200, 50)
"""Columns and rows of a session that no one looks at yet."""
IDLE_SECONDS: Final = 120.0
"""Silent for longer, a session is `idle`."""

SHELL_SECONDS_MAX: Final = 3.0
"""How long a new session is waited for; a user's own start files may take longer."""
_SHELL_LOOK_SECONDS: Final = 0.02
_SERVERS_MAX: Final = 3
"""How many servers may end while a session is made."""

_MANAGED, _DIRECTORY, _DAEMON, _AGENT, _RUNTIME = (
    "@thrum-managed",
    "@thrum-dir",
    "@thrum-daemon",
    "@thrum-agent",
    "@thrum-runtime",
)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_VARIABLE: Final = re.compile(r"(?m)^-?([A-Za-z_][A-Za-z0-9_]*)(?:=|$)")
_DAEMON_ID: Final = re.compile(r"[A-Za-z0-9_:-]*")

SessionState = Literal["alive", "stale", "dead", "blocked", "idle"]
"""Its process lives; a session without it; no session; a question of the runtime's is open; silent for two minutes."""
PaneCheck = Literal["idle", "permission", "working", "command_completed", "working_but_idle"]


@dataclass(frozen=True, slots=True)
class Session:
    """A session that this daemon made, as tmux tells it now."""

    id: str
    name: str
    pane: str
    """The id of its first pane: that of the runtime."""
    pane_pid: int
    directory: str
    agent: str
    runtime: str
    last_output: int
    """Seconds since 1970, by the server's clock."""


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What a session's state follows from."""

    exists: bool
    process_alive: bool = False
    pane: PaneState = "unknown"
    silent_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one daemon on a tmux server. All methods raise what `Tmux` raises."""

    tmux: Tmux
    daemon: str
    """The daemon's id; only its sessions are seen."""
    table: ProcessTable

    async def list(self) -> tuple[Session, ...]:
        """All of them, by name."""
        rows = await self.tmux.panes(_MANAGED, _DIRECTORY, _DAEMON, _AGENT, _RUNTIME)
        found: dict[str, Session] = {}
        for row in rows:
            if row.session not in found and self._is_ours(row):
                found[row.session] = _session(row)
        return tuple(sorted(found.values(), key=lambda each: each.name))

    async def find(self, name: str) -> Session:
        """The session of exactly that name. Raises TmuxSessionNotFound."""
        for session in await self.list():
            if session.name == name:
                return session
        raise TmuxSessionNotFound(f"there is no session {name!r} of this daemon")

    async def create(
        self, name: str, directory: str, *, agent: str = "", runtime: str = "", replace: bool = False
    ) -> Session:
        """A detached session with a shell in that directory.

        Raises TmuxSessionExists if one of that name is there; with `replace` only if it is none of this daemon's.
        """
        _checked_name(name)
        await self._make_room(name, replace)
        target = f"={name}:"
        options = {_MANAGED: "1", _DIRECTORY: directory, _DAEMON: self.daemon, _AGENT: agent, _RUNTIME: runtime}
        width, height = SIZE
        unwanted = await self._unwanted()
        # A shell began with what the server has in its own environment; it is restarted without.
        again = [("respawn-pane", "-k", "-t", target, "-c", directory)] if unwanted else []
        await self._begin(
            ("new-session", "-d", "-s", name, "-c", directory, "-x", str(width), "-y", str(height)),
            *(("set-option", "-t", target, option, value) for option, value in options.items()),
            *(("set-environment", "-t", target, "-r", variable) for variable in unwanted),
            *again,
        )
        session = await self.find(name)
        await self._await_shell(session)
        return session

    async def _await_shell(self, session: Session) -> None:
        """Wait until the shell of a new session is in front: before, what starts it, or what it starts with, is."""
        with trio.move_on_after(SHELL_SECONDS_MAX):
            # Nothing tells of it: neither tmux nor the kernel.
            while (await foreground(session.pane_pid, 0, self.table)).owner != "shell":  # noqa: ASYNC110
                await trio.sleep(_SHELL_LOOK_SECONDS)

    async def _begin(self, *commands: Sequence[str]) -> None:
        """Run commands that start a server if none runs; one that was ending just then, with its last session, is let
        go."""
        for _ in range(_SERVERS_MAX):
            try:
                await self.tmux.run(*commands)
            except TmuxSessionNotFound:
                continue
            return
        await self.tmux.run(*commands)

    async def launch(
        self,
        session: Session,
        argv: Sequence[str],
        variables: Mapping[str, str] | None = None,
        *,
        runtime: str = "",
        force: bool = False,
    ) -> Session:
        """Run a program in a session's pane, instead of the shell there; a shell follows it.

        Raises AgentAlive if something else than a shell is in front, which `force` ends. `variables` are added to the
        environment; `runtime`: what the program is, if not what the session was made for.
        """
        await self._still_ours(session)
        if not force and (await foreground(session.pane_pid, 0, self.table)).owner != "shell":
            raise AgentAlive(
                f"something runs in session {session.name!r}",
                remedy=f"look at it: thrum tmux capture {session.name}; to end it: thrum tmux restart {session.name}",
            )
        extra = [word for name, value in (variables or {}).items() for word in ("-e", f"{name}={value}")]
        script = f'{shlex.join(argv)}; exec "${{SHELL:-/bin/sh}}"'
        noted = [("set-option", "-t", session.pane, _RUNTIME, runtime)] if runtime else []
        await self.tmux.run(
            *noted, ("respawn-pane", "-k", "-t", session.pane, "-c", session.directory, *extra, "/bin/sh", "-c", script)
        )
        return await self.find(session.name)

    async def restart(
        self, name: str, directory: str, argv: Sequence[str], *, agent: str = "", runtime: str = ""
    ) -> Session:
        """Run a program again in the session of that name; one that is gone is made again in the directory."""
        try:
            session = await self.find(name)
        except TmuxSessionNotFound:
            session = await self.create(name, directory, agent=agent, runtime=runtime)
        return await self.launch(session, argv, force=True)

    async def kill(self, session: Session) -> None:
        """End a session and what runs in it, if it is still this daemon's: told and done in one step."""
        said = await self.tmux.run(
            (
                "if-shell",
                "-F",
                "-t",
                session.pane,
                self._ours_format(session),
                f"display-message -p killed ; kill-session -t '{session.id}'",
            )
        )
        if said.strip() != "killed":
            raise TmuxFailed(f"{session.name} is no session of this daemon's any more", remedy="thrum tmux status")

    async def send(self, session: Session, text: str) -> None:
        """Type a text into a session's pane, whatever it shows, and press Enter: an operator's tool, no door."""
        await self._still_ours(session)
        await self.tmux.paste(session.pane, text, "thrum-send")
        await self.tmux.keys(session.pane, "Enter")

    async def capture(self, session: Session, lines: int = 50) -> str:
        """The last lines of a session's pane, as text."""
        return await self.tmux.capture(session.pane, lines)

    async def facts(self, session: Session, agent_pid: int) -> SessionFacts:
        """What a session's state follows from, now. Without an agent's pid, a program in front counts as its
        process."""
        look = await self.tmux.look(session.pane)
        front = await foreground(look.pane_pid, agent_pid, self.table)
        return SessionFacts(
            exists=True,
            process_alive=_is_alive(front, agent_pid, self.table),
            pane=classify(session.runtime, look.screen),
            silent_seconds=float(max(0, look.now - session.last_output)),
        )

    async def _make_room(self, name: str, replace: bool) -> None:
        for row in await self.tmux.panes(_MANAGED, _DIRECTORY, _DAEMON, _AGENT, _RUNTIME):
            if row.session_name == name:
                if not self._is_ours(row):
                    raise TmuxSessionExists(f"there is a session {name!r} that this daemon did not make")
                if not replace:
                    raise TmuxSessionExists(f"there is a session {name!r}", remedy="repeat it with --force")
                await self.kill(_session(row))
                return

    async def _unwanted(self) -> tuple[str, ...]:
        """Variables of the server that lead a program to another agent."""
        try:
            text = await self.tmux.run(("show-environment", "-g"))
        except TmuxSessionNotFound:
            return ()
        return tuple(name for name in _VARIABLE.findall(text) if is_unwanted(name))

    async def _still_ours(self, session: Session) -> None:
        """Raises TmuxSessionNotFound if it is gone, or none of this daemon's any more."""
        if (await self.find(session.name)).id != session.id:
            raise TmuxSessionNotFound(f"the session {session.name!r} is another one by now")

    def _is_ours(self, row: PaneRow) -> bool:
        return row.options[_MANAGED] == "1" and row.options[_DAEMON] == self.daemon

    def _ours_format(self, session: Session) -> str:
        if not _DAEMON_ID.fullmatch(self.daemon):
            raise TmuxFailed(f"{self.daemon!r} is no daemon's id")
        have = f"#{{session_id}} #{{{_MANAGED}}} #{{{_DAEMON}}}"
        return f"#{{==:{have},{session.id} 1 {self.daemon}}}"


def session_state(facts: SessionFacts) -> SessionState:
    """Its state, in the words of `tmux status`. Pure."""
    if not facts.exists:
        return "dead"
    if not facts.process_alive:
        return "stale"
    if facts.pane in ("dialog", "trust_dialog"):
        return "blocked"
    return "idle" if facts.silent_seconds > IDLE_SECONDS else "alive"


def pane_check(pane: PaneState, said_working: bool = False) -> PaneCheck:
    """What `tmux.check-pane` says of a pane, and of one whose agent said that it works. Pure."""
    match pane:
        case "dialog" | "trust_dialog":
            return "permission"
        case "idle_empty" | "idle_draft":
            return "working_but_idle" if said_working else "idle"
        case "exited_to_shell":
            return "command_completed"
        case _:
            return "working"


def _session(row: PaneRow) -> Session:
    return Session(
        row.session,
        row.session_name,
        row.pane,
        row.pane_pid,
        row.options[_DIRECTORY],
        row.options[_AGENT],
        row.options[_RUNTIME],
        row.last_output,
    )


def _is_alive(front: Foreground, agent_pid: int, table: ProcessTable) -> bool:
    if agent_pid <= 0:
        return front.owner == "other"
    return is_live(table.read(agent_pid))


def _checked_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a session: letters, digits, - and _, 64 at most", remedy="thrum tmux create NAME"
        )
