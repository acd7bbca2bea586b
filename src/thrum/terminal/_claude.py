"""Claude Code (recorded: 2.1.197 and 2.1.332). Pure.

The live prompt is a box: a rule, a row `❯` + U+00A0, rows of the draft, a rule. Rows of the history and choices of a
menu have a plain blank there. The sign is grey while the model works, also where every word that says so is gone, and
of the terminal's own colour when it does not. The cursor is hidden, and in place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from thrum.terminal._reading import UNKNOWN, Reading, draft_of, filled, has_begun, last_row_matching, row_matches
from thrum.terminal.screen import Screen, is_grey

_PROMPT = re.compile(r"[❯!]\xa0")
_RULE = re.compile(r"─{10,}")
_TRUST = re.compile(r"(?i)trust this folder|^ ?Accessing workspace|Quick safety check")
_SEARCH = re.compile(r"^\s*search prompts:")
_INTERRUPT = re.compile(r"\besc to interrupt\b")
_SPINNER = re.compile(r"^[·✢✳✶✻✽✺*∗] \S.*…")
_WORKING_TITLE = re.compile(r"[⠁-⣿] ")
_SPINNER_ROWS = 5
_HEAD = re.compile(r"(?P<before>.*)Claude Code v\d")
_OWN_TITLE = "✳"


@dataclass(frozen=True, slots=True)
class _Box:
    """Rows of the prompt's box: of its upper rule, its sign, its lower rule."""

    top: int
    sign: int
    bottom: int


def read(screen: Screen) -> Reading:
    """What a pane says in which Claude Code should be."""
    box = _box(screen)
    return _in_box(screen, box) if box else _without_box(screen)


def _box(screen: Screen) -> _Box | None:
    sign = last_row_matching(screen, _PROMPT)
    if sign < 1 or not _RULE.match(screen.texts[sign - 1]):
        return None
    for row in range(sign + 1, len(screen.texts)):
        if _RULE.match(screen.texts[row]):
            return _Box(sign - 1, sign, row)
    return None


def _without_box(screen: Screen) -> Reading:
    if has_begun(screen, "claude", "node") and not screen.title.startswith(_OWN_TITLE):
        return Reading("starting")
    if screen.cursor_visible:
        return UNKNOWN
    if row_matches(screen, _TRUST):
        return Reading("trust_dialog")
    return Reading("dialog") if filled(screen) > 2 else UNKNOWN


def _in_box(screen: Screen, box: _Box) -> Reading:
    below = box.bottom + 1
    if screen.cursor_visible or not box.sign <= screen.cursor[1] < box.bottom:
        return Reading("dialog") if row_matches(screen, _SEARCH, below) else UNKNOWN
    draft = draft_of(screen.rows[box.sign : box.bottom], 2)
    if screen.texts[box.sign][0] == "!":
        return Reading("idle_draft", draft)
    colour = screen.rows[box.sign].style_at(0).fg
    if is_grey(colour) or row_matches(screen, _INTERRUPT, below):
        return Reading("working", draft)
    if colour or not screen.rows[box.top].style_at(0).fg:
        # Another colour, or none on the whole screen: the sign says nothing then.
        return UNKNOWN
    if screen.cursor != (2, box.sign) or not _is_blank(screen, box):
        return Reading("idle_draft", draft)
    return _idle(screen, box)


def _is_blank(screen: Screen, box: _Box) -> bool:
    """Whether nothing stands in the box but what Claude suggests: that is dim."""
    return box.bottom == box.sign + 1 and all(
        run.style.dim or not run.text.strip(" \xa0") for run in screen.rows[box.sign].runs_from(2)
    )


def _idle(screen: Screen, box: _Box) -> Reading:
    if row_matches(screen, _SPINNER, box.top - _SPINNER_ROWS, box.top) or _WORKING_TITLE.match(screen.title):
        return UNKNOWN
    if any(run.style.inverse for row in screen.rows[box.bottom + 1 :] for run in row.runs):
        # A button below is chosen: Enter would be its own.
        return UNKNOWN
    return Reading("starting") if _is_half_drawn(screen, box) else Reading("idle_empty")


def _is_half_drawn(screen: Screen, box: _Box) -> bool:
    """Whether the screen's head has no logo yet, or nothing is above the box: questions of the start come then."""
    heads = [found for text in screen.texts[: box.top] if (found := _HEAD.match(text))]
    return not filled(screen, 0, box.top - 1) or any(not head["before"].strip() for head in heads)
