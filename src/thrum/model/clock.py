"""The wall clock, handed in; and the one text form of time. Waiting is left to trio.

Times on disk and on the wire are RFC 3339 UTC with milliseconds and `Z`, 24 characters: text order is time order
(events.md §3). Inside the program a time is an int: milliseconds since 1970.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol

TIME_CHARS = 24

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NORMAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where the time comes from. Tests hand in one that they move."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


_last_second = (-1, "")


def format_ms(ms: int) -> str:
    """`2026-02-03T10:00:00.000Z` for milliseconds since 1970 (years 1 to 9999)."""
    global _last_second
    seconds, millis = divmod(ms, 1000)
    known = _last_second
    if known[0] != seconds:
        # The calendar once a second instead of once a fact.
        known = _last_second = (seconds, (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19])
    return f"{known[1]}.{millis:03d}Z"


def parse_ms(text: str) -> int:
    """Milliseconds since 1970 of any RFC 3339 text; finer digits are cut off. ValueError if it is none."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    leap = second == 60
    if leap:
        second = 59
    zone: timezone = UTC
    if match[8] not in "Zz":
        sign = -1 if match[8][0] == "-" else 1
        hours, minutes = int(match[8][1:3]), int(match[8][4:6])
        if hours > 23 or minutes > 59:
            raise ValueError(f"not an RFC 3339 time: {text!r}")
        zone = timezone(sign * timedelta(hours=hours, minutes=minutes))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        delta = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not an RFC 3339 time: {text!r}") from error
    millis = int((match[7] or "").ljust(3, "0")[:3])
    return (delta.days * 86_400 + delta.seconds + leap) * 1000 + millis


def normalise(text: str) -> str:
    """The 24-character form of any RFC 3339 text: what two times are compared by. ValueError if it is none."""
    if len(text) == TIME_CHARS and _NORMAL.fullmatch(text):
        return text
    try:
        return format_ms(parse_ms(text))
    except OverflowError as error:  # an offset may lead out of the years 1 to 9999
        raise ValueError(f"not an RFC 3339 time: {text!r}") from error


def boot_id() -> str:
    """A text that changes when the machine boots; `""` where the kernel tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
