"""The database is only a projection, and the user's repository is the user's: two promises, kept over whole
sessions.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, open_repo, wait_until

# -- a deleted database changes no output

_ID = re.compile(r"\b(msg|thr|ses|evt|grp|d|r)_[0-9A-HJKMNP-TV-Za-z]{12,26}")
_END = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{6}\b")
_SHORT_SESSION = re.compile(r"\bses_\w{8}\.\.\.")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_SPAN = re.compile(r"\bactive \d+s\b|\bup \d+s\b|\bless than a second\b")


@dataclass
class Side:
    """One of two repositories that live through the same session."""

    repo: Repo
    names: dict[str, str] = field(default_factory=dict[str, str])
    sent: list[str] = field(default_factory=list[str])

    def plain(self, text: str) -> str:
        """The output with ids numbered as they come, and without times, paths and pids."""
        text = text.replace(str(self.repo.top), "TOP")
        text = _ID.sub(lambda match: self.names.setdefault(match[0], f"{match[1]}#{len(self.names)}"), text)
        ends = {known[-6:]: name for known, name in self.names.items()}
        text = _END.sub(lambda match: ends.get(match[0], match[0]), text)
        text = _SHORT_SESSION.sub("SESSION", text)
        text = _SPAN.sub("SPAN", _TIME.sub("TIME", text))
        return re.sub(r'"pid":\d+', '"pid":PID', re.sub(r"\(pid \d+", "(pid PID", text))

    def run(self, name: str, words: list[str]) -> tuple[int, str, str]:
        at = self.repo.main if name == "alice" else self.repo.worktree(name)
        known = [self.sent[int(word[1:])] if re.fullmatch(r"%\d", word) else word for word in words]
        done = self.repo.run(*known, at=at)
        if found := re.search(r"(?:sent|Reply sent): (msg_\w+)", done.out):
            self.sent.append(found[1])
        return done.status, self.plain(done.out), self.plain(done.err)


SESSION: list[tuple[str, str]] = [
    ("alice", "send one --to @bob"),
    ("bob", "inbox --peek --json"),
    ("alice", "send two --to @worker --scope module:auth --ref pr:42"),
    ("carol", "send everybody --broadcast"),
    ("alice", 'send information --structured {"a":1}'),
    ("bob", "wait --timeout 0 --json"),
    ("bob", "wait --timeout 0"),
    ("bob", "inbox"),
    ("bob", "reply %0 an-answer"),
    ("alice", "reply %4 and-again --only-author"),
    ("alice", "inbox --thread %0 --json"),
    ("alice", "message edit %1 two-better"),
    ("carol", "inbox --json"),
    ("alice", "message delete %2 --force"),
    ("carol", "message delete %2 --force --reason wrong"),
    ("bob", "message get %2"),
    ("bob", "message get %1 --json"),
    ("alice", "sent"),
    ("alice", "sent --unread --json"),
    ("carol", "message read --all"),
    ("carol", "inbox --unread"),
    ("alice", "send x --to @nobody"),
    ("alice", "message edit %0 x --json"),
    ("bob", "message edit %0 x --json"),
    ("carol", "inbox --all --chronological --page-size 3 --page 2 --json"),
    ("bob", "inbox --scope module:auth"),
    ("bob", "inbox --mentions --from alice --json"),
    ("alice", "agent list"),
    ("alice", "agent list --context"),
    ("alice", "quickstart alice --role lead --module m0 --intent new-work --no-agent-pid"),
    ("bob", "agent list --json"),
    ("carol", "team --json"),
    ("carol", "team --all"),
    ("alice", "send to-the-new-role --to @lead"),
    ("bob", "send to-the-new-role --to @lead"),
    ("alice", "wait --timeout 0 --mark-read"),
    ("alice", "inbox"),
]


def _play(sides: list[Side], between: Callable[[Side], object], *, every: int) -> None:
    """The session on both sides; before every so many commands something happens to the second."""
    plain, damaged = sides
    for number, (name, line) in enumerate(SESSION):
        expected = plain.run(name, line.split(" "))
        if number % every == 0:
            between(damaged)
        assert damaged.run(name, line.split(" ")) == expected, line


def _delete_database(side: Side) -> None:
    # By SIGTERM: what `wait` told is marked after its answer, which a kill at that moment may undo (rpc.md §7).
    side.repo.kill_daemon(signal.SIGTERM)
    side.repo.delete_database()


@pytest.fixture
def sides() -> Iterator[list[Side]]:
    with open_repo("alice", "bob", "carol") as first, open_repo("alice", "bob", "carol") as second:
        yield [Side(first), Side(second)]


def test_a_database_deleted_between_commands_changes_no_output(sides: list[Side]) -> None:
    _play(sides, _delete_database, every=5)
    for side in sides:
        side.repo.assert_projection_is_as_rebuilt()


@pytest.mark.long
def test_a_database_deleted_before_every_command_changes_no_output(sides: list[Side]) -> None:
    _play(sides, _delete_database, every=1)
    for side in sides:
        side.repo.assert_projection_is_as_rebuilt()


@pytest.mark.long
def test_a_restart_before_every_command_changes_no_output(sides: list[Side]) -> None:
    _play(sides, lambda side: side.repo.thrum("daemon", "restart"), every=1)
    for side in sides:
        side.repo.assert_projection_is_as_rebuilt()


# -- the user's repository


def _worktree_state(repo: Repo, at: Path) -> dict[str, Any]:
    """What git and the file system say of what is the user's."""
    git_dir = Path(repo.git("rev-parse", "--absolute-git-dir", cwd=at).strip())
    files = [path for path in sorted(at.rglob("*")) if path.is_file() and not {".git", ".thrum"} & set(path.parts)]
    index = (git_dir / "index").read_bytes()
    return {
        "index": hashlib.sha256(index).hexdigest(),
        "HEAD": (git_dir / "HEAD").read_text(),
        "log": (git_dir / "logs/HEAD").read_text(),
        "files": {str(path): (path.read_bytes(), path.stat().st_mode) for path in files},
        "status": repo.git("--no-optional-locks", "status", "--porcelain", "--ignored=no", cwd=at),
    }


