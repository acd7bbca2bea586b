"""What several methods answer with, and what programs read (rpc.md §4, cli.md §4).

An optional field that is empty is absent, never null. Times are 24-character text.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from thrum.model.events import Body, Commit, FileChange, Pair


def is_expired(expires_at: str, at: str) -> bool:
    """Whether what expires then (`""`: never) has expired by a time."""
    return expires_at != "" and expires_at <= at


class Recipient(msgspec.Struct, omit_defaults=True, gc=False):
    """How far a message came with one of its recipients. `offered_at`: when a door first took it; `why`: why it is not
    seen yet, absent where nothing hinders it, or where that was not looked at (wake.md §2).
    """

    agent_id: str
    stored_at: str
    delivered_at: str = ""
    offered_at: str = ""
    seen_at: str = ""
    read_at: str = ""
    replied_at: str = ""
    why: str = ""


class Message(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    message_id: str
    seq: int
    thread_id: str = ""
    reply_to: str = ""
    agent_id: str
    body: Body
    created_at: str
    updated_at: str = ""
    deleted: bool
    is_read: bool
    quiet: bool = False
    urgent: bool = False
    expires_at: str = ""
    supersedes: str = ""
    superseded_by: str = ""
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    audiences: tuple[Pair, ...] = ()
    recipients: tuple[Recipient, ...] = ()
    read_count: int = 0
    origin_daemon: str = ""
    is_namesake: bool = False
    """Whether `origin_daemon` is another one than the agent `agent_id` is of: it only has that name."""

    def is_over(self, at: str) -> bool:
        """Whether it was replaced, or has expired by a time: it stays in the inbox, and wakes no agent."""
        return self.superseded_by != "" or is_expired(self.expires_at, at)


class OutMessage(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A message as its author sees it: who was addressed, and who has read it."""

    message_id: str
    seq: int
    thread_id: str = ""
    reply_to: str = ""
    agent_id: str
    body: Body
    created_at: str
    updated_at: str = ""
    deleted: bool
    quiet: bool = False
    urgent: bool = False
    expires_at: str = ""
    supersedes: str = ""
    superseded_by: str = ""
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    audiences: tuple[Pair, ...]
    recipients: tuple[Recipient, ...]
    read_count: int
    origin_daemon: str = ""


class Author(msgspec.Struct, gc=False):
    agent_id: str
    session_id: str


class Metadata(msgspec.Struct, omit_defaults=True, gc=False):
    deleted_at: str = ""
    delete_reason: str = ""


