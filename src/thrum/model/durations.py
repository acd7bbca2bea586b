"""Durations as people and settings write them: `30s`, `1h30m`, `1.5h`, `250ms`, bare seconds (cli.md §1.6). Pure.

The only parser of them: flags, points in time and settings take the same text for the same time.
"""

from __future__ import annotations

import re
from typing import Final

from thrum.model import limits

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_PART: Final = re.compile(rf"({_NUMBER})(ms|[smhd])")
_WITH_UNITS: Final = re.compile(rf"(?:{_NUMBER}(?:ms|[smhd]))+")
_BARE: Final = re.compile(_NUMBER)


def duration_ms(written: str | float) -> int:
    """Whole milliseconds of a duration; a number, and text without a unit, is seconds.

    Raises ValueError, which says why: `not a duration`, or `too long` beyond `limits.duration_ms_max`.
    """
    if not isinstance(written, str):
        return _bounded(written, 1_000)
    if _BARE.fullmatch(written):
        return _bounded(float(written), 1_000)
    if not has_unit(written):
        raise ValueError("not a duration")
    return _bounded(sum(float(number) * _UNITS_MS[unit] for number, unit in _PART.findall(written)), 1)


def has_unit(text: str) -> bool:
    """Whether a word says how long, and cannot be anything else: `10s`, not `10`."""
    return _WITH_UNITS.fullmatch(text) is not None


def _bounded(number: float, unit_ms: int) -> int:
    """`number` of a unit as milliseconds. Compared before it is multiplied: an int may be too large for a float."""
    if not number >= 0:
        raise ValueError("not a duration")  # NaN, too
    if number > limits.duration_ms_max // unit_ms:
        raise ValueError("too long")
    return round(number * unit_ms)
