"""`thrum wait` and `thrum watch` as people and agents run them: two terminals, one daemon that comes and goes."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.daemon.repo import Repo, Running, open_repo, wait_until


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


@pytest.fixture
def bob(repo: Repo) -> Path:
    """Bob's place, with nothing left to be told."""
    bob = repo.worktree("bob")
    repo.thrum("inbox", "--page-size", "1000", at=bob)
    assert repo.run("wait", "--timeout", "0", at=bob).status == 1
    return bob


def send(repo: Repo, content: str) -> str:
    return repo.json("send", content, "--to", "@bob")["message_id"]


def start_wait(repo: Repo, bob: Path, *words: str) -> Running:
    """A wait that has reached the daemon."""
    waiting = repo.start("wait", "--timeout", "60s", "--json", *words, at=bob)
    wait_until(lambda: _connected(waiting), "a wait that is connected")
    return waiting


def _connected(running: Running) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(running.pid).net_connections("unix"))
    return True


def contents(document: dict[str, Any]) -> list[str]:
    return [message["body"]["content"] for message in document["messages"]]


# -- wait


def test_a_wait_wakes_with_the_message_that_another_process_sends(repo: Repo, bob: Path) -> None:
    waiting = start_wait(repo, bob)
    message_id = send(repo, "wake up")
    done = waiting.end()
    assert done.status == 0
    assert [message["message_id"] for message in done.json["messages"]] == [message_id]
    assert done.json["status"] == "received"
    assert repo.json("inbox", "--peek", at=bob)["unread"] == 1


def test_people_see_the_words_of_the_contract(repo: Repo, bob: Path) -> None:
    message_id = send(repo, "hello")
    printed = repo.thrum("wait", at=bob).splitlines()
    assert printed == [
        "MESSAGES_RECEIVED",
        f"● {message_id}  @alice → @bob  just now",
        "  hello",
        f'Next: thrum reply {message_id[-6:]} "TEXT"  (mark as read: thrum message read {message_id[-6:]})',
    ]


def test_what_came_between_two_waits_is_told_once(repo: Repo, bob: Path) -> None:
    send(repo, "one")
    send(repo, "two")
    assert contents(repo.json("wait", at=bob)) == ["one", "two"]
    assert repo.run("wait", "--timeout", "0", at=bob).status == 1
    send(repo, "three")
    assert contents(repo.json("wait", "--mark-read", at=bob)) == ["three"]
    assert repo.json("inbox", "--unread", at=bob)["unread"] == 2


def test_nothing_comes_status_1_and_a_wrong_word_status_2(repo: Repo, bob: Path) -> None:
    done = repo.run("wait", "--timeout", "50ms", at=bob)
    assert (done.status, done.out) == (1, "")
    assert done.err == "NO_MESSAGES_TIMEOUT — re-run thrum wait to continue listening\n"
    done = repo.run("wait", "--timeout", "0", "--json", at=bob)
    assert (done.status, done.json) == (1, {"status": "timeout", "messages": []})
    done = repo.run("wait", "--timeout", "soon", at=bob)
    assert done.status == 2
    assert 'bad duration "soon" for --timeout' in done.err
    done = repo.run("wait", "--agent-name", "alice", "--json", at=bob)
    assert (done.status, done.kind) == (2, "identity_mismatch")
    done = repo.run("wait", "--json", at=repo.worktree("nobody"))
    assert (done.status, done.kind) == (2, "no_identity")


