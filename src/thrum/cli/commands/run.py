"""run: from nothing to an agent that can be reached, in one command. Source: wake.md §6."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import trio

from thrum.cli.commands.agents import Wanted, start_agent, wanted
from thrum.cli.commands.hooks import own_program
from thrum.cli.commands.tmux import can_attach, open_session
from thrum.cli.connect import own_links, runtime_names
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import line
from thrum.identity.files import list_identities
from thrum.identity.runtimes import KNOWN_RUNTIMES, runtimes
from thrum.model.errors import NotAvailable, NotInitialized, RuntimeNotFound
from thrum.model.methods.worktrees import WORKTREE_CREATE, WorktreeCreateParams
from thrum.model.paths import Layout
from thrum.model.settings import PRIMARY_RUNTIME

_ANOTHERS = frozenset({"THRUM_NAME", "THRUM_AGENT_ID", "THRUM_ROLE", "THRUM_MODULE", "THRUM_DISPLAY"})
"""Variables of the terminal that may be another agent's: here NAME counts, and what is given with it."""
_SERVED = {"codex": ("--no-daemon",)}
"""What keeps a program from being one of many that a shared server of its own runs: below such a one no process proves
an agent, and its tools have the variables of the terminal that started it first."""


async def run_agent(
    name: Annotated[str, word("NAME", "the agent's name")],
    runtime: Annotated[str, word("RUNTIME", "claude, codex … or any program; default: the agent's, claude")] = "",
    arguments: Annotated[tuple[str, ...], word("-- ARG", "what the runtime is given")] = (),
    /,
    *,
    worktree: Annotated[str, option("W", "work in this worktree, made if need be")] = "",
    tmux: Annotated[bool, switch("in a tmux session called NAME")] = False,
    intent: Annotated[str, option("T", "what the agent works on")] = "",
    force: Annotated[bool, switch("take over a name from another worktree, or a session of that name")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    name = name.removeprefix("@")
    runtime, arguments = _told(run, runtime, arguments)
    if run.flags.json and not tmux:
        raise run.command.error("--json goes with --tmux: the runtime takes this terminal")
    run.session = replace(run.session, env={k: v for k, v in run.session.env.items() if k not in _ANOTHERS})
    program, argv = await trio.to_thread.run_sync(_program, run, name, runtime)
    if not tmux:
        await trio.to_thread.run_sync(_check_above, run, name)
    said = await trio.to_thread.run_sync(_set_up, run)
    if worktree:
        flags = [flag for flag, on in (("--tmux", tmux), ("--force", force)) if on]
        await _go_on_in(run, worktree, [name, *([runtime] if runtime else []), *flags], arguments, intent)
    who = wanted(run, name, "", "", otherwise=(program, name))
    is_known = program in runtimes(runtime_names(run.session.env, run.layout()))
    if tmux:
        return await _in_session(run, who, program, arguments, intent, said, force=force)
    known = program if is_known else ""
    begun = await start_agent(run, who, intent=intent, runtime=known, becomes_runtime=True, force=force)
    if begun.status:
        return begun
    hooks, warning = await trio.to_thread.run_sync(_hooks, run, program, (*argv, *arguments))
    if not run.quiet:
        warnings = [f"warning: {line(each)}" for each in (*run.warnings, *begun.warnings, *filter(None, [warning]))]
        await run.complain("\n".join([*said, f"✓ @{name} ({who.role}, {who.module}): {program} starts", *warnings]))
    await run.disconnect()
    root = run.layout().root
    here = Path(run.session.cwd)
    _become(
        (*argv, *_SERVED.get(program, ()), *hooks, *arguments),
        {**run.session.env, "THRUM_NAME": name},
        here if here.is_relative_to(root) else root,
    )


def _told(run: Run, runtime: str, words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The runtime and what it is given: all that stands behind `--`. Raises UsageError for words too many before it."""
    argv = run.argv
    given = argv[argv.index("--") + 1 :] if "--" in argv else ()
    before = [runtime, *words][: len(words) + bool(runtime) - len(given)] if runtime else []
    if len(before) > 1:
        raise run.command.error(
            f"unexpected argument: {' '.join(before[1:])}", f"what {before[0]} is given stands behind --"
        )
    return (before[0] if before else ""), given


def _known_layout(run: Run) -> Layout | None:
    try:
        return run.layout()
    except NotInitialized:
        return None


def _program(run: Run, name: str, runtime: str) -> tuple[str, tuple[str, ...]]:
    """What to start. Blocks. Raises RuntimeNotFound, NotARepository."""
    from thrum.identity.guard_modes import OwnRuntimes, runtimes_file
    from thrum.model.config import load_config
    from thrum.runtimes.presets import FALLBACK, read_own
    from thrum.runtimes.programs import any_command_of

    env, layout = run.session.env, _known_layout(run)
    presets, default = read_own(OwnRuntimes(runtimes_file(env)))
    if not runtime and layout is not None:
        listed = [each.identity for each in list_identities(layout.identities_dir) if each.identity is not None]
        own = next((each.preferred_runtime for each in listed if each.name == name), "")
        runtime = own or load_config(layout.config_file)[PRIMARY_RUNTIME]
    names = KNOWN_RUNTIMES if layout is None else runtime_names(env, layout)
    return any_command_of(runtime or default or FALLBACK, presets, names, env)


def _check_above(run: Run, name: str) -> None:
    """Refuse to start a runtime below another one: it would be that one's, and be told nothing. Blocks."""
    layout = _known_layout(run)
    links = () if layout is None else own_links(run.session.env, layout)
    above = next((each.runtime for each in links if each.runtime is not None), None)
    if above is not None:
        raise NotAvailable(
            f"{above} runs above this terminal: an agent started below it would be told nothing",
            remedy=f"thrum run {name} --tmux, or in a terminal of its own",
        )


def _set_up(run: Run) -> list[str]:
    """`init`, where thrum is not set up; what to say of it. Blocks. Raises what `init` does."""
    if _known_layout(run) is not None:
        return []
    from thrum.admin.init import InitOptions, initialise

    env = run.session.env
    done = initialise(run.start(), InitOptions(hostname=env.get("THRUM_HOSTNAME") or os.uname().nodename, environ=env))
    return [f"✓ Thrum initialized in {done.repo_path}"]


def _hooks(run: Run, program: str, words: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    from thrum.runtimes.per_run import arguments_for

    layout, env = run.layout(), run.session.env
    return arguments_for(program, words, own_program(env), layout.per_run_dir, layout.root, env)


async def _go_on_in(run: Run, worktree: str, words: list[str], arguments: tuple[str, ...], intent: str) -> NoReturn:
    """Make the worktree, and begin again in it."""
    made = await run.call(WORKTREE_CREATE, WorktreeCreateParams(name=worktree))
    await run.disconnect()
    told = {"--intent": intent, "--role": run.flags.role, "--module": run.flags.module}
    words += [f"{flag}={value}" for flag, value in told.items() if value]
    words += [flag for flag, on in (("--quiet", run.quiet), ("--json", run.flags.json)) if on]
    environ = {key: value for key, value in run.session.env.items() if key != "THRUM_HOME"}
    again = (sys.executable, "-P", "-m", "thrum", "run", *words, *(("--", *arguments) if arguments else ()))
    _become(again, environ, Path(made.worktree_path))


async def _in_session(
    run: Run, who: Wanted, program: str, arguments: tuple[str, ...], intent: str, said: list[str], *, force: bool
) -> Answer:
    """The same in a session, shown here where a person looks."""
    attaches = not run.flags.json and can_attach(run)
    document: dict[str, Any] = await open_session(
        run,
        who.name,
        program,
        agent=who.name,
        role=who.role,
        module=who.module,
        intent=intent,
        arguments=arguments,
        force=force,
    )
    if attaches:
        from thrum.cli.commands.tmux import attach

        await attach(run, who.name)
    words = f"✓ @{who.name} ({who.role}, {who.module}): {program} runs in session {who.name}"
    return Answer(document, said=[*said, words, f"  look at it: thrum tmux connect {who.name}"])


def _become(argv: tuple[str, ...], environ: Mapping[str, str], directory: Path) -> NoReturn:
    """Turn this process into that program: the terminal, its signals and the exit status are its own."""
    try:
        os.chdir(directory)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        os.execve(argv[0], argv, dict(environ))
    except OSError as error:
        raise RuntimeNotFound(f"could not start {argv[0]}: {(error.strerror or str(error)).lower()}") from None
