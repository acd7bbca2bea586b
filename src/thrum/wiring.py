"""Who answers which method: operations, callers and rooms put together for one daemon. Composition.

Nothing here decides; it connects. The task tree is in `daemon.py`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from thrum import api, clock, events, limits
from thrum.api import Method
from thrum.bus.publisher import Publisher
from thrum.bus.topics import TOPICS
from thrum.errors import StoreFailed, ThrumError
from thrum.events import AgentCleaned, AgentPlaced, AgentRegistered, AgentSeen
from thrum.feed import Feed
from thrum.identity.caller import CLASS_OF, Caller, Refused, decide
from thrum.identity.daemon_id import DaemonIdentity
from thrum.identity.evidence import AgentPlace, PeerEvidence, Registry
from thrum.identity.guards import refusal_error, refusal_fields
from thrum.launcher import VERSION
from thrum.ops import agents, messages, reading, sessions, team, waiting
from thrum.ops.house import House, Operation
from thrum.ops.liveness import seconds
from thrum.rpc.dispatch import Call, Drain, Handler, PeerConnection
from thrum.store.committer import Committed, Committer
from thrum.store.database import is_damage
from thrum.store.door import Decision, Stamp
from thrum.store.views import View

log = logging.getLogger("thrum.daemon")

OPERATIONS: Mapping[str, Operation] = {
    "agent.register": agents.register,
    "agent.whoami": agents.whoami,
    "agent.list": team.list_agents,
    "agent.listContext": team.list_contexts,
    "session.start": sessions.start,
    "session.setIntent": sessions.set_intent,
    "message.send": messages.send,
    "message.get": reading.get,
    "message.list": reading.list_messages,
    "message.outbox": reading.outbox,
    "message.edit": messages.edit,
    "message.delete": messages.delete,
    "message.markRead": messages.mark_read,
    "team.list": team.list_team,
}
"""Every method that is an operation on the picture; the daemon's own ones are added in `handlers`."""

_PLACE_FACTS = (AgentRegistered, AgentPlaced, AgentCleaned)


