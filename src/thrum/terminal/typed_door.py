"""The last door: a line typed into the runtime's prompt (wake.md §3). It says that there is mail, not what it is.

It is open while the last look found the prompt idle and empty and its owner in front; `typing` looks twice more before
it touches anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from thrum.identity.processes import ProcessTable, is_live
from thrum.model.errors import ThrumError
from thrum.model.wake_types import DoorState, Failed, Offered, Process, Reachable, Refused
from thrum.terminal import typing
from thrum.terminal.pane_looks import PaneLooks, Place
from thrum.terminal.typing import TmuxPane, type_line

TYPED: Final = "typed"

Port = Callable[[Place, int], TmuxPane]


class TypedDoor:
    """`opens_at(agent)`: from when on it may be used, as far as better doors are concerned; None: they are there."""

    def __init__(
        self,
        panes: PaneLooks,
        table: ProcessTable,
        opens_at: Callable[[Reachable], float | None] = lambda agent: 0.0,
        port: Port | None = None,
    ) -> None:
        self._panes = panes
        self._table = table
        self._opens_at = opens_at
        self._port = port or self._tmux_pane

    @property
    def name(self) -> str:
        return TYPED

    def state(self, agent: Reachable) -> DoorState:
        seen = self._panes.last(agent.process)
        opens_at = self._opens_at(agent) if agent.runtime else None
        why = seen.why if seen is not None else ""
        return DoorState(
            TYPED,
            proves=agent.hooks_fired,
            open=seen is not None and not why and opens_at is not None,
            takes=frozenset({"idle"}),
            opens_at=opens_at or 0.0,
            one_line=True,
            why=f"deaf: {why}" if why and opens_at is not None else "",
        )

    async def offer(self, agent: Reachable, text: str) -> Offered:
        await trio.lowlevel.checkpoint()
        place = self._panes.place(agent.process)
        if agent.process is None or place is None or not self._lives(agent.process):
            return Failed("its pane is not known")
        port = self._port(place, agent.process[0])
        try:
            typed = await type_line(port, agent.runtime, text)
        except ThrumError as error:
            # Where tmux did not say whether it pressed Enter: better unseen than told twice.
            return "offered" if port.entered else Failed(str(error))
        finally:
            with trio.CancelScope(shield=True):
                await port.unmark()
        match typed:
            case typing.Offered():
                return "offered"
            case typing.Refused(why):
                return Refused(why)
            case typing.Failed(why, left):
                return Failed(f"{why}; the line was left in the prompt" if left else why)

    def _lives(self, process: Process) -> bool:
        """Whether the pid is still that process: another one's prompt is not typed into."""
        try:
            seen = self._table.read(process[0])
        except OSError:
            return False
        return seen is not None and is_live(seen) and seen.started == process[1]

    def _tmux_pane(self, place: Place, pid: int) -> TmuxPane:
        return TmuxPane(self._panes.tmux(place), place.pane, pid, self._table)
