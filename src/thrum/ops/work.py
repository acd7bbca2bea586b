"""What agents work on: tasks, heartbeats with git's state, the end of a session, who changes which file.

Source: rpc.md §5 "Sessions", events.md §4, cli.md §3.9.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any

import msgspec

from thrum.model import clock, limits
from thrum.model.errors import InvalidParams, NoSession
from thrum.model.events import AgentSeen, AgentUpdated, AnyFact, SessionEnded, SessionItemsChanged, Work
from thrum.model.methods.agents import ListContextParams, ListContextResult, UnknownWork
from thrum.model.methods.sessions import (
    HeartbeatParams,
    HeartbeatResult,
    SessionEndParams,
    SessionEndResult,
    SessionListParams,
    SessionListResult,
    SetTaskParams,
    SetTaskResult,
)
from thrum.model.search import path_matches
from thrum.model.wire_types import GitState, Session, WorkContext
from thrum.ops.context import Call, Context, caller_id
from thrum.ops.drafts import check_refs, check_scopes, check_text
from thrum.ops.git_state import read_live
from thrum.ops.identity_file import note_in_file
from thrum.ops.sessions import own_session
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

# -- task, heartbeat


async def set_task(ctx: Context, call: Call, params: SetTaskParams) -> SetTaskResult:
    """Which task the caller is at; an empty text clears it."""
    agent_id = caller_id(call)
    task = check_text(params.current_task, "task", limits.task_chars_max)

    def decide(view: View, stamp: Stamp) -> Decision[SetTaskResult]:
        session_id, prelude = own_session(view, stamp, agent_id, params.session_id)
        known = view.work(session_id)
        moment = stamp.later_than(known.task_updated_at if known else "")
        work = Work(session_id=session_id, current_task=task, task_updated_at=moment)
        fact = stamp.make(AgentUpdated, at=moment, agent_id=agent_id, work_contexts=(work,))
        result = SetTaskResult(session_id=session_id, current_task=task, task_updated_at=moment)
        return Decision([*prelude, fact], lambda _view, _seqs: result, main=len(prelude))

    result = await ctx.journal.commit(decide, key=call.key)
    await note_in_file(ctx, agent_id, session_id=result.session_id)
    return result


async def heartbeat(ctx: Context, call: Call, params: HeartbeatParams) -> HeartbeatResult:
    """The caller is there: last seen, what it pinned to its session, and its git state if that is news."""
    agent_id = caller_id(call)
    items = _items(params)
    git, warnings = await _git_of(ctx, agent_id)

    def decide(view: View, stamp: Stamp) -> Decision[HeartbeatResult]:
        session_id, prelude = own_session(view, stamp, agent_id, params.session_id)
        session = view.session(session_id)
        seen_at = session.seen_at if session else ""
        facts: list[AnyFact] = []
        if not seen_at or stamp.ms - clock.parse_ms(seen_at) >= limits.seen_interval_ms:
            facts.append(stamp.make(AgentSeen, agent_id=agent_id, session_id=session_id))
            seen_at = stamp.text
        if items:
            facts.append(stamp.make(SessionItemsChanged, session_id=session_id, **items))
        known = view.work(session_id)
        if git is not None and _is_news(known, git, stamp.ms):
            facts.append(_git_fact(stamp, agent_id, session_id, known, git))
        result = HeartbeatResult(
            session_id=session_id,
            last_seen_at=seen_at,
            branch=git.branch if git else "",
            unmerged_commits=git.ahead if git else None,
            file_changes=git.file_changes if git else (),
            warnings=warnings,
        )
        return Decision([*prelude, *facts], lambda _view, _seqs: result, main=len(prelude) if facts else 0)

    result = await ctx.journal.commit(decide, key=call.key)
    changes: dict[str, Any] = {"branch": git.branch} if git is not None and not git.problem else {}
    await note_in_file(ctx, agent_id, session_id=result.session_id, **changes)
    return result


def _items(params: HeartbeatParams) -> dict[str, Any]:
    """The scopes and refs to add and remove, checked. Raises BadScope, BadRef."""
    given = {
        "add_scopes": check_scopes(params.add_scopes),
        "remove_scopes": check_scopes(params.remove_scopes),
        "add_refs": check_refs(params.add_refs),
        "remove_refs": check_refs(params.remove_refs),
    }
    return {name: pairs for name, pairs in given.items() if pairs}


async def _git_of(ctx: Context, agent_id: str) -> tuple[GitState | None, tuple[str, ...]]:
    """The state of the caller's own worktree, None if it has none here."""
    row = ctx.view.agent(agent_id)
    states, warnings = await read_live(ctx, [row] if row is not None else [])
    return states.get(agent_id), warnings


