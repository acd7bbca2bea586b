"""The tmux commands, and a worktree with an agent, on a tmux server of the test's own."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.callers import Desks
from tests.support.daemon.repo import SECONDS, Done, Repo, wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

TOOL = "#!/bin/sh\necho I am $THRUM_NAME$THRUM_ROLE\nexec cat\n"


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    """leon in `main`, a runtime `mytool` of the user's own; tests of this module share it."""
    repo = Repo()
    home = repo.top / "home"
    try:
        (home / ".thrum").mkdir(parents=True)
        shutil.copy(Path(repo.env["HOME"], ".gitconfig"), home)
        (home / "mytool").write_text(TOOL)
        (home / "mytool").chmod(0o755)
        own = {"custom_runtimes": {"mytool": {"command": "mytool"}, "lost": {"command": "not-there"}}}
        (home / ".thrum" / "runtimes.json").write_text(json.dumps(own))
        path = f"{home}{os.pathsep}{repo.env['PATH']}"
        repo.env.update(HOME=str(home), TMUX_TMPDIR=str(home), SHELL="/bin/sh", PATH=path)
        repo.env.pop("TMUX", None)
        repo.thrum("init")
        repo.thrum("quickstart", "leon", "--role", "developer", "--module", "all", "--no-agent-pid")
        yield repo
    finally:
        subprocess.run(["tmux", "kill-server"], env=repo.env, capture_output=True, check=False)
        repo.close()


