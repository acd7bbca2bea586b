"""tmux start|create|launch|connect|status|kill|send|capture|restart. Source: cli.md §3.18."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import trio

from thrum.cli import render
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.run import Advice, Answer, Run
from thrum.cli.session import TTY_IN, TTY_OUT
from thrum.cli.text import line, plural
from thrum.model.errors import TmuxMissing, TmuxSessionNotFound, UsageError
from thrum.model.methods.method import Empty
from thrum.model.methods.terminals import (
    TMUX_CAPTURE,
    TMUX_CREATE,
    TMUX_KILL,
    TMUX_LAUNCH,
    TMUX_RESTART,
    TMUX_SEND,
    TMUX_STATUS,
    TmuxCaptureParams,
    TmuxCreateParams,
    TmuxCreateResult,
    TmuxKillParams,
    TmuxLaunchParams,
    TmuxLaunchResult,
    TmuxRestartParams,
    TmuxRestartResult,
    TmuxSendParams,
    TmuxSession,
    TmuxStatusResult,
)


async def create(
    session: Annotated[str, word("SESSION", "the session's name")],
    /,
    *,
    cwd: Annotated[str, option("PATH", "a directory in a worktree; default: this one")] = "",
    name: Annotated[str, option("N", "the agent; default: that of the worktree, else called like the session")] = "",
    no_agent: Annotated[bool, switch("only a shell")] = False,
    intent: Annotated[str, option("T", "what the agent works on")] = "",
    runtime: Annotated[str, option("R", "the program that runs it, e.g. claude")] = "",
    force: Annotated[bool, switch("end a session of that name; move away an identity left here")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    if no_agent and (name or intent or runtime or run.flags.role or run.flags.module):
        raise UsageError("--no-agent goes with nothing that is said of an agent", remedy="leave one of them out")
    params = _wanted(run, session, name, cwd, runtime, no_agent=no_agent, intent=intent, force=force)
    result = await run.call(TMUX_CREATE, params)
    said = [f"✓ Session created: {result.session}"]
    if result.identity:
        said.append("  Agent is NOT running yet.")
    hint = Advice("tmux.create.next-launch", f"start it with: thrum tmux launch {line(result.session)}")
    return Answer(_document(result), said=said, warnings=result.warnings, hint=None if no_agent else hint)


def _wanted(
    run: Run, session: str, name: str, cwd: str, runtime: str, *, no_agent: bool, intent: str, force: bool
) -> TmuxCreateParams:
    return TmuxCreateParams(
        name=session,
        cwd=str(Path(run.session.cwd, run.flags.repo or ".", cwd)),
        agent_name=name,
        role=run.flags.role,
        module=run.flags.module,
        intent=intent,
        runtime=runtime,
        no_agent=no_agent,
        force=force,
    )


def _document(result: TmuxCreateResult | TmuxLaunchResult | TmuxRestartResult) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(result)
    document.pop("warnings", None)
    return document


async def launch(
    session: Annotated[str, word("SESSION", "the session")],
    /,
    *,
    runtime: Annotated[str, option("R", "the program; default: the agent's, runtime.primary, claude")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    result = await run.call(TMUX_LAUNCH, TmuxLaunchParams(name=session, runtime=runtime))
    said = f"Launched {result.runtime} in session {result.session}"
    return Answer(_document(result), said=said, warnings=result.warnings)


async def start(
    *,
    name: Annotated[str, option("DIR", "the session's name; default: that of this directory")] = "",
    runtime: Annotated[str, option("R", "the program; default: the agent's, runtime.primary, claude")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    attaches = not run.flags.json
    if attaches:
        run.require_own_process()
        _check_terminal(run)
    session = name or _session_name(run.layout().root.name)
    document = await open_session(run, session, runtime)
    if attaches:
        await attach(run, session)
    return Answer(document)


async def open_session(
    run: Run,
    session: str,
    runtime: str,
    *,
    agent: str = "",
    role: str = "",
    module: str = "",
    intent: str = "",
    arguments: tuple[str, ...] = (),
    force: bool = False,
) -> dict[str, Any]:
    """See to it that the session is there, with an agent's runtime in it; what is so already stays. Returns the
    command's document."""
    there = next((each for each in (await run.call(TMUX_STATUS, Empty())).sessions if each.name == session), None)
    document: dict[str, Any] = {"session": session}
    if there is None or there.state == "dead":
        params = _wanted(run, session, agent, "", runtime, no_agent=False, intent=intent, force=force)
        params = msgspec.structs.replace(params, role=role or params.role, module=module or params.module)
        created = await run.call(TMUX_CREATE, params)
        run.warnings += created.warnings
        document = _document(created)
    if there is None or there.state in ("dead", "stale"):
        launch = TmuxLaunchParams(name=session, runtime=runtime, arguments=arguments)
        launched = await run.call(TMUX_LAUNCH, launch)
        run.warnings += launched.warnings
        document["runtime"] = launched.runtime
    return document


