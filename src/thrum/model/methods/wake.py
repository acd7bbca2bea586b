"""Waking: what the hooks of runtimes call, and why an agent was, or was not, woken (wake.md §5, rpc.md §6)."""

from __future__ import annotations

from typing import Any, Final

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


class HookParams(Params, kw_only=True):
    runtime: str
    event: str
    """The runtime's own name of what happened, or `wait`: mail is waited for."""
    payload: dict[str, Any] = {}
    """What the runtime says of it."""


class HookResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the hook's process is to do in the end."""

    stdout: str = ""
    stderr: str = ""
    exit_status: int = 0
    agent_id: str = ""
    """The agent whose runtime called; empty where it has none."""


RUNTIME_HOOK: Final = Method(
    name="runtime.hook",
    params=HookParams,
    result=HookResult,
    access=Access.ANONYMOUS,
    transports="U",
    long_poll=True,
)
"""For anybody: what a hook may say and is told follows from the runtime's process that it runs below, which the kernel
proves, and from tokens that only a model was given."""


class RuntimeThreadParams(Params, kw_only=True):
    """`agent_id`: whose; `pid`: of the terminal that was started for it, recorded as the agent's process; without it
    the one that is recorded. `home`: an absolute CODEX_HOME; without it that of the process. At most `timeout_ms` is
    waited for."""

    agent_id: str
    pid: int = 0
    home: str = ""
    timeout_ms: int = 15_000


class RuntimeThreadResult(msgspec.Struct):
    """`thread`: the id of the runtime's conversation, now the agent's `runtime_session`."""

    thread: str
    worktree: str


RUNTIME_THREAD: Final = Method(
    name="runtime.thread",
    params=RuntimeThreadParams,
    result=RuntimeThreadResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)
"""Wait until the terminal that was started for an agent has its thread loaded in Codex' app-server, and record it."""
