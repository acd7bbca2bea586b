"""Agents are woken: what the loop of `wake` asks for, from the projection, the runtimes and the doors. Composition.

Facts, hooks, waiters and deaths say `look`. Only a runtime that may change without a word (a dialog that Escape ended
fires no hook) is looked at each second, while something is unseen there or a dialog blocks it. Source: wake.md §3, §4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import trio

from thrum.daemon.codex_service import CodexService
from thrum.daemon.dialogs import Dialogs
from thrum.daemon.runtime_states import RuntimeStates
from thrum.identity.evidence import AgentPlace
from thrum.model import limits
from thrum.model.clock import format_ms
from thrum.model.config import Config
from thrum.model.errors import ThrumError
from thrum.model.events import (
    AgentAliased,
    AgentExited,
    AgentPlaced,
    AnyFact,
    MessageCreated,
    MessageDeleted,
    MessageReceipt,
    UnknownEvent,
    WakeAttempted,
)
from thrum.model.wake_types import Outcome, Process, Reachable
from thrum.ops.context import Context
from thrum.ops.sessions import ensure_session
from thrum.ops.waiting import WaitQueues
from thrum.runtimes.doors.claude import WAITER, WaiterDoor
from thrum.runtimes.doors.claude_socket import SOCKET, SocketDoor
from thrum.runtimes.doors.turn_end import TURN_ENDS, TurnEndDoor, TurnEnds
from thrum.runtimes.hooks import HookEvent
from thrum.runtimes.waiters import Waiters
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, AttemptRow, View
from thrum.terminal.pane_looks import PaneLooks
from thrum.terminal.typed_door import TYPED, TypedDoor
from thrum.wake import why
from thrum.wake.attempts import Record, Wakeable
from thrum.wake.door import Door
from thrum.wake.loop import Loop
from thrum.wake.plan import AgentState, Look, Offer, Unseen, plan, why_unseen
from thrum.wake.text import Letter

log = logging.getLogger("thrum.wake")

LOOK_SECONDS: Final = 1.0
"""How often an agent is looked at that has something unseen, or a dialog open, and whose runtime may change without a
word."""

_DOORS_OF: Final[Mapping[str, Sequence[str]]] = {
    "": (),
    "claude": (WAITER, SOCKET, TYPED),
    "codex": ("codex.server", "codex.queue"),
    "opencode": ("opencode.waiter",),
    "gemini": ("gemini.turn_end", TYPED),
    "cursor": ("cursor.turn_end", TYPED),
}
"""The doors of each runtime, in the order of preference; of any other, which may be in a pane: `typed` alone."""


def process_text(process: Process | None) -> str:
    """A process as a fact holds it; empty for none."""
    return f"{process[0]} {process[1]}" if process is not None else ""


def process_of(text: str) -> Process | None:
    """The process that a fact holds; None for none, and for what is none."""
    pid, blank, started = text.partition(" ")
    return (int(pid), started) if blank and pid.isdecimal() else None


@dataclass(slots=True)
class WakeService:
    """The parts of waking in one daemon."""

    ctx: Context
    wait_queues: WaitQueues
    environ: Mapping[str, str]
    """What tmux is run with."""
    config: Callable[[], Config]
    panes: PaneLooks = field(init=False)
    states: RuntimeStates = field(init=False)
    dialogs: Dialogs = field(init=False)
    waiters: Waiters = field(init=False)
    codex: CodexService = field(init=False)
    turn_ends: TurnEnds = field(default_factory=TurnEnds)
    loop: Loop = field(init=False)
    _doors: dict[str, Door] = field(init=False)
    _restless: set[str] = field(default_factory=set[str])
    """Agents whose runtime was found in a state that it may leave without a word."""
    _any_restless: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.codex = CodexService(self.ctx, self._look_at_agent)
        self.panes = PaneLooks(self.environ, self.ctx.processes, trio.current_time)
        self.states = RuntimeStates(
            self.ctx.processes,
            self.ctx.runtime_names,
            trio.current_time,
            self.ctx.clock.now_ms,
            self.panes,
            self.codex,
        )
        self.dialogs = Dialogs(self.ctx, self.states, self.config)
        self.waiters = Waiters(self._look_at_process)
        table, absent_since = self.ctx.processes, self.waiters.absent_since
        doors: Sequence[Door] = (
            WaiterDoor(self.waiters),
            SocketDoor(table, absent_since, limits.wake_deaf_seconds),
            TypedDoor(self.panes, table, self._typed_opens_at),
            self.codex.server_door,
            self.codex.queue_door,
            WaiterDoor(self.waiters, "opencode.waiter"),
            *(TurnEndDoor(name, self.turn_ends) for name in TURN_ENDS.values()),
        )
        self._doors = {door.name: door for door in doors}
        self.loop = Loop(self, self.ctx.here.layout.proofs_dir)
        self.wait_queues.served = self.loop.look
        self.wait_queues.reserved = self.loop.in_open_attempt
        self.wait_queues.has_door = self.has_door

    async def serve(self) -> None:
        """Wake agents until cancelled."""
        self.dialogs.remember(self.agents())
        if self.dialogs.open_in:
            self._any_restless.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_states)
            nursery.start_soon(self.codex.serve)
            await self.loop.serve()

    def announce(self, facts: Iterable[AnyFact | UnknownEvent]) -> None:
        """Facts count from now on: look at those whom they concern."""
        facts = tuple(facts)
        self.codex.announce(facts)
        places = self.ctx.registry().by_id
        for fact in facts:
            if isinstance(fact, AgentExited):
                self.states.forget((fact.agent_pid, fact.agent_pid_started))
                self.waiters.forget((fact.agent_pid, fact.agent_pid_started))
            if isinstance(fact, AgentAliased):
                self.dialogs.renamed(fact.of, fact.agent_id)
            for agent_id in _concerned(self.ctx.view, fact):
                # Most recipients have no runtime here: a look at each would cost every send. A place calls for one.
                if not isinstance(fact, MessageCreated) or self._has_runtime(places.get(agent_id)):
                    self.loop.look(agent_id)

    def _has_runtime(self, place: AgentPlace | None) -> bool:
        return place is not None and (place.agent_pid > 1 or self.codex.is_in_thread(place.agent_id))

    def close(self) -> None:
        """The daemon stops: its waiters find another one."""
        self.waiters.close()
        self.turn_ends.waiters.close()

    async def _watch_states(self) -> None:
        while True:
            await self._any_restless.wait()
            await trio.sleep(LOOK_SECONDS)
            try:
                await self.dialogs.look()
            except ThrumError as error:
                log.warning("dialogs: %s", error)
            self._restless.intersection_update(self.loop.awaited())
            await self._look_at_panes()
            for agent_id in self._restless:
                self.loop.look(agent_id)
            if not self._restless and not self.dialogs.open_in:
                self._any_restless = trio.Event()

    async def _look_at_panes(self) -> None:
        async with trio.open_nursery() as nursery:
            for agent_id in self._restless:
                runtime = self.states.of(agent_id, self.ctx.view.agent(agent_id))
                if self._goes_by_pane(runtime):
                    nursery.start_soon(self._look_at_pane, runtime)

    async def _look_at_pane(self, runtime: Reachable) -> None:
        assert runtime.process is not None
        try:
            await self.panes.look(runtime.runtime, runtime.process)
        except ThrumError as error:
            log.info("the pane of %s: %s", runtime.agent_id, error)

    def _goes_by_pane(self, runtime: Reachable) -> bool:
        """Whether its pane tells what nothing else does: its state, or whether a line can be typed."""
        if TYPED not in _doors_of(runtime.runtime) or not self.panes.is_readable(runtime.runtime, runtime.process):
            return False
        return self._typed_opens_at(runtime) is not None

    def _typed_opens_at(self, agent: Reachable) -> float | None:
        """From when on an agent's prompt may be typed into, as no better door came; None: one is there."""
        if agent.process is None:
            return None
        if WAITER not in _doors_of(agent.runtime):
            return 0.0
        since = self.waiters.absent_since(agent.process)
        return None if since is None else since + limits.wake_deaf_seconds

    async def note_event(self, agent_id: str, event: HookEvent) -> None:
        """A hook of the agent's runtime fired. Raises ThrumError: what follows from it is not on disk."""
        kind = event.kind
        if kind == "dialog":
            await self.dialogs.opened(agent_id, event)
            self._any_restless.set()
        elif kind not in ("wait", "other"):
            await self.dialogs.event(agent_id)
        self.loop.look(agent_id)

    def _look_at_agent(self, agent_id: str) -> None:
        self.loop.look(agent_id)

    def _look_at_process(self, process: Process) -> None:
        if agent_id := self.agent_of(process):
            self.loop.look(agent_id)

    def agent_of(self, process: Process) -> str:
        """The agent that is that process of a runtime; empty: none is."""
        for place in self.ctx.registry().by_pid.get(process[0], ()):
            if place.agent_pid_started in ("", process[1]):
                return place.agent_id
        return ""

    def has_door(self, agent_id: str) -> bool:
        """Whether a door of the agent will be tried: then a wait from elsewhere comes after it."""
        if not any(door.state(self.reachable(agent_id)).open for door in self.doors(agent_id)):
            return False
        agent = self.loop.state_of(agent_id)
        return isinstance(plan(agent, trio.current_time()), Offer | Look) and not all(m.told for m in agent.unseen)

    def is_due(self, agent_id: str, door: str) -> bool:
        """Whether the agent is told something by that door now, or when the window of a burst is over."""
        now = trio.current_time()
        action = plan(self.loop.state_of(agent_id), now)
        if isinstance(action, Look):
            return action.at <= now + limits.wake_window_seconds
        return isinstance(action, Offer) and action.door == door

    def can_be_told(self, agent_id: str) -> bool:
        """Whether a live runtime of the agent has a door, be it one that opens soon."""
        runtime = self.reachable(agent_id)
        if runtime.process is None:
            return False
        return self._goes_by_pane(runtime) or any(door.state(runtime).open for door in self.doors(agent_id))

    def why_not_soon(self, row: AgentRow, message_id: str) -> str:
        """Why an agent will not see at once what was sent to it just now; empty: it will. What else is unseen there is
        not asked for, however much it is: every send comes here.
        """
        if message_id in self.wait_queues.held_back(row.agent_id):
            return ""  # a wait has it, or will in a moment
        if not row.agent_pid and not row.runtime:
            return why.PLAIN_SHELL  # most agents of scripts: what the planner says of one without a runtime
        runtime, now = self.states.of(row.agent_id, row), trio.current_time()
        agent = AgentState(
            state=runtime.state,
            state_since=runtime.state_since,
            doors=tuple(door.state(runtime) for door in self._doors_of(row)),
            unseen=(Unseen(message_id, now),),
            runtime=runtime.runtime,
            hooks_fired=runtime.hooks_fired,
        )
        return why_unseen(agent, message_id, now)

    # -- the ports of the loop

    def agents(self) -> Iterable[str]:
        return [place.agent_id for place in self.ctx.registry().agents]

    def reachable(self, agent_id: str) -> Reachable:
        found = self.states.of(agent_id, self.ctx.view.agent(agent_id))
        if found.process is not None and (found.state != "idle" or self._goes_by_pane(found)):
            self._restless.add(agent_id)
            self._any_restless.set()
        elif agent_id in self._restless:
            self._restless.discard(agent_id)
            self.loop.look(agent_id)  # no matter who found it so, it is the loop's to act
        return found

    def doors(self, agent_id: str) -> Sequence[Door]:
        return self._doors_of(self.ctx.view.agent(agent_id))

    def _doors_of(self, row: AgentRow | None) -> Sequence[Door]:
        return [self._doors[name] for name in _doors_of(row.runtime if row else "")]

    def wakeable(self, agent_id: str) -> Sequence[Wakeable]:
        held = self.wait_queues.held_back(agent_id)
        now = format_ms(self.ctx.clock.now_ms())
        return [
            Wakeable(row.message_id, row.author, row.urgent, row.answers_own)
            for row in self.ctx.view.wakeable(agent_id, now)
            if row.message_id not in held
        ]

    def letters(self, message_ids: Sequence[str]) -> Sequence[Letter]:
        found = (self.ctx.view.message(message_id) for message_id in message_ids)
        return [
            Letter(each.message_id, each.agent_id, each.body_content)
            for each in found
            if each is not None and not each.deleted
        ]

    def records(self, agent_id: str) -> Sequence[Record]:
        return [_record(row) for row in reversed(self.ctx.view.attempts(agent_id, limits.wake_unseen_max))]

    def attempt(self, attempt_id: str) -> Record | None:
        row = self.ctx.view.attempt(attempt_id)
        return None if row is None else _record(row)

    async def record(self, record: Record) -> None:
        def decide(view: View, stamp: Stamp) -> Decision[None]:
            return Decision([_fact(stamp, record)], lambda _view, _seqs: None)

        await self.ctx.journal.commit(decide)

    async def prove(self, record: Record) -> None:
        def decide(view: View, stamp: Stamp) -> Decision[None]:
            facts: list[AnyFact] = []
            known = view.attempt(record.attempt_id)
            if known is not None and known.outcome == "offered":
                facts.append(_fact(stamp, replace(record, outcome="proved")))
            marked = view.markable(record.agent_id, list(record.message_ids), "seen")
            if marked:
                session_id, started = ensure_session(view, stamp, record.agent_id)
                facts = [*started, *facts]
                facts += [
                    stamp.make(
                        MessageReceipt,
                        message_id=message_id,
                        agent_id=record.agent_id,
                        session_id=session_id,
                        receipt_type="seen",
                    )
                    for message_id in marked
                ]
            return Decision(facts, lambda _view, _seqs: None)

        await self.ctx.journal.commit(decide)


