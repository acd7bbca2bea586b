"""who-has, ping: who is editing a file, and who is active, right now. Source: cli.md §2 "W2", §3.9, §5.9."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from thrum.cli import values
from thrum.cli.acting import roots_of
from thrum.cli.commands.messages import check_agent
from thrum.cli.parser import RUN, word
from thrum.cli.render import GONE, RenderContext, at, labelled, status
from thrum.cli.run import Answer, Run
from thrum.cli.text import few, line, plural
from thrum.model import wire_types
from thrum.model.errors import ThrumError
from thrum.model.methods.agents import (
    AGENT_LIST,
    AGENT_LIST_CONTEXT,
    AGENT_LOOKUP,
    AgentListParams,
    AgentListResult,
    ListContextParams,
    ListContextResult,
    LookupParams,
)
from thrum.model.search import path_matches


async def who_has(
    file: Annotated[
        tuple[str, ...], word("FILE", "a path, the end of one, a directory with its trailing /, or a quoted pattern")
    ],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    if not file:
        raise run.command.error("FILE is missing")
    wanted: dict[str, str] = {}
    roots = roots_of(run.layout())
    for each in file:
        path = path_wanted(each, run.session.cwd, run.layout().root, roots)
        if not path:
            raise run.command.error(f'"{line(each)}" is not a path in the repository')
        wanted.setdefault(path, each)
    found = await run.call(AGENT_LIST_CONTEXT, ListContextParams(files=tuple(wanted)))
    unedited, open_ = verdicts(found, wanted)
    me = ""
    with suppress(ThrumError):  # who asks need not be anybody
        me = run.identity().agent_id
    seen = edits(found.contexts, me)
    lines = in_order(seen, {} if run.quiet else unedited, tuple(wanted))
    document = {"contexts": found.contexts}
    document |= {name: some for name, some in (("unknown", found.unknown), ("unseen", found.unseen)) if some}
    unseen = bool(found.unseen) or any(not each.elsewhere for each in found.unknown)
    status = 1 if unseen and not seen else 0
    return Answer(document, data="\n".join((*lines, *open_)), status=status)


def verdicts(found: ListContextResult, wanted: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """For the files (path → as the user wrote it) that are known to have no editor: a line by path; and what
    is open. A no is only said where all who could say yes were heard, here at least; those elsewhere are named
    beside it.
    """
    touched = {path for each in found.contexts for path in (*each.uncommitted_files, *each.changed_files)}
    left = {path: as_written for path, as_written in wanted.items() if not any(path_matches(t, path) for t in touched)}
    reasons: dict[str, list[str]] = {}
    for each in found.unknown:
        if not each.elsewhere:
            reasons.setdefault(each.reason, []).append(each.agent_id)
    files = " or ".join(line(each) for each in (left or wanted).values())
    open_ = [f"Not known whether {_either(some)} is editing {files}: {line(why)}" for why, some in reasons.items()]
    apart = _apart(found)
    if reasons:
        return {}, open_ + apart
    unseen = set(found.unseen)
    open_ += [
        f"Not known who is editing {line(as_written)}: git knows no such file (misspelt, ignored, or not written yet)"
        for path, as_written in left.items()
        if path in unseen
    ]
    here = " here" if found.unknown else ""
    known = {path: as_written for path, as_written in left.items() if path not in unseen}
    said = {path: f"No agents{here} are currently editing {line(as_written)}" for path, as_written in known.items()}
    return said, open_ + apart


def _apart(found: ListContextResult) -> list[str]:
    """One line about the active agents of other clones, none of whose uncommitted work can be seen from here."""
    seen = {each.agent_id for each in found.contexts}
    agents = [each.agent_id for each in found.unknown if each.elsewhere and each.agent_id not in seen]
    if not agents:
        return []
    clones = "another clone" if len(agents) == 1 else "other clones"
    return [f"{plural(len(agents), 'agent')} in {clones}: unknown ({few([at(each) for each in agents])})"]


_EVERYTHING = "**"


def path_wanted(file: str, cwd: str, root: Path, others: Sequence[Path] = ()) -> str:
    """What the user means, from the root on; empty for what lies outside. Names without `./` may be the end of a path;
    one that is a directory here means what lies below it, and a root all there is. `others`: the repository's other
    worktrees, in which a path means the same as here.
    """
    is_directory = file.endswith("/")
    if os.path.isabs(file) or "." in file.split("/") or ".." in file.split("/"):
        head, name = os.path.split(os.path.join(cwd, file).rstrip("/"))
        # Of a link that is itself asked for, only the path to it is resolved.
        full = os.path.realpath(f"{head}/{name}") if name in ("", ".", "..") else f"{os.path.realpath(head)}/{name}"
        around = [each for each in (root, *others) if Path(full).is_relative_to(each)]
        if not around:
            return ""
        root = max(around, key=lambda each: len(each.parts))
        path = os.path.relpath(full, root)
        if path == ".":
            return _EVERYTHING
    else:
        path = os.path.normpath(file) if file.strip("/") else ""
    if path and (is_directory or (root / path).is_dir()):
        path += "/"
    return path


def in_order(found: Sequence[tuple[str, str]], unedited: Mapping[str, str], wanted: Sequence[str]) -> list[str]:
    """The lines of paths with editors and those of files without, in the order in which the files were asked for."""
    lines: list[str] = []
    left = list(found)
    for file in wanted:
        lines += [text for path, text in left if path_matches(path, file)]
        left = [(path, text) for path, text in left if not path_matches(path, file)]
        lines += [unedited[file]] if file in unedited else []
    return lines + [text for _, text in left]


def edits(contexts: Sequence[wire_types.WorkContext], me: str = "") -> list[tuple[str, str]]:
    """Each path that is being changed, and a line that says by whom (5.9). Who of several in one worktree does it, git
    does not tell: all are named.
    """
    homes: dict[Any, list[wire_types.WorkContext]] = {}
    for context in contexts:
        home = context.worktree_path or context.agent_id
        homes.setdefault((home, context.branch, context.file_changes, context.changed_files), []).append(context)
    lines: list[tuple[str, str]] = []
    for some in homes.values():
        who = _either([each.agent_id for each in some], me)
        shared = "; they share a worktree" if len(some) > 1 else ""
        lines += [
            (path, f"{who} is editing {line(path)} ({state}{shared})") for path, state in _states(some[0]).items()
        ]
    return lines


def _either(agents: Sequence[str], me: str = "") -> str:
    """`@a`, `@a or @b (you)`."""
    return " or ".join(at(each) + (" (you)" if each == me else "") for each in agents)


def _states(context: wire_types.WorkContext) -> dict[str, str]:
    """Path → what is uncommitted says how much, the rest how far ahead."""
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
    return states


async def ping(
    agent: Annotated[str, word("AGENT", "the agent")],
    /,
    *,
    run: Annotated[Run, RUN],
) -> Answer:
    agent_id = values.parse_agent(agent)
    listed = await run.call(AGENT_LIST, AgentListParams())
    known = next((each for each in listed.agents if each.agent_id == agent_id), None)
    if known is None:
        await check_agent(run, agent_id)
    result = await run.call(AGENT_LIST_CONTEXT, ListContextParams(agent_id=agent_id))
    agents = AgentListResult(agents=(known,) if known else ())
    document = {"agents": agents, "contexts": {"contexts": result.contexts}}
    found = await run.call(AGENT_LOOKUP, LookupParams(name=agent_id))
    data = presence(
        agent_id, known, result.contexts, RenderContext(run.now_ms), status(found.member) if found.member else ""
    )
    return Answer(document, data=data, warnings=result.warnings)


def presence(
    agent_id: str,
    known: wire_types.AgentInfo | None,
    contexts: tuple[wire_types.WorkContext, ...],
    rendering: RenderContext,
    doing: str = "",
) -> str:
    """`@x: active, last heartbeat 5m ago`, and what it works on."""
    last = rendering.ago(known.last_seen_at or known.registered_at) if known else ""
    gone = f"; its worktree is {GONE}" if known and known.worktree_missing else ""
    if not contexts:
        return f"{at(agent_id)}: offline" + (f" (last seen {last})" if last else "") + gone
    (context, *_) = contexts
    ahead = f" ({plural(len(context.unmerged_commits), 'commit')} ahead)" if context.unmerged_commits else ""
    fields = labelled(
        ("Intent", line(context.intent)),
        ("Task", line(context.current_task)),
        ("Status", doing),
        ("Branch", line(context.branch) + ahead if context.branch else ""),
        width=10,
    )
    return "\n".join(part for part in (f"{at(agent_id)}: active, last heartbeat {last}{gone}", fields) if part)
