"""send, reply. Source: cli.md §3.3, §3.4."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from thrum.cli import recipients, render
from thrum.cli.body import BodyFile, MessageFlag, Stdin, parse_structured, read_body
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.references import ID_HELP, find_message, find_own
from thrum.cli.render import RenderContext, at
from thrum.cli.run import Advice, Answer, Run
from thrum.cli.text import line
from thrum.cli.values import parse_agent, parse_duration, parse_pair
from thrum.model import wire_types
from thrum.model.addressing import EVERYONE
from thrum.model.errors import MessageNotFound, UsageError
from thrum.model.methods.agents import AGENT_LIST, AgentListParams
from thrum.model.methods.groups import GROUP_LIST
from thrum.model.methods.messages import (
    MESSAGE_GET,
    MESSAGE_LIST,
    MESSAGE_SEND,
    MessageGetParams,
    MessageListParams,
    SendParams,
    SendResult,
)
from thrum.model.methods.method import Empty

Format = Literal["markdown", "plain", "json"]
FormatFlag = Annotated[Format, option("markdown|plain|json", "format of the body; default: markdown")]


async def send(
    words: Annotated[
        tuple[str, ...],
        word("[@X…] TEXT", "the text, quoted; @X before or after it means --to X; - reads stdin"),
    ] = (),
    /,
    *,
    message: MessageFlag = "",
    to: Annotated[
        tuple[str, ...], option("X", "agent, role, group or everyone; without it: information for the team")
    ] = (),
    thread: Annotated[str, option("ID", "reply in this thread, by thread or message id")] = "",
    broadcast: Annotated[bool, switch("to everyone")] = False,
    mention: Annotated[tuple[str, ...], option("X", "same as --to")] = (),
    scope: Annotated[tuple[str, ...], option("T:V", "what it is about, e.g. module:auth")] = (),
    ref: Annotated[tuple[str, ...], option("T:V", "what it points to, e.g. pr:42")] = (),
    structured: Annotated[str, option("JSON", "a JSON object for programs, e.g. '{\"passed\":45}'")] = "",
    urgent: Annotated[bool, switch("wake at once, without waiting for a burst to end")] = False,
    no_wake: Annotated[bool, switch("put it into their inboxes without waking them")] = False,
    expires: Annotated[str, option("2h", "don't wake for it after this time; it stays in their inboxes")] = "",
    supersedes: Annotated[str, option("MSG_ID", "a message you sent that this one replaces")] = "",
    format: FormatFlag = "markdown",
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    _refuse_overrides(run, 'thrum send "TEXT"')
    scopes = tuple(parse_pair(each, "--scope") for each in scope)
    refs = tuple(parse_pair(each, "--ref") for each in ref)
    data = parse_structured(structured)
    lifetime_ms = _waking(run, urgent=urgent, no_wake=no_wake, expires=expires)
    given = recipients.tell_apart(words, has_body=bool(message or stdin or body_file))
    if given.rest:
        raise run.command.error(
            f"unexpected argument: {' '.join(given.rest)}", 'quote the text: thrum send "…" --to @NAME'
        )
    known = _Known(run)
    is_addressed = bool(to or mention or broadcast or thread)
    text, addressed = await _read_words(run, known, given, is_addressed=is_addressed)
    recipient = addressed[-1].removeprefix("@") if addressed else ""
    advice = f'thrum send "TEXT" --to @{recipient}; - reads it from stdin' if recipient else ""
    content = await read_body(run, text, message, stdin, body_file, advice)
    run.identity()
    addresses = (*addressed, *to, *(("@everyone",) if broadcast else ()))
    if text not in (None, "-") or message:  # of stdin and files each word is the text's
        addresses += tuple(await _named_first(run, known, content))
    parent = await _parent_in(run, thread) if thread else None
    params = SendParams(
        content=content,
        format=format,
        structured=data,
        to=addresses,
        mentions=mention,
        scopes=scopes,
        refs=refs,
        reply_to=parent.message_id if parent else "",
        quiet=no_wake,
        urgent=urgent,
        expires_in_ms=lifetime_ms,
        supersedes=await find_own(run, supersedes) if supersedes else "",
    )
    result = await run.call(MESSAGE_SEND, params)
    said = [f"✓ Message sent: {result.message_id}", *([render.answered(parent)] if parent else [])]
    return await _sent(run, known, result, content, *said)


async def reply(
    message_id: Annotated[str, word("MSG_ID", f"the message to reply to: {ID_HELP}")],
    text: Annotated[str | None, word("TEXT", "the text; - reads stdin")] = None,
    /,
    *,
    message: MessageFlag = "",
    only_author: Annotated[bool, switch("reply only to the author")] = False,
    all: Annotated[bool, switch("also reply to its roles and groups, everyone and the team")] = False,
    urgent: Annotated[bool, switch("wake at once, without waiting for a burst to end")] = False,
    no_wake: Annotated[bool, switch("put it into their inboxes without waking them")] = False,
    expires: Annotated[str, option("2h", "don't wake for it after this time; it stays in their inboxes")] = "",
    supersedes: Annotated[str, option("MSG_ID", "a message you sent that this one replaces")] = "",
    format: FormatFlag = "markdown",
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    if only_author and all:
        raise run.command.error("--only-author and --all exclude each other")
    _refuse_overrides(run, f'thrum send "TEXT" --thread {line(message_id)}')
    lifetime_ms = _waking(run, urgent=urgent, no_wake=no_wake, expires=expires)
    content = await read_body(run, text, message, stdin, body_file)
    run.identity()
    parent = await _message(run, await find_message(run, message_id))
    to = (parent.author.agent_id,) if only_author else ()
    params = SendParams(
        content=content,
        format=format,
        to=to,
        reply_to=parent.message_id,
        reply_all=all,
        quiet=no_wake,
        urgent=urgent,
        expires_in_ms=lifetime_ms,
        supersedes=await find_own(run, supersedes) if supersedes else "",
    )
    result = await run.call(MESSAGE_SEND, params)
    said = (f"✓ Reply sent: {result.message_id}", render.answered(parent))
    return await _sent(run, _Known(run), result, "", *said)


def _waking(run: Run, *, urgent: bool, no_wake: bool, expires: str) -> int:
    """For how many milliseconds the message wakes, 0 for ever. Raises UsageError, BadDuration."""
    if urgent and no_wake:
        raise run.command.error("--urgent and --no-wake exclude each other")
    lifetime_ms = parse_duration(expires, "--expires") if expires else 0
    if expires and not lifetime_ms:
        raise run.command.error("--expires is at least a millisecond", "use --no-wake to wake no one")
    return lifetime_ms


async def _message(run: Run, message_id: str) -> wire_types.Detail:
    found = await run.call(MESSAGE_GET, MessageGetParams(message_id=message_id))
    return found.message


async def _parent_in(run: Run, thread: str) -> wire_types.Detail:
    """The message that is answered: the one named, or the newest of the thread."""
    found = await find_message(run, thread)
    if found.startswith("thr_"):
        params = MessageListParams(thread_id=found, page_size=1)
        listed = await run.call(MESSAGE_LIST, params)
        if not listed.messages:
            raise MessageNotFound(f"message not found: {thread}")
        found = listed.messages[0].message_id
    return await _message(run, found)


# -- whom it is for


class _Known:
    """Who is registered, asked once and only when it matters."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._agents: tuple[wire_types.AgentInfo, ...] | None = None

    async def agents(self) -> tuple[wire_types.AgentInfo, ...]:
        if self._agents is None:
            self._run.identity()  # who may not send starts no daemon
            listed = await self._run.call(AGENT_LIST, AgentListParams())
            self._agents = listed.agents
        return self._agents

    async def names(self) -> set[str]:
        return {each.agent_id for each in await self.agents()}

    async def words(self) -> set[str]:
        """All that can be addressed: names, roles, groups, everyone."""
        agents = await self.agents()
        groups = await self._run.call(GROUP_LIST, Empty())
        roles = {each.role for each in agents if each.role}
        return {EVERYONE, *(each.agent_id for each in agents), *roles, *(each.name for each in groups.groups)}


