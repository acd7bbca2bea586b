"""What carries plans out: a task for each agent with something unseen, asleep until something happens or is due.

    serve
    └─ _serve_agent      one for each agent that has something unseen or an attempt open
       └─ _say           the door, and who revokes what it has not said yet

What is planned follows from facts, from the state of the runtime and from the clock, all asked again each time, so
`look` only says that there is something to look at. The fact that an attempt was offered is on disk before its door
is called: killed between any two steps, the next daemon finds it open. Source: wake.md §4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Final, Literal, Protocol

import trio

from thrum.model.attempt_ids import new_token, shown
from thrum.model.errors import ThrumError
from thrum.model.wake_types import Failed, Offered, Reachable, Refused
from thrum.wake import proofs
from thrum.wake.attempts import NO_PROOF, Attempts, Record, Wakeable
from thrum.wake.door import Door
from thrum.wake.plan import AgentState, Close, Look, Nothing, Offer, plan, why_unseen
from thrum.wake.text import Letter, batch, notice, with_token

log: Final = logging.getLogger("thrum.wake")

RETRY_SECONDS: Final = 5.0
"""After the store, or the program, failed: when an agent is looked at again if nothing happens."""


class Ports(Protocol):
    """What the loop asks of the daemon. All but the two writes answer at once."""

    def agents(self) -> Iterable[str]:
        """The agents of this daemon that have something unseen, or an attempt that is open."""
        ...

    def reachable(self, agent_id: str) -> Reachable:
        """The agent's runtime as of now; times are trio's."""
        ...

    def doors(self, agent_id: str) -> Sequence[Door]:
        """Its doors, in the order of preference."""
        ...

    def wakeable(self, agent_id: str) -> Sequence[Wakeable]:
        """What wakes it and is unseen, oldest first, without what is on its way by another hand (`message.wait`)."""
        ...

    def letters(self, message_ids: Sequence[str]) -> Sequence[Letter]:
        """These messages, in this order, as far as they are still there."""
        ...

    def records(self, agent_id: str) -> Sequence[Record]:
        """Its attempts, the oldest first, each with its outcome: the open one, and those about what is unseen."""
        ...

    def attempt(self, attempt_id: str) -> Record | None:
        """Any attempt that is remembered."""
        ...

    async def record(self, record: Record) -> None:
        """Commit a fact `wake.attempt`; it is on disk when this returns. Raises ThrumError: it is not."""
        ...

    async def prove(self, record: Record) -> None:
        """Commit that an attempt was proved, and the receipts `seen` of its messages, in one transaction.

        Of an attempt that ended otherwise only the receipts; of one that was proved before, nothing. Raises ThrumError.
        """
        ...


@dataclass(slots=True)
class Loop:
    """Wakes the agents of one daemon. `proofs_dir`: `var/proofs` of the state directory."""

    ports: Ports
    proofs_dir: Path
    _known: dict[str, Attempts] = field(default_factory=dict[str, Attempts])
    _changes: dict[str, trio.Event] = field(default_factory=dict[str, trio.Event])
    """Of each agent that has a task: what it sleeps on."""
    _new: dict[str, None] = field(default_factory=dict[str, None])
    """Agents that want a task."""
    _anything_new: trio.Event = field(default_factory=trio.Event)

    def look(self, agent_id: str) -> None:
        """Something may have changed for an agent: a message, a receipt, its runtime, a door. Cheap, if in vain."""
        changed = self._changes.get(agent_id)
        if changed is not None:
            changed.set()
        else:
            self._new[agent_id] = None
            self._anything_new.set()

    async def prove(self, token: str) -> bool:
        """A model was given a token: its receipts are on disk when this returns. False: the token is unknown.

        Showing it proves it, once or often, whether its attempt is open or has ended (wake.md §1.2). Raises
        ThrumError.
        """
        record = self.ports.attempt(token)
        if record is None:
            return False
        if record.outcome != "proved":
            await self.ports.prove(record)
        known = self._known.get(record.agent_id)
        if known is not None:
            known.closed(token, "proved", trio.current_time())
        self.look(record.agent_id)
        return True

    def state_of(self, agent_id: str) -> AgentState:
        """All that is known of an agent, as the planner sees it."""
        runtime = self.ports.reachable(agent_id)
        doors = [door.state(runtime) for door in self.ports.doors(agent_id)]
        return self._attempts(agent_id).observe(runtime, doors, self.ports.wakeable(agent_id), trio.current_time())

    def why_unseen(self, agent_id: str, message_id: str) -> str:
        """Why a message is not seen yet, in the words of wake.md §2; empty: it will be at any moment, or it is."""
        return why_unseen(self.state_of(agent_id), message_id, trio.current_time())

    def awaited(self) -> list[str]:
        """The agents that have something unseen, or an attempt that is open."""
        return list(self._changes)

    def in_open_attempt(self, agent_id: str) -> tuple[str, ...]:
        """The messages of the agent's open attempt: they may have been said."""
        known = self._known.get(agent_id)
        return () if known is None else known.open_ids

    async def serve(self) -> None:
        """Wake agents until cancelled. What is on its way then stays an open attempt."""
        async with trio.open_nursery() as nursery:
            await self._take_proofs()
            for agent_id in self.ports.agents():
                self.look(agent_id)
            while True:
                await self._anything_new.wait()
                self._anything_new = trio.Event()
                for agent_id in self._new:
                    self._changes[agent_id] = trio.Event()
                    nursery.start_soon(self._serve_agent, agent_id)
                self._new.clear()

    # -- one agent

    async def _serve_agent(self, agent_id: str) -> None:
        try:
            while (until := await self._step(agent_id)) is not None:
                with trio.move_on_at(until):
                    await self._changes[agent_id].wait()
        finally:
            del self._changes[agent_id]

    async def _step(self, agent_id: str) -> float | None:
        """Do what is planned: when to go on at the latest (if nothing happens before). None: there is nothing to do."""
        self._changes[agent_id] = trio.Event()
        try:
            return await self._do(agent_id)
        except ThrumError as error:
            log.warning("waking %s: %s", agent_id, error)
        except Exception:
            log.exception("waking %s", agent_id)
            # What is on disk is true, whatever became of the bookkeeping.
            self._known.pop(agent_id, None)
        return trio.current_time() + RETRY_SECONDS

    async def _do(self, agent_id: str) -> float | None:
        agent = self.state_of(agent_id)
        action = plan(agent, trio.current_time())
        match action:
            case Nothing():
                return inf if agent.unseen or agent.open is not None else None
            case Look():
                return action.at
            case Close() | Offer():
                pass
        if _is_second(agent, action) and await self._take_proofs():
            return -inf
        if isinstance(action, Close):
            await self._close(agent_id, action)
            return -inf
        return -inf if await self._offer(agent_id, agent, action) else inf

    async def _close(self, agent_id: str, action: Close) -> None:
        attempts = self._attempts(agent_id)
        record = attempts.record(action.attempt_id)
        if record is not None:
            await self.ports.record(replace(record, outcome=action.outcome, detail=action.why))
            attempts.closed(action.attempt_id, action.outcome, trio.current_time())

    async def _offer(self, agent_id: str, agent: AgentState, offer: Offer) -> bool:
        """One attempt: fact, door, and what came of it. False: its messages are gone."""
        runtime = self.ports.reachable(agent_id)
        door = next(door for door in self.ports.doors(agent_id) if door.name == offer.door)
        state = next(each for each in agent.doors if each.name == offer.door)
        letters = self.ports.letters(offer.message_ids)
        if not letters:
            return False
        said, text = notice(letters) if state.one_line else batch(letters)
        detail = "" if state.proves else NO_PROOF
        record = Record(agent_id, new_token(), offer.door, said, "offered", detail, runtime.process)
        await self.ports.record(record)
        attempts = self._attempts(agent_id)
        attempts.offered(record, runtime, trio.current_time())
        outcome = await self._say(door, runtime, with_token(text, record.attempt_id, one_line=state.one_line))
        if outcome == "offered":
            attempts.handed_over(record.attempt_id, trio.current_time())
            return True
        kind: Literal["refused", "failed", "revoked"]
        kind, why = _ended(outcome)
        log.info("wake %s of %s by %s: %s %s", shown(record.attempt_id), agent_id, door.name, kind, why)
        known = attempts.record(record.attempt_id)
        if known is not None and known.outcome == "offered":
            await self._record_surely(replace(record, outcome=kind, detail=why))
            attempts.closed(record.attempt_id, kind, trio.current_time())
        return True

    async def _say(self, door: Door, runtime: Reachable, text: str) -> Offered | None:
        """Call a door; None if it was revoked before it said anything (wake.md §1.4)."""
        outcome: Offered | None = None
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(self._revoke_when_due, runtime.agent_id, scope)
            with scope:
                try:
                    outcome = await door.offer(runtime, text)
                except Exception:
                    # It is unknown whether it was said: better unseen than told twice.
                    log.exception("door %s of %s", door.name, runtime.agent_id)
                    outcome = "offered"
            nursery.cancel_scope.cancel()
        return outcome

    async def _revoke_when_due(self, agent_id: str, scope: trio.CancelScope) -> None:
        while True:
            changed = self._changes[agent_id] = trio.Event()
            action = plan(self.state_of(agent_id), trio.current_time())
            if isinstance(action, Close) and action.outcome == "revoked":
                scope.cancel()
                return
            await changed.wait()

    async def _record_surely(self, record: Record) -> None:
        """Commit what a door answered: nothing goes on for this agent before."""
        while True:
            try:
                return await self.ports.record(record)
            except ThrumError as error:
                log.warning("wake %s: %s", shown(record.attempt_id), error)
                await trio.sleep(RETRY_SECONDS)

    async def _take_proofs(self) -> bool:
        """Read the proofs that hooks left while there was no daemon; whether there was any."""
        taken = False
        for token in proofs.left(self.proofs_dir):
            try:
                await self.prove(token)
            except ThrumError as error:
                log.warning("a proof that was left: %s", error)
            except Exception:
                log.exception("a proof that was left: %s", shown(token))
            else:
                proofs.remove(self.proofs_dir, token)
                taken = True
        return taken

    def _attempts(self, agent_id: str) -> Attempts:
        known = self._known.get(agent_id)
        if known is None:
            known = Attempts.rebuilt(agent_id, self.ports.records(agent_id), trio.current_time())
            self._known[agent_id] = known
        return known


def _is_second(agent: AgentState, action: Close | Offer) -> bool:
    """Whether it leads to a second door for a message: then a proof that was left comes first."""
    if isinstance(action, Close):
        return True
    return any(message.attempts for message in agent.unseen if message.message_id in action.message_ids)


def _ended(outcome: Refused | Failed | None) -> tuple[Literal["refused", "failed", "revoked"], str]:
    match outcome:
        case Refused():
            return "refused", outcome.why
        case Failed():
            return "failed", outcome.why
        case None:
            return "revoked", ""
