"""overview, also as status: me, team, inbox, sync and daemon at a glance. Source: cli.md §2 "W2", §5.8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import trio

from thrum.cli.commands.agents import me_from_files, me_with_session
from thrum.cli.parser import RUN
from thrum.cli.render import GONE, RenderContext, at, labelled, short_session, status
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, one_line, plural, shorten
from thrum.cli.values import since
from thrum.model import notes, wire_types
from thrum.model.errors import FileTooLarge, FileUnreadable, NoIdentity, SeveralIdentities
from thrum.model.methods.agents import (
    AGENT_LIST,
    AGENT_LIST_CONTEXT,
    AGENT_LOOKUP,
    AgentListParams,
    ListContextParams,
    LookupParams,
    WhoamiResult,
)
from thrum.model.methods.daemon import HEALTH, HealthResult
from thrum.model.methods.method import Empty
from thrum.model.notes import Note

NOT_REGISTERED = "not registered (thrum quickstart NAME --role ROLE --module MODULE)"


@dataclass(frozen=True, slots=True)
class Look:
    """What the daemon knows, for somebody who has just come."""

    health: HealthResult
    agents: tuple[wire_types.AgentInfo, ...]
    contexts: tuple[wire_types.WorkContext, ...]
    """Of the open sessions, as git says now."""
    member: wire_types.TeamMember | None
    """The caller's own entry; None without an identity, or if the daemon does not know it."""
    warnings: tuple[str, ...] = ()

    def context_of(self, agent_id: str) -> wire_types.WorkContext | None:
        return next((each for each in self.contexts if each.agent_id == agent_id), None)


async def take_look(run: Run, agent_id: str) -> Look:
    """Four looks, none of which leaves a mark. `agent_id` may be empty."""
    health = await run.call(HEALTH, Empty())
    listed = await run.call(AGENT_LIST, AgentListParams())
    work = await run.call(AGENT_LIST_CONTEXT, ListContextParams())
    member: wire_types.TeamMember | None = None
    if agent_id:
        found = await run.call(AGENT_LOOKUP, LookupParams(name=agent_id))
        member = found.member
    return Look(health, listed.agents, work.contexts, member, work.warnings)


async def overview(*, run: Annotated[Run, RUN]) -> Answer:
    rendering = RenderContext(run.now_ms, run.session.terminal.width)
    me, reason = await who_i_am(run)
    look = await take_look(run, me.agent_id if me else "")
    own = look.context_of(me.agent_id) if me else None
    others = tuple(each for each in look.contexts if each is not own)
    member = look.member
    document: dict[str, Any] = {"health": look.health}
    if me is not None:
        document["agent"] = me
        saved = await trio.to_thread.run_sync(_saved, run, me.agent_id)
        document["context"] = _context(saved)
    if own is not None:
        document["work_context"] = own
    counts = (member.inbox_total, member.inbox_unread) if member else (0, 0)
    document |= {"team": others, "inbox": {"total": counts[0], "unread": counts[1]}}
    if look.health.websocket_port:
        document["websocket_port"] = look.health.websocket_port
    blocks = [
        you(me, member, rendering, reason),
        "\n".join(["Team:", *(_teammate(each, look.agents, rendering) for each in others)]) if others else "",
        _rest(look, rendering),
    ]
    return Answer(document, data="\n".join(block for block in blocks if block), warnings=look.warnings)


async def who_i_am(run: Run) -> tuple[WhoamiResult | None, str]:
    """The agent that would act, with the session if a daemon runs; or None, and why."""
    try:
        run.identity()
    except NoIdentity:
        return None, NOT_REGISTERED
    except SeveralIdentities as error:
        return None, line(f"{error.message} ({error.remedy})")
    return await me_with_session(run, me_from_files(run)), ""


def you(me: WhoamiResult | None, member: wire_types.TeamMember | None, rendering: RenderContext, reason: str) -> str:
    """The lines about oneself."""
    if me is None:
        return f"You:      {reason}"
    name = f"{at(me.agent_id)} ({line(me.role)}, {line(me.module)})"
    if member is None:
        back = f"thrum quickstart {line(me.agent_id)} --role {line(me.role)} --module {line(me.module)}"
        return f"You:      {name}, not registered here ({back})"
    return labelled(
        ("You", name),
        ("Session", session_text(me, rendering)),
        ("Intent", line(me.intent)),
        ("Task", line(member.current_task)),
        ("Status", status(member)),
        ("Branch", branch_text(member)),
        width=10,
    )


def session_text(me: WhoamiResult, rendering: RenderContext) -> str:
    """`ses_01HXF2A9... (active 2h15m)`."""
    if not me.session_id:
        return "none (the next change starts one)"
    active = active_since(me, rendering)
    return short_session(me.session_id) + (f" ({active})" if active else "")


def active_since(me: WhoamiResult, rendering: RenderContext) -> str:
    """`active 2h15m`; empty where no session is open, or since when is not known."""
    return f"active {since(me.session_start, rendering.now_ms)}" if me.session_id and me.session_start else ""


def branch_text(member: wire_types.TeamMember) -> str:
    """`feature/auth (2 commits ahead, 3 files changed)`; empty without a branch."""
    news: list[str] = []
    if member.unmerged_commits:
        news.append(f"{plural(member.unmerged_commits, 'commit')} ahead")
    if member.file_changes:
        news.append(f"{plural(len(member.file_changes), 'file')} changed")
    return line(member.branch) + (f" ({', '.join(news)})" if news else "") if member.branch else ""


def teammate(
    each: wire_types.WorkContext, agents: Sequence[wire_types.AgentInfo], rendering: RenderContext
) -> list[str]:
    """Who it is, its branch, its intent, when it was seen."""
    known = next((one for one in agents if one.agent_id == each.agent_id), None)
    seen = rendering.ago(known.last_seen_at or known.registered_at) if known else ""
    gone = f"worktree {GONE}" if known and known.worktree_missing else ""
    return [text for text in (at(each.agent_id), line(each.branch), line(each.intent), seen, gone) if text]


def _teammate(each: wire_types.WorkContext, agents: Sequence[wire_types.AgentInfo], rendering: RenderContext) -> str:
    return shorten("  " + "  ".join(teammate(each, agents, rendering)), rendering.width)


def sync_text(health: HealthResult, rendering: RenderContext) -> str:
    """`synced 2m ago`, or the bare state where that says all."""
    state = line(health.sync_state)
    return f"{state} {rendering.ago(health.last_sync_at)}" if health.last_sync_at else state


def _rest(look: Look, rendering: RenderContext) -> str:
    health, member = look.health, look.member
    web = f", http://localhost:{health.websocket_port}" if health.websocket_port else ""
    return labelled(
        ("Inbox", f"{member.inbox_unread} unread / {member.inbox_total} total" if member else ""),
        ("Sync", sync_text(health, rendering)),
        ("Daemon", f"running (pid {health.pid}){web}"),
        ("Problems", "; ".join(one_line(problem) for problem in health.problems)),
        width=10,
    )


def _saved(run: Run, agent_id: str) -> Note | None:
    try:
        return notes.read_notes(run.layout().root, agent_id)
    except (FileUnreadable, FileTooLarge) as error:
        run.warnings.append(error.message)
        return None


def _context(saved: Note | None) -> dict[str, Any]:
    if saved is None:
        return {"has_context": False}
    return {"has_context": True, "size": saved.size, "updated_at": saved.updated_at}
