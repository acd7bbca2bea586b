"""What panes say, judged by recorded screens of real programs, and by those screens changed in many ways."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from tests.support.terminal.screens import recorded
from thrum.terminal.panes import RUNTIMES, classify, read_pane
from thrum.terminal.screen import Screen, screen_of

SGR = re.compile(r"\x1b\[[0-9;:]*m")

RECALL = {
    "idle_empty": 1.0,
    "idle_draft": 1.0,
    "working": 1.0,
    "dialog": 1.0,
    "trust_dialog": 1.0,
    "starting": 1.0,
    "copy_mode": 1.0,
    "exited_to_shell": 1.0,
    "unknown": 1.0,
}
"""Of the screens that stood still: all of them are told, and a change that loses one has to say so here."""
FRAME_RECALL = 0.99
"""Of the frames of transitions: one of Gemini's shows a spinner beside an empty prompt, and is told as work."""


def test_every_recorded_screen_is_told_and_nothing_else_is_taken_for_an_empty_prompt() -> None:
    told: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    for each in recorded():
        state = classify(each.runtime, each.screen)
        all_of[each.state] += 1
        told[each.state] += state == each.state
        assert state != "idle_empty" or each.state == "idle_empty", (each.source, each.id)
    assert sum(all_of.values()) == 798
    assert {state: told[state] / all_of[state] for state in all_of} == RECALL


def test_the_frames_of_transitions_are_told_too() -> None:
    told = 0
    for each in recorded(frames=True):
        state = classify(each.runtime, each.screen)
        told += state == each.state
        assert state != "idle_empty" or each.state == "idle_empty", (each.source, each.id, each.row["transition"])
    assert told / len(recorded(frames=True)) >= FRAME_RECALL


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_another_program_in_the_pane_is_no_empty_prompt_whatever_it_draws(runtime: str) -> None:
    others = [each for each in recorded() + recorded(frames=True) if each.runtime != runtime]
    taken = [(each.source, each.id) for each in others if classify(runtime, each.screen) == "idle_empty"]
    assert taken == []


def test_a_runtime_without_rules_has_no_empty_prompt() -> None:
    for each in recorded():
        assert classify("cursor", each.screen) in ("unknown", "copy_mode", "exited_to_shell")


def test_a_draft_is_read_without_the_sign_and_the_placeholder() -> None:
    for runtime in sorted(RUNTIMES):
        read = {read_pane(runtime, each.screen).draft for each in recorded() if each.runtime == runtime}
        assert "please look at the parser" in read
        # OpenCode shows a paste of several lines as a number.
        assert runtime == "opencode" or "first line of a note\nsecond line of it\nthird line" in read
        for each in recorded():
            if each.runtime == runtime and each.state == "idle_empty":
                assert read_pane(runtime, each.screen).draft == ""


def _without_colours(screen: Screen, rnd: Random) -> Screen:
    return replace(screen, lines=tuple(SGR.sub("", line) for line in screen.lines))


def _in_another_grey(screen: Screen, rnd: Random) -> Screen:
    grey = rnd.choice(["5;241", "5;245", "5;250", "5;102", "2;120;120;120", "2;153;153;150"])
    greys = re.compile(r"(?<=38;)5;(?:246|248|244|8|238)(?=m)")
    return replace(screen, lines=tuple(greys.sub(grey, line) for line in screen.lines))


def _with_colours_lost(screen: Screen, rnd: Random) -> Screen:
    lines = (SGR.sub(lambda found: found[0] if rnd.random() > 0.3 else "", line) for line in screen.lines)
    return replace(screen, lines=tuple(lines))


def _of_fewer_rows(screen: Screen, rnd: Random) -> Screen:
    """The bottom is cut off, as a footer that a runtime leaves out."""
    lines = screen.lines[: -rnd.randrange(1, 4)]
    column, row = screen.cursor
    return replace(screen, lines=lines, size=(screen.size[0], len(lines)), cursor=(column, min(row, len(lines) - 1)))


def _half_captured(screen: Screen, rnd: Random) -> Screen:
    at = rnd.randrange(len(screen.lines))
    return replace(screen, lines=screen.lines[:at] + screen.lines[at + 1 :])


def _scrolled(screen: Screen, rnd: Random) -> Screen:
    count = rnd.randrange(1, 6)
    column, row = screen.cursor
    lines = ("",) * count + screen.lines[:-count]
    return replace(screen, lines=lines, cursor=(column, min(row + count, len(lines) - 1)))


def _narrow(screen: Screen, rnd: Random) -> Screen:
    width = rnd.choice([40, 50, 55])
    return replace(
        screen,
        lines=tuple(_cut(line, width) for line in screen.lines),
        size=(width, screen.size[1]),
        cursor=(min(screen.cursor[0], width), screen.cursor[1]),
    )


def _cut(line: str, width: int) -> str:
    kept = ""
    for part in re.split(r"(\x1b\[[0-9;:]*m)", line):
        kept += part if part.startswith("\x1b") else part[: max(0, width - len(SGR.sub("", kept)))]
    return kept


def _with_the_cursor_elsewhere(screen: Screen, rnd: Random) -> Screen:
    return replace(screen, cursor=(rnd.choice([0, 2, 3, 5]), screen.cursor[1]))


def _with_the_cursor_shown_or_hidden(screen: Screen, rnd: Random) -> Screen:
    return replace(screen, cursor_visible=not screen.cursor_visible)


def _on_the_other_screen(screen: Screen, rnd: Random) -> Screen:
    return replace(screen, alternate_on=not screen.alternate_on)


def _with_a_strange_title(screen: Screen, rnd: Random) -> Screen:
    return replace(screen, title=rnd.choice(["", "vm", "~/src", "3 tasks"]))


@pytest.mark.parametrize(
    "change",
    [
        _without_colours,
        _in_another_grey,
        _with_colours_lost,
        _of_fewer_rows,
        _half_captured,
        _scrolled,
        _narrow,
        _with_the_cursor_elsewhere,
        _with_the_cursor_shown_or_hidden,
        _on_the_other_screen,
        _with_a_strange_title,
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_a_screen_that_was_changed_is_unknown_rather_than_an_empty_prompt(
    change: Callable[[Screen, Random], Screen],
) -> None:
    rnd = Random(12)
    taken: list[tuple[str, str]] = []
    for each in recorded() + recorded(frames=True):
        for _ in range(2):
            state = classify(each.runtime, change(each.screen, rnd))
            if state == "idle_empty" and each.state != "idle_empty":
                taken.append((each.source, each.id))
    assert taken == []


def test_another_theme_of_greys_changes_nothing() -> None:
    rnd = Random(1)
    for each in recorded():
        if each.state in ("idle_empty", "working"):
            assert classify(each.runtime, _in_another_grey(each.screen, rnd)) == each.state


def test_a_row_of_a_recording_gives_its_screen_and_styles_go_on_over_rows() -> None:
    lines = ["\x1b[1;38;5;246mab\x1b[7mc", "d\x1b[0me"]
    screen = screen_of({"lines": lines, "size": [3, 2], "cursor": [0, 1], "how": ""})
    assert screen.texts == ("abc", "de")
    assert screen.rows[0].style_at(0).bold
    assert screen.rows[1].style_at(0).fg == "5;246" and screen.rows[1].style_at(0).inverse
    assert screen.rows[1].style_at(1) == screen.rows[1].style_at(9)
