"""Codex (recorded: 0.171.0). Pure.

It takes the alternate screen. The title tells of work (a spinner before it) and of questions (`[ ! ]`); its own is the
directory's name, after the task's. A real prompt has a row with the model and the directory below; the one that is
drawn first, before questions of the start, has not. A placeholder is dim. The cursor is real, and hidden in dialogs.
"""

from __future__ import annotations

import re

from thrum.terminal._reading import BRAILLE, UNKNOWN, Reading, draft_of, filled, has_begun, row_matches
from thrum.terminal.screen import Screen

_SIGN = re.compile(r"[›!](?: |$)")
_ASKS = re.compile(r"\[ [!.] \]")
_TRUST = re.compile(r"^\s*Trust this folder\?|^\s*Folder access$")
_COMMAND_CENTRE = re.compile(r"\besc back\b.*\bmove\b.*\benter open\b")
_FOOTER = re.compile(r"^  \S.* · (?:.* · )*(?P<path>[~/]\S*)")
_WORKING_ROW = re.compile(r"^[•◦·] .*\besc to interrupt\b")
_FOOTER_ROWS = 4


def read(screen: Screen) -> Reading:
    """What a pane says in which Codex should be."""
    if not screen.alternate_on:
        return Reading("starting") if has_begun(screen, "node", "codex") else UNKNOWN
    if BRAILLE.match(screen.title):
        return Reading("working", _draft(screen))
    if _ASKS.match(screen.title):
        return Reading("dialog")
    if not screen.cursor_visible:
        return _hidden(screen)
    return _prompt(screen)


def _hidden(screen: Screen) -> Reading:
    if row_matches(screen, _TRUST):
        return Reading("trust_dialog")
    if row_matches(screen, _COMMAND_CENTRE):
        return UNKNOWN
    return Reading("dialog") if filled(screen) > 2 else Reading("starting")


def _prompt(screen: Screen) -> Reading:
    sign = _sign(screen)
    if sign < 0:
        return UNKNOWN
    footer = _footer(screen, sign)
    if footer < 0:
        return Reading("starting") if screen.cursor == (2, sign) and _is_placeholder(screen, sign) else UNKNOWN
    if not sign <= screen.cursor[1] < footer:
        return UNKNOWN
    draft = _draft(screen)
    if draft or screen.texts[sign].startswith("!") or screen.cursor != (2, sign):
        return Reading("idle_draft", draft)
    if not _is_placeholder(screen, sign) or row_matches(screen, _WORKING_ROW, sign - 6, sign):
        return UNKNOWN
    return Reading("idle_empty") if _is_own_title(screen.title, screen.texts[footer]) else UNKNOWN


def _sign(screen: Screen) -> int:
    """The row of the live prompt: that at or above the cursor whose sign is bold; those of the history are dim."""
    for row in range(screen.cursor[1], -1, -1):
        style = screen.rows[row].style_at(0)
        if _SIGN.match(screen.texts[row]):
            return row if style.bold and not style.dim and not style.inverse else -1
    return -1


def _footer(screen: Screen, sign: int) -> int:
    """The row with the model and the directory, below the prompt and a blank row; -1 if there is none."""
    for row in range(max(sign + 2, len(screen.texts) - _FOOTER_ROWS), len(screen.texts)):
        if _FOOTER.match(screen.texts[row]) and not screen.texts[row - 1]:
            return row
    return -1


def _is_placeholder(screen: Screen, sign: int) -> bool:
    """Whether what stands in the prompt is dim, all of it, and is there."""
    runs = [run for run in screen.rows[sign].runs_from(2) if run.text.strip()]
    return bool(runs) and all(run.style.dim for run in runs)


def _draft(screen: Screen) -> str:
    """What a person, or thrum, wrote into the prompt."""
    sign = _sign(screen)
    footer = _footer(screen, sign) if sign >= 0 else -1
    if footer < 0 or _is_placeholder(screen, sign):
        return ""
    return draft_of(screen.rows[sign : footer - 1], 2)


def _is_own_title(title: str, footer: str) -> bool:
    """Whether it is Codex's title for a thread that waits: without it, work can't be told."""
    found = _FOOTER.match(footer)
    name = found["path"].rstrip("/").rpartition("/")[2] if found else ""
    return bool(name) and (title.strip() == name or title.strip().endswith(f" | {name}"))
