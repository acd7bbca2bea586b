"""Whether a name is free here: the name rules that depend on other agents (identity.md §2)."""

from __future__ import annotations

from collections.abc import Collection

from thrum.model import ids
from thrum.model.errors import NameTaken, ThrumError
from thrum.model.methods.agents import RegisterParams
from thrum.ops.context import Context
from thrum.store.queries.views import AgentRow, View


def registered_as(ctx: Context, params: RegisterParams) -> str:
    """The id that a registration is about; empty for one that cannot be."""
    try:
        ids.check_role(params.role)
        if params.name and ids.parse_agent_id(params.name).kind != "unnamed":
            ids.check_agent_name(params.name, params.role)
    except ThrumError:
        return ""
    return params.name or ids.agent_id_of(ctx.here.repo_id, params.role, params.module)


def check_names(view: View, agent_id: str, name: str, role: str, *, without: Collection[str] = ()) -> None:
    """A re-registration skips its own record, and those of `without`; `name` is empty for an unnamed agent.

    A word that is in use here stays usable, whatever agents and groups elsewhere are called. Raises the name
    rules, NameTaken.
    """
    rows = [row for row in view.agents() if row.agent_id not in (agent_id, *without)]
    here = [row for row in view.agents() if row.is_own]
    others, groups = _others(view, rows, here_only=any(row.role == role for row in here))
    ids.check_role(role, {row.agent_id for row in others if row.name}, groups)
    is_here = any(row.agent_id == agent_id for row in here)
    if name:
        others, groups = _others(view, rows, here_only=is_here)
        ids.check_agent_name(name, role, {row.role: row.agent_id for row in others}, groups)
    twin = view.id_differing_in_case(agent_id)
    if twin is not None and not is_here and twin not in without:
        raise NameTaken(f'"{agent_id}" differs from @{twin} only by case')


def _others(view: View, rows: Collection[AgentRow], *, here_only: bool) -> tuple[list[AgentRow], list[str]]:
    """Whom a word may clash with: the other agents, and the groups."""
    others = [row for row in rows if row.is_own or not here_only]
    return others, [name for name in view.groups() if not here_only or view.is_group_here(name)]
