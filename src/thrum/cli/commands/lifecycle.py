"""agent delete|cleanup|set-status. Source: cli.md §2 "W2", §3.11; identity.md §8.5."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from thrum.cli.acting import homes
from thrum.cli.confirm import confirm
from thrum.cli.parser import RUN, did_you_mean, near, option, switch, word
from thrum.cli.render import at
from thrum.cli.run import Answer, Run
from thrum.cli.session import TTY_ERR, TTY_IN
from thrum.cli.text import few, line, plural
from thrum.cli.values import parse_agent
from thrum.model import ids, wire_types
from thrum.model.errors import AgentAlive, AgentNotFound, Cancelled, ConfirmationRequired, if_gone, not_yours
from thrum.model.methods.agents import (
    AGENT_CLEANUP,
    AGENT_DELETE,
    AGENT_LIST,
    AGENT_LOOKUP,
    AGENT_RENAME,
    AGENT_SET_STATUS,
    TEAM_LIST,
    AgentDeleteParams,
    AgentListParams,
    AgentRenameParams,
    CleanupParams,
    LookupParams,
    SetStatusParams,
    TeamListParams,
)
from thrum.model.methods.messages import MESSAGE_OUTBOX, OutboxParams

_CLONES_MAX = 3


async def delete(
    name: Annotated[str, word("NAME", "the agent")],
    /,
    *,
    yes: Annotated[bool, switch("don't ask")] = False,
    force: Annotated[bool, switch("don't ask; also delete one that is running or lives in another worktree")] = False,
    with_messages: Annotated[bool, switch("also delete what it wrote; a copy stays in .thrum/archive/")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    me = run.identity().agent_id
    agent_id = parse_agent(name)
    if not force:
        about, elsewhere = await _consequences(run, agent_id, me, with_messages)
        if elsewhere and not _is_asked(run):
            raise ConfirmationRequired(
                f"use --force to confirm deletion: {'; '.join(about)}",
                remedy=f"leave it to the agent that works there; if you were told to delete it: {run.again('--force')}",
            )
        if not yes:
            await confirm(run, f"Delete agent '{agent_id}'?", about=about)
    params = AgentDeleteParams(name=agent_id, force=force, with_messages=with_messages)
    try:
        result = await run.call(AGENT_DELETE, params)
    except AgentNotFound as error:
        raise await _not_found(run, error.message, agent_id) from None
    if not result.deleted:
        return Answer(result, said=f"✓ {line(result.message)}")
    return Answer(result, said=f"✓ Agent deleted: {result.agent_id}", notice="" if run.quiet else result.message)


async def _not_found(run: Run, message: str, agent_id: str) -> AgentNotFound:
    listed = await run.call(AGENT_LIST, AgentListParams())
    close = near(agent_id, [each.agent_id for each in listed.agents])
    advice = "; ".join(part for part in (did_you_mean(close), "thrum agent list") if part)
    return AgentNotFound(message, remedy=advice, suggestions=close or None)


def _is_asked(run: Run) -> bool:
    """Whether somebody sits there who can be asked: a person, and no agent's shell."""
    return _at_terminal(run) and not run.flags.json


async def _consequences(run: Run, agent_id: str, me: str, with_messages: bool) -> tuple[list[str], bool]:
    """What a deletion would do, for the user who is about to confirm it; and whether it is of an agent that lives in
    another worktree. Raises AgentNotFound, NotYours and AgentAlive
    before anybody is asked: `--force` alone passes the last two.
    """
    found = await run.call(AGENT_LOOKUP, LookupParams(name=agent_id))
    member = found.member
    if member is None:
        if agent_id in homes(run.layout()):
            return [f"{at(agent_id)} is not registered; its identity file and notes will be deleted"], False
        raise await _not_found(run, f"agent not found: {agent_id}", agent_id)
    if not member.is_local:
        raise not_yours(agent_id, member.hostname, member.origin_daemon)
    if member.pid_live and agent_id != me:
        raise AgentAlive(f"@{agent_id} is running (pid {member.agent_pid})", agent_id=agent_id, pid=member.agent_pid)
    wrote = await run.call(MESSAGE_OUTBOX, OutboxParams(author_id=agent_id, page_size=1))
    fate = "deleted too, everywhere (a copy stays in .thrum/archive/)" if with_messages else "kept"
    elsewhere = False
    if agent_id == me:
        who = f"{at(agent_id)} is you" + (f", running (pid {member.agent_pid})" if member.pid_live else "")
    else:
        elsewhere = bool(member.worktree) and homes(run.layout()).get(agent_id) != str(run.layout().root)
        where = f"elsewhere, in {line(member.worktree)}" if elsewhere else "here" if member.worktree else "nowhere"
        who = f"{at(agent_id)} lives {where}"
    about = [
        f"{who}; its identity file, notes, record and sessions will be deleted",
        f"its inbox: {plural(member.inbox_total, 'message')}, {member.inbox_unread} unread, deleted;"
        f" what it wrote: {plural(wrote.total, 'message')}, {fate}",
        "an agent registered under that name later starts fresh; to keep the messages under another name:"
        " thrum agent rename NEW",
    ]
    return about, elsewhere


