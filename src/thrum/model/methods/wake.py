"""Waking: why an agent was, or was not, woken (wake.md §5)."""

from __future__ import annotations

from typing import Final

import msgspec

from thrum.model.methods.method import Access, Method, Params


class Attempt(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """One offer of mail. `attempt_id` is the beginning of its token alone; `outcome`: `offered` until it ended."""

    attempt_id: str
    at: str
    door: str
    message_ids: tuple[str, ...]
    outcome: str
    detail: str = ""


class DoorHealth(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A way to an agent's model, and how it is with it; `resting_until`: it failed, and is left alone till then."""

    door: str
    health: str
    resting_until: str = ""


class AgentWake(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """`state`: of its runtime, `unknown` where no one looks. `unseen`: the messages that are a reason to wake it."""

    agent_id: str
    runtime: str = ""
    state: str
    state_since: str = ""
    doors: tuple[DoorHealth, ...]
    open: Attempt | None = None
    unseen: tuple[str, ...]
    last: tuple[Attempt, ...]


class WakeStatusParams(Params, kw_only=True):
    """`agent_id`: of one alone; without it of all of this machine."""

    agent_id: str = ""


class WakeStatusResult(msgspec.Struct):
    agents: tuple[AgentWake, ...]


WAKE_STATUS: Final = Method(
    name="wake.status", params=WakeStatusParams, result=WakeStatusResult, access=Access.ANONYMOUS
)
