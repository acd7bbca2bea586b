"""Ids of attempts to wake: `wak_` and 26 random characters. A model that shows a whole one got it through its door."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from thrum.model import events
from thrum.model.events import WakeAttempted
from thrum.model.ids import ALPHABET

PREFIX: Final = "wak_"
CHARS: Final = len(PREFIX) + 26
_SHORT: Final = 8


def new_attempt_id() -> str:
    """A fresh one, from the system's randomness."""
    return PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(CHARS - len(PREFIX)))


def short_attempt_id(attempt_id: str) -> str:
    """What may be shown of one: else an agent that looks at its attempts proves them (wake.md §1)."""
    return attempt_id[:_SHORT]


def shown(raw: bytes, fact: events.AnyFact | events.UnknownEvent) -> bytes:
    """The line of a fact as it may be shown outside the daemon."""
    if not isinstance(fact, WakeAttempted):
        return raw
    return events.encode(msgspec.structs.replace(fact, attempt_id=short_attempt_id(fact.attempt_id)))
