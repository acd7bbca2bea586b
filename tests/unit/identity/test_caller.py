"""Who calls: the table of identity.md §11."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.vectors import VECTORS
from thrum.identity.caller import CLASS_OF, AccessClass, Caller, Evidence, Refused, Step, claim_not_used, decide
from thrum.identity.processes import OwnerState
from thrum.model.methods.method import Access


@pytest.mark.spec("ID-56", "ID-58", "ID-61")
@pytest.mark.parametrize("case", VECTORS["caller"], ids=lambda case: str(case["about"]))
def test_evidence_and_claim_decide_the_caller(case: dict[str, Any]) -> None:
    evidence = Evidence(
        uid_ok=case.get("uid_ok", True),
        owner=case.get("owner"),
        runtime=case.get("runtime", False),
        here=case.get("here", {}),
        failed=case.get("failed"),
        shared_server=case.get("shared_server", False),
        session_agent=case.get("claim") if case.get("session_bound") else None,
        terminal=case.get("terminal", True),
        named=case.get("name_in_environment", False),
    )
    claim = case.get("claim")
    decision = decide(evidence, case["access"], claim, own=case.get("own", False))
    outcome: dict[str, Any]
    if isinstance(decision, Caller):
        outcome = {"caller": decision.agent_id or ""}
        if decision.warnings:
            assert decision.warnings == (claim_not_used(claim),)
            outcome |= {"warning": "claim_not_used"}
    else:
        refusal = decision.refusal
        outcome = {"refused": refusal.reason, "guard": refusal.guard}
        outcome |= {"expected": refusal.expected} if refusal.expected else {}
        outcome |= {"detected": refusal.detected} if refusal.detected else {}
        outcome |= {"step": refusal.step} if refusal.step else {}
    # Where a vector says less: who is refused is told, and so is that a claim was not used.
    assert case["expect"].items() <= outcome.items()
    assert {"expected": claim, "warning": "claim_not_used"}.items() >= {
        key: value for key, value in outcome.items() if key not in case["expect"]
    }.items()


@pytest.mark.parametrize("failed", ["peer", "process", "chain", "cwd", "root", "registry"])
def test_a_claim_that_the_kernel_cannot_confirm_opens_no_inbox_and_is_told_to_be_unused(failed: Step) -> None:
    evidence = Evidence(failed=failed)
    own = decide(evidence, "read", "furiosa", own=True)
    assert isinstance(own, Refused) and own.refusal.reason == "identity_mismatch" and own.otherwise is None
    other = decide(evidence, "read", "furiosa")
    assert isinstance(other, Caller) and (other.agent_id, other.warnings) == (None, (claim_not_used("furiosa"),))
    unclaimed = decide(evidence, "read", own=True)
    assert isinstance(unclaimed, Caller) and (unclaimed.agent_id, unclaimed.warnings) == (None, ())


def test_below_a_shared_server_its_session_speaks_and_no_stale_name() -> None:
    here: dict[str, OwnerState] = {"furiosa": "chain", "reviewer": "elsewhere"}
    bound = Evidence(owner="furiosa", shared_server=True, runtime=True, session_agent="reviewer", here=here)
    for access in ("agent", "read", "bootstrap"):
        decision = decide(bound, access)
        assert isinstance(decision, Caller) and (decision.agent_id, decision.rule) == ("reviewer", "C3a")
    stale = decide(bound, "agent", "furiosa")
    assert isinstance(stale, Refused) and not stale.refusal.by_mode
    assert (stale.refusal.expected, stale.refusal.detected) == ("furiosa", "reviewer")
    away = decide(replace(bound, here={}), "agent", "reviewer")
    assert isinstance(away, Refused) and away.refusal.reason == "anonymous_mutating_rpc"


def test_a_stray_process_may_be_let_pass_by_the_guards_mode_as_a_second_runtime_may() -> None:
    stray = decide(Evidence(terminal=False, here={"furiosa": "elsewhere"}), "agent", "furiosa")
    assert isinstance(stray, Refused) and stray.rule == "C11" and stray.refusal.by_mode
    assert stray.otherwise is not None and stray.otherwise.agent_id == "furiosa"
    named = decide(Evidence(terminal=False, named=True, here={"furiosa": "elsewhere"}), "agent", "furiosa")
    assert isinstance(named, Caller) and named.visiting and named.by_name


@pytest.mark.parametrize("access", ["operator", "person"])
def test_another_user_is_refused_a_person_s_acts_too(access: AccessClass) -> None:
    refused = decide(Evidence(uid_ok=False), access)
    assert isinstance(refused, Refused) and refused.refusal.reason == "foreign_uid"
    assert isinstance(decide(Evidence(owner="nux"), access, "furiosa"), Caller)


def test_only_the_rows_of_a_living_owner_obey_the_guards_mode() -> None:
    for runtime, claim, rule in ((True, "furiosa", "C10"), (False, None, "C13")):
        refused = decide(Evidence(runtime=runtime, here={"furiosa": "elsewhere"}, root="/w"), "agent", claim)
        assert isinstance(refused, Refused) and refused.rule == rule
        assert refused.refusal.by_mode
        assert refused.otherwise is not None and refused.otherwise.agent_id == "furiosa"
    forged = decide(Evidence(owner="nux"), "agent", "furiosa")
    assert isinstance(forged, Refused) and not forged.refusal.by_mode and forged.otherwise is None


def test_a_claim_counts_in_either_spelling_but_a_record_comes_first() -> None:
    here = Evidence(here={"implementer_35HV62T9B9": "none", "team_backend123": "none"})
    for claim, agent_id in (
        ("implementer_35hv62t9b9", "implementer_35HV62T9B9"),
        ("agent:implementer:35HV62T9B9", "implementer_35HV62T9B9"),
        ("team_backend123", "team_backend123"),
    ):
        decision = decide(here, "agent", claim)
        assert isinstance(decision, Caller) and decision.agent_id == agent_id


def test_a_proved_caller_lives_in_its_own_root_wherever_it_stands() -> None:
    evidence = Evidence(pid=7, owner="nux", owner_root="/home", root="/elsewhere", here={"max": "none"})
    decision = decide(evidence, "agent")
    assert decision == Caller("nux", "agent", "/home", 7, proven=True, rule="C4")


@pytest.mark.spec("ID-63")
def test_a_level_without_a_class_of_its_own_needs_an_agent() -> None:
    assert {access: CLASS_OF.get(access, "agent") for access in Access} == {
        Access.ANONYMOUS: "read",
        Access.BOOTSTRAP: "bootstrap",
        Access.OPERATOR: "operator",
        Access.PERSON: "person",
        Access.NOT_AN_AGENT: "person",
        Access.REGISTERED: "agent",
        Access.INTERNAL: "agent",
    }
