"""Programs that listen by ZeroMQ, beside the real daemon: late, asleep, over kills and rebuilt projections."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.daemon.repo import Repo, Running, open_repo, wait_until
from thrum.model import limits

PAST_HIGH_WATER_MARK = 4 * limits.bus_high_water_mark


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def flood(repo: Repo, contents: list[str], at: Path | None = None) -> None:
    """Send these as alice from one process, many at a time, in order."""
    program = (
        "import json, socket, sys, threading\n"
        "contents = json.loads(sys.stdin.read())\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect(sys.argv[1])\n"
        "def ask():\n"
        "    for number, content in enumerate(contents):\n"
        "        params = {'content': content, 'to': ['@bob']}\n"
        "        call = {'jsonrpc': '2.0', 'id': number, 'method': 'message.send', 'params': params}\n"
        "        connection.sendall(json.dumps(call).encode() + b'\\n')\n"
        "asking = threading.Thread(target=ask)\n"
        "asking.start()\n"
        "answers = connection.makefile()\n"
        "for _ in contents:\n"
        "    answer = json.loads(answers.readline())\n"
        "    assert 'result' in answer, answer\n"
        "asking.join()\n"
    )
    sending = repo.spawn_python("-c", program, str(repo.socket), at=at)
    done = sending.end(stdin=json.dumps(contents))
    assert done.status == 0, done.err


def listen(repo: Repo, *words: str) -> Running:
    """A program that listens, from now on."""
    listener = repo.python("tests.support.daemon.bus_listener", str(repo.main), *words, at=repo.worktree("bob"))
    assert listener.line() == "ready"
    return listener


def heard(listener: Running) -> list[str]:
    """First words of what it got, up to the one that begins with `end`; each seq once and rising."""
    lines = listener.lines(lambda line: line.split(" ")[3:4] == ["end"])
    items = [line.split(" ") for line in lines]
    seqs = [int(item[1]) for item in items]
    assert seqs == sorted(set(seqs))
    assert len({item[2] for item in items}) == len(items)
    return [item[3] for item in items]


FORMS = pytest.mark.parametrize("form", [(), ("--trio",)], ids=["blocking", "trio"])


def test_one_that_starts_late_gets_what_is_unread_and_then_what_comes(repo: Repo) -> None:
    early = [f"early{number}" for number in range(300)]
    flood(repo, early)
    listener = listen(repo, "--inbox", "bob")
    late = [f"late{number}" for number in range(300)]
    flood(repo, [*late, "end"])
    assert heard(listener) == [*early, *late, "end"]


@FORMS
def test_one_that_sleeps_past_the_high_water_mark_misses_nothing(repo: Repo, form: tuple[str, ...]) -> None:
    listener = listen(repo, "--audience", "agent/bob/", *form)
    flood(repo, ["before"])
    first = listener.line()
    assert first.split(" ")[3] == "before"
    listener.kill(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(listener.pid).status() == psutil.STATUS_STOPPED, "a stopped listener")
    missed = [f"missed{number}" for number in range(PAST_HIGH_WATER_MARK)]
    flood(repo, missed)
    listener.kill(signal.SIGCONT)
    flood(repo, ["end"])
    assert heard(listener) == [*missed, "end"]


def test_listeners_of_every_kind_live_through_kills_and_a_rebuilt_projection(repo: Repo) -> None:
    listeners = [
        listen(repo, "--audience", "agent/bob/"),
        listen(repo, "--audience", "agent/bob/", "--trio"),
        listen(repo, "--inbox", "bob"),
    ]
    sent: list[str] = []
    for number in range(4):
        part = [f"part{number}.{each}" for each in range(50)]
        flooding = threading.Thread(target=flood, args=(repo, part))
        flooding.start()
        flooding.join()
        sent += part
        repo.kill_daemon()
        if number == 2:
            repo.delete_database()
        repo.thrum("daemon", "start")
    flood(repo, ["end"])
    for listener in listeners:
        assert heard_of_messages(listener) == [*sent, "end"]


def heard_of_messages(listener: Running) -> list[str]:
    """As `heard`; over a rebuilt projection the numbers begin anew, so only the ids tell."""
    items = [line.split(" ") for line in listener.lines(lambda line: line.split(" ")[3:4] == ["end"])]
    assert len({item[2] for item in items}) == len(items)
    return [item[3] for item in items if item[3].startswith(("part", "end"))]


def test_one_that_was_killed_goes_on_from_its_stored_cursor(repo: Repo) -> None:
    listener = listen(repo, "--audience", "agent/bob/")
    flood(repo, ["one", "end"])
    assert heard(listener) == ["one", "end"]
    _word, cursor = listener.line().split(" ")
    assert listener.end().status == 0
    flood(repo, [f"while away {number}" for number in range(3)])
    repo.kill_daemon()
    flood_again = ["back", "end"]
    repo.thrum("daemon", "start")
    again = listen(repo, "--audience", "agent/bob/", "--cursor", cursor)
    flood(repo, flood_again)
    assert heard(again) == ["while", "while", "while", "back", "end"]
