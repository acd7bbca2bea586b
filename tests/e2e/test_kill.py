"""`kill -9` of the daemon at random moments under load: what was answered is there, once, for everybody who looks."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, Running, open_repo, wait_until
from tests.support.named import named

SENDERS = ("s1", "s2", "s3")
CONNECTIONS = 3
WAIT_LIMIT = 100


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("bob", *SENDERS) as opened:
        yield opened


class Sent:
    """What the senders were answered, read while they run."""

    def __init__(self, senders: dict[str, Running]) -> None:
        self.senders = senders
        self.ids: dict[str, str] = {}
        self.retried = 0

    def take(self, line: str) -> None:
        word, content, message_id, *_rest, tries = line.split(" ")
        assert word == "sent", line
        assert content not in self.ids
        self.ids[content] = message_id
        self.retried += tries != "1"

    def take_some(self, agent: str, count: int) -> None:
        for _ in range(count):
            self.take(self.senders[agent].line())

    def take_rest(self) -> None:
        for sender in self.senders.values():
            done = sender.end()
            assert done.status == 0, done.err
            for line in done.out.splitlines():
                self.take(line)


def _kill_under_load(repo: Repo, sent: Sent, kills: int, chance: random.Random) -> None:
    """Each round: some answers come, a moment passes, the daemon dies; sometimes it dies again while it starts."""
    for round_number in range(kills):
        sent.take_some(chance.choice(SENDERS), chance.randrange(1, 30))
        wait_moment(chance)
        repo.kill_daemon()
        if round_number % 5 == 1:
            repo.delete_database()
        if round_number % 5 == 3:
            repo.start("daemon", "start")
            wait_until(lambda: repo.daemon, "a daemon that starts")
            wait_moment(chance, 0.5)
            repo.kill_daemon()
        repo.thrum("daemon", "start")


def wait_moment(chance: random.Random, seconds: float = 0.02) -> None:
    """The random moment itself: nothing is waited for."""
    time.sleep(chance.uniform(0, seconds))


def _all_messages(repo: Repo, method: str, **params: Any) -> list[Any]:
    messages: list[Any] = []
    with repo.client() as client:
        while True:
            page = client.call(named(method), {"page": len(messages) // 500 + 1, "page_size": 500, **params})
            messages += page.messages
            if len(messages) >= page.total:
                return messages


def _once(messages: list[Any]) -> dict[str, str]:
    """Content -> id; nothing occurs twice."""
    contents = Counter(message.body.content for message in messages)
    assert {content for content, count in contents.items() if count > 1} == set()
    assert len({message.message_id for message in messages}) == len(messages)
    return {message.body.content: message.message_id for message in messages}


def _check(repo: Repo, sent: Sent) -> None:
    created = [fact for fact in repo.facts("message.create") if fact["body"]["content"] != "end"]
    stored = Counter(fact["body"]["content"] for fact in created)
    assert {content for content, count in stored.items() if count > 1} == set(), "twice in the journal"
    assert {fact["body"]["content"]: fact["message_id"] for fact in created} == sent.ids
    events = Counter(fact["event_id"] for fact in repo.facts())
    assert max(events.values()) == 1
    inbox = [
        message for message in _all_messages(repo, "message.list", for_agent="bob") if message.body.content != "end"
    ]
    assert _once(inbox) == sent.ids
    assert len({message.seq for message in inbox}) == len(inbox)
    for agent in SENDERS:
        outbox = _once(_all_messages(repo, "message.outbox", author_id=agent))
        outbox.pop("end", None)
        assert outbox == {content: each for content, each in sent.ids.items() if content.startswith(f"{agent}.")}
        for number in range(CONNECTIONS):
            prefix = f"{agent}.{number}."
            own = [fact["body"]["content"] for fact in created if fact["body"]["content"].startswith(prefix)]
            assert own == [f"{prefix}{count}" for count in range(len(own))], "order of one connection"


def _survives(repo: Repo, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    waiter = repo.python("tests.support.daemon.kill_waiter", str(repo.socket), "bob", at=repo.main)
    listener = repo.python("tests.support.daemon.bus_listener", str(repo.main), "--audience", "agent/bob/")
    assert listener.line() == "ready"
    sent = Sent(
        {
            name: repo.python(
                "tests.support.daemon.kill_sender",
                str(repo.socket),
                name,
                "bob",
                str(CONNECTIONS),
                at=repo.worktree(name),
            )
            for name in SENDERS
        }
    )
    _kill_under_load(repo, sent, kills, chance)
    sent.take_rest()
    assert sent.retried, "no call was cut by a kill"
    repo.thrum("send", "end", "--to", "@bob", at=repo.worktree("s1"))
    told = waiter.lines(lambda line: line.startswith("told end "))
    _check_told(told, sent, kills)
    heard = [line.split(" ")[3] for line in listener.lines(lambda line: line.endswith(" end"))]
    contents = Counter(content for content in heard if content in sent.ids)
    assert contents == Counter(sent.ids.keys()), "a subscriber heard of each message once"
    _check(repo, sent)
    repo.assert_projection_is_as_rebuilt()


def _check_told(lines: list[str], sent: Sent, kills: int) -> None:
    told = Counter(line.split(" ")[2] for line in lines if line.startswith("told ") and " end " not in line)
    assert told.keys() == set(sent.ids.values()), "a wait was told of every message"
    again = sum(count - 1 for count in told.values())
    assert again <= 2 * kills * WAIT_LIMIT, "only what a killed daemon could not mark was told again"


def test_no_answered_message_is_lost_or_doubled_by_eight_kills(repo: Repo) -> None:
    _survives(repo, 8, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_no_answered_message_is_lost_or_doubled_by_a_hundred_kills_each(repo: Repo, seed: int) -> None:
    _survives(repo, 110, seed=seed)
