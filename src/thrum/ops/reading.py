"""Reading messages: pages, one message, sent messages. Writes nothing. Source: rpc.md §5 "list"."""

from __future__ import annotations

from thrum.model import clock, limits, search
from thrum.model.errors import BadTime, IdentityMismatch, InvalidParams, MessageNotFound, StaleCursor
from thrum.model.methods.messages import (
    MessageGetParams,
    MessageGetResult,
    MessageListParams,
    MessageListResult,
    OutboxParams,
    OutboxResult,
)
from thrum.ops.context import Call, Context, caller_id
from thrum.store.queries.views import InboxQuery


async def get(ctx: Context, _call: Call, params: MessageGetParams) -> MessageGetResult:
    """One message in full, deleted ones too."""
    detail = ctx.view.detail(params.message_id)
    if detail is None:
        raise MessageNotFound(f"message not found: {params.message_id}")
    return MessageGetResult(message=detail)


async def list_messages(ctx: Context, call: Call, params: MessageListParams) -> MessageListResult:
    """A page of messages, or with `after_seq` the next ones by sequence number."""
    reader = call.caller.agent_id or ""
    for named in (params.for_agent, params.unread_for_agent):
        _check_owner(reader, named)
    check_page(params.page, params.page_size)
    cursor = params.after_seq is not None
    check_seq(params.after_seq or 0, "after_seq")
    if cursor and params.epoch and params.epoch != ctx.view.epoch:
        raise StaleCursor("the database was rebuilt since that cursor", epoch=ctx.view.epoch)
    if not 1 <= params.limit <= limits.cursor_limit_max:
        raise InvalidParams(f"limit must be 1 to {limits.cursor_limit_max}", remedy="ask for fewer", field="limit")
    created_after = _moment(params.created_after, "created_after")
    expression = _expression(params.query) if params.query else ""
    recipient = params.recipient.removeprefix("@")
    query = InboxQuery(
        # A look at another's inbox is to show what its owner has read.
        reader=recipient or reader,
        for_agent=params.for_agent or recipient,
        unread=params.unread,
        unread_for_agent=params.unread_for_agent,
        mentions=params.mentions,
        mention_role=params.mention_role,
        author_id=params.author_id,
        exclude_self=params.exclude_self,
        scope=params.scope,
        ref=params.ref,
        thread_id=params.thread_id,
        created_after=created_after,
        search=expression,
        include_deleted=params.include_deleted,
        sort_by=params.sort_by,
        sort_order=params.sort_order,
        chronological=params.chronological,
        page=params.page,
        page_size=params.page_size,
        after_seq=params.after_seq,
        limit=params.limit,
    )
    page = ctx.view.inbox(query)
    messages = tuple(page.messages)
    if cursor:
        return MessageListResult(
            messages=messages,
            unread=page.unread,
            hidden_by_filter=page.hidden_by_filter,
            next_seq=page.next_seq,
            epoch=ctx.view.epoch,
            more=page.more,
        )
    return MessageListResult(
        messages=messages,
        unread=page.unread,
        hidden_by_filter=page.hidden_by_filter,
        total=page.total,
        page=params.page,
        page_size=params.page_size,
        total_pages=pages(page.total, params.page_size),
    )


async def outbox(ctx: Context, call: Call, params: OutboxParams) -> OutboxResult:
    """What an author wrote, and who has read it; without `author_id` the caller's."""
    author = params.author_id or caller_id(call)
    check_page(params.page, params.page_size)
    messages, total = ctx.view.outbox(author, params.to.removeprefix("@"), params.unread, params.page, params.page_size)
    return OutboxResult(
        messages=tuple(messages),
        total=total,
        page=params.page,
        page_size=params.page_size,
        total_pages=pages(total, params.page_size),
    )


def _check_owner(reader: str, named: str) -> None:
    """An inbox is its owner's; an unproved reader only filters (rpc.md §3)."""
    if reader and named and named != reader:
        raise IdentityMismatch(
            f"that inbox belongs to @{named}, you are @{reader}",
            remedy="leave for_agent out to look at everything",
            expected_agent=named,
            detected_agent=reader,
        )


def _expression(query: str) -> str:
    """The search words of a text. Raises InvalidParams if it has none, or too many."""
    found = search.words(query)
    if not found:
        raise InvalidParams(
            "query has no word to look for", remedy="give a word, or the beginning of one", field="query"
        )
    if len(found) > limits.search_words_max:
        raise InvalidParams(f"query has more than {limits.search_words_max} words", remedy="give fewer", field="query")
    return search.expression(query)


def check_page(page: int, page_size: int) -> None:
    if not 1 <= page <= limits.integer_max or not 1 <= page_size <= limits.page_size_max:
        raise InvalidParams(
            f"page starts at 1, page_size is 1 to {limits.page_size_max}", remedy="ask for another page", field="page"
        )


def check_seq(seq: int, field: str) -> None:
    """A number of the local sequence, also one that is still to come."""
    if not 0 <= seq <= limits.integer_max:
        raise InvalidParams(f"{field} must be 0 to {limits.integer_max}", remedy="begin with 0", field=field)


def pages(total: int, page_size: int) -> int:
    return -(-total // page_size)


def _moment(text: str, field: str) -> str:
    try:
        return clock.normalise(text) if text else ""
    except ValueError as error:
        raise BadTime(f'bad time "{text}" for {field}', remedy="write RFC 3339", field=field) from error
