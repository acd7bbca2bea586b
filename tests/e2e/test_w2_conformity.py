"""What fresh eyes found in the commands of identity.md and cli.md "W2", played with real sessions and shells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.callers import Desks
from tests.support.daemon.repo import Repo, open_repo


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


@pytest.fixture
def mode(repo: Repo, request: pytest.FixtureRequest) -> Iterator[str]:
    """The mode of `cross_worktree` for one test."""
    repo.thrum("config", "set", "identity_guard.cross_worktree", request.param)
    yield request.param
    repo.thrum("config", "unset", "identity_guard.cross_worktree")


def lived_in(repo: Repo, desk: Desks, name: str) -> Path:
    """A worktree where an agent of that name runs."""
    root = repo.worktree(name)
    assert desk(root, "claude").thrum("quickstart", name, "--role", "builder", "--module", name)["status"] == 0
    return root


SESSION_COMMANDS = (["session", "start"], ["session", "set-intent", "by hand"])


def test_a_shell_that_names_a_live_agent_starts_its_session_and_says_what_it_works_on(repo: Repo, desk: Desks) -> None:
    root = lived_in(repo, desk, "named")
    for words in SESSION_COMMANDS:
        done = desk(root).thrum(*words, THRUM_NAME="named")
        assert done["status"] == 0, done
    (open_session,) = repo.json("session", "list", "--agent", "named", "--active")["sessions"]
    assert open_session["intent"] == "by hand"


@pytest.mark.parametrize(("mode", "status"), [("strict", 1), ("warn", 0), ("off", 0)], indirect=["mode"])
def test_the_mode_of_the_guard_decides_on_a_second_runtime_s_session_commands(
    repo: Repo, desk: Desks, mode: str, status: int
) -> None:
    root = lived_in(repo, desk, f"second_{mode}")
    for words in SESSION_COMMANDS:
        done = desk(root, "codex").thrum(*words)
        assert done["status"] == status, done
        assert ("cross_worktree" in done["err"]) == (mode != "off"), done


def test_the_preamble_is_looked_at_with_a_warning_and_written_only_by_who_may(repo: Repo, desk: Desks) -> None:
    root = lived_in(repo, desk, "standing")
    seen = desk(root).thrum("context", "preamble")
    assert seen["status"] == 0 and "@standing" in seen["out"], seen
    assert seen["err"].startswith("warning:"), seen
    assert desk(root).thrum("context", "preamble", "--init")["status"] == 1


def test_the_guards_of_quickstart_and_prime_say_where_the_caller_stands(repo: Repo, desk: Desks) -> None:
    root = lived_in(repo, desk, "deep")
    below = root / "some" / "where"
    below.mkdir(parents=True)
    for words in (["quickstart", "deep", "--role", "builder", "--module", "deep"], ["prime"]):
        done = desk(below, "codex").thrum(*words, "--json")
        error = json.loads(done["out"])["error"]
        assert (done["status"], error["details"]["caller_cwd"]) == (1, str(below)), done


def test_a_link_in_the_place_of_an_identity_is_named_as_such_and_left_alone(repo: Repo) -> None:
    root = repo.worktree("linked")
    repo.thrum("setup", at=root)
    outside = repo.top / "outside.json"
    outside.write_text("{}")
    (root / ".thrum" / "identities" / "linky.json").symlink_to(outside)
    done = repo.run("quickstart", "linky", "--role", "builder", "--module", "links", at=root)
    assert "not a regular file" in done.err and "fix or delete" in done.err, done
    chosen = repo.run("whoami", at=root, env={"THRUM_NAME": "linky"})
    assert "linky lives in" not in chosen.err and "does not exist" in chosen.err, chosen
    assert outside.read_text() == "{}"