def _is_news(known: WorkContext | None, git: GitState, now_ms: int) -> bool:
    """Whether other machines are informed: branch or commits changed, and they were not informed recently (events.md
    §4)."""
    if git.problem:
        return False
    if known is None or not known.git_updated_at:
        return bool(git.branch or git.ahead)
    if now_ms - clock.parse_ms(known.git_updated_at) < limits.work_fact_interval_ms:
        return False
    return (known.branch, known.unmerged_commits) != (git.branch, git.unmerged_commits)


def _git_fact(stamp: Stamp, agent_id: str, session_id: str, known: WorkContext | None, git: GitState) -> AgentUpdated:
    moment = stamp.later_than(known.git_updated_at if known else "")
    work = _git_work(session_id, git, moment)
    return stamp.make(AgentUpdated, at=moment, agent_id=agent_id, work_contexts=(work,))


def _git_work(session_id: str, git: GitState, moment: str = "") -> Work:
    """The git register, as small as a fact has to be: a few paths stand for all (events.md §4)."""
    every = dict.fromkeys((*git.uncommitted_files, *git.changed_files))
    some = set(list(every)[: limits.work_fact_paths_max])
    return Work(
        session_id=session_id,
        branch=git.branch,
        unmerged_commits=git.unmerged_commits,
        uncommitted_files=tuple(path for path in git.uncommitted_files if path in some),
        changed_files=tuple(path for path in git.changed_files if path in some),
        file_changes=tuple(change for change in git.file_changes if change.path in some),
        git_updated_at=moment,
    )


# -- the end of a session, and all of them


async def end(ctx: Context, call: Call, params: SessionEndParams) -> SessionEndResult:
    """End the session named, which must be the caller's own, or whatever it has open; with its last git state."""
    agent_id = caller_id(call)
    git, _ = await _git_of(ctx, agent_id)

    def decide(view: View, stamp: Stamp) -> Decision[SessionEndResult]:
        named, _ = own_session(view, stamp, agent_id, params.session_id) if params.session_id else ("", ())
        ended = [each for each in view.sessions(agent_id, active_only=True) if named in ("", each.session_id)]
        if not ended:
            raise NoSession("no open session")
        last = ended[0]
        known = view.work(last.session_id)
        facts: list[AnyFact] = []
        if git is not None and _is_last_word(last.session_id, known, git):
            facts.append(_git_fact(stamp, agent_id, last.session_id, known, git))
        ends = [
            stamp.make(SessionEnded, session_id=each.session_id, agent_id=agent_id, reason=params.reason)
            for each in ended
        ]
        result = _ended(ends[0], last.started_at)
        return Decision([*facts, *ends], lambda _view, _seqs: result, main=len(facts))

    result = await ctx.journal.commit(decide, key=call.key, replay=_replay_end)
    remaining = ctx.view.open_session(agent_id)
    await note_in_file(ctx, agent_id, session_id=remaining.session_id if remaining else "")
    return result


def _is_last_word(session_id: str, known: WorkContext | None, git: GitState) -> bool:
    """Whether a session's last state says anything that its facts don't."""
    if git.problem:
        return False
    work = _git_work(session_id, git)
    told = known or WorkContext(session_id=session_id, agent_id="")
    names = ("branch", "unmerged_commits", "uncommitted_files", "changed_files", "file_changes")
    return any(getattr(work, name) != getattr(told, name) for name in names)


def _ended(fact: SessionEnded, started_at: str) -> SessionEndResult:
    duration_ms = clock.parse_ms(fact.timestamp) - clock.parse_ms(started_at)
    return SessionEndResult(session_id=fact.session_id, ended_at=fact.timestamp, duration_ms=max(0, duration_ms))


def _replay_end(view: View, fact: AnyFact, _seq: int) -> SessionEndResult:
    assert isinstance(fact, SessionEnded)
    session = view.session(fact.session_id)
    return _ended(fact, session.started_at if session else fact.timestamp)


async def list_sessions(ctx: Context, _call: Call, params: SessionListParams) -> SessionListResult:
    """Sessions, the newest first."""
    intents = ctx.view.intents()
    return SessionListResult(
        sessions=tuple(
            Session(
                session_id=row.session_id,
                agent_id=row.agent_id,
                started_at=row.started_at,
                ended_at=row.ended_at,
                end_reason=row.end_reason,
                last_seen_at=max(row.started_at, row.seen_at, row.ended_at),
                intent=intents.get(row.session_id, ""),
                status="ended" if row.ended_at else "active",
            )
            for row in ctx.view.sessions(params.agent_id, params.active_only)
        )
    )


