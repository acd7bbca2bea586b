"""hook install|uninstall|status: thrum's hooks in the files of agent runtimes. Source: wake.md §6."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import trio

from thrum.cli import render
from thrum.cli.confirm import confirm
from thrum.cli.parser import RUN, did_you_mean, near, switch, word
from thrum.cli.run import Answer, Run
from thrum.cli.text import line
from thrum.cli.values import age
from thrum.model.errors import NotAvailable, RuntimeNotFound, ThrumError
from thrum.model.methods.agents import TEAM_LIST, TeamListParams
from thrum.model.wire_types import TeamMember

if TYPE_CHECKING:
    from thrum.runtimes.settings_files import Scope, SettingsFile

Runtime = Annotated[str, word("RUNTIME", "claude, codex, gemini, cursor, opencode")]


class HookInstall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`rule`: the file of ignore rules that now hides it. `trusted`: how many of thrum's hooks its runtime, where it
    wants that, was told to trust."""

    runtime: str
    scope: str
    file: str
    changed: bool
    rule: str = ""
    trusted: int = 0


class RemovedHooks(msgspec.Struct, kw_only=True):
    """One file. `restored`: it is to the byte what it was before, or gone, if there was none."""

    scope: str
    file: str
    restored: bool


class HookUninstall(msgspec.Struct, kw_only=True):
    runtime: str
    removed: tuple[RemovedHooks, ...]


class HookFile(msgspec.Struct, kw_only=True):
    """A file with hooks of thrum. `program_found`: whether what they call can be executed."""

    scope: str
    file: str
    program_found: bool


