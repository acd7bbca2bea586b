"""What the projection consists of: entities that begin with a create, and the bytes of the facts about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from thrum.model.events import AnyFact
from thrum.model.origins import Provenance
from thrum.store.projection.watermarks import Order

ReadLine = Callable[[str, int, int], bytes]
"""`read_line(file, offset, length)`: the line on disk, without its newline. Never asked for lines of the batch that is
being applied: the projection still holds those itself."""

_FRESH_FACTS: Final = 4_096
_FRESH_BYTES: Final = 24 * 1024 * 1024


class Winner(NamedTuple):
    """The create that counts: the smallest of all that are not tombstoned. `origin`: its daemon."""

    trust: int
    at: str
    event_id: str
    origin: str


class Entity(Protocol):
    """A kind of thing that begins with a create: its rows, as a function of the facts that count."""

    prefix: str
    create_type: str

    def winner(self, id: str, /) -> Winner | None:
        """The create that counts, None if the entity does not exist."""
        ...

    def is_tombstoned(self, create: AnyFact, order: Order, who: Provenance, /) -> bool:
        """Whether a watermark tombstones this create. Once true, true for ever."""
        ...

    def is_doomed(self, id: str, who: Provenance, /) -> bool:
        """Whether a watermark tombstones the entity with that create, because of what was merged into it."""
        ...

    def insert(self, create: AnyFact, order: Order, seq: int, who: Provenance, /) -> None:
        """The rows of a thing that is not there."""
        ...

    def erase(self, id: str, /) -> None:
        """Every row of the thing, and what it gave to its neighbours."""
        ...

    def merge(self, id: str, fact: AnyFact, order: Order, file: str, who: Provenance, /) -> bool:
        """One more fact for a thing that is there, by whom it may be. False when it does not count."""
        ...


class Lines:
    """The bytes of facts: those of the last batches from memory, for they may not be on disk yet, others from disk."""

    def __init__(self, read_line: ReadLine) -> None:
        self._read_line = read_line
        self._young: dict[tuple[str, int], bytes] = {}
        self._old: dict[tuple[str, int], bytes] = {}
        self._bytes = 0

    def keep(self, file: str, offset: int, raw: bytes) -> None:
        # Two generations, each larger than a batch may be: whatever falls out was flushed long ago.
        self._young[file, offset] = raw
        self._bytes += len(raw)
        if len(self._young) > _FRESH_FACTS or self._bytes > _FRESH_BYTES:
            self._old, self._young, self._bytes = self._young, {}, 0

    def forget(self) -> None:
        self._young, self._old, self._bytes = {}, {}, 0

    def read(self, file: str, offset: int, length: int) -> bytes:
        raw = self._young.get((file, offset)) or self._old.get((file, offset))
        return self._read_line(file, offset, length) if raw is None else raw
