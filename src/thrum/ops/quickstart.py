"""What quickstart and prime ask beyond a registration: their guards, and one identity a worktree.

Source: identity.md §8.3, §8.4, §12.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from thrum.identity.cross_worktree import may_not_adopt
from thrum.identity.evidence import AgentPlace, Failed, PeerEvidence, Registry
from thrum.identity.files import Identity, Listed, identity_path, list_identities, read_identity, retire_identity
from thrum.identity.guard_modes import fire
from thrum.model.errors import AgentNotRegistered, IdentityInvalid, IdentityNotFound
from thrum.model.events import AgentPlaced, AnyFact
from thrum.model.files import is_file
from thrum.model.guards import Refusal
from thrum.ops.context import Context
from thrum.ops.identity_file import identities_of
from thrum.ops.pid_binding import report_reclaim
from thrum.ops.sessions import end_open_sessions
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

log = logging.getLogger("thrum.ops")

_METHOD = "agent.register"


@dataclass(frozen=True, slots=True)
class Arrival:
    """The guards' result for a call that may continue."""

    registry: Registry
    """What binding a process looks at: without the identity that is given up."""
    left: AgentPlace | None = None
    """The identity that the caller's session gives up for the wanted one: its file is retired."""
    retired: tuple[Path, ...] = ()
    """An identity file of the wanted name that another process holds, and that has no record."""
    warnings: tuple[str, ...] = ()


# -- quickstart


def check_quickstart(ctx: Context, evidence: PeerEvidence, agent_id: str, root: str, *, force: bool) -> Arrival:
    """The guards `quickstart_self_rename` and `quickstart_name_collision`. `force` passes both.

    Raises QuickstartSelfRename, QuickstartNameCollision, Failed.
    """
    registry = ctx.registry()
    owned = _session_identity(evidence, registry, agent_id, root)
    held = _held_elsewhere(evidence, registry, agent_id, root)
    if force:
        left = owned.agent_id if owned is not None else ""
        others = Registry(each for each in registry.agents if each.agent_id != left) if left else registry
        place = registry.by_id.get(agent_id)
        # One that is recorded here is retired as the registration's own row says.
        alone = held is not None and (place is None or place.root != root)
        retired = (identity_path(identities_of(root), agent_id),) if alone else ()
        return Arrival(others, owned, retired)
    refusals: list[Refusal] = []
    if owned is not None:
        refusals.append(
            Refusal(
                "quickstart_self_rename",
                "caller_already_owns_identity",
                expected=agent_id,
                detected=owned.agent_id,
                expected_pid=owned.agent_pid,
            )
        )
    if held is not None:
        refusals.append(
            Refusal(
                "quickstart_name_collision",
                "name_held_by_live_foreign_pid",
                expected=agent_id,
                expected_pid=held.agent_pid,
                runtime=_runtime_of(ctx, agent_id),
            )
        )
    modes, cwd = ctx.modes(), evidence.cwd()
    lines = [fire(each, modes, caller_pid=evidence.pid, caller_cwd=cwd, method=_METHOD) for each in refusals]
    return Arrival(registry, warnings=tuple(line for line in lines if line))


def _runtime_of(ctx: Context, agent_id: str) -> str:
    row = ctx.view.agent(agent_id)
    return row.runtime if row is not None else ""


def _session_identity(evidence: PeerEvidence, registry: Registry, agent_id: str, root: str) -> AgentPlace | None:
    """The other agent of this root that the caller's session is. A runtime inside another one is a session itself.

    Of a rename that was killed halfway the file is left: it counts as long as it names the process.
    """
    listed = list_identities(identities_of(root))
    in_files = [_in_file(each.identity, root) for each in listed if each.identity is not None]
    for place in (*registry.by_root.get(root, ()), *in_files):
        if place.agent_id != agent_id and evidence.state_of(place) == "chain":
            process = evidence.binding(place.agent_id, registry, trio.current_time())
            if process is None or process.pid == place.agent_pid:
                return place
    return None


def _held_elsewhere(evidence: PeerEvidence, registry: Registry, agent_id: str, root: str) -> AgentPlace | None:
    """Who holds the wanted name in this root, alive and not among the caller's processes."""
    layout = [registry.by_id[agent_id]] if agent_id in registry.by_id else []
    path = identity_path(identities_of(root), agent_id)
    try:
        layout += [_in_file(read_identity(path), root)] if is_file(path) else []
    except (IdentityInvalid, IdentityNotFound):
        pass  # registering says so
    return next((each for each in layout if each.root == root and evidence.state_of(each) == "elsewhere"), None)


def _in_file(identity: Identity, root: str) -> AgentPlace:
    return AgentPlace(identity.name, root, identity.agent_pid, identity.agent_pid_started, identity.updated_seconds)


