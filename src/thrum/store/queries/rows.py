"""What the typed queries return: one frozen struct per table, and the shapes that a query needs.

All times are 24-character text; what is not there is `""`, `0` or `False`, never None. Source: events.md §10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from thrum.model import limits, wire_types
from thrum.model.events import Pair


class AgentRow(msgspec.Struct, frozen=True, gc=False):
    """An agent, user or proxy: last registration, place, status, signs of life. `live`: registered, not cleaned up."""

    agent_id: str
    kind: str
    name: str
    role: str
    module: str
    display: str
    hostname: str
    worktree: str
    registered_at: str
    origin_daemon: str
    live: bool
    reg_at: str
    reg_event: str
    worktree_path: str
    agent_pid: int
    agent_pid_started: str
    runtime: str
    tmux_session: str
    runtime_session: str
    transcript: str
    pane: str
    hooks_seen_at: str
    place_at: str
    place_event: str
    status: str
    status_by: str
    status_asks: str
    status_at: str
    status_event: str
    seen_at: str
    exited_at: str
    last_seen_at: str
    is_own: bool
    """Its latest registration is of this daemon."""


class RegistrationRow(msgspec.Struct, frozen=True, gc=False):
    """What one daemon says of an agent."""

    agent_id: str
    kind: str
    name: str
    role: str
    module: str
    display: str
    hostname: str
    worktree: str
    origin_daemon: str
    reg_at: str


class OriginRow(NamedTuple):
    """How many facts of another daemon are unsigned and count, are `hidden`, were not its own to say (`not_yours`), or
    wait for it to say that it is of this project (`strange`).
    """

    daemon_id: str
    unsigned: int
    hidden: int
    not_yours: int
    strange: int
    hostname: str


class PlaceRow(msgspec.Struct, frozen=True, gc=False):
    """Where a live agent of this machine was last placed."""

    agent_id: str
    worktree_path: str
    agent_pid: int
    agent_pid_started: str


class SessionRow(msgspec.Struct, frozen=True, gc=False):
    session_id: str
    agent_id: str
    started_at: str
    start_event: str
    ended_at: str
    end_reason: str
    end_event: str
    seen_at: str


class MessageRow(msgspec.Struct, frozen=True, gc=False):
    """A message in its present state, also if deleted. `thread_id` is the effective one."""

    message_id: str
    seq: int
    agent_id: str
    session_id: str
    thread_id: str
    reply_to: str
    created_at: str
    updated_at: str
    body_format: str
    body_content: str
    body_structured: str
    edit_count: int
    quiet: bool
    deleted: bool
    deleted_at: str
    delete_reason: str
    authored_by: str
    disclosed: bool
    origin_daemon: str
    create_event: str
    edit_event: str
    delete_event: str
    urgent: bool
    expires_at: str
    supersedes: str
    superseded_by: str


class MessageHead(msgspec.Struct, frozen=True, gc=False):
    """What topics and hints need to know of the message that an edit, a delete or a receipt is about."""

    message_id: str
    agent_id: str
    thread_id: str
    recipients: tuple[str, ...]
    audiences: tuple[Pair, ...]
    quiet: bool
    content: str
    deleted: bool


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """A fact's place in the local sequence and in its journal. `length` counts the newline."""

    seq: int
    event_id: str
    type: str
    timestamp: str
    origin_daemon: str
    actor: str
    message_id: str
    file: str
    offset: int
    length: int
    state: str


class ClientKeyRow(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    method_digest: str


class Member(msgspec.Struct, frozen=True, gc=False):
    """A live member of a group; `member_type` is agent or role."""

    member_type: str
    member_value: str
    added_at: str = ""
    added_by: str = ""


class GroupRow(msgspec.Struct, frozen=True, gc=False):
    """A live group: of several with one name the earliest one, with the members of all."""

    group_id: str
    name: str
    description: str
    created_at: str
    created_by: str
    members: tuple[Member, ...]


def is_member(added_at: str, removed_at: str) -> bool:
    """Adding wins over removing at the same time (events.md §9). Empty: that never was."""
    return added_at != "" and added_at >= removed_at


class GroupMark(msgspec.Struct, frozen=True, gc=False):
    """What one live group of a name knows of one member: `added_at` and `removed_at` are empty if that never was."""

    group_id: str
    added_at: str
    removed_at: str
    origin_daemon: str

    @property
    def member(self) -> bool:
        return is_member(self.added_at, self.removed_at)


class PurgeCounts(NamedTuple):
    """What of this daemon lies before a cutoff, and how many messages of `others` do. `facts`: lines of all journals;
    `events_lines` of `events.jsonl` alone. `unread`: of its messages those that not all have read.
    """

    messages: int
    sessions: int
    facts: int
    message_files: int
    events_lines: int
    others: int
    unread: int


class InboxQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What `message.list` asks for (rpc.md §5): filters joined by AND, and either a page or a cursor.

    `reader`: the agent whose `is_read` and unread count are given; `""`: no agent's.
    """

    reader: str = ""
    for_agent: str = ""
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
    search: str = ""
    """An expression of `thrum.model.search`."""
    include_deleted: bool = False
    sort_by: str = "created_at"
    sort_order: str = "desc"
    chronological: bool = False
    page: int = 1
    page_size: int = limits.page_size_default
    after_seq: int | None = None
    limit: int = limits.cursor_limit_default


class Wanted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What `message.wait` asks for (rpc.md §7): addressed to that agent, and one of `unseen` (not read and not seen),
    `after_seq`, `created_after`; then filters joined by AND. `reply_to`: what answers that message, be it
    quiet. `at`: the time by which what expired wakes no more.
    """

    agent_id: str
    unseen: bool = False
    after_seq: int | None = None
    created_after: str = ""
    scope: Pair | None = None
    addressed_to: str = ""
    """The name, role or group that the sender gave."""
    author_id: str = ""
    reply_to: str = ""
    at: str = ""


class UnseenRow(NamedTuple):
    """A message that is a reason to wake its recipient; `answers_own`: it replies to a message of that one."""

    message_id: str
    created_at: str
    author: str
    urgent: bool
    answers_own: bool


class AttemptRow(msgspec.Struct, frozen=True, gc=False):
    """An attempt to wake. `attempt_id` is its whole token: shown short only. `outcome` is `offered` until it ended."""

    attempt_id: str
    agent_id: str
    door: str
    process: str
    offered_at: str
    outcome: str
    detail: str
    ended_at: str
    message_ids: tuple[str, ...]


class Mail(NamedTuple):
    """Ids of the messages of an inbox, by how far they came."""

    stored: Sequence[str]
    seen: Sequence[str]
    read: Sequence[str]


class InboxPage(NamedTuple):
    """`total` and `unread` count what matches; `hidden_by_filter` the reader's other unread ones.

    `more` and `next_seq` belong to the cursor form: `next_seq` is the number up to which everything was looked at.
    """

    messages: list[wire_types.Message]
    total: int
    unread: int
    hidden_by_filter: int
    more: bool = False
    next_seq: int = 0
