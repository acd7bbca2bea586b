"""Starts, stops and takeovers at once, with real processes (rpc.md §1, events.md §11)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.daemon.repo import Done, Repo, open_repo, wait_until
from thrum.model.errors import DaemonUnavailable, StoreFailed
from thrum.model.methods.daemon import EVENTS_SINCE, HEALTH
from thrum.rpc.client import BlockingClient


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "nux") as opened:
        yield opened


def at_once(repo: Repo, *commands: tuple[str, ...]) -> list[tuple[tuple[str, ...], Done]]:
    """Run them all at the same time."""
    done: list[tuple[tuple[str, ...], Done]] = []

    def run(words: tuple[str, ...]) -> None:
        done.append((words, repo.run(*words)))

    threads = [threading.Thread(target=run, args=(words,)) for words in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(commands)
    return done


def test_starts_stops_and_sends_at_once_lose_and_double_nothing(repo: Repo) -> None:
    moves = [("daemon", "start"), ("daemon", "stop"), ("daemon", "restart")] * 2
    sends = [("send", f"number {number}", "--to", "@nux") for number in range(10)]
    done = at_once(repo, *(word for pair in zip(sends, [*moves, *moves], strict=False) for word in pair))
    refused = [(words, each) for words, each in done if each.status]
    assert not refused
    stored = Counter(fact["body"]["content"] for fact in repo.facts("message.create"))
    assert stored == Counter(words[1] for words in sends)
    assert len(repo.daemons()) <= 1


@pytest.mark.long
def test_a_stop_does_not_wait_for_the_daemon_that_a_client_started_meanwhile(repo: Repo) -> None:
    ended = threading.Event()

    def ask_again_and_again() -> None:
        while not ended.is_set():
            repo.thrum("team")

    asking = [threading.Thread(target=ask_again_and_again) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(4):
            repo.thrum("daemon", "stop")
    finally:
        ended.set()
        for thread in asking:
            thread.join()


def test_a_daemon_whose_lock_was_removed_gives_way_and_leaves_the_next_one_alone(repo: Repo) -> None:
    old = repo.daemon
    assert old
    repo.thrum("send", "before", "--to", "@nux")
    repo.layout.lock_file.unlink()
    new = repo.json("daemon", "start")["pid"]
    assert new != old
    wait_until(lambda: [process.pid for process in repo.daemons()] == [new], "the end of the old daemon")
    assert repo.socket.exists(), "the old one took the new one's socket with it"
    assert (repo.var / "bus.sock").exists()
    assert not repo.layout.stopped_mark.exists(), "nobody stopped it on purpose"
    repo.thrum("send", "after", "--to", "@nux")
    assert repo.daemon == new
    assert [fact["body"]["content"] for fact in repo.facts("message.create")] == ["before", "after"]
    repo.assert_projection_is_as_rebuilt()


def test_a_daemon_without_lock_does_not_open_a_changed_store_again(repo: Repo) -> None:
    old = repo.daemon
    repo.thrum("send", "before", "--to", "@nux")
    repo.layout.lock_file.unlink()
    journal = repo.journals / "messages/alice.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"type":"odd"}\n')
    repo.run("send", "refused or sent", "--to", "@nux")
    wait_until(lambda: old not in [process.pid for process in repo.daemons()], "the end of the old daemon")
    repo.thrum("send", "after", "--to", "@nux")
    assert len(repo.daemons()) == 1


@pytest.mark.long
def test_a_daemon_whose_bus_was_removed_makes_room_for_one_that_has_one(repo: Repo) -> None:
    old = repo.daemon
    (repo.var / "bus.sock").unlink()
    wait_until(lambda: repo.daemon != old, "the end of the daemon nobody can follow")
    repo.thrum("send", "after", "--to", "@nux")
    assert (repo.var / "bus.sock").exists()


def test_a_line_that_an_editor_changed_is_seen_by_whoever_reads_it_and_fixed_without_a_restart(repo: Repo) -> None:
    repo.thrum("send", "one word", "--to", "@nux")
    pid = repo.daemon
    with repo.client() as client:
        before = client.call(HEALTH)
    journal = repo.journals / "messages/alice.jsonl"
    with journal.open("r+b") as file:
        text = file.read().replace(b'"event_id":"evt_', b'"event_id":"evt_X'[:-1])
        first = text.index(b'"event_id":"evt_') + len(b'"event_id":"evt_')
        file.seek(first + 20)
        file.write(b"ZZZZ")

    def told() -> bool:
        with contextlib.suppress(StoreFailed, DaemonUnavailable), BlockingClient(repo.socket) as client:
            client.call(EVENTS_SINCE, {"after_seq": 0, "types": ["message.create"], "full": True})
            return client.call(HEALTH).epoch != before.epoch
        return False

    wait_until(told, "another projection")
    with repo.client() as client:
        after = client.call(HEALTH)
    # Nobody signed what the line says now.
    assert "ZZZZ" in (repo.journals.parent / "quarantine.jsonl").read_text()
    assert after.pid == pid and after.epoch != before.epoch, "rebuilt by the same daemon"


@pytest.mark.long
def test_a_killed_start_leaves_nothing_that_hinders_the_next(repo: Repo) -> None:
    repo.thrum("send", "before", "--to", "@nux")
    for _ in range(4):
        repo.kill_daemon()
        repo.delete_database()
        starter = repo.start("daemon", "start")
        pid = wait_until(lambda: repo.daemon, "a daemon with its lock")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if pid % 2 else signal.SIGKILL)
        starter.end()
    repo.thrum("send", "after", "--to", "@nux")
    assert [fact["body"]["content"] for fact in repo.facts("message.create")] == ["before", "after"]
    assert len(repo.daemons()) == 1
    repo.assert_projection_is_as_rebuilt()
