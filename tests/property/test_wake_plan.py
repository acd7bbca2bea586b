"""The planner and its bookkeeping, against doors that lie, lose, double and delay, and a daemon that dies anywhere.

The oracle knows the facts alone, as a stranger would read them in the journal, and counts for itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from thrum.model.attempt_ids import new_token
from thrum.model.wake_types import DoorState, Outcome, Process, Reachable, State
from thrum.wake.attempts import NO_PROOF, Attempts, Record, Wakeable
from thrum.wake.plan import Action, AgentState, Close, Look, Nothing, Offer, plan, why_unseen

NOTHING_SAID = ("failed", "refused", "revoked")
DOORS = (
    DoorState("waiter", proves=True, open=True, takes=frozenset({"idle", "working", "unknown"})),
    DoorState("socket", proves=False, open=True, takes=frozenset({"idle", "working"})),
    DoorState("typed", proves=True, open=True, takes=frozenset({"idle"})),
    DoorState("queue", proves=True, open=True, takes=frozenset({"idle", "working"})),
    DoorState("last", proves=True, open=True, takes=frozenset({"idle"})),
)
STATES: tuple[State, ...] = (*("idle", "working") * 4, "dialog", "starting", "unknown", "gone")
ANSWERS = ("says", "says", "loses", "loses", "doubles", "lies", "refused", "failed", "read meanwhile")


class Waking(RuleBasedStateMachine):
    """One agent, its runtime, its doors, and what is on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.sent = 0
        self.unseen: dict[str, Wakeable] = {}
        self.facts: dict[str, Record] = {}
        """Of each attempt the outcome that counts."""
        self.receipts: Counter[str] = Counter()
        self.reasons: dict[str, tuple[Process | None, tuple[str, ...]]] = {}
        """For each attempt: the process, and the messages that could not have ridden along."""
        self.in_flight: list[str] = []
        """Attempts that doors said, on their way to the model."""
        self.calling: Record | None = None
        """The attempt whose door is called, and has not answered."""
        self.said_at = self.said_while_working_at = self.heard_of_at = -1e9
        self.runtime = Reachable("bob", "idle", 0.0, (1, "start"), "claude", "s1")
        self.doors = list(DOORS)
        self.attempts = Attempts("bob")

    @initialize(proves=st.lists(st.booleans(), min_size=1, max_size=len(DOORS)))
    def begin(self, proves: list[bool]) -> None:
        self.doors = [replace(door, proves=each) for door, each in zip(DOORS, proves, strict=False)]

    # -- what happens outside

    @rule(count=st.integers(1, 3), urgent=st.booleans(), answers=st.booleans(), author=st.sampled_from("ab"))
    def send(self, count: int, urgent: bool, answers: bool, author: str) -> None:
        for _ in range(count):
            self.sent += 1
            name = f"m{self.sent:04}"
            self.unseen[name] = Wakeable(name, author, urgent, answers)

    @precondition(lambda self: self.unseen)
    @rule(number=st.integers(0, 50))
    def leave(self, number: int) -> None:
        """It was read, deleted, superseded, or expired."""
        del self.unseen[sorted(self.unseen)[number % len(self.unseen)]]

    @rule(seconds=st.sampled_from([0.1, 0.2, 0.3, 1.0, 30.0, 60.0, 600.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds

    @rule(state=st.sampled_from(STATES))
    def become(self, state: State) -> None:
        self.runtime = replace(self.runtime, state=state, state_since=self.now)

    @rule(is_new_process=st.booleans())
    def begin_anew(self, is_new_process: bool) -> None:
        """`/clear`, or another process."""
        assert self.runtime.process is not None
        self.runtime = replace(self.runtime, session=f"s{self.now}")
        if is_new_process:
            self.runtime = replace(self.runtime, process=(self.runtime.process[0] + 1, "start"))
            self.said_while_working_at = -1e9

    @rule(change=st.sampled_from(["open", "open", "closed", "held"]), number=st.integers(0, 4))
    def change_doors(self, change: str, number: int) -> None:
        """One closes, or holds what it was given; or all are as they should be."""
        number %= len(self.doors)
        if change == "open":
            self.doors = [replace(door, open=True, held=False) for door in self.doors]
        else:
            self.doors[number] = replace(self.doors[number], open=change != "closed", held=change == "held")

    # -- what the loop does

    def observe(self) -> AgentState:
        messages = [self.unseen[name] for name in sorted(self.unseen)]
        return self.attempts.observe(self.runtime, self.doors, messages, self.now)

    def commit(self, record: Record) -> None:
        known = self.facts.get(record.attempt_id)
        assert not (known and known.is_told and record.outcome == "expired"), "it has ended as offered"
        if known is None or known.outcome == "offered":
            self.facts[record.attempt_id] = record

    def close(self, record: Record, outcome: Outcome) -> None:
        self.commit(replace(record, outcome=outcome))
        self.attempts.closed(record.attempt_id, outcome, self.now)

    @rule(answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=6))
    def go_on(self, answers: list[str]) -> None:
        """The loop, for a while; `answers` are those of doors. It may leave a door called, or an attempt open."""
        for answer in answers:
            if self.calling is not None:
                self.answer(answer)
            elif not self.step():
                break

    @rule(answers=st.lists(st.sampled_from(ANSWERS), min_size=6, max_size=12))
    def go_on_while_nobody_is_at_work(self, answers: list[str]) -> None:
        """An idle runtime, and time goes by: what was lost goes on to the next door, until no door is left."""
        self.runtime = replace(self.runtime, state="idle", state_since=self.now)
        for answer in answers:
            if self.calling is not None:
                self.answer(answer)
            elif not self.step():
                self.now += 61.0

    @precondition(lambda self: self.calling is None)
    @rule()
    def step_once(self) -> None:
        self.step()

    def step(self) -> bool:
        """What is planned: a fact, and nothing else yet."""
        action = plan(self.observe(), self.now)
        if isinstance(action, Close):
            if "idle" in action.why:
                assert self.runtime.state == "idle"
                assert self.now - max(self.runtime.state_since, self.heard_of_at) >= 59.99
            self.close(self.facts[action.attempt_id], action.outcome)
        elif isinstance(action, Offer):
            self.judge(action)
            self.offer(action)
        elif isinstance(action, Look):
            assert action.at > self.now, "or it would spin"
        return isinstance(action, Close | Offer)

    def offer(self, action: Offer) -> None:
        proves = next(door.proves for door in self.doors if door.name == action.door)
        detail = "" if proves else NO_PROOF
        process = self.runtime.process
        record = Record("bob", new_token(), action.door, action.message_ids, "offered", detail, process)
        self.reasons[record.attempt_id] = (
            process,
            tuple(name for name in action.message_ids if self.may_be_a_reason(name, action.door)),
        )
        self.commit(record)
        self.attempts.offered(record, self.runtime, self.now)
        self.calling = record

    @precondition(lambda self: self.calling is not None)
    @rule(answer=st.sampled_from(ANSWERS))
    def answer(self, answer: str) -> None:
        """The door is called, unless the attempt was revoked meanwhile."""
        record, self.calling = self.calling, None
        assert record is not None
        if answer == "read meanwhile":
            self.unseen.pop(record.message_ids[0], None)
        action = plan(self.observe(), self.now)
        if isinstance(action, Close):
            assert action.outcome == "revoked" and action.attempt_id == record.attempt_id
            return self.close(record, "revoked")
        assert self.runtime.state not in ("gone", "dialog"), "or it was said into a dialog"
        assert set(record.message_ids) <= set(self.unseen), "or it was said after it was seen"
        self.in_flight += [record.attempt_id] * {"doubles": 2, "loses": 0, "refused": 0, "failed": 0}.get(answer, 1)
        if answer in ("refused", "failed", "lies"):
            return self.close(record, "refused" if answer == "refused" else "failed")
        self.attempts.handed_over(record.attempt_id, self.now)
        self.said_at = self.heard_of_at = self.now
        if self.runtime.state == "working":
            self.said_while_working_at = self.now

    @precondition(lambda self: self.in_flight)
    @rule(number=st.integers(0, 5))
    def arrive(self, number: int) -> None:
        """The model is given what a door said, however long ago, and a hook shows the token."""
        self.prove(self.in_flight.pop(number % len(self.in_flight)))

    def prove(self, token: str) -> None:
        record = self.facts[token]
        self.commit(replace(record, outcome="proved"))
        for name in record.message_ids:
            if self.unseen.pop(name, None):
                self.receipts[name] += 1
        self.attempts.closed(token, "proved", self.now)

    @rule(was_said=st.booleans(), later=st.sampled_from([-1_000.0, 0.5, 100.0]))
    def die_and_come_back(self, was_said: bool, later: float) -> None:
        """kill -9 between any two steps: just before the door was called, or just after it has said it."""
        if self.calling is not None and was_said and set(self.calling.message_ids) <= set(self.unseen):
            self.in_flight.append(self.calling.attempt_id)
        self.calling = None
        self.now += later
        self.runtime = replace(self.runtime, state_since=min(self.runtime.state_since, self.now))
        self.said_at = self.said_while_working_at = -1e9
        self.heard_of_at = self.now
        self.attempts = Attempts.rebuilt("bob", self.facts.values(), self.now)

    # -- the oracle

    def counted(self, name: str) -> list[Record]:
        return [
            record
            for record in self.facts.values()
            if name in record.message_ids
            and record.process == self.runtime.process
            and record.outcome not in NOTHING_SAID
        ]

    def may_be_a_reason(self, name: str, door: str) -> bool:
        doors = [record.door for record in self.counted(name)]
        return not self.was_told(name) and door not in doors and len(doors) < 3

    def was_told(self, name: str) -> bool:
        return any(record.is_told for record in self.counted(name))

    def judge(self, offer: Offer) -> None:
        """An offer that is allowed, whatever made it."""
        door = next(door for door in self.doors if door.name == offer.door)
        assert self.open_ones() == [] and self.runtime.state in door.takes and door.open
        assert not any(each.held for each in self.doors)
        assert set(offer.message_ids) <= set(self.unseen) and len(set(offer.message_ids)) == len(offer.message_ids)
        reasons = [self.unseen[name] for name in offer.message_ids if self.may_be_a_reason(name, door.name)]
        assert reasons, "what used up its attempts is never again a reason to wake"
        assert not any(self.was_told(name) for name in offer.message_ids), "better unseen than told twice"
        everything = {name for name in self.unseen if not self.was_told(name)}
        assert set(offer.message_ids) == everything, "a burst is one wake"
        if not any(each.urgent for each in reasons):
            assert self.now - self.said_at >= 0.299
            if self.runtime.state == "working" and not any(each.answers_own for each in reasons):
                assert self.now - self.said_while_working_at >= 59.99

    def open_ones(self) -> list[Record]:
        return [record for record in self.facts.values() if record.is_open]

    @invariant()
    def there_are_never_two_open_attempts(self) -> None:
        assert len(self.open_ones()) <= 1

    @invariant()
    def a_message_wakes_once_by_a_door_and_thrice_in_all(self) -> None:
        woken: Counter[tuple[object, str]] = Counter()
        by_door: Counter[tuple[object, str, str]] = Counter()
        for attempt_id, (process, names) in self.reasons.items():
            if self.facts[attempt_id].outcome not in NOTHING_SAID:
                woken.update((process, name) for name in names)
                by_door.update((process, name, self.facts[attempt_id].door) for name in names)
        assert max(woken.values(), default=0) <= 3 and max(by_door.values(), default=0) <= 1

    @invariant()
    def every_message_is_proved_once(self) -> None:
        assert max(self.receipts.values(), default=0) <= 1

    @invariant()
    def everybody_can_see_why_a_message_is_unseen(self) -> None:
        agent = self.observe()
        for name in self.unseen:
            said = why_unseen(agent, name, self.now)
            soon = isinstance(plan(agent, self.now), Offer | Close | Look)
            assert said or soon, "unseen, and nobody knows why"

    def teardown(self) -> None:
        """With a new runtime, idle, behind honest doors, all that is unseen is seen, in one wake."""
        if not self.doors:
            return
        self.runtime = Reachable("bob", "idle", self.now, (10**6, "start"), "claude", "new")
        self.doors = [replace(door, open=True, held=False, proves=True) for door in self.doors]
        self.in_flight.clear()
        if self.calling is not None:
            self.calling = None
            self.attempts = Attempts.rebuilt("bob", self.facts.values(), self.now)
        wakes = 0
        for _ in range(10):
            action: Action = plan(self.observe(), self.now)
            if isinstance(action, Offer):
                self.judge(action)
                self.offer(action)
                self.answer("says")
                self.prove(self.in_flight.pop())
                wakes += 1
            elif isinstance(action, Close):
                self.close(self.facts[action.attempt_id], action.outcome)
            elif isinstance(action, Look):
                self.now = action.at
            elif action == Nothing(""):
                break
        assert not self.unseen and not self.open_ones() and wakes <= 1


TestWaking = Waking.TestCase
_deep = settings().max_examples > 1_000
TestWaking.settings = settings(settings(), max_examples=2_000 if _deep else 100, stateful_step_count=40)
