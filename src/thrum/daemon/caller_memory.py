"""What is remembered of callers: their place, until something relevant changes, and what they were told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from thrum.model import trust
from thrum.model.files import inode_of
from thrum.model.paths import Layout, find_layout

_KNOWN_MAX = 4_096
_BELIEVED_SECONDS = 1.0
_TOLD_MAX: Final = 1_000


class KnownRepositories:
    """The places of the directories that commands come from, believed for a second: agents come from few, and often.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._found: dict[Path, _Known] = {}

    def find(self, start: Path) -> Layout:
        """As `find_layout`; what it raises is not remembered."""
        now = self._now()
        known = self._found.get(start)
        if known is not None and now < known.until and known.seen == [inode_of(path) for path in known.paths]:
            return known.layout
        if len(self._found) >= _KNOWN_MAX:
            self._found.clear()
        layout = find_layout(start)
        owns = dict.fromkeys((f"{layout.root}/.thrum", str(layout.state_dir)))
        paths = tuple(path for own in owns for path in (own, f"{own}/{trust.MARK}", f"{own}/redirect"))
        self._found[start] = _Known(layout, now + _BELIEVED_SECONDS, paths, [inode_of(path) for path in paths])
        return layout


class _Known(NamedTuple):
    layout: Layout
    until: float
    paths: tuple[str, ...]
    """What the judgement depends on."""
    seen: list[tuple[int, int] | None]
    """Its state then: if it changes, the caller is judged again at once."""


class Told:
    """What shells were told already, so that they are not told at every command: in memory, of the last ones."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, str, str], None] = {}

    def is_news(self, pid: int, started: str, what: str) -> bool:
        """Whether that process was not told this; from now on it was."""
        key = pid, started, what
        if key in self._said:
            return False
        self._said[key] = None
        if len(self._said) > _TOLD_MAX:
            del self._said[next(iter(self._said))]
        return True
