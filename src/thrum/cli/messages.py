"""send, reply, inbox, sent, message get|edit|delete|read. Source: cli.md §3.3 to §3.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from thrum import api, limits, search, shapes
from thrum.cli import render
from thrum.cli.body import parse_structured, read_body
from thrum.cli.render import Eye
from thrum.cli.run import Answer, Hint, Run
from thrum.cli.text import line, plural
from thrum.cli.values import MINUTE_MS, agent_of, parse_pair
from thrum.cli.words import RUN, did_you_mean, near, option, switch, word
from thrum.clock import format_ms, parse_ms
from thrum.errors import AgentNotFound, ConfirmationRequired, MessageNotFound, NoIdentity, ThrumError
from thrum.ids import host_names

Format = Literal["markdown", "plain", "json"]
STALE_MS = 30 * MINUTE_MS
"""A recipient that was silent for longer may not be there (hint `send.recipient-stale`)."""
LOOKED_AT_MAX = 20
"""Beyond so many recipients nobody asks who is silent."""

Stdin = Annotated[bool, switch("the body is what stdin says, as is TEXT -")]
BodyFile = Annotated[str, option("P", "the body is in this file", "--body-file", "--file")]
FormatFlag = Annotated[Format, option("markdown|plain|json", "what the body is; markdown unless given")]
Page = Annotated[int, option("N", "which page, from 1")]
PageSize = Annotated[int, option("N", "messages on a page, 1 to 1000; 10 unless given", "--page-size", "--limit")]


async def send(
    text: Annotated[str | None, word("TEXT", "what to say; - reads it from stdin")] = None,
    /,
    *,
    to: Annotated[
        tuple[str, ...], option("X", "agent, role, group, everyone; without it: information for the team")
    ] = (),
    broadcast: Annotated[bool, switch("to everyone")] = False,
    mention: Annotated[tuple[str, ...], option("X", "another word for --to")] = (),
    scope: Annotated[tuple[str, ...], option("T:V", "what it is about, e.g. module:auth")] = (),
    ref: Annotated[tuple[str, ...], option("T:V", "what it points to, e.g. pr:42")] = (),
    structured: Annotated[str, option("JSON", "an object for programs, e.g. '{\"passed\":45}'")] = "",
    format: FormatFlag = "markdown",
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    scopes = tuple(parse_pair(each, "--scope") for each in scope)
    refs = tuple(parse_pair(each, "--ref") for each in ref)
    data = parse_structured(structured)
    content = await read_body(run, text, stdin, body_file)
    run.identity()
    params = api.SendParams(
        content=content,
        format=format,
        structured=data,
        to=(*to, *(("@everyone",) if broadcast else ())),
        mentions=mention,
        scopes=scopes,
        refs=refs,
    )
    result: api.SendResult = await run.call("message.send", params)
    return await _sent(run, result, f"✓ Message sent: {result.message_id}")


async def reply(
    message_id: Annotated[str, word("MSG_ID", "the message to answer")],
    text: Annotated[str | None, word("TEXT", "what to say; - reads it from stdin")] = None,
    /,
    *,
    only_author: Annotated[bool, switch("not to the others who got it")] = False,
    format: FormatFlag = "markdown",
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    content = await read_body(run, text, stdin, body_file)
    run.identity()
    to: tuple[str, ...] = ()
    if only_author:
        parent: api.MessageGetResult = await run.call("message.get", api.MessageGetParams(message_id=message_id))
        to = (parent.message.author.agent_id,)
    params = api.SendParams(content=content, format=format, to=to, reply_to=message_id)
    result: api.SendResult = await run.call("message.send", params)
    return await _sent(run, result, f"✓ Reply sent: {result.message_id}", f"  In reply to: {message_id}")


async def _sent(run: Run, result: api.SendResult, *said: str) -> Answer:
    return Answer(
        _without(result, "warnings"),
        said=(*said, render.sent(result)),
        warnings=result.warnings,
        hint=await _stale_recipient(run, result),
    )


def _without(result: api.SendResult, *names: str) -> dict[str, object]:
    import msgspec

    document: dict[str, object] = msgspec.to_builtins(result)
    return {key: value for key, value in document.items() if key not in names}


async def _stale_recipient(run: Run, result: api.SendResult) -> Hint | None:
    """Whether a recipient has been silent for so long that it may not read this."""
    if result.quiet or run.quiet or not 0 < len(result.recipients) <= LOOKED_AT_MAX:
        return None
    known: api.AgentListResult = await run.call("agent.list", api.AgentListParams())
    seen = {each.agent_id: each.last_seen_at or each.registered_at for each in known.agents}
    times = [(seen[each.agent_id], each.agent_id) for each in result.recipients if each.agent_id in seen]
    silent = sorted(pair for pair in times if run.now_ms - parse_ms(pair[0]) > STALE_MS)
    if not silent:
        return None
    time, agent_id = silent[0]
    others = f" (and {len(silent) - 1} more)" if len(silent) > 1 else ""
    eye = Eye(run.now_ms)
    return Hint(
        "send.recipient-stale",
        f"{render.at(agent_id)} was last seen {eye.ago(time)}{others}: thrum team --all",
        severity="warn",
        options=({"label": "who is there", "cmd": "thrum team --all"},),
    )


# -- inbox


async def inbox(
    *,
    unread: Annotated[bool, switch("only unread ones; they stay unread")] = False,
    peek: Annotated[bool, switch("mark nothing as read")] = False,
    all: Annotated[bool, switch("every message of the repository; marks nothing", "-a", "--all")] = False,
    to: Annotated[str, option("X", "with --all: of X's inbox")] = "",
    from_: Annotated[str, option("X", "only by this author", "--from")] = "",
    scope: Annotated[str, option("T:V", "only with this scope")] = "",
    mentions: Annotated[bool, switch("only to my name or role")] = False,
    thread: Annotated[str, option("ID", "the whole conversation, by thread or message id; oldest first")] = "",
    search_: Annotated[
        str, option("TEXT", "only with all these words; of the last one the beginning is enough", "--search")
    ] = "",
    chronological: Annotated[
        bool, switch("oldest first, replies under their parent", "--chronological", "--oldest")
    ] = False,
    page: Page = 1,
    page_size: PageSize = limits.page_size_default,
    run: Annotated[Run, RUN],
) -> Answer:
    check_page(run, page, page_size)
    if to and not all:
        raise run.command.error("--to goes with --all")
    if search_ and not search.words(search_):
        raise run.command.error(f'--search needs a word to look for, not "{search_}"')
    me = "" if all else run.reader_id()
    params = api.MessageListParams(
        for_agent="" if thread else me,
        recipient=agent_of(to) if to else "",
        unread=unread,
        mentions=mentions,
        author_id=agent_of(from_) if from_ else "",
        scope=parse_pair(scope, "--scope") if scope else None,
        thread_id=thread,
        query=search_,
        chronological=chronological or bool(thread),
        page=page,
        page_size=page_size,
    )
    result: api.MessageListResult = await run.call("message.list", params)
    if not result.total:
        await _check_named(run, params)
    eye = Eye(run.now_ms, run.session.terminal.width, await hosts_of(run, result.messages))
    if result.messages:
        data, said = render.messages(result.messages, eye), ""
        foot = "" if run.quiet else render.showing(result, counted=not all or bool(to))
        data = "\n".join(part for part in (data, foot) if part)
    else:
        data, said = "", await _nothing(run, params, me, result)

    async def mark() -> None:
        await _mark(run, me, result.messages, "seen" if unread or peek else "read")

    return Answer(result, said=said, data=data, then=None if all else mark)


async def _mark(run: Run, me: str, shown: tuple[shapes.Message, ...], state: Literal["seen", "read"]) -> None:
    """Mark what was printed and is addressed to me; what has the state already needs no call."""
    ids = [each.message_id for each in shown if not each.is_read and not _has_seen(each, me, state)]
    if ids:
        await run.call("message.markRead", api.MarkReadParams(message_ids=tuple(ids), state=state))


def _has_seen(each: shapes.Message, me: str, state: str) -> bool:
    return state == "seen" and any(one.agent_id == me and one.seen_at for one in each.recipients)


async def _nothing(run: Run, params: api.MessageListParams, me: str, result: api.MessageListResult) -> str:
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
        everything = api.MessageListParams(for_agent=me, unread=params.unread, page_size=1)
        whole: api.MessageListResult = await run.call("message.list", everything)
        where = "in the inbox" if me else "in all"
        return f"No messages match {line(' '.join(words))} ({whole.total or 0} {where})."
    unread = "unread " if params.unread else ""
    return f"No {unread}messages for {render.at(me)}." if me else f"No {unread}messages."


async def _check_named(run: Run, params: api.MessageListParams) -> None:
    """Raise AgentNotFound or MessageNotFound when what the filters name is not there."""
    for agent_id in (params.author_id, params.recipient):
        if agent_id:
            await check_agent(run, agent_id)
    if params.thread_id:
        whole = api.MessageListParams(thread_id=params.thread_id, include_deleted=True, page_size=1)
        found: api.MessageListResult = await run.call("message.list", whole)
        if not found.total:
            raise MessageNotFound(f"message not found: {params.thread_id}")


async def check_agent(run: Run, agent_id: str) -> None:
    """Raise AgentNotFound for somebody that nobody knows. Users and thrum's own senders need no registration."""
    known: api.AgentListResult = await run.call("agent.list", api.AgentListParams())
    names = [each.agent_id for each in known.agents]
    if agent_id in names or ":" in agent_id or agent_id == "system":
        return
    close = near(agent_id, names)
    remedy = "; ".join(part for part in (did_you_mean(["@" + name for name in close]), "thrum agent list") if part)
    raise AgentNotFound(f"agent not found: {agent_id}", remedy=remedy, suggestions=close or None)


