"""Whose mail a rename moves: nobody's but one's own, and only what one had (docs/decisions/0050)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tests.support.here import START_MS
from tests.support.store.factmaker import Journals, empty_projection, rebuild_journals
from tests.support.store.signers import Daemon
from thrum.model import events
from thrum.store import database
from thrum.store.projection.core import Projection
from thrum.store.queries.views import View

Said = tuple[Daemon, Any]


@contextmanager
def seen_by(own: Daemon, said: list[Said], directory: Path) -> Iterator[View]:
    """The projection that a daemon has of what was said, as it comes; it is the same where it is rebuilt."""
    mine = frozenset({own.daemon_id})
    journals = Journals()
    entries = [journals.add(fact, by.line(fact)) for by, fact in said]
    with closing(empty_projection()) as db:
        projection = Projection(db, mine, journals.read_line, lambda: START_MS)
        for entry in entries:
            projection.apply(entry)
        rebuild_journals(journals, directory / "rebuilt", mine)
        with closing(database.open_reader(directory / "rebuilt")) as rebuilt:
            there, here = database.dump(rebuilt), database.dump(db)
            for table in here.keys() - {"daemon_identity"}:
                assert there[table] == here[table], table
        yield View(db, mine)


def registered(by: Daemon, *names: str) -> list[Said]:
    said = [by(events.AgentRegistered, agent_id=name, name=name, kind="agent", role="x", module="m") for name in names]
    return [(by, by.introduction()), *((by, fact) for fact in said)]


def rows_of(view: View, message_id: str) -> dict[str, str]:
    return {row.agent_id: row.read_at or "" for row in view.recipients(message_id)}


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_nobody_marks_or_adds_mail_by_renaming_his_own_agent_to_a_name_of_anothers(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    """Eve registers the name `ann` too, and says that her `spy` is `ann` now, who has read that mail."""
    me, eve = Daemon(1), Daemon(2)
    mine, other = me.message("bob", "ann", text="for ann"), me.message("ann", "bob", text="for bob")
    forged = eve(events.AgentAliased, agent_id="ann", of="spy", read=(mine.message_id, other.message_id))
    parts = [registered(me, "ann", "bob"), [(me, mine), (me, other)], [*registered(eve, "ann", "spy"), (eve, forged)]]
    with seen_by(me, [each for i in order for each in parts[i]], tmp_path) as view:
        assert rows_of(view, mine.message_id) == {"ann": ""}
        assert rows_of(view, other.message_id) == {"bob": ""}
        assert view.inbox_count("ann") == (1, 1)


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_nobody_gets_mail_of_which_he_says_that_his_own_agent_had_it(order: tuple[int, ...], tmp_path: Path) -> None:
    me, eve = Daemon(1), Daemon(2)
    mine = me.message("bob", "ann", text="for ann")
    forged = eve(events.AgentAliased, agent_id="evil", of="spy", read=(mine.message_id,))
    parts = [registered(me, "ann", "bob"), [(me, mine)], [*registered(eve, "evil", "spy"), (eve, forged)]]
    with seen_by(me, [each for i in order for each in parts[i]], tmp_path) as view:
        assert rows_of(view, mine.message_id) == {"ann": ""}


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_mail_goes_along_a_chain_of_names_in_whatever_order_the_renames_come(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    me, other = Daemon(1), Daemon(2)
    sent = me.message("bob", "ann")
    read = other(events.MessageReceipt, message_id=sent.message_id, agent_id="cid", receipt_type="read")
    chain = [
        other(events.AgentAliased, agent_id="ben", of="ann", stored=(sent.message_id,)),
        other(events.AgentAliased, agent_id="cid", of="ben", stored=(sent.message_id,)),
        read,
    ]
    said = [(me, sent), *((other, fact) for fact in chain)]
    known = [*registered(me, "bob"), *registered(other, "ann", "ben", "cid")]
    for before, after in ((known, []), ([], known)):
        with seen_by(me, [*before, *(said[i] for i in order), *after], tmp_path) as view:
            assert rows_of(view, sent.message_id) == {"ann": "", "ben": "", "cid": read.timestamp}


@pytest.mark.parametrize("origin", ["", "mine"])
def test_an_unsigned_line_renames_nobody(origin: str, tmp_path: Path) -> None:
    """Whoever may push can write one in anybody's name as long as lines of before still count."""
    me = Daemon(1)
    sent = me.message("bob", "ann")
    forged = me(events.AgentAliased, agent_id="bob", of="ann", read=(sent.message_id,))
    forged = events.msgspec.structs.replace(forged, origin_daemon=me.daemon_id if origin else "")
    gone = me(events.AgentCleaned, agent_id="ann")
    journals = Journals()
    own = frozenset({me.daemon_id})
    said = [fact for _, fact in registered(me, "ann", "bob")[1:]] + [sent, gone]
    entries = [journals.add(fact, me.line(fact)) for fact in said]
    entries.append(journals.add(forged, events.encode(forged)))
    with closing(empty_projection()) as db:
        projection = Projection(db, own, journals.read_line, lambda: START_MS)
        for entry in entries:
            projection.apply(entry)
        view = View(db, own)
        assert view.current_ids() == view.renamed_here() == {} and view.called_now("ann", me.daemon_id) == "ann"
        assert rows_of(view, sent.message_id) == {"ann": ""}
