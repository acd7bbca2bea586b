"""Foreign text made harmless. Pure.

Bodies, intents and names come from others: a terminal must print them, never obey them (cli.md §1.2), and no agent may
read in them what a person does not see. One rule for text and JSON: `clean` of all that goes out, `json_clean` of every
document, `line` of each field that has one line, `indent` of each that has many (decision 0030).
"""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns the direction of writing, line ends that are none
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # what shows nothing: default-ignorable code points (UAX 44), and other format characters
    "\ud800-\udfff"  # halves of characters
    f"\ufdd0-\ufdef{''.join(f'{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}' for plane in range(0, 0x110000, 0x10000))}"
    "]"
)
_UNSAFE_IN_LINE = re.compile(f"[\t\n]|{_UNSAFE.pattern}")

_JOINERS = "\u200c\u200d"
_VARIANTS = "\ufe0e\ufe0f"
_JOINING_SCRIPTS = re.compile("[\u0620-\u06ff\u0750-\u077f\u08a0-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff]")
"""Letters of scripts whose spelling needs joiners: Arabic, those of India and Sri Lanka, Burmese, Khmer."""


def _belongs(text: str, at: int) -> bool:
    """Whether a joiner or variation selector does there what it is for, alone between characters that are seen.

    In 👩‍💻 and ❤️, and in words of Persian or Hindi, which without it are other words.
    """
    char, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    if char in _VARIANTS:
        return _is_symbol(before) or (before in "#*0123456789" and before != "" and after == "\u20e3")
    if char not in _JOINERS:
        return False
    if _JOINING_SCRIPTS.fullmatch(before) and _JOINING_SCRIPTS.fullmatch(after):
        return True
    if before and before in _VARIANTS:
        before = text[at - 2 : at - 1]
    toned = "\U0001f3fb" <= before <= "\U0001f3ff"
    return char == "\u200d" and _is_symbol(after) and (toned or _is_symbol(before))


def _is_symbol(char: str) -> bool:
    """A projection, sign or arrow. Braille is left out: one of its patterns is blank."""
    if not char or char < "\x80" or "\u2800" <= char <= "\u28ff":
        return False
    return unicodedata.category(char) in ("So", "Sm") or char in "‼⁉ℹ〰"


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    if _belongs(match.string, match.start()):
        return char
    point = ord(char)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _escaped_json(match: re.Match[str]) -> str:
    char = match[0]
    if _belongs(match.string, match.start()):
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def clean(text: str) -> str:
    """Text that a terminal only prints, and that hides nothing: all but newline and tab is shown, as `\\x1b`."""
    return _UNSAFE.sub(_escaped, text)


def line(text: str) -> str:
    """The same on one line: newline and tab are shown too."""
    return text if text.isascii() and text.isprintable() else _UNSAFE_IN_LINE.sub(_escaped, text)


def one_line(text: str) -> str:
    """A text of many lines on one, with `; ` where they ended: git and the system say things in several."""
    return line("; ".join(filter(None, (each.strip() for each in text.split("\n")))))


def json_clean(document: bytes) -> bytes:
    """A JSON text with the same characters written as `\\u202e`: parsing it gives back the original.

    In JSON they stand in strings alone, never behind a backslash.
    """
    if document.isascii() and b"\x7f" not in document:
        return document
    return _UNSAFE.sub(_escaped_json, document.decode()).encode()


def preview(text: str) -> str:
    """A body on one line: blanks, tabs and newlines become one space each run."""
    return clean(" ".join(text.split()))


def indent(text: str, by: str = "  ") -> str:
    """Each line behind `by`; lines without text stay empty."""
    return "\n".join(by + each if each else each for each in text.split("\n"))


def beginning(text: str, bytes_max: int) -> tuple[str, int]:
    """As much of a text as fits, and how many bytes of UTF-8 do not."""
    if len(text) <= bytes_max // 4:
        return text, 0
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= bytes_max:
        return text, 0
    kept = data[:bytes_max].decode("utf-8", "ignore")
    return kept, len(data) - len(kept.encode())
