"""What comes on the branch in any order, in any portions, over restarts, gives the projection of the set of facts."""

from __future__ import annotations

import random
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.store import factmaker as maker
from tests.support.store.arrivals import found
from tests.support.store.opened import open_here, projection_of
from thrum.model import events
from thrum.model.events import AnyFact
from thrum.store.ingest import verified
from thrum.store.writer import Errand, Writer

# Nothing here is about the disk, and there a sync costs nothing.
_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def ingested(facts: list[AnyFact], chance: random.Random) -> maker.Dump:
    """The projection of a store that takes the facts in."""
    directory = Path(tempfile.mkdtemp(prefix="thrum-arrivals-", dir=_IN_MEMORY))
    store = open_here(directory)
    try:
        while facts:
            if chance.random() < 0.2:
                store.close()
                store = open_here(directory)
            some, facts = facts[: (size := chance.randint(1, 8))], facts[size:]
            call = Errand(partial(Writer.ingest, arrived=verified(found(*some))))
            store.writer.begin()
            store.writer.execute(call)
            assert call.error is None
            store.writer.flush()
        store.close()
        return projection_of(directory)
    finally:
        shutil.rmtree(directory)


def check(facts: list[AnyFact], seed: int) -> None:
    travelling = [fact for fact in facts if not events.never_travels(fact)]
    chance = random.Random(seed)
    shuffled = travelling + chance.choices(travelling, k=len(travelling) // 3) if travelling else []
    chance.shuffle(shuffled)
    expected, taken = maker.rebuilt_dump(travelling), ingested(shuffled, chance)
    for projection in (expected, taken):
        projection.pop("daemon_identity")
        projection.pop("client_keys")  # those of facts that were tombstoned when they came back are not remembered
    assert taken == expected


@given(maker.histories(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_any_order_and_portions_of_what_arrives_give_the_same_projection(facts: list[AnyFact], seed: int) -> None:
    check(facts, seed)


@pytest.mark.long
@given(maker.histories(60), st.integers(0, 2**32))
@settings(max_examples=2_000)
def test_any_order_of_long_histories_that_arrive_gives_the_same_projection(facts: list[AnyFact], seed: int) -> None:
    check(facts, seed)
