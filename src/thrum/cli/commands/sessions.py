"""session start|end|list|heartbeat|set-intent|set-task, also as `agent …`. Source: cli.md §2 "W2", §3.9."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from thrum.cli import values
from thrum.cli.commands.messages import check_agent
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.render import RenderContext, at
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, plural, shorten
from thrum.model import wire_types
from thrum.model.methods.sessions import (
    SESSION_END,
    SESSION_HEARTBEAT,
    SESSION_LIST,
    SESSION_SET_INTENT,
    SESSION_SET_TASK,
    SESSION_START,
    HeartbeatParams,
    HeartbeatResult,
    SessionEndParams,
    SessionListParams,
    SessionStartParams,
    SetIntentParams,
    SetTaskParams,
)


async def start(*, run: Annotated[Run, RUN]) -> Answer:
    me = run.identity()
    result = await run.call(SESSION_START, SessionStartParams(agent_id=me.agent_id))
    said = [
        f"✓ Session started: {result.session_id}",
        f"  Agent: {at(result.agent_id)}",
        f"  Started: {values.absolute(result.started_at)}",
    ]
    return Answer(result, said=said)


async def end(
    *,
    reason: Annotated[Literal["normal", "crash"], option("R", "normal or crash")] = "normal",
    session_id: Annotated[str, option("ID", "this session of yours; default: the open one")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    params = SessionEndParams(session_id=session_id, reason=reason)
    result = await run.call(SESSION_END, params)
    return Answer(result, said=f"✓ Session ended: {result.session_id} ({values.span(result.duration_ms)})")


async def list_sessions(
    *,
    active: Annotated[bool, switch("only open sessions")] = False,
    agent: Annotated[str, option("ID", "only sessions of this agent")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    agent_id = values.parse_agent(agent) if agent else ""
    params = SessionListParams(agent_id=agent_id, active_only=active)
    result = await run.call(SESSION_LIST, params)
    if agent_id and not result.sessions:
        await check_agent(run, agent_id)
    rendering = RenderContext(run.now_ms, run.session.terminal.width)
    head = f"Sessions ({len(result.sessions)}):"
    return Answer(result, said=head, data="\n".join(session_line(each, rendering) for each in result.sessions))


def session_line(each: wire_types.Session, rendering: RenderContext) -> str:
    """`  ID  @AGENT  active|ended  AGE  INTENT`"""
    parts = [line(each.session_id), at(each.agent_id), each.status, rendering.ago(each.started_at), line(each.intent)]
    return shorten("  " + "  ".join(part for part in parts if part), rendering.width)


async def heartbeat(
    *,
    add_scope: Annotated[tuple[str, ...], option("S", "add a scope to the session, type:value")] = (),
    remove_scope: Annotated[tuple[str, ...], option("S", "remove it again")] = (),
    add_ref: Annotated[tuple[str, ...], option("R", "add a ref to the session, type:value")] = (),
    remove_ref: Annotated[tuple[str, ...], option("R", "remove it again")] = (),
    run: Annotated[Run, RUN],
) -> Answer:
    params = HeartbeatParams(
        add_scopes=tuple(values.parse_pair(each, "--add-scope") for each in add_scope),
        remove_scopes=tuple(values.parse_pair(each, "--remove-scope") for each in remove_scope),
        # Refs have rules of their own, whichever flag brings them.
        add_refs=tuple(values.parse_pair(each, "--ref") for each in add_ref),
        remove_refs=tuple(values.parse_pair(each, "--ref") for each in remove_ref),
    )
    run.identity()
    result = await run.call(SESSION_HEARTBEAT, params)
    document: dict[str, Any] = msgspec.to_builtins(result)
    document.pop("warnings", None)
    said = [f"✓ Heartbeat sent: {result.session_id}"]
    if context := _context(result):
        said.append(f"  Context: {context}")
    return Answer(document, said=said, warnings=result.warnings)


def _context(result: HeartbeatResult) -> str:
    """`branch: B, N commits, M files`; nothing for an agent without a worktree."""
    if result.unmerged_commits is None:
        return ""
    branch = [f"branch: {line(result.branch)}"] if result.branch else []
    counts = [plural(result.unmerged_commits, "commit"), plural(len(result.file_changes), "file")]
    return ", ".join([*branch, *counts])


async def set_intent(
    text: Annotated[str, word("TEXT", "what you are working on; an empty text clears it")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    result = await run.call(SESSION_SET_INTENT, SetIntentParams(intent=text))
    return Answer(result, said=f"✓ Intent set: {line(text)}" if text else "✓ Intent cleared")


async def set_task(
    task: Annotated[str, word("TASK", "the task's id; an empty id clears it")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    run.identity()
    result = await run.call(SESSION_SET_TASK, SetTaskParams(current_task=task))
    return Answer(result, said=f"✓ Task set: {line(task)}" if task else "✓ Task cleared")
