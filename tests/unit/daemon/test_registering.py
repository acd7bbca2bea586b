"""What a registration that the daemon starts says, and what it is told."""

from __future__ import annotations

import json

import pytest

from thrum.daemon.registering import Recruit, read_answer
from thrum.model.errors import ConflictError, InternalError


def test_the_words_of_a_registration_are_one_each_whatever_is_in_them() -> None:
    recruit = Recruit("/src", "nux", "tester", "auth", intent="--force me", runtime="claude", force=True)
    assert recruit.words == (
        *("quickstart", "nux", "--role=tester", "--module=auth", "--intent=--force me", "--runtime=claude"),
        *("--no-agent-pid", "--json", "--force"),
    )
    assert "--intent=" not in " ".join(Recruit("/src", "nux", "tester", "auth").words)


def test_an_answer_is_the_agent_and_its_warnings() -> None:
    out = json.dumps({"register": {"agent_id": "nux"}, "warnings": ["beware"]}).encode()
    assert read_answer(out, b"") == ("nux", ("beware",))


def test_a_refusal_keeps_its_kind_and_what_else_was_said_is_told() -> None:
    error = {"kind": "conflict", "message": "taken", "remedy": "another", "details": {"reason": "name_held"}}
    with pytest.raises(ConflictError, match="taken") as refused:
        read_answer(json.dumps({"error": error}).encode(), b"")
    assert (refused.value.remedy, refused.value.details) == ("another", {"reason": "name_held"})
    with pytest.raises(InternalError, match="Traceback"):
        read_answer(b"", b"Traceback")
