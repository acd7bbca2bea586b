"""What is known of one agent's attempts. Pure bookkeeping: no clock, no I/O.

It is made of the facts `wake.attempt` alone, live as after a restart, so nothing else need be remembered: which doors a
message went through, what is open, what was told without proof. Only times and the health of doors start over, as
they use a monotonic clock (wake.md §4). Times are its seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from thrum.model.limits import wake_failures_max, wake_probable_seconds, wake_refused_seconds, wake_rest_seconds
from thrum.model.wake_types import COUNTED, DoorState, Outcome, Process, Reachable, State
from thrum.wake.plan import AgentState, OpenAttempt, Unseen, Urgent

_MINUTE: Final = 60.0

NO_PROOF: Final = "no proof"
"""The detail of an attempt whose door can't be proved: it stays `offered`, and is not open."""


# -- facts and what is to be told


@dataclass(frozen=True, slots=True)
class Record:
    """What a fact `wake.attempt` says. `process`: the runtime's that it was made for."""

    agent_id: str
    attempt_id: str
    door: str
    message_ids: tuple[str, ...]
    outcome: Outcome
    detail: str = ""
    process: Process | None = None

    @property
    def is_told(self) -> bool:
        """Whether a door without proof said it: it has ended as `offered`."""
        return self.outcome == "offered" and self.detail == NO_PROOF

    @property
    def is_open(self) -> bool:
        return self.outcome == "offered" and not self.is_told


@dataclass(frozen=True, slots=True)
class Wakeable:
    """A message that its recipient's model was not given yet; neither deleted, superseded, expired nor quiet."""

    message_id: str
    author: str
    urgent: bool = False
    answers_own: bool = False


@dataclass(slots=True)
class _Open:
    """The open attempt, or one without proof that its door has not said yet."""

    record: Record
    offered: float
    handed_over: bool
    state: State = "unknown"
    """Of the runtime when it was offered."""
    session: str = ""
    quiet_from: float = 0.0
    """The last moment at which its runtime is known to have held something."""


@dataclass(slots=True)
class _Health:
    """Of one door of this agent, for this process of its runtime."""

    failures: int = 0
    failed_until: float = 0.0
    refusals: int = 0
    refused_until: float = 0.0


