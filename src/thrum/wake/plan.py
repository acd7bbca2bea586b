"""When an agent is woken, and through which door: rules, in the order in which they hold. Pure.

`plan` is told all that is known of one agent and of its runtime; no rule looks at a clock, and what a rule says depends
on nothing else. Each quotes its source, wake.md §1, §3, §4 or §6. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from thrum.model.limits import (
    wake_attempts_max,
    wake_proof_seconds,
    wake_urgent_max,
    wake_window_seconds,
    wake_working_seconds,
)
from thrum.model.wake_types import DoorState, State
from thrum.wake import why


@dataclass(frozen=True, slots=True)
class Unseen:
    """A message that wakes, and that its recipient's model was not given yet."""

    message_id: str
    arrived: float
    urgent: bool = False
    answers_own: bool = False
    """Whether it replies to a message of the agent's own."""
    attempts: tuple[str, ...] = ()
    """The doors of its counted attempts in this process of the runtime, ended and open ones."""
    told: bool = False
    """Whether a door without proof said it: then it is not said again."""


@dataclass(frozen=True, slots=True)
class Urgent:
    """An urgent message, seen meanwhile or not: what its author's minute is counted by."""

    message_id: str
    author: str
    arrived: float


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """The one attempt that a proof is awaited for."""

    attempt_id: str
    door: str
    message_ids: tuple[str, ...]
    offered: float
    handed_over: bool = True
    """Whether the door has said it. Until then it can be revoked."""
    idle_since: float | None = None
    """Since when its runtime is idle without a break and holds nothing; None while it is not."""
    outlived: str = ""
    """What came after it in its runtime, and ends it: `new process`, `new session`."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """All that a plan is made from. `doors`: in the order of preference; `unseen`: oldest first."""

    state: State
    state_since: float
    doors: tuple[DoorState, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    open: OpenAttempt | None = None
    last_offer: float | None = None
    last_offer_while_working: float | None = None
    recent_urgent: tuple[Urgent, ...] = ()
    """Of the last minute at least, in the order in which they came."""
    runtime: str = ""
    hooks_fired: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """Say these through this door: first what is a reason to wake, then what rides along, each oldest first."""

    door: str
    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """End the open attempt."""

    attempt_id: str
    outcome: Literal["expired", "revoked"]
    why: str


@dataclass(frozen=True, slots=True)
class Look:
    """Nothing now; plan again at `at`, or when something happens."""

    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing until something happens. `why` in the words of wake.md §2; empty: there is nothing to say."""

    why: str = ""


Action = Offer | Close | Look | Nothing


def plan(agent: AgentState, now: float) -> Action:
    """What to do for one agent: what the first rule says that says anything."""
    for rule in RULES:
        action = rule(agent, now)
        if action is not None:
            return action
    return Nothing(_why_no_door(agent, now))


# -- the rules


def _revoked_before_it_was_said(agent: AgentState, now: float) -> Action | None:
    """§1.4: "Revocable until the door opens: read, deleted, superseded or expired before, and nothing is said."

    What is left of the batch is offered again. A runtime that ended, or holds what it is given, is no more told either.
    """
    attempt = agent.open
    if attempt is None or attempt.handed_over:
        return None
    left = {message.message_id for message in agent.unseen}
    if not left.issuperset(attempt.message_ids):
        return Close(attempt.attempt_id, "revoked", "read, deleted, superseded or expired")
    if attempt.outlived:
        return Close(attempt.attempt_id, "revoked", attempt.outlived)
    if agent.state in ("gone", "dialog"):
        return Close(attempt.attempt_id, "revoked", _why_state(agent, now))
    return None


def _ended_by_a_new_session(agent: AgentState, now: float) -> Action | None:
    """§4: "`/clear`, a new session id or a new owner process end open attempts as `expired`"."""
    if agent.open is not None and agent.open.outlived:
        return Close(agent.open.attempt_id, "expired", agent.open.outlived)
    return None


def _ended_without_proof(agent: AgentState, now: float) -> Action | None:
    """§4: "An attempt without proof ends after 60 s idle without a break; the end of a turn ends nothing …, nor does
    time while the runtime holds it"."""
    attempt = agent.open
    if attempt is None or attempt.idle_since is None or not attempt.handed_over or _holds(agent):
        return None
    ends = max(attempt.idle_since, attempt.offered) + wake_proof_seconds
    if now >= ends:
        return Close(attempt.attempt_id, "expired", f"no proof after {wake_proof_seconds:.0f} s idle")
    return Look(ends, why.UNDER_WAY)


def _one_open_attempt(agent: AgentState, now: float) -> Action | None:
    """§1.3: "One open attempt per agent"; §4: `--urgent` "opens no second attempt"."""
    return None if agent.open is None else Nothing(_why_state(agent, now) or why.UNDER_WAY)


def _nobody_is_there(agent: AgentState, now: float) -> Action | None:
    """§4: "An agent whose process or identity file is gone is offered nothing."."""
    return Nothing(_why_state(agent, now) if agent.unseen else "") if agent.state == "gone" else None


def _nothing_to_say(agent: AgentState, now: float) -> Action | None:
    """§1.6: "Silent on nothing."; §3: what a door without proof said: "better unseen than told twice"."""
    if not agent.unseen:
        return Nothing()
    return Nothing(why.TOLD) if all(message.told for message in agent.unseen) else None


