"""What plain `thrum inbox` shows: all that is unread, oldest first, in bounded portions (cli.md §3.5). Pure.

Agents run it at every turn and pay for each word: nothing is printed twice, and long bodies are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from thrum.cli import render
from thrum.cli.render import RenderContext
from thrum.cli.text import beginning, clean, preview, shorten
from thrum.model import wire_types
from thrum.model.events import Body
from thrum.model.ids import short_message_id

MESSAGES_MAX: Final = 20
TEXT_BYTES_MAX: Final = 16_384
"""Of one portion; its first message is shown whatever it takes."""
BODY_BYTES_MAX: Final = 4_096
READ_SHOWN: Final = 3
"""Read messages that are called to mind on a terminal where nothing is unread."""


def portion(some: Sequence[wire_types.Message], rendering: RenderContext) -> tuple[list[wire_types.Message], str]:
    """As many of the messages, from the first on, as fit; and their text."""
    shown: list[wire_types.Message] = []
    texts: list[str] = []
    size = 0
    for each in some[:MESSAGES_MAX]:
        text = render.message(cut(each), rendering)
        size += len(clean(text).encode("utf-8", "backslashreplace")) + 1
        if shown and size > TEXT_BYTES_MAX:
            break
        shown.append(each)
        texts.append(text)
    return shown, "\n".join(texts)


def cut(each: wire_types.Message) -> wire_types.Message:
    """The message with what is long in it cut, and the command that shows the rest."""
    end = short_message_id(each.message_id)
    content, structured = _cut(each.body.content, end, "\n"), _cut(each.body.structured, end, " ")
    if (content, structured) == (each.body.content, each.body.structured):
        return each
    return msgspec.structs.replace(each, body=Body(each.body.format, content, structured))


def _cut(text: str, end: str, between: str) -> str:
    kept, rest = beginning(text, BODY_BYTES_MAX)
    return f"{kept}{between}… {rest} more bytes: thrum message get {end}" if rest else text


def line(each: wire_types.Message, rendering: RenderContext) -> str:
    """A message on one line: its head, and the beginning of its body."""
    return shorten(
        f"{render.head(each, rendering)}  {preview(each.body.content[:BODY_BYTES_MAX])}", rendering.width or 120
    )
