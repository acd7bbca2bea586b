"""The guard `cross_worktree` with real sessions: refused, warned or let through, and what the log says (§11, §12)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Desk, Desks, kind
from tests.support.daemon.repo import Repo, open_repo

ACTS = (
    ["send", "x"],
    ["inbox"],
    ["message", "read", "--all"],
    ["session", "set-intent", "x"],
    ["session", "start"],
    ["session", "end"],
    ["session", "heartbeat"],
    ["group", "create", "g"],
    ["context", "clear"],
    ["wait", "--timeout", "0"],
)
LOOKS = (
    ["whoami"],
    ["team"],
    ["agent", "list"],
    ["ping", "@furiosa"],
    ["who-has", "README"],
    ["sent"],
    ["group", "list"],
    ["session", "list"],
    ["config", "show"],
    ["config", "get", "sync.interval"],
    ["inbox", "--peek"],
    ["inbox", "--unread"],
    ["overview"],
    ["daemon", "status"],
)
NEVER = (["version"], ["help"], ["completion", "bash"])


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


def session(desk: Desks, at: Path, name: str, runtime: str = "claude") -> Desk:
    opened = desk(at, runtime)
    done = opened.thrum("quickstart", name, "--role", "builder", "--module", f"m_{name}", "--force")
    assert done["status"] == 0, done
    return opened


def fires(repo: Repo) -> list[dict[str, Any]]:
    return [line for line in logged(repo) if line["message"] == "identity_guard_fire"]


def logged(repo: Repo) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (repo.var / "daemon.log").read_text().splitlines()]


def error(done: dict[str, Any]) -> dict[str, Any]:
    return json.loads(done["out"])["error"]


def drifted(repo: Repo, desk: Desks) -> tuple[Desk, Desk]:
    """`nux` at home, and `furiosa`, who has cd'ed there."""
    nux = session(desk, repo.worktree("nux"), "nux")
    furiosa = session(desk, repo.worktree("furiosa"), "furiosa")
    furiosa.order(cd=str(repo.worktree("nux")))
    return nux, furiosa


@pytest.mark.spec("ID-60", "ID-67", "ID-72", "ID-73")
def test_an_agent_in_another_s_worktree_is_refused_to_act_and_nothing_is_written(repo: Repo, desk: Desks) -> None:
    nux, furiosa = drifted(repo, desk)
    for words in ACTS:
        before, fired = repo.facts(), len(fires(repo))
        done = furiosa.thrum(*words, "--json")
        assert done["status"] == (2 if words[0] == "wait" else 1), (words, done)
        refused = error(done)
        assert refused["kind"] == "cross_worktree", words
        details = refused["details"]
        assert (details["expected_agent"], details["detected_agent"]) == ("nux", "furiosa")
        assert (details["expected_pid"], details["caller_cwd"]) == (nux.pid, str(repo.worktree("nux")))
        assert repo.facts() == before, words
        [record] = fires(repo)[fired:]
        assert (record["outcome"], record["mode"], record["reason"]) == ("denied", "strict", "pid_mismatch"), words
        assert all(record[key] == details[key] for key in ("expected_agent", "detected_agent", "caller_pid"))
    text = furiosa.thrum("send", "x")["err"].splitlines()
    assert text[0] == 'Error: identity guard "cross_worktree" fired: pid_mismatch'
    assert [line.split(":")[0] for line in text[1:]] == [
        "  expected agent",
        "  caller cwd",
        "  fix",
    ]
    home = repo.worktree("furiosa")
    assert text[-1] == f"  fix: you are furiosa: cd to its worktree ({home}), or unset THRUM_NAME where that is set"


