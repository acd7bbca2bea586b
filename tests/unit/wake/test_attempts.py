"""What is known of one agent's attempts, live and after a restart; and tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thrum.model.attempt_ids import new_token, shown, tokens_in, without_tokens
from thrum.model.ids import is_id
from thrum.model.wake_types import DoorState, Outcome, Reachable, State
from thrum.wake.attempts import NO_PROOF, Attempts, Record, Wakeable
from thrum.wake.plan import AgentState

WAITER = DoorState("waiter", proves=True, open=True, takes=frozenset({"idle", "working"}))
PROCESS = (100, "start")
RUNTIME = Reachable("bob", "idle", 0.0, process=PROCESS, runtime="claude", session="s1")
M1, M2 = Wakeable("m1", "alice"), Wakeable("m2", "alice")


def record(attempt_id: str = "wak_1", *message_ids: str, outcome: Outcome = "offered", detail: str = "") -> Record:
    return Record("bob", attempt_id, "waiter", message_ids or ("m1",), outcome, detail, PROCESS)


def offered(attempts: Attempts, made: Record, at: float = 10.0, runtime: Reachable = RUNTIME) -> None:
    attempts.offered(made, runtime, at)
    attempts.handed_over(made.attempt_id, at)


def look(
    attempts: Attempts, *messages: Wakeable, at: float = 20.0, runtime: Reachable = RUNTIME, door: DoorState = WAITER
) -> AgentState:
    return attempts.observe(runtime, [door], messages or (M1,), at)


# -- tokens


def test_a_token_is_an_id_of_128_random_bits_and_shown_by_its_first_8_characters() -> None:
    one, two = new_token(), new_token()
    assert one != two and is_id("wak", one) and len(one) == 30
    assert shown(one) == one[:8]


@pytest.mark.parametrize("text", ["{}", "<task-notification>{}</task-notification>", "a\n{}", "x: {}.", "[{}]", "n{}"])
def test_a_whole_token_is_found_wherever_it_stands(text: str) -> None:
    token = new_token()
    assert tokens_in(text.format(token)) == (token,)


def test_a_token_that_was_cut_proves_nothing() -> None:
    token = new_token()
    assert all(tokens_in(f"so {token[:length]}{end}") == () for length in range(30) for end in ("", "…", "..."))
    assert tokens_in(token + "7") == tokens_in(token + "x") == tokens_in(token.lower()) == tokens_in(token + "_") == ()


def test_several_tokens_are_told_once_each_in_their_order() -> None:
    one, two = new_token(), new_token()
    assert tokens_in(f"{two} {one} {two}") == (two, one)
    assert without_tokens(f"{two} {one}") == f"{two[:8]}… {one[:8]}…"


# -- attempts


def test_an_attempt_is_open_until_it_is_proved() -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    known = look(attempts)
    assert known.open is not None and known.open.attempt_id == "wak_1" and known.open.handed_over
    assert known.unseen[0].attempts == ("waiter",) and known.last_offer == 10.0
    attempts.closed("wak_1", "proved", 21.0)
    assert look(attempts, M2).open is None


def test_until_its_door_has_said_it_an_attempt_can_be_revoked() -> None:
    attempts = Attempts("bob")
    attempts.offered(record(), RUNTIME, 10.0)
    known = look(attempts)
    assert known.open is not None and not known.open.handed_over and known.last_offer is None


@pytest.mark.parametrize("outcome", ["failed", "refused", "revoked"])
def test_where_nothing_was_said_nothing_is_counted(outcome: Outcome) -> None:
    attempts = Attempts("bob")
    attempts.offered(record(), RUNTIME, 10.0)
    attempts.closed("wak_1", outcome, 11.0)
    known = look(attempts)
    assert known.open is None and known.unseen[0].attempts == () and known.last_offer is None


def test_what_a_door_without_proof_said_has_ended_as_offered() -> None:
    attempts = Attempts("bob")
    offered(attempts, record(detail=NO_PROOF))
    known = look(attempts)
    assert known.open is None and known.unseen[0].told and not attempts.is_awaiting


def test_the_first_outcome_counts() -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    attempts.closed("wak_1", "expired", 80.0)
    attempts.closed("wak_1", "failed", 81.0)
    known = look(attempts)
    assert known.unseen[0].attempts == ("waiter",) and known.doors[0].failures == 0


def test_a_proof_before_the_door_has_returned_counts_as_an_offer_that_was_made() -> None:
    attempts = Attempts("bob")
    attempts.offered(record(), replace(RUNTIME, state="working"), 10.0)
    attempts.closed("wak_1", "proved", 10.1)
    attempts.handed_over("wak_1", 10.2)
    known = look(attempts, M2)
    assert known.open is None and known.last_offer == 10.2 and known.last_offer_while_working == 10.1


def test_offers_made_while_working_are_known_apart() -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    assert look(attempts).last_offer_while_working is None
    attempts.closed("wak_1", "proved", 11.0)
    offered(attempts, record("wak_2", "m2"), 12.0, replace(RUNTIME, state="working"))
    assert look(attempts, M2).last_offer_while_working == 12.0


# -- idle without a break


@pytest.mark.parametrize(
    ("state", "since", "idle_since"),
    [
        ("idle", 0.0, 10.0),
        ("idle", 15.0, 15.0),
        ("working", 15.0, None),
        ("unknown", 15.0, None),
        ("dialog", 1.0, None),
    ],
)
def test_idle_time_is_counted_from_the_offer_or_the_last_turn(
    state: State, since: float, idle_since: float | None
) -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    known = look(attempts, runtime=replace(RUNTIME, state=state, state_since=since))
    assert known.open is not None and known.open.idle_since == idle_since


def test_idle_time_begins_anew_when_the_runtime_no_longer_holds_it() -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    look(attempts, door=replace(WAITER, held=True), at=50.0)
    known = look(attempts, at=60.0)
    assert known.open is not None and known.open.idle_since == 50.0


# -- the health of doors


def test_a_door_that_failed_twice_in_a_row_rests_for_10_minutes() -> None:
    attempts = Attempts("bob")
    for number, until in ((1, 0.0), (2, 611.0)):
        attempts.offered(record(f"wak_{number}"), RUNTIME, 10.0)
        attempts.closed(f"wak_{number}", "failed", 11.0)
        assert (look(attempts).doors[0].failures, look(attempts).doors[0].resting_until) == (number, until)


def test_a_door_that_worked_between_two_failures_does_not_rest() -> None:
    attempts = Attempts("bob")
    for number, outcome in enumerate(("failed", "proved", "failed")):
        attempts.offered(record(f"wak_{number}"), RUNTIME, 10.0)
        if outcome == "proved":
            attempts.handed_over(f"wak_{number}", 10.0)
        attempts.closed(f"wak_{number}", outcome, 11.0)  # pyright: ignore[reportArgumentType]
    assert look(attempts).doors[0].resting_until == 0.0


def test_a_door_that_refuses_is_tried_ever_more_seldom_until_the_state_changes() -> None:
    attempts = Attempts("bob")
    rests: list[float] = []
    for number in range(9):
        look(attempts)
        attempts.offered(record(f"wak_{number}"), RUNTIME, 10.0)
        attempts.closed(f"wak_{number}", "refused", 10.0)
        rests.append(look(attempts).doors[0].resting_until - 10.0)
    assert rests == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert look(attempts, runtime=replace(RUNTIME, state_since=12.0)).doors[0].resting_until == 0.0


# -- a new session, a new process


def test_a_new_session_outlives_an_open_attempt() -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    known = look(attempts, runtime=replace(RUNTIME, session="s2"))
    assert known.open is not None and known.open.outlived == "new session"


def test_a_new_process_outlives_an_open_attempt_and_counts_anew() -> None:
    attempts = Attempts("bob")
    look(attempts)
    for number in (1, 2):
        attempts.offered(record(f"wak_{number}"), RUNTIME, 10.0)
        attempts.closed(f"wak_{number}", "failed", 11.0)
    offered(attempts, record("wak_3"))
    known = look(attempts, runtime=replace(RUNTIME, process=(101, "start")))
    assert known.open is not None and known.open.outlived == "new process"
    assert known.unseen[0].attempts == () and known.doors[0].resting_until == 0.0


def test_a_process_that_is_gone_outlives_nothing() -> None:
    attempts = Attempts("bob")
    offered(attempts, record())
    known = look(attempts, runtime=replace(RUNTIME, process=None, session="", state="gone"))
    assert known.open is not None and known.open.outlived == ""


# -- restart


def test_after_a_restart_an_open_attempt_stays_open_and_its_times_begin_anew() -> None:
    attempts = Attempts.rebuilt("bob", [record()], 500.0)
    known = look(attempts, at=501.0)
    assert known.open is not None and known.open.handed_over
    assert (known.open.offered, known.open.idle_since) == (500.0, 500.0)
    assert known.unseen[0].attempts == ("waiter",) and known.last_offer is None


def test_after_a_restart_what_a_door_without_proof_said_is_not_open() -> None:
    known = look(Attempts.rebuilt("bob", [record(detail=NO_PROOF)], 500.0))
    assert known.open is None and known.unseen[0].told


def test_after_a_restart_an_attempt_of_another_process_ends() -> None:
    attempts = Attempts.rebuilt("bob", [record()], 500.0)
    known = look(attempts, runtime=replace(RUNTIME, process=(101, "start")))
    assert known.open is not None and known.open.outlived == "new process" and known.unseen[0].attempts == ()


def test_rebuilt_is_what_lived() -> None:
    made = [
        record("wak_1", outcome="expired"),
        record("wak_2", outcome="failed"),
        record("wak_3", "m2", detail=NO_PROOF),
        record("wak_4", "m1", "m2", outcome="proved"),
    ]
    lived = Attempts("bob")
    look(lived, M1, M2)
    for each in made:
        offered(lived, replace(each, outcome="offered"))
        if each.outcome != "offered":
            lived.closed(each.attempt_id, each.outcome, 11.0)
    rebuilt = Attempts.rebuilt("bob", made, 20.0)
    one, two = ([(each.attempts, each.told) for each in look(known, M1, M2).unseen] for known in (lived, rebuilt))
    assert one == two == [(("waiter", "waiter"), False), (("waiter", "waiter"), True)]


def test_what_was_seen_is_forgotten_and_an_authors_minute_is_not() -> None:
    attempts = Attempts("bob")
    urgent = [Wakeable(f"u{number}", "alice", urgent=True) for number in range(3)]
    look(attempts, *urgent, at=10.0)
    offered(attempts, record("wak_1", "u0", "u1", "u2"))
    attempts.closed("wak_1", "proved", 11.0)
    known = look(attempts, M1, at=60.0)
    assert attempts.record("wak_1") is None
    assert [each.message_id for each in known.recent_urgent] == ["u0", "u1", "u2"]
    assert look(attempts, M1, at=200.0).recent_urgent == ()