async def hosts_of(run: Run, some: Sequence[shapes.Message | shapes.OutMessage | shapes.Detail]) -> dict[str, str]:
    """The host of each other daemon that these messages are of, as far as it is known, for `Eye.hosts`."""
    if run.flags.json or not any(each.origin_daemon for each in some):
        return {}
    params = api.TeamListParams(include_files=False, hosts=True)
    try:
        team: api.TeamListResult = await run.call("team.list", params)
    except ThrumError:
        return {}  # what was asked for is there all the same
    return host_names(team.hosts.items())


def check_page(run: Run, page: int, page_size: int) -> None:
    """Raises UsageError for a page or page size that can't be."""
    if page < 1:
        raise run.command.error(f"--page begins with 1, not {page}")
    if not 1 <= page_size <= limits.page_size_max:
        raise run.command.error(f"--page-size must be 1 to {limits.page_size_max}, not {page_size}")


async def sent(
    *,
    to: Annotated[str, option("X", "only to this recipient, role or group")] = "",
    unread: Annotated[bool, switch("only what somebody has not read")] = False,
    page: Page = 1,
    page_size: PageSize = limits.page_size_default,
    run: Annotated[Run, RUN],
) -> Answer:
    check_page(run, page, page_size)
    me = run.identity().agent_id
    params = api.OutboxParams(
        author_id=me, to=agent_of(to) if to else "", unread=unread, page=page, page_size=page_size
    )
    result: api.OutboxResult = await run.call("message.outbox", params)
    eye = Eye(run.now_ms, run.session.terminal.width, await hosts_of(run, result.messages))
    if not result.total:
        return Answer(result, said="Nothing matches." if to or unread else f"No messages sent by {render.at(me)}.")
    showing = render.showing(result, counted=False)
    if not result.messages:
        return Answer(result, said=showing)
    blocks = [render.out_message(each, eye) for each in result.messages]
    if len(blocks) < result.total and not run.quiet:
        blocks.append(showing)
    return Answer(result, data="\n".join(blocks))


