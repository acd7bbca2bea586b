"""What is shown, what is hidden, and that JSON gives back what it was."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrum.cli.commands.daemon import log_text
from thrum.cli.commands.sync import status_text
from thrum.cli.render import RenderContext
from thrum.cli.run import error_text, json_line
from thrum.cli.text import clean, indent, json_clean, line, one_line
from thrum.model.errors import SyncFailed
from thrum.model.methods.sync import SyncStatusResult

VISIBLE_FORMAT = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Signs that stand around numbers: of category Cf, and seen (Prepended_Concatenation_Mark)."""
DEFAULT_IGNORABLE = [
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
]  # fmt: skip
"""DerivedCoreProperties.txt of Unicode 16."""


def hides(point: int) -> bool:
    """Whether a character acts, or shows nothing where others see text."""
    if unicodedata.category(chr(point)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and point not in VISIBLE_FORMAT:
        return True
    if 0x13430 <= point <= 0x1343F:  # format of hieroglyphs; some are newer than this Python
        return True
    ignorable = any(first <= point <= last for first, last in DEFAULT_IGNORABLE)
    return ignorable or 0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE


def test_every_character_that_acts_or_shows_nothing_is_shown_and_no_other_is_touched() -> None:
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        if char in "\n\t":
            assert clean(char) == char
            assert line(char) == f"\\x{point:02x}"
        elif hides(point):
            assert clean(char).isascii() and clean(char).startswith("\\"), hex(point)
            assert line(char) == clean(char)
        else:
            assert clean(char) == char == line(char), hex(point)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("file\u202egpj.exe", "file\\u202egpj.exe"),
        ("a\u200bb\u2060c\xadd", "a\\u200bb\\u2060c\\xadd"),
        ("ok\U000e0069\U000e0067", "ok\\U000e0069\\U000e0067"),
        ("one\u2028two\u2029\x85\r", "one\\u2028two\\u2029\\x85\\x0d"),
        ("a\u200db", "a\\u200db"),
        ("x\ufe0f\U000e0101", "x\\ufe0f\\U000e0101"),
        ("👍\ufe0f\ufe0e\ufe0f", "👍\ufe0f\\ufe0e\\ufe0f"),
        ("👩\u200d\u200d💻", "👩\\u200d\\u200d💻"),
        ("⠀\u200d⠀", "⠀\\u200d⠀"),
        ("\u200d👩", "\\u200d👩"),
    ],
)
def test_what_hides_text_is_written_out(text: str, shown: str) -> None:
    assert clean(text) == line(text) == shown


@pytest.mark.parametrize(
    "text",
    ["👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "❤️", "1️⃣ #️⃣", "👩🏽‍🚀", "می‌خواهم", "क्‍ष", "Grüße, 日本語, 한국어", "☎︎"],
)
def test_emoji_and_words_that_need_joiners_stay_readable(text: str) -> None:
    assert clean(text) == line(text) == text


@given(st.text(st.characters(codec="utf-8")))
def test_json_hides_nothing_and_a_parser_gets_back_what_it_was(text: str) -> None:
    document = json_line({"key": text, text: [text]})
    assert json.loads(document) == {"key": text, text: [text]}
    assert clean(document.decode()) == document.decode()
    assert document.count(b"\n") == 1


def test_json_that_is_on_disk_already_is_written_out_the_same() -> None:
    raw = '{"a":"\\\\\u202e\x7f\\"\U000e0041"}'
    assert json_clean(raw.encode()) == b'{"a":"\\\\\\u202e\\u007f\\"\\udb40\\udc41"}'
    assert json.loads(json_clean(raw.encode())) == json.loads(raw)


@given(st.text())
def test_shown_text_is_shown_the_same_again(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert line(line(text)) == line(text)
    assert "\n" not in line(text)


@given(st.text())
def test_no_line_of_a_body_begins_where_thrums_own_lines_do(text: str) -> None:
    for each in clean(indent(text)).split("\n"):
        assert each == "" or each.startswith("  ")


def test_what_others_say_in_many_lines_is_one_line_without_escapes() -> None:
    said = "fatal: could not read\n\n  hint: try\r\n"
    assert one_line(said) == "fatal: could not read; hint: try"
    assert one_line("a\tb\x1b") == "a\\x09b\\x1b", "what acts is still shown"
    entry = {"time": "", "level": "warning", "message": "sync: git push\nfatal: no", "why": "a\nb"}
    assert log_text(entry) == "warning sync: git push; fatal: no  why=a; b"
    status = SyncStatusResult(
        running=True, sync_state="error", local_only=False, pending=0, last_error=said, remedy="git fetch\ngit push"
    )
    shown = status_text(status, RenderContext(0))
    assert "Error:     fatal: could not read; hint: try\n" in shown and "\\x0a" not in shown
    assert "git fetch; git push" in shown
    assert error_text(SyncFailed(f"sync failed: {said}", remedy="")) == (
        "Error: sync failed: fatal: could not read; hint: try"
    )
