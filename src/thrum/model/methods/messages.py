"""Messages: send, list, read, edit, delete, and wait for them."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from thrum.model import limits
from thrum.model.events import Pair
from thrum.model.methods.method import Access, Empty, Method, Mutating, Params
from thrum.model.wire_types import Detail, Message, OutMessage, Recipient


class SendParams(Mutating, kw_only=True):
    """`quiet`: in their inboxes, and no one is woken. It wakes until `expires_at`, or `expires_in_ms` from now: that
    text stays the same when the call is repeated under its key. `supersedes`: an own message that it replaces; without
    an address it goes to whom that one went.
    """

    content: str
    format: str = "markdown"
    structured: dict[str, Any] | None = None
    to: tuple[str, ...] | str = ()
    mentions: tuple[str, ...] = ()
    scopes: tuple[Pair, ...] = ()
    refs: tuple[Pair, ...] = ()
    reply_to: str = ""
    reply_all: bool = False
    quiet: bool = False
    urgent: bool = False
    expires_at: str = ""
    expires_in_ms: int = 0
    supersedes: str = ""
    tags: tuple[str, ...] = ()


class SilentRecipient(msgspec.Struct, gc=False):
    """A recipient that has been silent for so long that it may not be there; `last_seen_at`: registered, if never."""

    agent_id: str
    last_seen_at: str


class SendResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`silent`: recipients last seen over 30 minutes ago, longest first; not told where there are more than 20."""

    message_id: str
    thread_id: str = ""
    created_at: str
    reply_to: str = ""
    seq: int
    resolved_to: int
    quiet: bool = False
    audiences: tuple[Pair, ...]
    recipients: tuple[Recipient, ...]
    silent: tuple[SilentRecipient, ...] = ()
    warnings: tuple[str, ...] = ()
    replayed: bool = False


MESSAGE_SEND: Final = Method(name="message.send", params=SendParams, result=SendResult)


class FindParams(Params, kw_only=True):
    """One of them: the end of an id, whose newest message to the caller, or `last`, what was printed to it last."""

    end: str = ""
    author: str = ""
    last: bool = False


class FindResult(msgspec.Struct):
    message_id: str


MESSAGE_FIND: Final = Method(
    name="message.find", params=FindParams, result=FindResult, access=Access.ANONYMOUS, own_with=("author", "last")
)


class PrintedParams(Params, kw_only=True):
    message_ids: tuple[str, ...]


MESSAGE_PRINTED: Final = Method(
    name="message.printed", params=PrintedParams, result=Empty, access=Access.ANONYMOUS, own=True
)


class MessageGetParams(Params, kw_only=True):
    message_id: str


class MessageGetResult(msgspec.Struct):
    message: Detail


MESSAGE_GET: Final = Method(
    name="message.get", params=MessageGetParams, result=MessageGetResult, access=Access.ANONYMOUS
)


class MessageListParams(Params, kw_only=True):
    """Filters are joined by AND. Either a page, or a cursor (`after_seq`, ascending `seq`).

    `for_agent` is an inbox, so its owner's alone; `recipient` is a plain filter on what was sent to anyone.
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


MESSAGE_LIST: Final = Method(
    name="message.list",
    params=MessageListParams,
    result=MessageListResult,
    access=Access.ANONYMOUS,
    own_with=("for_agent", "unread_for_agent", "unread", "mentions", "exclude_self"),
)


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


MESSAGE_OUTBOX: Final = Method(
    name="message.outbox", params=OutboxParams, result=OutboxResult, access=Access.ANONYMOUS, own_without="author_id"
)


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


MESSAGE_EDIT: Final = Method(name="message.edit", params=EditParams, result=EditResult)


class DeleteParams(Mutating, kw_only=True):
    message_id: str
    reason: str = ""


class DeleteResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    message_id: str
    deleted_at: str
    replayed: bool = False


MESSAGE_DELETE: Final = Method(name="message.delete", params=DeleteParams, result=DeleteResult)


class MarkReadParams(Mutating, kw_only=True):
    message_ids: tuple[str, ...] = ()
    all: bool = False
    marked_before: str = ""
    state: Literal["read", "seen"] = "read"


class MarkReadResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    marked_count: int
    skipped_count: int = 0
    remaining: int = 0


MESSAGE_MARK_READ: Final = Method(name="message.markRead", params=MarkReadParams, result=MarkReadResult)


class WaitParams(Params, kw_only=True):
    """`since`: `unseen`, `now`, a seq, or a time (rpc.md §7). `mention_role`: the name, role or group (or `everyone`)
    that the sender must have given. `reply_to`: only answers to that message, quiet ones too.
    """

    timeout_ms: int = limits.wait_default_ms
    since: int | str = "unseen"
    scope: Pair | None = None
    mention_role: str = ""
    author_id: str = ""
    reply_to: str = ""
    limit: int = limits.wait_limit_default
    mark: Literal["seen", "read", "none"] = "seen"


class WaitResult(msgspec.Struct, kw_only=True):
    status: Literal["received", "timeout"]
    messages: tuple[Message, ...]
    next_seq: int
    epoch: str
    remaining: int


MESSAGE_WAIT: Final = Method(name="message.wait", params=WaitParams, result=WaitResult, long_poll=True)