# -- who works on what


async def list_contexts(ctx: Context, _call: Call, params: ListContextParams) -> ListContextResult:
    """What the open sessions work on: of local agents as git says now, of others as they last said.

    With files (`search.path_matches`) only contexts that touch one, and in them only the paths that match. Raises
    InvalidParams for a file outside the repository.
    """
    wanted = tuple(dict.fromkeys(checked_file(file) for file in (params.file, *params.files) if file))
    view = ctx.view
    sessions = view.open_sessions()
    rows = [row for row in view.agents() if row.agent_id in sessions and params.agent_id in ("", row.agent_id)]
    told = {context.session_id: context for context in view.contexts(agent_id=params.agent_id)}
    live, warnings = await read_live(ctx, rows, wanted=wanted)
    moment = clock.format_ms(ctx.clock.now_ms())
    contexts: list[WorkContext] = []
    unknown: list[UnknownWork] = []
    for row in sorted(rows, key=lambda row: row.agent_id):
        session_id = sessions[row.agent_id].session_id
        context = told.get(session_id) or WorkContext(session_id=session_id, agent_id=row.agent_id)
        if wanted and (reason := _why_unknown(live.get(row.agent_id))):
            unknown.append(UnknownWork(row.agent_id, reason, elsewhere=row.agent_id not in live))
        if row.agent_id in live:
            context = _as_git_says(context, live[row.agent_id], row.worktree_path, moment)
        elif wanted:
            context = _narrowed(context, wanted)
        touched = context.uncommitted_files or context.changed_files
        if (touched or not wanted) and params.branch in ("", context.branch):
            contexts.append(context)
    unseen = await _unseen(ctx, wanted, rows, contexts) if not any(not each.elsewhere for each in unknown) else ()
    return ListContextResult(contexts=tuple(contexts), unknown=tuple(unknown), unseen=unseen, warnings=warnings)


def _why_unknown(live: GitState | None) -> str:
    """Why it is open whether an agent changes more than what is known of it; empty when it is not."""
    if live is not None:
        return live.problem
    # It told of its files when it last committed, and of a few (events.md §4): that is no live look at its worktree.
    return "it is in another clone: what it has not committed is not seen here"


async def _unseen(
    ctx: Context, wanted: Sequence[str], rows: Sequence[AgentRow], contexts: Sequence[WorkContext]
) -> tuple[str, ...]:
    """The files without editors that git knows nowhere: that no editor was found says nothing about them."""
    touched = {path for each in contexts for path in (*each.uncommitted_files, *each.changed_files)}
    idle = [file for file in wanted if not any(path_matches(path, file) for path in touched)]
    if not idle:
        return ()
    own = (row.worktree_path for row in rows if row.is_own and row.worktree_path)
    return await ctx.work.unseen(dict.fromkeys((str(ctx.here.layout.main_root), *own)), idle)


def checked_file(file: str) -> str:
    """A path in the repository, as git writes it, a directory with its trailing `/`. Raises InvalidParams."""
    path = posixpath.normpath(file)
    if path.startswith(("/", "../")) or path in (".", "..") or "\0" in path:
        raise InvalidParams(
            f"{file} is not a path in the repository", remedy="give its path from the repository's root", field="file"
        )
    return path + "/" if file.endswith("/") else path


def _as_git_says(context: WorkContext, git: GitState, root: str, moment: str) -> WorkContext:
    return msgspec.structs.replace(
        context,
        branch=git.branch,
        worktree_path=root,
        unmerged_commits=git.unmerged_commits,
        uncommitted_files=git.uncommitted_files,
        changed_files=git.changed_files,
        file_changes=git.file_changes,
        git_updated_at="" if git.problem else moment,
    )


def _narrowed(context: WorkContext, wanted: Sequence[str]) -> WorkContext:
    def is_wanted(path: str) -> bool:
        return any(path_matches(path, file) for file in wanted)

    def matching(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(path for path in paths if is_wanted(path))

    return msgspec.structs.replace(
        context,
        uncommitted_files=matching(context.uncommitted_files),
        changed_files=matching(context.changed_files),
        file_changes=tuple(change for change in context.file_changes if is_wanted(change.path)),
    )