def _it_would_be_held(agent: AgentState, now: float) -> Action | None:
    """§1.4: "A runtime that is known to hold what it is given (a dialog is open) is offered nothing until it stops"."""
    if agent.state == "dialog":
        return Nothing(_why_state(agent, now))
    return Nothing(_why_state(agent, now) or why.UNDER_WAY) if _holds(agent) else None


def _by_the_first_door_that_is_due(agent: AgentState, now: float) -> Action | None:
    """§3, the table: doors in the order of preference, each in the states of its runtime that it takes; §4: "Doors that
    failed twice in a row rest for 10 min"; and what must wait, waits (`_due`)."""
    looks: list[Look] = []
    for door in agent.doors:
        reasons = [message for message in agent.unseen if _may_go(message, door)]
        if not reasons or not door.open or agent.state not in door.takes:
            continue
        due = _due(agent, reasons)
        at = max(due, door.resting_until)
        if at <= now:
            return Offer(door.name, _batch(agent.unseen, reasons))
        resting = door.resting_until > now
        looks.append(Look(at, why.doors_rest(door.resting_until - now) if resting else _why_state(agent, now)))
    return min(looks, key=lambda look: look.at, default=None)


RULES: Final[tuple[Callable[[AgentState, float], Action | None], ...]] = (
    _revoked_before_it_was_said,
    _ended_by_a_new_session,
    _ended_without_proof,
    _one_open_attempt,
    _nobody_is_there,
    _nothing_to_say,
    _it_would_be_held,
    _by_the_first_door_that_is_due,
)


# -- what the rules ask


def _holds(agent: AgentState) -> bool:
    return any(door.held for door in agent.doors)


def _may_go(message: Unseen, door: DoorState) -> bool:
    """§1.3: "At most one attempt per door and three in all for a message"; §3: after a door without proof none."""
    return not message.told and door.name not in message.attempts and len(message.attempts) < wake_attempts_max


def _batch(unseen: Sequence[Unseen], reasons: Sequence[Unseen]) -> tuple[str, ...]:
    """§1.3: "a burst is one wake"; what used up its attempts "rides along when a later message … is offered"."""
    wakes = {message.message_id for message in reasons}
    riders = [each.message_id for each in unseen if not each.told and each.message_id not in wakes]
    return (*(each.message_id for each in reasons), *riders)


def _due(agent: AgentState, reasons: Sequence[Unseen]) -> float:
    """From when on one of these may wake the agent.

    §4: "what comes within 300 ms after an offer waits until they are over (a fixed window, never extended)"; §6: "While
    working, an agent is offered mail at most once a minute unless urgent or a reply to its own question."
    """
    if any(_is_urgent(agent, message) for message in reasons):
        return -inf
    due = -inf if agent.last_offer is None else agent.last_offer + wake_window_seconds
    if agent.state != "working" or agent.last_offer_while_working is None:
        return due
    if any(message.answers_own for message in reasons):
        return due
    return max(due, agent.last_offer_while_working + wake_working_seconds)


def _is_urgent(agent: AgentState, message: Unseen) -> bool:
    """§4: "`--urgent` waits neither for that nor for the minute of §6 (an author's fourth in a minute does)"."""
    if not message.urgent:
        return False
    before: list[Urgent] = []
    for each in agent.recent_urgent:
        if each.message_id == message.message_id:
            earlier = [other for other in before if other.author == each.author]
            return sum(each.arrived - other.arrived < 60.0 for other in earlier) < wake_urgent_max
        before.append(each)
    return True


# -- why not


def why_unseen(agent: AgentState, message_id: str, now: float) -> str:
    """Why one message is not seen yet, for `sent` and its like; empty where it will be at any moment, or is."""
    message = next((each for each in agent.unseen if each.message_id == message_id), None)
    if message is None:
        return ""
    if agent.state not in ("gone", "dialog"):
        if message.told:
            return why.TOLD
        if agent.open is not None and message_id in agent.open.message_ids:
            return _why_state(agent, now) or why.UNDER_WAY
        if len(message.attempts) >= wake_attempts_max:
            return why.USED_UP
    action = plan(agent, now)
    return action.why if isinstance(action, Look | Nothing) else ""


def _why_state(agent: AgentState, now: float) -> str:
    """What the state of the runtime says; empty where that is no hindrance."""
    lasted = now - agent.state_since
    if agent.state == "gone":
        return why.process_gone(lasted)
    if agent.state == "dialog":
        return why.dialog_open(lasted)
    if agent.state == "working":
        takes = any(door.open and "working" in door.takes for door in agent.doors)
        return why.NEXT_TOOL_CALL if takes else why.TURN_END
    return ""


def _why_deaf(agent: AgentState) -> str:
    if not agent.hooks_fired:
        return why.no_hooks(agent.runtime)
    return next((door.why for door in agent.doors if door.why), why.NO_WAITER)


def _why_no_door(agent: AgentState, now: float) -> str:
    """Why there is something to say, and no door for it."""
    if not agent.runtime:
        return why.PLAIN_SHELL
    usable = [door for door in agent.doors if door.open]
    if not usable:
        return _why_deaf(agent)
    if any(agent.state in door.takes for door in usable):
        return why.USED_UP
    return _why_state(agent, now) or agent.state
