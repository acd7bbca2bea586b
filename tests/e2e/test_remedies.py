"""What is printed to somebody who is stuck works where it is printed (docs/decisions/0051)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Desk, Desks
from tests.support.daemon.repo import Repo, open_repo

NEW = "thrum quickstart NEWNAME --role ROLE --module MODULE"
NEVER = ("end that session", "--force", "prime", "sub-agent")


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


def session(desk: Desks, at: Path, name: str, *runtimes: str) -> Desk:
    opened = desk(at, *(runtimes or ("claude",)))
    done = opened.thrum("quickstart", name, "--role", "builder", "--module", f"m_{name}")
    assert done["status"] == 0, done
    return opened


def refused(desk: Desk, *words: str, **env: str) -> dict[str, Any]:
    done = desk.thrum(*words, "--json", **env)
    assert done["status"] != 0, (words, done)
    return json.loads(done["out"])["error"]


def follow(desk: Desk, remedy: str, **filled: str) -> dict[str, Any]:
    """Run the command that a remedy names; what it leaves open is filled in."""
    found = re.search(r"(?:env -u THRUM_NAME )?thrum ((?:quickstart|agent rename)(?: [a-zA-Z0-9_-]+)+)", remedy)
    assert found is not None, remedy
    words = [filled.get(word, word) for word in found[1].split()]
    done = desk.thrum(*words, THRUM_NAME="")
    assert done["status"] == 0, (remedy, words, done)
    return done


def me(desk: Desk, **env: str) -> str:
    return json.loads(desk.thrum("whoami", "--json", **env)["out"])["agent_id"]


def test_a_second_runtime_where_an_agent_lives_is_told_to_take_a_name_of_its_own(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("first")
    first = session(desk, root, "first")
    second = desk(root, "codex")
    errors = [
        refused(second, "send", "x"),
        refused(second, "inbox"),
        refused(second, "prime"),
        refused(second, "quickstart", "first", "--role", "r", "--module", "m"),
        refused(second, "agent", "register", "--name", "first", "--role", "r", "--module", "m"),
        refused(second, "agent", "rename", "third"),
    ]
    for error in errors:
        assert "thrum quickstart NEWNAME --role " in error["remedy"], error
        assert str(first.pid) in error["remedy"]
        assert not [word for word in NEVER if word in error["remedy"]], error
    follow(second, errors[0]["remedy"], NEWNAME="second", ROLE="tester", MODULE="all")
    assert (me(second), me(first)) == ("second", "first")
    assert second.thrum("send", "I am here", "--to", "@first")["status"] == 0
    assert "I am here" in first.thrum("inbox")["out"]


def test_a_real_sub_agent_is_told_what_it_is_and_may_have_a_name_of_its_own(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("outer")
    session(desk, root, "outer", "claude")
    inner = desk(root, "claude", "codex")
    assert inner.thrum("quickstart", "inner", "--role", "tester", "--module", "inner")["status"] == 0
    assert me(inner) == "inner"


def test_who_is_one_agent_and_wants_another_name_is_told_of_the_rename(repo: Repo, desk: Desks) -> None:
    was = session(desk, repo.worktree("was"), "was_one")
    error = refused(was, "quickstart", "is_two", "--role", "builder", "--module", "m")
    assert error["kind"] == "quickstart_self_rename"
    follow(was, error["remedy"])
    assert me(was) == "is_two"


def test_who_has_gone_elsewhere_is_told_where_its_own_worktree_is(repo: Repo, desk: Desks) -> None:
    session(desk, repo.worktree("theirs"), "theirs")
    mine = session(desk, repo.worktree("mine"), "mine")
    mine.order(cd=str(repo.worktree("theirs")))
    error = refused(mine, "send", "x")
    assert f"cd to its worktree ({repo.worktree('mine')})" in error["remedy"] and "prime" not in error["remedy"]
    mine.order(cd=str(repo.worktree("mine")))
    assert mine.thrum("send", "x")["status"] == 0


def test_a_dead_agent_that_may_not_be_taken_over_is_registered_again(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("fallen")
    session(desk, root, "fallen").close()
    repo.guards('{"dead_pid_auto_reclaim": "off"}')
    try:
        current_id = desk(root, "claude")
        for words in (("send", "x"), ("prime",)):
            error = refused(current_id, *words)
            assert error["remedy"].endswith("thrum quickstart fallen"), error
        follow(current_id, error["remedy"])
        assert current_id.thrum("send", "x")["status"] == 0
    finally:
        repo.guards()


def test_in_plain_shells_the_last_registration_does_not_take_over_in_silence(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("both")
    shell = desk(root, terminal=True)
    told = [
        shell.thrum("quickstart", name, "--role", "builder", "--module", f"m_{name}")["err"]
        for name in ("one", "two", "one")
    ]
    assert told == [
        "",
        "warning: @one lives here too: in its shell export THRUM_NAME=one, else it acts as @two\n",
        "warning: export THRUM_NAME=one, else you act as @two\n",
    ]
    done = shell.thrum("send", "who am I?")
    assert "you act as two, registered last: export THRUM_NAME=one or THRUM_NAME=two" in done["err"], done
    assert "registered last" not in shell.thrum("send", "I know")["err"], "once a shell"
    done = shell.thrum("send", "now I say it", THRUM_NAME="one")
    assert (done["status"], "warning" in done["err"]) == (0, False), done
    by = {fact["body"]["content"]: fact["agent_id"] for fact in repo.facts("message.create")}
    assert (by["I know"], by["now I say it"]) == ("two", "one")


def test_a_name_that_is_left_over_changes_nobodys_role(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("left")
    shell = desk(root, terminal=True)
    assert shell.thrum("quickstart", "old", "--role", "builder", "--module", "b")["status"] == 0
    before = repo.facts()
    for words in (("quickstart", "--name", "fresh"), ("quickstart", "fresh"), ("agent", "register", "--name", "fresh")):
        error = refused(shell, *words, "--role", "tester", "--module", "t", THRUM_NAME="old")
        assert error["kind"] == "identity_env_conflict"
        assert "this would make @old (builder, b) tester of t" in error["message"]
        assert repo.facts() == before
    follow(shell, error["remedy"])
    assert me(shell, THRUM_NAME="fresh") == "fresh"
    member = next(each for each in repo.json("team", "--all")["members"] if each["agent_id"] == "old")
    assert (member["role"], member["module"]) == ("builder", "b")
    # Where nothing of it would change, and for who says what he means, it goes before as ever.
    done = shell.thrum("quickstart", "fresh", THRUM_NAME="old")
    assert done["status"] == 0 and "THRUM_NAME=old overrides the name fresh" in done["err"]
    assert shell.thrum("quickstart", "--role", "tester", "--module", "t", THRUM_NAME="old")["status"] == 0


def test_a_variable_or_file_that_leads_nowhere_is_fixed_as_it_is_said(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("nowhere")
    shell = desk(root, terminal=True)
    error = refused(shell, "send", "x", THRUM_NAME="ghost")
    assert error["kind"] == "identity_not_found"
    follow(shell, error["remedy"], ROLE="builder", MODULE="g")
    assert shell.thrum("send", "x", THRUM_NAME="ghost")["status"] == 0
    file = root / ".thrum/identities/ghost.json"
    file.write_text("{")
    error = refused(shell, "send", "x")
    assert error["kind"] == "identity_invalid" and "rm .thrum/identities/ghost.json" in error["remedy"]
    file.unlink()
    follow(shell, error["remedy"], NAME="ghost", ROLE="builder", MODULE="g")
    assert shell.thrum("send", "x")["status"] == 0


def test_a_shell_at_a_living_agents_desk_may_say_that_it_means_it_or_register(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("alive")
    session(desk, root, "alive")
    shell = desk(root, terminal=True)
    error = refused(shell, "send", "x")
    assert "set THRUM_NAME=alive" in error["remedy"]
    assert shell.thrum("send", "x", THRUM_NAME="alive")["status"] == 0
    follow(shell, error["remedy"], NAME="person", ROLE="lead", MODULE="all")
    assert shell.thrum("send", "x", THRUM_NAME="person")["status"] == 0
