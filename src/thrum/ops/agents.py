"""Registration, and who am I. Source: identity.md §8 and §10, rpc.md §5 "Agents"."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from thrum.identity.evidence import AgentPlace, Failed, PeerEvidence, Registry
from thrum.identity.files import Identity, identity_path, read_identity, retire_identity, update_identity
from thrum.identity.processes import Process
from thrum.identity.registration import Existing, Verdict, judge_registration
from thrum.identity.runtimes import runtime_of_process
from thrum.model import ids, limits
from thrum.model.errors import (
    IdentityInvalid,
    IdentityMismatch,
    InvalidParams,
    NotAWorktree,
    StateTracked,
    StoreFailed,
    ThrumError,
)
from thrum.model.events import AgentCleaned, AgentPlaced, AgentRegistered, AgentStatusSet, AnyFact
from thrum.model.files import is_directory, is_file, status
from thrum.model.guards import Refusal, refusal_error
from thrum.model.methods.agents import RegisterConflict, RegisterParams, RegisterResult, WhoamiResult
from thrum.model.methods.method import Empty
from thrum.model.paths import check_counts, is_tracked, link_state
from thrum.ops.context import Call, Context, caller_id, evidence_of
from thrum.ops.drafts import check_text
from thrum.ops.identity_file import identities_of
from thrum.ops.liveness import owner_alive, seconds
from thrum.ops.names import check_names
from thrum.ops.pid_binding import record_pid
from thrum.ops.quickstart import Arrival, check_prime, check_quickstart, give_up, retire_stale
from thrum.ops.runtime_place import carried_over
from thrum.ops.sessions import end_open_sessions
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

log = logging.getLogger("thrum.ops")


async def whoami(ctx: Context, call: Call, _params: Empty) -> WhoamiResult:
    """The caller's record, place and session. `source` and `selected_by` are the command line's to refine."""
    agent_id = caller_id(call)
    row = ctx.view.agent(agent_id)
    session = ctx.view.open_session(agent_id)
    context = ctx.view.work(session.session_id) if session else None
    root = row.worktree_path if row else ""
    return WhoamiResult(
        agent_id=agent_id,
        role=row.role if row else "",
        module=row.module if row else "",
        display=row.display if row else "",
        source="identity_file",
        session_id=session.session_id if session else "",
        session_start=session.started_at if session else "",
        branch=ctx.branch_of(root) if root else "",
        worktree=root,
        intent=context.intent if context else "",
        repo_id=ctx.here.repo_id,
        status=row.status if row else "",
        host=row.hostname if row else "",
        pid=row.agent_pid if row else 0,
        tmux_session=row.tmux_session if row else "",
        is_local=bool(row and row.is_own),
        namesakes=ctx.view.namesakes_of(agent_id),
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one call wants registered, checked for spelling, with what the kernel says of the caller."""

    agent_id: str
    name: str
    role: str
    module: str
    display: str
    root: str
    runtime: str
    """What runs, as the kernel tells; empty without a runtime."""
    preferred_runtime: str
    hostname: str
    process: Process | None
    """The one to record: its binding pid, if it has one and it is wanted."""
    evidence: PeerEvidence
    re_register: bool
    force: bool
    command: str
    """What the registration is part of: `register`, `quickstart` or `prime`."""
    arrival: Arrival


