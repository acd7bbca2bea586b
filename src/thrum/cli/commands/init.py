"""init: set a repository up. Source: cli.md §3.1."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import trio

from thrum.cli.commands.agents import start_agent, wanted
from thrum.cli.confirm import confirm
from thrum.cli.connect import check_no_agent, check_runtime
from thrum.cli.parser import RUN, option, switch
from thrum.cli.run import Advice, Answer, Run
from thrum.cli.session import TTY_ERR, TTY_IN
from thrum.cli.text import line, one_line
from thrum.cli.values import true
from thrum.identity.files import list_identities
from thrum.model import limits
from thrum.model.config import load_config
from thrum.model.config_acceptance import state_tracked
from thrum.model.errors import NotARepository, NotInitialized, ThrumError
from thrum.model.methods.method import Empty
from thrum.model.methods.sync import SYNC_FORCE, SYNC_STATUS, SyncForceParams
from thrum.model.paths import Layout, layout_of
from thrum.model.settings import LOCAL_ONLY

if TYPE_CHECKING:
    from thrum.admin.init import InitFile, InitOptions, InitResult

_DO = {"create": "create", "merge": "change", "overwrite": "rewrite", "skip": "skip"}
_DONE = {"create": "created", "merge": "changed", "overwrite": "rewritten", "skip": "skipped"}
_NEXT = "thrum quickstart NAME --role ROLE --module MODULE"


async def init(
    *,
    force: Annotated[bool, switch("also outside a git repository, for throw-away use")] = False,
    dry_run: Annotated[bool, switch("print what would be done, change nothing")] = False,
    sync: Annotated[bool, switch("exchange messages through the git remote")] = False,
    keep_modes: Annotated[bool, switch("leave .git readable by other users, if it is")] = False,
    gitignore: Annotated[bool, switch("put the ignore rule into .gitignore, not .git/info/exclude")] = False,
    runtime: Annotated[str, option("R", "the agents' runtime, e.g. claude; its hooks are installed")] = "",
    skills: Annotated[bool, switch("write the skill that says how to use thrum, and no hooks")] = False,
    name: Annotated[str, option("N", "with --role and --module: also register an agent")] = "",
    worktrees_root: Annotated[str, option("PATH", "where new worktrees go")] = "",
    stealth: Annotated[bool, switch("change no tracked file (the default)")] = False,
    keep: Annotated[bool, switch("use an existing .thrum as it is, instead of moving it away")] = False,
    yes: Annotated[bool, switch("don't ask before moving a .thrum away")] = False,
    no_daemon: Annotated[bool, switch("no effect")] = False,
    non_interactive: Annotated[bool, switch("no effect")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    del no_daemon, non_interactive
    run.require_own_process()
    from thrum.admin.init import InitOptions, initialise

    if stealth and gitignore:
        raise run.command.error("--stealth and --gitignore exclude each other")
    if runtime:
        await trio.to_thread.run_sync(check_runtime, run.session.env, _known_repositories(run), runtime)
    if name and not (run.flags.role and run.flags.module):
        raise run.command.error("--name needs --role and --module")
    env = run.session.env
    options = InitOptions(
        hostname=env.get("THRUM_HOSTNAME") or os.uname().nodename,
        environ=env,
        force=force,
        dry_run=dry_run,
        sync=sync,
        gitignore=gitignore,
        runtime=runtime,
        worktrees_root=worktrees_root,
        keep_modes=keep_modes,
        keep=keep,
    )
    start = run.start()
    words = {"init --sync": sync, "init --keep": keep, "init --keep-modes": keep_modes}
    if not dry_run and (act := next((act for act, said in words.items() if said), "")):
        await trio.to_thread.run_sync(check_no_agent, env, _known_repositories(run), act)
    if not yes:
        await _ask(run, start, options)
    from thrum.cli.commands import _runtime_files

    write = partial(_runtime_files.write, only_skills=skills)
    if (runtime or skills) and not dry_run:  # what it would refuse is refused before anything is made
        would = replace(options, dry_run=True)
        await trio.to_thread.run_sync(write, await trio.to_thread.run_sync(initialise, start, would), would)
    result: InitResult = await trio.to_thread.run_sync(initialise, start, options)
    if runtime or skills:
        result.files += await trio.to_thread.run_sync(write, result, options)
    warnings = tuple(filter(None, [state_tracked(result.tracked)]))
    said = text(result, local_only=_local_only(result, sync, env))
    if sync and not dry_run:
        said = (*said, await _first_round(run))
    if not name or dry_run:
        hint = Advice(
            "init.next-quickstart", f"register: {_NEXT}", options=({"label": "register an agent", "cmd": _NEXT},)
        )
        registered = not dry_run and any(list_identities(run.layout().identities_dir))
        return Answer(result, said=said, hint=None if dry_run or registered else hint, warnings=warnings)
    answer = await start_agent(run, wanted(run, "", name, ""), runtime=runtime)
    document: dict[str, Any] = msgspec.to_builtins(result) | msgspec.to_builtins(answer.document)
    for extra in ("session", "intent"):
        document.pop(extra, None)
    both = (*said, *((answer.said,) if isinstance(answer.said, str) else answer.said))
    warnings = (*warnings, *answer.warnings)
    return Answer(document, said=both, notice=answer.notice, status=answer.status, warnings=warnings)


async def _ask(run: Run, start: Path, options: InitOptions) -> None:
    """On a terminal, before something is moved away."""
    from thrum.admin.init import initialise

    tty = run.session.terminal.tty
    if options.dry_run or options.keep or run.flags.json or not (tty & TTY_IN and tty & TTY_ERR):
        return
    found: InitResult = await trio.to_thread.run_sync(initialise, start, replace(options, dry_run=True))
    for name in found.moved:
        await confirm(run, f"There is a .thrum that thrum did not create. Move it to {line(name)}?")


async def _first_round(run: Run) -> str:
    """Sync first, so that the next registration knows the names of others. Returns the line that says where it goes."""
    wait_ms = int(limits.compare_names_seconds * 1000)
    try:
        result = await run.call(SYNC_FORCE, SyncForceParams(wait_ms=wait_ms))
        why = "" if result.local_only else result.last_error
        now = await run.call(SYNC_STATUS, Empty())
        where = line(f"{now.remote} ({now.remote_url})") if not now.local_only else ""
        said = (
            f"  Sync: on, with {where}"
            if where
            else f"  Sync: on; for now local only: {one_line(now.local_only_reason)}"
        )
    except ThrumError as error:
        why, said = error.message, "  Sync: on"
    if why:
        run.warnings.append(
            f"not synced yet, so names are not compared with other clones' ({why}): thrum sync force --wait"
        )
    return said


def _known_repositories(run: Run) -> Layout | None:
    """Where thrum is set up already."""
    try:
        return run.layout()
    except (NotInitialized, NotARepository):
        return None


def _local_only(result: InitResult, sync: bool, env: Any) -> bool:
    if env.get("THRUM_LOCAL"):
        return true(env["THRUM_LOCAL"])
    config_file = layout_of(Path(result.repo_path), Path(result.thrum_dir)).config_file
    if sync or result.sync_recalled or not config_file.exists():
        return not (sync or result.sync_recalled)
    return load_config(config_file)[LOCAL_ONLY]


def text(result: InitResult, *, local_only: bool) -> tuple[str, ...]:
    """5.1: what was touched, and how each thing is undone; things that were there already are left out."""
    if result.already_initialized:
        head = "Thrum is already initialized"
    elif result.dry_run:
        head = f"Would initialize thrum in {result.repo_path}"
    else:
        head = f"✓ Thrum initialized in {result.repo_path}"
    touched = [each for each in result.files if each.action != "noop"]
    width = max((len(each.path) for each in touched), default=0)
    lines = [_file(each, width, result.dry_run) for each in touched]
    moved = "move" if result.dry_run else "moved"
    lines += [f"  {moved}  .thrum, which thrum did not create  to: {line(name)}" for name in result.moved]
    if local_only:
        in_git = any("a-sync" in each.path for each in result.files)
        lines.append("  Sync: local only" + (" (turn on: thrum sync enable)" if in_git else ""))
    elif result.sync_recalled:
        lines.append("  Sync: on, as it was in this clone before; to turn it off: thrum sync disable")
    lines += [f"  Note: {note}" for note in result.notes]
    return (head, *lines)


def _file(each: InitFile, width: int, dry_run: bool) -> str:
    action = (_DO if dry_run else _DONE)[each.action]
    undo = f"  undo: {each.undo}" if each.undo else f"  {each.skip_reason}" if each.skip_reason else ""
    return f"  {action}  {each.path:<{width}}{undo}".rstrip()