async def rename(
    new: Annotated[str, word("NEW", "the new name")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    name = parse_agent(new)
    ids.check_agent_name(name, "")
    result = await run.call(AGENT_RENAME, AgentRenameParams(name=name))
    if result.of == result.agent_id:
        return Answer(result, said=f"@{result.agent_id} already has that name.")
    for variable in ("THRUM_NAME", "THRUM_AGENT_ID"):
        if run.session.env.get(variable):
            run.warnings.append(f"{variable} is {line(result.of)} here: export {variable}={result.agent_id}")
    mail = f" ({result.unread} unread)" if result.unread else ""
    run.warnings += result.warnings
    document = msgspec.structs.replace(result, warnings=())
    return Answer(document, said=f"✓ @{line(result.of)} is @{result.agent_id} now{mail}")


async def cleanup(
    *,
    dry_run: Annotated[bool, switch("only list them")] = False,
    yes: Annotated[bool, switch("delete them all, without asking", "--yes", "--force")] = False,
    threshold: Annotated[int, option("DAYS", "treat agents unseen for more days than this as orphaned")] = 30,
    run: Annotated[Run, RUN],
) -> Answer:
    if dry_run and yes:
        raise run.command.error("--dry-run and --yes exclude each other")
    if threshold < 0:
        raise run.command.error("--threshold must be 0 or more")
    run.identity()
    asks = not (dry_run or yes or run.flags.json) and _at_terminal(run)
    if asks:
        run.require_own_process()
    params = CleanupParams(dry_run=dry_run, force=yes, threshold=threshold)
    result = await run.call(AGENT_CLEANUP, params)
    if not result.orphans:
        notice = [] if run.quiet or run.flags.json else await _of_other_clones(run)
        return Answer(result, said="No orphaned agents.", notice=notice)
    deleted = _deleted(result.deleted) if yes and not run.quiet else []
    listing = [f"Orphaned agents ({len(result.orphans)}):", *(_orphan(each) for each in result.orphans)]
    if asks:
        await run.write("\n".join(listing))
        gone = await _ask_each(run, result.orphans)
        return Answer(msgspec.structs.replace(result, deleted=tuple(gone)), said=_deleted(gone))
    silent = dry_run or yes or run.flags.json
    notice = "" if silent else f"Nothing was deleted; delete them all: {line(run.again('--yes'))}"
    return Answer(result, data="\n".join([*listing, *deleted]), notice=notice)


async def _of_other_clones(run: Run) -> list[str]:
    """Whose agents a cleanup leaves alone, and what takes those of a clone away that is gone: a line for each clone."""
    params = TeamListParams(include_offline=True, include_files=False)
    team = await run.call(TEAM_LIST, params)
    clones: dict[str, list[str]] = {}
    for each in team.members:
        if not each.is_local and each.origin_daemon:
            clones.setdefault(each.origin_daemon, []).append(at(each.agent_id))
    some = list(clones.items())[:_CLONES_MAX]
    return [f"Not checked, in another clone: {few(agents)}; {if_gone(clone)}" for clone, agents in some]


def _at_terminal(run: Run) -> bool:
    return bool(run.session.terminal.tty & TTY_IN and run.session.terminal.tty & TTY_ERR)


async def _ask_each(run: Run, orphans: tuple[wire_types.Orphan, ...]) -> list[str]:
    """Ask for each; those that were deleted."""
    gone: list[str] = []
    for each in orphans:
        try:
            await confirm(run, f"Delete agent '{each.agent_id}'?")
        except Cancelled:
            continue
        await run.call(AGENT_DELETE, AgentDeleteParams(name=each.agent_id))
        gone.append(each.agent_id)
    return gone


def _deleted(names: list[str] | tuple[str, ...]) -> list[str]:
    return [f"✓ Deleted {name}" for name in names]


def _orphan(each: wire_types.Orphan) -> str:
    """`  @nux  implementer  sync  identity file gone, last seen 40 days ago, 3 messages`."""
    reasons = [
        text
        for missing, text in (
            (each.identity_missing, "identity file gone"),
            (each.worktree_missing, "worktree gone"),
            (each.branch_missing, f"branch {line(each.branch)} gone"),
        )
        if missing
    ]
    seen = f"last seen {plural(each.days_since_last_seen, 'day')} ago" if each.days_since_last_seen else "seen today"
    parts = [at(each.agent_id), line(each.role), line(each.module)]
    parts.append(", ".join([*reasons, seen, plural(each.message_count, "message")]))
    return "  " + "  ".join(parts)


async def set_status(
    status: Annotated[
        Literal["working", "idle", "blocked", "stuck"], word("STATUS", "working, idle, blocked or stuck")
    ],
    /,
    *,
    agent: Annotated[str, option("NAME", "another agent's")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    name = parse_agent(agent) if agent else ""
    params = SetStatusParams(agent=name, status=status)
    result = await run.call(AGENT_SET_STATUS, params)
    whose = f" for {result.agent_id}" if agent else ""
    document = msgspec.structs.replace(result, warnings=())
    return Answer(document, said=f"✓ Status{whose} set to {status}", warnings=result.warnings)
