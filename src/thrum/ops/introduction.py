"""What a daemon declares about itself before anything else (events.md §11 "Project"): its project, its earlier ids, and
its agents.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from thrum.model.errors import NewerFormat
from thrum.model.events import AgentRegistered, AnyFact, DaemonKeyed, DaemonSucceeded
from thrum.model.origins import is_well_named
from thrum.ops.context import Context
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View


async def introduce(ctx: Context, remotes: Iterable[str] = ()) -> None:
    """Write what is not yet said. Raises what the committer refuses with; under a newer format nothing is said.

    `remotes`: the repository ids of the remotes as they are now; a clone of one knows this project by that id alone.
    """
    repo_ids = {ctx.here.repo_id, *remotes}
    with contextlib.suppress(NewerFormat):
        await ctx.journal.commit(lambda view, stamp: decide(view, stamp, repo_ids, ctx.here.own))


def decide(view: View, stamp: Stamp, repo_ids: Iterable[str], own: Iterable[str]) -> Decision[None]:
    """`repo_ids`: those of the repository as it is; the daemon keeps naming those that it ever had. `own`: its ids."""
    origins = view.origins()
    facts: list[AnyFact] = []
    said = origins.projects.get(stamp.daemon_id)
    wanted = {*origins.ours, *repo_ids}
    if said is None or not wanted <= said:
        facts.append(stamp.make(DaemonKeyed, repo_ids=tuple(sorted(wanted))))
    told = view.previous_ids_of(stamp.daemon_id)
    for former in sorted({*own} - {"", stamp.daemon_id} - told):
        facts.append(stamp.make(DaemonSucceeded, previous_id=former))
    # Others take the marks and messages of an agent from who registered it.
    for row in view.own_registrations():
        if row.origin_daemon in ("", stamp.daemon_id):
            continue  # a registration without an origin may be from anyone: it gets no name
        again = stamp.make(
            AgentRegistered,
            at=stamp.later_than(row.reg_at),
            agent_id=row.agent_id,
            kind=row.kind,
            name=row.name,
            role=row.role,
            module=row.module,
            worktree=row.worktree,
            display=row.display,
            hostname=row.hostname,
        )
        if is_well_named(again):
            facts.append(again)
    return Decision(facts, lambda _view, _seqs: None)
