"""Who calls: the table of identity.md §11."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thrum.api import Access
from thrum.identity.caller import CLASS_OF, Caller, Evidence, Refused, decide

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())


@pytest.mark.spec("ID-56", "ID-58", "ID-61")
@pytest.mark.parametrize("case", VECTORS["caller"], ids=lambda case: str(case["about"]))
def test_evidence_and_claim_decide_the_caller(case: dict[str, Any]) -> None:
    evidence = Evidence(
        uid_ok=case.get("uid_ok", True),
        owner=case.get("owner"),
        runtime=case.get("runtime", False),
        here=case.get("here", {}),
        failed=case.get("failed"),
    )
    decision = decide(evidence, case["access"], case.get("claim"))
    outcome: dict[str, Any]
    if isinstance(decision, Caller):
        outcome = {"caller": decision.agent_id or ""}
    else:
        refusal = decision.refusal
        outcome = {"refused": refusal.reason, "guard": refusal.guard}
        outcome |= {"expected": refusal.expected} if refusal.expected else {}
        outcome |= {"detected": refusal.detected} if refusal.detected else {}
        outcome |= {"step": refusal.step} if refusal.step else {}
    assert outcome == case["expect"]


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
        Access.REGISTERED: "agent",
        Access.AUTHOR: "agent",
        Access.OWNER: "agent",
        Access.INTERNAL: "agent",
    }
