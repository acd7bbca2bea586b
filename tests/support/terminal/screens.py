"""The recorded screens of real programs (`tests/data/screens`), read."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from tests.support.places import DATA
from thrum.terminal.screen import Screen, screen_of

FOLDER = DATA / "screens"


class Recorded(NamedTuple):
    """A screen, with what a person said of it."""

    source: str
    id: str
    runtime: str
    state: str
    size: tuple[int, int]
    screen: Screen
    row: dict[str, Any]


@cache
def recorded(frames: bool = False) -> tuple[Recorded, ...]:
    """All of them: screens that stood still, or the frames of transitions."""
    return tuple(_rows(frames))


def one(runtime: str, state: str, size: tuple[int, int], number: int = 0) -> Recorded:
    """The first of such screens, or the one `number` places after it."""
    found = [each for each in recorded() if (each.runtime, each.state, each.size) == (runtime, state, size)]
    return found[number]


def _rows(frames: bool) -> Iterator[Recorded]:
    for path in sorted(FOLDER.glob("*.jsonl.xz")):
        if (".frames." in path.name) == frames:
            for line in lzma.decompress(path.read_bytes()).splitlines():
                row = json.loads(line)
                source = path.name.removesuffix(".jsonl.xz")
                yield Recorded(source, row["id"], row["runtime"], row["state"], tuple(row["size"]), screen_of(row), row)
