"""One look at a pane, and its rows with their colours. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_CONTROL = re.compile(r"\x1b[^m]*|[\x00-\x1f\x7f]")


class Style(NamedTuple):
    """How a run of characters is drawn. Colours are the parameters of SGR, "" is the terminal's own."""

    fg: str = ""
    bg: str = ""
    bold: bool = False
    dim: bool = False
    inverse: bool = False


PLAIN: Final = Style()


class Run(NamedTuple):
    """Characters of a row in one style, and the column of the first (a wide character counts once)."""

    column: int
    text: str
    style: Style


@dataclass(frozen=True)
class Row:
    """A row of the screen, left to right."""

    runs: tuple[Run, ...]

    @cached_property
    def text(self) -> str:
        """Its characters, without blanks at the end."""
        return "".join(run.text for run in self.runs).rstrip(" ")

    def style_at(self, column: int) -> Style:
        """The style of the character there; beyond the last one, the terminal's own."""
        for run in self.runs:
            if run.column <= column < run.column + len(run.text):
                return run.style
        return PLAIN

    def runs_from(self, column: int) -> tuple[Run, ...]:
        """What is drawn from a column on."""
        found: list[Run] = []
        for run in self.runs:
            skipped = max(0, column - run.column)
            if skipped < len(run.text):
                found.append(Run(run.column + skipped, run.text[skipped:], run.style))
        return tuple(found)


@dataclass(frozen=True)
class Screen:
    """What a pane shows at one moment, as `tmux capture-pane -e -p` and its formats tell.

    `lines` has a line for each row, blank ones too, with SGR sequences whose effect goes on into the next line; `size`
    and `cursor` are (columns, rows) and (column, row) from 0. In copy mode `lines` is the live screen below, which is
    not what a person sees there.
    """

    lines: tuple[str, ...]
    size: tuple[int, int]
    title: str = ""
    cursor: tuple[int, int] = (0, 0)
    cursor_visible: bool = True
    alternate_on: bool = False
    pane_in_mode: bool = False
    pane_current_command: str = ""

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The lines, read."""
        return _rows(self.lines)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The characters of each row, without blanks at the end."""
        return tuple(row.text for row in self.rows)

    @property
    def is_whole(self) -> bool:
        """Whether it has as many rows as the pane, and the cursor and nothing else lies beyond its last column."""
        width, height = self.size
        column, row = self.cursor
        return (
            len(self.lines) == height
            and 0 <= row < height
            and 0 <= column <= width
            and all(len(text) <= width for text in self.texts)
        )


def screen_of(row: Mapping[str, Any]) -> Screen:
    """A screen from a row of recorded ones (JSON); fields that it does not know are left out."""
    known = {name: row[name] for name in Screen.__dataclass_fields__ if name in row}
    for name in ("lines", "size", "cursor"):
        if name in known:
            known[name] = tuple(known[name])
    return Screen(**known)


def _rows(lines: tuple[str, ...]) -> tuple[Row, ...]:
    found: list[Row] = []
    style = PLAIN
    for line in lines:
        runs: list[Run] = []
        column = 0
        at = 0
        for match in _SGR.finditer(line):
            column = _append(runs, column, line[at : match.start()], style)
            style = _styled(style, match[1])
            at = match.end()
        _append(runs, column, line[at:], style)
        found.append(Row(tuple(runs)))
    return tuple(found)


def _append(runs: list[Run], column: int, text: str, style: Style) -> int:
    text = _CONTROL.sub("", text)
    if text:
        runs.append(Run(column, text, style))
    return column + len(text)


def _styled(style: Style, parameters: str) -> Style:
    """The style after one SGR sequence."""
    words = parameters.replace(":", ";").split(";")
    while words:
        word = words.pop(0).lstrip("0")
        if not word:
            style = PLAIN
        elif word in ("38", "48"):
            count = {"5": 2, "2": 4}.get(words[0] if words else "", 0)
            colour = ";".join(words[:count])
            del words[:count]
            style = style._replace(fg=colour) if word == "38" else style._replace(bg=colour)
        else:
            style = _after(style, int(word))
    return style


def _after(style: Style, code: int) -> Style:
    if 30 <= code <= 39 or 90 <= code <= 97:
        return style._replace(fg="" if code == 39 else str(code))
    if 40 <= code <= 49 or 100 <= code <= 107:
        return style._replace(bg="" if code == 49 else str(code))
    match code:
        case 1:
            return style._replace(bold=True)
        case 2:
            return style._replace(dim=True)
        case 22:
            return style._replace(bold=False, dim=False)
        case 7:
            return style._replace(inverse=True)
        case 27:
            return style._replace(inverse=False)
        case _:
            return style


def is_grey(colour: str) -> bool:
    """Whether a colour is a grey, of the palette or of 24 bits; the terminal's own is none."""
    kind, _, rest = colour.partition(";")
    if not rest:
        return colour in ("90", "37")
    numbers = [int(number) for number in rest.split(";") if number.isdigit()]
    if kind == "5" and numbers:
        return numbers[0] in (7, 8, 59, 102, 145, 188) or 232 <= numbers[0] <= 255
    return kind == "2" and len(numbers) == 3 and max(numbers) - min(numbers) <= 24