def _refuse_overrides(run: Run, command: str) -> None:
    """`--role tester` and `--module auth` override who I am (cli.md §1.1), which does not change a message. A user who
    writes them here wants to say who it is for, and it would go to the whole team. Raises UsageError.
    """
    if role := run.flags.role:
        raise run.command.error("--role says who you are, not whom it is for", f"{command} --to @{line(role)}")
    if module := run.flags.module:
        advice = f"{command} --scope module:{line(module)}"
        raise run.command.error("--module says who you are, not what it is about", advice)


async def _read_words(
    run: Run, known: _Known, given: recipients.Typed, *, is_addressed: bool
) -> tuple[str | None, tuple[str, ...]]:
    """The text, if the words have it, and the recipients among them. `is_addressed`: flags say whom it is for. Raises
    UsageError.
    """
    alone = not given.bare and not given.to and not is_addressed
    if alone and given.text is not None and recipients.is_bare(given.text):
        # One word that is a name is no text: who forgot the text would tell the whole team "nux".
        name = recipients.as_spelled(given.text, await known.words())
        if name:
            return None, (name,)
    if (
        given.text is not None
        and given.text.startswith("@")
        and recipients.is_one_name(given.text, await known.names())
    ):
        return None, (*given.to, given.text)
    if not given.bare:
        return given.text, given.to
    if parse_agent(given.bare) in await known.names():
        return given.text, (*given.to, given.bare)
    if given.text is None:
        return given.bare, given.to  # two bodies: said by `read_body`
    if parse_agent(given.text) in await known.names():
        remedy = f'put the name first, or after --to: thrum send "{given.bare}" --to @{parse_agent(given.text)}'
        raise run.command.error(f"{given.bare} is not an agent", remedy)
    raise _not_a_recipient(run, given.bare)


