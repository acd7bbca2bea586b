"""What the rooms that wake agents hand to each other: doors and their answers. Pure data.

Doors are made in `runtimes` and `terminal`, below `wake`, so what they are told and what they answer stands here.
Source: wake.md §3, §4. Times are seconds of a monotonic clock: a laptop's sleep does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["idle", "working", "dialog", "starting", "unknown", "gone"]
"""Of an agent's runtime. `gone`: its process, or its identity file, is no more."""
Outcome = Literal["offered", "proved", "expired", "refused", "failed", "revoked"]
"""Of an attempt. All but `offered` are final; `refused`, `failed` and `revoked`: nothing was said."""
COUNTED: Final[Sequence[Outcome]] = ("offered", "proved", "expired")
"""Outcomes of attempts that may have said something: the others do not count (wake.md §1.3)."""
Process = tuple[int, str]
"""A process: its pid, and what tells it from others of that pid."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """An agent and the runtime that it is in, as of now."""

    agent_id: str
    state: State
    state_since: float
    process: Process | None = None
    """The runtime's. None where it is gone, or was never known."""
    runtime: str = ""
    """`claude`, `codex` …; empty for a plain shell."""
    session: str = ""
    """The runtime's own id of its conversation."""
    pane: str = ""
    worktree: str = ""
    hooks_fired: bool = True
    """Whether any hook of thrum's fired in this process."""


@dataclass(frozen=True, slots=True)
class DoorState:
    """How one door of one agent is, as far as the door knows."""

    name: str
    proves: bool
    """Whether a hook can prove what it says: False as long as none has fired in this process of the runtime."""
    open: bool
    takes: frozenset[State]
    """The states of the runtime in which it may be used."""
    held: bool = False
    """Whether the runtime keeps what it was given here (a dialog, a row in a queue)."""
    failures: int = 0
    """How often in a row it failed: wake's bookkeeping, a door leaves it 0."""
    resting_until: float = 0.0
    """Wake's bookkeeping, as `failures` is."""
    why: str = ""
    """Why it is not open, where that is worth telling."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A door said nothing, for the moment was wrong: a draft, a dialog, another owner of the terminal."""

    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A door said nothing, because it is broken: no process listens, or took the answer."""

    why: str


Offered = Literal["offered"] | Refused | Failed
"""What a door answers: `offered` once thrum's last byte was handed over."""
