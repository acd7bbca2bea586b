from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrum.cli import text, values
from thrum.model import clock
from thrum.model.errors import BadDuration, BadRef, BadScope, BadTime
from thrum.model.events import Pair

NOW = clock.parse_ms("2026-02-03T12:00:00Z")


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1d12h", 129_600_000),
        ("250ms", 250),
        ("1.5h", 5_400_000),
        ("90", 90_000),
        ("0", 0),
        ("0.5", 500),
    ],
)
def test_durations_are_read_as_people_write_them(written: str, ms: int) -> None:
    assert values.parse_duration(written, "--timeout") == ms


@pytest.mark.parametrize("written", ["5 minutes", "", "-5s", "+5s", "5x", "s", "1h 30m", "1e3", "٣s", "9" * 40])
def test_what_is_no_duration_is_refused_by_the_name_of_its_flag(written: str) -> None:
    with pytest.raises(BadDuration, match="for --timeout"):
        values.parse_duration(written, "--timeout")


def test_points_in_time_are_ages_dates_and_rfc_3339() -> None:
    def parse(written: str) -> str:
        return clock.format_ms(values.parse_time(written, "--since", NOW))

    assert parse("30s") == "2026-02-03T11:59:30.000Z"
    assert parse("2026-02-01") == "2026-02-01T00:00:00.000Z"
    assert parse("2026-02-01T10:00:00+02:00") == "2026-02-01T08:00:00.000Z"
    with pytest.raises(BadTime, match='bad time "yesterday" for --since'):
        parse("yesterday")
    with pytest.raises(BadTime):
        parse("2026-02-30")


def test_after_takes_now_the_past_and_the_future() -> None:
    assert values.parse_after("now", NOW) == "now"
    assert values.parse_after("-30s", NOW) == "2026-02-03T11:59:30.000Z"
    assert values.parse_after("+60s", NOW) == "2026-02-03T12:01:00.000Z"
    assert values.parse_after("2026-02-01", NOW) == "2026-02-01T00:00:00.000Z"
    with pytest.raises(BadTime):
        values.parse_after("-soon", NOW)


def test_pairs_split_at_the_first_colon() -> None:
    assert values.parse_pair("file:a:b", "--scope") == Pair("file", "a:b")
    for bad in ("auth", ":x", "x:", "Ab:c", "a b:c"):
        with pytest.raises(BadScope):
            values.parse_pair(bad, "--scope")
    with pytest.raises(BadRef):
        values.parse_pair("nothing", "--ref")


@pytest.mark.parametrize("kind", ["mention", "reply_to"])
def test_refs_of_thrums_own_are_refused_by_hand(kind: str) -> None:
    with pytest.raises(BadRef, match="is set by thrum"):
        values.parse_pair(f"{kind}:x", "--ref")
    assert values.parse_pair(f"{kind}:x", "--scope") == Pair(kind, "x")


def test_agents_are_named_with_or_without_at() -> None:
    assert values.parse_agent("@furiosa") == "furiosa"
    assert values.parse_agent("coordinator_1B9K33T6RK") == "coordinator_1B9K33T6RK"
    assert values.parse_agent("agent:tester:9f2k3m1q8z") == "tester_9F2K3M1Q8Z"
    assert values.parse_agent("team_backend123") == "team_backend123"


def test_ages_and_spans_have_the_words_of_the_specification() -> None:
    def age(ms: int) -> str:
        return values.age(clock.format_ms(NOW - ms), NOW)

    assert [age(ms) for ms in (-5_000, 0, 59_999, 60_000, 3_600_000, 86_400_000 * 3)] == [
        "just now",
        "just now",
        "just now",
        "1m ago",
        "1h ago",
        "3d ago",
    ]
    assert [values.span(ms) for ms in (45_000, 2_700_000, 8_100_000, 273_600_000, 3_600_000, 86_400_000)] == [
        "45s",
        "45m",
        "2h15m",
        "3d4h",
        "1h",
        "1d",
    ]
    assert values.absolute("2026-02-03T10:00:00.123Z") == "2026-02-03T10:00:00Z"


def test_a_variable_is_true_unless_it_is_empty_zero_or_false() -> None:
    assert [values.true(value) for value in (None, "", "0", "false", "False", "1", "yes")] == [False] * 5 + [True] * 2


def test_text_that_acts_on_a_terminal_is_shown_instead() -> None:
    assert text.clean("a\x1b[2Jb\r\x07\x9b\x7f") == r"a\x1b[2Jb\x0d\x07\x9b\x7f"
    assert text.clean("tab\tand\nline") == "tab\tand\nline"
    assert text.clean("\u202eevil\u2066\u2028\ufeff\udcff") == r"\u202eevil\u2066\u2028\ufeff\udcff"
    assert text.line("a\nb\tc") == r"a\x0ab\x09c"
    assert text.clean("Grüße, 世界 🎉") == "Grüße, 世界 🎉"


@given(st.text())
def test_no_text_reaches_a_terminal_as_a_command(foreign: str) -> None:
    cleaned = text.clean(foreign)
    assert not any((ord(char) < 32 and char not in "\n\t") or 0x7F <= ord(char) < 0xA0 for char in cleaned)
    assert "\n" not in text.line(foreign)
    cleaned.encode()


@given(st.text(), st.integers(1, 40))
def test_shortened_text_fits_its_cells(foreign: str, width: int) -> None:
    assert text.columns(text.shorten(foreign, width)) <= width


def test_shortening_counts_wide_letters_twice_and_marks_the_cut() -> None:
    assert text.shorten("abcdef", 4) == "abc…"
    assert text.shorten("世界世界", 5) == "世界…"
    assert text.shorten("abcdef", 0) == "abcdef"


def test_a_bad_after_says_what_after_takes() -> None:
    for written in ("yesterday", "-soon"):
        with pytest.raises(BadTime) as caught:
            values.parse_after(written, NOW)
        assert caught.value.message == f'bad time "{written}" for --after'
        assert caught.value.remedy == "write now, -30s, +60s, 2026-02-03 or RFC 3339"
