"""who-has, ping: who is at it, asked now. Source: cli.md §2 "W2", §3.9, §5.9."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from thrum import api, shapes
from thrum.cli import values
from thrum.cli.messages import check_agent
from thrum.cli.render import Eye, at, labelled
from thrum.cli.run import Answer, Run
from thrum.cli.text import line, plural
from thrum.cli.words import RUN, word


async def who_has(
    file: Annotated[str, word("FILE", "a path, the end of one, or a directory with its trailing /")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    wanted = path_wanted(file, run.session.cwd, run.places().root)
    if not wanted:
        raise run.command.error(f'"{line(file)}" is no path in the repository')
    params = api.ListContextParams(file=wanted)
    result: api.ListContextResult = await run.call("agent.listContext", params)
    lines = [text for context in result.contexts for text in editing(context)]
    said = "" if lines else f"No agents are currently editing {line(file)}"
    return Answer({"contexts": result.contexts}, said=said, data="\n".join(lines), warnings=result.warnings)


def path_wanted(file: str, cwd: str, root: Path) -> str:
    """What the user means, from the root on; empty for what lies outside. Names without `./` may be the end of a path;
    one that is a directory here means what lies below it.
    """
    is_directory = file.endswith("/")
    if os.path.isabs(file) or "." in file.split("/") or ".." in file.split("/"):
        head, name = os.path.split(os.path.join(cwd, file).rstrip("/"))
        # Of a link that is meant itself only the way to it is resolved.
        full = os.path.realpath(f"{head}/{name}") if name in ("", ".", "..") else f"{os.path.realpath(head)}/{name}"
        path = os.path.relpath(full, root)
        if path in (".", "..") or path.startswith("../"):
            return ""
    else:
        path = os.path.normpath(file) if file.strip("/") else ""
    if path and (is_directory or (root / path).is_dir()):
        path += "/"
    return path


def editing(context: shapes.WorkContext) -> list[str]:
    """A line for each path that an agent is at (5.9): what is uncommitted says how much, the rest how far ahead."""
    branch = f"branch: {line(context.branch)}" if context.branch else ""
    changes = {change.path: change for change in context.file_changes}
    states: dict[str, str] = {}
    for path in context.uncommitted_files:
        change = changes.get(path)
        counts = f"+{change.additions} -{change.deletions}" if change else ""
        states[path] = ", ".join(part for part in (counts, "uncommitted", branch) if part)
    for path in context.changed_files:
        ahead = f"{plural(len(context.unmerged_commits), 'commit')} ahead"
        states.setdefault(path, ", ".join(part for part in (ahead, branch) if part))
    return [f"{at(context.agent_id)} is editing {line(path)} ({state})" for path, state in states.items()]


async def ping(
    agent: Annotated[str, word("AGENT", "whose presence")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    agent_id = values.agent_of(agent)
    listed: api.AgentListResult = await run.call("agent.list", api.AgentListParams())
    known = next((each for each in listed.agents if each.agent_id == agent_id), None)
    if known is None:
        await check_agent(run, agent_id)
    result: api.ListContextResult = await run.call("agent.listContext", api.ListContextParams(agent_id=agent_id))
    agents = api.AgentListResult(agents=(known,) if known else ())
    document = {"agents": agents, "contexts": {"contexts": result.contexts}}
    data = presence(agent_id, known, result.contexts, Eye(run.now_ms))
    return Answer(document, data=data, warnings=result.warnings)


def presence(agent_id: str, known: shapes.AgentInfo | None, contexts: tuple[shapes.WorkContext, ...], eye: Eye) -> str:
    """`@x: active, last heartbeat 5m ago`, and what it works on."""
    last = eye.ago(known.last_seen_at or known.registered_at) if known else ""
    if not contexts:
        return f"{at(agent_id)}: offline" + (f" (last seen {last})" if last else "")
    (context, *_) = contexts
    ahead = f" ({plural(len(context.unmerged_commits), 'commit')} ahead)" if context.unmerged_commits else ""
    fields = labelled(
        ("Intent", line(context.intent)),
        ("Task", line(context.current_task)),
        ("Branch", line(context.branch) + ahead if context.branch else ""),
        width=10,
    )
    return "\n".join(part for part in (f"{at(agent_id)}: active, last heartbeat {last}", fields) if part)
