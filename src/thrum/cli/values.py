"""Values as people write them: durations, points in time, ages, pairs, names. Pure. Source: cli.md §1.6."""

from __future__ import annotations

import re

from thrum.cli.text import line
from thrum.model import clock
from thrum.model.durations import duration_ms
from thrum.model.errors import BadDuration, BadRef, BadScope, BadTime
from thrum.model.events import Pair
from thrum.model.ids import parse_agent_id

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_PAIR_TYPE = re.compile(r"[a-z0-9_-]+", re.ASCII)


def parse_duration(text: str, flag: str) -> int:
    """Milliseconds of `30s`, `1h30m`, `1.5h`, `250ms`, `90` (seconds). Raises BadDuration, naming the flag."""
    try:
        return duration_ms(text)
    except ValueError as error:
        raise BadDuration(f'bad duration "{text}" for {flag}: {error}') from None


def parse_time(text: str, flag: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a point in time: a duration is that long ago. Raises BadTime."""
    try:
        return clock.parse_ms(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except ValueError:
        pass
    try:
        return max(0, now_ms - parse_duration(text, flag))
    except BadDuration:
        raise BadTime(f'bad time "{text}" for {flag}') from None


def parse_after(text: str, now_ms: int) -> str:
    """What `message.wait` takes as `since`, of `--after`: `now`, or a time; `-30s` and `+60s` count from now."""
    if text == "now":
        return "now"
    try:
        if text[:1] in ("-", "+"):
            span = parse_duration(text[1:], "--after")
            return clock.format_ms(max(0, now_ms + (span if text[0] == "+" else -span)))
        return clock.format_ms(parse_time(text, "--after", now_ms))
    except (BadDuration, BadTime):
        remedy = "write now, -30s, +60s, 2026-02-03 or RFC 3339"
        raise BadTime(f'bad time "{text}" for --after', remedy=remedy) from None


def parse_pair(text: str, flag: str) -> Pair:
    """`type:value`, split at the first colon. Raises BadScope, or BadRef when the flag is `--ref`."""
    kind, colon, value = text.partition(":")
    error = BadRef if flag == "--ref" else BadScope
    word = "ref" if flag == "--ref" else "scope"
    if not colon or not value or not _PAIR_TYPE.fullmatch(kind):
        raise error(f'bad {word} "{text}": expected type:value')
    if flag == "--ref" and kind in ("mention", "reply_to"):
        raise BadRef(f'ref type "{kind}" is set by thrum', remedy="thrum reply answers, --to addresses")
    return Pair(kind, value)


def parse_agent(text: str) -> str:
    """The agent id in what a user typed: with or without `@`, hash in either case, the old `agent:role:HASH`."""
    bare = text.removeprefix("@")
    parsed = parse_agent_id(bare)
    # In lower case it may be a name that only looks like an unnamed id, and names are far more common.
    return bare if parsed.kind == "unnamed" and bare.islower() else parsed.canonical


# -- times for people


def span(ms: int) -> str:
    """`45s`, `45m`, `2h15m`, `3d4h`: two units at most, cut off."""
    seconds = max(0, ms) // SECOND_MS
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{minutes}m" if minutes else f"{seconds}s"


def age(time: str, now_ms: int) -> str:
    """`just now`, `5m ago`, `2h ago`, `3d ago`; a time ahead of this clock is `just now`."""
    try:
        ms = now_ms - clock.parse_ms(time)
    except ValueError:
        return line(time)
    if ms < MINUTE_MS:
        return "just now"
    if ms < HOUR_MS:
        return f"{ms // MINUTE_MS}m ago"
    return f"{ms // HOUR_MS}h ago" if ms < DAY_MS else f"{ms // DAY_MS}d ago"


def absolute(time: str) -> str:
    """`2026-02-03T10:00:00Z`: without the milliseconds."""
    return line(time[:19] + "Z" if len(time) == clock.TIME_CHARS else time)


def since(time: str, now_ms: int) -> str:
    """How long ago as a span: of a session that began then."""
    try:
        return span(now_ms - clock.parse_ms(time))
    except ValueError:
        return "?"


def true(value: str | None) -> bool:
    """What an environment variable says: true is any value but empty, `0` and `false` (cli.md §1.10)."""
    return (value or "").strip().lower() not in ("", "0", "false")
