"""Terminals: tmux sessions with an agent each (rpc.md §5, cli.md 3.18)."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Mutating, Params


class TmuxCreateParams(Params, kw_only=True):
    """`cwd`: absolute. Without `agent_name` the agent is that of the directory's one identity file, else called like
    the session; without `role` and `module` it keeps those that it has."""

    name: str
    cwd: str
    agent_name: str = ""
    role: str = ""
    module: str = ""
    intent: str = ""
    runtime: str = ""
    no_agent: bool = False
    force: bool = False


class TmuxCreateResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`identity`: the agent's identity file; `runtime`: what `tmux.launch` would start."""

    session: str
    identity: dict[str, Any] = {}
    runtime: str = ""
    warnings: tuple[str, ...] = ()


TMUX_CREATE: Final = Method(
    name="tmux.create",
    params=TmuxCreateParams,
    result=TmuxCreateResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)


class TmuxLaunchParams(Params, kw_only=True):
    """`arguments`: for the runtime, behind its own."""

    name: str
    runtime: str = ""
    arguments: tuple[str, ...] = ()


class TmuxLaunchResult(msgspec.Struct, omit_defaults=True):
    """`warnings`: what the runtime goes without."""

    session: str
    runtime: str
    warnings: tuple[str, ...] = ()


TMUX_LAUNCH: Final = Method(
    name="tmux.launch",
    params=TmuxLaunchParams,
    result=TmuxLaunchResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)


class TmuxSession(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """`state`: alive (its process lives), stale (it has none), dead (there is no such session), blocked (it asks), idle
    (silent for two minutes)."""

    name: str
    agent: str = ""
    role: str = ""
    module: str = ""
    state: Literal["alive", "stale", "dead", "blocked", "idle"]
    runtime: str = ""
    branch: str = ""


class TmuxStatusResult(msgspec.Struct, omit_defaults=True):
    """`socket`: that of the server, for who would attach; empty while none runs."""

    sessions: tuple[TmuxSession, ...]
    socket: str = ""


TMUX_STATUS: Final = Method(
    name="tmux.status", params=Empty, result=TmuxStatusResult, access=Access.ANONYMOUS, transports="U", long_poll=True
)


class TmuxCaptureParams(Params, kw_only=True):
    name: str
    lines: int = 50


class TmuxCaptureResult(msgspec.Struct):
    session: str
    content: str


TMUX_CAPTURE: Final = Method(
    name="tmux.capture",
    params=TmuxCaptureParams,
    result=TmuxCaptureResult,
    access=Access.ANONYMOUS,
    transports="U",
)


class CheckPaneParams(Params, kw_only=True):
    """`content`: a screen to be judged instead of the session's own, with its colours."""

    session: str
    content: str = ""


class CheckPaneResult(msgspec.Struct, omit_defaults=True):
    session: str
    state: Literal["idle", "permission", "working", "command_completed", "working_but_idle"]
    reason: str = ""


TMUX_CHECK_PANE: Final = Method(
    name="tmux.check-pane",
    params=CheckPaneParams,
    result=CheckPaneResult,
    access=Access.ANONYMOUS,
    transports="U",
)


class TmuxSendParams(Params, kw_only=True):
    name: str
    text: str


class TmuxSendResult(msgspec.Struct, omit_defaults=True):
    """`pane`: what the pane showed before, in the words of the classifier; empty where no rule tells."""

    session: str
    sent: bool
    pane: str = ""


TMUX_SEND: Final = Method(name="tmux.send", params=TmuxSendParams, result=TmuxSendResult, transports="U")


class TmuxKillParams(Mutating, kw_only=True):
    name: str


class TmuxKillResult(msgspec.Struct):
    """`killed` false: there was none any more, and its agent's record says so now."""

    session: str
    killed: bool


TMUX_KILL: Final = Method(name="tmux.kill", params=TmuxKillParams, result=TmuxKillResult, transports="U")


class TmuxRestartParams(Mutating, kw_only=True):
    name: str
    force: bool = False
    runtime: str = ""


class TmuxRestartResult(msgspec.Struct, omit_defaults=True):
    """`asked`: what came of the request to save; empty: the agent was not asked."""

    session: str
    runtime: str
    snapshot_lines: int
    asked: Literal["", "saved", "seen", "unseen", "unreachable"] = ""
    warnings: tuple[str, ...] = ()


TMUX_RESTART: Final = Method(
    name="tmux.restart", params=TmuxRestartParams, result=TmuxRestartResult, transports="U", long_poll=True
)


class TmuxSnapshotParams(Params, kw_only=True):
    """`record`: where the caller's runtime keeps its conversation, absolute; empty: the file that its hooks told of."""

    record: str = ""
    reason: str = ""


class TmuxSnapshotResult(msgspec.Struct):
    agent_id: str
    path: str
    lines: int


TMUX_SNAPSHOT: Final = Method(
    name="tmux.snapshot", params=TmuxSnapshotParams, result=TmuxSnapshotResult, transports="U"
)
"""Of the caller alone."""
