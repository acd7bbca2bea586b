"""Phase 1 and 2: the table of identity.md §6."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.vectors import VECTORS
from thrum.identity.runtimes import Link
from thrum.identity.selection import Candidate, Given, resolve_values, select, wanted_name
from thrum.model.errors import IdentityInvalid, IdentityNotFound, ThrumError


def about(case: dict[str, Any]) -> str:
    return str(case["about"])


@pytest.mark.spec("ID-29", "ID-30", "ID-31", "ID-32", "ID-33")
@pytest.mark.parametrize("case", VECTORS["phase_1"], ids=about)
def test_the_first_row_that_applies_chooses_the_identity(case: dict[str, Any]) -> None:
    candidates = [
        Candidate(
            each["name"],
            each["worktree"],
            each["updated_at"],
            each.get("agent_pid", 0),
            each.get("agent_pid_started", ""),
            "no JSON" if each.get("broken") else "",
        )
        for each in case["files"]
    ]
    outcome: dict[str, Any]
    try:
        selection = select(
            candidates,
            [Link(**each) for each in case["chain"]],
            case["worktree"],
            thrum_name=case["thrum_name"],
            thrum_agent_id=case.get("thrum_agent_id"),
            proven_elsewhere=case.get("proven_elsewhere"),
        )
        outcome = {"selected": selection.agent_id, "rule": selection.rule, "selected_by": selection.selected_by}
    except ThrumError as error:
        outcome = {"error": error.kind, "rule": error.details["rule"]}
    assert outcome == case["expect"]


@pytest.mark.spec("ID-22")
def test_a_broken_file_alone_is_an_error_and_among_others_a_warning() -> None:
    broken, sound = Candidate("furiosa", broken="no JSON"), Candidate("nux")
    with pytest.raises(IdentityInvalid, match=r"identities/furiosa\.json is not a valid identity: no JSON"):
        select([broken], [], "/w")
    selection = select([broken, sound], [], "/w")
    assert (selection.agent_id, selection.selected_by) == ("nux", "only_file")
    assert "furiosa" in selection.warnings[0]


@pytest.mark.spec("ID-30")
def test_a_missing_named_identity_tells_where_that_agent_lives() -> None:
    with pytest.raises(IdentityNotFound) as caught:
        select([Candidate("nux")], [], "/w", thrum_name="ghost", known_roots={"ghost": "/src/app-auth"})
    assert "/src/app-auth" in caught.value.remedy


def test_a_name_that_looks_like_an_unnamed_id_is_found_as_it_stands() -> None:
    selection = select([Candidate("team_backend123"), Candidate("nux")], [], "/w", thrum_name="team_backend123")
    assert (selection.agent_id, selection.explicit) == ("team_backend123", True)


@pytest.mark.spec("ID-34")
def test_each_value_comes_from_flag_then_variable_then_file() -> None:
    file = Given("implementer", "auth", "Auth")
    assert resolve_values(Given(), Given(), file).source == "identity_file"
    assert resolve_values(Given(), Given(), file, explicit=True).source == "environment"
    mixed = resolve_values(Given(role="tester"), Given(role="planner", module="cli"), file)
    assert (mixed.role, mixed.module, mixed.display, mixed.source) == ("tester", "cli", "Auth", "flags")
    # A flag that says what is so anyway changed nothing.
    assert resolve_values(Given(role="implementer"), Given(), file).source == "identity_file"


@pytest.mark.spec("ID-35")
def test_the_name_wanted_comes_from_the_variable_first_and_says_so() -> None:
    assert wanted_name("a", "b") == ("a", "THRUM_NAME=a overrides the name b")
    assert wanted_name("a", "a") == ("a", "")
    assert wanted_name(None, "b", "c", "d") == ("b", "")
    assert wanted_name(None, None, "c", "d") == ("c", "")
    assert wanted_name(None, None, None, "d") == ("d", "")
    assert wanted_name(None) == ("", "")
