"""Every method of the daemon: its parameters, its result, who may call it and over which transport.

One contract, reached in-process (`rpc.direct`) and over the Unix socket (`rpc.client`). Source: rpc.md §3 to §7. In a
parameter or result an optional field that is empty is absent, never null. Times are 24-character text.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from thrum import limits
from thrum.events import FileChange, Pair
from thrum.settings import is_guarded
from thrum.shapes import (
    AgentInfo,
    DaemonIdentity,
    Detail,
    GroupMember,
    GroupSummary,
    Hint,
    Message,
    Orphan,
    OutMessage,
    Recipient,
    Session,
    SettingChange,
    SettingValue,
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
    """Who may call (rpc.md §3): what is enforced before the operation begins, and no more. The class decides what an
    unproved caller gets (identity.md §11). Whether a message, a session or a note is the caller's own to change, the
    operation judges: only the store knows whose it is.
    """

    ANONYMOUS = "A"
    BOOTSTRAP = "B"
    REGISTERED = "R"
    OPERATOR = "Op"
    PERSON = "Pe"
    NOT_AN_AGENT = "Na"
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
    last_sync_at: str = ""
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
    """`command`: what the registration is part of; `quickstart` and `prime` have guards and duties of their own
    (identity.md §8.3, §8.4, §12), which the daemon alone can judge.
    """

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
    command: Literal["register", "quickstart", "prime"] = "register"


class RegisterConflict(msgspec.Struct, omit_defaults=True, kw_only=True):
    existing_agent_id: str
    registered_at: str
    last_seen_at: str
    conflict_pid: int = 0
    reason: Literal["same_role_module", "name_held", "other_worktree", "other_daemon"]
    worktree: str = ""
    """Where the other is: the root's path, of another clone its name alone."""
    is_dead: bool = False
    """Its process was recorded and is gone."""
    origin_daemon: str = ""
    """Of an agent of another clone, whose it is, and what that one calls its machine."""
    hostname: str = ""


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
    namesakes: tuple[str, ...] = ()
    """Machines with a clone that has another agent of this name."""


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
    files: tuple[str, ...] = ()
    """Further ones."""