@dataclass(slots=True)
class Attempts:
    """The bookkeeping of one agent. Its driver reports each event once, in the order in which it happens."""

    agent_id: str
    _records: dict[str, Record] = field(default_factory=dict[str, Record])
    _open: _Open | None = None
    _process: Process | None = None
    _state: tuple[State, float] = ("unknown", 0.0)
    _arrived: dict[str, float] = field(default_factory=dict[str, float])
    _urgent: tuple[Urgent, ...] = ()
    _health: dict[str, _Health] = field(default_factory=dict[str, _Health])
    _told: dict[str, float] = field(default_factory=dict[str, float])
    """Messages that a door without proof said, and when; negative infinity: a turn began just after that."""
    _last_offer: float | None = None
    _last_offer_while_working: float | None = None

    @classmethod
    def rebuilt(cls, agent_id: str, records: Iterable[Record], now: float) -> Attempts:
        """After a restart: an open attempt stays open, and may have been said; times start over (wake.md §4).

        `records`: the latest fact of each attempt, the oldest attempt first; they may be of processes long gone.
        """
        made = cls(agent_id, {record.attempt_id: record for record in records})
        for record in made._records.values():
            if record.is_open:
                made._open = _Open(record, now, handed_over=True, quiet_from=now)
        return made

    # -- what happens

    def offered(self, record: Record, runtime: Reachable, now: float) -> None:
        """The fact is on disk; the door is called next."""
        assert self._open is None, "never two open attempts"
        self._records[record.attempt_id] = record
        self._open = _Open(record, now, handed_over=False, state=runtime.state, session=runtime.session, quiet_from=now)

    def handed_over(self, attempt_id: str, now: float) -> None:
        """The door has said it. One that can't be proved has ended with that (wake.md §3, "Doors without proof")."""
        record = self._records.get(attempt_id)
        if record is None:
            return
        self._health[record.door] = _Health()
        self._last_offer = now
        attempt = self._open if self._open and self._open.record.attempt_id == attempt_id else None
        if attempt is not None:
            called = attempt.offered
            attempt.handed_over, attempt.offered, attempt.quiet_from = True, now, now
            if attempt.state == "working":
                self._last_offer_while_working = now
            if attempt.record.is_told:
                self._open = None
                # The turn may have begun before its door has said that it is through.
                self._told.update((message_id, called) for message_id in record.message_ids)

    def closed(self, attempt_id: str, outcome: Outcome, now: float) -> None:
        """A final outcome is on disk. The first one counts: a proof that comes later gives receipts, nothing else."""
        record = self._records.get(attempt_id)
        if record is None or record.outcome != "offered":
            return
        self._records[attempt_id] = replace(record, outcome=outcome)
        attempt = self._open
        if attempt is not None and attempt.record.attempt_id == attempt_id:
            self._open = None
            if outcome == "proved" and not attempt.handed_over:
                self._last_offer = now
                if attempt.state == "working":
                    self._last_offer_while_working = now
        health = self._health.setdefault(record.door, _Health())
        if outcome == "failed":
            health.failures += 1
            if health.failures >= wake_failures_max:
                health.failed_until = now + wake_rest_seconds
        elif outcome == "refused":
            health.refused_until = now + min(wake_rest_seconds, wake_refused_seconds * 2**health.refusals)
            health.refusals = min(health.refusals + 1, 16)

    def observe(
        self, runtime: Reachable, doors: Sequence[DoorState], wakeable: Sequence[Wakeable], now: float
    ) -> AgentState:
        """How things are now, as the planner wants them. `wakeable`: oldest first; `doors`: in order of preference."""
        self._note_runtime(runtime)
        self._note_messages(wakeable, now)
        self._note_turn(runtime)
        attempt = self._open
        if attempt is not None and any(door.held for door in doors):
            attempt.quiet_from = now
        return AgentState(
            state=runtime.state,
            state_since=runtime.state_since,
            doors=tuple(self._with_health(door) for door in doors),
            unseen=self._unseen(wakeable),
            open=None if attempt is None else self._as_open(attempt, runtime),
            last_offer=self._last_offer,
            last_offer_while_working=self._last_offer_while_working,
            recent_urgent=self._urgent,
            runtime=runtime.runtime,
            hooks_fired=runtime.hooks_fired,
        )

    def record(self, attempt_id: str) -> Record | None:
        """What is known of an attempt that is open, or about something unseen."""
        return self._records.get(attempt_id)

    @property
    def open_ids(self) -> tuple[str, ...]:
        """The messages of the open attempt."""
        return () if self._open is None else self._open.record.message_ids

    @property
    def is_awaiting(self) -> bool:
        """Whether an attempt is open."""
        return self._open is not None

    # -- what follows from it

    def _note_runtime(self, runtime: Reachable) -> None:
        """A new process starts over; a new state gives doors that refused another chance."""
        if runtime.process is not None and runtime.process != self._process:
            if self._process is not None:
                self._health.clear()
                self._last_offer_while_working = None
            self._process = runtime.process
        if (runtime.state, runtime.state_since) != self._state:
            self._state = (runtime.state, runtime.state_since)
            for health in self._health.values():
                health.refusals, health.refused_until = 0, 0.0

    def _note_turn(self, runtime: Reachable) -> None:
        """A state that it entered just after an offer without proof: of a turn that began, or that is over already."""
        if runtime.state in ("working", "dialog", "idle"):
            for message_id, told in self._told.items():
                if told < runtime.state_since <= told + wake_probable_seconds:
                    self._told[message_id] = -inf

    def _note_messages(self, wakeable: Sequence[Wakeable], now: float) -> None:
        """When each came, and what can be forgotten."""
        ids = {each.message_id for each in wakeable}
        came = [each for each in wakeable if each.message_id not in self._arrived]
        self._arrived = {key: at for key, at in self._arrived.items() if key in ids}
        self._arrived.update((each.message_id, now) for each in came)
        self._told = {key: at for key, at in self._told.items() if key in ids}
        if self._urgent or any(each.urgent for each in came):
            kept = (each for each in self._urgent if each.message_id in ids or now - each.arrived < 2 * _MINUTE)
            new = (Urgent(each.message_id, each.author, now) for each in came if each.urgent)
            self._urgent = (*kept, *new)
        open_id = self._open.record.attempt_id if self._open else ""
        self._records = {
            key: record
            for key, record in self._records.items()
            if key == open_id or not ids.isdisjoint(record.message_ids)
        }

    def _unseen(self, wakeable: Sequence[Wakeable]) -> tuple[Unseen, ...]:
        counted: dict[str, list[Record]] = {each.message_id: [] for each in wakeable}
        for record in self._records.values():
            if record.outcome in COUNTED and record.process == self._process:
                for message_id in record.message_ids:
                    if message_id in counted:
                        counted[message_id].append(record)
        return tuple(
            Unseen(
                each.message_id,
                self._arrived[each.message_id],
                urgent=each.urgent,
                answers_own=each.answers_own,
                attempts=tuple(record.door for record in counted[each.message_id]),
                told=any(record.is_told for record in counted[each.message_id]),
                told_at=self._told.get(each.message_id, -inf),
                probable=self._told.get(each.message_id) == -inf,
            )
            for each in wakeable
        )

    def _as_open(self, attempt: _Open, runtime: Reachable) -> OpenAttempt:
        record = attempt.record
        if attempt.session == "":
            attempt.session = runtime.session
        outlived = ""
        if runtime.process is not None and record.process != runtime.process:
            outlived = "new process"
        elif runtime.session and attempt.session != runtime.session:
            outlived = "new session"
        return OpenAttempt(
            attempt_id=record.attempt_id,
            door=record.door,
            message_ids=record.message_ids,
            offered=attempt.offered,
            handed_over=attempt.handed_over,
            idle_since=max(runtime.state_since, attempt.quiet_from) if runtime.state == "idle" else None,
            outlived=outlived,
        )

    def _with_health(self, door: DoorState) -> DoorState:
        health = self._health.get(door.name)
        if health is None:
            return door
        until = max(health.failed_until, health.refused_until)
        return replace(door, failures=health.failures, resting_until=until)