@pytest.mark.spec("ID-68")
def test_looks_run_with_one_warning_and_leave_no_mark(repo: Repo, desk: Desks) -> None:
    nux, furiosa = drifted(repo, desk)
    nux.thrum("send", "for furiosa", "--to", "@furiosa")
    for words in LOOKS:
        before, fired = repo.facts(), len(fires(repo))
        done = furiosa.thrum(*words)
        assert done["status"] == 0, (words, done)
        warnings = [line for line in done["err"].splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 1 and 'identity guard "cross_worktree" fired' in warnings[0], (words, done)
        assert repo.facts() == before, words
        assert [record["outcome"] for record in fires(repo)[fired:]] == ["allowed"], words
    document = json.loads(furiosa.thrum("team", "--json")["out"])
    assert len(document["warnings"]) == 1
    assert "for furiosa" in furiosa.thrum("inbox", "--peek")["out"], "its own inbox is what it may look at"
    assert json.loads(furiosa.thrum("whoami", "--json")["out"])["agent_id"] == "nux"


@pytest.mark.spec("ID-67", "ID-73")
def test_commands_that_use_no_identity_are_not_judged_and_a_pass_logs_nothing(repo: Repo, desk: Desks) -> None:
    nux, furiosa = drifted(repo, desk)
    before = len(fires(repo))
    for words in NEVER:
        done = furiosa.thrum(*words)
        assert (done["status"], done["err"]) == (0, ""), words
    assert nux.thrum("send", "at home")["status"] == 0
    furiosa.order(cd=str(repo.worktree("furiosa")))
    assert furiosa.thrum("send", "at home too")["status"] == 0
    assert furiosa.thrum("inbox", "--peek")["err"] == ""
    assert len(fires(repo)) == before


@pytest.mark.spec("ID-67", "ID-69")
def test_a_person_at_a_living_agent_s_desk_says_so_or_is_refused(repo: Repo, desk: Desks) -> None:
    session(desk, repo.worktree("nux"), "nux")
    shell = desk(repo.worktree("nux"), terminal=True)
    refused = error(shell.thrum("send", "x", "--json"))
    assert refused["kind"] == "cross_worktree"
    assert "set THRUM_NAME=nux to act as it on purpose" in refused["remedy"]
    for number, words in enumerate((["inbox", "--peek"], ["sent"], ["team"])):
        before = repo.facts()
        done = shell.thrum(*words)
        # Whoever looks again has read it.
        assert done["status"] == 0 and done["err"].count("warning: ") == (number == 0), done
        assert repo.facts() == before
    another = desk(repo.worktree("nux"), terminal=True)
    assert another.thrum("sent")["err"].count("warning: ") == 1
    done = shell.thrum("send", "on purpose", "--json", THRUM_NAME="nux")
    assert done["status"] == 0, done
    assert repo.facts("message.create")[-1]["agent_id"] == "nux"


@pytest.mark.spec("ID-61", "ID-67")
def test_a_stray_process_at_a_living_agent_s_desk_is_not_that_agent_but_by_its_first_environment(
    repo: Repo, desk: Desks
) -> None:
    """No terminal, no runtime: a `setsid` that was forgotten. An orchestrator and a hook say whom they mean."""
    session(desk, repo.worktree("nux"), "nux")
    stray = desk(repo.worktree("nux"))
    before = repo.facts("message.create")
    assert error(stray.thrum("send", "x", "--json"))["kind"] == "cross_worktree"
    assert error(stray.thrum("send", "x", "--json", THRUM_AGENT_ID="nux"))["kind"] == "cross_worktree"
    assert stray.send(caller_agent_id="nux") == "cross_worktree"
    frame = {"argv": ["send", "x", "--json"], "cwd": str(repo.worktree("nux")), "env": {"THRUM_NAME": "nux"}}
    answer = stray.ask("cli.run", **frame)["result"]
    assert json.loads(answer["stdout"])["error"]["kind"] == "cross_worktree", "a frame's environment is a claim"
    assert repo.facts("message.create") == before
    done = stray.thrum("inbox", "--peek")
    assert done["status"] == 0 and done["err"].count("warning: ") == 1, done
    hook = desk(repo.worktree("nux"), THRUM_NAME="nux")
    assert hook.send(caller_agent_id="nux") == "nux"
    assert hook.send(caller_agent_id="nux") == "nux"
    assert stray.thrum("send", "by its name", THRUM_NAME="nux")["status"] == 0
    records = [record for record in logged(repo) if record["message"] == "claim_by_name"]
    assert [record["agent"] for record in records] == ["nux", "nux"], "one for each process"
    elsewhere = desk(repo.main, THRUM_NAME="nux")
    assert elsewhere.send(caller_agent_id="nux") in ("identity_mismatch", "anonymous_caller")


@pytest.mark.spec("ID-69", "ID-71")
def test_a_second_session_is_refused_warned_or_let_through_as_the_files_say_now(repo: Repo, desk: Desks) -> None:
    session(desk, repo.worktree("nux"), "nux")
    second = desk(repo.worktree("nux"), "claude")
    assert error(second.thrum("send", "x", "--json"))["details"]["reason"] == "pid_mismatch"
    fired = len(fires(repo))
    repo.guards('{"cross_worktree": "warn"}')
    done = second.thrum("send", "warned")
    assert done["status"] == 0 and done["err"].count('identity guard "cross_worktree" fired') == 1, done
    assert [record["outcome"] for record in fires(repo)[fired:]] == ["allowed"]
    assert second.send() == "nux", "raw calls likewise"
    fired = len(fires(repo))
    repo.guards('{"identity_guard": {"cross_worktree": "off"}}')
    done = second.thrum("send", "silent")
    assert done["status"] == 0 and "guard" not in done["err"], done
    assert second.send() == "nux"
    assert len(fires(repo)) == fired
    repo.guards("{broken")
    assert error(second.thrum("send", "x", "--json"))["kind"] == "cross_worktree"
    assert second.send() == "cross_worktree"


@pytest.mark.spec("ID-58", "ID-60")
@pytest.mark.parametrize("mode", ["strict", "warn", "off"])
def test_no_mode_lets_an_agent_speak_in_another_s_name(repo: Repo, desk: Desks, mode: str) -> None:
    _, furiosa = drifted(repo, desk)
    repo.guards(json.dumps({"cross_worktree": mode, "unauthenticated_rpc": mode}))
    before = repo.facts()
    fired = len(fires(repo))
    done = furiosa.thrum("send", "as nux", "--json")
    assert error(done)["kind"] == ("cross_worktree" if mode == "strict" else "identity_mismatch")
    for method in ("message.send", "message.list", "team.list"):
        params = {"content": "x"} if method == "message.send" else {}
        assert kind(furiosa.ask(method, caller_agent_id="nux", **params)) == "identity_mismatch"
    assert repo.facts() == before
    denied = [record for record in fires(repo)[fired:] if record["outcome"] == "denied"]
    assert len([record for record in denied if record["reason"] == "identity_mismatch"]) >= 3
    assert furiosa.send() == "furiosa", "raw calls without a claim are its own"


@pytest.mark.spec("ID-32", "ID-67")
def test_a_variable_chooses_a_neighbour_whom_nobody_runs(repo: Repo, desk: Desks) -> None:
    home = repo.worktree("shared")
    repo.thrum("agent", "register", "--name", "quiet", "--role", "r", "--module", "quiet", at=home)
    loud = session(desk, home, "loud")
    done = loud.thrum("send", "as my neighbour", "--json", THRUM_NAME="quiet")
    assert done["status"] == 0, done
    assert repo.facts("message.create")[-1]["agent_id"] == "quiet"
    assert "agent_pid" not in json.loads((home / ".thrum/identities/quiet.json").read_text())


def test_without_a_daemon_the_command_judges_itself(repo: Repo, desk: Desks) -> None:
    _, furiosa = drifted(repo, desk)
    repo.thrum("daemon", "stop")
    try:
        done = furiosa.thrum("whoami", "--json")
        assert "cross_worktree" in json.loads(done["out"])["warnings"][0]
        assert error(furiosa.thrum("send", "x", "--json"))["kind"] == "cross_worktree"
        assert repo.daemon is None, "refused before anything was started"
        assert [record["outcome"] for record in fires(repo)[-2:]] == ["allowed", "denied"]
    finally:
        repo.thrum("daemon", "start")


@pytest.mark.spec("ID-64")
def test_an_unreadable_place_refuses_acts_by_its_step_allows_looks_and_is_logged(repo: Repo, desk: Desks) -> None:
    home = repo.worktree("gone")
    repo.agent("lost", at=home)
    shell = desk(home)
    assert shell.send() == "lost"
    gone = repo.top / "elsewhere"
    gone.mkdir()
    shell.order(cd=str(gone))
    gone.rmdir()
    fired = len(fires(repo))
    refused = shell.ask("message.send", content="x")["error"]["data"]
    assert (refused["kind"], refused["details"]["step"]) == ("caller_unproved", "cwd")
    [record] = fires(repo)[fired:]
    assert (record["level"], record["outcome"], record["step"]) == ("warning", "denied", "cwd")
    assert "result" in shell.ask("team.list")
    last = json.loads((repo.var / "daemon.log").read_text().splitlines()[-1])
    assert (last["level"], last["step"]) == ("warning", "cwd")
