"""How agents end, and their status: delete, cleanup, set-status. Source: identity.md §8.5, cli.md 3.11, rpc.md §5."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from thrum.identity.files import Identity, identity_path, read_identity, remove_identity
from thrum.model import clock, ids, limits, notes
from thrum.model.errors import (
    AgentAlive,
    AgentNotFound,
    IdentityInvalid,
    InvalidParams,
    StoreFailed,
    ThrumError,
    not_yours,
)
from thrum.model.events import AgentCleaned, AgentHidden, AgentStatusSet, AnyFact
from thrum.model.files import atomic_write, ensure_private_dir, is_file, read_bytes
from thrum.model.methods.agents import (
    AgentDeleteParams,
    AgentDeleteResult,
    CleanupParams,
    CleanupResult,
    SetStatusParams,
    SetStatusResult,
)
from thrum.model.wire_types import Orphan
from thrum.ops.context import Call, Context, caller_id
from thrum.ops.identity_file import check_writable, identities_of, note_in_file
from thrum.ops.liveness import owner_alive
from thrum.ops.sessions import ensure_session
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

log = logging.getLogger("thrum.ops")

_DAY_MS = 86_400_000


# -- delete


async def delete(ctx: Context, call: Call, params: AgentDeleteParams) -> AgentDeleteResult:
    """Remove an agent: its record and sessions by one fact, then identity file, notes and preamble.

    Killed in between, the same call removes what is left. With `with_messages` what it wrote is copied first, and gone
    for everybody. Another daemon's agent is only hidden here. Raises AgentNotFound, AgentAlive, NotYours, StoreFailed.
    """
    caller = caller_id(call)
    agent_id = _agent_id_from(ctx.view, params.name)
    if not ids.parse_agent_id(agent_id).is_local_agent:
        # Its id is about to be a file name.
        raise AgentNotFound(f"agent not found: {params.name}")
    row = ctx.view.agent(agent_id)
    root = row.worktree_path if row is not None else ""
    if (row is None or not row.live) and (left := await _left_behind(ctx, agent_id)):
        await _remove_files(ctx, agent_id, left)
        return AgentDeleteResult(agent_id=agent_id, deleted=True, message="only its files were left")
    archive: Path | None = None
    if params.with_messages and row is not None and row.live and row.is_own:
        _check_deletable(ctx, call, row, params.force)
        archive = await trio.to_thread.run_sync(_archive, ctx, agent_id)

    def decide(view: View, stamp: Stamp) -> Decision[AgentDeleteResult]:
        row = view.agent(agent_id)
        if row is None or not row.live:
            raise AgentNotFound(f"agent not found: {params.name}")
        _check_deletable(ctx, call, row, params.force)
        if row.is_own:
            fact = _cleaned(stamp, row, "manual", caller, messages=params.with_messages)
        else:
            fact = stamp.make(AgentHidden, agent_id=agent_id, of=row.origin_daemon)
        return Decision([fact], lambda after, seqs: _replay_delete(after, fact, seqs[0]))

    # Messages may be very many.
    result = await ctx.journal.commit(decide, key=call.key, replay=_replay_delete, heavy=params.with_messages)
    call.connection.registered.discard(agent_id)
    await _remove_files(ctx, agent_id, root)
    if archive is None:
        return result
    kept = archive.relative_to(ctx.here.layout.state_dir.parent)
    return AgentDeleteResult(agent_id=agent_id, deleted=True, message=f"its messages are kept in {kept}")


async def delete_all_of(ctx: Context, call: Call, root: str) -> tuple[str, ...]:
    """Remove the agents of this daemon that live in a root, running or not, by one batch of facts; their ids.

    For who takes the root down. Raises StoreFailed.
    """
    caller = caller_id(call)

    def decide(view: View, stamp: Stamp) -> Decision[tuple[str, ...]]:
        rows = [row for row in view.agents(kind="agent") if row.is_own and row.worktree_path == root]
        gone = tuple(sorted(row.agent_id for row in rows))
        return Decision([_cleaned(stamp, row, "manual", caller) for row in rows], lambda _view, _seqs: gone)

    gone = await ctx.journal.commit(decide)
    for agent_id in gone:
        call.connection.registered.discard(agent_id)
        await _remove_files(ctx, agent_id, root)
    return gone


def _replay_delete(view: View, fact: AnyFact, _seq: int) -> AgentDeleteResult:
    assert isinstance(fact, AgentCleaned | AgentHidden)
    if isinstance(fact, AgentCleaned):
        return AgentDeleteResult(agent_id=fact.agent_id, deleted=True)
    host = view.hosts().get(fact.of, "another clone")
    message = f"@{fact.agent_id} is hidden here; it remains an agent of {host} and can only be deleted there"
    return AgentDeleteResult(agent_id=fact.agent_id, deleted=False, message=message)


def _agent_id_from(view: View, name: str) -> str:
    """An agent's id as people may write it."""
    bare = name.removeprefix("@")
    return bare if view.is_live(bare) else ids.parse_agent_id(bare).canonical


