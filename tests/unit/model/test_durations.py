"""One parser of durations, for flags and for settings (cli.md §1.6)."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrum.cli import values
from thrum.model import limits, settings
from thrum.model.durations import duration_ms, has_unit
from thrum.model.errors import BadDuration

_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("250ms", 250),
        ("15s", 15_000),
        ("0s", 0),
        ("0", 0),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("2d", 172_800_000),
        ("90", 90_000),
        ("0.5", 500),
        ("100000d", limits.duration_ms_max),
        (90, 90_000),
        (0.5, 500),
    ],
)
def test_durations_are_whole_milliseconds(written: str | float, ms: int) -> None:
    assert duration_ms(written) == ms


@pytest.mark.parametrize("written", ["٣s", "1_000s", "0x10", "inf", "nan", "30S", -1, -0.5, math.nan, -math.inf])
def test_no_other_notation_of_numbers_is_taken(written: str | float) -> None:
    with pytest.raises(ValueError, match=r"^not a duration$"):
        duration_ms(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "30s ",
        " 30s",
        "1h 30m",
        "30 s",
        "30s\n",
        "soon",
        "s",
        "5x",
        "1e3",
        "+5s",
        "-1s",
        "-1",
        ".5s",
        "5.s",
        "３０s",
    ],
)
def test_what_is_no_duration_is_called_that(written: str | float) -> None:
    with pytest.raises(ValueError, match=r"^not a duration$"):
        duration_ms(written)


@pytest.mark.parametrize("written", ["9" * 400 + "d", "9" * 400, "100001d", "1" + "0" * 30 + "ms", 10**400, math.inf])
def test_a_duration_beyond_the_bound_is_too_long_whatever_its_number_of_digits(written: str | float) -> None:
    with pytest.raises(ValueError, match=r"^too long$"):
        duration_ms(written)


@given(st.lists(st.tuples(st.decimals(0, 999, places=2), st.sampled_from(sorted(_MS))), min_size=1, max_size=4))
def test_parts_add_up(parts: list[tuple[Fraction, str]]) -> None:
    written = "".join(f"{number}{unit}" for number, unit in parts)
    exact = sum(Fraction(number) * _MS[unit] for number, unit in parts)
    assert abs(duration_ms(written) - exact) <= 1
    assert has_unit(written)


@given(st.one_of(st.text(max_size=8), st.text("0123456789.smhd ３", max_size=8)))
def test_a_flag_and_a_setting_take_the_same_durations(written: str) -> None:
    try:
        ms = values.parse_duration(written, "--timeout")
    except BadDuration:
        assert not settings.SYNC_DEBOUNCE.rule.fits(written)
    else:
        assert settings.SYNC_DEBOUNCE.rule.read(written) == ms / 1000


def test_only_a_word_with_units_says_how_long_by_itself() -> None:
    assert [has_unit(word) for word in ("10s", "1h30m", "10", "s", "10sx", "１0s")] == [True, True] + [False] * 4
