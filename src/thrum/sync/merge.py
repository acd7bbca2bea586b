"""How two piles of lines become one, the same in every clone. Pure (events.md §11 "Union")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Order = tuple[str, str]
"""`(normalised time, event id)`: the order of facts, compared as text."""


@dataclass(frozen=True, slots=True)
class Voids:
    """What cleanups and purges made void (events.md §7, "Horizons").

    `agents` and `authors`: the horizon of each id that was cleaned up, or cleaned up with its messages. `purge`: the
    greatest cutoff, `""` without one. `session_purged(session_id)`: whether a session is known whose end lies before it.
    """

    agents: Mapping[str, Order]
    authors: Mapping[str, Order]
    purge: str
    session_purged: Callable[[str], bool]
