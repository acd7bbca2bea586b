"""What rules read off a screen, and what several runtimes' rules share. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from thrum.terminal.screen import Row, Screen

PaneState = Literal[
    "idle_empty",
    "idle_draft",
    "working",
    "dialog",
    "trust_dialog",
    "starting",
    "copy_mode",
    "exited_to_shell",
    "unknown",
]

BRAILLE: Final = re.compile(r"[\u2801-\u28ff]")
"""The frames of a spinner; U+2800 is a blank."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a pane, and what stands in the prompt: its rows without the sign and the margin, joined by line
    feeds. Empty where the prompt is empty or not there; a placeholder is not in it."""

    state: PaneState
    draft: str = ""


UNKNOWN: Final = Reading("unknown")


def last_row_matching(screen: Screen, pattern: re.Pattern[str]) -> int:
    """The lowest row whose text begins so; -1 if there is none."""
    return next((at for at in range(len(screen.texts) - 1, -1, -1) if pattern.match(screen.texts[at])), -1)


def row_matches(screen: Screen, pattern: re.Pattern[str], first: int = 0, end: int | None = None) -> bool:
    """Whether the pattern is found in a row from `first` on, before `end`."""
    return any(pattern.search(text) for text in screen.texts[max(0, first) : end])


def filled(screen: Screen, first: int = 0, end: int | None = None) -> int:
    """How many rows from `first` on, before `end`, show anything."""
    return sum(1 for text in screen.texts[max(0, first) : end] if text.strip())


def draft_of(rows: tuple[Row, ...], margin: int) -> str:
    """What rows of a prompt say right of its margin."""
    return "\n".join(row.text[margin:] for row in rows).strip()


def has_begun(screen: Screen, *programs: str) -> bool:
    """Whether one of the programs is in front, and has drawn nothing yet: the command typed at a shell, and the cursor
    at the beginning of the row below."""
    column, row = screen.cursor
    return (
        screen.pane_current_command in programs
        and column == 0
        and row > 0
        and not screen.alternate_on
        and bool(screen.texts[row - 1])
        and not filled(screen, row)
    )
