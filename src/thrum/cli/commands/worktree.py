"""worktree create|list|teardown. Source: cli.md §3.17."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio

from thrum.cli import render
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.run import Advice, Answer, Run
from thrum.cli.text import line
from thrum.identity.files import list_identities
from thrum.model.methods.method import Empty
from thrum.model.methods.worktrees import (
    WORKTREE_CREATE,
    WORKTREE_LIST,
    WORKTREE_TEARDOWN,
    WorktreeCreateParams,
    WorktreeListResult,
    WorktreeRow,
    WorktreeTeardownParams,
)


async def create(
    name: Annotated[str, word("NAME", "the worktree, and its tmux session")],
    /,
    *,
    branch: Annotated[str, option("B", "its branch, made if need be; default: feature/NAME", "-b", "--branch")] = "",
    base: Annotated[str, option("REF", "what a new branch begins at; default: HEAD")] = "",
    detach: Annotated[bool, switch("no branch")] = False,
    agent: Annotated[str, option("N", "register an agent in it; needs --role and --module", "--name")] = "",
    intent: Annotated[str, option("T", "what the agent works on")] = "",
    runtime: Annotated[str, option("R", "the program that runs it, e.g. claude")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    params = WorktreeCreateParams(
        name=name,
        branch=branch,
        base=base,
        detach=detach,
        agent_name=agent.removeprefix("@"),
        role=run.flags.role,
        module=run.flags.module,
        intent=intent,
        runtime=runtime,
    )
    result = await run.call(WORKTREE_CREATE, params)
    document: dict[str, Any] = msgspec.to_builtins(result)
    for spoken in ("notes", "warnings"):
        document.pop(spoken, None)
    said = [f"✓ Worktree {'found' if result.reused else 'created'} at {result.worktree_path}"]
    said += [f"  {line(note)}" for note in result.notes]
    if result.branch:
        said.append(f"  Branch: {result.branch}")
    if result.redirect:
        said.append("✓ Thrum redirect configured")
    if result.agent_id:
        said.append(f"✓ Registered as @{result.agent_id}")
    hint = None
    if result.session:
        said.append(f"✓ Session created: {result.session}")
        hint = Advice("tmux.create.next-launch", f"start the agent with: thrum tmux launch {line(result.session)}")
    return Answer(document, said=said, warnings=result.warnings, hint=hint)


async def list_worktrees(*, run: Annotated[Run, RUN]) -> Answer:
    if await run.client_if_running() is not None:
        listed = (await run.call(WORKTREE_LIST, Empty())).worktrees
    else:
        run.require_own_process()
        listed = await trio.to_thread.run_sync(_from_files, run)
    return Answer({"worktrees": listed}, data=_table(listed))


def _from_files(run: Run) -> tuple[WorktreeRow, ...]:
    """Without a daemon: who lives where, by the identity files; who is at work is not known. Blocks."""
    from thrum.admin.worktrees import Worktrees
    from thrum.model.config import Config
    from thrum.model.paths import layout_of

    layout = run.layout()
    rows: list[WorktreeRow] = []
    for each in Worktrees(layout, run.session.env, Config()).listed():
        place: dict[str, str] = {"path": each.path, "branch": each.branch, "head": each.head}
        found = list_identities(layout_of(Path(each.path), layout.state_dir).identities_dir)
        agents = [listed.identity for listed in found if listed.identity is not None]
        rows += [WorktreeRow(**place, agent=agent.name, role=agent.role) for agent in agents] or [WorktreeRow(**place)]
    return WorktreeListResult(tuple(rows)).worktrees


def _table(rows: tuple[WorktreeRow, ...]) -> str:
    """`WORKTREE BRANCH HEAD AGENT STATUS`; paths are never shortened."""
    lines = [
        [
            line(each.path),
            line(each.branch) or "(detached)",
            each.head[:7],
            render.at(each.agent) if each.agent else "",
            each.status,
        ]
        for each in rows
    ]
    return render.table(["WORKTREE", "BRANCH", "HEAD", "AGENT", "STATUS"], lines, width=0, flexible=0)


async def teardown(
    name: Annotated[str, word("NAME", "the worktree")],
    /,
    *,
    delete_branch: Annotated[bool, switch("delete its branch too")] = False,
    keep_agent: Annotated[bool, switch("don't delete its agent")] = False,
    force: Annotated[bool, switch("also with uncommitted files, unmerged commits or a running agent")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    params = WorktreeTeardownParams(name=name, delete_branch=delete_branch, keep_agent=keep_agent, force=force)
    result = await run.call(WORKTREE_TEARDOWN, params)
    document: dict[str, Any] = msgspec.to_builtins(result)
    document.pop("lost", None)
    said = [f"✓ Worktree {name} removed" if result.removed else f"✓ Worktree {name} was gone already"]
    if result.session_killed:
        said.append(f"  Session ended: {result.session_killed}")
    if result.agents_deleted:
        said.append(f"  Deleted: {', '.join(map(render.at, result.agents_deleted))}")
    if result.branch_deleted:
        said.append(f"  Branch deleted: {result.branch_deleted}")
    return Answer(document, said=said, warnings=tuple(f"went with it, {each}" for each in result.lost))
