"""The projection is a function of the set of facts: neither order, repetition nor the way of rebuilding shows in it."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.store import factmaker as maker
from thrum.model import events
from thrum.model.events import AnyFact


def check_orders(facts: list[AnyFact], seed: int) -> None:
    chance = random.Random(seed)
    expected = maker.live_dump(facts)
    shuffled = facts + chance.choices(facts, k=len(facts) // 3)
    chance.shuffle(shuffled)
    assert maker.live_dump(shuffled) == expected
    assert maker.rebuilt_dump(sorted(facts, key=lambda fact: (fact.timestamp, fact.event_id))) == expected
    assert maker.rebuilt_dump(shuffled) == expected


@given(maker.histories(), st.integers(0, 2**32))
@settings(max_examples=80)
def test_any_order_and_repetition_of_facts_gives_the_same_projection_live_and_rebuilt(
    facts: list[AnyFact], seed: int
) -> None:
    check_orders(facts, seed)


@given(maker.histories(), st.integers(0, 2**32))
@settings(max_examples=80)
def test_of_lines_with_one_id_only_the_smallest_shows_in_what_is_rebuilt(facts: list[AnyFact], seed: int) -> None:
    """Own ones, of the local journal, before all others."""
    chance = random.Random(seed)
    ids = [fact.event_id for fact in facts]
    twins = [msgspec.structs.replace(fact, event_id=chance.choice(ids)) for fact in chance.choices(facts, k=len(facts))]
    found = [*facts, *chance.choices(facts + twins, k=2 * len(facts))]
    chance.shuffle(found)
    smallest: dict[str, AnyFact] = {}
    for fact in found:
        known = smallest.setdefault(fact.event_id, fact)
        smallest[fact.event_id] = min(
            known, fact, key=lambda each: (events.SPECS[type(each)].shared, events.encode(each))
        )
    assert maker.rebuilt_dump(found) == maker.rebuilt_dump([*smallest.values()])


@pytest.mark.long
@given(maker.histories(60), st.integers(0, 2**32))
@settings(max_examples=4_000)
def test_any_order_and_repetition_of_long_histories_gives_the_same_projection(facts: list[AnyFact], seed: int) -> None:
    check_orders(facts, seed)
