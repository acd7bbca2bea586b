"""Who calls is what the kernel says: worktrees, forged claims, strangers (identity.md §6, §11)."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import THRUM, Done, Repo, open_repo

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        opened.agent("carol")
        opened.agent("dave", role="tester", module="m9", at=opened.worktree("carol"))
        yield opened


def ask(repo: Repo, at: Path, method: str, **params: Any) -> dict[str, Any]:
    """One raw request of a process that stands in `at`."""
    talker = repo.python("tests.support.daemon.rpc_talker", str(repo.socket), at=at)
    talker.say(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    answer = json.loads(talker.line())
    assert talker.end().status == 0
    return answer


def kind(answer: dict[str, Any]) -> str:
    assert "result" not in answer, answer
    data = answer["error"]["data"]
    assert data["remedy"], answer
    return data["kind"]


def refused(done: Done, wanted: str, status: int = 1) -> dict[str, Any]:
    assert (done.status, done.kind) == (status, wanted), done
    assert done.json["error"]["remedy"]
    return done.json["error"]


def messages(repo: Repo) -> list[str]:
    return [fact["message_id"] for fact in repo.facts("message.create")]


def test_two_agents_speak_as_themselves_without_any_variable(repo: Repo) -> None:
    bob = repo.worktree("bob")
    first = repo.json("send", "from main", "--to", "@bob")["message_id"]
    second = repo.json("send", "from bob's place", "--to", "@alice", at=bob)["message_id"]
    (bob / "deep/down").mkdir(parents=True, exist_ok=True)
    third = repo.json("send", "from below", "--to", "@alice", at=bob / "deep/down")["message_id"]
    authors = {fact["message_id"]: fact["agent_id"] for fact in repo.facts("message.create")}
    assert [authors[first], authors[second], authors[third]] == ["alice", "bob", "bob"]
    assert repo.json("whoami", at=bob)["agent_id"] == "bob"


def test_a_repository_inside_the_worktree_is_still_its_agent_s(repo: Repo) -> None:
    vendored = repo.worktree("bob") / "vendored"
    repo.git("init", "-q", str(vendored))
    sent = repo.json("send", "from a vendored clone", "--to", "@alice", at=vendored)
    [fact] = [fact for fact in repo.facts("message.create") if fact["message_id"] == sent["message_id"]]
    assert fact["agent_id"] == "bob"


@pytest.mark.spec("ID-30")
def test_thrum_name_of_another_worktree_s_agent_is_refused(repo: Repo) -> None:
    before = messages(repo)
    for words in (["send", "as bob", "--to", "@alice"], ["inbox"], ["sent"]):
        error = refused(repo.run(*words, "--json", env={"THRUM_NAME": "bob"}), "identity_not_found")
        assert "THRUM_NAME=bob" in error["message"]
    assert messages(repo) == before


@pytest.mark.spec("ID-59")
def test_a_copied_identity_file_proves_nothing(repo: Repo) -> None:
    thief = repo.main / ".thrum/identities/bob.json"
    shutil.copy(repo.worktree("bob") / ".thrum/identities/bob.json", thief)
    try:
        before = messages(repo)
        for words in (["send", "as bob", "--to", "@alice"], ["inbox"], ["wait", "--timeout", "0"]):
            status = 2 if words[0] == "wait" else 1
            refused(repo.run(*words, "--json", env={"THRUM_NAME": "bob"}), "identity_mismatch", status)
        assert messages(repo) == before
    finally:
        thief.unlink()


@pytest.mark.spec("ID-31", "ID-58")
def test_a_forged_agent_id_is_refused(repo: Repo) -> None:
    before = messages(repo)
    for words in (["send", "as bob", "--to", "@alice"], ["inbox"], ["message", "read", "--all"]):
        error = refused(repo.run(*words, "--json", env={"THRUM_AGENT_ID": "bob"}), "identity_mismatch")
        assert error["details"]["guard"] == "unauthenticated_rpc"
    refused(
        repo.run("send", "x", "--json", env={"THRUM_NAME": "alice", "THRUM_AGENT_ID": "bob"}), "identity_env_conflict"
    )
    assert messages(repo) == before
    done = repo.run("whoami", "--json", env={"THRUM_AGENT_ID": "alice"})
    assert done.json["agent_id"] == "alice"


@pytest.mark.spec("ID-58")
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("message.send", {"content": "forged", "to": ["@alice"]}),
        ("message.list", {"for_agent": "bob"}),
        ("message.markRead", {"all": True}),
        ("message.wait", {"timeout_ms": 0}),
        ("message.outbox", {}),
        ("agent.whoami", {}),
        ("agent.list", {}),
        ("session.setIntent", {"intent": "forged"}),
        ("health", {}),
    ],
)
def test_a_raw_claim_of_another_worktree_s_agent_is_refused_for_reads_and_writes(
    repo: Repo, method: str, params: dict[str, Any]
) -> None:
    before = repo.facts()
    assert kind(ask(repo, repo.main, method, caller_agent_id="bob", **params)) == "identity_mismatch"
    assert repo.facts() == before


def test_another_agent_s_inbox_is_not_mine_to_filter_or_mark(repo: Repo) -> None:
    sent = repo.json("send", "for bob", "--to", "@bob")["message_id"]
    assert kind(ask(repo, repo.main, "message.list", for_agent="bob")) == "identity_mismatch"
    assert ask(repo, repo.main, "message.markRead", message_ids=[sent])["result"]["marked_count"] == 0
    unread = repo.json("inbox", "--unread", at=repo.worktree("bob"))["messages"]
    assert sent in [message["message_id"] for message in unread]


def test_a_message_is_edited_and_deleted_by_its_author_alone(repo: Repo) -> None:
    bob = repo.worktree("bob")
    sent = repo.json("send", "mine", "--to", "@bob")["message_id"]
    refused(repo.run("message", "edit", sent, "no, mine", "--json", at=bob), "not_author")
    refused(repo.run("message", "delete", sent, "--force", "--json", at=bob), "not_author")
    assert repo.json("message", "get", sent)["message"]["body"]["content"] == "mine"


def test_raw_rpc_without_a_claim_is_the_one_agent_of_the_worktree(repo: Repo) -> None:
    answer = ask(repo, repo.worktree("bob"), "message.send", content="no claim", to=["@alice"])
    [fact] = [fact for fact in repo.facts("message.create") if fact["message_id"] == answer["result"]["message_id"]]
    assert fact["agent_id"] == "bob"


def test_of_several_agents_of_a_worktree_one_says_which_it_is(repo: Repo) -> None:
    carol = repo.worktree("carol")
    assert kind(ask(repo, carol, "message.send", content="who?", to=["@alice"])) == "several_identities"
    newest = repo.json("whoami", at=carol)
    assert (newest["agent_id"], newest["selected_by"]) == ("dave", "worktree")
    for name in ("carol", "dave"):
        sent = repo.json("send", "me", "--to", "@alice", at=carol, env={"THRUM_NAME": name})["message_id"]
        assert next(fact for fact in repo.facts("message.create") if fact["message_id"] == sent)["agent_id"] == name


@pytest.mark.spec("ID-62")
def test_a_process_outside_every_worktree_reads_and_leaves_no_mark(repo: Repo) -> None:
    sent = repo.json("send", "look at me", "--to", "@bob")["message_id"]
    before = repo.facts()
    page = ask(repo, repo.top, "message.list", page_size=1000)["result"]["messages"]
    assert sent in [message["message_id"] for message in page]
    assert ask(repo, repo.top, "message.get", message_id=sent)["result"]["message"]["body"]["content"] == "look at me"
    listed = repo.json("inbox", "--all", "--repo", str(repo.main), at=repo.top)["messages"]
    assert sent in [message["message_id"] for message in listed]
    assert repo.facts() == before


@pytest.mark.spec("ID-62")
def test_a_process_outside_every_worktree_sends_nothing(repo: Repo) -> None:
    before = repo.facts()
    assert kind(ask(repo, repo.top, "message.send", content="x", to=["@bob"])) == "anonymous_caller"
    assert kind(ask(repo, repo.top, "message.send", content="x", caller_agent_id="bob")) == "anonymous_caller"
    assert kind(ask(repo, repo.top, "message.markRead", all=True)) == "anonymous_caller"
    for env in ({"THRUM_HOME": str(repo.main)}, {"THRUM_AGENT_ID": "bob"}):
        done = repo.run("send", "x", "--to", "@bob", "--repo", str(repo.main), "--json", at=repo.top, env=env)
        refused(done, "anonymous_caller")
    assert repo.facts() == before


# -- agents with a runtime


class Runtime:
    """A live agent runtime: what it starts descends from it."""

    def __init__(self, repo: Repo, at: Path) -> None:
        command = f'exec -a claude "{sys.executable}" -m tests.support.cli.runtime'
        self.at = at
        self.process = repo.start_program(["bash", "-c", command], at)

    def thrum(self, *words: str, at: Path | None = None, **env: str) -> Done:
        self.process.say(json.dumps({"argv": [str(THRUM), *words], "cwd": str(at or self.at), "env": env}))
        return Done(**json.loads(self.process.line()))


def author(repo: Repo, done: Done) -> str:
    assert done.status == 0, done
    return next(
        fact["agent_id"] for fact in repo.facts("message.create") if fact["message_id"] == done.json["message_id"]
    )


@pytest.mark.spec("ID-60")
def test_an_agent_that_went_elsewhere_is_still_itself_and_nobody_else(repo: Repo) -> None:
    eve = Runtime(repo, repo.worktree("eve"))
    done = eve.thrum("quickstart", "eve", "--role", "worker", "--module", "m5")
    assert done.status == 0, done
    assert repo.json("whoami", at=eve.at)["pid"] == eve.process.pid
    sending = ["send", "hello", "--to", "@bob", "--json"]
    assert author(repo, eve.thrum(*sending)) == "eve"
    assert author(repo, eve.thrum(*sending, at=repo.main, THRUM_HOME=str(eve.at))) == "eve"
    assert author(repo, eve.thrum(*sending, at=repo.top, THRUM_HOME=str(eve.at))) == "eve"
    error = refused(eve.thrum(*sending, at=repo.main), "cross_worktree")
    assert (error["details"]["expected_agent"], error["details"]["detected_agent"]) == ("alice", "eve")
    refused(eve.thrum(*sending, at=repo.worktree("bob"), THRUM_NAME="bob"), "cross_worktree")


def test_a_second_runtime_in_an_agent_s_worktree_does_not_act_for_it(repo: Repo) -> None:
    owner = Runtime(repo, repo.worktree("finn"))
    assert owner.thrum("quickstart", "finn", "--role", "worker", "--module", "m6").status == 0
    stranger = Runtime(repo, repo.worktree("finn"))
    before = repo.facts("message.create")
    refused(stranger.thrum("send", "x", "--to", "@bob", "--json"), "cross_worktree")
    refused(stranger.thrum("send", "x", "--to", "@bob", "--json", THRUM_NAME="finn"), "cross_worktree")
    assert repo.facts("message.create") == before
    owner.process.end()
    assert author(repo, stranger.thrum("send", "its owner is gone", "--to", "@bob", "--json")) == "finn"


@pytest.mark.spec("ID-65")
@as_root
def test_another_user_who_reaches_the_socket_is_turned_away(repo: Repo) -> None:
    open_to_all = [(repo.top, 0o755), (repo.main / ".thrum", 0o755), (repo.var, 0o755), (repo.socket, 0o666)]
    before = repo.facts()
    modes = [(path, path.stat().st_mode & 0o777) for path, _ in open_to_all]
    program = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect(sys.argv[1])\n"
        "try:\n"
        """    connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.stop"}\\n')\n"""
        "except BrokenPipeError:\n"
        "    pass\n"
        "print(connection.makefile().readline(), end='')\n"
    )
    try:
        for path, mode in open_to_all:
            path.chmod(mode)
        stranger = repo.spawn_python("-c", program, str(repo.socket))
        lines = stranger.end().out.splitlines()
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert len(lines) == 1, stranger.err
    assert kind(json.loads(lines[0])) == "foreign_user"
    assert repo.daemon
    assert repo.facts() == before
