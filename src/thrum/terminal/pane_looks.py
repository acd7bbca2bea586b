"""In which pane a runtime's process is, and what it showed at the last look.

A pane is found by what its process was started with (`TMUX`, `TMUX_PANE`): that holds for a session that a
person made too, on any server, and after it was renamed. Whether the process still is in it, each look asks the
terminal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from thrum.identity.processes import ProcessTable
from thrum.model.wake_types import Process, State
from thrum.terminal.foreground import foreground
from thrum.terminal.panes import RUNTIMES, PaneState, read_pane
from thrum.terminal.tmux import Server, Tmux
from thrum.terminal.typing import Sight, obstacle

FRESH_SECONDS: Final = 3.0
"""How long a look counts."""
_PANE: Final = re.compile(r"%\d+")
_STATES: Final[Mapping[PaneState, State]] = {
    "idle_empty": "idle",
    "idle_draft": "idle",
    "working": "working",
    "dialog": "dialog",
    "trust_dialog": "dialog",
    "starting": "starting",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A pane: the path of its server's socket, and its id (`%3`)."""

    socket: str
    pane: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found. `since`: the first of the looks in a row that found that state; both are the clock's."""

    state: State
    why: str
    """Why nothing may be typed; empty if it may."""
    at: float
    since: float


@dataclass(slots=True)
class PaneLooks:
    """The panes of one daemon's agents. `environ`: what tmux is run with."""

    environ: Mapping[str, str]
    table: ProcessTable
    now: Callable[[], float]
    _places: dict[Process, Place | None] = field(default_factory=dict[Process, "Place | None"])
    _seen: dict[Process, Seen] = field(default_factory=dict[Process, Seen])

    def place(self, process: Process | None) -> Place | None:
        """The pane that a process was started in; None: in none, or that can't be told. Blocking, once a process."""
        if process is None:
            return None
        if process not in self._places:
            try:
                self._places[process] = place_of(self.table.environ(process[0]))
            except OSError:
                self._places[process] = None
        return self._places[process]

    def is_readable(self, runtime: str, process: Process | None) -> bool:
        """Whether a look can tell anything: a pane of a runtime whose screen is known."""
        return runtime in RUNTIMES and self.place(process) is not None

    def tmux(self, place: Place) -> Tmux:
        return Tmux(self.environ, Server(path=place.socket))

    async def look(self, runtime: str, process: Process) -> None:
        """Look at a process's pane. Raises what `Tmux` raises."""
        place = self.place(process)
        if place is None or runtime not in RUNTIMES:
            return
        look = await self.tmux(place).look(place.pane)
        sight = Sight(look, (await foreground(look.pane_pid, process[0], self.table)).owner)
        state: State = "unknown"
        if sight.owner == "agent":
            state = _STATES.get(read_pane(runtime, look.screen).state, "unknown")
        before, now = self._seen.get(process), self.now()
        is_same = before is not None and before.state == state
        self._seen[process] = Seen(state, obstacle(runtime, sight), now, before.since if before and is_same else now)

    def last(self, process: Process | None) -> Seen | None:
        """The last look, as long as it counts."""
        seen = self._seen.get(process) if process is not None else None
        return seen if seen is not None and self.now() - seen.at <= FRESH_SECONDS else None

    def forget(self, process: Process) -> None:
        """The process has ended."""
        self._places.pop(process, None)
        self._seen.pop(process, None)


def place_of(environ: Mapping[str, str]) -> Place | None:
    """The pane that these variables name, on a server of this user."""
    socket, pane = environ.get("TMUX", "").split(",")[0], environ.get("TMUX_PANE", "")
    if not os.path.isabs(socket) or not _PANE.fullmatch(pane):
        return None
    try:
        mine = os.stat(socket).st_uid == os.getuid()
    except OSError:
        return None
    return Place(socket, pane) if mine else None
