"""The places that commands come from, judged once and believed as long as nothing that matters is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from thrum import trust
from thrum.paths import Places, find_places

_KNOWN_MAX = 4_096
_BELIEVED_SECONDS = 1.0


class KnownPlaces:
    """The places of the directories that commands come from, believed for a second: agents come from few, and often.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._found: dict[Path, tuple[Places, float, list[_Seen]]] = {}

    def find(self, start: Path) -> Places:
        """As `find_places`; what it raises is not remembered."""
        now = self._now()
        known = self._found.get(start)
        if known is not None and now < known[1] and known[2] == _judged_by(known[0]):
            return known[0]
        if len(self._found) >= _KNOWN_MAX:
            self._found.clear()
        places = find_places(start)
        self._found[start] = (places, now + _BELIEVED_SECONDS, _judged_by(places))
        return places


_Seen = tuple[int, int, int] | None


def _judged_by(places: Places) -> list[_Seen]:
    """What the judgement of a place depends on, as it stands: changed, it is judged anew at once."""
    found: list[_Seen] = []
    for own in dict.fromkeys((f"{places.root}/.thrum", str(places.state_dir))):
        for path in (own, f"{own}/{trust.MARK}", f"{own}/redirect"):
            try:
                seen = os.lstat(path)
                found.append((seen.st_dev, seen.st_ino, seen.st_ctime_ns if path != own else 0))
            except OSError:
                found.append(None)
    return found
