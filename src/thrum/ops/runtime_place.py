"""What an agent's place says of its runtime process beside its pid, and what of that a new place takes along. Pure."""

from __future__ import annotations

from typing import TypedDict

from thrum.store.queries.views import AgentRow


class Runtime(TypedDict):
    """Fields of `agent.place` that hooks and launchers tell (wake.md §5)."""

    runtime_session: str
    transcript: str
    pane: str
    hooks_seen_at: str


def carried_over(row: AgentRow | None, agent_pid: int, agent_pid_started: str) -> Runtime:
    """Of a record, for a new one with this process: everything, if it is the same process, or if the record has none:
    it may have been told before anybody knew which process that is, and below an app-server no one ever knows. Of
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