async def register(ctx: Context, call: Call, params: RegisterParams) -> RegisterResult:
    """Bind an agent to the caller's root: fact, place and identity file.

    Decision and record are one step of the committer: of two registrations at once the second is judged against the
    first. Conflicts are an answer, not an error. Raises the name rules, NotAWorktree, IdentityMismatch,
    IdentityInvalid.
    """
    wanted = _wanted(ctx, call, params)
    _check_files(wanted)
    recorded = False

    def decide(view: View, stamp: Stamp) -> Decision[_Outcome]:
        nonlocal recorded
        decision = _decide(ctx, wanted, view, stamp)
        if decision.facts:
            # From here on no one else gets the name, though its file is not there yet.
            recorded = True
            ctx.registering.add(wanted.agent_id)
        return decision

    try:
        outcome = await ctx.journal.commit(decide, key=call.key)
        if outcome.result.status != "conflict":
            call.connection.registered.add(wanted.agent_id)
            await _follow_in_files(ctx, wanted, outcome.retired)
        if outcome.result.status == "conflict" or wanted.command != "quickstart":
            return outcome.result
        lines = await retire_stale(ctx, wanted.evidence, wanted.agent_id, wanted.root)
        return msgspec.structs.replace(outcome.result, warnings=(*outcome.result.warnings, *lines))
    finally:
        if recorded:
            ctx.registering.discard(wanted.agent_id)


async def _follow_in_files(ctx: Context, wanted: _Wanted, retired: Sequence[Path]) -> None:
    """Bring the identity files to what was recorded. Raises StoreFailed: registering again then fixes it."""
    try:
        for path in retired:
            await trio.to_thread.run_sync(retire_identity, path)
        row = ctx.view.agent(wanted.agent_id)
        if row is not None and row.worktree_path == wanted.root:  # else it was displaced again meanwhile
            session = ctx.view.open_session(wanted.agent_id)
            session_id = session.session_id if session else ""
            await trio.to_thread.run_sync(_write_files, ctx, wanted, row, session_id, ctx.registry())
    except OSError as error:
        raise StoreFailed(
            f"@{wanted.agent_id} is registered, but its identity file could not be written:"
            f" {error.filename or wanted.root}: {error.strerror}",
            remedy="fix that, then repeat the command",
        ) from error


class _Outcome(NamedTuple):
    """The answer, and identity files to be moved away once it is on disk."""

    result: RegisterResult
    retired: Sequence[Path] = ()


def _wanted(ctx: Context, call: Call, params: RegisterParams) -> _Wanted:
    evidence = evidence_of(call)
    ids.check_module(params.module)
    ids.check_display(params.display)
    for field, chars_max in (("hostname", limits.hostname_chars_max), ("runtime", limits.name_chars_max)):
        _check_word(field, getattr(params, field), chars_max)
    unnamed_id = ids.agent_id_of(ctx.here.repo_id, params.role, params.module)
    named = bool(params.name) and ids.parse_agent_id(params.name).canonical != unnamed_id
    agent_id = params.name if named else unnamed_id
    try:
        root = evidence.current_root(trio.current_time())
    except Failed as failed:
        raise _unproved(evidence, failed) from failed
    if root is None:
        raise NotAWorktree(
            f"you are not in a worktree of {ctx.here.layout.main_root}", remedy="cd into the repository, then repeat"
        )
    if not _is_text(root):
        raise NotAWorktree(
            f"the path of this worktree is not UTF-8: {os.fsencode(root)!r}", remedy="git worktree move it elsewhere"
        )
    if params.worktree and not _is_path(params.worktree, root):
        raise IdentityMismatch(
            f"worktree {params.worktree} is not your current worktree ({root})",
            remedy="cd there, or leave worktree out",
        )
    try:
        arrival = _arrival(ctx, evidence, params, agent_id, root)
        process = _process(evidence, params, agent_id, arrival)
    except Failed as failed:
        raise _unproved(evidence, failed) from failed
    return _Wanted(
        agent_id=agent_id,
        name=params.name if named else "",
        role=params.role,
        module=params.module,
        display=params.display,
        root=root,
        runtime=_runtime(ctx, process),
        preferred_runtime=params.runtime,
        hostname=params.hostname or ctx.here.hostname,
        process=process,
        evidence=evidence,
        re_register=params.re_register,
        force=params.force,
        command=params.command,
        arrival=arrival,
    )


def _process(evidence: PeerEvidence, params: RegisterParams, agent_id: str, arrival: Arrival) -> Process | None:
    """What is recorded as the agent's process. Raises Failed."""
    if params.becomes_runtime:
        return evidence.chain()[0]
    return evidence.binding(agent_id, arrival.registry, trio.current_time()) if params.bind_pid else None


