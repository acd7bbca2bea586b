"""Which message a reference names: a full id, its end, `last`, `@NAME` (cli.md §3.4); and what was printed, for
`last`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from thrum.cli.parser import did_you_mean, near
from thrum.cli.run import Run
from thrum.cli.values import parse_agent
from thrum.model.errors import AmbiguousMessage, MessageNotFound, NoIdentity, SeveralIdentities, UnknownMethod
from thrum.model.ids import MESSAGE_ID_END_MIN, short_message_id
from thrum.model.methods.agents import AGENT_LIST, AgentListParams
from thrum.model.methods.messages import (
    MESSAGE_FIND,
    MESSAGE_OUTBOX,
    MESSAGE_PRINTED,
    FindParams,
    OutboxParams,
    PrintedParams,
)

LAST_HELP = "last (the newest message printed to you; refused if several authors' were printed together)"
ID_HELP = f"its id or the end of it, {LAST_HELP}, or @NAME"
"""For the help of commands that take a message."""

_FULL = re.compile(r"(?:msg|thr)_[0-9A-Z]{26}")
_END = re.compile(r"(?:msg_)?([0-9A-Za-z]{1,26})")


async def find_message(run: Run, text: str) -> str:
    """The full id. What is none of these is left to the daemon, which does not find it. Raises MessageNotFound,
    AmbiguousMessage, and for `last` and `@NAME` NoIdentity."""
    end = _END.fullmatch(text)
    if _FULL.fullmatch(text):
        return text
    if text == "last":
        params = FindParams(last=True)
    elif text.startswith("@") and len(text) > 1:
        params = FindParams(author=parse_agent(text))
    elif end is None:
        return text
    elif len(end[1]) < MESSAGE_ID_END_MIN:
        remedy = f"give at least {MESSAGE_ID_END_MIN} characters of its end: thrum inbox; thrum sent"
        raise MessageNotFound(f"message not found: {text}", remedy=await _name_advice(run, text, "") or remedy)
    else:
        params = FindParams(end=end[1].upper())
    if not params.end:
        run.identity()
    try:
        result = await run.call(MESSAGE_FIND, params)
    except MessageNotFound as error:
        if params.last:
            raise
        message = f"message not found: {text}" if params.end else error.message
        remedy = await _name_advice(run, text, params.author)
        raise MessageNotFound(message, remedy=remedy or error.remedy) from error
    except AmbiguousMessage as error:
        if not params.last:
            raise
        raise AmbiguousMessage(error.message, remedy=_one_of(run, error.details), **error.details) from error
    return result.message_id


async def find_own(run: Run, text: str) -> str:
    """The same for what one does with one's own messages alone: `last` is the newest that I sent."""
    if text != "last":
        return await find_message(run, text)
    me = run.identity().agent_id
    result = await run.call(MESSAGE_OUTBOX, OutboxParams(author_id=me, page_size=1))
    if not result.messages:
        raise MessageNotFound(f"no message sent by @{me}", remedy="thrum sent")
    return result.messages[0].message_id


async def _name_advice(run: Run, text: str, author: str) -> str:
    """What to say where a word is no message: whom it names, or may have meant."""
    listed = await run.call(AGENT_LIST, AgentListParams())
    names = [each.agent_id for each in listed.agents]
    if author in names:
        return f'thrum send "TEXT" --to @{author}' if run.command.path == ("reply",) else f"thrum inbox --from {author}"
    close = near(text, names, _CLOSE)
    return did_you_mean([f"@{name}" for name in close])


_CLOSE = 0.7
"""An end of an id is no name, however much it looks like one."""


def _one_of(run: Run, details: dict[str, Any]) -> str:
    """The command again with the newest of the messages that may be meant, and by whom it is."""
    text = ' "TEXT"' if run.command.path == ("reply",) else ""
    newest, author = details["candidates"][0], details.get("authors", [""])[0]
    by = f", or {run.command.path[-1]} @{author}" if author else ""
    return f"thrum {run.command.name} {short_message_id(newest)}{text}{by}"


async def note_printed(run: Run, message_ids: Iterable[str]) -> None:
    """These messages were printed: `last` is one of them. Without an identity there is no `last`."""
    ids = tuple(message_ids)
    try:
        run.identity()
    except (NoIdentity, SeveralIdentities):
        return
    if ids:
        with suppress(UnknownMethod):  # an older daemon has no `last`
            await run.call(MESSAGE_PRINTED, PrintedParams(message_ids=ids))
