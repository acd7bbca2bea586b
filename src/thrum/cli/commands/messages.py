"""sent, message get|edit|delete|read, and what all commands that show messages need. Source: cli.md §3.4, §3.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from thrum.cli import render
from thrum.cli.body import BodyFile, MessageFlag, Stdin, read_body
from thrum.cli.parser import RUN, did_you_mean, near, option, switch, word
from thrum.cli.references import ID_HELP, find_message, find_own, note_printed
from thrum.cli.render import RenderContext
from thrum.cli.run import Answer, Run
from thrum.cli.text import plural
from thrum.cli.values import parse_agent
from thrum.model import limits, wire_types
from thrum.model.clock import format_ms
from thrum.model.errors import (
    AgentNotFound,
    ConfirmationRequired,
    MessageDeleted,
    NoIdentity,
    ThrumError,
    UnknownRecipient,
    not_author,
)
from thrum.model.ids import host_names, short_message_id
from thrum.model.methods.agents import AGENT_LIST, TEAM_LIST, AgentListParams, TeamListParams
from thrum.model.methods.groups import GROUP_LIST
from thrum.model.methods.messages import (
    MESSAGE_DELETE,
    MESSAGE_EDIT,
    MESSAGE_GET,
    MESSAGE_MARK_READ,
    MESSAGE_OUTBOX,
    DeleteParams,
    EditParams,
    MarkReadParams,
    MarkReadResult,
    MessageGetParams,
    OutboxParams,
)
from thrum.model.methods.method import Empty

Page = Annotated[int, option("N", "page number, from 1")]
PageSize = Annotated[int, option("N", "messages per page, 1 to 1000; default: 10", "-n", "--page-size", "--limit")]


async def check_agent(run: Run, agent_id: str) -> None:
    """Raise AgentNotFound for an unknown agent. Users and thrum's own senders need no registration."""
    known = await run.call(AGENT_LIST, AgentListParams())
    names = [each.agent_id for each in known.agents]
    if agent_id in names or ":" in agent_id or agent_id == "system":
        return
    close = near(agent_id, names)
    remedy = "; ".join(part for part in (did_you_mean(["@" + name for name in close]), "thrum agent list") if part)
    raise AgentNotFound(f"agent not found: {agent_id}", remedy=remedy, suggestions=close or None)


async def check_recipient(run: Run, word: str) -> None:
    """Raise UnknownRecipient for a word that is no name, role or group."""
    known = await run.call(AGENT_LIST, AgentListParams())
    words = {"everyone", *(each.agent_id for each in known.agents), *(each.role for each in known.agents)}
    if word in words:
        return
    groups = await run.call(GROUP_LIST, Empty())
    words |= {each.name for each in groups.groups}
    if word in words:
        return
    close = near(word, words - {""})
    asked = did_you_mean(["@" + name for name in close])
    remedy = f"{asked} Names: thrum team --all" if asked else "names: thrum team --all"
    raise UnknownRecipient(f"unknown recipient: @{word}", remedy=remedy, recipients=[word], suggestions=close or None)


async def hosts_of(
    run: Run, some: Sequence[wire_types.Message | wire_types.OutMessage | wire_types.Detail]
) -> dict[str, str]:
    """The host of each other daemon that these messages are of, as far as it is known, for `RenderContext.hosts`."""
    if run.flags.json or not any(each.origin_daemon for each in some):
        return {}
    params = TeamListParams(include_files=False, hosts=True)
    try:
        team = await run.call(TEAM_LIST, params)
    except ThrumError:
        return {}  # what was asked for is there all the same
    return host_names(team.hosts.items())


def check_page(run: Run, page: int, page_size: int) -> None:
    """Raises UsageError for a page or page size that can't be."""
    if page < 1:
        raise run.command.error(f"--page starts at 1, not {page}")
    if not 1 <= page_size <= limits.page_size_max:
        raise run.command.error(f"--page-size must be 1 to {limits.page_size_max}, not {page_size}")


async def sent(
    *,
    to: Annotated[str, option("X", "only messages to this recipient, role or group")] = "",
    unread: Annotated[bool, switch("only messages that someone has not read")] = False,
    page: Page = 1,
    page_size: PageSize = limits.page_size_default,
    run: Annotated[Run, RUN],
) -> Answer:
    check_page(run, page, page_size)
    me = run.identity().agent_id
    params = OutboxParams(author_id=me, to=parse_agent(to) if to else "", unread=unread, page=page, page_size=page_size)
    result = await run.call(MESSAGE_OUTBOX, params)
    rendering = RenderContext(run.now_ms, run.session.terminal.width, await hosts_of(run, result.messages))
    if not result.total:
        return Answer(result, said="Nothing matches." if to or unread else f"No messages sent by {render.at(me)}.")
    showing = render.showing(result, counted=False)
    if not result.messages:
        return Answer(result, said=showing)
    gone = await _gone(run, result.messages)
    blocks = [render.out_message(each, rendering, gone) for each in result.messages]
    if len(blocks) < result.total and not run.quiet:
        blocks.append(showing)
    return Answer(result, data="\n".join(blocks))


