"""An agent that is about to be restarted is asked to keep what it knows, and given time (cli.md 3.18).

The request is a message like any other: urgent, by the agent's doors, with proof; its answer is the agent's own
`thrum tmux snapshot save`. It is deleted when the wait is over: the session that follows has nothing to do with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import trio

from thrum.daemon.notices import BY, notice
from thrum.daemon.wake_service import WakeService
from thrum.model.events import MessageDeleted
from thrum.ops.context import Context
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View

LOOK_SECONDS: Final = 0.25
"""How often it is looked whether an agent that has saved is through with its turn: not every runtime tells."""

Outcome = Literal["saved", "seen", "unseen", "unreachable"]
"""It saved; it was given the request, and did not; the request did not reach it; it has no door."""


@dataclass(slots=True, eq=False)
class _Request:
    """One that waits. `lines`: of what the agent saved."""

    saved: trio.Event = field(default_factory=trio.Event)
    lines: int = 0


@dataclass(slots=True)
class RestartRequests:
    """The requests of one daemon that wait for an answer."""

    ctx: Context
    wake: WakeService
    _open: dict[str, _Request] = field(default_factory=dict[str, _Request])

    def saved(self, agent_id: str, lines: int) -> None:
        """An agent has kept its conversation."""
        request = self._open.get(agent_id)
        if request is not None:
            request.lines = lines
            request.saved.set()

    async def ask(self, agent_id: str, session: str, seconds: float) -> tuple[Outcome, int]:
        """Ask, and wait so long for what it saves and for the end of its turn; how many lines it saved.

        Raises ThrumError: the request is not on disk.
        """
        if seconds <= 0 or not self.wake.can_be_told(agent_id):
            return "unreachable", 0
        request = self._open[agent_id] = _Request()
        message_id = await self._send(agent_id, session, seconds)
        seen = False
        try:
            with trio.move_on_after(seconds):
                await request.saved.wait()
                while self.wake.reachable(agent_id).state == "working":  # noqa: ASYNC110
                    await trio.sleep(LOOK_SECONDS)
        finally:
            self._open.pop(agent_id, None)
            with trio.CancelScope(shield=True):
                seen = await self._withdraw(agent_id, message_id)
        if request.saved.is_set():
            return "saved", request.lines
        return ("seen" if seen else "unseen"), 0

    async def _send(self, agent_id: str, session: str, seconds: float) -> str:
        def decide(view: View, stamp: Stamp) -> Decision[str]:
            fact = notice(view, stamp, [agent_id], _said(session, seconds), urgent=True, seconds=seconds)
            return Decision([fact], lambda _view, _seqs: fact.message_id)

        return await self.ctx.journal.commit(decide)

    async def _withdraw(self, agent_id: str, message_id: str) -> bool:
        """Delete the request; whether its agent was given it."""

        def decide(view: View, stamp: Stamp) -> Decision[bool]:
            seen = not view.markable(agent_id, [message_id], "seen")
            fact = stamp.make(MessageDeleted, message_id=message_id, agent_id=BY, reason="the wait is over")
            return Decision([fact], lambda _view, _seqs: seen)

        return await self.ctx.journal.commit(decide)


def _said(session: str, seconds: float) -> str:
    return (
        f"Your session {session} is restarted in {seconds:.0f} s. Keep what the next one needs: thrum context save"
        ' "TEXT" replaces your notes. Then run `thrum tmux snapshot save`: it keeps the end of this conversation, and'
        " ends the wait."
    )