class Detail(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """One message in full. `version` = edits that count so far."""

    message_id: str
    seq: int
    version: int
    quiet: bool = False
    urgent: bool = False
    expires_at: str = ""
    supersedes: str = ""
    superseded_by: str = ""
    thread_id: str = ""
    reply_to: str = ""
    author: Author
    body: Body
    scopes: tuple[Pair, ...]
    refs: tuple[Pair, ...]
    metadata: Metadata
    created_at: str
    updated_at: str = ""
    deleted: bool
    audiences: tuple[Pair, ...] = ()
    recipients: tuple[Recipient, ...] = ()
    origin_daemon: str = ""
    is_namesake: bool = False
    """As in `Message`."""


class AgentInfo(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    agent_id: str
    kind: str
    role: str
    module: str
    display: str
    registered_at: str
    last_seen_at: str = ""
    agent_pid: int = 0
    worktree_missing: bool = False
    """As in `TeamMember`."""


class WorkContext(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    session_id: str
    agent_id: str
    branch: str = ""
    worktree_path: str = ""
    unmerged_commits: tuple[Commit, ...] = ()
    uncommitted_files: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()
    file_changes: tuple[FileChange, ...] = ()
    git_updated_at: str = ""
    current_task: str = ""
    task_updated_at: str = ""
    intent: str = ""
    intent_updated_at: str = ""


class GitState(msgspec.Struct, frozen=True, kw_only=True):
    """What git says of one worktree right now; work contexts, team members and `agent.update` are filled from it.

    `ahead` counts the unmerged commits, of which `unmerged_commits` has the newest. `changed_files` are those of the
    unmerged commits, `file_changes` what is uncommitted, `uncommitted_files` also where renamed files were. `problem`:
    why git gave no or half an answer.
    """

    branch: str = ""
    ahead: int = 0
    unmerged_commits: tuple[Commit, ...] = ()
    uncommitted_files: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()
    file_changes: tuple[FileChange, ...] = ()
    problem: str = ""


class GitUser(msgspec.Struct, frozen=True):
    """Whom git would name as the author; `email` is empty where it is not configured."""

    name: str
    email: str = ""


class HookFired(msgspec.Struct, gc=False):
    """Of one event of a runtime: how often a hook told of it, and when last."""

    count: int
    last_at: str


class TeamMember(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    agent_id: str
    role: str
    module: str
    display: str = ""
    hostname: str = ""
    origin_daemon: str = ""
    agent_pid: int = 0
    pid_live: bool | None = None
    """None, and so absent, without a recorded pid."""
    runtime: str = ""
    worktree: str = ""
    worktree_missing: bool = False
    """It lived here, in a directory that is not there any more."""
    session_id: str = ""
    session_start: str = ""
    last_seen: str = ""
    intent: str = ""
    current_task: str = ""
    branch: str = ""
    unmerged_commits: int
    file_changes: tuple[FileChange, ...] = ()
    inbox_total: int
    inbox_unread: int
    status: Literal["active", "offline"]
    agent_status: str = ""
    asks: str = ""
    """What the dialog is about that blocks it, as its runtime's hook told."""
    tmux_session: str = ""
    tmux_state: str = ""
    hooks_seen_at: str = ""
    """When a hook of its runtime's process first fired in the session that it is in; absent: none did."""
    hooks_fired: dict[str, HookFired] = {}
    """With `include_hooks`: each event of its runtime's process that a hook told of, as long as this daemon runs."""
    reserved: bool = False
    is_local: bool = False
    namesakes: tuple[str, ...] = ()
    """Machines with a clone that has another agent of this name."""


class GroupTotal(msgspec.Struct, gc=False):
    name: str
    total: int


class SharedMessages(msgspec.Struct, omit_defaults=True, gc=False):
    broadcast_total: int
    groups: tuple[GroupTotal, ...] = ()


class DaemonIdentity(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """Also the `identity` block of `daemon status` (identity.md §13)."""

    daemon_id: str
    repo_name: str
    hostname: str
    repo_path: str
    git_origin_url: str = ""
    init_at: str


class Hint(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """What the bus says of one fact on one audience (rpc.md §8); `topics` and `fact` only in `events.since`."""

    epoch: str
    seq: int
    prev: int = 0
    event_id: str = ""
    type: str
    message_id: str = ""
    thread_id: str = ""
    from_: str = msgspec.field(default="", name="from")
    to: tuple[str, ...] = ()
    state: str = ""
    quiet: bool = False
    preview: str = ""
    at: str
    topics: tuple[str, ...] = ()
    fact: msgspec.Raw = msgspec.Raw(b"")


class Session(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    session_id: str
    agent_id: str
    started_at: str
    ended_at: str = ""
    end_reason: str = ""
    last_seen_at: str
    intent: str = ""
    status: Literal["active", "ended"]


class Orphan(msgspec.Struct, kw_only=True, gc=False):
    """An agent whose identity file, worktree or branch is gone, or that was not seen for long (identity.md §8.5)."""

    agent_id: str
    role: str
    module: str
    worktree: str
    branch: str
    last_seen_at: str
    identity_missing: bool
    worktree_missing: bool
    branch_missing: bool
    days_since_last_seen: int
    message_count: int


class GroupSummary(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    group_id: str
    name: str
    description: str = ""
    member_count: int
    created_at: str


class GroupMember(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    member_type: str
    member_value: str
    added_at: str
    added_by: str = ""


class SettingChange(msgspec.Struct, gc=False):
    """A setting that was changed outside thrum: what counts, and what the file says; null: nothing."""

    key: str
    counts: Any
    file: Any


class SettingValue(msgspec.Struct, gc=False):
    """A setting as text, and where it comes from: `config.json`, `environment` or `default`."""

    value: str
    source: str
