"""Gemini CLI (recorded: 0.61.0). Pure.

The title tells: `✦` works, `✋` asks, `◇` is ready; but ready it is said to be in dialogs of its own and while it
compresses, too. The table below the prompt (`workspace (/directory)` … and its values) is gone in every dialog. The
placeholder has the colour of the table's head, a draft that of its values. The cursor says nothing.
"""

from __future__ import annotations

import re

from thrum.terminal._reading import BRAILLE, UNKNOWN, Reading, draft_of, filled, has_begun, row_matches
from thrum.terminal.screen import Screen

_SIGN = re.compile(r"^ [>!*] ")
_TABLE = re.compile(r"^ workspace \(/directory\)")
_PLACEHOLDER = "Type your message"
_TRUST = re.compile(r"\bDo you trust the files in this folder\?|\bTrust folder \(")
_COMPRESSING = re.compile(r"\bCompressing chat history")
_COMPRESS = re.compile(r"^ > /compress\b")
_ANSWERS = ("✦", "ℹ", "✕")
_CANCEL = re.compile(r"\(esc to cancel\b")
_RESTARTS = re.compile(r"\bGemini CLI is restarting\b")
_PROGRAMS = ("node", "gemini")
_BOX_ROWS = 24


def read(screen: Screen) -> Reading:
    """What a pane says in which Gemini CLI should be."""
    if screen.title.startswith("✋"):
        return Reading("dialog")
    table = _table(screen)
    sign = _sign(screen, table)
    if screen.title.startswith("✦"):
        return Reading("working", _draft(screen, sign, table))
    if screen.cursor_visible or screen.alternate_on:
        return Reading("starting") if _starts(screen) else UNKNOWN
    if not screen.title.startswith("◇"):
        return UNKNOWN
    if table < 0:
        return _without_prompt(screen)
    return _prompt(screen, sign, table) if sign >= 0 else UNKNOWN


def _starts(screen: Screen) -> bool:
    """Whether it has drawn nothing yet, or begins again after the question of trust."""
    return has_begun(screen, *_PROGRAMS) or (
        screen.pane_current_command in _PROGRAMS and not screen.alternate_on and row_matches(screen, _RESTARTS)
    )


def _without_prompt(screen: Screen) -> Reading:
    if row_matches(screen, _TRUST):
        return Reading("trust_dialog")
    return Reading("dialog") if filled(screen) > 2 else UNKNOWN


def _prompt(screen: Screen, sign: int, table: int) -> Reading:
    for row in range(max(0, sign - _BOX_ROWS), sign):
        text = screen.texts[row]
        if _CANCEL.search(text) or (_COMPRESSING.search(text) and BRAILLE.search(text)):
            return Reading("working", _draft(screen, sign, table))
    if _compresses(screen, sign):
        return UNKNOWN
    if screen.texts[sign][1:2] == "!":
        return Reading("idle_draft", _draft(screen, sign, table))
    muted, strong = screen.rows[table].style_at(1).fg, screen.rows[table + 1].style_at(1).fg
    if not muted or muted == strong:
        # Without colours a placeholder looks like a draft of its words.
        return UNKNOWN
    if _is_placeholder(screen, sign, muted):
        return Reading("idle_empty")
    return Reading("idle_draft", _draft(screen, sign, table))


def _compresses(screen: Screen, sign: int) -> bool:
    """Whether the last thing said above the prompt is the command that compresses: it has no answer yet."""
    for row in range(sign - 1, -1, -1):
        if _SIGN.match(screen.texts[row]):
            return bool(_COMPRESS.match(screen.texts[row]))
        if screen.texts[row].startswith(_ANSWERS):
            return False
    return False


def _table(screen: Screen) -> int:
    """The row of the table's head, with its values below; -1 if there is none."""
    for row in range(len(screen.texts) - 2, 0, -1):
        if _TABLE.match(screen.texts[row]):
            return row if screen.texts[row + 1].strip() else -1
    return -1


def _sign(screen: Screen, table: int) -> int:
    """The row of the prompt's sign: the lowest above the table."""
    return next((row for row in range(table - 1, -1, -1) if _SIGN.match(f"{screen.texts[row]} ")), -1)


def _is_placeholder(screen: Screen, sign: int, muted: str) -> bool:
    runs = [run for run in screen.rows[sign].runs_from(3) if run.text.strip()]
    said = "".join(run.text for run in runs).strip()
    return said.startswith(_PLACEHOLDER) and all(run.style.fg == muted for run in runs)


def _draft(screen: Screen, sign: int, table: int) -> str:
    """What stands in the prompt, but for the placeholder."""
    if sign < 0:
        return ""
    if _is_placeholder(screen, sign, screen.rows[table].style_at(1).fg):
        return ""
    filled_colour = screen.rows[sign].style_at(1).bg
    end = sign + 1
    while end < table and screen.rows[end].style_at(0).bg == filled_colour and screen.texts[end].strip():
        end += 1
    return draft_of(screen.rows[sign:end], 3)
