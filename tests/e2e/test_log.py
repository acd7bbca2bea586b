"""`thrum log`: the conversation as the branch has it, without a daemon and without the journals."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import THRUM, Repo, open_repo


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def log(repo: Repo, *words: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in repo.thrum("log", "--json", *words).splitlines()]


def contents(repo: Repo, *words: str) -> list[str]:
    return [each["body"]["content"] for each in log(repo, *words)]


def test_it_needs_git_alone_and_starts_no_daemon(repo: Repo) -> None:
    bob = repo.worktree("bob")
    first = repo.json("send", "one\nline", "--to", "@bob")["message_id"]
    second = repo.json("send", "typo", "--to", "@bob", "--scope", "module:auth")["message_id"]
    third = repo.json("send", "a mistake")["message_id"]
    repo.thrum("message", "edit", second, "mended")
    repo.thrum("message", "delete", third, "--force")
    repo.thrum("reply", first, "answer", at=bob)
    repo.thrum("sync", "force", "--wait")
    repo.thrum("send", "not committed yet")
    repo.kill_daemon()
    shutil.rmtree(repo.journals)
    repo.delete_database()
    shown = repo.thrum("log").splitlines()
    assert [text.split("  ")[1:] for text in shown] == [
        ["@alice → @bob", "one line", first],
        ["@alice → @bob", "mended", "(edited)", second],
        ["@bob → @alice", "answer", shown[2].split("  ")[-1]],
    ]
    assert not repo.daemon
    assert not repo.journals.exists()
    message = log(repo)[1]
    assert message["scopes"] == [{"type": "module", "value": "auth"}]
    assert [each["agent_id"] for each in message["recipients"]] == ["bob"]
    assert message["updated_at"]


def test_it_is_narrowed_by_number_author_and_time(repo: Repo) -> None:
    for number in range(4):
        repo.thrum("send", f"a{number}", "--to", "@bob")
    repo.thrum("send", "b", at=repo.worktree("bob"))
    repo.thrum("sync", "force", "--wait")
    assert contents(repo) == ["a0", "a1", "a2", "a3", "b"]
    assert contents(repo, "-n", "2") == ["a3", "b"]
    assert contents(repo, "-n", "0") == ["a0", "a1", "a2", "a3", "b"]
    assert contents(repo, "--agent", "@alice", "-n", "1") == ["a3"]
    third = log(repo)[2]["created_at"]
    assert contents(repo, "--since", third) == ["a2", "a3", "b"]
    assert contents(repo, "--since", "2099-01-01") == []
    assert repo.thrum("log", "--agent", "carol") == "No messages by @carol on the branch.\n"


def test_commits_stand_after_the_messages_that_they_carry(repo: Repo) -> None:
    for content in ("one", "two"):
        repo.thrum("send", content, "--to", "@bob")
        repo.thrum("sync", "force", "--wait")
    commits = repo.git("log", "--format=%H", "a-sync").split()
    shown = log(repo, "--commits")
    assert [each["commit"] for each in shown if each.get("type") == "commit"] == commits[::-1]
    kinds = [each.get("subject") or each["body"]["content"] for each in shown]
    assert kinds[0] == "thrum: first"
    assert kinds.index("one") < kinds.index("two")
    assert "sync: " in kinds[-1]
    assert repo.thrum("log", "--commits").splitlines()[-1].startswith(f"commit {commits[0]} sync: ")


def test_a_hostile_body_is_shown_and_never_obeyed(repo: Repo) -> None:
    repo.thrum("send", "red \x1b[31m alert", "--to", "@bob")
    repo.thrum("sync", "force", "--wait")
    assert "\\x1b[31m" in repo.thrum("log")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "words", [["log"], ["log", "--json"], ["verify", "--json"], ["doctor"], ["log", "--bad", "--json"]]
)
def test_an_output_that_cannot_be_written_is_told_in_a_line(repo: Repo, words: list[str]) -> None:
    repo.thrum("send", "one", "--to", "@bob")
    repo.thrum("sync", "force", "--wait")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([THRUM, *words], cwd=repo.main, env=repo.env, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"Error: cannot write the output: No space left on device\n")
