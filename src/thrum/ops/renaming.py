"""Renaming an agent, with its messages: `agent.rename`. Source: wake.md §6, docs/decisions/0050.

One batch of facts: the alias from the old id to the new one; the new id is registered, has the old one's place, groups
and inbox; the old one is cleaned up. Then the files follow. What a kill left undone is completed at the next start, or
by repeating the call: the first fact of the batch says what was begun.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from thrum.identity.files import identity_path, rename_identity
from thrum.model import notes
from thrum.model.errors import AgentNotRegistered, IdentityInvalid, NameTaken, StoreFailed, ThrumError, in_shell
from thrum.model.events import (
    AgentAliased,
    AgentCleaned,
    AgentPlaced,
    AgentRegistered,
    AgentStatusSet,
    AgentUpdated,
    AnyFact,
    GroupMemberAdded,
    SessionStarted,
    Work,
)
from thrum.model.files import is_file, status
from thrum.model.methods.agents import AgentRenameParams, AgentRenameResult
from thrum.ops.context import Call, Context, caller_id
from thrum.ops.identity_file import identities_of, note_in_file
from thrum.ops.names import check_names
from thrum.ops.runtime_place import carried_over
from thrum.ops.waiting import WaitQueues
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

log = logging.getLogger("thrum.ops")

READ_MAX: Final = 1_000
"""How many of the messages that were read go along: the newest. All unread ones do."""
_IDS_A_FACT: Final = 1_000
_HEAVY: Final = 500
"""From so many messages on a rename is decided beside the loop."""


async def rename(ctx: Context, wait_queues: WaitQueues, call: Call, params: AgentRenameParams) -> AgentRenameResult:
    """Rename the caller to `params.name`. Its present name is not an error: a repeated call finishes the files.

    Raises the name rules, NameTaken for a name that is registered anywhere or has a file here, StoreFailed.
    """
    old, new = caller_id(call), params.name.removeprefix("@")
    if old == new:
        await finish(ctx)
        return AgentRenameResult(agent_id=new, of=new, unread=ctx.view.inbox_count(new)[1])
    row = ctx.view.agent(old)
    root = row.worktree_path if row is not None else ""
    if root:
        await trio.to_thread.run_sync(_check_files, root, new)

    def decide(view: View, stamp: Stamp) -> Decision[AgentRenameResult]:
        row = view.agent(old)
        if row is None or not row.live or not row.is_own:
            raise AgentNotRegistered(f"@{old} is not registered here")
        check_name(view, row, new)
        facts = facts_of(view, stamp, row, new)
        ctx.registering.add(new)  # from here on no one else gets the name, though its file is not there yet
        main = next(index for index, fact in enumerate(facts) if isinstance(fact, AgentRegistered))
        return Decision(
            facts, lambda after, _seqs: AgentRenameResult(agent_id=new, of=old, unread=after.inbox_count(new)[1]), main
        )

    heavy = ctx.view.inbox_count(old)[0] > _HEAVY
    try:
        result = await ctx.journal.commit(decide, key=call.key, heavy=heavy)
        call.connection.registered.add(new)
        wait_queues.dismiss(old, f"you are @{new} now: @{old} was renamed")
        await finish(ctx)
    finally:
        ctx.registering.discard(new)
    return result


def check_name(view: View, row: AgentRow, new: str) -> None:
    """Refuse a name that another agent has, or that breaks a rule. Raises NameTaken, the name rules."""
    if view.is_live(new):
        holder = view.agent(new)
        where = "" if holder is None or holder.is_own else f" ({holder.hostname or 'another machine'})"
        raise NameTaken(f"@{new} is another agent's name{where}", remedy="choose another: thrum agent rename NEW")
    check_names(view, new, new, row.role, without={row.agent_id})


def _check_files(root: str, new: str) -> None:
    """Refuse, while nothing is recorded, what would keep the identity file from being written."""
    path = identity_path(identities_of(root), new)
    if status(path) is not None:
        raise NameTaken(
            f".thrum/identities/{path.name} already exists",
            remedy=f"choose another name, or move it away: mv {in_shell(path)} {in_shell(f'{path}.deleted')}",
        )


# -- what is written


def facts_of(view: View, stamp: Stamp, row: AgentRow, new: str) -> list[AnyFact]:
    """Everything that makes `new` of the agent, in the order in which it applies."""
    watermark = view.watermark("agent", new)
    registered = stamp.make(
        AgentRegistered,
        at=stamp.later_than(watermark[0] if watermark else ""),
        agent_id=new,
        kind=row.kind,
        name=new,
        role=row.role,
        module=row.module,
        worktree=row.worktree,
        display=row.display,
        hostname=row.hostname,
    )
    placed = stamp.make(
        AgentPlaced,
        at=registered.timestamp,
        agent_id=new,
        worktree_path=row.worktree_path,
        agent_pid=row.agent_pid,
        agent_pid_started=row.agent_pid_started,
        runtime=row.runtime,
        tmux_session=row.tmux_session,
        **carried_over(row, row.agent_pid, row.agent_pid_started),
    )
    begun = stamp.make(AgentAliased, at=registered.timestamp, agent_id=new, of=row.agent_id)
    facts: list[AnyFact] = [begun, registered, placed]
    if row.status:
        by = row.status_by if row.status_asks else new  # a dialog goes on under the new name
        facts.append(
            stamp.make(
                AgentStatusSet,
                at=registered.timestamp,
                agent_id=new,
                status=row.status,
                by=by,
                asks=row.status_asks,
            ),
        )
    facts += _session(view, stamp, row.agent_id, new)
    for group in view.groups_of(row.agent_id):
        facts.append(
            stamp.make(GroupMemberAdded, group_id=group, member_type="agent", member_value=new, added_by=new),
        )
    facts += _mail(view, stamp, registered, row.agent_id)
    last = max(row.last_seen_at, row.place_at, row.status_at, row.exited_at)
    gone = stamp.make(
        AgentCleaned,
        at=stamp.later_than(last),
        agent_id=row.agent_id,
        reason=f"renamed to {new}",
        method="manual",
        by=new,
    )
    return [*facts, gone]


def _session(view: View, stamp: Stamp, old: str, new: str) -> Iterator[AnyFact]:
    """An open session continues: sessions belong to an agent, so it is a new one with the same content."""
    session = view.open_session(old)
    if session is None or view.open_session(new) is not None:
        return
    session_id = stamp.new_id("ses_")
    scopes, refs = view.session_items(session.session_id)
    yield stamp.make(SessionStarted, session_id=session_id, agent_id=new, scopes=scopes, refs=refs)
    work = view.work(session.session_id)
    if work is not None and (work.intent or work.current_task):
        told = Work(
            session_id=session_id,
            intent=work.intent,
            intent_updated_at=stamp.text if work.intent else "",
            current_task=work.current_task,
            task_updated_at=stamp.text if work.current_task else "",
        )
        yield stamp.make(AgentUpdated, agent_id=new, work_contexts=(told,))


def _mail(view: View, stamp: Stamp, registered: AgentRegistered, old: str) -> Iterator[AgentAliased]:
    mail = view.mail(old, read_max=READ_MAX)
    every = [(state, message_id) for state, found in mail._asdict().items() for message_id in found]
    for start in range(0, len(every), _IDS_A_FACT):
        some = every[start : start + _IDS_A_FACT]
        lists = {state: tuple(id for of, id in some if of == state) for state in mail._fields}
        yield stamp.make(AgentAliased, at=registered.timestamp, agent_id=registered.agent_id, of=old, **lists)


# -- what a kill left undone


async def resume(ctx: Context) -> None:
    """Make whole what a kill left in the middle of a batch, then the files. At the start. Raises StoreFailed."""
    for old, new in ctx.view.renames_begun().items():

        def decide(view: View, stamp: Stamp, old: str = old, new: str = new) -> Decision[None]:
            row = view.agent(old)
            holder = view.agent(new)
            if (
                row is None
                or not (row.live and row.is_own)
                or (holder is not None and holder.live and not holder.is_own)
            ):
                return Decision([], lambda _view, _seqs: None)
            return Decision(facts_of(view, stamp, row, new), lambda _view, _seqs: None)

        await ctx.journal.commit(decide, heavy=ctx.view.inbox_count(old)[0] > _HEAVY)
    await finish(ctx)


# -- the files follow


async def finish(ctx: Context) -> None:
    """Give the files of agents that were renamed here their new names, where that was not done. Raises StoreFailed."""
    for old, new in ctx.view.renamed_here().items():
        row = ctx.view.agent(new)
        if row is None or not row.worktree_path or _is_finished(row.worktree_path, old, new):
            continue
        session = ctx.view.open_session(new)
        try:
            await trio.to_thread.run_sync(_move_files, row.worktree_path, old, row, ctx.clock.now_ms())
        except OSError as error:
            raise StoreFailed(
                f"@{old} is @{new} now, but its identity file could not be written:"
                f" {error.filename or row.worktree_path}: {error.strerror}",
                remedy=f"fix that, then: THRUM_NAME={new} thrum agent rename {new}",
            ) from error
        await note_in_file(ctx, new, session_id=session.session_id if session else "")


def _is_finished(root: str, old: str, new: str) -> bool:
    directory = identities_of(root)
    return is_file(identity_path(directory, new)) and not is_file(identity_path(directory, old))


def _move_files(root: str, old: str, row: AgentRow, now_ms: int) -> None:
    """Notes and preamble first: with the identity file it is done. Blocking."""
    new = row.agent_id
    try:
        notes.rename_notes(Path(root), old, new, row.role, row.module)
    except ThrumError as error:
        log.warning("the notes of %s are not called after %s: %s", old, new, error)
    if os.path.isdir(root):
        try:
            rename_identity(identities_of(root), old, new, now_ms=now_ms)
        except IdentityInvalid as error:
            log.warning("the identity file of %s is not called after %s: %s", old, new, error)