# -- one message


async def get(
    message_id: Annotated[str, word("MSG_ID", "its id, in full")],
    /,
    *,
    peek: Annotated[bool, switch("leave it unread")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    try:
        run.identity()
    except NoIdentity:
        if not peek:
            raise
    result: api.MessageGetResult = await run.call("message.get", api.MessageGetParams(message_id=message_id))

    async def mark() -> None:
        await run.call("message.markRead", api.MarkReadParams(message_ids=(message_id,)))

    # Marking what is not mine would only be skipped; a deleted message is in nobody's inbox.
    mine = not peek and any(_is_mine(run, one) and not one.read_at for one in result.message.recipients)
    eye = Eye(run.now_ms, hosts=await hosts_of(run, [result.message]))
    return Answer(result, data=render.detail(result.message, eye), then=mark if mine else None)


def _is_mine(run: Run, one: shapes.Recipient) -> bool:
    return one.agent_id == run.identity().agent_id


async def edit(
    message_id: Annotated[str, word("MSG_ID", "its id, in full")],
    text: Annotated[str | None, word("TEXT", "the new body; - reads it from stdin")] = None,
    /,
    *,
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    content = await read_body(run, text, stdin, body_file)
    run.identity()
    result: api.EditResult = await run.call("message.edit", api.EditParams(message_id=message_id, content=content))
    return Answer(result, said=f"✓ Message edited: {result.message_id} (version {result.version})")


async def delete(
    message_id: Annotated[str, word("MSG_ID", "its id, in full")],
    /,
    *,
    yes: Annotated[bool, switch("hide it everywhere", "--yes", "--force")] = False,
    reason: Annotated[str, option("T", "why")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    if not yes:
        raise ConfirmationRequired("use --yes to confirm deletion")
    run.identity()
    result: api.DeleteResult = await run.call("message.delete", api.DeleteParams(message_id=message_id, reason=reason))
    return Answer(result, said=f"✓ Message deleted: {result.message_id}")


async def read(
    message_ids: Annotated[tuple[str, ...], word("MSG_ID", "their ids, in full")] = (),
    /,
    *,
    all: Annotated[bool, switch("every message in my inbox")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    if bool(message_ids) == all:
        raise run.command.error("give MSG_ID… or --all" if not all else "MSG_ID and --all exclude each other")
    # Nobody has looked at what arrives from now on.
    before = format_ms(run.now_ms) if all else ""
    run.identity()
    result: api.MarkReadResult = await run.call(
        "message.markRead", api.MarkReadParams(message_ids=message_ids, all=all, marked_before=before)
    )
    return Answer(result, said=_marked(result, all))


def _marked(result: api.MarkReadResult, all: bool) -> list[str]:
    """What was marked, and what was not."""
    said = [f"✓ Marked {plural(result.marked_count, 'message')} as read"] if result.marked_count else []
    if all and result.remaining:
        said.append(f"{plural(result.remaining, 'message')} came later: still unread.")
    elif result.skipped_count:
        said.append(f"{plural(result.skipped_count, 'message')} not addressed to you.")
    return said or ["No unread messages."]