def _not_a_recipient(run: Run, word: str) -> UsageError:
    text = f'quote a text of several words: thrum send "{word} …"; to send to someone: thrum send "TEXT" --to @NAME'
    return run.command.error(f"{word} is not an agent", text)


async def _named_first(run: Run, known: _Known, content: str) -> list[str]:
    """Whom the text names at its beginning; who signs with the own name does not write to itself alone."""
    if not content.lstrip().startswith("@"):
        return []
    me = run.identity().agent_id
    return [name for name in recipients.named_first(content, await known.names()) if name != me]


# -- what the sender wants to know


async def _sent(run: Run, known: _Known, result: SendResult, content: str, *said: str) -> Answer:
    hint = _flag_inside(run, content)
    late = () if run.quiet else not_soon(result)
    # People are told the reason instead of how long one was silent; programs find both.
    if hint is None and not result.warnings and (not late or run.flags.json) and not run.quiet:
        hint = (
            await _team_post_with_name(run, known, content) if not result.audiences else _stale_recipient(run, result)
        )
    return Answer(
        _without(result, "warnings", "silent"),
        said=(*said, render.sent(result)),
        notice=late,
        warnings=result.warnings,
        hint=hint,
    )


def not_soon(result: SendResult) -> tuple[str, ...]:
    """Who will not see it soon, and why: a line each. Nothing where a warning says so in other words."""
    return () if result.warnings else tuple(render.not_soon(result.recipients))


def _without(result: SendResult, *names: str) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(result)
    return {key: value for key, value in document.items() if key not in names}


def _flag_inside(run: Run, content: str) -> Advice | None:
    """Whether a flag was quoted with the text: then it is text, and did nothing."""
    flags = [name for flag in run.command.flags for name in flag.names if name.startswith("--")]
    flag = recipients.flag_inside(content, flags)
    if not flag:
        return None
    said = f"{flag} was sent as text; put flags outside the quotes"
    return Advice("send.flag-in-text", f'{said}: thrum send "TEXT" --to @NAME', severity="warn")


async def _team_post_with_name(run: Run, known: _Known, content: str) -> Advice | None:
    """Whether a post to the team names an agent that was probably supposed to get it."""
    if "@" not in content:
        return None
    agents = await known.agents()
    words = {"everyone", *(each.agent_id for each in agents), *(each.role for each in agents if each.role)}
    name = recipients.named_anywhere(content, words - {run.identity().agent_id})
    if not name:
        return None
    command = f'thrum send "TEXT" --to @{name}'
    return Advice(
        "send.nobody-woken",
        f"@{name} in the text wakes no one: {command}",
        severity="warn",
        options=({"label": "tell them", "cmd": command},),
    )


def _stale_recipient(run: Run, result: SendResult) -> Advice | None:
    """Whether a recipient has been silent for so long that it may not read this."""
    if not result.silent:
        return None
    longest = result.silent[0]
    others = f" (and {len(result.silent) - 1} more)" if len(result.silent) > 1 else ""
    seen = RenderContext(run.now_ms).ago(longest.last_seen_at)
    return Advice(
        "send.recipient-stale",
        f"{at(longest.agent_id)} was last seen {seen}{others}: thrum team --all",
        severity="warn",
        options=({"label": "who is there", "cmd": "thrum team --all"},),
    )
