"""When an agent is woken, and through which door: the rules of wake.md, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from thrum.model.wake_types import DoorState, State
from thrum.wake import why
from thrum.wake.plan import (
    RULES,
    AgentState,
    Close,
    Look,
    Nothing,
    Offer,
    OpenAttempt,
    Unseen,
    Urgent,
    plan,
    why_unseen,
)

NOW = 1_000.0
WAITER = DoorState("waiter", proves=True, open=True, takes=frozenset({"idle", "working", "unknown"}))
SOCKET = DoorState("socket", proves=False, open=True, takes=frozenset({"idle", "working"}))
TYPED = DoorState("typed", proves=True, open=True, takes=frozenset({"idle"}))


def unseen(name: str = "m1", **fields: Any) -> Unseen:
    return Unseen(name, fields.pop("arrived", NOW), **fields)


def agent(*messages: Unseen, state: State = "idle", since: float = NOW - 30, **fields: Any) -> AgentState:
    doors = fields.pop("doors", (WAITER, TYPED))
    return AgentState(state, since, doors=doors, unseen=messages, runtime=fields.pop("runtime", "claude"), **fields)


def attempt(*message_ids: str, **fields: Any) -> OpenAttempt:
    return OpenAttempt("wak_1", "waiter", message_ids or ("m1",), fields.pop("offered", NOW - 5), **fields)


def test_every_rule_quotes_its_source() -> None:
    assert all(rule.__doc__ and rule.__doc__.startswith("§") for rule in RULES)


def test_an_idle_agent_is_offered_everything_at_once_by_its_first_door() -> None:
    assert plan(agent(unseen("m1"), unseen("m2")), NOW) == Offer("waiter", ("m1", "m2"))


def test_with_nothing_to_say_nothing_is_said() -> None:
    assert plan(agent(), NOW) == Nothing("")


# -- the window and the minute


def test_what_comes_within_300_ms_after_an_offer_waits_until_they_are_over() -> None:
    early = agent(unseen("m2"), last_offer=NOW - 0.1)
    assert plan(early, NOW) == Look(NOW - 0.1 + 0.3)
    assert plan(early, NOW + 0.2) == Offer("waiter", ("m2",))


def test_an_urgent_message_waits_neither_for_the_window_nor_for_the_minute_and_takes_the_others_along() -> None:
    both = agent(unseen("m1"), unseen("m2", urgent=True), state="working", last_offer=NOW, last_offer_while_working=NOW)
    assert plan(both, NOW) == Offer("waiter", ("m1", "m2"))


def test_while_working_an_agent_is_offered_mail_once_a_minute() -> None:
    working = agent(unseen(), state="working", last_offer=NOW - 10, last_offer_while_working=NOW - 10)
    assert plan(working, NOW) == Look(NOW + 50, why.NEXT_TOOL_CALL)
    assert plan(working, NOW + 50) == Offer("waiter", ("m1",))
    assert plan(replace(working, state="idle"), NOW) == Offer("waiter", ("m1",))


def test_an_answer_to_its_own_question_waits_for_the_window_only() -> None:
    asked = agent(unseen(answers_own=True), state="working", last_offer=NOW - 0.1, last_offer_while_working=NOW - 0.1)
    assert plan(asked, NOW) == Look(NOW - 0.1 + 0.3, why.NEXT_TOOL_CALL)
    assert plan(asked, NOW + 1) == Offer("waiter", ("m1",))


@pytest.mark.parametrize(
    ("others", "offered"),
    [
        ([("alice", NOW - 50)] * 3, False),
        ([("alice", NOW - 50)] * 2, True),
        ([("alice", NOW - 60)] * 3, True),
        ([("carol", NOW - 50)] * 3, True),
        ([("alice", NOW)] * 3, False),
    ],
)
def test_an_authors_fourth_urgent_message_in_a_minute_waits(others: list[tuple[str, float]], offered: bool) -> None:
    recent = (*(Urgent(f"u{i}", *other) for i, other in enumerate(others)), Urgent("m1", "alice", NOW))
    working = agent(
        unseen(urgent=True), state="working", last_offer=NOW - 1, last_offer_while_working=NOW - 1, recent_urgent=recent
    )
    assert isinstance(plan(working, NOW), Offer) is offered


# -- one open attempt, and how it ends


@pytest.mark.parametrize("message", [unseen("m2"), unseen("m2", urgent=True), unseen("m2", answers_own=True)])
def test_an_open_attempt_allows_no_second_one(message: Unseen) -> None:
    assert plan(agent(unseen("m1", attempts=("waiter",)), message, open=attempt()), NOW) == Nothing(why.UNDER_WAY)


def test_an_attempt_without_proof_ends_after_60_s_idle_and_then_the_next_door_is_used() -> None:
    waiting = agent(unseen("m1", attempts=("waiter",)), open=attempt(offered=NOW - 20, idle_since=NOW - 10))
    assert plan(waiting, NOW) == Look(NOW + 50, why.UNDER_WAY)
    assert plan(waiting, NOW + 50) == Close("wak_1", "expired", "no proof after 60 s idle")
    assert plan(replace(waiting, open=None), NOW + 50) == Offer("typed", ("m1",))


def test_idle_time_before_the_offer_does_not_count() -> None:
    waiting = agent(unseen("m1", attempts=("waiter",)), open=attempt(offered=NOW - 1, idle_since=NOW - 500))
    assert plan(waiting, NOW) == Look(NOW + 59, why.UNDER_WAY)


def test_time_in_which_the_runtime_holds_it_ends_nothing() -> None:
    held = agent(
        unseen("m1", attempts=("waiter",)), doors=(replace(WAITER, held=True),), open=attempt(idle_since=NOW - 100)
    )
    assert plan(held, NOW) == Nothing(why.UNDER_WAY)


def test_while_it_works_an_attempt_stays_open() -> None:
    assert plan(agent(unseen(attempts=("waiter",)), state="working", open=attempt()), NOW) == Nothing(
        why.NEXT_TOOL_CALL
    )


@pytest.mark.parametrize("outlived", ["new session", "new process"])
def test_a_new_session_or_process_ends_what_is_open(outlived: str) -> None:
    assert plan(agent(open=attempt(outlived=outlived)), NOW) == Close("wak_1", "expired", outlived)
    early = attempt(outlived=outlived, handed_over=False)
    assert plan(agent(unseen(), open=early), NOW) == Close("wak_1", "revoked", outlived)


def test_what_left_before_the_door_said_it_revokes_the_attempt_and_the_rest_is_offered_anew() -> None:
    early = agent(unseen("m2"), open=attempt("m1", "m2", handed_over=False))
    assert plan(early, NOW) == Close("wak_1", "revoked", "read, deleted, superseded or expired")
    assert plan(replace(early, open=None), NOW) == Offer("waiter", ("m2",))


@pytest.mark.parametrize(("state", "said"), [("dialog", "dialog open 30s"), ("gone", "process gone 30s")])
def test_a_runtime_that_holds_or_ended_is_not_told_what_was_not_said_yet(state: State, said: str) -> None:
    early = agent(unseen(), state=state, open=attempt(handed_over=False))
    assert plan(early, NOW) == Close("wak_1", "revoked", said)


def test_what_was_handed_over_is_not_revoked() -> None:
    assert plan(agent(open=attempt()), NOW) == Nothing(why.UNDER_WAY)


# -- doors


@pytest.mark.parametrize(
    ("doors", "state", "door"),
    [
        ((WAITER, TYPED), "working", "waiter"),
        ((TYPED, WAITER), "working", "waiter"),
        ((replace(WAITER, open=False), TYPED), "idle", "typed"),
        ((replace(WAITER, resting_until=NOW + 600, failures=2), TYPED), "idle", "typed"),
        ((WAITER,), "unknown", "waiter"),
        ((SOCKET, TYPED), "idle", "socket"),
    ],
)
def test_the_first_door_that_takes_this_state_is_used(doors: tuple[DoorState, ...], state: State, door: str) -> None:
    assert plan(agent(unseen(), doors=doors, state=state), NOW) == Offer(door, ("m1",))


def test_a_door_that_rests_is_looked_at_again_when_it_has_rested() -> None:
    resting = agent(unseen(), doors=(replace(WAITER, resting_until=NOW + 500, failures=2),))
    assert plan(resting, NOW) == Look(NOW + 500, "doors failed: next try in 8m")
    assert plan(resting, NOW + 500) == Offer("waiter", ("m1",))


def test_a_message_goes_once_through_a_door_and_thrice_in_all() -> None:
    third = replace(TYPED, name="third")
    doors = (WAITER, TYPED, third, replace(TYPED, name="fourth"))
    assert plan(agent(unseen(attempts=("waiter",)), doors=doors), NOW) == Offer("typed", ("m1",))
    assert plan(agent(unseen(attempts=("typed", "waiter")), doors=doors), NOW) == Offer("third", ("m1",))
    assert plan(agent(unseen(attempts=("waiter", "typed", "third")), doors=doors), NOW) == Nothing(why.USED_UP)


def test_what_used_up_its_attempts_rides_along_behind_what_wakes() -> None:
    used_up = unseen("m1", attempts=("waiter", "typed", "third"))
    assert plan(agent(used_up, unseen("m2")), NOW) == Offer("waiter", ("m2", "m1"))


def test_what_a_door_without_proof_said_no_other_door_says_again() -> None:
    told = unseen("m1", attempts=("socket",), told=True)
    assert plan(agent(told), NOW) == Nothing(why.TOLD)
    assert plan(agent(told, unseen("m2")), NOW) == Offer("waiter", ("m2",))


@pytest.mark.parametrize("door", [WAITER, SOCKET, TYPED])
def test_a_runtime_that_holds_what_it_is_given_is_offered_nothing(door: DoorState) -> None:
    takes_all = replace(door, takes=frozenset({"idle", "working", "dialog", "starting", "unknown", "gone"}))
    assert plan(agent(unseen(), doors=(takes_all,), state="dialog"), NOW) == Nothing("dialog open 30s")
    assert plan(agent(unseen(), doors=(takes_all,), state="gone"), NOW) == Nothing("process gone 30s")
    held = agent(unseen(), doors=(replace(WAITER, name="queue", held=True), takes_all))
    assert plan(held, NOW) == Nothing(why.UNDER_WAY)


# -- why not


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (agent(unseen(), state="gone", since=NOW - 725), "process gone 12m"),
        (agent(unseen(), state="dialog", since=NOW - 200), "dialog open 3m"),
        (
            agent(unseen(), state="working", last_offer_while_working=NOW - 1, last_offer=NOW - 1),
            "working (next tool call)",
        ),
        (agent(unseen(), state="working", doors=(TYPED,)), "working (turn end)"),
        (agent(unseen(), doors=(replace(WAITER, open=False),)), "deaf: no waiter"),
        (agent(unseen(), doors=(), hooks_fired=False), "no hooks: thrum hook install claude"),
        (agent(unseen(), doors=(), runtime=""), "plain shell: nobody polls"),
        (agent(unseen(), state="starting"), "starting"),
        (agent(unseen()), ""),
        (agent(unseen("m2")), ""),
        (agent(unseen(attempts=("waiter",)), open=attempt()), why.UNDER_WAY),
        (
            agent(unseen(attempts=("waiter",)), unseen("m2"), state="working", open=attempt()),
            "working (next tool call)",
        ),
        (agent(unseen(attempts=("a", "b", "c")), unseen("m2")), why.USED_UP),
        (agent(unseen(attempts=("socket",), told=True), unseen("m2")), why.TOLD),
        (agent(unseen(attempts=("socket",), told=True), state="gone", since=NOW - 86_400 * 2), "process gone 2d"),
    ],
)
def test_why_a_message_is_unseen_is_said_in_the_words_of_the_contract(known: AgentState, said: str) -> None:
    assert why_unseen(known, "m1", NOW) == said


def test_the_words_that_other_rooms_need() -> None:
    assert why.another_machine(125) == "on another machine (its daemon: last heard 2m ago)"
    assert why.SYNC_IS_OFF == "sync is off: on this machine only"
    assert [why.ago(seconds) for seconds in (-1, 59.9, 60, 3_600, 86_400)] == ["0s", "59s", "1m", "1h", "1d"]


# -- what the runtime threw away


def test_a_text_that_the_runtime_threw_away_was_no_attempt_and_is_offered_again() -> None:
    lost = replace(WAITER, lost="wak_1")
    thrown = agent(unseen(attempts=("waiter",)), doors=(lost,), open=attempt(idle_since=NOW))
    assert plan(thrown, NOW) == Close("wak_1", "revoked", why.THROWN_AWAY)
    assert plan(agent(unseen(), doors=(lost,)), NOW) == Offer("waiter", ("m1",))


def test_of_another_attempt_it_says_nothing() -> None:
    lost = replace(WAITER, lost="wak_0")
    waiting = agent(unseen(attempts=("waiter",)), doors=(lost,), open=attempt(idle_since=NOW))
    assert isinstance(plan(waiting, NOW), Look)
