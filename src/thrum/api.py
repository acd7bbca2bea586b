"""Every method of the daemon: its parameters, its result, who may call it and over which transport.

One contract, reached in-process (`rpc.direct`) and over the Unix socket (`rpc.client`). Source: rpc.md §3 to §7. In a
parameter or result an optional field that is empty is absent, never null. Times are 24-character text.
"""

from __future__ import annotations

import enum
from typing import Any, Final, Literal, NamedTuple

import msgspec

from thrum import limits
from thrum.events import Pair
from thrum.shapes import (
    AgentInfo,
    DaemonIdentity,
    Detail,
    Hint,
    Message,
    OutMessage,
    Recipient,
    SharedMessages,
    TeamMember,
    WorkContext,
)

PROTOCOL: Final = 1
"""Rises when an older client would misread an answer."""


class ClientKey(NamedTuple):
    """One call's name for itself (events.md §12). `actor` is `""` for nobody; `digest`: of method and parameters."""

    actor: str
    key: str
    digest: str


class Access(enum.Enum):
    """Who may call (rpc.md §3). The class decides what an unproved caller gets (identity.md §11)."""

    ANONYMOUS = "A"
    BOOTSTRAP = "B"
    REGISTERED = "R"
    AUTHOR = "Au"
    OWNER = "O"
    OPERATOR = "Op"
    INTERNAL = "I"


# -- parameters


