"""Lines of `local.jsonl` that other lines make redundant, row for row (events.md §11 "Compaction"). Pure.

Only where the projection is the same without the line whatever comes: what replaces it is never tombstoned before it
is.
"""

from __future__ import annotations

from collections.abc import Iterable

from thrum.model import ids
from thrum.model.events import (
    AgentExited,
    AgentPlaced,
    AgentSeen,
    AgentStatusSet,
    AnyFact,
    MessageReceipt,
    SessionItemsChanged,
    UnknownEvent,
    type_of,
)
from thrum.model.tombstones import Order
from thrum.store.projection.merge_messages import receipt_rank


def superseded_locally(facts: Iterable[tuple[Order, AnyFact | UnknownEvent]]) -> set[str]:
    """The event ids of what may go, of all facts of `local.jsonl` that are not tombstoned.

    A line that holds a client key stays: it answers a retry. A duplicate line is one fact.
    """
    once = {fact.event_id: (order, fact) for order, fact in facts if not isinstance(fact, UnknownEvent)}
    ordered = sorted(once.values(), key=lambda entry: entry[0])
    gone: set[str] = set()
    told: dict[tuple[str, str], int] = {}
    for _, fact in ordered:
        if isinstance(fact, MessageReceipt) and ids.ulid_ms(fact.message_id) is not None:
            # Each state keeps its first time, and implies the lower ones. Where the id tells no time, a purge may
            # tombstone the earlier of two receipts alone.
            rank, key = receipt_rank(fact.receipt_type), (fact.message_id, fact.agent_id)
            if rank <= told.get(key, -1):
                gone.add(fact.event_id)
            else:
                told[key] = rank
    later: set[tuple[str, ...]] = set()
    for _, fact in reversed(ordered):
        registers = _registers(fact)
        if registers and later.issuperset(registers):
            gone.add(fact.event_id)
        later.update(registers)
    return gone - {fact.event_id for _, fact in ordered if fact.client_key}


def _registers(fact: AnyFact) -> list[tuple[str, ...]]:
    """What a fact sets and the last one keeps."""
    if isinstance(fact, AgentPlaced | AgentStatusSet | AgentExited | AgentSeen):
        found: list[tuple[str, ...]] = [(type_of(fact), fact.agent_id)]
        if isinstance(fact, AgentSeen) and fact.session_id:
            found.append((type_of(fact), fact.agent_id, fact.session_id))
        return found
    if isinstance(fact, SessionItemsChanged):
        changes = (
            ("scope+", fact.add_scopes),
            ("scope-", fact.remove_scopes),
            ("ref+", fact.add_refs),
            ("ref-", fact.remove_refs),
        )
        return [(fact.session_id, what, pair.type, pair.value) for what, pairs in changes for pair in pairs]
    return []
