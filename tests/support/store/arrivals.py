"""Facts of another daemon, and lines as they lie on the branch."""

from __future__ import annotations

from typing import Any

from tests.support.here import START_MS
from thrum.model import clock, events, ids
from thrum.model.events import AnyFact, Body, MessageCreated
from thrum.model.tombstones import branch_file_of
from thrum.store.ingest import Found

THERE = "d_01KGH87Y00FFFFFFFFFFFFFFFF"


def foreign(cls: type[Any], *, ms: int = START_MS, origin: str = THERE, **fields: Any) -> Any:
    """A fact that another daemon stamped."""
    event_id = "evt_" + ids.Ulids().at(ms)
    return cls(timestamp=clock.format_ms(ms), event_id=event_id, v=1, origin_daemon=origin, **fields)


def letter(text: str = "hi", *, ms: int = START_MS, author: str = "slit", to: str = "nux", origin: str = THERE) -> Any:
    """Another daemon's message."""
    return foreign(
        MessageCreated,
        ms=ms,
        origin=origin,
        message_id="msg_" + ids.Ulids().at(ms),
        agent_id=author,
        body=Body("markdown", text),
        recipients=(to,),
    )


def found(*facts: AnyFact) -> list[Found]:
    """As they lie on the branch."""
    return [(branch_file_of(fact, events.file_of(fact)), events.encode(fact)) for fact in facts]
