"""A door: one way to say something to an agent inside its runtime.

Doors are made in `runtimes` and `terminal`, which stand below this room and know the shapes in `model.wake_types`; the
daemon hands them in. One contract suite holds for all of them: tests/contract/test_door_contract.py.
"""

from __future__ import annotations

from typing import Protocol

from thrum.model.wake_types import DoorState, Offered, Reachable


class Door(Protocol):
    """One kind of door, for every agent that it may lead to."""

    @property
    def name(self) -> str:
        """As it stands in facts and in `wake.status`."""
        ...

    def state(self, agent: Reachable) -> DoorState:
        """How this door of an agent is, as far as is known: cheap, nothing is waited for."""
        ...

    async def offer(self, agent: Reachable, text: str) -> Offered:
        """Say `text`, whole and once, and return when thrum's last byte of it is handed over.

        `Refused` and `Failed`: nothing was said, and nothing will be. Cancelled, it has said nothing either: from the
        first byte that can't be taken back it must not be cancelled any more, and returns. No other error is raised.
        """
        ...
