"""Foreign text made harmless, and text cut to a width. Pure.

Bodies, intents and names come from others: a terminal must print them, never obey them (cli.md §1.2).
"""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029\ufeff"  # line ends that are none, and the byte order mark
    "\ud800-\udfff]"  # halves of characters
)
_UNSAFE_IN_LINE = re.compile(f"[\t\n]|{_UNSAFE.pattern}")


def _escaped(match: re.Match[str]) -> str:
    point = ord(match[0])
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"


def clean(text: str) -> str:
    """Text that a terminal only prints: everything but newline and tab that acts is shown as `\\x1b`."""
    return _UNSAFE.sub(_escaped, text)


def line(text: str) -> str:
    """The same on one line: newline and tab are shown too."""
    return _UNSAFE_IN_LINE.sub(_escaped, text)


def preview(text: str) -> str:
    """A body on one line: blanks, tabs and newlines become one space each run."""
    return clean(" ".join(text.split()))


def indent(text: str, by: str = "  ") -> str:
    """Each line behind `by`; lines without text stay empty."""
    return "\n".join(by + each if each else each for each in text.split("\n"))


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
