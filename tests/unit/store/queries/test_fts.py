"""Search: what a person types, the index of words that follows the messages, and `thrum inbox --search`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.support.store import factmaker
from tests.support.store.factmaker import OWN, Live, Maker
from tests.support.store.opened import open_here, sending
from thrum.model import events, search
from thrum.model.events import AnyFact
from thrum.store.queries import fts
from thrum.store.queries.views import InboxQuery, View
from thrum.store.writer import Call


def found(view: View, text: str, **query: Any) -> list[str]:
    query.setdefault("page_size", 1_000)
    page = view.inbox(InboxQuery(search=search.expression(text), sort_order="asc", **query))
    assert page.total == len(page.messages)
    return [message.body.content for message in page.messages]


def told(*texts: str) -> Live:
    live, make = Live(), Maker()
    live.apply(*(make.message("ann", "bob", text=text) for text in texts))
    return live


# -- what a person types


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("token", '"token"*'),
        ("  token   refresh ", '"token" "refresh"*'),
        ("a.b-c", '"a.b-c"*'),
        ('say "hi"', '"say" """hi"""*'),
        ("auth -- refresh !", '"auth" "refresh"*'),
        ("NEAR(a b) OR c*", '"NEAR(a" "b)" "OR" "c*"*'),
        ("a\0b", '"a" "b"*'),
        ("日本", '"日本"*'),
        ("_x", '"_x"*'),
        ("", ""),
        ("  \t", ""),
        ("?! … 🎉", ""),
    ],
)
def test_what_is_typed_becomes_quoted_words(text: str, expression: str) -> None:
    assert search.expression(text) == expression


_TYPED = [
    '"x"',
    "a*b",
    'body_content: x"',
    "^x",
    "x + y",
    "(x",
    "a AND",
    "NOT b",
    "{a}",
    "'x",
    "x\0y",
    "-x",
    "NEAR(a b, 2)",
]


@pytest.mark.parametrize("typed", _TYPED)
@pytest.mark.parametrize("indexed", [True, False])
def test_no_text_is_syntax(typed: str, indexed: bool) -> None:
    live = told(f"before {typed} after", "nothing")
    if indexed:
        fts.follow(live.db)
    assert found(View(live.db, OWN), typed) == [f"before {typed} after"]


# -- what is found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token refresh", ["Token refresh is in"]),
        ("refresh token", ["Token refresh is in"]),
        ("tok", ["Token refresh is in", "a token of snake_case"]),
        ("tok refresh", []),
        ("CAFE", ["Im Café"]),
        ("snake_case", ["a token of snake_case"]),
        ("snake", ["a token of snake_case"]),
        ("case", []),
        ("src/auth.py", ["see src/auth.py:12"]),
        ("auth.src", []),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_all_words_must_match_and_of_the_last_one_the_beginning(text: str, expected: list[str], indexed: bool) -> None:
    live = told("Token refresh is in", "a token of snake_case", "Im Café", "see src/auth.py:12")
    if indexed:
        fts.follow(live.db)
    assert found(View(live.db, OWN), text) == expected


def test_a_search_narrows_every_other_filter_and_its_counts() -> None:
    live, make = Live(), Maker()
    wanted = [make.message("ann", "bob", text=f"build {number}") for number in range(5)]
    live.apply(*wanted, make.message("ann", "bob", text="else"), make.message("eve", "sue", text="build"))
    read = make(events.MessageReceipt, message_id=wanted[0].message_id, agent_id="bob", receipt_type="read")
    live.apply(read)
    view = View(live.db, OWN)
    query = InboxQuery(reader="bob", for_agent="bob", search='"build"*', page=2, page_size=2)
    page = view.inbox(query)
    assert [message.body.content for message in page.messages] == ["build 2", "build 1"]
    assert (page.total, page.unread, page.hidden_by_filter) == (5, 4, 1)
    assert len(found(view, "build")) == 6
    assert found(view, "build", author_id="eve") == ["build"]
    assert found(view, "build", for_agent="bob", unread=True, reader="bob") == [f"build {n}" for n in range(1, 5)]
    followed = view.inbox(InboxQuery(search='"build"*', after_seq=2, limit=2))
    assert ([m.seq for m in followed.messages], followed.more) == ([3, 4], True)


def naive(view: View, word: str) -> list[str]:
    page = view.inbox(InboxQuery(page_size=1_000, sort_order="asc"))
    return [each.body.content for each in page.messages if each.body.content.split() == [word]]


def check_words(facts: Sequence[AnyFact], follow_at: int) -> None:
    live = Live()
    with closing(live.db):
        for number, fact in enumerate(facts):
            live.apply(fact)
            if number == follow_at:
                fts.follow(live.db)
        view = View(live.db, OWN)
        for word in ("one", "two", "three"):
            assert found(view, word) == naive(view, word)
        fts.check(live.db)


@given(factmaker.histories())
@settings(max_examples=100)
def test_edits_deletes_cleanups_and_purges_show_in_the_words_at_once(facts: list[AnyFact]) -> None:
    check_words(facts, len(facts) // 2)


# -- how the index follows


def test_what_was_rolled_back_is_not_found(tmp_path: Path) -> None:
    store = open_here(tmp_path)
    try:
        store.writer.begin()
        store.writer.execute(Call(sending("gone")))
        store.writer.rollback()
        store.writer.begin()
        store.writer.execute(Call(sending("here")))
        store.writer.flush()
        assert (found(store.view, "gone"), found(store.view, "here")) == ([], ["here"])
    finally:
        store.close()


def test_an_index_that_does_not_fit_the_messages_is_noticed() -> None:
    live = told("one", "two")
    fts.check(live.db)
    live.db.execute("DROP TRIGGER unindexed_update")
    live.db.execute("UPDATE messages SET body_content = 'three' WHERE seq = 1")
    with pytest.raises(sqlite3.DatabaseError):
        fts.check(live.db)


# -- the method and the command
