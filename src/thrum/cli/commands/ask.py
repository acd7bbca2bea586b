"""ask: send, and wait for the answer to that message. Source: wake.md §6."""

from __future__ import annotations

from typing import Annotated

from thrum.cli import render
from thrum.cli.body import BodyFile, MessageFlag, Stdin, read_body
from thrum.cli.commands.messages import hosts_of
from thrum.cli.commands.send import not_soon
from thrum.cli.commands.wait import Patience, wait_for
from thrum.cli.parser import RUN, option, switch, word
from thrum.cli.references import note_printed
from thrum.cli.render import RenderContext, at
from thrum.cli.run import Answer, Run
from thrum.cli.values import parse_agent, parse_duration
from thrum.model.methods.messages import (
    MESSAGE_GET,
    MESSAGE_MARK_READ,
    MESSAGE_SEND,
    MarkReadParams,
    MessageGetParams,
    SendParams,
    WaitParams,
)


async def ask(
    agent: Annotated[str, word("AGENT", "whom to ask")],
    text: Annotated[str | None, word("TEXT", "the question; - reads stdin")] = None,
    /,
    *,
    timeout: Annotated[str, option("10m", "how long to wait for the answer")] = "10m",  # noqa: ASYNC109
    urgent: Annotated[bool, switch("wake at once, without waiting for a burst to end")] = False,
    message: MessageFlag = "",
    stdin: Stdin = False,
    body_file: BodyFile = "",
    run: Annotated[Run, RUN],
) -> Answer:
    timeout_ms = parse_duration(timeout, "--timeout")
    content = await read_body(run, text, message, stdin, body_file)
    run.identity()
    sent = await run.call(MESSAGE_SEND, SendParams(content=content, to=(f"@{parse_agent(agent)}",), urgent=urgent))
    for each in (*sent.warnings, *not_soon(sent)):
        if not run.quiet:
            await run.complain(each)
    params = WaitParams(reply_to=sent.message_id, mark="read", limit=1)
    result = await wait_for(run, params, Patience(run, timeout_ms), run.now_ms)
    if result.status == "timeout":
        return await _not_answered(run, sent.message_id)
    answer = result.messages[0]
    rendering = RenderContext(run.now_ms, run.session.terminal.width, await hosts_of(run, [answer]))
    document = {"status": "answered", "message_id": sent.message_id, "answer": answer}

    async def mark() -> None:
        await run.delivered()
        if run.session.local:
            # Over a socket the daemon marks by itself, a moment later: be sure before this process ends.
            await run.call(MESSAGE_MARK_READ, MarkReadParams(message_ids=(answer.message_id,)))
        await note_printed(run, [answer.message_id])

    return Answer(document, data=render.messages([answer], rendering), then=mark)


async def _not_answered(run: Run, message_id: str) -> Answer:
    """The time is up: how far the question came with each whom it was sent to."""
    found = await run.call(MESSAGE_GET, MessageGetParams(message_id=message_id))
    recipients = found.message.recipients
    states = ", ".join(f"{at(each.agent_id)}: {render.state(each)}" for each in recipients)
    document = {"status": "timeout", "message_id": message_id, "recipients": recipients}
    return Answer(document, notice=f"NO_ANSWER_TIMEOUT — {states}; its answer will be in your inbox", status=1)
