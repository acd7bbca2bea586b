"""What runtimes' hooks call, and how agents are woken. Source: rpc.md §6, wake.md."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from thrum.model.methods.method import Access, Method, Params


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
