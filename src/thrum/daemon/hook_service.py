"""`runtime.hook`: what runtimes tell of themselves, what proves a wake, and who sleeps until there is mail.

A hook belongs to the runtime's process that it runs below, as the kernel shows it; what it claims counts for nothing.
Only a token is believed from anybody, for only a model was given it. Source: wake.md §1.2, §3; rpc.md `runtime.hook`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from thrum.daemon.process_ends import ProcessEnds
from thrum.daemon.runtime_states import thread_key
from thrum.daemon.wake_service import WakeService
from thrum.identity.evidence import Failed, PeerEvidence
from thrum.identity.processes import is_live
from thrum.identity.runtimes import Link, proving
from thrum.model.attempt_ids import tokens_in
from thrum.model.methods.wake import HookParams, HookResult
from thrum.model.wake_types import Process
from thrum.ops.context import Call, Context, evidence_of
from thrum.ops.runtime_place import note_session
from thrum.runtimes import hooks
from thrum.runtimes.doors.turn_end import TURN_ENDS
from thrum.runtimes.hooks import Answer, HookEvent
from thrum.runtimes.one_shot import is_one_shot
from thrum.runtimes.waiters import Waiter

log = logging.getLogger("thrum.wake")

TURN_END_SECONDS: Final = 5.0
"""How long the end of a turn waits at most for what it is to be told: it takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The process of a runtime that a hook runs below."""

    process: Process
    nested: bool
    """Whether it runs below another one of its kind, or has no person at it: it is told nothing, and proves nothing."""


@dataclass(slots=True)
class HookService:
    """Answers `runtime.hook`."""

    ctx: Context
    wake: WakeService
    ends: ProcessEnds

    async def hook(self, call: Call, params: HookParams) -> HookResult:
        """What happened in a runtime; the answer is what its hook is to print. Raises ShuttingDown, StoreFailed …"""
        event = hooks.read(params.runtime, params.event, params.payload)
        if event.subagent:
            return HookResult()
        caller = self._caller(evidence_of(call), event)
        if caller is not None and caller.nested:
            return HookResult()
        for token in tokens_in(event.prompt):
            await self.wake.loop.prove(token)
        if caller is None:
            return await self._below_server(evidence_of(call), event)
        if event.runtime == "codex":
            self.wake.codex.noted(event, caller.process)
        agent_id = self.wake.agent_of(caller.process)
        # It sleeps before anything is known of the turn's end: no other door is to be tried meanwhile.
        end = self.wake.turn_ends.begin(caller.process, event) if agent_id else None
        self.wake.states.note(caller.process, event)
        if end is not None:
            answer = await self._end_turn(call, caller.process, event, agent_id, end)
        else:
            await self._note(agent_id, event)
            answer = await self._wait(call, caller.process, event) if event.kind == "wait" else hooks.SILENCE
        return HookResult(stdout=answer.stdout, stderr=answer.stderr, exit_status=answer.exit_status, agent_id=agent_id)

    async def _below_server(self, evidence: PeerEvidence, event: HookEvent) -> HookResult:
        """Of a hook that a server of many sessions ran: it belongs to the agent in that session (identity.md C3a)."""
        try:
            server = next((link for link in evidence.links(trio.current_time()) if link.shared), None)
        except Failed:
            server = None
        if server is None or not event.session:
            return HookResult()
        agent_id = await self.wake.codex.agent_of_session(event, server.pid)
        self.wake.codex.noted(event)
        self.wake.states.note(thread_key(event.session), event)
        if event.kind == "session_end":
            self.wake.states.forget(thread_key(event.session))
        if agent_id:
            await self.wake.note_event(agent_id, event)
        return HookResult(agent_id=agent_id)

    async def _note(self, agent_id: str, event: HookEvent) -> None:
        """Which session the agent is in, and that its hooks fire (once a session); and what follows from the event."""
        if not agent_id:
            return
        row = self.ctx.view.agent(agent_id)
        if row is not None and event.session and row.runtime_session != event.session:
            await note_session(self.ctx, agent_id, event.session, event.transcript)
        await self.wake.note_event(agent_id, event)

    async def _end_turn(self, call: Call, process: Process, event: HookEvent, agent_id: str, end: Waiter) -> Answer:
        """What the hook at a turn's end answers: what is unseen, if its agent is to be told of that now."""
        ends = self.wake.turn_ends
        try:
            await self._note(agent_id, event)
            if end.text or self.wake.is_due(agent_id, TURN_ENDS[event.runtime]):
                with trio.move_on_after(TURN_END_SECONDS):
                    await ends.waiters.sleep(process, end)
        except BaseException:
            end.lost()
            raise
        finally:
            ends.waiters.leave(process, end)
        if not end.text or end.settled.is_set():
            return hooks.SILENCE
        ends.prolong(process)
        call.when_delivered(end.taken, end.lost)
        return hooks.go_on(event, end.text)

    async def _wait(self, call: Call, process: Process, event: HookEvent) -> Answer:
        waiter = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._dismiss_at_end, process)
            waiter = await self.wake.waiters.wait(process)
            nursery.cancel_scope.cancel()
        if waiter is None or not waiter.text:
            return hooks.SILENCE
        call.when_delivered(waiter.taken, waiter.lost)
        return hooks.woken(event, waiter.text)

    async def _dismiss_at_end(self, process: Process) -> None:
        """End the waiter with its runtime: killed, that one takes no child along."""
        await self.ends.wait(process[0], lambda: self._lives(process))
        self.wake.states.forget(process)
        self.wake.turn_ends.forget(process)
        self.wake.waiters.dismiss(process)

    def _lives(self, process: Process) -> bool:
        try:
            seen = self.ctx.processes.read(process[0])
        except OSError:
            return True  # a process that may not be looked at exists
        return is_live(seen) and seen is not None and seen.started == process[1]

    def _caller(self, evidence: PeerEvidence, event: HookEvent) -> Caller | None:
        """None: it runs below no such runtime, or the kernel does not say."""
        try:
            links = evidence.links(trio.current_time())
        except Failed as failed:
            log.info("a hook below no runtime: %s", failed, extra={"fields": {"event": event.event}})
            return None
        found = runtime_above(links, event.runtime)
        if found is None:
            return None
        nearest, outermost = found
        argv = self.ctx.processes.program(nearest.pid).argv
        return Caller((outermost.pid, outermost.started), nested=is_one_shot(event.runtime, argv))


def runtime_above(chain: Sequence[Link], runtime: str) -> tuple[Link, Link] | None:
    """The nearest process of the caller's that is a runtime, if it is that one, and the outermost of its name above it:
    what the record of an agent names (identity.md §5)."""
    runtimes = [link for link in proving(chain) if link.runtime is not None and link.pid > 1]
    if not runtimes or runtimes[0].runtime != runtime:
        return None
    same = [runtimes[0]]
    for link in runtimes[1:]:
        if link.runtime != runtime:
            break
        same.append(link)
    return same[0], same[-1]
