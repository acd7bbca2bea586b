"""`thrum run`: what it sets up, what it refuses, and that the program it starts has the terminal, the arguments and the
last word. With agent programs that wake: tests/runtimes/test_run.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, wait_until

PROGRAM = """#!/bin/sh
echo "$$ $THRUM_NAME $PWD $*"
trap 'exit 9' USR1
[ "$1" = stay ] && { while :; do sleep 0.1; done; }
exit 7
"""


@pytest.fixture
def repo() -> Iterator[Repo]:
    found = Repo()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def program(repo: Repo) -> Path:
    path = repo.top / "agentprogram"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def place_of(repo: Repo, agent: str) -> dict[str, Any]:
    return [fact for fact in repo.facts("agent.place") if fact["agent_id"] == agent][-1]


def test_from_an_empty_repository_to_an_agent_whose_process_is_the_program(repo: Repo, program: Path) -> None:
    done = repo.run("run", "zed", str(program), "--intent", "the parser", "--", "-p", "a b", "--json")
    assert done.status == 7, "the program's status is the command's"
    pid, name, place, *arguments = done.out.split()
    assert (name, place, arguments) == ("zed", str(repo.main), ["-p", "a", "b", "--json"])
    assert done.err.startswith(f"✓ Thrum initialized in {repo.main}\n✓ @zed (agentprogram, zed): agentprogram starts")
    assert place_of(repo, "zed")["agent_pid"] == int(pid)
    wait_until(lambda: [fact["agent_id"] for fact in repo.facts("agent.exit")] == ["zed"], "its end is noticed")
    assert repo.json("agent", "list")["agents"]["agents"][0]["agent_id"] == "zed"


def test_a_name_that_runs_is_refused_and_one_that_ended_goes_on(repo: Repo, program: Path) -> None:
    repo.thrum("init")
    first = repo.start("run", "zed", str(program), "--", "stay")
    try:
        assert first.line().split()[1] == "zed"
        refused = repo.run("run", "zed", str(program))
        assert refused.status == 1 and f"@zed is pid {first.process.pid}, alive in this worktree" in refused.err
        assert repo.run("run", "other", str(program)).status == 7, "another may work beside it"
        first.process.send_signal(signal.SIGUSR1)
        assert first.process.wait(60) == 9
    finally:
        first.process.kill()
        first.process.communicate()
    wait_until(lambda: "zed" in [fact["agent_id"] for fact in repo.facts("agent.exit")], "its end")
    assert repo.run("run", "zed", str(program)).status == 7


def test_it_works_in_a_worktree_that_it_makes_and_takes_a_name_along_by_force_alone(repo: Repo, program: Path) -> None:
    repo.thrum("init")
    done = repo.run("run", "zed", str(program), "--worktree", "side", "--role", "tester", "--", "x")
    assert done.status == 7, done
    listed = repo.json("worktree", "list")["worktrees"]
    side = next(each["path"] for each in listed if each["path"].endswith("/side"))
    assert done.out.split()[1:] == ["zed", side, "x"]
    refused = repo.run("run", "zed", str(program))
    assert refused.status == 1 and "is registered in another worktree" in refused.err and "--force" in refused.err
    assert repo.run("run", "zed", str(program), "--force").status == 7
    assert place_of(repo, "zed")["worktree_path"] == str(repo.main)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["zed", "no-such-program"], "there is no runtime and no program 'no-such-program'"),
        (["zed", "sh", "-c"], "unknown flag -c"),
        (["zed", "sh", "x"], "unexpected argument: x"),
        (["zed", "sh", "--json"], "--json goes with --tmux"),
        (["Zed!", "sh"], "Zed!"),
        (["sh", "sh"], "cannot be the same as its role"),
    ],
)
def test_what_it_cannot_do_is_refused(repo: Repo, words: list[str], said: str) -> None:
    done = repo.run("run", *words)
    told = json.loads(done.out)["error"]["message"] if "--json" in words else done.err
    assert done.status != 0 and said in told
    assert not repo.facts("agent.register") if (repo.main / ".git/thrum-sync").exists() else True


def test_a_name_left_in_the_terminal_is_not_used(repo: Repo, program: Path) -> None:
    repo.thrum("init")
    repo.agent("alice", at=repo.main)
    done = repo.run("run", "zed", str(program), env={"THRUM_NAME": "alice", "THRUM_ROLE": "boss"})
    assert done.out.split()[1] == "zed"
    agents = {each["agent_id"]: each["role"] for each in repo.json("agent", "list")["agents"]["agents"]}
    assert agents["zed"] == "agentprogram" and agents["alice"] != "boss"


def test_below_another_runtime_it_starts_none(repo: Repo, program: Path) -> None:
    repo.thrum("init")
    above = repo.top / "claude"
    words = [str(repo.program), "run", "zed", str(program)]
    above.write_text(f"import subprocess, sys\nsys.exit(subprocess.call({words}))\n")
    done = subprocess.run([sys.executable, above], cwd=repo.main, env=repo.env, capture_output=True, text=True)
    assert done.returncode == 1 and "claude runs above this terminal" in done.stderr
    assert "thrum run zed --tmux" in done.stderr


def test_claudes_hooks_are_given_for_the_run_alone(repo: Repo) -> None:
    repo.thrum("init")
    claude = repo.top / "bin/claude"
    claude.parent.mkdir()
    claude.write_text('#!/bin/sh\n[ "$1" = --settings ] && cat "$2"; shift 2; echo "rest: $*"\n')
    claude.chmod(0o755)
    env = {"PATH": f"{claude.parent}:{repo.env['PATH']}"}
    done = repo.run("run", "zed", "claude", "--", "-c", env=env)
    settings, _, rest = done.out.rpartition("rest: ")
    assert rest == "-c\n"
    assert {*json.loads(settings)["hooks"]} == {"SessionStart", "UserPromptSubmit", "PermissionRequest", "Stop"}
    assert repo.git("status", "--porcelain", "--ignored") in ("", "!! .thrum/\n")
    assert not (repo.main / ".claude").exists()
    own = repo.run("run", "zed", "claude", "--", "--settings", "mine.json", env=env)
    assert "thrum's hooks are not given: thrum hook install claude" in own.err and own.out.endswith("rest: \n")
    repo.thrum("hook", "install", "claude")
    assert "hooks" not in repo.run("run", "zed", "claude", env=env).out, "installed ones are not given twice"
