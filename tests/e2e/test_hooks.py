"""A hook never breaks its runtime: whatever is wrong it says nothing and ends with 0 (wake.md §1.6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import Done, Repo, open_repo, wait_until

TOKEN = "wak_01ABCDEFGHJKMNPQRSTVWXYZ00"
SILENCE = Done(0, "", "")


def _hook(repo: Repo, event: str, payload: Any, *, at: Path | None = None, **env: str) -> Done:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return repo.run("hook", "claude", event, at=at, stdin=text, env=env)


def test_where_no_thrum_is_a_hook_says_nothing_and_makes_nothing() -> None:
    repo = Repo()
    try:
        before = sorted(repo.main.rglob("*"))
        for event in ("SessionStart", "UserPromptSubmit", "Stop", "wait"):
            assert _hook(repo, event, {"hook_event_name": event}) == SILENCE
        assert _hook(repo, "Stop", {}, at=repo.top) == SILENCE
        assert sorted(repo.main.rglob("*")) == before
    finally:
        repo.close()


@pytest.fixture(scope="module")
def repo() -> Any:
    with open_repo("furiosa") as found:
        yield found


@pytest.mark.parametrize(
    "payload",
    ["", "{", "[]", "null", "\x00\xff", '{"prompt": 5, "session_id": {}}', json.dumps({"prompt": "x" * 100_000})],
    ids=["nothing", "cut", "a list", "null", "bytes", "odd", "long"],
)
def test_whatever_is_on_stdin_a_hook_is_silent(repo: Repo, payload: str) -> None:
    for event in ("UserPromptSubmit", "Stop", "PermissionRequest", "nosuch", "wait"):
        assert _hook(repo, event, payload) == SILENCE, event


def test_below_no_runtime_a_hook_is_told_nothing(repo: Repo) -> None:
    repo.thrum("send", "hello", "--to", "@furiosa", env={"THRUM_NAME": "furiosa"})
    assert _hook(repo, "Stop", {"session_id": "s"}) == SILENCE
    assert _hook(repo, "wait", {"session_id": "s"}) == SILENCE
    assert not repo.facts("wake.attempt")


def test_an_unknown_runtime_is_silent_too(repo: Repo) -> None:
    done = repo.run("hook", "nosuch", "Stop", stdin="{}")
    assert done == SILENCE


def test_without_a_daemon_a_hook_starts_none_and_leaves_a_proof_for_the_next(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    assert _hook(repo, "Stop", {"prompt": "no token"}) == SILENCE
    assert _hook(repo, "UserPromptSubmit", {"prompt": "without"}) == SILENCE
    assert repo.daemon is None
    assert _hook(repo, "UserPromptSubmit", {"prompt": f"Mail … {TOKEN}"}) == SILENCE
    assert [path.name for path in (repo.var / "proofs").iterdir()] == [TOKEN]
    repo.thrum("daemon", "start")
    wait_until(lambda: not list((repo.var / "proofs").iterdir()), "the proof to be taken up")


def test_a_payload_beyond_all_bounds_is_silent(repo: Repo) -> None:
    assert _hook(repo, "Stop", json.dumps({"last_assistant_message": "x" * (6 << 20)})) == SILENCE


def test_a_hook_follows_where_its_session_began_not_where_the_agent_went(repo: Repo, tmp_path: Path) -> None:
    repo.thrum("daemon", "stop")
    done = _hook(repo, "UserPromptSubmit", {"prompt": TOKEN}, at=tmp_path, CLAUDE_PROJECT_DIR=str(repo.main))
    assert done == SILENCE
    assert [path.name for path in (repo.var / "proofs").iterdir()] == [TOKEN]
    (repo.var / "proofs" / TOKEN).unlink()
