"""Who is alive: real processes that are killed, forged, and left as zombies (identity.md §5, §7, §9)."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Desk, Desks, result
from tests.support.daemon.repo import Repo, open_repo, wait_until
from thrum.bus.subscriber import open_stream
from thrum.identity.processes import open_process_table


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


def path_of(root: Path, name: str) -> Path:
    return root / ".thrum/identities" / f"{name}.json"


def in_file(root: Path, name: str) -> dict[str, Any]:
    return json.loads(path_of(root, name).read_text())


def quickstart(desk: Desk, name: str, **env: str) -> str:
    """A registered agent with a session; its session id."""
    done = desk.thrum("quickstart", name, "--role", "builder", "--module", f"m_{name}", "--json", **env)
    assert done["status"] == 0, done
    return json.loads(done["out"])["session"]["session_id"]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def exits(repo: Repo) -> list[str]:
    return [fact["agent_id"] for fact in repo.facts("agent.exit")]


def started(pid: int) -> str:
    process = open_process_table().read(pid)
    assert process is not None
    return process.started


def fires(repo: Repo, guard: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (repo.var / "daemon.log").read_text().splitlines()]
    return [line for line in lines if line["message"] == "identity_guard_fire" and line["guard"] == guard]


@pytest.mark.spec("ID-27", "ID-28")
def test_a_death_is_a_fact_and_a_hint_and_shown_and_leaves_file_and_session(repo: Repo, desk: Desks) -> None:
    claude = desk(repo.main, "claude")
    session_id = quickstart(claude, "furiosa")
    assert f"PID:      {claude.pid} [live]" in repo.thrum("team")
    with open_stream("team/", repo=repo.main) as team:
        kill(claude.pid)
        hint = next(each for each in team if each.type == "agent.exit")
    [fact] = repo.facts("agent.exit")
    assert hint.event_id == fact["event_id"]
    assert (fact["agent_id"], fact["agent_pid"]) == ("furiosa", claude.pid)
    shown = repo.thrum("team")
    assert f"PID:      {claude.pid} [stale]" in shown and "@furiosa [active]" in shown
    assert in_file(repo.main, "furiosa")["agent_pid"] == claude.pid
    assert repo.facts("agent.session.end") == []
    assert repo.json("team")["members"][0]["session_id"] == session_id


@pytest.mark.spec("ID-28")
def test_a_death_without_a_daemon_is_found_at_the_next_start_and_told_once(repo: Repo, desk: Desks) -> None:
    claude = desk(repo.main, "claude")
    quickstart(claude, "furiosa")
    repo.kill_daemon()
    kill(claude.pid)
    repo.thrum("daemon", "start")
    wait_until(lambda: exits(repo) == ["furiosa"], "the death that happened meanwhile")
    repo.thrum("daemon", "restart")
    repo.thrum("team")
    assert exits(repo) == ["furiosa"]


@pytest.mark.spec("ID-28")
@pytest.mark.parametrize(("bound", "reason"), [(True, "crash"), (False, "normal")])
def test_sessions_that_nobody_ends_end_by_themselves(bound: bool, reason: str, repo: Repo, desk: Desks) -> None:
    repo.thrum("config", "set", "daemon.stale_session_end", "1s")
    repo.thrum("daemon", "restart")
    if bound:
        claude = desk(repo.main, "claude")
        session_id = quickstart(claude, "furiosa")
        kill(claude.pid)
    else:
        repo.agent("furiosa", at=repo.main)
        [start] = repo.facts("agent.session.start")
        session_id = start["session_id"]
    wait_until(lambda: repo.facts("agent.session.end"), "the session's end")
    [end] = repo.facts("agent.session.end")
    assert (end["session_id"], end["reason"]) == (session_id, reason)
    assert exits(repo) == (["furiosa"] if bound else [])
    wait_until(lambda: "session_id" not in in_file(repo.main, "furiosa"), "the file follows")


@pytest.mark.spec("ID-23")
def test_a_dead_owner_s_tmux_session_is_cleared_in_the_file(repo: Repo, desk: Desks) -> None:
    claude = desk(repo.main, "claude")
    quickstart(claude, "furiosa")
    path = path_of(repo.main, "furiosa")
    path.write_text(json.dumps(in_file(repo.main, "furiosa") | {"tmux_session": "work:1.0", "mine": 1}))
    kill(claude.pid)
    wait_until(lambda: "tmux_session" not in in_file(repo.main, "furiosa"), "the file is tidied")
    assert in_file(repo.main, "furiosa")["agent_pid"] == claude.pid
    assert in_file(repo.main, "furiosa")["mine"] == 1
    assert fires(repo, "daemon_writer_liveness") == []


@pytest.mark.spec("ID-25", "ID-27")
def test_a_zombie_is_dead(repo: Repo) -> None:
    """The runtime's parent waits for nobody."""
    script = repo.top / "claude"
    script.write_text("import subprocess, sys\nsubprocess.call(sys.argv[1:])\nsys.stdin.read()\n")
    quickstart_words = ["thrum", "quickstart", "furiosa", "--role", "r", "--module", "m"]
    parent = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\nsys.stdin.readline()\nos.kill(child.pid, 9)\n"
        "os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)\nprint('zombie', flush=True)\nsys.stdin.read()\n"
    )
    bin_path = Path(sys.executable).parent
    argv = [sys.executable, "-c", parent, sys.executable, str(script), str(bin_path / quickstart_words[0])]
    running = repo.start_program([*argv, *quickstart_words[1:]], repo.main)
    pid = int(running.line())
    wait_until(lambda: path_of(repo.main, "furiosa").exists(), "the registration")
    wait_until(lambda: in_file(repo.main, "furiosa").get("agent_pid") == pid, "its process in the file")
    assert f"{pid} [live]" in repo.thrum("team", "--all")
    running.say("go")
    assert running.line() == "zombie"
    wait_until(lambda: exits(repo) == ["furiosa"], "the death of a zombie")
    assert os.path.exists(f"/proc/{pid}") or sys.platform != "linux"
    assert f"{pid} [stale]" in repo.thrum("team", "--all")