def test_a_post_to_the_team_wakes_nobody(repo: Repo, bob: Path) -> None:
    waiting = start_wait(repo, bob)
    repo.thrum("send", "for information")
    send(repo, "for you")
    assert contents(waiting.end().json) == ["for you"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_wait(repo: Repo, bob: Path, number: signal.Signals, status: int) -> None:
    waiting = start_wait(repo, bob)
    waiting.kill(number)
    done = waiting.end()
    assert done.status in (status, -number), done
    assert "Traceback" not in done.err


def test_each_message_ends_one_of_two_waits(repo: Repo, bob: Path) -> None:
    waits = [start_wait(repo, bob), start_wait(repo, bob)]
    send(repo, "first")
    first = wait_until(lambda: [each for each in waits if each.process.poll() is not None], "one wait that ended")
    assert len(first) == 1
    send(repo, "second")
    told = [contents(each.end().json) for each in waits]
    assert sorted(told) == [["first"], ["second"]]


def test_a_wait_lives_through_kill_9_of_the_daemon(repo: Repo, bob: Path) -> None:
    waiting = start_wait(repo, bob)
    old = repo.kill_daemon()
    send(repo, "after the kill")
    done = waiting.end()
    assert (done.status, contents(done.json)) == (0, ["after the kill"])
    assert repo.daemon != old


def test_a_wait_starts_a_killed_daemon_itself_but_not_a_stopped_one(repo: Repo, bob: Path) -> None:
    waiting = start_wait(repo, bob)
    old = repo.kill_daemon()
    assert wait_until(lambda: repo.daemon, "a daemon that the wait started") != old
    wait_until(lambda: not repo.run("daemon", "status").status, "a daemon that answers")
    repo.thrum("daemon", "stop")
    assert waiting.process.poll() is None
    assert repo.daemon is None
    send(repo, "started by the sender")
    assert contents(waiting.end().json) == ["started by the sender"]


def test_a_wait_for_a_stopped_daemon_ends_with_status_2_when_its_time_is_over(repo: Repo, bob: Path) -> None:
    for seconds in (5, 20, 50):  # on a busy machine its time may be over before the daemon is stopped
        repo.thrum("daemon", "start")
        waiting = repo.start("wait", "--timeout", f"{seconds}s", "--json", at=bob)
        wait_until(lambda waiting=waiting: _connected(waiting), "a wait that is connected")
        repo.thrum("daemon", "stop")
        done = waiting.end()
        if done.status == 2:
            break
    assert (done.status, done.kind) == (2, "daemon_unavailable"), done
    assert "thrum daemon start" in done.json["error"]["remedy"]


def test_a_wait_lives_through_a_deleted_database(repo: Repo, bob: Path) -> None:
    waiting = start_wait(repo, bob)
    with_kill = repo.kill_daemon(signal.SIGTERM)
    assert with_kill
    wait_until(lambda: repo.daemon is None, "a stopped daemon")
    repo.delete_database()
    send(repo, "from a rebuilt projection")
    assert contents(waiting.end().json) == ["from a rebuilt projection"]


def test_a_message_is_not_lost_with_the_wait_that_was_killed_while_it_was_told(repo: Repo, bob: Path) -> None:
    chance = random.Random(7)
    unprinted = 0
    for number in range(12):
        content = f"round {number}"
        waiting = start_wait(repo, bob)
        sending = repo.start("send", content, "--to", "@bob", "--json")
        time.sleep(chance.uniform(0, 0.08))  # the random moment
        waiting.kill()
        message_id = sending.end().json["message_id"]
        printed = waiting.end().out
        again = repo.run("wait", "--timeout", "0", "--json", at=bob)
        if content not in printed:
            unprinted += 1
            assert contents(again.json) == [content]
        else:
            assert contents(again.json) in ([], [content])
        inbox = repo.json("inbox", "--unread", "--page-size", "100", at=bob)["messages"]
        assert message_id in [message["message_id"] for message in inbox]
    assert unprinted, "no wait was killed before its message was out"


# -- watch


def start_watch(repo: Repo, *words: str, at: Path | None = None) -> tuple[Running, str]:
    """A watch that has begun, and the cursor of its first line."""
    watching = repo.start("watch", "--json", *words, at=at)
    first = json.loads(watching.line())
    assert first["type"] == "watch.start"
    return watching, first["cursor"]


def next_message(watching: Running) -> dict[str, Any]:
    return json.loads(watching.lines(lambda line: json.loads(line)["type"] == "message.create")[-1])


_GONE = "the daemon is gone; waiting up to 60 s for it"


def end_watch(
    watching: Running, number: signal.Signals = signal.SIGINT, *, may_say: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Stop it; what it printed that was not read yet. It complained of nothing but what it `may_say`."""
    watching.kill(number)
    done = watching.end()
    assert done.status == 0, done
    assert set(done.err.splitlines()) <= set(may_say), done
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_watch_shows_a_message_that_another_process_sends(repo: Repo) -> None:
    watching, _cursor = start_watch(repo)
    message_id = send(repo, "seen live")
    fact = next_message(watching)
    assert (fact["message_id"], fact["body"]["content"], fact["agent_id"]) == (message_id, "seen live", "alice")
    [stored] = [each for each in repo.facts("message.create") if each["message_id"] == message_id]
    del fact["cursor"]
    assert fact == stored
    assert end_watch(watching) == []


def test_people_see_one_line_a_message(repo: Repo) -> None:
    watching = repo.start("watch")
    wait_until(lambda: watching.err_lines, "watching from …")
    assert watching.err.startswith("watching from ")
    message_id = send(repo, "two\nlines")
    line = watching.line()
    assert line.split("  ")[1:3] == ["message.create", "@alice → @bob"]
    assert line.endswith(message_id)
    watching.kill(signal.SIGTERM)
    assert watching.end().status == 0


def test_a_watch_goes_on_right_after_a_line_of_an_earlier_one(repo: Repo) -> None:
    watching, _cursor = start_watch(repo)
    send(repo, "a")
    send(repo, "b")
    cursor = next_message(watching)["cursor"]
    watching.kill()
    watching.end()
    send(repo, "c")
    again, first = start_watch(repo, "--since", cursor)
    assert first == cursor
    send(repo, "d")
    assert [next_message(again)["body"]["content"] for _ in range(3)] == ["b", "c", "d"]
    assert end_watch(again, signal.SIGTERM) == []


def test_since_0_begins_with_the_first_fact_and_shows_each_once(repo: Repo) -> None:
    last = send(repo, "the last one")
    watching, _cursor = start_watch(repo, "--since", "0")
    shown = [json.loads(line) for line in watching.lines(lambda line: last in line)]
    events = [fact["event_id"] for fact in shown]
    assert shown[0]["type"] == "agent.register"
    assert len(set(events)) == len(events)
    sent = [fact["message_id"] for fact in repo.facts("message.create")]
    assert [fact["message_id"] for fact in shown if fact["type"] == "message.create"] == sent
    end_watch(watching)


def test_to_me_leaves_out_what_is_not_addressed_to_me(repo: Repo, bob: Path) -> None:
    watching, _cursor = start_watch(repo, "--to-me", at=bob)
    repo.thrum("send", "to alice", "--to", "@alice")
    repo.thrum("send", "to the team")
    message_id = send(repo, "to bob")
    repo.thrum("message", "edit", message_id, "to bob, better")
    shown = [json.loads(watching.line()) for _ in range(3)]
    assert [fact["type"] for fact in shown] == ["message.create", "message.create", "message.edit"]
    assert [fact["body"]["content"] for fact in shown] == ["to the team", "to bob", "to bob, better"]
    assert end_watch(watching) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_watch_has_neither_gap_nor_double_over_a_restart(repo: Repo, number: signal.Signals) -> None:
    watching, _cursor = start_watch(repo)
    for content in ("1", "2"):
        send(repo, content)
    assert [next_message(watching)["body"]["content"] for _ in range(2)] == ["1", "2"]
    send(repo, "3")
    repo.kill_daemon(number)
    for content in ("4", "5"):
        send(repo, content)
    assert [next_message(watching)["body"]["content"] for _ in range(3)] == ["3", "4", "5"]
    assert end_watch(watching, may_say=[_GONE]) == []  # only where the machine takes seconds to start another


def test_a_running_watch_goes_on_over_a_rebuilt_projection_but_an_old_cursor_is_refused(repo: Repo) -> None:
    watching, cursor = start_watch(repo)
    send(repo, "old")
    assert next_message(watching)["body"]["content"] == "old"
    repo.kill_daemon()
    repo.delete_database()
    for content in ("new", "newer"):
        send(repo, content)
    assert [next_message(watching)["body"]["content"] for _ in range(2)] == ["new", "newer"]
    assert end_watch(watching, may_say=[_GONE]) == []
    done = repo.run("watch", "--since", cursor, "--json")
    assert (done.status, done.kind) == (1, "stale_cursor")
    assert "--since 0" in done.json["error"]["remedy"]
    done = repo.run("watch", "--since", "nonsense", "--json")
    assert (done.status, done.kind) == (2, "bad_cursor")
