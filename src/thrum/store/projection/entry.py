"""A fact beside the place of its line, and its rows in the tables that number facts and remember keys."""

from __future__ import annotations

from typing import NamedTuple

from thrum.model import events, signatures
from thrum.model.events import LOCAL_FILE, AnyFact, MessageCreated, UnknownEvent
from thrum.store.projection.watermarks import Order


class Entry(NamedTuple):
    """A fact and where it lies. `raw` is without the newline, `length` counts it; a line that is signed only when the
    batch is flushed is told without its signature. `file`: relative, as events.md §1. `signed`: by its origin; what
    lies in the local journal is this daemon's own, and counts as signed.
    """

    fact: AnyFact | UnknownEvent
    raw: bytes
    file: str
    offset: int
    length: int
    signed: bool


def entry_of(fact: AnyFact | UnknownEvent, raw: bytes, file: str, offset: int, length: int) -> Entry:
    """The entry of a line as it lies in a journal, or will."""
    signed = file == LOCAL_FILE or signatures.is_signed(raw, fact.origin_daemon)
    return Entry(fact, raw, file, offset, length, signed)


def event_row(entry: Entry, at: str) -> tuple[str | int, ...]:
    """The columns of `events` from event_id to length."""
    fact = entry.fact
    if isinstance(fact, MessageCreated):
        # Most of them: spelled out.
        return (
            fact.event_id,
            "message.create",
            at,
            fact.origin_daemon,
            fact.agent_id or "system",
            fact.message_id,
            entry.file,
            entry.offset,
            entry.length,
        )
    return (
        fact.event_id,
        events.type_of(fact),
        at,
        fact.origin_daemon,
        events.actor_of(fact),
        getattr(fact, "message_id", ""),
        entry.file,
        entry.offset,
        entry.length,
    )


def client_key_row(fact: AnyFact, order: Order) -> tuple[str, str, str, str, str]:
    return (events.actor_of(fact), fact.client_key, *order, fact.client_digest)