async def _gone(run: Run, some: Sequence[wire_types.OutMessage]) -> set[str]:
    """The recipients who have not read it and never will: no agent has that name any more."""
    unread = {one.agent_id for each in some for one in each.recipients if not one.read_at and ":" not in one.agent_id}
    if not unread or run.flags.json:
        return set()
    known = await run.call(AGENT_LIST, AgentListParams())
    return unread - {each.agent_id for each in known.agents}


# -- one message


async def get(
    message_id: Annotated[str, word("MSG_ID", ID_HELP)],
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
    params = MessageGetParams(message_id=await find_message(run, message_id))
    result = await run.call(MESSAGE_GET, params)
    # Marking what is not mine would only be skipped; a deleted message is in no inbox.
    mine = not peek and any(_is_mine(run, one) and not one.read_at for one in result.message.recipients)

    async def mark() -> None:
        if mine:
            await run.call(MESSAGE_MARK_READ, MarkReadParams(message_ids=(params.message_id,)))
        await note_printed(run, [params.message_id])

    rendering = RenderContext(run.now_ms, hosts=await hosts_of(run, [result.message]))
    return Answer(result, data=render.detail(result.message, rendering, own=_wrote(run, result.message)), then=mark)


def _wrote(run: Run, message: wire_types.Detail) -> bool:
    try:
        return message.author.agent_id == run.identity().agent_id
    except NoIdentity:
        return False


def _is_mine(run: Run, one: wire_types.Recipient) -> bool:
    return one.agent_id == run.identity().agent_id


async def edit(
    message_id: Annotated[str, word("MSG_ID", "its id or the end of it, or last (the newest message you sent)")],
    text: Annotated[str | None, word("TEXT", "the new body; - reads stdin")] = None,
    /,
    *,
    message: MessageFlag = "",
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    content = await read_body(run, text, message, stdin, body_file)
    run.identity()
    params = EditParams(message_id=await find_own(run, message_id), content=content)
    result = await run.call(MESSAGE_EDIT, params)
    return Answer(result, said=f"✓ Message edited: {result.message_id} (version {result.version})")


async def delete(
    message_id: Annotated[str, word("MSG_ID", "its id or the end of it, or last (the newest message you sent)")],
    /,
    *,
    yes: Annotated[bool, switch("confirm hiding it everywhere", "--yes", "--force")] = False,
    reason: Annotated[str, option("T", "why")] = "",
    run: Annotated[Run, RUN],
) -> Answer:
    me = run.identity().agent_id
    params = DeleteParams(message_id=await find_own(run, message_id), reason=reason)
    if not yes:
        said = await _first_line_of_mine(run, params.message_id, me)
        again = run.again("--yes", message_id, short_message_id(params.message_id))  # `last` moves on
        raise ConfirmationRequired(f"use --yes to confirm deletion of {params.message_id}: {said}", remedy=again)
    result = await run.call(MESSAGE_DELETE, params)
    return Answer(result, said=f"✓ Message deleted: {result.message_id}")


async def _first_line_of_mine(run: Run, message_id: str, me: str) -> str:
    """What is about to be deleted. Raises MessageNotFound, NotAuthor, MessageDeleted before anybody is asked."""
    found = await run.call(MESSAGE_GET, MessageGetParams(message_id=message_id))
    author = found.message.author.agent_id
    if author != me:
        raise not_author("delete", message_id, author, me)
    if found.message.deleted:
        raise MessageDeleted(f"{message_id} is already deleted")
    return render.first_line(found.message.body.content)


async def read(
    message_ids: Annotated[tuple[str, ...], word("MSG_ID", "ids or ends of ids, last, or @NAME")] = (),
    /,
    *,
    all: Annotated[bool, switch("all messages in your inbox")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    if bool(message_ids) == all:
        raise run.command.error("give MSG_ID… or --all" if not all else "MSG_ID and --all exclude each other")
    # What arrives from now on has not been looked at.
    before = format_ms(run.now_ms) if all else ""
    run.identity()
    ids = [await find_message(run, each) for each in message_ids]
    result = await run.call(MESSAGE_MARK_READ, MarkReadParams(message_ids=tuple(ids), all=all, marked_before=before))
    return Answer(result, said=_marked(result, all))


def _marked(result: MarkReadResult, all: bool) -> list[str]:
    """What was marked, and what was not."""
    said = [f"✓ Marked {plural(result.marked_count, 'message')} as read"] if result.marked_count else []
    if all and result.remaining:
        said.append(f"{plural(result.remaining, 'message')} came later: still unread.")
    elif result.skipped_count:
        said.append(f"{plural(result.skipped_count, 'message')} not addressed to you.")
    return said or ["No unread messages."]
