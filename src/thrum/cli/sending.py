"""send, reply. Source: cli.md §3.3, §3.4."""

from __future__ import annotations

from typing import Annotated, Literal

from thrum import api
from thrum.cli import render
from thrum.cli.body import BodyFile, Stdin, parse_structured, read_body
from thrum.cli.render import Eye
from thrum.cli.run import Answer, Hint, Run
from thrum.cli.values import MINUTE_MS, parse_pair
from thrum.cli.words import RUN, option, switch, word
from thrum.clock import parse_ms

Format = Literal["markdown", "plain", "json"]
STALE_MS = 30 * MINUTE_MS
"""A recipient that was silent for longer may not be there (hint `send.recipient-stale`)."""
LOOKED_AT_MAX = 20
"""Beyond so many recipients nobody asks who is silent."""

FormatFlag = Annotated[Format, option("markdown|plain|json", "what the body is; markdown unless given")]


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
