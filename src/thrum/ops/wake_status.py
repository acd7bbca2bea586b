"""`wake.status`: what was offered to an agent, how that ended, and what it has not seen. It writes nothing."""

from __future__ import annotations

from thrum.model import clock
from thrum.model.attempt_ids import shown
from thrum.model.errors import AgentNotFound
from thrum.model.ids import parse_agent_id
from thrum.model.methods.wake import AgentWake, Attempt, WakeStatusParams, WakeStatusResult
from thrum.ops.context import Call, Context
from thrum.store.queries.views import AgentRow, AttemptRow, View


async def wake_status(ctx: Context, _call: Call, params: WakeStatusParams) -> WakeStatusResult:
    """Of one agent, or of all that live here, by name. Doors and states are the wake loop's to know. AgentNotFound."""
    now = clock.format_ms(ctx.clock.now_ms())
    return WakeStatusResult(agents=tuple(of_agent(ctx.view, row, now) for row in _rows(ctx.view, params.agent_id)))


def _rows(view: View, agent_id: str) -> list[AgentRow]:
    if not agent_id:
        return sorted((row for row in view.agents(kind="agent") if row.is_own), key=lambda row: row.agent_id)
    row = view.agent(agent_id) or view.agent(parse_agent_id(agent_id).canonical)
    if row is None or not row.live:
        raise AgentNotFound(f"agent not found: {agent_id}")
    return [row]


def of_agent(view: View, row: AgentRow, now: str) -> AgentWake:
    """What the facts tell of one agent."""
    last = view.attempts(row.agent_id)
    opened = next((each for each in last if each.outcome == "offered"), None)
    return AgentWake(
        agent_id=row.agent_id,
        runtime=row.runtime,
        state="unknown",
        doors=(),
        open=None if opened is None else attempt_of(opened),
        unseen=tuple(each.message_id for each in view.wakeable(row.agent_id, now)),
        last=tuple(attempt_of(each) for each in last),
    )


def attempt_of(row: AttemptRow) -> Attempt:
    """An attempt as it may be shown: without the rest of its token."""
    return Attempt(
        attempt_id=shown(row.attempt_id),
        at=row.offered_at or row.ended_at,
        door=row.door,
        message_ids=row.message_ids,
        outcome=row.outcome,
        detail=row.detail,
    )