def tmux(repo: Repo, *words: str) -> str:
    return subprocess.run(
        ["tmux", *words], env=repo.env, capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout


def states(repo: Repo) -> dict[str, str]:
    return {each["name"]: each["state"] for each in repo.json("tmux", "status")["sessions"]}


def shows(repo: Repo, session: str, words: str) -> None:
    wait_until(lambda: words in repo.thrum("tmux", "capture", session), f"{session} shows {words!r}")


def kind(done: Done) -> str:
    assert done.status == 1 and done.json["error"]["remedy"], done
    return done.kind


def test_a_worktree_with_an_agent_is_a_registered_agent_in_a_session_whose_runtime_does_not_run(repo: Repo) -> None:
    words = ("worktree", "create", "auth", "--name", "nux", "--role", "tester", "--module", "auth")
    done = repo.run(*words, "--intent", "test the refresh", "--runtime", "mytool")
    assert done.status == 0 and "✓ Registered as @nux" in done.out and "✓ Session created: auth" in done.out, done
    assert done.err == "hint: start the agent with: thrum tmux launch auth\n"
    (row,) = repo.json("tmux", "status")["sessions"]
    assert row == {
        "name": "auth",
        "agent": "nux",
        "role": "tester",
        "module": "auth",
        "state": "stale",
        "runtime": "mytool",
        "branch": "feature/auth",
    }
    (member,) = [each for each in repo.json("team")["members"] if each["agent_id"] == "nux"]
    assert (member["intent"], member["tmux_session"]) == ("test the refresh", "auth")
    assert "agent_pid" not in member, "no process is recorded before there is one"
    again = repo.json(*words)
    assert (again["reused"], again["session"], again["agent_id"]) == (True, "auth", "nux"), "it may be repeated"
    places = [each for each in repo.facts("agent.place") if each["agent_id"] == "nux"]
    assert places[-1]["tmux_session"] == "auth" and places[-1]["pane"].startswith("%")


def test_the_runtime_is_the_agents_own_and_runs_as_that_agent_in_a_clean_environment(repo: Repo) -> None:
    said = repo.thrum("tmux", "launch", "auth", env={"THRUM_ROLE": "somebody", "THRUM_NAME": "leon"})
    assert said == "Launched mytool in session auth\n"
    shows(repo, "auth", "I am nux\n")
    assert states(repo)["auth"] == "alive"
    assert kind(repo.run("tmux", "launch", "auth", "--json")) == "agent_alive"
    told = repo.thrum("tmux", "send", "auth", "hello there")
    assert told == "Typed 11 characters and Enter into session auth\n"
    shows(repo, "auth", "hello there\nhello there")
    escape = repo.run("tmux", "send", "auth", "\x1b[201~ rm -rf", "--json")
    assert escape.kind == "invalid_params", "what ends a paste is no text"
    assert repo.json("tmux", "capture", "auth", "-n", "1")["content"] == "hello there"


def test_a_session_is_restarted_only_when_its_agent_is_idle_or_by_force_with_what_was_said_kept(repo: Repo) -> None:
    root = repo.top / "home/.thrum/worktrees/main/auth"
    assert kind(repo.run("tmux", "restart", "auth", "--json")) == "agent_alive"
    record = repo.top / "record.jsonl"
    record.write_text(json.dumps({"type": "user", "message": {"content": "test the refresh"}}) + "\n")
    env = {"THRUM_NAME": "nux"}
    assert repo.run("tmux", "snapshot", "check", at=root, env=env).status == 1
    assert repo.run("tmux", "snapshot", "restore", "--json", at=root, env=env).kind == "no_snapshot"
    assert repo.run("tmux", "snapshot", "save", "--json", at=root, env=env).kind == "no_snapshot"
    saved = repo.json("tmux", "snapshot", "save", "--jsonl", "../../../../../record.jsonl", at=root, env=env)
    assert saved == {"agent_id": "nux", "path": str(root / ".thrum/restart/nux.md"), "lines": 2}
    assert repo.thrum("tmux", "snapshot", "restore", at=root, env=env) == "[user]\ntest the refresh\n"
    before = tmux(repo, "display-message", "-p", "-t", "=auth:", "#{pane_pid}")
    assert repo.thrum("tmux", "restart", "auth", "--force") == "Session auth restarted (0 snapshot lines)\n"
    shows(repo, "auth", "I am nux")
    assert tmux(repo, "display-message", "-p", "-t", "=auth:", "#{pane_pid}") != before
    assert repo.run("tmux", "snapshot", "check", at=root, env=env).status == 0, "what the agent saved itself stays"
    briefing = repo.thrum("prime", at=root, env=env)
    assert "## Before the restart" in briefing and "test the refresh" in briefing.partition("## Before the restart")[2]
    assert repo.run("tmux", "snapshot", "check", at=root, env=env).status == 1, "it is told once"
    assert "## Before the restart" not in repo.thrum("prime", at=root, env=env)


def test_a_session_that_is_gone_is_made_again_and_its_end_is_noted(repo: Repo) -> None:
    tmux(repo, "kill-session", "-t", "=auth")
    assert states(repo)["auth"] == "dead"
    root = repo.top / "home/.thrum/worktrees/main/auth"
    repo.thrum("agent", "rename", "slit", at=root, env={"THRUM_NAME": "nux"})
    assert repo.thrum("tmux", "launch", "auth") == "Launched mytool in session auth\n"
    shows(repo, "auth", "I am slit")
    repo.thrum("agent", "rename", "nux", at=root, env={"THRUM_NAME": "slit"})
    (row,) = repo.json("tmux", "status")["sessions"]
    assert (row["agent"], row["state"]) == ("nux", "alive"), "a session is its agent's, whatever that is called by now"
    assert repo.thrum("tmux", "kill", "auth") == "Session auth killed\n"
    assert "auth" not in states(repo)
    assert kind(repo.run("tmux", "kill", "auth", "--json")) == "tmux_session_not_found"
    assert "tmux_session" not in repo.json("whoami", env={"THRUM_NAME": "nux"}, at=root)


def test_what_is_in_the_way_of_a_session_is_refused_before_anything_is_done(repo: Repo) -> None:
    root = repo.top / "home/.thrum/worktrees/main/auth"
    facts = len(repo.facts())
    for words, at, expected in (
        (["work", "--cwd", "/"], repo.main, "not_a_worktree"),
        (["work", "--cwd", str(repo.top / "nowhere")], repo.main, "not_a_worktree"),
        (["a.b", "--no-agent"], repo.main, "usage"),
        (["work", "--name", "new"], repo.main, "role_missing"),
        (["work", "--name", "new", "--role", "tester"], repo.main, "module_missing"),
        (["work", "--name", "leon", "--role", "tester", "--module", "auth"], root, "conflict"),
    ):
        done = repo.run("tmux", "create", *words, "--json", at=at)
        assert done.kind == expected, (words, done)
    assert len(repo.facts()) == facts
    assert states(repo) == {}
    repo.thrum("tmux", "create", "plain", "--no-agent")
    assert kind(repo.run("tmux", "create", "plain", "--no-agent", "--json")) == "tmux_session_exists"
    assert kind(repo.run("tmux", "launch", "plain", "--runtime", "mytool", "--json")) == "no_agent_in_session"
    assert repo.thrum("tmux", "launch", "plain", "--runtime", "shell") == "Launched shell in session plain\n"
    created = repo.json("tmux", "quickstart", "auth", at=root)
    assert created["identity"]["agent"]["name"] == "nux", "whoever is registered there needs no words"
    for runtime in ("zork", "lost"):
        assert kind(repo.run("tmux", "launch", "auth", "--runtime", runtime, "--json")) == "runtime_not_found"
    assert repo.thrum("tmux", "list").splitlines()[0].split() == ["SESSION", "AGENT", "STATE", "RUNTIME", "BRANCH"]


def test_a_session_is_shown_in_a_terminal_and_in_nothing_else(repo: Repo) -> None:
    assert repo.run("tmux", "connect", "plain", "--json").status == 0
    assert "is none" in repo.run("tmux", "connect", "plain").err
    assert kind(repo.run("tmux", "connect", "pla", "--json")) == "tmux_session_not_found"
    root = repo.top / "home/.thrum/worktrees/main/auth"
    for words in (["tmux", "connect", "plain"], ["tmux", "start"]):
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(root)
            os.execve(repo.program, ["thrum", *words], {**repo.env, "TERM": "xterm-256color"})
        name = "plain" if "plain" in words else "auth"
        clients = ("list-clients", "-t", f"={name}", "-F", "#{session_name}")
        wait_until(lambda clients=clients: tmux(repo, *clients).strip(), f"{words} shows {name}")
        tmux(repo, "detach-client", "-s", f"={name}")
        drained = _drain(terminal)
        assert os.waitpid(pid, 0)[1] == 0, drained
        os.close(terminal)
    shows(repo, "auth", "I am nux")


def _drain(terminal: int) -> bytes:
    """What a terminal's program prints up to its end."""
    said = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            return said
        if not piece:
            return said
        said += piece


def test_a_teardown_takes_the_session_and_the_agent_along(repo: Repo) -> None:
    done = repo.json("worktree", "teardown", "auth", "--delete-branch")
    assert (done["session_killed"], done["agents_deleted"], done["branch_deleted"]) == ("auth", ["nux"], "feature/auth")
    assert states(repo) == {"plain": "stale"}
    assert not (repo.top / "home/.thrum/worktrees/main/auth").exists()


def test_where_an_agent_runs_no_other_begins_and_one_that_has_ended_gives_way_by_force(repo: Repo, desk: Desks) -> None:
    root = Path(repo.json("worktree", "create", "lived")["worktree_path"])
    runtime = desk(root, "claude")
    assert runtime.thrum("quickstart", "max", "--role", "builder", "--module", "core")["status"] == 0
    words = ("tmux", "create", "lived", "--name", "slit", "--role", "tester", "--module", "core")
    for force in ((), ("--force",)):
        assert kind(repo.run(*words, *force, "--json", at=root)) == "identity_alive"
    assert kind(repo.run("worktree", "teardown", "lived", "--json")) == "agent_alive"
    runtime.close()
    wait_until(lambda: "[live]" not in repo.thrum("team", "--all"), "its process has ended")
    assert kind(repo.run(*words, "--json", at=root)) == "identity_stale"
    taken = repo.run(*words, "--force", "--json", at=root)
    assert taken.status == 0 and "@max is moved away" in taken.json["warnings"][0], taken
    assert taken.json["identity"]["agent"]["name"] == "slit"
    assert repo.thrum("worktree", "teardown", "lived", "--force").splitlines()[0] == "✓ Worktree lived removed"


def test_without_tmux_an_agent_is_registered_and_the_rest_is_said(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    bare = repo.top / "few"
    bare.mkdir()
    for program in ("git", "sh"):
        (bare / program).symlink_to(shutil.which(program) or "")
    env = {"PATH": str(bare)}
    words = ("worktree", "create", "quiet", "--name", "max", "--role", "tester", "--module", "docs")
    done = repo.run(*words, env=env)
    assert done.status == 0 and "tmux is not installed" in done.err and "✓ Registered as @max" in done.out, done
    assert kind(repo.run("tmux", "status", "--json", env=env)) == "tmux_missing"
    repo.thrum("daemon", "stop")
