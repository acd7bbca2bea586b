"""OpenCode (recorded: 1.18.33). Pure.

It takes the alternate screen. The prompt is a box with a bar `┃` at its left, a row that names agent and model, and `╹`
below; the row under that says `esc interrupt` while it works. The cursor is real; in permission dialogs it is hidden,
in pickers it stands outside the box, whose colours are dimmed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from thrum.terminal._reading import UNKNOWN, Reading, filled, has_begun, row_matches
from thrum.terminal.screen import Screen

_WORKING = re.compile(r"\besc (?:again to )?interrupt\b|\bretrying in\b")
_FOOTER = re.compile(r"\bcommands\s*$")
_SHELL_MODE = re.compile(r"\bexit shell mode\b")
_PLACEHOLDER = "Ask anything"
_OWN_TITLES = ("OC | ", "OpenCode")
_BAR, _FOOT = "┃", "╹"


@dataclass(frozen=True, slots=True)
class _Box:
    """The prompt's box: the column of its bar, its first row, the row of the agent's name, the row of its foot."""

    bar: int
    top: int
    agent: int
    foot: int


def read(screen: Screen) -> Reading:
    """What a pane says in which OpenCode should be."""
    if not screen.alternate_on:
        return Reading("starting") if has_begun(screen, "opencode") else UNKNOWN
    if not filled(screen):
        # In mid-session it is blank for a moment when the first turn begins.
        return UNKNOWN if screen.title.startswith(_OWN_TITLES) else Reading("starting")
    box = _box(screen)
    foot = box.foot if box else _lowest_foot(screen)
    if foot >= 0 and row_matches(screen, _WORKING, foot + 1):
        return Reading("working", _draft(screen, box) if box else "")
    if not screen.cursor_visible:
        return Reading("dialog") if filled(screen) > 2 else UNKNOWN
    if not box:
        # A picker lies over the screen, with the cursor in its search.
        return Reading("dialog") if foot >= 0 else UNKNOWN
    return _prompt(screen, box)


def _lowest_foot(screen: Screen) -> int:
    return next((row for row in range(len(screen.texts) - 1, -1, -1) if _FOOT in screen.texts[row]), -1)


def _box(screen: Screen) -> _Box | None:
    """The box that the cursor is in, if it is."""
    column, row = screen.cursor
    bar = screen.texts[row].rfind(_BAR, 0, column)
    if bar < 0 or screen.texts[row][:bar].strip():
        return None
    top, foot = row, row
    while top > 0 and screen.texts[top - 1][bar : bar + 1] == _BAR:
        top -= 1
    while foot < len(screen.texts) and screen.texts[foot][bar : bar + 1] == _BAR:
        foot += 1
    if foot == len(screen.texts) or screen.texts[foot][bar : bar + 1] != _FOOT or foot - 1 <= row:
        return None
    return _Box(bar, top, foot - 1, foot)


def _prompt(screen: Screen, box: _Box) -> Reading:
    draft = _draft(screen, box)
    if row_matches(screen, _SHELL_MODE, box.foot + 1):
        return Reading("idle_draft", draft)
    name, model = _colours(screen, box)
    if not row_matches(screen, _FOOTER, box.foot + 1) or not name or name != screen.rows[box.foot].style_at(box.bar).fg:
        return UNKNOWN
    if draft or screen.cursor[0] != box.bar + 3 or _is_written(screen, box, model):
        return Reading("idle_draft", draft)
    if not model or screen.cursor[1] != _first_row(screen, box):
        return UNKNOWN
    return Reading("idle_empty")


def _colours(screen: Screen, box: _Box) -> tuple[str, str]:
    """Of the agent's name and of the model's, in the row `Build · model provider`: the second is that of a draft."""
    text = screen.texts[box.agent]
    dot = text.find(" · ", box.bar)
    row = screen.rows[box.agent]
    return row.style_at(box.bar + 3).fg, row.style_at(dot + 3).fg if dot > 0 else ""


def _first_row(screen: Screen, box: _Box) -> int:
    """The row of a draft's first line: below the blank one with which the box begins.

    A box that touches the message above it has more rows with a bar; its own background begins with it.
    """
    row = screen.cursor[1]
    background = screen.rows[box.agent].style_at(box.bar + 2).bg
    top = row
    while top > box.top and screen.rows[top - 1].style_at(box.bar + 2).bg == background:
        top -= 1
    return top + 1


def _is_written(screen: Screen, box: _Box, model: str) -> bool:
    """Whether a blank was typed: it has a draft's colour."""
    return any(
        run.style.fg == model
        for row in screen.rows[screen.cursor[1] : box.agent]
        for run in row.runs_from(box.bar + 3)
        if model
    )


def _draft(screen: Screen, box: _Box) -> str:
    """What stands in the prompt, but for the placeholder."""
    first = min(_first_row(screen, box), screen.cursor[1])
    rows = screen.texts[first : box.agent]
    draft = "\n".join(text[box.bar + 3 :].rstrip() for text in rows).strip()
    if not draft.startswith(_PLACEHOLDER):
        return draft
    style = screen.rows[screen.cursor[1]].style_at(box.bar + 3)
    name, model = _colours(screen, box)
    return "" if style.fg not in ("", name, model) else draft
