"""Ids, file stems and name rules, against the shared vectors and for what they leave open."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.vectors import VECTORS
from thrum.model import ids
from thrum.model.errors import InvalidName, InvalidUrl, ThrumError


def about(case: dict[str, Any]) -> str:
    return str(case.get("about") or next(iter(case.values())))


@pytest.mark.spec("ID-01", "ID-02")
@pytest.mark.parametrize("case", VECTORS["repo_id"], ids=about)
def test_every_spelling_of_a_remote_gives_one_repository_id(case: dict[str, Any]) -> None:
    for url in case["urls"]:
        root = case.get("base", "/srv/work/app")
        if "expect_error" in case:
            with pytest.raises(InvalidUrl) as caught:
                ids.repo_id_of_url(url, root)
            assert caught.value.kind == case["expect_error"]
        else:
            assert ids.normalise_url(url, root) == case["normalised"]
            assert ids.repo_id_of_url(url, root) == case["expect"]


@pytest.mark.spec("ID-01")
@pytest.mark.parametrize("case", VECTORS["agent_id"], ids=about)
def test_an_unnamed_agent_has_the_id_of_its_repository_role_and_module(case: dict[str, Any]) -> None:
    agent_id = case["name"] or ids.agent_id_of(case["repo_id"], case["role"], case["module"])
    assert agent_id == case["expect"]


@pytest.mark.spec("ID-01")
@pytest.mark.parametrize("case", VECTORS["parse_agent_id"], ids=about)
def test_an_actor_id_is_parsed_by_its_syntax(case: dict[str, Any]) -> None:
    parsed = ids.parse_agent_id(case["input"])
    assert parsed.kind == case["kind"]
    if parsed.kind == "invalid":
        return
    assert (parsed.canonical, parsed.stem) == (case["canonical"], case["filename"])
    assert (parsed.role, parsed.hash) == (case.get("role", ""), case.get("hash", ""))
    assert (parsed.user, parsed.peer) == (case.get("user", ""), case.get("peer", ""))
    assert ids.mention(case["input"], None) == case["display"]


@pytest.mark.spec("ID-01", "ID-07")
@pytest.mark.parametrize("case", VECTORS["mention"], ids=about)
def test_a_mention_shows_the_records_name_before_the_syntax(case: dict[str, Any]) -> None:
    assert ids.mention(case["agent_id"], case["record_name"]) == case["expect"]


def refusal(check: Any, *args: Any) -> ThrumError | None:
    try:
        check(*args)
    except ThrumError as error:
        return error
    return None


def assert_refused_as(case: dict[str, Any], error: ThrumError | None) -> None:
    if case["valid"]:
        assert error is None
        return
    assert error is not None
    assert (error.kind, error.details["cause"]) == (case["kind"], case["cause"])
    if "suggestion" in case:
        assert error.details.get("suggestion") == case["suggestion"]
        assert case["suggestion"] is None or case["suggestion"] in error.remedy


@pytest.mark.spec("ID-05", "ID-06")
@pytest.mark.parametrize("case", VECTORS["agent_name"], ids=about)
def test_the_first_broken_rule_of_a_name_is_reported(case: dict[str, Any]) -> None:
    error = refusal(ids.check_agent_name, case["name"], case["role"], case["other_roles"], case["groups"])
    assert_refused_as(case, error)


@pytest.mark.spec("ID-05")
@pytest.mark.parametrize("case", VECTORS["role"], ids=about)
def test_a_role_obeys_its_rules(case: dict[str, Any]) -> None:
    assert_refused_as(case, refusal(ids.check_role, case["role"], case["other_names"], case["groups"]))


@pytest.mark.spec("ID-05")
@pytest.mark.parametrize("case", VECTORS["module"], ids=about)
def test_a_module_obeys_its_rules(case: dict[str, Any]) -> None:
    assert_refused_as(case, refusal(ids.check_module, case["module"]))


@pytest.mark.spec("ID-05")
def test_the_words_that_people_search_for_stay_in_the_messages() -> None:
    def message(*args: Any) -> str:
        return str(refusal(ids.check_agent_name, *args))

    assert message("") == "agent name cannot be empty"
    assert message("Bad-Name") == 'agent name "Bad-Name" has invalid characters: only a-z, 0-9 and _'
    assert message("a\n") == 'agent name "a\\n" has invalid characters: only a-z, 0-9 and _'
    assert message("daemon") == 'agent name "daemon" is reserved'
    assert message("reviewer", "reviewer") == 'agent name "reviewer" cannot be the same as its role'
    conflict = 'agent name "reviewer" conflicts with existing role of @max'
    assert message("reviewer", "", {"reviewer": "max"}) == conflict
    missing = "role not specified: set THRUM_ROLE, use --role flag, or create identity file"
    assert str(refusal(ids.check_role, "")) == missing


def test_a_display_text_is_short_and_without_control_characters() -> None:
    ids.check_display("Claude (Planner) ✨")
    for bad in ("x" * 129, "a\nb", "a\x1b[31m", "\x85"):
        with pytest.raises(InvalidName):
            ids.check_display(bad)


@pytest.mark.spec("ID-05")
@pytest.mark.parametrize("case", VECTORS["suggest_name"], ids=about)
def test_a_bad_name_suggests_a_good_one(case: dict[str, Any]) -> None:
    assert ids.suggest_name(case["input"]) == case["expect"]


def test_a_suggestion_is_never_a_reserved_name() -> None:
    assert ids.suggest_name("Daemon") is None


@pytest.mark.parametrize("case", VECTORS["default_display"], ids=about)
def test_a_display_text_is_made_of_role_and_module(case: dict[str, Any]) -> None:
    assert ids.default_display(case["role"], case["module"]) == case["expect"]


@pytest.mark.spec("ID-80")
@pytest.mark.parametrize("case", VECTORS["user_id"], ids=about)
def test_a_git_user_name_becomes_a_user_id(case: dict[str, Any]) -> None:
    assert ids.user_id(case["git_user_name"]) == case["expect"]


# -- credentials


@pytest.mark.spec("ID-02")
@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://user:tok@github.com/u/r.git", "https://github.com/u/r.git"),
        ("https://tok@github.com/u/r.git", "https://github.com/u/r.git"),
        ("https://github.com/u/r.git?private_token=tok", "https://github.com/u/r.git"),
        ("ssh://git:tok@github.com/u/r", "ssh://git@github.com/u/r"),
        ("git@github.com:u/r.git", "git@github.com:u/r.git"),
        ("git:tok@github.com:u/r.git", "git@github.com:u/r.git"),
        ("/srv/git/a@b.git", "/srv/git/a@b.git"),
    ],
)
def test_no_password_or_token_stays_in_a_stored_url(url: str, kept: str) -> None:
    assert ids.without_credentials(url) == kept
    assert ids.repo_id_of_url(url, "/") == ids.repo_id_of_url(kept, "/")


# -- ULIDs


@pytest.mark.spec("ID-03")
def test_a_ulid_tells_its_millisecond_and_python_ulid_agrees() -> None:
    from ulid import ULID

    for ms in (0, 1, 1_700_000_000_123, (1 << 48) - 1):
        text = ids.Ulids().at(ms)
        assert ids.ulid_ms(text) == ids.ulid_ms("msg_" + text) == ms
        assert str(ULID.from_str(text)) == text
        assert ULID.from_str(text).milliseconds == ms


def test_ulids_rise_when_the_clock_stands_still_or_goes_back() -> None:
    source = ids.Ulids(lambda n: b"\x00" * n)
    made = [source.at(ms) for ms in (1000, 1000, 999, -5, 1001)]
    assert made == sorted(set(made))
    assert [ids.ulid_ms(ulid) for ulid in made] == [1000, 1000, 1000, 1000, 1001]


def test_when_the_random_part_is_used_up_the_next_millisecond_begins() -> None:
    source = ids.Ulids(lambda n: b"\xff" * n)
    first, second = source.at(1000), source.at(1000)
    assert first < second
    assert ids.ulid_ms(second) == 1001


def test_an_id_is_its_prefix_and_a_ulid() -> None:
    ulid = ids.Ulids().at(5)
    assert ids.is_id("msg_", f"msg_{ulid}") and ids.is_id("msg", f"msg_{ulid}")
    for bad in (ulid, f"evt_{ulid}", f"msg_{ulid.lower()}", f"msg_8{ulid[1:]}", f"msg_{ulid}\n", f"msg{ulid}", ""):
        assert not ids.is_id("msg_", bad)
    assert ids.ulid_ms("msg_nothing") is None


# -- stems


@pytest.mark.parametrize(
    ("actor", "stem"),
    [
        ("furiosa", "furiosa"),
        ("coordinator_1B9K33T6RK", "coordinator_1B9K33T6RK"),
        ("agent:tester:9F2K3M1Q8Z", "tester_9F2K3M1Q8Z"),
        ("user:leon", "user.leon"),
        ("sf:bob", "sf.bob"),
        ("monitor:ci", "monitor.ci"),
        ("system", "system"),
        ("team_backend123", "team_backend123"),
        ("Bob Smith", "Bob%20Smith"),
        ("a/../b", "a%2F..%2Fb"),
        ("Claude.Bot", "Claude.Bot"),
        ("", "%"),
    ],
)
def test_an_actors_file_is_named_after_it(actor: str, stem: str) -> None:
    assert ids.file_stem(actor) == stem


def test_a_long_id_is_cut_and_told_by_its_digest() -> None:
    one, other = ids.file_stem("Ä" * 60), ids.file_stem("Ä" * 61)
    assert len(one) == len(other) == 100
    assert one != other and one[:84] == other[:84] == ids.file_stem("Ä" * 99)[:84]


@pytest.mark.parametrize("pair", [("user:leon", "user.leon"), ("sf:bob", "sf.bob"), ("a:b:c", "a.b.c")])
def test_a_foreign_id_never_takes_the_file_of_a_known_kind(pair: tuple[str, str]) -> None:
    assert ids.file_stem(pair[0]) != ids.file_stem(pair[1])


ACTORS = st.text(min_size=0, max_size=120) | st.from_regex(r"[a-zA-Z0-9_.:%/-]{0,20}", fullmatch=True)


@given(ACTORS, ACTORS)
def test_stems_are_safe_and_do_not_collide(one: str, other: str) -> None:
    stem = ids.file_stem(one)
    assert 0 < len(stem.encode()) <= 100
    assert not stem.startswith(".") and "/" not in stem and "\0" not in stem and stem.isascii()
    if ids.parse_agent_id(one).canonical != ids.parse_agent_id(other).canonical:
        assert stem != ids.file_stem(other)
