"""The picture is a function of the set of facts: neither order, repetition nor the way of painting shows in it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import factmaker as maker
from thrum.events import AnyFact


def check_orders(facts: list[AnyFact], seed: int) -> None:
    chance = random.Random(seed)
    expected = maker.live_dump(facts)
    shuffled = facts + chance.choices(facts, k=len(facts) // 3)
    chance.shuffle(shuffled)
    assert maker.live_dump(shuffled) == expected
    assert maker.painted_dump(sorted(facts, key=lambda fact: (fact.timestamp, fact.event_id))) == expected
    assert maker.painted_dump(shuffled) == expected


@given(maker.histories(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_any_order_and_repetition_of_facts_gives_the_same_picture_live_and_painted(
    facts: list[AnyFact], seed: int
) -> None:
    check_orders(facts, seed)


@pytest.mark.long
@given(maker.histories(60), st.integers(0, 2**32))
@settings(max_examples=4_000)
def test_any_order_and_repetition_of_long_histories_gives_the_same_picture(facts: list[AnyFact], seed: int) -> None:
    check_orders(facts, seed)
