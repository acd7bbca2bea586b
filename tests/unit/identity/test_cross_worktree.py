"""Who may use an identity: the table of the guard `cross_worktree`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.vectors import VECTORS
from thrum.identity.cross_worktree import Passed, cross_worktree


@pytest.mark.spec("ID-67")
@pytest.mark.parametrize("case", VECTORS["cross_worktree"], ids=lambda case: str(case["about"]))
def test_an_identity_is_used_only_by_whom_it_may(case: dict[str, Any]) -> None:
    decision = cross_worktree(
        case["selected"],
        explicit=case["explicit"],
        owner=case["owner"],
        state=case["state"],
        runtime=case["runtime"],
        same_root=case["co"],
        reclaim=case.get("reclaim", "warn"),
    )
    outcome: dict[str, Any]
    if isinstance(decision, Passed):
        outcome = {"ok": True, "adopt": decision.adopt}
    else:
        outcome = {"refused": decision.reason, "expected": decision.expected}
        outcome |= {"detected": decision.detected} if decision.detected else {}
    assert outcome == case["expect"]
