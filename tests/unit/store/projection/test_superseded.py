"""A message that replaces another, or expires: whose word counts, in any order, and what still wakes."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tests.support.here import START_MS
from tests.support.store.factmaker import Live, Maker, live_dump, rebuilt_dump
from tests.support.store.signers import Daemon
from thrum.model import clock, events
from thrum.store.queries.views import View, Wanted

ME, OTHER = Daemon(1), Daemon(2)


@pytest.fixture
def make() -> Maker:
    return Maker()


def replaced(facts: list[Any]) -> dict[str, str]:
    """Of each message by which one it is replaced; the same in any order, live and rebuilt."""
    dumps = [live_dump(order) for order in permutations(facts)]
    assert all(dump == dumps[0] for dump in (*dumps, rebuilt_dump(facts)))
    live = Live()
    live.apply(*facts)
    found = dict(live.db.execute("SELECT message_id, superseded_by FROM messages ORDER BY seq").fetchall())
    live.db.close()
    return found


def test_the_last_message_that_says_so_replaces_another_of_its_author(make: Maker) -> None:
    first = make.message("ann", "bob")
    second = make.message("ann", "bob", supersedes=first.message_id)
    third = make.message("ann", "bob", supersedes=first.message_id)
    assert replaced([first, second, third]) == {
        first.message_id: third.message_id,
        second.message_id: "",
        third.message_id: "",
    }


def test_nobody_replaces_what_another_wrote_and_none_itself(make: Maker) -> None:
    first = make.message("ann", "bob")
    stranger = make.message("eve", "bob", supersedes=first.message_id)
    itself = make.message("ann", "bob", message_id="msg_x", supersedes="msg_x")
    assert set(replaced([first, stranger, itself]).values()) == {""}


def test_what_replaced_a_message_and_was_deleted_replaced_it_all_the_same(make: Maker) -> None:
    first = make.message("ann", "bob")
    second = make.message("ann", "bob", supersedes=first.message_id)
    deleted = make(events.MessageDeleted, message_id=second.message_id, agent_id="ann")
    assert replaced([first, second, deleted])[first.message_id] == second.message_id


def test_with_a_purge_goes_what_a_message_was_replaced_by(make: Maker) -> None:
    first = make.message("ann", "bob", message_id="odd")
    old = make.message("ann", "bob", supersedes="odd")
    purge = make(events.PurgeExecuted, cutoff=clock.format_ms(make.ms + 1))
    later = make.message("ann", "bob", message_id="odd")
    assert replaced([first, old, purge, later]) == {"odd": ""}


def test_another_daemon_replaces_nothing_in_the_name_of_an_author() -> None:
    make = Maker()
    live = Live(frozenset({ME.daemon_id}))

    def tell(daemon: Daemon, fact: Any) -> None:
        live.projection.apply(live.journals.add(fact, daemon.line(fact)))

    tell(ME, ME.introduction())
    tell(OTHER, OTHER.introduction())
    mine = make.message("ann", "bob", origin_daemon=ME.daemon_id)
    forged = make.message("ann", "bob", origin_daemon=OTHER.daemon_id, supersedes=mine.message_id)
    tell(ME, mine)
    tell(OTHER, forged)
    view = View(live.db, frozenset({ME.daemon_id}))
    row = view.message(mine.message_id)
    assert row is not None and row.superseded_by == "" and view.message(forged.message_id) is not None
    own = make.message("ann", "bob", origin_daemon=ME.daemon_id, supersedes=mine.message_id)
    tell(ME, own)
    row = view.message(mine.message_id)
    assert row is not None and row.superseded_by == own.message_id
    live.db.close()


def test_what_was_replaced_or_has_expired_wakes_nobody_and_stays_in_the_inbox(make: Maker) -> None:
    live = Live()
    first = make.message("ann", "bob")
    second = make.message("ann", "bob", supersedes=first.message_id)
    soon = make.message("ann", "bob", expires_at=clock.format_ms(START_MS + 1_000)[:-1] + "+00:00")
    odd = make.message("ann", "bob", expires_at="tomorrow")
    live.apply(first, second, soon, odd)
    view = View(live.db, frozenset())

    def told(at_ms: int) -> list[str]:
        wanted = Wanted(agent_id="bob", unseen=True, at=clock.format_ms(START_MS + at_ms))
        steps = sorted(entry for step in view.matching_steps(wanted) for entry in step)
        assert (
            view.matching_among(wanted, [first.message_id, second.message_id, soon.message_id, odd.message_id]) == steps
        )
        return [message_id for _, message_id in steps]

    assert told(999) == [second.message_id, soon.message_id, odd.message_id]
    assert told(1_000) == [second.message_id, odd.message_id]
    assert view.inbox_count("bob") == (4, 4)
    shown = view.messages_that_fit("bob", [first.message_id, soon.message_id])
    assert [each.is_over(clock.format_ms(START_MS + 1_000)) for each in shown] == [True, True]
    assert [each.is_over(clock.format_ms(START_MS + 999)) for each in shown] == [True, False]
    live.db.close()
