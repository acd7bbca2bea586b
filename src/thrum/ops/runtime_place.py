"""The session of an agent's runtime goes into the agent's record (`agent.place`). Source: events.md §5, wake.md §5."""

from __future__ import annotations

from thrum.model.events import AgentPlaced
from thrum.ops.context import Context
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View


async def note_session(ctx: Context, agent_id: str, session: str, transcript: str) -> None:
    """Note that the runtime of an agent is in that session, and that its hooks fire."""

    def decide(view: View, stamp: Stamp) -> Decision[None]:
        row = view.agent(agent_id)
        if row is None or not row.worktree_path or not row.agent_pid or row.runtime_session == session:
            return Decision([], lambda _view, _seqs: None)
        fact = stamp.make(
            AgentPlaced,
            at=stamp.later_than(row.place_at),
            agent_id=agent_id,
            worktree_path=row.worktree_path,
            agent_pid=row.agent_pid,
            agent_pid_started=row.agent_pid_started,
            runtime=row.runtime,
            tmux_session=row.tmux_session,
            runtime_session=session,
            transcript=transcript,
            pane=row.pane,
            hooks_seen_at=stamp.text,
        )
        return Decision([fact], lambda _view, _seqs: None)

    await ctx.journal.commit(decide)
