"""Who calls over a WebSocket: the decision alone, and the tokens (identity.md)."""

from __future__ import annotations

from typing import Any

import pytest

from thrum.identity.caller import Caller, Refused, decide_user
from thrum.model import limits
from thrum.ops.users import Tokens

OPEN = {"user.identify", "user.register", "health"}


# -- the decision


@pytest.mark.spec("ID-66")
@pytest.mark.parametrize("access", ["read", "bootstrap", "operator", "agent"])
def test_before_registering_nothing_but_three_methods_is_open_and_a_mode_opens_reading_alone(access: Any) -> None:
    for method in OPEN:
        outcome = decide_user(None, method, access)
        assert isinstance(outcome, Caller) and (outcome.agent_id, outcome.kind) == (None, "nobody")
    outcome = decide_user(None, "some.method", access)
    assert isinstance(outcome, Refused)
    assert (outcome.refusal.guard, outcome.refusal.reason) == ("unauthenticated_rpc", "no_caller_agent_id")
    assert (outcome.otherwise is not None) == (access == "read")
    assert outcome.otherwise is None or outcome.otherwise.agent_id is None


@pytest.mark.spec("ID-66")
@pytest.mark.parametrize("access", ["read", "bootstrap", "operator", "agent"])
@pytest.mark.parametrize("user", [None, "user:leon"])
@pytest.mark.parametrize("claim", ["furiosa", "user:max", "coordinator_1B9K33T6RK", "../x"])
def test_a_claim_of_anybody_else_is_forged_in_every_class(user: str | None, claim: str, access: Any) -> None:
    for method in (*OPEN, "message.send"):
        outcome = decide_user(user, method, access, claim)
        assert isinstance(outcome, Refused) and outcome.otherwise is None
        assert (outcome.refusal.reason, outcome.refusal.by_mode) == ("identity_mismatch", False)


@pytest.mark.spec("ID-66")
@pytest.mark.parametrize("claim", [None, "", "user:leon"])
def test_after_registering_the_caller_is_that_user(claim: str | None) -> None:
    outcome = decide_user("user:leon", "message.send", "agent", claim)
    assert isinstance(outcome, Caller) and (outcome.agent_id, outcome.kind, outcome.proven) == (
        "user:leon",
        "user",
        True,
    )


# -- over the real dispatcher


def test_the_oldest_of_too_many_tokens_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "user_tokens_max", 2)
    tokens = Tokens()
    issued = [tokens.issue("user:leon", 1) for _ in range(3)]
    assert [tokens.user_of(token) for token in issued] == [None, "user:leon", "user:leon"]
    assert len(set(issued)) == 3
