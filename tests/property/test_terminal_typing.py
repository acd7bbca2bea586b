"""Ten thousand screens, recorded ones and changed ones, through the typing act: typed only where idle and empty."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

import trio

from tests.support.terminal.screens import Recorded, recorded
from thrum.terminal.foreground import Owner
from thrum.terminal.screen import Screen
from thrum.terminal.tmux import Look
from thrum.terminal.typing import Failed, Offered, Refused, Sight, type_line

LINE = "thrum: a message from @nux waits for you: run thrum inbox; wak_01M805AJFYN4SGQ3TWNHN38YTH"
SCREENS = 10_000
SGR = re.compile(r"\x1b\[[0-9;:]*m")
GREYS = re.compile(r"(?<=38;)5;(?:246|248|244|8|238)(?=m)")
OWNERS: tuple[Owner, ...] = ("agent", "agent", "agent", "agent", "child", "shell", "other", "unknown")


@dataclass
class FakePane:
    """A pane that goes through screens, one a look; the last one stays. What is typed is kept, and drawn by `drawn`."""

    screens: list[Screen]
    owner: Owner = "agent"
    pressed_at: int = 0
    """When a person last pressed a key, by a clock that stands at 1000."""
    takes: bool = True
    """Whether nobody touches it: then what is sent on a condition is sent."""
    drawn: Screen | None = None
    keys: list[str] = field(default_factory=list[str])
    held: bool = False

    async def look(self) -> Sight:
        if self.keys and self.drawn is not None:
            screen = self.drawn
        else:
            screen = self.screens.pop(0) if len(self.screens) > 1 else self.screens[0]
        watchers = ((self.pressed_at, 1),)
        return Sight(Look(screen, "@1", 7, "/dev/pts/1", False, False, False, watchers, 1000), self.owner)

    async def paste(self, seen: Look, text: str) -> bool:
        if self.takes:
            self.keys.append(text)
        return self.takes

    async def hold(self) -> None:
        self.held = True

    async def release(self) -> None:
        self.held = False

    async def press(self, seen: Look, key: str, times: int = 1) -> bool:
        if self.takes:
            self.keys.append(key)
        return self.takes

    async def wait(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()


def _changed(rnd: Random, screen: Screen) -> Screen:
    """A screen like one that a runtime, a theme, a narrow pane or a half-drawn moment might show."""
    match rnd.randrange(16):
        case 0:
            return replace(screen, lines=tuple(SGR.sub("", line) for line in screen.lines))
        case 1:
            grey = rnd.choice(["5;241", "5;250", "2;120;120;120"])
            return replace(screen, lines=tuple(GREYS.sub(grey, line) for line in screen.lines))
        case 2:
            count = rnd.randrange(1, 6)
            lines = ("",) * count + screen.lines[:-count]
            row = min(screen.cursor[1] + count, len(lines) - 1)
            return replace(screen, lines=lines, cursor=(screen.cursor[0], row))
        case 3:
            lines = screen.lines[: -rnd.randrange(1, 4)]
            row = min(screen.cursor[1], len(lines) - 1)
            return replace(screen, lines=lines, size=(screen.size[0], len(lines)), cursor=(screen.cursor[0], row))
        case 4:
            return replace(screen, cursor=(rnd.randrange(screen.size[0]), rnd.randrange(screen.size[1])))
        case 5:
            return replace(screen, cursor_visible=not screen.cursor_visible)
        case 6:
            return replace(screen, pane_in_mode=True)
        case 7:
            return replace(screen, title=rnd.choice(["", "vm", "3 tasks"]))
        case _:
            return screen


def _panes(rnd: Random) -> Iterator[tuple[Recorded, FakePane]]:
    rows = recorded() + recorded(frames=True)
    for _ in range(SCREENS):
        row = rnd.choice(rows)
        screen = _changed(rnd, row.screen)
        second = screen if rnd.random() < 0.7 else _changed(rnd, rnd.choice(rows).screen)
        pressed = 999 if rnd.random() < 0.1 else 0
        yield row, FakePane([screen, second], rnd.choice(OWNERS), pressed, takes=rnd.random() < 0.9)


async def test_of_ten_thousand_screens_only_those_that_are_idle_and_empty_are_typed_into() -> None:
    rnd = Random(12)
    typed = 0
    for row, pane in _panes(rnd):
        first, last = pane.screens[0], pane.screens[-1]
        runtime = rnd.choice(["claude", "codex", "gemini", "opencode"]) if row.runtime == "shell" else row.runtime
        result = await type_line(pane, runtime, LINE)
        assert not isinstance(result, Offered), "what is never drawn is never sent"
        assert "Enter" not in pane.keys and not pane.held
        if pane.keys:
            typed += 1
            assert row.state == "idle_empty" and first == last and not first.pane_in_mode, (row.source, row.id)
            assert pane.owner == "agent" and pane.pressed_at == 0
            assert pane.keys == [LINE] and isinstance(result, Failed) and result.left
        else:
            assert isinstance(result, Refused)
    assert typed > 300, "those that are idle and empty are typed into, so that the others mean something"


async def test_enter_is_pressed_under_the_line_alone_and_under_no_other_recorded_screen() -> None:
    """What the pane shows after the paste may be any screen: Enter only where it is the line, whole and alone."""
    empty = next(each for each in recorded() if (each.runtime, each.state) == ("codex", "idle_empty"))
    row = empty.screen.cursor[1]
    drawn = _with_draft(empty.screen, row, LINE)
    pane = FakePane([empty.screen], drawn=drawn)
    assert await type_line(pane, "codex", LINE) == Offered()
    assert pane.keys == [LINE, "Enter"]
    others = [each.screen for each in recorded() if each.runtime == "codex"]
    others += [_with_draft(empty.screen, row, text) for text in (LINE + "x", "x" + LINE, LINE[:-1], LINE + LINE, "x")]
    for screen in others:
        pane = FakePane([empty.screen], drawn=screen)
        result = await type_line(pane, "codex", LINE)
        assert isinstance(result, Failed) and pane.keys == [LINE]


async def test_a_line_under_which_enter_was_not_pressed_is_taken_back_only_where_it_stands_alone() -> None:
    empty = next(each for each in recorded() if (each.runtime, each.state) == ("codex", "idle_empty"))
    drawn = _with_draft(empty.screen, empty.screen.cursor[1], LINE)

    @dataclass
    class Touched(FakePane):
        async def press(self, seen: Look, key: str, times: int = 1) -> bool:
            if key == "Enter":
                return False
            self.keys.append(f"{key} {times}")
            self.drawn = empty.screen
            return True

    pane = Touched([empty.screen], drawn=drawn)
    assert await type_line(pane, "codex", LINE) == Failed("somebody touched the pane", left=False)
    assert pane.keys == [LINE, f"BSpace {len(LINE)}"]


def _with_draft(screen: Screen, row: int, text: str) -> Screen:
    first, rest = text[: screen.size[0] - 4], text[screen.size[0] - 4 :]
    lines = list(screen.lines)
    lines[row] = f"\x1b[0;1m›\x1b[0m {first}"
    if rest:
        lines[row - 1 : row + 1] = [lines[row], f"  {rest}"]
    return replace(screen, lines=tuple(lines), cursor=(2 + len(rest or first), row))
