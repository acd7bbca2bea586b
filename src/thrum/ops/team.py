"""Reading agents: team, agent list, one agent. Writes nothing. Source: rpc.md §5, cli.md 3.8."""

from __future__ import annotations

import os.path

import msgspec

from thrum.model import ids
from thrum.model.methods.agents import (
    AgentListParams,
    AgentListResult,
    LookupParams,
    LookupResult,
    TeamListParams,
    TeamListResult,
)
from thrum.model.wire_types import AgentInfo, GitState, GroupTotal, SharedMessages, TeamMember, WorkContext
from thrum.ops.context import Call, Context
from thrum.ops.git_state import read_live
from thrum.ops.liveness import owner_alive, worktree_missing
from thrum.store.queries.views import AgentRow, SessionRow, View


async def list_agents(ctx: Context, _call: Call, params: AgentListParams) -> AgentListResult:
    """All registered agents, the newest registration first."""
    rows = ctx.view.agents(role=params.role, module=params.module, kind=params.kind)
    return AgentListResult(agents=tuple(info(row) for row in rows))


def info(row: AgentRow) -> AgentInfo:
    return AgentInfo(
        agent_id=row.agent_id,
        kind=row.kind,
        role=row.role,
        module=row.module,
        display=row.display,
        registered_at=row.registered_at,
        last_seen_at=row.last_seen_at,
        agent_pid=row.agent_pid,
        worktree_missing=worktree_missing(row),
    )


async def list_team(ctx: Context, _call: Call, params: TeamListParams) -> TeamListResult:
    """Every agent with its session, work and inbox: active ones by last seen, then offline ones if asked for.

    Liveness is asked of the process table now. A dead process stays `active` until its session ends.
    """
    del params.include_system  # thrum has no senders of its own with a record yet
    view = ctx.view
    sessions = view.open_sessions()
    contexts = {context.session_id: context for context in view.contexts()}
    counts = view.inbox_counts()
    rows = [row for row in view.agents(kind="agent") if params.include_offline or row.agent_id in sessions]
    live, warnings = await read_live(ctx, rows, files=params.include_files)
    namesakes = view.namesakes()
    members: list[TeamMember] = []
    for row in rows:
        session = sessions.get(row.agent_id)
        context = contexts.get(session.session_id) if session else None
        count = counts.get(row.agent_id, (0, 0))
        told = _member(ctx, row, session, context, live.get(row.agent_id), count)
        if row.agent_id in namesakes:
            told = msgspec.structs.replace(told, namesakes=namesakes[row.agent_id])
        members.append(told)
    members.sort(key=lambda member: member.last_seen, reverse=True)
    members.sort(key=lambda member: member.status != "active")
    hosts = ctx.view.hosts() if params.hosts else {}
    return TeamListResult(members=tuple(members), shared_messages=_shared(ctx), warnings=warnings, hosts=hosts)


async def lookup(ctx: Context, _call: Call, params: LookupParams) -> LookupResult:
    """One registered agent by its name or id, with or without `@`; a miss is an answer."""
    name = params.name.removeprefix("@")
    view = ctx.view
    rows = (view.agent(agent_id) for agent_id in dict.fromkeys((name, ids.parse_agent_id(name).canonical)))
    row = next((row for row in rows if row is not None and row.live), None)
    if row is None:
        return _gone(view, name)
    session = view.open_session(row.agent_id)
    context = view.work(session.session_id) if session else None
    live, _ = await read_live(ctx, [row])
    count = view.inbox_count(row.agent_id)
    return LookupResult(_member(ctx, row, session, context, live.get(row.agent_id), count))


def _gone(view: View, agent_id: str) -> LookupResult:
    """What became of an agent that is gone."""
    if new := view.renamed(agent_id):
        return LookupResult(None, renamed_to=new)
    watermark = view.watermark("agent", agent_id)
    event = view.event(watermark[1]) if watermark is not None else None
    if watermark is None or event is None:
        return LookupResult(None)
    return LookupResult(None, deleted_by=event.actor, deleted_at=watermark[0])


def _member(
    ctx: Context,
    row: AgentRow,
    session: SessionRow | None,
    context: WorkContext | None,
    live: GitState | None,
    counts: tuple[int, int],
) -> TeamMember:
    """`live`: what git says of a local agent's worktree; of an agent elsewhere its last word counts."""
    local = row.origin_daemon in ctx.here.own
    root = row.worktree_path if local and os.path.isdir(row.worktree_path) else ""
    told = context or WorkContext(session_id="", agent_id="")
    return TeamMember(
        agent_id=row.agent_id,
        role=row.role,
        module=row.module,
        display=row.display,
        hostname=row.hostname,
        origin_daemon="" if local else row.origin_daemon,
        agent_pid=row.agent_pid,
        pid_live=owner_alive(row, ctx.processes, ctx.runtime_names()) if row.agent_pid else None,
        runtime=row.runtime,
        worktree=os.path.basename(root) if root else "" if local else row.worktree,
        worktree_missing=worktree_missing(row),
        session_id=session.session_id if session else "",
        session_start=session.started_at if session else "",
        last_seen=row.last_seen_at,
        intent=context.intent if context else "",
        current_task=context.current_task if context else "",
        branch=live.branch if live else told.branch,
        unmerged_commits=live.ahead if live else len(told.unmerged_commits),
        file_changes=live.file_changes if live else told.file_changes,
        inbox_total=counts[0],
        inbox_unread=counts[1],
        status="active" if session else "offline",
        agent_status=row.status,
        tmux_session=row.tmux_session,
        hooks_seen_at=row.hooks_seen_at if local else "",
        is_local=local,
    )


def _shared(ctx: Context) -> SharedMessages | None:
    broadcasts = ctx.view.broadcast_total()
    groups = tuple(GroupTotal(name, total) for name, total in ctx.view.group_totals())
    return SharedMessages(broadcasts, groups) if broadcasts or groups else None
