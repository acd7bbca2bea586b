"""An agent in a session of thrum's is asked to save what it knows before it is restarted (cli.md 3.18)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, open_lab, trust
from tests.support.daemon.repo import THRUM, Repo, wait_until
from thrum.runtimes import hook_files


@dataclass
class Session:
    """bob's session, made and launched by thrum on the lab's own tmux server."""

    lab: Lab
    repo: Repo
    bob: Path

    def state(self) -> str:
        (row,) = self.repo.json("wake", "@bob")["agents"]
        return str(row.get("state", ""))

    def wait_idle(self) -> None:
        wait_until(lambda: self.state() == "idle", f"bob is idle: {self.repo.thrum('tmux', 'capture', 'bob')}")
        wait_until(lambda: "❯" in self.repo.thrum("tmux", "capture", "bob"), "its prompt")

    def snapshot(self) -> str:
        path = self.bob / ".thrum/restart/bob.md"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("claude") as found:
        yield found


@pytest.fixture
def session(lab: Lab) -> Iterator[Session]:
    repo = Repo(lab.top)
    folder = lab.top / "tm" / f"tmux-{os.getuid()}"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / "default").symlink_to(lab.top / "tmux.sock")
    repo.env.update(lab.environment(TMUX_TMPDIR=str(folder.parent)))
    repo.env.pop("TMUX", None)
    try:
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        bob = repo.agent("bob")
        settings = bob / ".claude/settings.local.json"
        settings.parent.mkdir()
        settings.write_text(hook_files.installed("", "claude", str(THRUM)))
        trust(lab, bob)
        repo.thrum("tmux", "create", "bob", "--cwd", str(bob), "--name", "bob", "--runtime", "claude", "--force")
        repo.thrum("tmux", "launch", "bob")
        found = Session(lab, repo, bob)
        found.wait_idle()
        yield found
    finally:
        repo.close()


def test_it_saves_what_it_knows_and_the_restart_does_not_wait_longer(session: Session) -> None:
    session.repo.thrum("tmux", "send", "bob", "SAY: the parser is half done")
    session.lab.wait_given("the parser is half done")
    session.wait_idle()
    done = session.repo.json("tmux", "restart", "bob", env={"THRUM_NAME": "alice"})
    assert (done["session"], done["asked"]) == ("bob", "saved") and done["snapshot_lines"] > 0
    assert session.lab.given("is restarted in 30 s") == 1
    assert "the parser is half done" in session.snapshot() or session.lab.given("the parser is half done") > 1
    session.wait_idle()
    inbox = session.repo.json("inbox", "--peek", env={"THRUM_NAME": "bob"}, at=session.bob)
    assert "is restarted in" not in str(inbox), "the next session has nothing to do with it"


def test_one_that_does_not_answer_in_time_is_restarted_and_that_is_said(session: Session) -> None:
    session.repo.thrum("config", "set", "restart.graceful_timeout", "50ms")
    done = session.repo.run("tmux", "restart", "bob", env={"THRUM_NAME": "alice"})
    assert done.status == 0 and done.out.startswith("Session bob restarted ("), done
    assert "warning: @bob " in done.err and "to save what it knows" in done.err and "kept: " in done.err, done
    session.wait_idle()
    assert session.snapshot(), "what the pane showed, or its record"


def test_one_that_is_at_work_is_not_asked(session: Session) -> None:
    session.repo.thrum("tmux", "send", "bob", "SLOW: 600")
    session.lab.wait_given("SLOW: 600")
    refused = session.repo.run("tmux", "restart", "bob", "--json", env={"THRUM_NAME": "alice"})
    assert refused.kind == "agent_alive"
    done = session.repo.json("tmux", "restart", "bob", "--force", env={"THRUM_NAME": "alice"})
    assert "asked" not in done
    assert not session.lab.given("is restarted in")