def give_up(view: View, stamp: Stamp, left: AgentPlace, displaced: str) -> list[AnyFact]:
    """Facts of a renamed session: its former agent has no process any more. One that is displaced has no record."""
    row = view.agent(left.agent_id)
    if row is None or not row.live or left.agent_id == displaced:
        return []
    placed = stamp.make(
        AgentPlaced,
        at=stamp.later_than(max(row.place_at, row.exited_at)),
        agent_id=row.agent_id,
        worktree_path=row.worktree_path,
    )
    return [*end_open_sessions(view, stamp, row.agent_id, "superseded"), placed]


# -- prime


def check_prime(ctx: Context, evidence: PeerEvidence, agent_id: str) -> Arrival:
    """The guard `prime_ownership`: only the session's outermost runtime primes a live identity; a shell may look.

    What was never registered, prime does not register. Raises PrimeOwnership, AgentNotRegistered, CrossWorktree,
    Failed.
    """
    registry, modes, now = ctx.registry(), ctx.modes(), trio.current_time()
    place = registry.by_id.get(agent_id)
    if place is None:
        raise AgentNotRegistered(
            f"agent {agent_id} has an identity file, but is not registered here",
            remedy=f"thrum quickstart {agent_id} --role ROLE --module MODULE",
        )
    links = [link for link in evidence.links(now) if link.runtime is not None]
    if not links:
        return Arrival(registry)
    state = evidence.state_of(place)
    process = evidence.binding(agent_id, registry, now)
    if state in ("chain", "elsewhere") and (process is None or process.pid != place.agent_pid):
        variant = "runtime" if state == "elsewhere" else ""  # which is no sub-agent, but one beside it
        refusal = Refusal(
            "prime_ownership",
            "caller_not_topmost_runtime",
            variant,
            agent_id,
            expected_pid=place.agent_pid,
            runtime=_runtime_of(ctx, agent_id),
        )
        line = fire(refusal, modes, caller_pid=links[0].pid, caller_cwd=evidence.cwd(), method=_METHOD)
        return Arrival(registry, warnings=(line,) if line else ())
    if state == "dead" and process is not None:
        mode = modes["dead_pid_auto_reclaim"]
        refusal = may_not_adopt(agent_id, state, place.agent_pid, mode)
        if refusal is not None:
            fire(refusal, modes, caller_pid=links[0].pid, caller_cwd=evidence.cwd(), method=_METHOD)
        else:
            report_reclaim(place, links[0].pid, mode, _METHOD)
    return Arrival(registry)


# -- one identity a worktree


async def retire_stale(ctx: Context, evidence: PeerEvidence, agent_id: str, root: str) -> list[str]:
    """Move away the identity files of agents that no longer live in a root, after `agent_id` has arrived there.

    Those of live processes, registered ones without a pid, reserved ones and broken ones stay. A line for each that
    went, with the way back.
    """
    lines: list[str] = []
    listed = await trio.to_thread.run_sync(list_identities, identities_of(root))
    for each in listed:
        row = ctx.view.agent(each.path.stem) if each.identity is None else ctx.view.agent(each.identity.name)
        reason = _stale(ctx, evidence, each, row, agent_id, root)
        if reason and (retired := await _retire(ctx, each, row, root)) is not None:
            assert each.identity is not None
            identity = each.identity
            back = f"thrum quickstart {identity.name} --role {identity.role} --module {identity.module}"
            file = retired.relative_to(root)
            lines.append(f"@{identity.name} is moved away, {reason}: {file} (back: {back})")
    return lines


def _stale(ctx: Context, evidence: PeerEvidence, each: Listed, row: AgentRow | None, agent_id: str, root: str) -> str:
    """Why a file is to go; empty if it stays."""
    identity = each.identity
    if identity is None or identity.name == agent_id or identity.reserved or identity.name in ctx.registering:
        return ""
    registered = row is not None and row.live
    layout = [_in_file(identity, root)]
    recorded = ctx.registry().by_id.get(identity.name)
    if recorded is not None and recorded.root == root:
        layout.append(recorded)
    try:
        states = {evidence.state_of(place) for place in layout}
    except Failed as failed:
        log.warning("whether %s lives is not known: %s", identity.name, failed)
        return ""
    if states & {"chain", "elsewhere"}:
        return ""
    if "dead" in states:
        return "its process is gone"
    return "" if registered else "it is not registered"


async def _retire(ctx: Context, each: Listed, row: AgentRow | None, root: str) -> Path | None:
    """End the session of the file's agent, then move the file; None if the agent came back meanwhile."""

    def decide(view: View, stamp: Stamp) -> Decision[bool]:
        now = view.agent(row.agent_id) if row is not None else None
        if now is not None and (now.reg_event, now.place_event) != (row and row.reg_event, row and row.place_event):
            return Decision([], lambda _view, _seqs: False)
        here = now is not None and now.live and now.worktree_path == root
        facts: Sequence[AnyFact] = end_open_sessions(view, stamp, now.agent_id, "superseded") if now and here else ()
        return Decision(facts, lambda _view, _seqs: True)

    if not await ctx.journal.commit(decide):
        return None
    return await trio.to_thread.run_sync(retire_identity, each.path)
