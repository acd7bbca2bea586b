"""`thrum ask` and `thrum wake`, as people and agents run them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon.repo import Repo, Running, open_repo, wait_until


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def asked(repo: Repo, text: str) -> tuple[Running, str]:
    """A question of alice's that waits for its answer, and its id."""
    asking = repo.start("ask", "bob", text, "--timeout", "60s", "--json")

    def sent() -> str:
        found = repo.json("sent")["messages"]
        return next((each["message_id"] for each in found if each["body"]["content"] == text), "")

    return asking, wait_until(sent, "the question is sent")


@pytest.mark.parametrize("flags", [(), ("--no-wake",)], ids=["waking", "quiet"])
def test_ask_prints_the_answer_to_this_message_and_no_other(repo: Repo, flags: tuple[str, ...]) -> None:
    bob = repo.worktree("bob")
    asking, question = asked(repo, f"which port {flags}")
    other = repo.json("send", "by the way", "--to", "@alice", at=bob)["message_id"]
    repo.thrum("reply", question, "4711", *flags, at=bob)
    done = asking.end()
    assert done.status == 0, done
    assert (done.json["status"], done.json["message_id"]) == ("answered", question)
    assert done.json["answer"]["body"]["content"] == "4711"
    unread = repo.json("inbox", "--unread")["messages"]
    assert other in [each["message_id"] for each in unread]
    assert "4711" not in [each["body"]["content"] for each in unread]


def test_when_the_time_is_up_it_says_how_far_the_question_came_and_the_status_is_1(repo: Repo) -> None:
    done = repo.run("ask", "@bob", "are you there", "--timeout", "0")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines() == [
        "@bob: plain shell: nobody polls",
        "NO_ANSWER_TIMEOUT — @bob: delivered: plain shell: nobody polls; its answer will be in your inbox",
    ]
    document = repo.run("ask", "@bob", "are you there", "--timeout", "0", "--json")
    assert document.status == 1
    assert document.json["recipients"][0]["why"] == "plain shell: nobody polls"


def test_whom_it_does_not_know_it_asks_nothing(repo: Repo) -> None:
    done = repo.run("ask", "bobb", "are you there")
    assert done.status == 2
    assert "unknown recipient" in done.err and "fix: " in done.err


def test_wake_shows_what_an_agent_has_not_seen(repo: Repo) -> None:
    sent = repo.json("send", "look here", "--to", "@bob")["message_id"]
    shown = repo.thrum("wake", "bob")
    assert shown.startswith("@bob\nState:    plain shell\nDoors:    none\nUnseen:")
    assert sent[-6:] in shown
    [told] = repo.json("wake", "bob")["agents"]
    assert sent in told["unseen"]
    assert {each["agent_id"] for each in repo.json("wake")["agents"]} >= {"alice", "bob"}
    refused = repo.run("wake", "bobb")
    assert refused.status == 1 and "agent not found: bobb" in refused.err