def _check_deletable(ctx: Context, call: Call, row: AgentRow, force: bool) -> None:
    """Raise AgentAlive for another running agent, NotYours for one that another daemon registered."""
    if force or (row.agent_id == call.caller.agent_id and row.is_own):
        return
    if not row.is_own:
        raise not_yours(row.agent_id, row.hostname, row.origin_daemon)
    if owner_alive(row, ctx.processes, ctx.runtime_names()):
        raise AgentAlive(f"@{row.agent_id} is running (pid {row.agent_pid})", agent_id=row.agent_id, pid=row.agent_pid)


def _cleaned(stamp: Stamp, row: AgentRow, method: str, by: str, *, messages: bool = False) -> AgentCleaned:
    # Later than all that it is to tombstone, also what a foreign clock stamped.
    last = max(row.last_seen_at, row.place_at, row.status_at, row.exited_at)
    return stamp.make(
        AgentCleaned,
        at=stamp.later_than(last),
        agent_id=row.agent_id,
        method=method,
        by=by,
        messages=messages,
    )


def _archive(ctx: Context, agent_id: str) -> Path | None:
    """Copy what an agent wrote to `.thrum/archive/{stem}-{utc}.jsonl` (events.md §11); None if it wrote nothing."""
    layout = ctx.here.layout
    stem = ids.file_stem(agent_id)
    source = layout.branch_dir / "messages" / f"{stem}.jsonl"
    utc = clock.format_ms(ctx.clock.now_ms()).translate(str.maketrans("", "", "-:."))
    target = layout.state_dir / "archive" / f"{stem}-{utc}.jsonl"
    try:
        data = read_bytes(source, limits.author_journal_bytes_max)
        ensure_private_dir(target.parent)
        atomic_write(target, data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreFailed(f"could not write {target}: {(error.strerror or str(error)).lower()}") from error
    return target


async def _left_behind(ctx: Context, agent_id: str) -> str:
    """The root where an agent without record still has its identity file; empty if there is none."""
    roots = await trio.to_thread.run_sync(notes.roots, ctx.here.layout)
    return next((str(root) for root in roots if _has_file(str(root), agent_id)), "")


async def _remove_files(ctx: Context, agent_id: str, root: str) -> None:
    """Identity file, notes and preamble. The agent is gone already: what cannot be removed is said in the log."""

    def remove() -> None:
        remove_identity(identities_of(root), agent_id)
        notes.clear_notes(Path(root), agent_id)
        notes.remove_preamble(Path(root), agent_id)

    if not root or agent_id in ctx.registering:
        return  # or it is back by now, and these are its new ones
    try:
        await trio.to_thread.run_sync(remove)
    except (OSError, ThrumError) as error:
        log.warning("the files of %s were not removed: %s", agent_id, error)


def _has_file(root: str, agent_id: str) -> bool:
    return is_file(identity_path(identities_of(root), agent_id))


# -- cleanup


async def cleanup(ctx: Context, call: Call, params: CleanupParams) -> CleanupResult:
    """Find this machine's orphaned agents, and remove them with `force`.

    Raises InvalidParams for `dry_run` with `force`, and for a negative `threshold` (whole days).
    """
    caller = caller_id(call)
    if params.dry_run and params.force:
        raise InvalidParams("dry_run and force exclude each other", field="force")
    if params.threshold < 0:
        raise InvalidParams("threshold must be 0 or more", remedy="give a number of days", field="threshold")
    rows = [row for row in ctx.view.agents(kind="agent") if _may_be_orphan(ctx, row, caller)]
    branches = {row.agent_id: _branch_told(ctx.view, row) for row in rows}
    traces = await trio.to_thread.run_sync(_look, ctx, rows, branches)
    now_ms = ctx.clock.now_ms()
    found = [_orphan(ctx.view, row, traces[row.agent_id], now_ms) for row in rows]
    orphans = tuple(each for each in found if each is not None and _is_orphan(each, params.threshold))
    if not params.force or not orphans:
        return CleanupResult(orphans=orphans, deleted=(), dry_run=params.dry_run)
    as_seen = {row.agent_id: row for row in rows}

    def decide(view: View, stamp: Stamp) -> Decision[list[AgentRow]]:
        gone: list[AgentRow] = []
        for orphan in orphans:
            row = as_seen[orphan.agent_id]
            # Who registered again or was seen since it was looked at is none.
            if view.agent(orphan.agent_id) == row and _may_be_orphan(ctx, row, caller):
                gone.append(row)
        facts = [_cleaned(stamp, row, "automated", caller) for row in gone]
        return Decision(facts, lambda _view, _seqs: gone)

    gone = await ctx.journal.commit(decide, key=call.key)
    for row in gone:
        await _remove_files(ctx, row.agent_id, row.worktree_path)
    return CleanupResult(orphans=orphans, deleted=tuple(row.agent_id for row in gone), dry_run=False)


def _may_be_orphan(ctx: Context, row: AgentRow, caller: str) -> bool:
    return row.is_own and row.agent_id != caller and not owner_alive(row, ctx.processes, ctx.runtime_names())


def _branch_told(view: View, row: AgentRow) -> str:
    """The branch that the agent itself named last."""
    session = next(iter(view.sessions(row.agent_id)), None)
    context = view.work(session.session_id) if session else None
    return context.branch if context else ""


@dataclass(frozen=True, slots=True)
class _Traces:
    """What is left of an agent in the file system."""

    branch: str
    reserved: bool
    identity_missing: bool
    worktree_missing: bool
    branch_missing: bool


def _look(ctx: Context, rows: Sequence[AgentRow], branches: dict[str, str]) -> dict[str, _Traces]:
    """Blocking. For an agent whose place is unknown nothing counts as missing: only its silence counts."""
    return {row.agent_id: _traces(ctx, row, branches[row.agent_id]) for row in rows}


def _traces(ctx: Context, row: AgentRow, told: str) -> _Traces:
    root = row.worktree_path
    if not root:
        return _Traces(told, reserved=False, identity_missing=False, worktree_missing=False, branch_missing=False)
    identity = _identity_in(root, row.agent_id)
    branch = (identity.branch if identity else "") or told
    return _Traces(
        branch,
        reserved=identity is not None and identity.reserved,
        identity_missing=not _has_file(root, row.agent_id) and row.agent_id not in ctx.registering,
        worktree_missing=not os.path.isdir(root),
        # A branch that has no commit yet is still there for the agent on it.
        branch_missing=bool(branch) and not ctx.branch_exists(branch) and ctx.branch_of(root) != branch,
    )


def _identity_in(root: str, agent_id: str) -> Identity | None:
    path = identity_path(identities_of(root), agent_id)
    try:
        return read_identity(path) if is_file(path) else None
    except IdentityInvalid:
        return None


def _orphan(view: View, row: AgentRow, traces: _Traces, now_ms: int) -> Orphan | None:
    if traces.reserved:
        return None
    return Orphan(
        agent_id=row.agent_id,
        role=row.role,
        module=row.module,
        worktree=row.worktree_path,
        branch=traces.branch,
        last_seen_at=row.last_seen_at,
        identity_missing=traces.identity_missing,
        worktree_missing=traces.worktree_missing,
        branch_missing=traces.branch_missing,
        days_since_last_seen=max(0, now_ms - clock.parse_ms(row.last_seen_at)) // _DAY_MS,
        message_count=view.outbox(row.agent_id, page_size=1)[1],
    )


def _is_orphan(each: Orphan, threshold_days: int) -> bool:
    missing = each.identity_missing or each.worktree_missing or each.branch_missing
    return missing or each.days_since_last_seen > threshold_days


# -- status


async def set_status(ctx: Context, call: Call, params: SetStatusParams) -> SetStatusResult:
    """How an agent is doing, by itself or by another. Raises AgentNotFound; DaemonWriterLiveness for a dead one."""
    caller = caller_id(call)
    agent_id = _agent_id_from(ctx.view, params.agent) if params.agent else caller
    line = check_writable(ctx, agent_id, caller, method="agent.set-status")

    def decide(view: View, stamp: Stamp) -> Decision[SetStatusResult]:
        row = view.agent(agent_id)
        if row is None or not row.live:
            raise AgentNotFound(f"agent not found: {params.agent or agent_id}")
        _, prelude = ensure_session(view, stamp, caller)
        moment = stamp.later_than(row.status_at)
        fact = stamp.make(AgentStatusSet, at=moment, agent_id=agent_id, status=params.status, by=caller)
        result = SetStatusResult(
            agent_id=agent_id,
            agent_status=params.status,
            agent_status_updated_at=moment,
            warnings=(line,) if line else (),
        )
        return Decision([*prelude, fact], lambda _view, _seqs: result, main=len(prelude))

    result = await ctx.journal.commit(decide, key=call.key)
    await note_in_file(
        ctx,
        agent_id,
        agent_status=result.agent_status,
        agent_status_updated_at=result.agent_status_updated_at,
    )
    return result
