"""Text for a terminal: cut to a width, framed, counted. Pure. What makes foreign text harmless is `model.printed`'s."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

from thrum.model.printed import beginning as beginning
from thrum.model.printed import clean as clean
from thrum.model.printed import indent as indent
from thrum.model.printed import json_clean as json_clean
from thrum.model.printed import line as line
from thrum.model.printed import one_line as one_line
from thrum.model.printed import preview as preview

_FEW = 3
"""How many of many names are printed."""


def framed(head: str, path: PurePath, text: str) -> str:
    """What a file says, as such: its name above it, and no line of it where thrum's own begin."""
    return f"{head} ({line(str(path))})\n{indent(text.strip(chr(10)))}"


def columns(text: str) -> int:
    """How many cells a terminal needs for `text`."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def shorten(text: str, width: int) -> str:
    """At most `width` cells, with `…` where it was cut; a width of 0 or less leaves it whole."""
    if width <= 0 or columns(text) <= width:
        return text
    used, kept = 1, ""
    for char in text:
        used += _cells(char)
        if used > width:
            break
        kept += char
    return kept.rstrip() + "…"


def plural(count: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def few(names: Sequence[str]) -> str:
    """`@qa, @ann, @bob, …`: the first three of several."""
    return ", ".join([*names[:_FEW], *["…"][: len(names) > _FEW]])
