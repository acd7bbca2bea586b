"""Which archives stay."""

from __future__ import annotations

import pytest

from thrum.admin._retention import archive_name, archive_time, to_remove
from thrum.model import clock
from thrum.model.methods.admin import Retention

DAY_MS = 86_400_000
NOON_MS = clock.parse_ms("2026-03-31T12:00:00.000Z")


def days(count: int, each: int = 1) -> list[str]:
    """Archives of the last days, `each` a day, the newest first."""
    return [archive_name(NOON_MS - day * DAY_MS - n * 3_600_000) for day in range(count) for n in range(each)]


def kept(names: list[str], daily: int, weekly: int, monthly: int) -> list[str]:
    gone = set(to_remove(names, Retention(daily=daily, weekly=weekly, monthly=monthly)))
    return [name.removesuffix(".zip") for name in names if name not in gone]


def test_an_archive_is_named_by_its_time_and_a_second_one_of_it_by_its_number() -> None:
    assert archive_name(NOON_MS) == "20260331T120000Z.zip"
    assert archive_name(NOON_MS, 2) == "20260331T120000Z-2.zip"
    assert archive_name(NOON_MS, before_restore=True) == "pre-restore-20260331T120000Z.zip"
    assert all(archive_time(archive_name(NOON_MS, number)) is not None for number in (1, 2, 12))


def test_the_last_archive_of_each_of_the_last_days_is_kept() -> None:
    assert kept(days(8, each=2), 3, 0, 0) == ["20260331T120000Z", "20260330T120000Z", "20260329T120000Z"]


def test_days_without_an_archive_do_not_count() -> None:
    assert kept(days(1) + days(30)[20:22], 2, 0, 0) == ["20260331T120000Z", "20260311T120000Z"]


def test_the_last_archive_of_each_of_the_last_weeks_and_months_is_kept() -> None:
    assert kept(days(60), 0, 2, 0) == ["20260331T120000Z", "20260329T120000Z"]
    assert kept(days(60), 0, 0, -1) == ["20260331T120000Z", "20260228T120000Z", "20260131T120000Z"]
    assert kept(days(60), 0, 0, 2) == ["20260331T120000Z", "20260228T120000Z"]


def test_all_and_none() -> None:
    assert len(kept(days(9), -1, 0, 0)) == 9
    assert kept(days(9), 0, 0, 0) == []


@pytest.mark.parametrize("name", ["pre-restore-20200101T000000Z.zip", "notes.zip", "20269901T000000Z.zip", "x"])
def test_what_was_made_before_a_restore_and_what_is_no_archive_stays(name: str) -> None:
    assert to_remove([name], Retention(daily=0, weekly=0, monthly=0)) == []


def test_of_two_archives_of_one_second_the_second_one_is_the_later() -> None:
    names = [archive_name(NOON_MS, number) for number in (1, 2, 10)]
    assert kept(names, 1, 0, 0) == ["20260331T120000Z-10"]
