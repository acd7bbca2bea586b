"""Runtimes of the user's own, of `~/.thrum/runtimes.json`, are known as agents' processes (identity.md §5)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.callers import Desks, kind
from tests.support.daemon.repo import Repo

pytestmark = pytest.mark.spec("ID-25")


@pytest.fixture
def repo() -> Iterator[Repo]:
    repo = Repo()
    try:
        home = repo.top / "home"
        (home / ".thrum").mkdir(parents=True)
        shutil.copy(Path(repo.env["HOME"], ".gitconfig"), home)
        repo.env["HOME"] = str(home)
        repo.thrum("init")
        repo.thrum("daemon", "start")
        yield repo
    finally:
        repo.close()


def write(repo: Repo, text: str) -> None:
    (Path(repo.env["HOME"]) / ".thrum/runtimes.json").write_text(text)


MINE = json.dumps({"custom_runtimes": {"mine": {"name": "mine", "command": "mytool --yolo"}}})


def test_a_process_of_an_own_runtime_is_an_agents_and_no_restart_is_needed(repo: Repo, desk: Desks) -> None:
    daemon = repo.daemon
    shell, early = desk(repo.main, "mytool"), desk(repo.worktree("early"), "mytool")
    assert "result" in early.ask("health"), "connected before the runtime was known"
    plain = shell.thrum("quickstart", "furiosa", "--role", "builder", "--module", "core")
    assert plain["status"] == 0, plain
    assert "[live]" not in repo.thrum("team")
    write(repo, MINE)
    agent = desk(repo.main, "mytool")
    assert agent.thrum("send", "hi")["status"] == 0
    assert "[live]" in repo.thrum("team")
    assert repo.json("whoami")["pid"] == agent.pid
    # Another one may not speak as an agent that lives: now it is known for a second runtime.
    assert "cross_worktree" in desk(repo.main, "mytool").thrum("send", "hi")["err"]
    assert early.register("nux", "tester")["result"]["status"] == "registered"
    assert repo.json("whoami", at=repo.top / "early")["pid"] == early.pid
    assert repo.daemon == daemon


def test_a_command_in_its_own_process_knows_them_too(repo: Repo, desk: Desks) -> None:
    write(repo, MINE)
    agent = desk(repo.main, "mytool")
    assert agent.thrum("quickstart", "furiosa", "--role", "builder", "--module", "core")["status"] == 0
    second = desk(repo.main, "mytool").thrum("send", "hi", THRUM_LOCAL="1")
    assert second["status"] == 1
    assert "thrum quickstart NEWNAME --role ROLE --module MODULE" in second["err"], second


def test_a_broken_file_harms_nothing(repo: Repo, desk: Desks) -> None:
    claude = desk(repo.main, "claude")
    write(repo, "{ broken")
    assert claude.thrum("quickstart", "furiosa", "--role", "builder", "--module", "core")["status"] == 0
    assert "[live]" in repo.thrum("team")
    assert kind(desk(repo.worktree("other"), "claude").ask("message.send", content="hi")) == "anonymous_caller"
    assert "runtimes: runtimes.json: Expecting property name enclosed in double quotes at line 1" in repo.thrum(
        "daemon", "logs"
    )
