"""who-has, sessions and heartbeats as their users have them: real worktrees, a real daemon, real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.repo import Repo, open_repo


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo("furiosa", "nux") as made:
        (made.main / "src/auth").mkdir(parents=True)
        (made.main / "src/auth/token.py").write_text("one\ntwo\n")
        made.git("add", "src")
        made.git("commit", "-q", "-m", "Tokens")
        made.git("merge", "-q", "main", cwd=made.worktree("nux"))
        yield made


def test_who_has_a_file_changes_with_the_file(repo: Repo) -> None:
    nux = repo.worktree("nux")
    token = nux / "src/auth/token.py"
    assert repo.thrum("who-has", "token.py") == "No agents are currently editing token.py\n"
    token.write_text("one\ntwo\nthree\n")
    shown = "@nux is editing src/auth/token.py (+1 -0, uncommitted, branch: nux)\n"
    assert repo.thrum("who-has", "token.py") == shown
    mine = shown.replace("@nux", "@nux (you)")
    assert repo.thrum("who-has", "token.py", at=nux / "src") == mine, "from anywhere"
    assert repo.thrum("who-has", "./auth/token.py", at=nux / "src") == mine, "as the shell completes it"
    repo.git("commit", "-q", "-am", "Three", cwd=nux)
    assert repo.thrum("who-has", "src/auth/") == "@nux is editing src/auth/token.py (1 commit ahead, branch: nux)\n"
    (context,) = repo.json("who-has", "token.py")["contexts"]
    assert (context["changed_files"], context["unmerged_commits"][0]["message"]) == (["src/auth/token.py"], "Three")
    repo.git("merge", "-q", "nux")
    assert repo.thrum("who-has", "token.py") == "No agents are currently editing token.py\n"


def test_a_lock_that_somebody_holds_is_no_hindrance_and_none_is_left(repo: Repo) -> None:
    nux = repo.worktree("nux")
    index = Path(repo.git("rev-parse", "--git-path", "index", cwd=nux).strip())
    lock = index.with_name("index.lock")
    lock.touch()
    os.utime(nux / "README", (1, 1))
    (nux / "fresh.py").write_text("x\n")
    before = index.read_bytes()
    assert repo.thrum("who-has", "fresh.py") == "@nux is editing fresh.py (+1 -0, uncommitted, branch: nux)\n"
    lock.unlink()
    assert repo.thrum("who-has", "README") == "No agents are currently editing README\n"
    assert index.read_bytes() == before and not lock.exists()
    (nux / "fresh.py").unlink()


def test_the_team_sees_branch_commits_and_files_of_now(repo: Repo) -> None:
    nux = repo.worktree("nux")
    repo.git("switch", "-q", "-c", "feature/sync", cwd=nux)
    (nux / "journal.py").write_text("x\ny\n")
    repo.git("add", "journal.py", cwd=nux)
    repo.git("commit", "-q", "-m", "Journal", cwd=nux)
    (nux / "journal.py").write_text("x\n")
    block = repo.thrum("team", "--files").split("\n\n")
    lines = next(each for each in block if each.startswith("@nux")).strip().split("\n")
    assert lines[0] == "@nux [active] m1 — feature/sync"
    assert "Branch:   feature/sync (1 commit ahead)" in lines
    assert lines[-2:] == ["Files:", "  journal.py  just now  +0 -1"]
    assert "Files:" not in repo.thrum("team")
    member = next(each for each in repo.json("team")["members"] if each["agent_id"] == "nux")
    assert [each["path"] for each in member["file_changes"]] == ["journal.py"]
    assert repo.thrum("ping", "nux").split("\n")[1] == "Branch:   feature/sync (1 commit ahead)"
    sent = repo.thrum("session", "heartbeat", at=nux)
    assert sent.split("\n")[1] == "  Context: branch: feature/sync, 1 commit, 1 file"
    (nux / "journal.py").write_text("x\ny\n")


@pytest.mark.spec("ID-55")
def test_a_session_is_ones_own_to_end(repo: Repo) -> None:
    nux = repo.worktree("nux")
    session_id = repo.json("session", "start", at=nux)["session_id"]
    refused = repo.run("session", "end", "--session-id", session_id, "--json")
    assert (refused.status, refused.kind) == (1, "not_owner")
    assert repo.thrum("session", "end", at=nux).startswith(f"✓ Session ended: {session_id} (")
    gone = repo.run("session", "end", "--json", at=nux)
    assert (gone.status, gone.kind) == (1, "no_session")
    listed = repo.json("session", "list", "--agent", "nux")["sessions"]
    assert [each["status"] for each in listed] == ["ended"] * len(listed)
    assert listed[0]["session_id"] == session_id and listed[1]["end_reason"] == "superseded"
    assert repo.thrum("ping", "nux").startswith("@nux: offline (last seen ")


def test_what_was_written_down_is_rebuilt_row_for_row(repo: Repo) -> None:
    nux = repo.worktree("nux")
    repo.thrum("agent", "set-task", "SYNC-7", at=nux)
    repo.thrum("agent", "heartbeat", "--add-scope", "module:sync", "--add-ref", "pr:42", at=nux)
    repo.assert_projection_is_as_rebuilt()