def _arrival(ctx: Context, evidence: PeerEvidence, params: RegisterParams, agent_id: str, root: str) -> Arrival:
    match params.command:
        case "quickstart":
            return check_quickstart(ctx, evidence, agent_id, root, force=params.force)
        case "prime":
            return check_prime(ctx, evidence, agent_id)
        case _:
            return Arrival(ctx.registry())


def _check_word(field: str, text: str, chars_max: int) -> None:
    check_text(text, field, chars_max)
    if not text.isprintable():
        raise InvalidParams(f"{field} has control characters", remedy="leave them out", field=field)


def _is_text(path: str) -> bool:
    """Whether JSON can hold it: file names are bytes, facts are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_path(text: str, root: str) -> bool:
    try:
        return os.path.realpath(text) == root
    except ValueError:
        return False


def _check_files(wanted: _Wanted) -> None:
    """Refuse, while nothing is recorded, what would keep the identity file from being written."""
    own = Path(wanted.root, ".thrum")
    if os.path.lexists(own) and not own.is_dir():
        raise StoreFailed(f"could not write {own}: not a directory", remedy=f"remove {own}, then repeat the command")
    if os.path.lexists(own):
        check_counts(Path(wanted.root))
    directory = identities_of(wanted.root)
    if status(directory) is not None and not is_directory(directory):
        remedy = f"replace {directory} by a directory, then repeat the command"
        raise StoreFailed(f"could not write {directory}: it is a link", remedy=remedy)
    path = identity_path(directory, wanted.agent_id)
    if is_tracked(path):
        raise StateTracked(f"git tracks {path}: nothing is written there")
    if status(path) is not None and not is_file(path):
        raise IdentityInvalid(f".thrum/identities/{path.name} is not a valid identity: it is not a regular file")
    if status(path) is not None:
        read_identity(path)


def _unproved(evidence: PeerEvidence, failed: Failed) -> ThrumError:
    refusal = Refusal("unauthenticated_rpc", "introspection_failed", step=failed.step, cause=failed.cause)
    return refusal_error(refusal, caller_pid=evidence.pid, method="agent.register")


def _runtime(ctx: Context, process: Process | None) -> str:
    return (runtime_of_process(ctx.processes.program(process.pid), ctx.runtime_names()) or "") if process else ""


def _decide(ctx: Context, wanted: _Wanted, view: View, stamp: Stamp) -> Decision[_Outcome]:
    check_names(view, wanted.agent_id, wanted.name, wanted.role)
    record = view.agent(wanted.agent_id)
    record = record if record is not None and record.live else None
    rival = _rival(view, wanted)
    display = wanted.display or (record.display if record else "") or ids.default_display(wanted.role, wanted.module)
    existing = _existing(ctx, wanted, record, display) if record else None
    verdict = judge_registration(
        wanted.root, existing, rival is not None, re_register=wanted.re_register, force=wanted.force
    )
    if verdict.status == "conflict":
        return _conflict(ctx, verdict, rival if verdict.reason == "same_role_module" else record)
    facts = _facts(wanted, view, stamp, record, existing, verdict, display)
    left = wanted.arrival.left
    warnings = list(wanted.arrival.warnings)
    retired = list(wanted.arrival.retired)
    if left is not None:
        displaced = rival.agent_id if rival is not None and verdict.displaces_rival else ""
        facts = [*give_up(view, stamp, left, displaced), *facts]
        retired.append(identity_path(identities_of(left.root), left.agent_id))
        if left.agent_id != displaced:
            warnings.append(f"@{left.agent_id} gave way to @{wanted.agent_id}: its identity is retired")
    if record is not None and verdict.retires_file:
        retired += _file_of(record)
        warnings.append(_taken(ctx, wanted.root, record))
    if rival is not None and verdict.displaces_rival:
        facts = [*_displace(view, stamp, rival, wanted.agent_id), *facts]
        retired += _file_of(rival)
        warnings.append(f"@{rival.agent_id} was displaced: its identity is retired, its messages stay")
    elif rival is not None and verdict.warns_of_rival:
        warnings.append(f"@{rival.agent_id} is {wanted.role} of {wanted.module} too")

    def answer(after: View, _seqs: Sequence[int]) -> _Outcome:
        session = after.open_session(wanted.agent_id)
        return _Outcome(
            RegisterResult(
                agent_id=wanted.agent_id,
                status=verdict.status,
                session_id=session.session_id if session else "",
                warnings=tuple(warnings),
            ),
            retired,
        )

    main = next((i for i, fact in enumerate(facts) if isinstance(fact, AgentRegistered)), 0)
    return Decision(facts, answer, main=main)


def _file_of(row: AgentRow) -> list[Path]:
    return [identity_path(identities_of(row.worktree_path), row.agent_id)] if row.worktree_path else []


def _taken(ctx: Context, root: str, record: AgentRow) -> str:
    """From whom a name was taken by force, and whether that one still runs."""
    alive = owner_alive(record, ctx.processes, ctx.runtime_names())
    runs = (
        f"its process there, pid {record.agent_pid}, keeps running, without an identity"
        if alive
        else "its process is gone"
    )
    process = f" ({runs})" if record.agent_pid else ""
    whence = "the process that had it" if record.worktree_path == root else record.worktree_path
    return f"@{record.agent_id} was taken from {whence}{process}"


def _rival(view: View, wanted: _Wanted) -> AgentRow | None:
    rows = view.agents(role=wanted.role, module=wanted.module, kind="agent")
    return next((row for row in rows if row.agent_id != wanted.agent_id and row.is_own), None)


def _existing(ctx: Context, wanted: _Wanted, record: AgentRow, display: str) -> Existing:
    root = record.worktree_path
    place = AgentPlace(record.agent_id, root, record.agent_pid, record.agent_pid_started, seconds(record.place_at))
    path = identity_path(identities_of(root), record.agent_id) if root else None
    try:
        state = wanted.evidence.state_of(place)
    except Failed as failed:
        raise _unproved(wanted.evidence, failed) from failed
    return Existing(
        root=root,
        root_has_file=path is not None and (is_file(path) or record.agent_id in ctx.registering),
        local=record.origin_daemon in ctx.here.own or bool(root),
        state=state,
        same_fields=(record.role, record.module, record.display) == (wanted.role, wanted.module, display),
    )


def _facts(
    wanted: _Wanted,
    view: View,
    stamp: Stamp,
    record: AgentRow | None,
    existing: Existing | None,
    verdict: Verdict,
    display: str,
) -> list[AnyFact]:
    facts: list[AnyFact] = []
    quickstart = wanted.command == "quickstart"
    if verdict.ends_session:
        facts += end_open_sessions(view, stamp, wanted.agent_id, "superseded")
    elif quickstart and existing is not None and existing.state == "dead":
        # Only a session of the process that still lives is resumed.
        facts += end_open_sessions(view, stamp, wanted.agent_id, "crash_recovered")
    if verdict.writes_fact:
        watermark = view.watermark("agent", wanted.agent_id)
        facts.append(
            stamp.make(
                AgentRegistered,
                at=stamp.later_than(max(record.reg_at if record else "", watermark[0] if watermark else "")),
                agent_id=wanted.agent_id,
                kind="agent",
                name=wanted.name,
                role=wanted.role,
                module=wanted.module,
                worktree=os.path.basename(wanted.root),
                display=display,
                hostname=wanted.hostname,
            )
        )
    place = _place(wanted, record, existing)
    if record is None or place != _Place(
        record.worktree_path, record.agent_pid, record.agent_pid_started, record.runtime
    ):
        facts.append(
            stamp.make(
                AgentPlaced,
                at=stamp.later_than(max(record.place_at, record.exited_at) if record else ""),
                agent_id=wanted.agent_id,
                tmux_session=record.tmux_session if record else "",
                **place._asdict(),
                **carried_over(record, place.agent_pid, place.agent_pid_started),
            )
        )
    if quickstart and (record is None or not record.status):
        idle = stamp.make(AgentStatusSet, agent_id=wanted.agent_id, status="idle", by=wanted.agent_id)
        facts.append(idle)
    return facts


class _Place(NamedTuple):
    """Where an agent lives and what runs it, as `agent.place` has it."""

    worktree_path: str
    agent_pid: int = 0
    agent_pid_started: str = ""
    runtime: str = ""


def _place(wanted: _Wanted, record: AgentRow | None, existing: Existing | None) -> _Place:
    """The caller's binding pid. Without one the recorded process counts as long as it is among the caller's."""
    process = wanted.process
    if process is not None:
        return _Place(wanted.root, process.pid, process.started, wanted.runtime)
    if record is not None and existing is not None and (existing.state, existing.root) == ("chain", wanted.root):
        return _Place(wanted.root, record.agent_pid, record.agent_pid_started, record.runtime)
    return _Place(wanted.root)


def _displace(view: View, stamp: Stamp, rival: AgentRow, by: str) -> list[AnyFact]:
    """Taking over from another agent: its record goes, what it said stays."""
    ended = end_open_sessions(view, stamp, rival.agent_id, "superseded")
    cleaned = stamp.make(
        AgentCleaned, at=stamp.later_than(rival.last_seen_at), agent_id=rival.agent_id, method="forced", by=by
    )
    return [*ended, cleaned]


def _conflict(ctx: Context, verdict: Verdict, holder: AgentRow | None) -> Decision[_Outcome]:
    assert verdict.reason and holder is not None
    alive = owner_alive(holder, ctx.processes, ctx.runtime_names())
    elsewhere = verdict.reason == "other_daemon"
    conflict = RegisterConflict(
        existing_agent_id=holder.agent_id,
        registered_at=holder.registered_at,
        last_seen_at=holder.last_seen_at,
        conflict_pid=holder.agent_pid if alive else 0,
        reason=verdict.reason,
        worktree=holder.worktree if elsewhere else holder.worktree_path,
        is_dead=bool(holder.agent_pid) and not alive and not elsewhere,
        origin_daemon=holder.origin_daemon if elsewhere else "",
        hostname=holder.hostname if elsewhere else "",
    )
    result = RegisterResult(agent_id="", status="conflict", conflict=conflict)
    return Decision([], lambda _view, _seqs: _Outcome(result))


def _write_files(ctx: Context, wanted: _Wanted, row: AgentRow, session_id: str, registry: Registry) -> None:
    """The identity file in the agent's root, written again in every row that is no conflict; blocking.

    `row`, `session_id` and `registry` are what was just recorded: the projection is read on the loop alone.
    """
    root = Path(wanted.root)
    link_state(root, ctx.here.layout.state_dir)
    directory = identities_of(wanted.root)
    now_ms = ctx.clock.now_ms()

    detected, primed = wanted.runtime, wanted.command == "prime"

    def change(before: Identity | None) -> Identity:
        base = before or Identity(wanted.agent_id, wanted.role, wanted.module)
        return replace(
            base,
            name=wanted.agent_id,
            role=wanted.role,
            module=wanted.module,
            display=row.display,
            repo_id=ctx.here.repo_id,
            worktree=root.name,
            branch=ctx.branch_of(wanted.root),
            session_id=session_id,
            preferred_runtime=(detected if primed else wanted.preferred_runtime) or base.preferred_runtime,
            runtime=detected or wanted.preferred_runtime or base.runtime,
            agent_status=row.status or base.agent_status,
            agent_status_updated_at=row.status_at or base.agent_status_updated_at,
        )

    update_identity(directory, wanted.agent_id, change, now_ms=now_ms)
    record_pid(ctx, identity_path(directory, wanted.agent_id), row, registry, now_ms)
