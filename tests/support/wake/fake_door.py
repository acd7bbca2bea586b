"""A door into a model that a test makes: it says, refuses and fails as told, and lies, loses, doubles and delays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from thrum.model.wake_types import DoorState, Failed, Offered, Reachable, Refused, State

IDLE_AND_WORKING: frozenset[State] = frozenset({"idle", "working", "unknown"})


@dataclass
class FakeDoor:
    """`hear(agent, text)` is the runtime's side: called once for each text that arrives."""

    hear: Callable[[Reachable, str], None]
    name: str = "waiter"
    proves: bool = True
    takes: frozenset[State] = IDLE_AND_WORKING
    is_open: bool = True
    held: bool = False
    answers: deque[Refused | Failed] = field(default_factory=deque[Refused | Failed])
    """What the next offers answer, saying nothing; when there are no more, it says what it is given."""
    knock_seconds: float = 0.0
    """How long it takes before anything is said: so long it can be cancelled."""
    delays_seconds: float = 0.0
    """How long after the last byte the text arrives."""
    loses: bool = False
    """It answers `offered`, and nothing arrives."""
    doubles: bool = False
    """Everything arrives twice."""
    lies: bool = False
    """It answers `Failed`, and the text arrives."""
    calls: int = 0

    def state(self, agent: Reachable) -> DoorState:
        return DoorState(self.name, proves=self.proves, open=self.is_open, takes=self.takes, held=self.held)

    async def offer(self, agent: Reachable, text: str) -> Offered:
        self.calls += 1
        await trio.sleep(self.knock_seconds)
        if not self.is_open:
            return Failed("nobody listens")
        if self.answers:
            return self.answers.popleft()
        for _ in range(0 if self.loses else 2 if self.doubles else 1):
            self._arrive(agent, text)
        return Failed("it says") if self.lies else "offered"

    def _arrive(self, agent: Reachable, text: str) -> None:
        if not self.delays_seconds:
            return self.hear(agent, text)

        async def later() -> None:
            await trio.sleep(self.delays_seconds)
            self.hear(agent, text)

        # The runtime's life, not the daemon's: what was handed over arrives, whoever dies.
        trio.lowlevel.spawn_system_task(later)