class Params(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every method takes. A claim may only agree with the kernel's evidence (rpc.md §3)."""

    caller_agent_id: str = ""


class Mutating(Params, kw_only=True):
    """What every method takes that writes a fact: a retried call with the same key gets the first answer."""

    client_key: str = ""


class Empty(Params, kw_only=True):
    pass


class HealthResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    status: Literal["ok", "degraded"]
    problems: tuple[str, ...] = ()
    uptime_ms: int
    version: str
    protocol: int
    repo_id: str
    pid: int
    epoch: str
    seq: int
    sync_state: str
    local_only: bool
    local_only_reason: str = ""
    websocket_port: int = 0
    identity: DaemonIdentity | None = None


class StopParams(Params, kw_only=True):
    drain_ms: int = int(limits.drain_seconds * 1000)


class StopResult(msgspec.Struct):
    stopping: bool


class BusInfo(msgspec.Struct, kw_only=True):
    endpoint: str
    epoch: str
    seq: int
    protocol: int
    tick_seconds: float
    preview_max: int
    topics: tuple[str, ...]


class EventsSinceParams(Params, kw_only=True):
    after_seq: int
    epoch: str = ""
    topics: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    limit: int = limits.since_limit_default
    wait_ms: int = 0
    full: bool = False
    local: bool = True


class EventsSince(msgspec.Struct, kw_only=True):
    epoch: str
    events: tuple[Hint, ...]
    next_seq: int
    head_seq: int
    more: bool


class CliRunParams(Params, kw_only=True):
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = {}
    width: int = 0
    tty: int = 0
    stdin: str = ""
    frames: Literal["json", "raw"] = "json"
    program: str = ""
    client_key: str = ""


class CliRunResult(msgspec.Struct):
    exit_status: int
    stdout: str
    stderr: str


# agents


class RegisterParams(Mutating, kw_only=True):
    name: str = ""
    role: str
    module: str
    display: str = ""
    force: bool = False
    re_register: bool = False
    agent_pid: int = 0
    bind_pid: bool = True
    worktree: str = ""
    hostname: str = ""
    runtime: str = ""


class RegisterConflict(msgspec.Struct, omit_defaults=True, kw_only=True):
    existing_agent_id: str
    registered_at: str
    last_seen_at: str
    conflict_pid: int = 0
    reason: Literal["same_role_module", "name_held", "other_worktree", "other_daemon"]


class RegisterResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    status: Literal["registered", "updated", "conflict"]
    session_id: str = ""
    session_resumed: bool = False
    conflict: RegisterConflict | None = None
    warnings: tuple[str, ...] = ()


class WhoamiResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    role: str
    module: str
    display: str
    source: str
    selected_by: str = ""
    session_id: str = ""
    session_start: str = ""
    branch: str = ""
    worktree: str = ""
    intent: str = ""
    repo_id: str = ""
    identity_file: str = ""
    updated_at: str = ""
    status: str = ""
    host: str = ""
    pid: int = 0
    tmux_session: str = ""
    tmux_alive: bool = False
    is_local: bool = False


class AgentListParams(Params, kw_only=True):
    role: str = ""
    module: str = ""
    kind: str = ""


class AgentListResult(msgspec.Struct):
    agents: tuple[AgentInfo, ...]


class ListContextParams(Params, kw_only=True):
    agent_id: str = ""
    branch: str = ""
    file: str = ""


class ListContextResult(msgspec.Struct):
    contexts: tuple[WorkContext, ...]


# sessions


class SessionStartParams(Mutating, kw_only=True):
    agent_id: str = ""
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    resume: bool = False


class SessionStartResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    session_id: str
    agent_id: str
    started_at: str
    resumed: bool = False
    replayed: bool = False


class SetIntentParams(Mutating, kw_only=True):
    session_id: str = ""
    intent: str


class SetIntentResult(msgspec.Struct, kw_only=True):
    session_id: str
    intent: str
    intent_updated_at: str


# messages


class SendParams(Mutating, kw_only=True):
    content: str
    format: str = "markdown"
    structured: dict[str, Any] | None = None
    to: tuple[str, ...] | str = ()
    mentions: tuple[str, ...] = ()
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    reply_to: str = ""
    tags: tuple[str, ...] = ()


class SendResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    message_id: str
    thread_id: str = ""
    created_at: str
    reply_to: str = ""
    seq: int
    resolved_to: int
    quiet: bool = False
    audiences: tuple[Pair, ...]
    recipients: tuple[Recipient, ...]
    warnings: tuple[str, ...] = ()
    replayed: bool = False


class MessageGetParams(Params, kw_only=True):
    message_id: str


class MessageGetResult(msgspec.Struct):
    message: Detail


class MessageListParams(Params, kw_only=True):
    """Filters are joined by AND. Either a page, or a cursor (`after_seq`, ascending `seq`).

    `for_agent` is an inbox, so its owner's alone; `recipient` looks at what anybody was sent, as a plain filter.
    """

    for_agent: str = ""
    recipient: str = ""
    unread: bool = False
    unread_for_agent: str = ""
    mentions: bool = False
    mention_role: str = ""
    author_id: str = ""
    exclude_self: bool = False
    scope: Pair | None = None
    ref: Pair | None = None
    thread_id: str = ""
    created_after: str = ""
    include_deleted: bool = False
    sort_by: Literal["created_at", "updated_at"] = "created_at"
    sort_order: Literal["desc", "asc"] = "desc"
    chronological: bool = False
    page: int = 1
    page_size: int = limits.page_size_default
    after_seq: int | None = None
    epoch: str = ""
    limit: int = limits.cursor_limit_default


class MessageListResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`total` … `total_pages` with a page; `next_seq`, `epoch`, `more` with a cursor."""

    messages: tuple[Message, ...]
    unread: int
    hidden_by_filter: int = 0
    total: int | None = None
    page: int = 0
    page_size: int = 0
    total_pages: int | None = None
    next_seq: int | None = None
    epoch: str = ""
    more: bool | None = None


class OutboxParams(Params, kw_only=True):
    author_id: str = ""
    to: str = ""
    unread: bool = False
    page: int = 1
    page_size: int = limits.page_size_default


class OutboxResult(msgspec.Struct, kw_only=True):
    messages: tuple[OutMessage, ...]
    total: int
    page: int
    page_size: int
    total_pages: int


class EditParams(Mutating, kw_only=True):
    message_id: str
    content: str | None = None
    structured: dict[str, Any] | None = None
    format: str = ""


class EditResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    message_id: str
    updated_at: str
    version: int
    replayed: bool = False


class DeleteParams(Mutating, kw_only=True):
    message_id: str
    reason: str = ""


class DeleteResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    message_id: str
    deleted_at: str
    replayed: bool = False


class MarkReadParams(Mutating, kw_only=True):
    message_ids: tuple[str, ...] = ()
    all: bool = False
    marked_before: str = ""
    state: Literal["read", "seen"] = "read"


class MarkReadResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    marked_count: int
    skipped_count: int = 0
    remaining: int = 0


class WaitParams(Params, kw_only=True):
    """`since`: `unseen`, `now`, a seq, or a time (rpc.md §7)."""

    timeout_ms: int = limits.wait_default_ms
    since: int | str = "unseen"
    scope: Pair | None = None
    mention_role: str = ""
    author_id: str = ""
    limit: int = limits.wait_limit_default
    mark: Literal["seen", "read", "none"] = "seen"


class WaitResult(msgspec.Struct, kw_only=True):
    status: Literal["received", "timeout"]
    messages: tuple[Message, ...]
    next_seq: int
    epoch: str
    remaining: int


class TeamListParams(Params, kw_only=True):
    include_offline: bool = False
    include_system: bool = False


class TeamListResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    members: tuple[TeamMember, ...]
    shared_messages: SharedMessages | None = None


# -- the table


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One door. `transports`: U Unix socket, W WebSocket, P peer link."""

    name: str
    params: type[Params]
    result: type[Any]
    access: Access = Access.REGISTERED
    transports: str = "UW"
    long_poll: bool = False

    @property
    def mutating(self) -> bool:
        """Whether it writes a fact in somebody's name, and so takes a `client_key`."""
        return issubclass(self.params, Mutating)


def _table(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


METHODS: Final[dict[str, Method]] = _table(
    Method(name="health", params=Empty, result=HealthResult, access=Access.ANONYMOUS),
    Method(name="daemon.stop", params=StopParams, result=StopResult, access=Access.OPERATOR, transports="U"),
    Method(name="bus.info", params=Empty, result=BusInfo, access=Access.ANONYMOUS, transports="U"),
    Method(name="events.since", params=EventsSinceParams, result=EventsSince, access=Access.ANONYMOUS, long_poll=True),
    Method(
        name="cli.run",
        params=CliRunParams,
        result=CliRunResult,
        access=Access.ANONYMOUS,
        transports="U",
        long_poll=True,
    ),
    Method(
        name="agent.register",
        params=RegisterParams,
        result=RegisterResult,
        access=Access.BOOTSTRAP,
        transports="U",
    ),
    Method(name="agent.whoami", params=Empty, result=WhoamiResult, access=Access.ANONYMOUS),
    Method(name="agent.list", params=AgentListParams, result=AgentListResult, access=Access.ANONYMOUS),
    Method(name="agent.listContext", params=ListContextParams, result=ListContextResult, access=Access.ANONYMOUS),
    Method(name="session.start", params=SessionStartParams, result=SessionStartResult, access=Access.BOOTSTRAP),
    Method(name="session.setIntent", params=SetIntentParams, result=SetIntentResult, access=Access.BOOTSTRAP),
    Method(name="message.send", params=SendParams, result=SendResult),
    Method(name="message.get", params=MessageGetParams, result=MessageGetResult, access=Access.ANONYMOUS),
    Method(name="message.list", params=MessageListParams, result=MessageListResult, access=Access.ANONYMOUS),
    Method(name="message.outbox", params=OutboxParams, result=OutboxResult, access=Access.ANONYMOUS),
    Method(name="message.edit", params=EditParams, result=EditResult, access=Access.AUTHOR),
    Method(name="message.delete", params=DeleteParams, result=DeleteResult, access=Access.AUTHOR),
    Method(name="message.markRead", params=MarkReadParams, result=MarkReadResult, access=Access.OWNER),
    Method(name="message.wait", params=WaitParams, result=WaitResult, access=Access.OWNER, long_poll=True),
    Method(name="team.list", params=TeamListParams, result=TeamListResult, access=Access.ANONYMOUS),
)