def _session_name(directory: str) -> str:
    """A directory's name as tmux takes it."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in directory)
    return kept.lstrip("-")[:64] or "thrum"


async def connect(
    session: Annotated[str, word("SESSION", "the session; without it, a choice")] = "",
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    status = await run.call(TMUX_STATUS, Empty())
    there = [each for each in status.sessions if each.state != "dead"]
    if session and session not in {each.name for each in there}:
        raise TmuxSessionNotFound(f"there is no session {session!r} of this daemon")
    if run.flags.json:
        return Answer(_shown(status))
    if not there:
        raise TmuxSessionNotFound("there is no session of this daemon", remedy="thrum tmux create SESSION")
    run.require_own_process()
    _check_terminal(run)
    await attach(run, session or await _choose(run, there))
    return Answer({})


def can_attach(run: Run) -> bool:
    """Whether a session can be shown here."""
    return run.session.terminal.tty & (TTY_IN | TTY_OUT) == TTY_IN | TTY_OUT


def _check_terminal(run: Run) -> None:
    if not can_attach(run):
        raise UsageError("a session is shown in a terminal, and this is none", remedy="thrum tmux capture SESSION")


async def _choose(run: Run, there: list[TmuxSession]) -> str:
    """One of several, by its number; the only one without a question. Raises UsageError."""
    if len(there) == 1:
        return there[0].name
    lines = [
        f"{number}  {line(each.name)}  {each.agent and render.at(each.agent)}" for number, each in enumerate(there, 1)
    ]
    await run.complain("\n".join([*lines, f"Which one? [1-{len(there)}]"]))
    said = (await trio.to_thread.run_sync(os.read, 0, 64, abandon_on_cancel=True)).decode("utf-8", "replace").strip()
    if not said.isdecimal() or not 1 <= int(said) <= len(there):
        raise UsageError(f"{said!r} is none of them", remedy="thrum tmux connect SESSION")
    return there[int(said) - 1].name


async def attach(run: Run, session: str) -> None:
    """Show a session here. Only a failure returns."""
    from thrum.terminal.tmux import attach_command, tmux_environ

    socket = (await run.call(TMUX_STATUS, Empty())).socket
    argv = attach_command(socket, session, run.session.env)
    await run.disconnect()
    _become(argv, tmux_environ(run.session.env))


def _become(argv: tuple[str, ...], environ: dict[str, str]) -> NoReturn:
    try:
        os.execvpe(argv[0], argv, environ)
    except OSError:
        raise TmuxMissing("tmux is not installed, or not on the PATH") from None


async def status(*, run: Annotated[Run, RUN]) -> Answer:
    result = await run.call(TMUX_STATUS, Empty())
    said = "" if result.sessions else "No session."
    return Answer(_shown(result), said=said, data=_table(result.sessions))


def _shown(result: TmuxStatusResult) -> dict[str, Any]:
    return {"sessions": result.sessions}


def _table(sessions: tuple[TmuxSession, ...]) -> str:
    """`SESSION AGENT STATE RUNTIME BRANCH`, a line each."""
    if not sessions:
        return ""
    rows = [
        [
            line(each.name),
            render.at(each.agent) if each.agent else "",
            each.state,
            line(each.runtime),
            line(each.branch),
        ]
        for each in sessions
    ]
    return render.table(["SESSION", "AGENT", "STATE", "RUNTIME", "BRANCH"], rows, width=0, flexible=0)


async def kill(
    session: Annotated[str, word("SESSION", "the session")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    result = await run.call(TMUX_KILL, TmuxKillParams(name=session))
    return Answer(result, said=f"Session {session} {'killed' if result.killed else 'was gone already'}")


async def send(
    session: Annotated[str, word("SESSION", "the session")],
    text: Annotated[str, word("TEXT", "what to type")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    result = await run.call(TMUX_SEND, TmuxSendParams(name=session, text=text))
    shown = f", whose pane showed {result.pane}" if result.pane else ""
    said = f"Typed {plural(len(text), 'character')} and Enter into session {session}{shown}"
    return Answer({"session": result.session, "sent": result.sent}, said=said)


async def capture(
    session: Annotated[str, word("SESSION", "the session")],
    /,
    *,
    lines: Annotated[int, option("N", "how many lines, from the end", "--lines", "-n")] = 50,
    run: Annotated[Run, RUN],
) -> Answer:
    result = await run.call(TMUX_CAPTURE, TmuxCaptureParams(name=session, lines=lines))
    return Answer(result, data="\n".join(map(line, result.content.split("\n"))))


async def restart(
    session: Annotated[str, word("SESSION", "the session")],
    /,
    *,
    force: Annotated[bool, switch("also an agent that is at work")] = False,
    runtime: Annotated[str, option("R", "the program from now on")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    params = TmuxRestartParams(name=session, force=force, runtime=runtime)
    result = await run.call(TMUX_RESTART, params)
    said = f"Session {result.session} restarted ({plural(result.snapshot_lines, 'snapshot line')})"
    return Answer(_document(result), said=said, warnings=result.warnings)
