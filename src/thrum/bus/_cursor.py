"""The rules by which a subscriber sees every fact of an audience once and in order. No I/O. Source: rpc.md §8.

The bus may lose frames, the store never does. A `Cursor` looks at each frame and says what to do: take it, ask the
store, or start over.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

from thrum.bus.topics import Head
from thrum.model.errors import BadCursor
from thrum.model.wire_types import Hint


class Position(NamedTuple):
    """Up to where a stream was handled. Its text, `str(position)`, is one word to store and to resume from.

    It belongs to this clone's daemon and survives its restarts; a database rebuilt has another `epoch`.
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


_POSITION: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,18})", re.ASCII)


def parse_position(text: str) -> Position:
    """The position that `str(position)` wrote. Raises BadCursor."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise BadCursor(f'not a cursor: "{text[:80]}"')
    return Position(match[1], int(match[2]))


class Do(enum.Enum):
    """What a frame asks of the subscriber."""

    NOTHING = "nothing"
    HANDLE = "handle"
    """Handle the hint; it is the next one."""
    FETCH = "fetch"
    """Something was missed: `events.since` from the cursor until `more` is false, telling `fetched` each time."""
    RESET = "reset"
    """The numbers were reassigned: take the cursor from `bus.info`, tell `reset`, then read the inbox."""


class Cursor:
    """Where one audience was read up to, and the table of rpc.md §8."""

    __slots__ = ("epoch", "seq")

    def __init__(self, epoch: str, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq

    def see(self, said: Hint | Head) -> Do:
        """Judge one frame of the audience. `HANDLE` counts it as handled."""
        if said.epoch != self.epoch:
            return Do.RESET
        if isinstance(said, Head):
            if said.seq > self.seq:
                return Do.FETCH
            self.seq = max(self.seq, said.head)
            return Do.NOTHING
        if said.seq <= self.seq:
            return Do.NOTHING
        if said.prev > self.seq:
            return Do.FETCH
        self.seq = said.seq
        return Do.HANDLE

    def fetched(self, next_seq: int) -> None:
        """Everything up to `next_seq` was read from the store."""
        self.seq = max(self.seq, next_seq)

    def reset(self, epoch: str, seq: int) -> None:
        """Start over from what `bus.info` said."""
        self.epoch, self.seq = epoch, seq

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.seq)
