"""What `thrum wake` prints. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from thrum.cli.render import RenderContext, at, labelled
from thrum.cli.text import line, plural, shorten
from thrum.cli.values import absolute, since
from thrum.model.ids import short_message_id
from thrum.model.methods.wake import AgentWake, Attempt, DoorHealth

_UNSEEN_SHOWN = 5


def agent(each: AgentWake, rendering: RenderContext) -> str:
    """The block of one agent: its state, its doors, what it has not seen, what was tried; what is empty is left out."""
    name = "plain shell" if each.state == "unknown" and not each.runtime else line(each.state)
    state = name + (f" for {since(each.state_since, rendering.now_ms)}" if each.state_since else "")
    runtime = f" ({line(each.runtime)})" if each.runtime else ""
    fields = labelled(
        ("State", state),
        ("Doors", ", ".join(_door(door) for door in each.doors) or "none"),
        ("Unseen", _unseen(each.unseen)),
        ("Open", _attempt(each.open, rendering) if each.open is not None else ""),
        width=10,
    )
    lines = [at(each.agent_id) + runtime, fields]
    tried = [attempt for attempt in each.last if attempt != each.open]
    if tried:
        lines += ["Last:", *(f"  {shorten(_attempt(attempt, rendering), rendering.width)}" for attempt in tried)]
    return "\n".join(lines)


def _door(door: DoorHealth) -> str:
    until = f" until {absolute(door.resting_until)}" if door.resting_until else ""
    return f"{line(door.door)} {line(door.health)}{until}"


def _unseen(message_ids: Sequence[str]) -> str:
    if not message_ids:
        return ""
    ends = " ".join(line(short_message_id(each)) for each in message_ids[:_UNSEEN_SHOWN])
    more = f" and {len(message_ids) - _UNSEEN_SHOWN} more" if len(message_ids) > _UNSEEN_SHOWN else ""
    return f"{plural(len(message_ids), 'message')}: {ends}{more}"


def _attempt(attempt: Attempt, rendering: RenderContext) -> str:
    detail = f": {line(attempt.detail)}" if attempt.detail else ""
    count = plural(len(attempt.message_ids), "message")
    return f"{rendering.ago(attempt.at)}  {line(attempt.outcome)}  {line(attempt.door)}  {count}{detail}"