class Fired(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An agent of this machine with that runtime. `at`: when hooks fired first in its session; absent: never.
    `events`: when each last did, as long as the daemon runs."""

    agent_id: str
    at: str = ""
    events: dict[str, str] = {}


class RuntimeHooks(msgspec.Struct, kw_only=True):
    """`present`: whether the runtime's program is on PATH. `fired`: empty also where no daemon runs."""

    runtime: str
    present: bool
    files: tuple[HookFile, ...]
    fired: tuple[Fired, ...]


class HookStatus(msgspec.Struct, kw_only=True):
    hooks: tuple[RuntimeHooks, ...]


async def install(
    runtime: Runtime,
    /,
    *,
    project: Annotated[bool, switch("into the project's own file, for everybody who clones it")] = False,
    user: Annotated[bool, switch("into your own file, for all repositories")] = False,
    yes: Annotated[bool, switch("don't ask")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    from thrum.runtimes.installer import install

    file = _file(run, _hooked(runtime), project=project, user=user)
    layout = None if file.scope == "user" else run.layout()
    act = partial(install, file, own_program(run.session.env), run.session.env, layout)
    would = await trio.to_thread.run_sync(partial(act, dry_run=True))
    if file.scope == "user" and not user and not yes and would.change != "unchanged":
        about = [f"{file.runtime} has no file of a repository: {file.name} is your own, for all repositories"]
        if file.runtime == "codex":
            about.append("codex runs hooks that you trust: thrum's own are marked so in config.toml beside it")
        await confirm(run, f"Put thrum's hooks into {file.name}?", what="that", about=about)
    done = await trio.to_thread.run_sync(act)
    trusted, untrusted = await _trust(file, run.session.env) if file.runtime == "codex" else (0, "")
    document = HookInstall(
        runtime=file.runtime,
        scope=file.scope,
        file=str(file.path),
        changed=done.change != "unchanged",
        rule=done.rule,
        trusted=trusted,
    )
    if done.change == "unchanged":
        return Answer(
            document,
            said=[f"Hooks of {file.runtime} are installed already: {line(file.name)}", *_not_trusted(untrusted)],
        )
    verb = "replaced" if done.change == "replaced" else "installed"
    said = [f"✓ Hooks of {file.runtime} {verb}: {line(file.name)}"]
    if done.rule:
        said.append(f"  Hidden from git by a line in {line(done.rule.removeprefix(f'{file.root}/'))}")
    trust = ", which trusts them" if trusted else ""
    said.append(f"  They fire in sessions of {file.runtime} that start from now on{trust}.")
    said += _not_trusted(untrusted)
    return Answer(document, said=said)


async def _trust(file: SettingsFile, environ: Mapping[str, str]) -> tuple[int, str]:
    """How many of thrum's hooks codex trusts now, and why it does not."""
    from thrum.runtimes.codex.trust import trust

    program = shutil.which("codex", path=environ.get("PATH"))
    if program is None:
        return 0, "there is no codex on PATH"
    try:
        return (await trust(file, program, environ)).count, ""
    except ThrumError as error:
        return 0, error.message


def _not_trusted(why: str) -> list[str]:
    return [f"  They are not trusted yet ({line(why)}): codex asks you once."] if why else []


async def uninstall(
    runtime: Runtime,
    /,
    *,
    project: Annotated[bool, switch("only from the project's own file")] = False,
    user: Annotated[bool, switch("from your own file")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    from thrum.runtimes.installer import uninstall
    from thrum.runtimes.settings_files import scopes_of, settings_files_in

    runtime = _hooked(runtime)
    if project or user or scopes_of(runtime) == ("user",):
        settings = [_file(run, runtime, project=project, user=user)]
    else:
        root = run.layout().root
        settings = settings_files_in(runtime, root, run.session.env)
    removed: list[RemovedHooks] = []
    said: list[str] = []
    for file in settings:
        if file.runtime == "codex":
            from thrum.runtimes.codex.trust import untrust

            await trio.to_thread.run_sync(partial(untrust, file, run.session.env))  # while the hooks tell which
        change = await trio.to_thread.run_sync(partial(uninstall, file, run.session.env))
        if change != "absent":
            removed.append(RemovedHooks(scope=file.scope, file=str(file.path), restored=change == "restored"))
            how = "; the file is as it was before" if change == "restored" else ""
            said.append(f"✓ Hooks of {runtime} removed: {line(file.name)}{how}")
    if not said:
        looked = " or ".join(line(file.name) for file in settings) or "this worktree"
        said.append(f"No hooks of {runtime} in {looked}")
        said += await trio.to_thread.run_sync(_elsewhere, runtime, settings, run.session.env)
    return Answer(HookUninstall(runtime=runtime, removed=tuple(removed)), said=said)


def _elsewhere(runtime: str, looked: Sequence[SettingsFile], environ: Mapping[str, str]) -> list[str]:
    """Where else there are some."""
    from thrum.runtimes.installer import installed_files

    found = [each for each in installed_files(None, environ) if each.runtime == runtime and each not in looked]
    return [f"  {line(each.name)} has some: thrum hook uninstall {runtime} --user" for each in found]


async def status(*, run: Annotated[Run, RUN]) -> Answer:
    run.require_own_process()
    root = run.layout().root
    members = await local_agents(run)
    document = await trio.to_thread.run_sync(_status, root, run.session.env, members)
    return Answer(document, data=_table(document, run))


def _status(root: Path, environ: Mapping[str, str], members: Sequence[TeamMember]) -> HookStatus:
    from thrum.runtimes.installer import commands_in, installed_files
    from thrum.runtimes.presets import BUILT_IN
    from thrum.runtimes.settings_files import HOOKED

    settings = installed_files(root, environ)
    hooks: list[RuntimeHooks] = []
    for runtime in HOOKED:
        found = [
            HookFile(scope=each.scope, file=each.name, program_found=not missing_programs(commands_in(each)))
            for each in settings
            if each.runtime == runtime
        ]
        fired = [
            Fired(
                agent_id=each.agent_id,
                at=each.hooks_seen_at,
                events={event: told.last_at for event, told in each.hooks_fired.items()},
            )
            for each in members
            if each.runtime == runtime
        ]
        present = shutil.which(BUILT_IN[runtime].command.split()[0], path=environ.get("PATH")) is not None
        hooks.append(RuntimeHooks(runtime=runtime, present=present, files=tuple(found), fired=tuple(fired)))
    return HookStatus(hooks=tuple(hooks))


def missing_programs(commands: Sequence[str]) -> list[str]:
    """What hooks call that cannot be executed any more."""
    from thrum.runtimes.hook_files import program_of

    programs = dict.fromkeys(program_of(each) for each in commands)
    return [each for each in programs if not os.access(each, os.X_OK)]


def _table(found: HookStatus, run: Run) -> str:
    rows: list[list[str]] = []
    for each in found.hooks:
        fired = [text for one in each.fired for text in _fired(one, run)] or ["-"]
        files = [f"{line(one.file)}{'' if one.program_found else ' (its thrum is gone)'}" for one in each.files]
        files = files or ["not installed"]
        for number in range(max(len(files), len(fired))):
            first = number == 0
            program = "" if not first else "on PATH" if each.present else "not on PATH"
            file, told = (some[number] if number < len(some) else "" for some in (files, fired))
            rows.append([each.runtime if first else "", file, program, told])
    return render.table(["RUNTIME", "HOOKS", "PROGRAM", "FIRED"], rows, width=0, flexible=3)


def _fired(one: Fired, run: Run) -> list[str]:
    """`@x 5m ago`, and a line for each event: when last."""
    head = f"@{line(one.agent_id)} {age(one.at, run.now_ms) if one.at else 'never'}"
    return [head, *(f"  {line(event)} {age(at, run.now_ms)}" for event, at in sorted(one.events.items()))]


# -- what the commands here and others share


async def local_agents(run: Run) -> Sequence[TeamMember]:
    """The agents of this machine with a session, as a running daemon knows them; none is started for it."""
    if await run.client_if_running() is None:
        return ()
    team = await run.call_once(TEAM_LIST, TeamListParams(include_files=False, include_hooks=True))
    return [each for each in team.members if each.is_local]


def _hooked(name: str) -> str:
    """A runtime that hooks can be written for. Raises RuntimeNotFound, NotAvailable."""
    from thrum.runtimes.presets import BUILT_IN
    from thrum.runtimes.settings_files import HOOKED

    if name in HOOKED:
        return name
    if name in BUILT_IN:
        raise NotAvailable(
            f"{BUILT_IN[name].display_name} calls no hooks of thrum", remedy=f"runtimes that do: {', '.join(HOOKED)}"
        )
    close = near(name, HOOKED)
    remedy = did_you_mean(close) or f"one of {', '.join(HOOKED)}"
    raise RuntimeNotFound(f'no runtime "{name}" has hooks', remedy=remedy, suggestions=close or None)


def _file(run: Run, runtime: str, *, project: bool, user: bool) -> SettingsFile:
    from thrum.runtimes.settings_files import scopes_of, settings_file

    if project and user:
        raise run.command.error("--project and --user exclude each other")
    scope: Scope | Literal[""] = "project" if project else "user" if user else ""
    wanted = scope or scopes_of(runtime)[0]
    return settings_file(runtime, wanted, None if wanted == "user" else run.layout().root, run.session.env)


def own_program(environ: Mapping[str, str]) -> str:
    """The absolute path of the `thrum` that runs, no link to it. Raises NotAvailable where there is none to call."""
    started = sys.argv[0] if os.path.basename(sys.argv[0]) == "thrum" else ""
    beside = f"{sysconfig.get_path('scripts')}/thrum"
    for each in (started, beside, shutil.which("thrum", path=environ.get("PATH")) or ""):
        if each and os.path.isfile(each) and os.access(each, os.X_OK):
            return os.path.realpath(each)
    raise NotAvailable("there is no command thrum that hooks could call", remedy="install thrum, then repeat this")