class UnknownWork(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent of whom it is not known whether it changes what was asked for. `elsewhere`: in another clone."""

    agent_id: str
    reason: str
    elsewhere: bool = False


class ListContextResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`warnings`: of which agents git could not be asked. With files: of whom that leaves it open, and which of the
    files no worktree has, as far as git knows.
    """

    contexts: tuple[WorkContext, ...]
    unknown: tuple[UnknownWork, ...] = ()
    unseen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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


class SetIntentResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    session_id: str
    intent: str
    intent_updated_at: str
    replayed: bool = False


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
    reply_all: bool = False
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


class FindParams(Params, kw_only=True):
    """One of them: the end of an id, whose newest message to the caller, or `last`, what was printed to it last."""

    end: str = ""
    author: str = ""
    last: bool = False


class FindResult(msgspec.Struct):
    message_id: str


class PrintedParams(Params, kw_only=True):
    message_ids: tuple[str, ...]


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
    query: str = ""
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
    """Without `include_files` no work tree is looked at, and `file_changes` of local agents are left out.

    `hosts` asks for those of the result.
    """

    include_offline: bool = False
    include_system: bool = False
    include_files: bool = True
    hosts: bool = False


class TeamListResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`hosts`: of each other daemon that ever registered an agent, by its id; also of those that hold no name."""

    members: tuple[TeamMember, ...]
    shared_messages: SharedMessages | None = None
    warnings: tuple[str, ...] = ()
    hosts: dict[str, str] = {}


# -- wave W2 (identity in full)


class LookupParams(Params, kw_only=True):
    name: str


class LookupResult(msgspec.Struct, omit_defaults=True):
    """A miss is an answer: `member` is null, and beside it what is known of that name's end."""

    member: TeamMember | None
    renamed_to: str = ""
    deleted_by: str = ""
    deleted_at: str = ""


class SetStatusParams(Mutating, kw_only=True):
    agent: str = ""
    status: Literal["working", "idle", "blocked", "stuck"]


class SetStatusResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    agent_status: str
    agent_status_updated_at: str
    warnings: tuple[str, ...] = ()


class AgentDeleteParams(Mutating, kw_only=True):
    name: str
    force: bool = False
    with_messages: bool = False


class AgentDeleteResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_id: str
    deleted: bool
    message: str = ""


class AgentRenameParams(Mutating, kw_only=True):
    """The caller is called `name` from now on, and keeps its mail."""

    name: str


class AgentRenameResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`of`: what it was called; `unread`: how much of what is in its inbox now it has not read."""

    agent_id: str
    of: str
    unread: int
    warnings: tuple[str, ...] = ()


class CleanupParams(Mutating, kw_only=True):
    dry_run: bool = False
    force: bool = False
    threshold: int = 30


class CleanupResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    orphans: tuple[Orphan, ...]
    deleted: tuple[str, ...]
    dry_run: bool
    message: str = ""


class PurgeParams(Mutating, kw_only=True):
    """`before`: RFC 3339. A preview, unless `dry_run` is false and `confirm` true."""

    before: str
    dry_run: bool = True
    confirm: bool = False


class PurgeResult(msgspec.Struct, kw_only=True):
    """The same in a preview. `events_deleted`: facts of all kinds; `sync_message_files`: files of messages that lose
    some; `sync_events_filtered`: lines of `events.jsonl` that go. `others`: messages of other daemons, not touched.
    `unread`: of the messages those that not all have read.
    """

    before: str
    dry_run: bool
    messages_deleted: int
    sessions_deleted: int
    events_deleted: int
    command_queue_deleted: int
    sync_message_files: int
    sync_events_filtered: int
    others: int = 0
    unread: int = 0


class SetTaskParams(Mutating, kw_only=True):
    session_id: str = ""
    current_task: str


class SetTaskResult(msgspec.Struct, kw_only=True):
    session_id: str
    current_task: str
    task_updated_at: str


class HeartbeatParams(Mutating, kw_only=True):
    session_id: str = ""
    add_scopes: tuple[Pair, ...] = ()
    remove_scopes: tuple[Pair, ...] = ()
    add_refs: tuple[Pair, ...] = ()
    remove_refs: tuple[Pair, ...] = ()


class HeartbeatResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    session_id: str
    last_seen_at: str
    branch: str = ""
    unmerged_commits: int | None = None
    file_changes: tuple[FileChange, ...] = ()
    warnings: tuple[str, ...] = ()


class SessionEndParams(Mutating, kw_only=True):
    session_id: str = ""
    reason: Literal["normal", "crash", "superseded"] = "normal"


class SessionEndResult(msgspec.Struct, kw_only=True):
    session_id: str
    ended_at: str
    duration_ms: int


class SessionListParams(Params, kw_only=True):
    agent_id: str = ""
    active_only: bool = False


class SessionListResult(msgspec.Struct):
    sessions: tuple[Session, ...]


class UserIdentifyResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    username: str
    email: str = ""
    display: str


class UserRegisterParams(Mutating, kw_only=True):
    """`username`, or a `token` that an earlier answer gave."""

    username: str = ""
    display: str = ""
    token: str = ""


class UserRegisterResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    user_id: str
    username: str
    display_name: str = ""
    token: str
    status: Literal["registered", "existing"]


class GroupNameParams(Params, kw_only=True):
    name: str


class GroupCreateParams(Mutating, kw_only=True):
    name: str
    description: str = ""


class GroupCreateResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    group_id: str
    name: str
    description: str = ""
    created_at: str
    created_by: str
    replayed: bool = False


class GroupDeleteParams(Mutating, kw_only=True):
    name: str


class GroupDeleteResult(msgspec.Struct, kw_only=True):
    name: str
    deleted_at: str


class GroupMemberParams(Mutating, kw_only=True):
    group: str
    member_type: Literal["agent", "role"]
    member_value: str


class GroupMemberResult(msgspec.Struct, kw_only=True):
    group: str
    member_type: str
    member_value: str
    changed: bool


class GroupListResult(msgspec.Struct):
    groups: tuple[GroupSummary, ...]


class GroupInfoResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    group_id: str
    name: str
    description: str = ""
    created_at: str
    created_by: str
    members: tuple[GroupMember, ...]


class GroupMembersParams(Params, kw_only=True):
    name: str
    expand: bool = False


class GroupMembersResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    members: tuple[GroupMember, ...]
    expanded: tuple[str, ...] | None = None


class ContextShowParams(Params, kw_only=True):
    agent_name: str
    include_preamble: bool = True
    repo_path: str = ""


class ContextShowResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    agent_name: str
    content: str
    has_context: bool
    size: int = 0
    updated_at: str = ""
    preamble: str = ""
    has_preamble: bool
    preamble_size: int = 0


class ContextSaveParams(Mutating, kw_only=True):
    agent_name: str
    content: str
    repo_path: str = ""


class ContextSaveResult(msgspec.Struct, kw_only=True):
    agent_name: str
    path: str
    size: int
    message: str


class ContextClearParams(Mutating, kw_only=True):
    agent_name: str
    repo_path: str = ""


class ContextClearResult(msgspec.Struct, kw_only=True):
    agent_name: str
    cleared: bool
    message: str


class PreambleShowParams(Params, kw_only=True):
    agent_name: str
    repo_path: str = ""


class PreambleShowResult(msgspec.Struct, kw_only=True):
    agent_name: str
    content: str
    has_preamble: bool


class ContextSyncParams(Mutating, kw_only=True):
    agent_name: str


class ContextSyncResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`synced`: whether there are notes, which are on the branch now. A round is run in any case."""

    agent_name: str
    synced: bool
    pushed: bool
    commit: str = ""
    message: str


class SyncOrigin(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Another daemon of which not all counts here. `hidden`: unsigned facts that don't; `not_yours`: what was not its
    to say; `waiting`: signed facts of a daemon that has not said that it is of this project; `was`: ids that it says
    it had.
    """

    daemon_id: str
    hostname: str = ""
    hidden: int = 0
    not_yours: int = 0
    waiting: int = 0
    was: tuple[str, ...] = ()


class SyncStatusResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`pending`: facts of this daemon that are not at the remote; local only: that are in no commit yet.

    `skipped`: journals of the remote that could not be taken in. `remote`: its name; `head`: the commit of our branch.
    `read_only`: a newer program changed the rules of the branch, so nothing is pushed. `origins`: daemons of which not
    all counts.
    """

    running: bool
    last_sync_at: str = ""
    last_error: str = ""
    remedy: str = ""
    sync_state: str
    local_only: bool
    local_only_reason: str = ""
    pending: int
    remote: str = ""
    remote_url: str = ""
    head: str = ""
    skipped: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    """Who on this machine can read which directory of messages, a sentence each."""
    read_only: bool = False
    origins: tuple[SyncOrigin, ...] = ()


class SyncAcceptParams(Params, kw_only=True):
    """`origin`: a daemon whose unsigned facts are to count, or that is who it says it was; with `gone` nobody is that
    daemon any more; with `agent` that agent is its own. Nothing: the branch that was refused is of this project.
    """

    origin: str = ""
    gone: bool = False
    agent: str = ""


class SyncAcceptResult(msgspec.Struct, kw_only=True):
    """`kind`: `project`, `origin`, `gone` or `holder`."""

    kind: str
    accepted: str


class SyncForceParams(Params, kw_only=True):
    wait_ms: int = 0


class SyncForceResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    triggered: bool
    last_sync_at: str = ""
    sync_state: str
    local_only: bool
    local_only_reason: str = ""
    result: Literal["synced", "error", "nothing_to_do"] | None = None
    received: int | None = None
    sent: int | None = None
    late: bool = False
    """No round has ended within `wait_ms`."""
    last_error: str = ""
    remedy: str = ""


class SyncConfigureParams(Params, kw_only=True):
    enabled: bool
    confirm_public: bool = False


class ConfigKeyParams(Params, kw_only=True):
    key: str


class ConfigSetParams(Params, kw_only=True):
    key: str
    value: Any


class ConfigValueResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    key: str
    value: Any
    source: str
    restart_needed: bool = False


class ConfigChangesResult(msgspec.Struct, kw_only=True):
    """What was changed in the settings outside thrum."""

    changed: tuple[SettingChange, ...] = ()


class ConfigShowResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`V` of cli.md: `{value, source}`."""

    config_file: str
    runtime: dict[str, Any]
    daemon: dict[str, Any]
    identity: dict[str, str] = {}
    overrides: tuple[dict[str, str], ...] = ()
    values: dict[str, SettingValue]


# -- care


class VerifyParams(Params, kw_only=True):
    repair: bool = False


class VerifyDifference(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Where two things don't agree. `ids`: some of those meant; `reason`: a word of events.md §11, or what differs."""

    table: str = ""
    file: str = ""
    line: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    ids: tuple[str, ...] = ()
    reason: str = ""


class VerifyCheck(msgspec.Struct, omit_defaults=True, kw_only=True):
    name: Literal["journal", "signatures", "database", "branch", "identities"]
    ok: bool
    detail: str
    differences: tuple[VerifyDifference, ...] = ()


class QuarantinedLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`more`: it stands for so many lines that were not kept, `length` bytes together."""

    at: str
    file: str
    offset: int
    reason: str
    length: int
    more: int = 0


class VerifyResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`quarantine`: the first of the lines that were set aside; `quarantined`: how many there are. `sealed`: how many
    facts of each type that this program does not know. `remedy`: for what does not agree.

    `foreign`: of the lines of other daemons how many are `unsigned` and count, `hidden` here, were not theirs to say
    (`not_yours`), and wait for their daemon to say that it is of this project (`strange`). No fault. `namesakes`: of
    agents here whose name an agent of another clone has, too, the machines of these clones.
    """

    ok: bool
    repaired: bool
    checks: tuple[VerifyCheck, ...]
    quarantine: tuple[QuarantinedLine, ...]
    facts: int
    uncommitted: int
    quarantined: int = 0
    sealed: dict[str, int] = {}
    foreign: dict[str, int] = {}
    namesakes: dict[str, tuple[str, ...]] = {}
    remedy: str = ""


class BackupParams(Params, kw_only=True):
    """`dir`: absolute; without it the setting, then `.thrum/backup`."""

    dir: str = ""


class BackupCounts(msgspec.Struct, kw_only=True):
    events: int
    message_files: int
    local_tables: int
    config_files: int


class BackupArchives(msgspec.Struct, omit_defaults=True, kw_only=True):
    count: int
    bytes: int
    oldest: str = ""
    newest: str = ""


class BackupResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    version: int
    timestamp: str
    thrum_version: str
    repo_name: str
    counts: BackupCounts
    location: str
    archives: BackupArchives | None = None


class RestoreParams(Params, kw_only=True):
    """`archive`: an absolute path, or the name of one of the archives; without it the newest backup.

    `other_repository`: even if it is of another project.
    """

    archive: str = ""
    dir: str = ""
    confirm: bool = False
    other_repository: bool = False


class RestoreResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`local_only`: what `daemon.local_only` is here and stays, if the backup's is another."""

    source: str
    safety_backup: str
    daemon_restarted: bool
    local_only: bool | None = None


class Retention(msgspec.Struct, kw_only=True):
    daily: int
    weekly: int
    monthly: int


class BackupConfigResult(msgspec.Struct, kw_only=True):
    dir: str
    retention: Retention


# -- the table


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One door. `transports`: U Unix socket, W WebSocket, P peer link."""

    name: str
    params: type[Params]
    result: type[Any]
    access: Access = Access.REGISTERED
    transports: str = "UW"
    long_poll: bool = False
    level_of: Callable[[Any], Access] | None = None
    """Who may call it with these parameters, where that depends on them; `access` else."""
    own: bool = False
    """A read of the record of whoever calls."""
    own_with: tuple[str, ...] = ()
    """Parameters with any of which a read is one of the caller's own inbox or marks."""
    own_without: str = ""
    """The parameter without which it is a read of what the caller wrote."""

    def level(self, params: Any) -> Access:
        """Who may make this very call."""
        return self.access if self.level_of is None else self.level_of(params)

    def asks_own(self, params: Any) -> bool:
        """Whether this very call reads what is the caller's own (identity.md §11, C8a)."""
        return (
            self.own
            or any(getattr(params, name) for name in self.own_with)
            or bool(self.own_without and not getattr(params, self.own_without))
        )

    @property
    def mutating(self) -> bool:
        """Whether it writes a fact in somebody's name, and so takes a `client_key`."""
        return issubclass(self.params, Mutating)


def _of_setting(params: ConfigKeyParams | ConfigSetParams) -> Access:
    return Access.NOT_AN_AGENT if is_guarded(params.key) else Access.OPERATOR


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
    Method(name="agent.whoami", params=Empty, result=WhoamiResult, access=Access.ANONYMOUS, own=True),
    Method(name="agent.list", params=AgentListParams, result=AgentListResult, access=Access.ANONYMOUS),
    Method(name="agent.listContext", params=ListContextParams, result=ListContextResult, access=Access.ANONYMOUS),
    Method(name="session.start", params=SessionStartParams, result=SessionStartResult, access=Access.BOOTSTRAP),
    Method(name="session.setIntent", params=SetIntentParams, result=SetIntentResult, access=Access.BOOTSTRAP),
    Method(name="message.send", params=SendParams, result=SendResult),
    Method(name="message.get", params=MessageGetParams, result=MessageGetResult, access=Access.ANONYMOUS),
    Method(
        name="message.find",
        params=FindParams,
        result=FindResult,
        access=Access.ANONYMOUS,
        own_with=("author", "last"),
    ),
    Method(name="message.printed", params=PrintedParams, result=Empty, access=Access.ANONYMOUS, own=True),
    Method(
        name="message.list",
        params=MessageListParams,
        result=MessageListResult,
        access=Access.ANONYMOUS,
        own_with=("for_agent", "unread_for_agent", "unread", "mentions", "exclude_self"),
    ),
    Method(
        name="message.outbox",
        params=OutboxParams,
        result=OutboxResult,
        access=Access.ANONYMOUS,
        own_without="author_id",
    ),
    Method(name="message.edit", params=EditParams, result=EditResult),
    Method(name="message.delete", params=DeleteParams, result=DeleteResult),
    Method(name="message.markRead", params=MarkReadParams, result=MarkReadResult),
    Method(name="message.wait", params=WaitParams, result=WaitResult, long_poll=True),
    Method(name="team.list", params=TeamListParams, result=TeamListResult, access=Access.ANONYMOUS),
    Method(name="agent.lookup", params=LookupParams, result=LookupResult, access=Access.ANONYMOUS),
    Method(name="agent.set-status", params=SetStatusParams, result=SetStatusResult),
    Method(name="agent.delete", params=AgentDeleteParams, result=AgentDeleteResult, transports="U"),
    Method(name="agent.rename", params=AgentRenameParams, result=AgentRenameResult, transports="U"),
    Method(name="agent.cleanup", params=CleanupParams, result=CleanupResult, transports="U"),
    Method(name="session.setTask", params=SetTaskParams, result=SetTaskResult),
    Method(name="session.heartbeat", params=HeartbeatParams, result=HeartbeatResult),
    Method(name="session.end", params=SessionEndParams, result=SessionEndResult),
    Method(name="session.list", params=SessionListParams, result=SessionListResult, access=Access.ANONYMOUS),
    Method(name="user.identify", params=Empty, result=UserIdentifyResult, access=Access.ANONYMOUS),
    Method(
        name="user.register",
        params=UserRegisterParams,
        result=UserRegisterResult,
        access=Access.BOOTSTRAP,
        transports="W",
    ),
    Method(name="group.create", params=GroupCreateParams, result=GroupCreateResult),
    Method(name="group.delete", params=GroupDeleteParams, result=GroupDeleteResult),
    Method(name="group.member.add", params=GroupMemberParams, result=GroupMemberResult),
    Method(name="group.member.remove", params=GroupMemberParams, result=GroupMemberResult),
    Method(name="group.list", params=Empty, result=GroupListResult, access=Access.ANONYMOUS),
    Method(name="group.info", params=GroupNameParams, result=GroupInfoResult, access=Access.ANONYMOUS),
    Method(name="group.members", params=GroupMembersParams, result=GroupMembersResult, access=Access.ANONYMOUS),
    Method(name="context.show", params=ContextShowParams, result=ContextShowResult, access=Access.ANONYMOUS),
    Method(name="context.save", params=ContextSaveParams, result=ContextSaveResult),
    Method(name="context.clear", params=ContextClearParams, result=ContextClearResult),
    Method(name="context.preamble.show", params=PreambleShowParams, result=PreambleShowResult, access=Access.ANONYMOUS),
    Method(name="context.preamble.save", params=ContextSaveParams, result=ContextSaveResult),
    Method(
        name="purge.execute",
        params=PurgeParams,
        result=PurgeResult,
        access=Access.OPERATOR,
        transports="U",
        long_poll=True,
    ),
    Method(name="context.sync", params=ContextSyncParams, result=ContextSyncResult, long_poll=True),
    Method(name="sync.status", params=Empty, result=SyncStatusResult, access=Access.ANONYMOUS),
    Method(
        name="sync.force",
        params=SyncForceParams,
        result=SyncForceResult,
        access=Access.OPERATOR,
        transports="U",
        long_poll=True,
    ),
    Method(
        name="sync.configure",
        params=SyncConfigureParams,
        result=SyncStatusResult,
        access=Access.NOT_AN_AGENT,
        transports="U",
        long_poll=True,
    ),
    Method(
        name="sync.accept",
        params=SyncAcceptParams,
        result=SyncAcceptResult,
        access=Access.NOT_AN_AGENT,
        transports="U",
    ),
    Method(name="config.show", params=Empty, result=ConfigShowResult, access=Access.ANONYMOUS, transports="U"),
    Method(
        name="config.get", params=ConfigKeyParams, result=ConfigValueResult, access=Access.ANONYMOUS, transports="U"
    ),
    Method(
        name="config.set",
        params=ConfigSetParams,
        result=ConfigValueResult,
        access=Access.OPERATOR,
        transports="U",
        level_of=_of_setting,
    ),
    Method(
        name="config.unset",
        params=ConfigKeyParams,
        result=ConfigValueResult,
        access=Access.OPERATOR,
        transports="U",
        level_of=_of_setting,
    ),
    Method(name="config.diff", params=Empty, result=ConfigChangesResult, access=Access.ANONYMOUS, transports="U"),
    # Class Na where a key of it is guarded (rpc.md §3): the operation asks, it knows the keys.
    Method(name="config.accept", params=Empty, result=ConfigChangesResult, access=Access.OPERATOR, transports="U"),
    Method(
        name="backup.create",
        params=BackupParams,
        result=BackupResult,
        access=Access.OPERATOR,
        transports="U",
        long_poll=True,
    ),
    Method(name="backup.status", params=BackupParams, result=BackupResult, access=Access.OPERATOR, transports="U"),
    Method(name="backup.config", params=Empty, result=BackupConfigResult, access=Access.OPERATOR, transports="U"),
    Method(
        name="backup.restore",
        params=RestoreParams,
        result=RestoreResult,
        access=Access.OPERATOR,
        transports="U",
        long_poll=True,
    ),
    Method(
        name="verify.run",
        params=VerifyParams,
        result=VerifyResult,
        access=Access.OPERATOR,
        transports="U",
        long_poll=True,
    ),
)
