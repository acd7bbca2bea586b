"""Attempts to wake as facts: what those of one attempt say together, what purge and compaction take, what is shown."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.here import START_MS
from tests.support.store.compacting import FAR
from tests.support.store.factmaker import Live, Maker, live_dump
from tests.support.store.opened import OWN, layout_at, open_here, projection_of
from thrum.bus.topics import hint_of, topics_of
from thrum.model import attempt_ids, clock, events
from thrum.model.events import WakeAttempted
from thrum.store.compaction import Drafter, discard
from thrum.store.projection.merge_wakes import Attempt, attempt_of
from thrum.store.queries.views import View
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
    tokens = {attempt_ids.new_token() for _ in range(50)}
    assert len(tokens) == 50 and {len(token) for token in tokens} == {30}
    make = Maker()
    token = tokens.pop()
    fact = told(make, "offered", attempt=token)
    shown = attempt_ids.line_shown(events.encode(fact), fact)
    assert token.encode() not in shown and token[:8].encode() in shown
    other = make.message("ann", "nux")
    assert attempt_ids.line_shown(events.encode(other), other) == events.encode(other)


def test_an_attempt_is_announced_to_its_agent_without_the_token() -> None:
    live, make = Live(), Maker()
    fact = told(make, "offered", attempt=attempt_ids.new_token())
    (applied,) = live.apply(fact)
    live.db.close()
    assert topics_of(fact) == ("agent/nux/wake.attempt", "all/wake.attempt")
    assert fact.attempt_id.encode() not in msgspec.json.encode(hint_of("e", applied.seq, fact))


# -- what the wake loop asks


@pytest.fixture
def live() -> Any:
    projection = Live()
    yield projection
    projection.db.close()


def test_only_unseen_mail_that_wakes_is_a_reason_to_wake_the_oldest_first(live: Live) -> None:
    make = Maker()
    own = make.message("nux", "ann")
    plain, urgent = make.message("ann", "nux"), make.message("ann", "nux", urgent=True)
    answer = make.message("ann", "nux", reply=own.message_id)
    seen, read = make.message("ann", "nux"), make.message("ann", "nux")
    deleted, replaced = make.message("ann", "nux"), make.message("ann", "nux")
    late = make.message("ann", "nux", expires_at=clock.format_ms(START_MS + 1_000))
    live.apply(own, plain, urgent, answer, seen, read, deleted, replaced, late)
    live.apply(
        make.message("ann", "nux", quiet=True),
        make.message("nux", "nux"),
        make.message("ann", "bob"),
        make.message("ann", "bob", supersedes=replaced.message_id),
        make(events.MessageDeleted, message_id=deleted.message_id, agent_id="ann"),
        make(events.MessageReceipt, message_id=seen.message_id, agent_id="nux", receipt_type="seen"),
        make(events.MessageReceipt, message_id=read.message_id, agent_id="nux", receipt_type="read"),
    )
    view = View(live.db, OWN)

    def wakeable(at_ms: int, **limit: int) -> list[tuple[Any, ...]]:
        rows = view.wakeable("nux", clock.format_ms(START_MS + at_ms), **limit)
        return [(row.message_id, row.author, row.urgent, row.answers_own) for row in rows]

    reasons = [
        (plain.message_id, "ann", False, False),
        (urgent.message_id, "ann", True, False),
        (answer.message_id, "ann", False, True),
    ]
    assert wakeable(1_000) == reasons
    assert wakeable(999) == [*reasons, (late.message_id, "ann", False, False)]
    assert wakeable(1_000, limit=2) == reasons[1:], "of many the newest"
    assert wakeable(1_000)[0][0] == view.wakeable("nux", clock.format_ms(START_MS + 1_000))[0].message_id


def test_attempts_are_found_by_agent_and_by_token(live: Live) -> None:
    make = Maker()
    live.apply(
        told(make, "offered", attempt="wak_1"),
        told(make, "offered", attempt="wak_2", process="7 1", detail="idle"),
        told(make, "offered", attempt="wak_3", agent_id="bob"),
        told(make, "expired", attempt="wak_1", detail="60 s idle"),
    )
    view = View(live.db, OWN)
    assert [each.attempt_id for each in view.attempts("nux")] == ["wak_2", "wak_1"]
    assert [each.attempt_id for each in view.attempts("nux", 1)] == ["wak_2"]
    found = view.attempt("wak_2")
    assert found is not None and view.attempt("wak") is None
    assert (found.process, found.detail, found.message_ids, found.ended_at) == ("7 1", "idle", ("m1", "m2"), "")


@pytest.mark.parametrize(
    ("outcomes", "shown"),
    [
        (("offered",), True),
        (("offered", "expired"), True),
        (("offered", "proved"), True),
        (("offered", "failed"), False),
        (("offered", "refused"), False),
        (("offered", "revoked"), False),
        ((), False),
    ],
)
def test_a_recipient_was_offered_a_message_since_a_door_first_took_it(
    live: Live, outcomes: tuple[str, ...], shown: bool
) -> None:
    make = Maker()
    message = make.message("ann", "bob", "nux")
    facts = [told(make, outcome, message.message_id) for outcome in outcomes]
    live.apply(message, *facts)
    bob, nux = View(live.db, OWN).recipients(message.message_id)
    assert (bob.offered_at, nux.offered_at) == ("", facts[0].timestamp if shown else "")
