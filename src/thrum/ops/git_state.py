"""The live git state of agents: local worktrees are looked at now, for others only facts are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thrum.model.wire_types import GitState
from thrum.ops.context import Context
from thrum.store.queries.views import AgentRow


async def read_live(
    ctx: Context, rows: Iterable[AgentRow], *, wanted: Sequence[str] = (), files: bool = True
) -> tuple[dict[str, GitState], tuple[str, ...]]:
    """Agent id -> state, of those that live here; and a line for each whose git gave no answer."""
    roots = {row.agent_id: row.worktree_path for row in rows if row.is_own and row.worktree_path}
    states = await ctx.work(set(roots.values()), wanted=wanted, files=files)
    found = {agent_id: states[root] for agent_id, root in roots.items()}
    warnings = tuple(
        f"what @{agent_id} changed is not known: {state.problem} ({roots[agent_id]})"
        for agent_id, state in found.items()
        if state.problem
    )
    return found, warnings
