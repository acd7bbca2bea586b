"""Which agents this daemon has, and their signs of life."""

from __future__ import annotations

import logging

import trio

from thrum.identity.evidence import AgentPlace, Registry
from thrum.model import clock, limits
from thrum.model.errors import ThrumError
from thrum.model.events import AgentSeen
from thrum.ops.context import Context
from thrum.ops.liveness import seconds
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import View

log = logging.getLogger("thrum.daemon")


class Registrar:
    """The agents of this daemon and where they live, read again from the projection when they change."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._registry: Registry | None = None
        self._changed = trio.Event()

    def forget(self) -> None:
        """Agents changed."""
        self._registry = None

    def announce(self) -> None:
        """Whom to watch changed, or which sessions are open."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def changed(self) -> trio.Event:
        """Set by the next `announce`."""
        return self._changed

    def current(self) -> Registry:
        """As of the last commit."""
        if self._registry is None:
            self._registry = Registry(
                AgentPlace(row.agent_id, row.worktree_path, row.agent_pid, row.agent_pid_started, seconds(row.place_at))
                for row in self._view.agents()
                if row.worktree_path
            )
        return self._registry


class Presence:
    """Signs of life of agents that only look: one fact a minute at most (events.md §5, `agent.seen`)."""

    def __init__(self, ctx: Context, nursery: trio.Nursery) -> None:
        self._ctx = ctx
        self._nursery = nursery
        self._noted_ms: dict[str, int] = {}

    def note(self, agent_id: str, *, wrote: bool) -> None:
        """A call of that agent ended; `wrote`: it left a fact, which is sign enough."""
        now_ms = self._ctx.clock.now_ms()
        if wrote:
            self._noted_ms[agent_id] = now_ms
        elif now_ms - self._noted_ms.get(agent_id, 0) >= limits.seen_interval_ms:
            row = self._ctx.view.agent(agent_id)
            last_ms = clock.parse_ms(row.last_seen_at) if row and row.last_seen_at else 0
            self._noted_ms[agent_id] = max(last_ms, self._noted_ms.get(agent_id, 0))
            if now_ms - last_ms >= limits.seen_interval_ms:
                self._noted_ms[agent_id] = now_ms
                self._nursery.start_soon(self._write, agent_id)

    async def _write(self, agent_id: str) -> None:
        def seen(view: View, stamp: Stamp) -> Decision[None]:
            session = view.open_session(agent_id)
            fact = stamp.make(AgentSeen, agent_id=agent_id, session_id=session.session_id if session else "")
            return Decision([fact], lambda _view, _seqs: None)

        try:
            await self._ctx.journal.commit(seen)
        except ThrumError as error:
            log.debug("a heartbeat was not written: %s", error)
