"""Ids of attempts to wake, which are their secret tokens: a model that shows a whole one got it through its door.

Only a door says one whole; everything else gets the first characters (wake.md §1.2).
"""

from __future__ import annotations

import re
import secrets
from typing import Final

import msgspec

from thrum.model import events
from thrum.model.events import WakeAttempted
from thrum.model.ids import ulid_of

_TOKEN: Final = re.compile(r"wak_[0-7][0-9A-HJKMNP-TV-Z]{25}(?![0-9A-Za-z_])")
_SHOWN_CHARS: Final = 8


def new_token() -> str:
    """The id of a new attempt: `wak_` and 128 random bits of the system in 26 characters."""
    return f"wak_{ulid_of(secrets.randbits(128))}"


def tokens_in(text: str) -> tuple[str, ...]:
    """The whole tokens in a text, each once. One that was cut proves nothing (wake.md §1.2)."""
    return tuple(dict.fromkeys(_TOKEN.findall(text)))


def shown(token: str) -> str:
    """What anybody but the model may see of a token: else an agent that looks at its attempts proves them."""
    return token[:_SHOWN_CHARS]


def without_tokens(text: str) -> str:
    """The same text, its tokens as they are shown."""
    return _TOKEN.sub(lambda match: f"{shown(match[0])}…", text) if "wak_" in text else text


def line_shown(raw: bytes, fact: events.AnyFact | events.UnknownEvent) -> bytes:
    """The line of a fact as it may be shown outside the daemon."""
    if not isinstance(fact, WakeAttempted):
        return raw
    return events.encode(msgspec.structs.replace(fact, attempt_id=shown(fact.attempt_id)))
