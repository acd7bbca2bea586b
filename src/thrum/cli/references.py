"""Which message is meant: a full id, its end, `last`, `@NAME` (cli.md §3.4); and what was printed, for `last`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from thrum import api
from thrum.cli.run import Run
from thrum.cli.values import agent_of
from thrum.errors import MessageNotFound, NoIdentity, SeveralIdentities, UnknownMethod

MEANT = "MSG_ID: an id, its end (4 characters or more), last, or @NAME: the newest of that author to me."
"""For the help of commands that take one."""

_FULL = re.compile(r"(?:msg|thr)_[0-9A-Z]{26}")
_END = re.compile(r"(?:msg_)?([0-9A-Za-z]{4,26})")


async def find_message(run: Run, text: str) -> str:
    """The full id. What is none of these is left to the daemon, which does not find it. Raises MessageNotFound,
    AmbiguousMessage, and for `last` and `@NAME` NoIdentity."""
    end = _END.fullmatch(text)
    if _FULL.fullmatch(text):
        return text
    if text == "last":
        params = api.FindParams(last=True)
    elif text.startswith("@") and len(text) > 1:
        params = api.FindParams(author=agent_of(text))
    elif end is not None:
        params = api.FindParams(end=end[1].upper())
    else:
        return text
    if not params.end:
        run.identity()
    try:
        result: api.FindResult = await run.call("message.find", params)
    except MessageNotFound as error:
        if end is None:
            raise
        raise MessageNotFound(f"message not found: {text}", remedy=error.remedy) from error
    return result.message_id


async def note_printed(run: Run, message_ids: Iterable[str]) -> None:
    """These messages were printed: `last` is one of them. For nobody there is no `last`."""
    ids = tuple(message_ids)
    try:
        run.identity()
    except (NoIdentity, SeveralIdentities):
        return
    if ids:
        with suppress(UnknownMethod):  # a daemon of before has no `last`
            await run.call("message.printed", api.PrintedParams(message_ids=ids))
