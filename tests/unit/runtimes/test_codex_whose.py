"""Whose a new thread of Codex is: bound where it is certain, and nothing is sent where it is not."""

from __future__ import annotations

from thrum.runtimes.codex.whose import Opened, Whose

BOB = Opened((1, "a"), 100.0, "bob")
CAROL = Opened((2, "b"), 200.0, "carol")
STRANGER = Opened((3, "c"), 300.0)


def test_the_first_thread_after_an_agents_terminal_opened_is_the_agents() -> None:
    assert Whose().began("t1", 150, [BOB], {"bob": ""}) == "bob"


def test_a_thread_older_than_the_terminal_is_not_in_it() -> None:
    assert Whose().began("t0", 50, [BOB], {"bob": ""}) == ""


def test_the_only_terminal_with_an_agent_began_the_next_one_too() -> None:
    whose = Whose()
    whose.bound("bob", "t1", BOB.terminal)
    assert whose.began("t2", 500, [BOB], {"bob": "t1"}) == "bob"
    assert not whose.is_uncertain("bob")


def test_a_terminal_that_just_opened_has_the_thread_whoever_else_is_there() -> None:
    whose = Whose()
    whose.bound("bob", "t1", BOB.terminal)
    assert whose.began("t2", 250, [BOB, CAROL], {"bob": "t1", "carol": ""}) == "carol"
    assert whose.began("t3", 350, [BOB, CAROL, STRANGER], {"bob": "t1", "carol": "t2"}) == ""
    assert not whose.is_uncertain("bob") and not whose.is_uncertain("carol")


def test_a_strangers_thread_that_outlives_its_terminal_is_nobodys() -> None:
    whose = Whose()
    whose.bound("bob", "t1", BOB.terminal)
    assert whose.began("t3", 350, [BOB, STRANGER], {"bob": "t1"}) == ""
    assert whose.began("t3", 350, [BOB], {"bob": "t1"}) == ""


def _two() -> Whose:
    whose = Whose()
    whose.bound("bob", "t1", BOB.terminal)
    whose.bound("carol", "t2", CAROL.terminal)
    assert whose.began("t4", 400, [BOB, CAROL], {"bob": "t1", "carol": "t2"}) == ""
    return whose


def test_of_two_agents_neither_is_certain_until_one_goes_on_where_it_was() -> None:
    whose = _two()
    assert whose.is_uncertain("bob") and whose.is_uncertain("carol")
    assert whose.prompted("carol") == [("t4", "bob")]
    assert not whose.is_uncertain("bob") and not whose.is_uncertain("carol")


def test_what_another_says_settles_it_too() -> None:
    whose = _two()
    whose.bound("bob", "t4", None)
    assert not whose.is_uncertain("bob") and not whose.is_uncertain("carol")
    whose = _two()
    whose.closed("t4")
    assert not whose.is_uncertain("bob")


def test_beside_a_stranger_a_new_thread_is_not_taken_for_the_agents() -> None:
    whose = Whose()
    whose.bound("bob", "t1", BOB.terminal)
    whose.began("t3", 350, [BOB, STRANGER], {"bob": "t1"})
    assert whose.began("t5", 500, [BOB, STRANGER], {"bob": "t1"}) == ""
    assert whose.is_uncertain("bob")
    assert whose.prompted("bob") == []
    assert not whose.is_uncertain("bob")