class Registrar:
    """The agents of this daemon and where they live, read again from the picture when they change."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._registry: Registry | None = None

    def forget(self) -> None:
        """Agents changed."""
        self._registry = None

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

    def __init__(self, house: House, nursery: trio.Nursery) -> None:
        self._house = house
        self._nursery = nursery
        self._noted_ms: dict[str, int] = {}

    def note(self, agent_id: str, *, wrote: bool) -> None:
        """A call of that agent ended; `wrote`: it left a fact, which is sign enough."""
        now_ms = self._house.clock.now_ms()
        if wrote:
            self._noted_ms[agent_id] = now_ms
        elif now_ms - self._noted_ms.get(agent_id, 0) >= limits.seen_interval_ms:
            row = self._house.view.agent(agent_id)
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
            await self._house.journal.commit(seen)
        except ThrumError as error:
            log.debug("a sign of life was not written: %s", error)


@dataclass(frozen=True, slots=True)
class Wiring:
    """The parts of one running daemon that its methods need."""

    house: House
    committer: Committer
    registrar: Registrar
    feed: Feed
    publisher: Publisher
    desks: waiting.Desks
    presence: Presence
    identity: DaemonIdentity
    bus_endpoint: str
    started_at: float
    """trio's clock, seconds."""
    problems: Sequence[str] = ()
    """What was found wrong at the start and is no hindrance: for `health`."""

    def on_commit(self, committed: Sequence[Committed]) -> None:
        """Facts are on disk: tell everybody who waits for them."""
        facts = [entry.fact for entry in committed]
        if any(isinstance(fact, _PLACE_FACTS) for fact in facts):
            self.registrar.forget()
        self.feed.announce(committed)
        self.desks.announce([fact for fact in facts if not isinstance(fact, events.Sealed)])

    # -- callers

    def on_connect(self, connection: PeerConnection) -> None:
        """Look at the peer before its first request: later its pid must still be the same process."""
        connection.evidence = PeerEvidence(
            self.house.processes, self.house.here.places, pid=connection.peer.pid, uid=connection.peer.uid
        )

    def identify(self, connection: PeerConnection, claim: str, method: Method) -> Caller:
        """Who calls, decided anew for every request from the kernel's evidence (identity.md §11)."""
        evidence = connection.evidence.gather(self.registrar.current(), claim or None, now=trio.current_time())
        outcome = decide(evidence, CLASS_OF.get(method.access, "agent"), claim or None)
        if not isinstance(outcome, Refused):
            return outcome
        pid, cwd = evidence.pid, evidence.cwd
        fields = refusal_fields(outcome.refusal, caller_pid=pid, caller_cwd=cwd, method=method.name)
        log.warning("identity_guard_fire", extra={"fields": {**fields, "outcome": "denied"}})
        raise refusal_error(outcome.refusal, caller_pid=pid, caller_cwd=cwd, method=method.name)

    # -- methods

    def handlers(self, drain: Callable[[], Drain]) -> dict[str, Handler]:
        """Every method's handler. `drain` is asked for when somebody wants the daemon to stop."""
        own: dict[str, Handler] = {
            "health": self._health,
            "bus.info": self._bus_info,
            "events.since": self._events_since,
            "message.wait": self._wait,
            "daemon.stop": functools.partial(self._stop, drain),
        }
        table = {name: self._operation(operation) for name, operation in OPERATIONS.items()}
        return {name: self._noting(handler) for name, handler in (own | table).items()}

    def _operation(self, operation: Operation) -> Handler:
        return functools.partial(operation, self.house)

    def _noting(self, handler: Handler) -> Handler:
        """What holds for every method here: signs of life are noted, and a damaged database is painted anew."""

        async def handle(call: Call, params: Any) -> Any:
            try:
                result = await handler(call, params)
            except Exception as error:
                if not is_damage(error):
                    raise
                self.committer.condemn()
                raise StoreFailed(
                    "the database is damaged; it is painted anew from the journals", remedy="repeat the command"
                ) from error
            agent_id = call.caller.agent_id
            if agent_id is not None and call.caller.kind == "agent":
                self.presence.note(agent_id, wrote=call.method.mutating)
            return result

        return handle

    async def _health(self, _call: Call, _params: api.Empty) -> api.HealthResult:
        view = self.house.view
        degraded = self.committer.degraded
        problems = (*([degraded] if degraded else ()), *self.publisher.problems(), *self.problems)
        return api.HealthResult(
            status="degraded" if problems else "ok",
            problems=problems,
            uptime_ms=int((trio.current_time() - self.started_at) * 1000),
            version=VERSION,
            protocol=api.PROTOCOL,
            repo_id=self.house.here.repo_id,
            pid=os.getpid(),
            epoch=view.epoch,
            seq=view.head_seq(),
            sync_state="local-only",
            local_only=True,
            identity=api.DaemonIdentity(
                daemon_id=self.identity.daemon_id,
                repo_name=self.identity.repo_name,
                hostname=self.identity.hostname,
                repo_path=self.identity.repo_path,
                git_origin_url=self.identity.git_origin_url,
                init_at=self.identity.init_at,
            ),
        )

    async def _bus_info(self, _call: Call, _params: api.Empty) -> api.BusInfo:
        return api.BusInfo(
            endpoint=self.bus_endpoint,
            epoch=self.house.view.epoch,
            seq=self.house.view.head_seq(),
            protocol=api.PROTOCOL,
            tick_seconds=limits.tick_seconds,
            preview_max=limits.preview_chars_max,
            topics=TOPICS,
        )

    async def _events_since(self, _call: Call, params: api.EventsSinceParams) -> api.EventsSince:
        return await self.feed.since(params)

    async def _wait(self, call: Call, params: api.WaitParams) -> api.WaitResult:
        return await waiting.wait(self.house, self.desks, call, params)

    async def _stop(self, drain: Callable[[], Drain], call: Call, params: api.StopParams) -> api.StopResult:
        """Answers first, then stops as house.md says."""

        def begin() -> None:
            drain().begin(params.drain_ms / 1000)

        call.when_delivered(begin, begin)
        return api.StopResult(stopping=True)
