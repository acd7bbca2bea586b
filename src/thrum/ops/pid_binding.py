"""Adoption: an agent's first act in a new session records which process it is now (identity.md §7).

The record (`agent.place`) decides, in the committer: of twenty sessions that adopt at once, one wins and the others are
refused. The identity file follows.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from thrum.identity.cross_worktree import may_not_adopt
from thrum.identity.evidence import AgentPlace, Failed, Registry
from thrum.identity.files import Pid, identity_path, read_identity, write_pid
from thrum.identity.guard_modes import fire, record_fire
from thrum.identity.processes import OwnerState, Process
from thrum.identity.runtimes import runtime_of_process
from thrum.model.errors import ThrumError
from thrum.model.events import AgentPlaced
from thrum.model.guards import Mode, Refusal, refusal_fields
from thrum.ops.context import Call, Context, evidence_of
from thrum.ops.identity_file import identities_of
from thrum.ops.liveness import owner_alive
from thrum.ops.runtime_place import carried_over
from thrum.ops.sessions import end_open_sessions
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

log = logging.getLogger("thrum.ops")

_BY_PLACE: Final = frozenset({"C11", "C14"})
"""Callers that no process proves: agents without a process, or with a dead one, are found by the caller's directory."""


async def adopt(ctx: Context, call: Call, method: str) -> None:
    """Before an act: record the caller's binding pid for an agent that has no live process.

    Nothing happens for a caller that its processes prove, and for a shell. Raises CrossWorktree when another session
    was faster, or when `dead_pid_auto_reclaim` is off; StoreFailed, Busy, ShuttingDown.
    """
    caller = call.caller
    if caller.rule not in _BY_PLACE or caller.agent_id is None:
        return
    evidence = evidence_of(call)
    registry = ctx.registry()
    place = registry.by_id.get(caller.agent_id)
    if place is None:
        return
    try:
        state = evidence.state_of(place)
        if state not in ("none", "dead"):
            return
        now = trio.current_time()
        if not evidence.has_runtime(now):
            return
        process = evidence.binding(place.agent_id, registry, now)
    except Failed as failed:
        # What proves nothing adopts nothing; the call itself was allowed.
        log.warning("not adopted: %s", failed, extra={"fields": {"step": failed.step, "caller_pid": evidence.pid}})
        return
    modes = ctx.modes()
    reclaim = modes["dead_pid_auto_reclaim"]
    refusal = may_not_adopt(place.agent_id, state, place.agent_pid, reclaim)
    if refusal is not None:
        fire(refusal, modes, caller_pid=evidence.pid, method=method)
        return
    if process is not None and await _record(ctx, place, process, evidence.pid, method) and state == "dead":
        report_reclaim(place, evidence.pid, reclaim, method)


async def _record(ctx: Context, place: AgentPlace, process: Process, caller_pid: int, method: str) -> bool:
    """Write the process into the record and the file; False if it was there already. Raises CrossWorktree."""
    runtime = _runtime(ctx, process)

    def decide(view: View, stamp: Stamp) -> Decision[bool]:
        row = view.agent(place.agent_id)
        if row is None or not row.live or row.worktree_path != place.root:
            return Decision([], lambda _view, _seqs: False)
        if (row.agent_pid, row.agent_pid_started) == (process.pid, process.started):
            return Decision([], lambda _view, _seqs: False)
        # Another session may have been quicker since the evidence was gathered.
        state: OwnerState = "elsewhere" if owner_alive(row, ctx.processes, ctx.runtime_names()) else "dead"
        refusal = may_not_adopt(row.agent_id, state, row.agent_pid)
        if refusal is not None:
            fire(replace(refusal, runtime=row.runtime), ctx.modes(), caller_pid=caller_pid, method=method)
            return Decision([], lambda _view, _seqs: False)
        if _other_owner(view, process, row.agent_id):
            return Decision([], lambda _view, _seqs: False)
        ended = end_open_sessions(view, stamp, row.agent_id, "crash_recovered") if row.agent_pid else []
        fact = stamp.make(
            AgentPlaced,
            # Its last process may have been seen to end after it was placed.
            at=stamp.later_than(max(row.place_at, row.exited_at)),
            agent_id=row.agent_id,
            worktree_path=row.worktree_path,
            agent_pid=process.pid,
            agent_pid_started=process.started,
            runtime=runtime,
            tmux_session=row.tmux_session,
            **carried_over(row, process.pid, process.started),
        )
        return Decision([*ended, fact], lambda _view, _seqs: True, main=len(ended))

    recorded = await ctx.journal.commit(decide)
    if recorded:
        await follow_in_file(ctx, place.agent_id)
    return recorded


def _other_owner(view: View, process: Process, wanted: str) -> bool:
    """Whether another agent is that process: one that owns an identity is never recorded in a second."""
    pair = (process.pid, process.started)
    return any(
        (each.agent_pid, each.agent_pid_started) == pair and each.agent_id != wanted for each in view.agent_places()
    )


async def follow_in_file(ctx: Context, agent_id: str) -> None:
    """Bring the pid in an agent's identity file to what its record says."""
    row = ctx.view.agent(agent_id)
    if row is None or not row.worktree_path:
        return
    path = identity_path(identities_of(row.worktree_path), agent_id)
    try:
        await trio.to_thread.run_sync(record_pid, ctx, path, row, ctx.registry(), ctx.clock.now_ms())
    except (OSError, ThrumError) as error:
        log.warning("the pid of %s is not in its identity file: %s", agent_id, error)


def record_pid(ctx: Context, path: Path, row: AgentRow, registry: Registry, now_ms: int) -> None:
    """The same process in the file as in the record, or none in both (identity.md §7); blocking.

    Raises IdentityNotFound, IdentityInvalid, OSError.
    """
    recorded = Pid(row.agent_pid, row.agent_pid_started)
    owner = read_identity(path).owner
    if owner == recorded:
        return
    process = ctx.processes.read(recorded.pid) if recorded.pid else None
    if recorded.pid and (process is None or process.started != recorded.started):
        return  # it ended meanwhile
    try:
        write_pid(
            path,
            owner,
            process,
            # The record has it, so it is the agent's, though it may still be `thrum run` that is to turn into it.
            runtime_of=lambda process: _runtime(ctx, process) or row.runtime or "program",
            owner_of=lambda process: _owner_of(registry, process, row.agent_id),
            now_ms=now_ms,
        )
    except (ThrumError, ValueError) as error:
        # Such as a file left by an agent without record that names this process: the record counts.
        log.warning("the pid of %s is not in its identity file: %s", row.agent_id, error)


def _runtime(ctx: Context, process: Process) -> str:
    return runtime_of_process(ctx.processes.program(process.pid), ctx.runtime_names()) or ""


def _owner_of(registry: Registry, process: Process, wanted: str) -> str | None:
    owners = [
        place.agent_id for place in registry.by_pid.get(process.pid, ()) if place.agent_pid_started == process.started
    ]
    return wanted if wanted in owners else owners[0] if owners else None


def report_reclaim(place: AgentPlace, caller_pid: int, mode: Mode, method: str) -> None:
    """Log that a dead process's identity was taken over; in mode `strict` quietly."""
    refusal = Refusal("dead_pid_auto_reclaim", "dead_owner_reclaimed", "", place.agent_id, "", place.agent_pid)
    fields = refusal_fields(refusal, caller_pid=caller_pid, mode=mode, method=method)
    level = logging.INFO if mode == "strict" else logging.WARNING
    record_fire("auto_reclaimed", fields, level=level)
