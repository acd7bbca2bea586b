"""The end of a turn as a door: what the hook of that moment answers makes the program go on with it (Gemini, Cursor).

Such a hook is asleep here only for as long as an offer is on its way: milliseconds. The program waits for it and
accepts no prompt meanwhile. No turn is prolonged twice in a row: agents that answer each other would never end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from thrum.model.wake_types import DoorState, Process, Reachable
from thrum.runtimes.doors.claude import WaiterDoor
from thrum.runtimes.hooks import HookEvent
from thrum.runtimes.waiters import Waiter, Waiters

TURN_ENDS: Final[Mapping[str, str]] = {"gemini": "gemini.turn_end", "cursor": "cursor.turn_end"}
"""The name of the door, by runtime."""
WORKS: Final = "working (turn end)"
RESTS: Final = "idle: told when its next turn ends"


class TurnEnds:
    """The hooks of turns' ends that are asleep in one daemon, and the processes whose turn one of them prolonged."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self._prolonged: set[Process] = set()

    def begin(self, process: Process, event: HookEvent) -> Waiter | None:
        """A turn has come to its end: what its hook is to sleep on. None: it is to stay at its end.

        The caller leaves it (`Waiters.leave`). Raises ShuttingDown.
        """
        if event.kind != "turn_end" or event.runtime not in TURN_ENDS:
            return None
        was_prolonged = process in self._prolonged
        self._prolonged.discard(process)
        return None if event.again or was_prolonged else self.waiters.add(process)

    def prolong(self, process: Process) -> None:
        """The turn goes on with what its hook answers."""
        self._prolonged.add(process)

    def forget(self, process: Process) -> None:
        """The process has ended."""
        self._prolonged.discard(process)


class TurnEndDoor(WaiterDoor):
    """What the hook at the end of a turn answers."""

    def __init__(self, name: str, ends: TurnEnds) -> None:
        super().__init__(ends.waiters, name)

    def state(self, agent: Reachable) -> DoorState:
        return replace(super().state(agent), why=WORKS if agent.state == "working" else RESTS)
