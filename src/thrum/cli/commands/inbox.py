"""inbox: messages for me, as a briefing or in pages. Source: cli.md §3.5."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from thrum.cli import briefing, render
from thrum.cli.commands.messages import check_agent, check_page, hosts_of
from thrum.cli.parser import RUN, option, switch
from thrum.cli.references import find_message, note_printed
from thrum.cli.render import RenderContext
from thrum.cli.run import Answer, Run
from thrum.cli.session import TTY_OUT
from thrum.cli.text import line
from thrum.cli.values import parse_agent, parse_pair
from thrum.model import limits, search, wire_types
from thrum.model.errors import AnswerTooLarge, MessageNotFound
from thrum.model.methods.messages import (
    MESSAGE_LIST,
    MESSAGE_MARK_READ,
    MarkReadParams,
    MessageListParams,
    MessageListResult,
)

_AT_ONCE = (briefing.MESSAGES_MAX, 8, 1)
"""How many messages a briefing asks for; fewer where they are so long that no answer holds them."""


async def inbox(
    *,
    unread: Annotated[bool, switch("only unread messages; they stay unread")] = False,
    peek: Annotated[bool, switch("mark nothing as read")] = False,
    all: Annotated[bool, switch("all messages of the repository; marks nothing as read", "-a", "--all")] = False,
    to: Annotated[str, option("X", "with --all: only X's inbox")] = "",
    from_: Annotated[str, option("X", "only messages by this author", "--from")] = "",
    scope: Annotated[str, option("T:V", "only messages with this scope")] = "",
    mentions: Annotated[bool, switch("only messages sent to your name or role")] = False,
    thread: Annotated[str, option("ID", "the whole conversation, by thread or message id; oldest first")] = "",
    search_: Annotated[
        str, option("TEXT", "only messages with all these words; the last word may be a prefix", "--search")
    ] = "",
    chronological: Annotated[
        bool, switch("oldest first, replies under their parent", "--chronological", "--oldest")
    ] = False,
    page: Annotated[int | None, option("N", "page number, from 1")] = None,
    page_size: Annotated[
        int | None, option("N", "messages per page, 1 to 1000; default: 10", "-n", "--page-size", "--limit")
    ] = None,
    run: Annotated[Run, RUN],
) -> Answer:
    asked = (unread, peek, all, from_, scope, mentions, thread, search_, chronological, page, page_size)
    is_briefing = not any(each not in (False, "", None) for each in asked)
    page, page_size = 1 if page is None else page, limits.page_size_default if page_size is None else page_size
    check_page(run, page, page_size)
    if to and not all:
        raise run.command.error("--to goes with --all")
    if search_ and not search.words(search_):
        raise run.command.error(f'--search needs a word to look for, not "{search_}"')
    me = "" if all else run.reader_id()
    if is_briefing:
        return await _briefing(run, me)
    params = MessageListParams(
        for_agent="" if thread else me,
        recipient=parse_agent(to) if to else "",
        unread=unread,
        mentions=mentions,
        author_id=parse_agent(from_) if from_ else "",
        scope=parse_pair(scope, "--scope") if scope else None,
        thread_id=await find_message(run, thread) if thread else "",
        query=search_,
        chronological=chronological or bool(thread),
        page=page,
        page_size=page_size,
    )
    result = await run.call(MESSAGE_LIST, params)
    if not result.total:
        await _check_named(run, params)
    rendering = RenderContext(run.now_ms, run.session.terminal.width, await hosts_of(run, result.messages))
    if result.messages:
        data, said = render.messages(result.messages, rendering), ""
        foot = "" if run.quiet else render.showing(result, counted=not all or bool(to))
        data = "\n".join(part for part in (data, foot) if part)
    else:
        data, said = "", await _nothing(run, params, me, result)

    async def mark() -> None:
        await _mark(run, me, result.messages, "seen" if unread or peek else "read")

    return Answer(result, said=said, data=data, then=None if all else mark)


async def _briefing(run: Run, me: str) -> Answer:
    """The oldest unread messages in full; said again, it goes on where it ended. As a document they are the same
    messages, with whole bodies: `total` counts all that were unread.
    """
    result = await _oldest_unread(run, me)
    if not result.messages:
        return Answer(result) if run.flags.json else await _all_read(run, me)
    rendering = RenderContext(run.now_ms, run.session.terminal.width, await hosts_of(run, result.messages))
    shown, text = briefing.portion(result.messages, rendering)
    rest = (result.total or 0) - len(shown)
    if rest > 0 and not run.quiet:
        # Where nothing is marked, the same would come again.
        text += f"\n{rest} more unread: thrum inbox" + (" --unread --oldest" if run.leaves_no_mark else "")
    document = msgspec.structs.replace(result, messages=tuple(shown))
    return Answer(document, data=text, then=lambda: _mark(run, me, tuple(shown), "read"))


async def _oldest_unread(run: Run, me: str) -> MessageListResult:
    *sizes, least = _AT_ONCE
    for size in sizes:
        try:
            return await run.call(MESSAGE_LIST, _unread_params(me, size))
        except AnswerTooLarge:
            continue
    return await run.call(MESSAGE_LIST, _unread_params(me, least))


def _unread_params(me: str, page_size: int) -> MessageListParams:
    return MessageListParams(for_agent=me, unread=True, sort_order="asc", page_size=page_size)


async def _all_read(run: Run, me: str) -> Answer:
    """Nothing new: said in a few words. A person at a terminal is reminded of the last messages."""
    params = MessageListParams(for_agent=me, page_size=briefing.READ_SHOWN)
    result = await run.call(MESSAGE_LIST, params)
    said = f"No {'unread ' if result.total else ''}messages for {render.at(me)}."
    if not run.session.terminal.tty & TTY_OUT:
        return Answer(result, said=said)
    rendering = RenderContext(run.now_ms, run.session.terminal.width, await hosts_of(run, result.messages))
    return Answer(result, said=said, data="\n".join(briefing.line(each, rendering) for each in result.messages))


async def _mark(run: Run, me: str, shown: tuple[wire_types.Message, ...], state: Literal["seen", "read"]) -> None:
    """Mark what was printed and is addressed to me; what has the state already needs no call."""
    ids = [each.message_id for each in shown if not each.is_read and not _has_seen(each, me, state)]
    if ids:
        await run.call(MESSAGE_MARK_READ, MarkReadParams(message_ids=tuple(ids), state=state))
    await note_printed(run, [each.message_id for each in shown])


def _has_seen(each: wire_types.Message, me: str, state: str) -> bool:
    return state == "seen" and any(one.agent_id == me and one.seen_at for one in each.recipients)


async def _nothing(run: Run, params: MessageListParams, me: str, result: MessageListResult) -> str:
    """Why there is nothing to show."""
    if result.total:
        return render.showing(result, counted=False)
    words = [f"--from {params.author_id}"] if params.author_id else []
    words += [f"--scope {params.scope.type}:{params.scope.value}"] if params.scope else []
    words += ["--mentions"] if params.mentions else []
    words += [f"--thread {params.thread_id}"] if params.thread_id else []
    words += [f'--search "{params.query}"'] if params.query else []
    words += [f"--to {params.recipient}"] if params.recipient else []
    if words:
        everything = MessageListParams(for_agent=me, unread=params.unread, page_size=1)
        whole = await run.call(MESSAGE_LIST, everything)
        where = "in the inbox" if me else "in all"
        return f"No messages match {line(' '.join(words))} ({whole.total or 0} {where})."
    unread = "unread " if params.unread else ""
    return f"No {unread}messages for {render.at(me)}." if me else f"No {unread}messages."


async def _check_named(run: Run, params: MessageListParams) -> None:
    """Raise AgentNotFound or MessageNotFound when what the filters name is not there."""
    for agent_id in (params.author_id, params.recipient):
        if agent_id:
            await check_agent(run, agent_id)
    if params.thread_id:
        whole = MessageListParams(thread_id=params.thread_id, include_deleted=True, page_size=1)
        found = await run.call(MESSAGE_LIST, whole)
        if not found.total:
            raise MessageNotFound(f"message not found: {params.thread_id}")
