"""The store API for operations: what a decision is given, and what it returns.

An operation never writes. It hands the journal a function that looks at the projection inside the committer's
transaction (so it sees every earlier call) and returns facts; the committer stamps, applies, appends, flushes, commits,
and only then lets the answer go. Source: house.md, "One writer"; events.md §2 "Stamping", §11 "A batch", §12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from thrum.model import clock, ids, signatures
from thrum.model.events import KNOWN_V, AnyFact, Fact, tag_of
from thrum.model.methods.method import ClientKey
from thrum.store.queries.views import View

F = TypeVar("F", bound=Fact)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Stamp:
    """One reading of the clock, for one call. All its facts and minted ids carry that reading."""

    __slots__ = ("_ulids", "daemon_id", "ms", "text")

    def __init__(self, ms: int, ulids: ids.Ulids, daemon_id: str) -> None:
        self.ms = ms
        self.text = clock.format_ms(ms)
        self.daemon_id = daemon_id
        self._ulids = ulids

    def new_id(self, prefix: str) -> str:
        """A fresh id such as `msg_…`; the time inside it is this reading."""
        return prefix + self._ulids.at(self.ms)

    def later_than(self, winner: str) -> str:
        """The time of a fact that changes a row whose current winner has the time `winner` (`""`: none): this reading,
        raised if need be, so that a user's action takes effect although a foreign clock ran ahead.
        """
        if winner and winner >= self.text:
            return clock.format_ms(clock.parse_ms(winner) + 1)
        return self.text

    def make(self, cls: type[F], *, at: str = "", **fields: Any) -> F:
        """A stamped fact. `at` is given by `later_than` for facts that change a row. What begins a thing has the ULID
        of the thing's id, which came from `new_id`.
        """
        made = signatures.MADE.get(tag_of(cls))
        entity = fields[made.field] if made else ""
        return cls(
            timestamp=at or self.text,
            event_id="evt_" + entity.removeprefix(made.prefix) if made else self.new_id("evt_"),
            v=KNOWN_V,
            origin_daemon=self.daemon_id,
            **fields,
        )


@dataclass(frozen=True, slots=True)
class Decision(Generic[R]):
    """What an operation decided: facts in the order in which they apply, and how the answer is made.

    `answer(view, seqs)` runs in the same transaction after the facts were applied; `seqs` are their numbers. `main` is
    the index of the fact that carries the client key. No facts: nothing is written, the answer goes out at once.
    """

    facts: Sequence[AnyFact]
    answer: Callable[[View, Sequence[int]], R]
    main: int = 0


Decide = Callable[[View, Stamp], Decision[R]]


class Journal(Protocol):
    """The one way to write. The committer is it; operations only know this."""

    async def commit(
        self,
        decide: Decide[R],
        *,
        key: ClientKey | None = None,
        replay: Callable[[View, AnyFact, int], R] | None = None,
        heavy: bool = False,
    ) -> R:
        """Decide, write, and answer when it is on disk.

        `heavy`: to decide or to apply may take so long that the loop must not stand still; `decide` runs in another
        thread then, and looks at nothing but its view and stamp.

        With `key`: a call that was already executed writes nothing and gets `replay(view, its main fact, its seq)`,
        or is simply decided again without `replay`. Raises what `decide` raises; StoreFailed (nothing was recorded),
        Busy, ShuttingDown, NewerFormat, ClientKeyReused. A caller that is cancelled once its call was handed over may
        find it executed.
        """
        ...


__all__ = ["ClientKey", "Decide", "Decision", "Journal", "Stamp"]