# -- adoption


@pytest.mark.spec("ID-37")
def test_the_first_act_under_a_runtime_adopts_and_a_look_does_not(repo: Repo, desk: Desks) -> None:
    repo.agent("furiosa", at=repo.main)
    claude = desk(repo.main, "claude")
    for words in (["inbox", "--peek"], ["inbox", "--unread"], ["team"], ["whoami"], ["sent"], ["agent", "list"]):
        assert claude.thrum(*words)["status"] == 0
        assert "agent_pid" not in in_file(repo.main, "furiosa"), words
    assert claude.thrum("send", "hello")["status"] == 0
    data = in_file(repo.main, "furiosa")
    assert (data["agent_pid"], data["agent_pid_started"]) == (claude.pid, started(claude.pid))
    place = repo.facts("agent.place")[-1]
    assert (place["agent_pid"], place["runtime"]) == (claude.pid, "claude")
    layout = len(repo.facts("agent.place"))
    claude.thrum("send", "again")
    assert len(repo.facts("agent.place")) == layout


@pytest.mark.spec("ID-38", "ID-73")
def test_a_new_session_takes_over_from_a_dead_one_and_one_event_tells(repo: Repo, desk: Desks) -> None:
    first = desk(repo.main, "claude")
    session_id = quickstart(first, "furiosa")
    kill(first.pid)
    second = desk(repo.main, "codex")
    assert second.thrum("send", "back again")["status"] == 0
    assert in_file(repo.main, "furiosa")["agent_pid"] == second.pid
    [fired] = fires(repo, "dead_pid_auto_reclaim")
    assert (fired["outcome"], fired["reason"], fired["mode"]) == ("auto_reclaimed", "dead_owner_reclaimed", "warn")
    assert (fired["expected_agent"], fired["expected_pid"]) == ("furiosa", first.pid)
    [end] = repo.facts("agent.session.end")
    assert (end["session_id"], end["reason"]) == (session_id, "crash_recovered")
    assert f"{second.pid} [live]" in repo.thrum("team")


@pytest.mark.spec("ID-38", "ID-71")
def test_with_reclaim_off_a_dead_owner_s_agent_is_not_taken_over(repo: Repo, desk: Desks) -> None:
    first = desk(repo.main, "claude")
    quickstart(first, "furiosa")
    kill(first.pid)
    wait_until(lambda: exits(repo), "its death")
    repo.guards('{"dead_pid_auto_reclaim": "off"}')
    second = desk(repo.main, "codex")
    before = repo.facts()
    done = second.thrum("send", "as furiosa", "--json")
    assert json.loads(done["out"])["error"]["details"]["guard"] == "cross_worktree"
    assert second.send() == "cross_worktree", "raw calls likewise"
    assert repo.facts() == before
    assert in_file(repo.main, "furiosa")["agent_pid"] == first.pid
    repo.guards()
    assert second.thrum("send", "as furiosa")["status"] == 0


@pytest.mark.spec("ID-26", "ID-38")
def test_a_live_pid_with_another_start_is_nobody(repo: Repo, desk: Desks) -> None:
    """What a pid that was used again looks like: the record names a living process that started at another time."""
    first = desk(repo.main, "claude")
    quickstart(first, "furiosa")
    repo.thrum("daemon", "stop")
    forged = "f0f0f0f0-0000-4000-8000-000000000000/1"
    path_of(repo.main, "furiosa").write_text(json.dumps(in_file(repo.main, "furiosa") | {"agent_pid_started": forged}))
    journal = repo.local_journal
    journal.write_text(journal.read_text().replace(started(first.pid), forged))
    repo.delete_database()
    repo.thrum("daemon", "start")
    wait_until(lambda: exits(repo) == ["furiosa"], "the watcher sees another process")
    assert f"{first.pid} [stale]" in repo.thrum("team", "--all")
    second = desk(repo.main, "codex")
    assert second.thrum("send", "mine now")["status"] == 0
    assert in_file(repo.main, "furiosa")["agent_pid"] == second.pid


@pytest.mark.spec("ID-39")
def test_a_second_session_never_takes_a_living_one_s_place(repo: Repo, desk: Desks) -> None:
    first, second = desk(repo.main, "claude"), desk(repo.main, "claude")
    quickstart(first, "furiosa")
    before = repo.facts()
    assert second.send() == "cross_worktree"
    assert second.send(caller_agent_id="furiosa") == "cross_worktree"
    assert second.thrum("send", "mine")["status"] == 1
    assert second.thrum("send", "mine", THRUM_NAME="furiosa")["status"] == 1
    assert repo.facts() == before
    assert in_file(repo.main, "furiosa")["agent_pid"] == first.pid


@pytest.mark.spec("ID-42")
def test_a_shell_never_adopts(repo: Repo, desk: Desks) -> None:
    repo.agent("furiosa", at=repo.main)
    shell = desk(repo.main)
    result(shell.ask("message.send", content="from a shell"))
    assert repo.thrum("send", "from another")
    assert "agent_pid" not in in_file(repo.main, "furiosa")
