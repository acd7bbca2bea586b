"""What is said on the bus of committed facts: numbers rise there, whatever numbers the store gives."""

from __future__ import annotations

from typing import cast

from thrum.bus.memory import MemoryBus
from thrum.bus.publisher import Publisher
from thrum.bus.topics import Head, read_frame
from thrum.daemon.event_feed import EventFeed
from thrum.model import clock, events
from thrum.store.journal import JournalFiles
from thrum.store.queries.views import View
from thrum.store.writer import Committed


def _created(seq: int) -> Committed:
    fact = events.MessageCreated(
        timestamp="2026-02-03T10:00:00.000Z",
        event_id=f"evt_{seq}",
        v=1,
        message_id=f"msg_{seq}",
        agent_id="alice",
        body=events.Body("markdown", str(seq)),
        audiences=(events.Pair("agent", "bob"),),
        recipients=("bob",),
    )
    return Committed(seq, fact, "applied")


def test_a_fact_that_kept_an_old_number_is_not_said_after_greater_ones() -> None:
    """A hint with number 3 would have the next one say `prev` 3: whoever lost number 8 would never know."""
    memory = MemoryBus()
    publisher = Publisher(memory, epoch="one", head_seq=6, wall_clock=clock.SystemClock())
    # A create says all itself: neither is asked.
    feed = EventFeed(cast("View", None), cast("JournalFiles", None), publisher)
    bob = memory.open_inlet()
    bob.subscribe(b"agent/bob/")
    feed.announce([_created(7)])  # takes the subscription
    feed.announce([_created(8), _created(3), _created(9)])
    frames = []
    while frame := bob.receive_nowait():
        frames.append(read_frame(frame))
    hints = [(each.seq, each.prev) for each in frames if not isinstance(each, Head)]
    assert hints == [(8, 7), (9, 8)]
    assert publisher.head_seq == 9
