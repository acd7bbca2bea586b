"""What an agent's place says of its runtime process beside its pid: what of that a new place takes along, and what its
hooks tell. Source: events.md §5, wake.md §5.
"""

from __future__ import annotations

from typing import TypedDict

from thrum.model.events import AgentPlaced
from thrum.ops.context import Context
from thrum.ops.identity_file import note_in_file
from thrum.ops.sessions import end_open_sessions
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View


class Runtime(TypedDict):
    """Fields of `agent.place` that hooks and launchers tell (wake.md §5)."""

    runtime_session: str
    transcript: str
    pane: str
    hooks_seen_at: str


def carried_over(row: AgentRow | None, agent_pid: int, agent_pid_started: str) -> Runtime:
    """Of a record, for a new one with this process: everything, if it is the same process, or if the record has none:
    it may have been told before it was known which process that is, and below an app-server it is never known. Of
    another process nothing.
    """
    is_same = row is not None and (
        row.agent_pid == 0 or (row.agent_pid, row.agent_pid_started) == (agent_pid, agent_pid_started)
    )
    if row is None or not is_same:
        return Runtime(runtime_session="", transcript="", pane="", hooks_seen_at="")
    return Runtime(
        runtime_session=row.runtime_session,
        transcript=row.transcript,
        pane=row.pane,
        hooks_seen_at=row.hooks_seen_at,
    )


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


async def note_thread(
    ctx: Context,
    agent_id: str,
    thread: str,
    *,
    transcript: str = "",
    process: tuple[int, str] | None = None,
    hooks: bool,
) -> bool:
    """Note that an agent is in that thread of Codex' app-server, and, if it is known, in that terminal's process; false
    where nothing changed, or that process is another agent's. `hooks`: a hook of that thread said so.
    """

    def decide(view: View, stamp: Stamp) -> Decision[bool]:
        row = view.agent(agent_id)
        if row is None or not row.live or not row.worktree_path:
            return Decision([], lambda _view, _seqs: False)
        was = (row.agent_pid, row.agent_pid_started)
        pair = process or was
        if pair != was and any(
            (each.agent_pid, each.agent_pid_started) == pair and each.agent_id != agent_id
            for each in view.agent_places()
        ):
            return Decision([], lambda _view, _seqs: False)
        is_same = row.runtime_session == thread
        seen_at = row.hooks_seen_at if is_same else ""
        if is_same and row.runtime == "codex" and pair == was and (seen_at or not hooks):
            return Decision([], lambda _view, _seqs: False)
        ended = end_open_sessions(view, stamp, agent_id, "crash_recovered") if was[0] and pair != was else []
        fact = stamp.make(
            AgentPlaced,
            at=stamp.later_than(max(row.place_at, row.exited_at) if pair != was else row.place_at),
            agent_id=agent_id,
            worktree_path=row.worktree_path,
            agent_pid=pair[0],
            agent_pid_started=pair[1],
            runtime="codex",
            tmux_session=row.tmux_session,
            runtime_session=thread,
            transcript=transcript or (row.transcript if is_same else ""),
            pane=row.pane,
            hooks_seen_at=seen_at or (stamp.text if hooks else ""),
        )
        return Decision([*ended, fact], lambda _view, _seqs: True, main=len(ended))

    return await ctx.journal.commit(decide)


async def note_terminal(ctx: Context, agent_id: str, tmux_session: str, pane: str) -> None:
    """Note in which tmux session and pane an agent is; empty ones: in none any more. All else of its place stays."""

    def decide(view: View, stamp: Stamp) -> Decision[None]:
        row = view.agent(agent_id)
        if row is None or not row.live or (row.tmux_session, row.pane) == (tmux_session, pane):
            return Decision([], lambda _view, _seqs: None)
        fact = stamp.make(
            AgentPlaced,
            at=stamp.later_than(max(row.place_at, row.exited_at)),
            agent_id=agent_id,
            worktree_path=row.worktree_path,
            agent_pid=row.agent_pid,
            agent_pid_started=row.agent_pid_started,
            runtime=row.runtime,
            tmux_session=tmux_session,
            runtime_session=row.runtime_session,
            transcript=row.transcript,
            pane=pane,
            hooks_seen_at=row.hooks_seen_at,
        )
        return Decision([fact], lambda _view, _seqs: None)

    await ctx.journal.commit(decide)
    await note_in_file(ctx, agent_id, housekeeping=True, tmux_session=tmux_session)
