"""A journal may lose lines only where nobody can tell: the projection of a store that compacts at random points is that
of one that never does, row for row, in whatever order lines arrive, and what was purged does not come back.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.store import factmaker
from tests.support.store.compacting import compact
from tests.support.store.opened import layout_at, open_here, projection_of
from thrum.model import events
from thrum.model.events import AnyFact, JournalFormat, MessageReceipt
from thrum.model.tombstones import branch_file_of
from thrum.store.api import Decision
from thrum.store.ingest import verified
from thrum.store.recovery import Opened
from thrum.store.writer import Call, Errand, Writer

Projection = dict[str, list[tuple[Any, ...]]]


def deliver(store: Opened, facts: Sequence[AnyFact], local: frozenset[str]) -> None:
    """Facts of the branch as a sync round brings them, those of this machine as a call writes them."""
    arrived = [
        (branch_file_of(fact, events.file_of(fact)), events.encode(fact))
        for fact in facts
        if fact.event_id not in local
    ]
    own = tuple(fact for fact in facts if fact.event_id in local)
    calls: list[Call] = [Errand(partial(Writer.ingest, arrived=verified(arrived)))]
    calls.append(Call(lambda _view, _stamp: Decision(own, lambda _view, _seqs: None)))
    store.writer.begin()
    for call in calls:
        store.writer.execute(call)
        assert call.error is None, call.error
    store.writer.flush()


def projection(directory: Path) -> Projection:
    """Keys go with their lines: all else must be the same."""
    found = projection_of(directory)
    del found["client_keys"]
    return found


def lived(
    directory: Path, facts: Sequence[AnyFact], local: frozenset[str], chance: random.Random, often: float
) -> Projection:
    """The projection after facts arrived in a random order, some of them twice, with compactions in between."""
    order = list(facts)
    chance.shuffle(order)
    store = open_here(directory)
    while order:
        some = [order.pop() for _ in range(min(len(order), chance.randint(1, 5)))]
        deliver(store, some, local)
        if chance.random() < often:
            compact(store)
        if chance.random() < 0.1:
            store.close()
            store = open_here(directory)
            assert store.recovery.rebuilt == ""
    # The others still have what is not tombstoned: the next round brings it.
    deliver(store, [fact for fact in facts if fact.event_id not in local], local)
    if often:
        compact(store)
        deliver(store, [fact for fact in facts if fact.event_id not in local], local)
    store.close()
    return projection(directory)


def rebuilt(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    before = projection_of(directory)
    layout_at(directory).database.unlink()
    open_here(directory).close()
    return before, projection_of(directory)


def check(facts: list[AnyFact], seed: int) -> None:
    chance = random.Random(seed)
    facts = [fact for fact in facts if not isinstance(fact, JournalFormat)]  # a newer one stops whoever writes
    local = frozenset(
        fact.event_id
        for fact in facts
        if not branch_file_of(fact, events.file_of(fact))
        or (isinstance(fact, MessageReceipt) and chance.random() < 0.5)
    )
    with tempfile.TemporaryDirectory() as home:
        plain = lived(Path(home, "plain"), facts, local, chance, 0.0)
        short = lived(Path(home, "short"), facts, local, chance, 0.5)
        for table, rows in plain.items():
            assert short[table] == rows, table
        for name in ("short", "plain"):
            before, after = rebuilt(Path(home, name))
            for table, rows in before.items():
                assert after[table] == rows, (name, table)


@given(factmaker.histories(), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_store_that_compacts_shows_what_one_that_never_does_shows(facts: list[AnyFact], seed: int) -> None:
    check(facts, seed)


@pytest.mark.long
@given(factmaker.histories(60), st.integers(0, 2**32))
@settings(max_examples=3_000)
def test_long_histories_compacted_or_not_are_one_projection(facts: list[AnyFact], seed: int) -> None:
    check(facts, seed)