def _state(repo: Repo) -> dict[str, Any]:
    refs = [line for line in repo.git("show-ref").splitlines() if not line.endswith("refs/heads/a-sync")]
    return {
        "refs": refs,
        "stash": repo.git("stash", "list"),
        "config": repo.git("config", "--local", "--list"),
        "hooks": sorted(path.name for path in (repo.main / ".git/hooks").iterdir()),
        "main": _worktree_state(repo, repo.main),
        "bob": _worktree_state(repo, repo.worktree("bob")),
    }


def _dirty(repo: Repo) -> None:
    """A repository in the middle of work: staged, changed, untracked and stashed."""
    (repo.main / "stashed").write_text("for later\n")
    repo.git("add", "stashed")
    repo.git("stash")
    (repo.main / "staged").write_text("staged\n")
    repo.git("add", "staged")
    (repo.main / "README").write_text("changed\n")
    (repo.main / "untracked").write_text("untracked\n")
    repo.worktree("bob")


def test_a_whole_session_leaves_the_user_s_repository_untouched() -> None:
    repo = Repo()
    try:
        _dirty(repo)
        before = _state(repo)
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        bob = repo.agent("bob", module="m1")
        for number in range(3):
            sent = repo.json("send", f"message {number}", "--to", "@bob")["message_id"]
            repo.thrum("wait", at=bob)
            repo.thrum("reply", sent, "yes", at=bob)
        repo.thrum("inbox")
        repo.kill_daemon()
        repo.thrum("team", "--all")
        repo.thrum("init")
        repo.thrum("daemon", "restart")
        repo.thrum("daemon", "stop")
        assert _state(repo) == before
    finally:
        repo.close()


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def _everything(repo: Repo) -> dict[str, Any]:
    """All messages and agents, and what each has read, as the commands tell it."""
    bob = repo.worktree("bob")
    documents = {
        "all": repo.json("inbox", "--all", "--page-size", "100"),
        "alice": repo.json("inbox", "--peek", "--page-size", "100"),
        "bob": repo.json("inbox", "--peek", "--page-size", "100", at=bob),
        "sent": repo.json("sent", "--page-size", "100"),
        "agents": repo.json("agent", "list")["agents"]["agents"],
    }
    for agent in documents["agents"]:
        agent.pop("last_seen_at", None)
        agent.pop("registered_at", None)
    for name in ("all", "alice", "bob", "sent"):
        for message in documents[name]["messages"]:
            message.pop("seq")
            for recipient in message.get("recipients", ()):
                recipient.pop("seen_at", None)
    return documents


def _talk(repo: Repo) -> None:
    bob = repo.worktree("bob")
    sent = repo.json("send", "one", "--to", "@bob")["message_id"]
    repo.thrum("inbox", at=bob)
    repo.thrum("reply", sent, "read it", at=bob)
    repo.thrum("send", "two", "--to", "@bob")


def _come_back(repo: Repo) -> None:
    repo.thrum("init")
    repo.thrum("quickstart", "alice", "--role", "worker", "--module", "m0", "--no-agent-pid")
    repo.thrum("quickstart", "bob", "--role", "worker", "--module", "m1", "--no-agent-pid", at=repo.worktree("bob"))


def test_git_clean_and_init_bring_everything_back(repo: Repo) -> None:
    _talk(repo)
    before = _everything(repo)
    daemon_id = repo.json("daemon", "status")["identity"]["daemon_id"]
    repo.thrum("daemon", "stop")
    for at in (repo.main, repo.worktree("bob")):
        repo.git("clean", "-fdxq", cwd=at)
        assert not (at / ".thrum").exists()
    done = repo.run("inbox", "--json")
    assert done.kind == "not_initialized", done
    _come_back(repo)
    assert _everything(repo) == before
    assert repo.json("daemon", "status")["identity"]["daemon_id"] == daemon_id
    repo.assert_projection_is_as_rebuilt()


def test_deleting_thrum_s_directory_under_a_running_daemon_and_init_at_once_bring_everything_back(repo: Repo) -> None:
    """The old daemon has not noticed yet."""
    _talk(repo)
    before = _everything(repo)
    for at in (repo.main, repo.worktree("bob")):
        shutil.rmtree(at / ".thrum")
    _come_back(repo)
    assert _everything(repo) == before
    repo.thrum("send", "three", "--to", "@bob")
    assert len(repo.json("inbox", "--all")["messages"]) == len(before["all"]["messages"]) + 1
    wait_until(lambda: len(repo.daemons()) == 1, "one daemon", 20)
