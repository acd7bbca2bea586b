"""Which archives are kept (cli.md 3.15). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from thrum.model.methods.admin import Retention

_NAME: Final = re.compile(r"(?P<before>pre-restore-)?(?P<time>\d{8}T\d{6}Z)(?:-(?P<number>\d+))?\.zip", re.ASCII)
_FORM: Final = "%Y%m%dT%H%M%SZ"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def archive_name(ms: int, number: int = 1, *, before_restore: bool = False) -> str:
    """`20260203T100000Z.zip` for milliseconds since 1970; the second one of that second has `-2`."""
    time = (_EPOCH + timedelta(milliseconds=ms)).strftime(_FORM)
    return f"{'pre-restore-' if before_restore else ''}{time}{f'-{number}' if number > 1 else ''}.zip"


def archive_time(name: str) -> datetime | None:
    """When an archive's backup was made, by its name; None if it has no name of an archive."""
    match = _NAME.fullmatch(name)
    try:
        return datetime.strptime(match["time"], _FORM).replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def to_remove(names: Iterable[str], retention: Retention) -> list[str]:
    """The archives that may go: neither the last one of one of the last days, weeks or months that have any, nor made
    before a restore. A file that is not named like an archive is never removed.
    """
    regular = [name for name in names if archive_time(name) and not name.startswith("pre-restore-")]
    newest_first = sorted(regular, key=_age, reverse=True)
    kept: set[str] = set()
    periods: tuple[tuple[int, Callable[[datetime], object]], ...] = (
        (retention.daily, lambda time: time.date()),
        (retention.weekly, lambda time: time.isocalendar()[:2]),
        (retention.monthly, lambda time: (time.year, time.month)),
    )
    for count, period_of in periods:
        last: dict[object, str] = {}
        for name in newest_first:
            time = archive_time(name)
            assert time is not None
            last.setdefault(period_of(time), name)
        kept.update(list(last.values())[: None if count < 0 else count])
    return [name for name in newest_first if name not in kept]


def _age(name: str) -> tuple[str, int]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return match["time"], int(match["number"] or 1)
