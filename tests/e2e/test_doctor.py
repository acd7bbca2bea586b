"""`thrum doctor`: what is not fit is found, named and told how to fix, with and without a daemon."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon.repo import Done, Repo, open_repo
from thrum.model import clock, ids

NAMES = ["python", "git", "tmux", "repository", "readers", "socket", "space", "clock", "open files", "daemon",
         "config", "tracked", "hooks", "key", "identities", "repository id", "sync"]  # fmt: skip


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def doctor(repo: Repo, **options: Any) -> dict[str, dict[str, Any]]:
    done = repo.run("doctor", "--json", **options)
    found = done.json
    assert done.status == (0 if found["ok"] else 1), done
    assert found["ok"] == all(each["status"] != "fail" for each in found["checks"])
    assert all(each.get("remedy") for each in found["checks"] if each["status"] == "fail")
    return {each["name"]: each for each in found["checks"]}


def bad(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What is not right; tmux and the place of the command are the machine's."""
    return {
        name: each["status"] for name, each in found.items() if each["status"] != "ok" and name not in ("tmux", "hooks")
    }


def test_a_sound_repository_is_fit_with_and_without_a_daemon_and_none_is_started(repo: Repo) -> None:
    found = doctor(repo)
    assert list(found) == NAMES
    assert bad(found) == {}
    assert f"pid {repo.daemon}" in found["daemon"]["detail"]
    repo.thrum("daemon", "stop")
    before = set(repo.main.rglob("*"))
    found = doctor(repo)
    assert bad(found) == {}
    assert found["daemon"]["detail"].startswith("not running")
    assert not repo.daemon
    assert set(repo.main.rglob("*")) == before
    assert repo.thrum("doctor").splitlines()[1].startswith("ok    git            git version ")


def test_outside_a_repository_the_machine_is_looked_at_all_the_same(repo: Repo) -> None:
    done: Done = repo.run("doctor", at=repo.top)
    assert done.status == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("ok    python ")
    assert lines[-2].startswith("fail  repository     not a git repository")
    assert lines[-1].startswith("      fix: ")


def test_a_daemon_that_hangs_is_named_and_its_fix_fixes_it(repo: Repo) -> None:
    pid = repo.daemon
    assert pid
    os.kill(pid, signal.SIGSTOP)
    found = doctor(repo)
    assert found["daemon"]["status"] == "fail"
    assert found["daemon"]["remedy"] == "thrum daemon restart"
    repo.thrum("daemon", "restart")
    assert repo.daemon not in (None, pid)
    assert bad(doctor(repo)) == {}


def test_settings_that_are_broken_or_unknown_are_named(repo: Repo) -> None:
    path = repo.settings
    sound = path.read_text()
    (repo.main / ".thrum/config.json").unlink()
    path.write_text(json.dumps({**json.loads(sound), "colour": "blue"}))
    found = doctor(repo)
    assert bad(found) == {"config": "warn"}
    assert "colour" in found["config"]["detail"]
    path.write_text(sound[:-4])
    assert doctor(repo)["config"]["status"] == "fail"
    path.write_text(sound)
    repo.thrum("doctor", "--fix")
    assert json.loads((repo.main / ".thrum/config.json").read_text()) == json.loads(sound)


def test_a_clock_behind_the_newest_fact_is_named(repo: Repo) -> None:
    ms = clock.SystemClock().now_ms() + 2 * 3_600_000
    fact = {"type": "weather", "timestamp": clock.format_ms(ms), "event_id": f"evt_{ids.Ulids().at(ms)}", "v": 1}
    repo.thrum("daemon", "stop")
    with (repo.journals / "events.jsonl").open("a") as file:
        file.write(json.dumps(fact) + "\n")
    found = doctor(repo)
    assert found["clock"]["status"] == "warn"
    assert "119 min ahead" in found["clock"]["detail"] or "120 min ahead" in found["clock"]["detail"]


def test_one_agent_in_two_roots_is_named_with_both(repo: Repo) -> None:
    there = repo.worktree("bob") / ".thrum/identities/bob.json"
    here = repo.main / ".thrum/identities/bob.json"
    here.write_bytes(there.read_bytes())
    found = doctor(repo)
    assert bad(found) == {"identities": "warn"}
    assert str(here) in found["identities"]["detail"]
    assert str(there) in found["identities"]["detail"]


def test_a_made_repository_id_is_kept_when_an_origin_is_added_and_that_is_mentioned(repo: Repo) -> None:
    made = json.loads((repo.main / ".thrum/config.json").read_text())["identity"]["repo_id"]
    assert made in doctor(repo)["repository id"]["detail"]
    repo.git("remote", "add", "origin", "https://user:secret@example.org/me/app.git")
    found = doctor(repo)
    assert bad(found) == {"repository id": "warn"}
    assert found["repository id"]["detail"].startswith(f"{made} is kept")
    assert "secret" not in json.dumps(found)


def test_sync_that_is_turned_on_without_a_remote_is_named(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    repo.thrum("config", "set", "daemon.local_only", "false")
    found = doctor(repo)
    assert (found["sync"]["status"], found["sync"]["remedy"]) == ("warn", "git remote add origin URL")
    repo.git("remote", "add", "origin", "https://user:secret@example.org/me/app.git")
    found = doctor(repo)
    assert found["sync"]["detail"].startswith("origin (https://example.org/me/app.git)")
    assert "secret" not in json.dumps(found)


def test_open_directories_of_the_socket_are_named(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    repo.var.chmod(0o755)
    found = doctor(repo)
    assert found["socket"]["status"] == "fail"
    assert found["socket"]["remedy"].startswith(f"chmod 700 {repo.var}")


def test_a_sandbox_that_forbids_sockets_is_named(repo: Repo) -> None:
    program = (
        "import socket\n"
        "from thrum.cli.app import main\n"
        "def forbidden(*_):\n"
        "    raise PermissionError(1, 'Operation not permitted')\n"
        "socket.socket.bind = forbidden\n"
        "main(['doctor', '--json'])\n"
    )
    found = {each["name"]: each for each in repo.spawn_python("-c", program).end().json["checks"]}
    assert found["socket"]["status"] == "fail"
    assert found["socket"]["detail"] == "a sandbox forbids Unix sockets"


def test_a_thrum_that_hooks_cannot_find_is_named(repo: Repo) -> None:
    hook = repo.main / ".claude/settings.json"
    hook.parent.mkdir()
    kept = repo.top / "dotfiles.json"  # as people have it who keep their settings elsewhere
    kept.write_text('{"hooks": {"SessionStart": "thrum prime"}}')
    hook.symlink_to(kept)
    python = os.path.dirname(sys.executable)
    assert ".claude/settings.json" in doctor(repo, env={"PATH": f"{python}:{os.environ['PATH']}"})["hooks"]["detail"]
    lacking = os.pathsep.join(
        each for each in os.environ["PATH"].split(os.pathsep) if not os.path.exists(f"{each}/thrum")
    )
    found = doctor(repo, env={"PATH": lacking})
    assert found["hooks"]["status"] == "warn"
    assert found["hooks"]["detail"].startswith("thrum is not on PATH, and .claude/settings.json call it")