def _doors_of(runtime: str) -> Sequence[str]:
    return _DOORS_OF.get(runtime, (TYPED,))


def _concerned(view: View, fact: AnyFact | UnknownEvent) -> Iterable[str]:
    """The agents for whom a fact may change what wakes them, or whether they can be woken."""
    match fact:
        case MessageCreated():
            replaced = view.message_head(fact.supersedes) if fact.supersedes else None
            return (*(() if fact.quiet else fact.recipients), *(replaced.recipients if replaced else ()))
        case MessageDeleted():
            head = view.message_head(fact.message_id)
            return head.recipients if head else ()
        case MessageReceipt() | AgentPlaced() | AgentExited():
            return (fact.agent_id,)
        case AgentAliased():
            return (fact.agent_id, fact.of)
        case _:
            return ()


def _record(row: AttemptRow) -> Record:
    return Record(
        row.agent_id,
        row.attempt_id,
        row.door,
        tuple(row.message_ids),
        cast("Outcome", row.outcome),
        row.detail,
        process_of(row.process),
    )


def _fields(record: Record) -> dict[str, Any]:
    return {
        "agent_id": record.agent_id,
        "attempt_id": record.attempt_id,
        "door": record.door,
        "message_ids": record.message_ids,
        "outcome": record.outcome,
        "detail": record.detail,
        "process": process_text(record.process),
    }


def _fact(stamp: Stamp, record: Record) -> WakeAttempted:
    return stamp.make(WakeAttempted, **_fields(record))
