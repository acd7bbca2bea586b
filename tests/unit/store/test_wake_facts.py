"""Attempts to wake as facts: what those of one attempt say together, what purge and compaction take, what is shown."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.store.compacting import FAR
from tests.support.store.factmaker import START_MS, Live, Maker, live_dump
from tests.support.store.opened import OWN, layout_at, open_here, projection_of
from thrum.bus.topics import hint_of, topics_of
from thrum.model import attempt_ids, clock, events
from thrum.model.events import WakeAttempted
from thrum.store.compaction import Drafter, discard
from thrum.store.projection.merge_wakes import Attempt, attempt_of
from thrum.store.recovery import Opened
from thrum.store.writer import Call, Decision

DAY_MS = 86_400_000


def told(make: Maker, outcome: str, *message_ids: str, attempt: str = "wak_1", **fields: Any) -> WakeAttempted:
    named = {"agent_id": "nux", "attempt_id": attempt, "door": "claude", "message_ids": message_ids or ("m1", "m2")}
    return make(WakeAttempted, outcome=outcome, **(named | fields))


def merged(*facts: WakeAttempted) -> Attempt:
    found = {attempt_of([(events.order_of(fact), fact) for fact in order]) for order in permutations(facts)}
    assert len(found) == 1
    return found.pop()


# -- what the facts of one attempt say together, in whatever order they come


def test_an_attempt_is_open_until_it_ended() -> None:
    make = Maker()
    offered = told(make, "offered", process="7 1700", detail="idle")
    attempt = merged(offered)
    assert attempt == ("nux", "claude", "7 1700", *events.order_of(offered), "offered", "idle", "", "", ("m1", "m2"))


def test_the_first_outcome_other_than_offered_is_final() -> None:
    make = Maker()
    offered, expired, proved = told(make, "offered"), told(make, "expired", detail="60 s idle"), told(make, "proved")
    attempt = merged(offered, expired, proved, told(make, "offered"))
    assert (attempt.outcome, attempt.detail) == ("expired", "60 s idle")
    assert (attempt.offered_at, attempt.ended_at) == (offered.timestamp, expired.timestamp)


def test_of_one_time_the_event_id_says_which_was_first() -> None:
    make = Maker()
    first, second = (told(make, outcome, ms=START_MS) for outcome in ("failed", "proved"))
    assert first.event_id < second.event_id
    assert merged(first, second).outcome == "failed"


def test_what_was_proved_names_what_was_really_said_and_other_ends_do_not() -> None:
    make = Maker()
    assert merged(told(make, "offered"), told(make, "proved", "m2")).message_ids == ("m2",)
    assert merged(told(make, "offered"), told(make, "expired", "m2")).message_ids == ("m1", "m2")


def test_an_end_without_its_offer_is_an_attempt_too() -> None:
    make = Maker()
    attempt = merged(told(make, "refused", "m1", detail="dialog"))
    assert (attempt.offered_at, attempt.outcome, attempt.message_ids) == ("", "refused", ("m1",))


# -- purge


@pytest.mark.parametrize("last", ["purge", "attempt"])
def test_a_purge_takes_what_lies_before_its_cutoff_and_no_more(last: str) -> None:
    make = Maker()
    offered = told(make, "offered", attempt="wak_1")
    old = [told(make, outcome, attempt="wak_0") for outcome in ("offered", "proved")]
    cutoff = clock.format_ms(make.ms + 1)
    proved = told(make, "proved", attempt="wak_1")
    purge = make(events.PurgeExecuted, cutoff=cutoff, by="ann")
    facts = [purge, offered, *old, proved] if last == "attempt" else [offered, *old, proved, purge]
    dump = live_dump(facts)
    assert [(row[0], row[4], row[6]) for row in dump["wake_attempts"]] == [("wak_1", "", "proved")]
    assert dump == live_dump([proved, purge])


# -- compaction


def write(store: Opened, *facts: Any) -> None:
    call = Call(lambda _view, _stamp: Decision(facts, lambda _view, _seqs: None))
    store.writer.begin()
    store.writer.execute(call)
    assert call.error is None
    store.writer.flush()


def drafts(store: Opened, old: str) -> list[Any]:
    with Drafter(store.path, store.journals, OWN, FAR, old) as drafter:
        assert drafter.weights()[events.LOCAL_FILE].replaceable > 0
        found = drafter.draft(events.LOCAL_FILE)
    return [found] if found is not None else []


def attempts(store: Opened) -> list[str]:
    return [row[0] for row in store.reader.execute("SELECT attempt_id FROM wake_attempts ORDER BY attempt_id")]


def of_a_week_ago(store: Opened, make: Maker) -> str:
    """Attempts `wak_1` (proved), `wak_2` (never ended, its message was read) and `wak_3` (its message waits unseen)
    of before, `wak_4` that ended since; the time between.
    """
    read, waits = make.message("ann", "nux"), make.message("ann", "nux")
    write(store, read, make(events.MessageReceipt, message_id=read.message_id, agent_id="nux", receipt_type="read"))
    write(store, waits)
    for attempt, message in (("wak_1", read), ("wak_2", read), ("wak_3", waits), ("wak_4", read)):
        write(store, told(make, "offered", message.message_id, attempt=attempt))
    write(store, told(make, "proved", read.message_id, attempt="wak_1"))
    old = clock.format_ms(make.ms + 1)
    make.ms += 7 * DAY_MS
    write(store, told(make, "proved", read.message_id, attempt="wak_4"), make(events.AgentSeen, agent_id="nux"))
    return old


def test_old_attempts_leave_whole_when_nothing_of_them_waits(tmp_path: Path) -> None:
    make = Maker(START_MS - 10 * DAY_MS)
    store = open_here(tmp_path)
    old = of_a_week_ago(store, make)
    assert store.writer.compact(drafts(store, old)) > 0
    assert attempts(store) == ["wak_3", "wak_4"]
    lines = [events.decode(line.raw) for line in store.journals.iter_lines(events.LOCAL_FILE)]
    assert [fact.attempt_id for fact in lines if isinstance(fact, WakeAttempted)] == ["wak_3", "wak_4", "wak_4"]
    assert drafts(store, old) == []
    store.close()
    shown = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    open_here(tmp_path).close()
    assert projection_of(tmp_path) == shown


def test_an_attempt_that_is_told_more_while_it_leaves_stays(tmp_path: Path) -> None:
    make = Maker(START_MS - 10 * DAY_MS)
    store = open_here(tmp_path)
    made = drafts(store, of_a_week_ago(store, make))
    write(store, told(make, "proved", attempt="wak_2"))
    assert store.writer.compact(made) == 0
    discard(made)
    assert attempts(store) == ["wak_1", "wak_2", "wak_3", "wak_4"]
    store.close()


# -- tokens


def test_a_token_is_random_and_only_its_beginning_is_shown() -> None:
    tokens = {attempt_ids.new_attempt_id() for _ in range(50)}
    assert len(tokens) == 50 and {len(token) for token in tokens} == {attempt_ids.CHARS}
    make = Maker()
    token = tokens.pop()
    fact = told(make, "offered", attempt=token)
    shown = attempt_ids.shown(events.encode(fact), fact)
    assert token.encode() not in shown and token[:8].encode() in shown
    other = make.message("ann", "nux")
    assert attempt_ids.shown(events.encode(other), other) == events.encode(other)


def test_an_attempt_is_announced_to_its_agent_without_the_token() -> None:
    live, make = Live(), Maker()
    fact = told(make, "offered", attempt=attempt_ids.new_attempt_id())
    (applied,) = live.apply(fact)
    live.db.close()
    assert topics_of(fact) == ("agent/nux/wake.attempt", "all/wake.attempt")
    assert fact.attempt_id.encode() not in msgspec.json.encode(hint_of("e", applied.seq, fact))
