"""Damage between two commands: truncated and foreign bytes, databases, sockets, locks, lost directories, several
daemons.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon.repo import Repo, open_repo, wait_until
from thrum.model.methods.messages import MESSAGE_LIST
from thrum.rpc import sockets


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


@pytest.fixture(scope="module")
def shared() -> Iterator[Repo]:
    """For what leaves the repository as it was."""
    with open_repo("alice", "bob") as opened:
        yield opened


def send(repo: Repo, *contents: str) -> None:
    for content in contents:
        repo.thrum("send", content, "--to", "@bob")


def inbox(repo: Repo) -> list[str]:
    """What bob can read, oldest first."""
    found = repo.json("inbox", "--peek", "--page-size", "1000", at=repo.worktree("bob"))
    return [message["body"]["content"] for message in reversed(found["messages"])]


# -- journals


def test_a_truncated_last_line_is_moved_away_and_the_rest_is_there(repo: Repo) -> None:
    send(repo, "one", "two")
    repo.kill_daemon()
    author_journal = repo.journals / "messages/alice.jsonl"
    whole = author_journal.read_bytes()
    truncated = whole.splitlines(keepends=True)[-1].replace(b"two", b"tor")[:-20]
    author_journal.write_bytes(whole + truncated)
    assert inbox(repo) == ["one", "two"]
    send(repo, "three")
    assert inbox(repo) == ["one", "two", "three"]
    assert author_journal.read_bytes().startswith(whole)
    [kept] = [json.loads(line) for line in (repo.journals.parent / "quarantine.jsonl").read_text().splitlines()]
    assert kept["file"] == "messages/alice.jsonl"
    repo.assert_projection_is_as_rebuilt()


def test_a_truncated_last_line_of_the_local_journal_loses_no_other_mark(repo: Repo) -> None:
    send(repo, "one")
    repo.thrum("inbox", at=repo.worktree("bob"))
    repo.kill_daemon()
    with repo.local_journal.open("ab") as journal:
        journal.write(b'{"type":"message.rec')
    repo.delete_database()
    assert repo.json("inbox", "--peek", at=repo.worktree("bob"))["unread"] == 0


def test_lines_of_rubbish_in_the_middle_hide_nothing(shared: Repo) -> None:
    before = inbox(shared)
    send(shared, "before", "after")
    shared.kill_daemon()
    author_journal = shared.journals / "messages/alice.jsonl"
    lines = author_journal.read_bytes().splitlines(keepends=True)
    rubbish = [b"rubbish\n", b"\x00\xff\xfe\n", b"{}\n", b"\n", b'{"type":"message.create"}\n', b"<<<<<<< HEAD\n"]
    author_journal.write_bytes(b"".join([*lines[:-1], *rubbish, lines[-1]]))
    assert inbox(shared) == [*before, "before", "after"]
    send(shared, "later")
    assert inbox(shared) == [*before, "before", "after", "later"]
    assert b"".join(rubbish) in author_journal.read_bytes(), "whole lines are never rewritten"
    kept = (shared.journals.parent / "quarantine.jsonl").read_text().splitlines()
    assert len(kept) >= len(rubbish) - 1, "all but the empty line, which says nothing"


def test_a_journal_line_that_appears_twice_is_one_message(repo: Repo) -> None:
    send(repo, "one")
    repo.kill_daemon()
    author_journal = repo.journals / "messages/alice.jsonl"
    author_journal.write_bytes(author_journal.read_bytes() * 3)
    assert inbox(repo) == ["one"]
    repo.assert_projection_is_as_rebuilt()


# -- the database


def _overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says\n" * 100)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _hole(path: Path) -> None:
    with path.open("r+b") as database:
        database.seek(4096)
        database.write(os.urandom(3 * 4096))


@pytest.mark.short(2)
@pytest.mark.parametrize("damage", [Path.unlink, _overwrite, _truncate, _empty, _hole])
def test_a_damaged_or_deleted_database_is_rebuilt(shared: Repo, damage: Callable[[Path], None]) -> None:
    send(shared, "kept")
    before = inbox(shared)
    shared.thrum("daemon", "stop")
    assert not (shared.var / "messages.db-wal").exists()
    damage(shared.var / "messages.db")
    assert inbox(shared) == before
    send(shared, "and on")
    assert inbox(shared) == [*before, "and on"]


def test_a_database_that_disappears_under_the_daemon_costs_no_message(repo: Repo) -> None:
    send(repo, "one")
    repo.delete_database()
    send(repo, "two")
    repo.kill_daemon()
    assert inbox(repo) == ["one", "two"]


# -- sockets, locks, daemons


def test_a_socket_that_nobody_listens_on_is_replaced(shared: Repo) -> None:
    shared.thrum("daemon", "stop")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(shared.socket))
    assert shared.thrum("send", "x", "--to", "@bob").startswith("✓ Message sent")


def _lead_astray(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, _lead_astray])
def test_something_else_in_the_socket_s_place_is_no_hindrance_or_is_named(
    shared: Repo, make: Callable[[Path], None]
) -> None:
    shared.thrum("daemon", "stop")
    make(shared.socket)
    done = shared.run("send", "x", "--to", "@bob", "--json")
    if done.status:
        assert "thrum.sock" in done.json["error"]["message"], done
        assert done.json["error"]["remedy"]
        shared.socket.rmdir()
    shared.thrum("send", "x", "--to", "@bob")


@pytest.mark.parametrize("name", ["messages.db", "messages.db.new", "stopped", "daemon.log", "config.lock"])
def test_a_directory_in_a_file_s_place_is_named_with_its_fix(shared: Repo, name: str) -> None:
    shared.thrum("daemon", "stop")
    path = shared.var / name
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "file").touch()
    done = shared.run("daemon", "start")
    assert done.status == 1 and str(path) in done.err.splitlines()[0]
    [fix] = [line.partition(": mv ")[2].split() for line in done.err.splitlines() if "fix: " in line]
    os.rename(*fix)
    shared.thrum("daemon", "start")
    assert (shared.var / f"{name}.found" / "file").exists()
    shutil.rmtree(shared.var / f"{name}.found")


def test_a_lock_file_that_a_dead_daemon_left_is_no_hindrance(shared: Repo) -> None:
    shared.kill_daemon()
    shared.layout.lock_file.write_text(f"{os.getpid()}\n")
    assert shared.run("daemon", "status").status == 1
    send(shared, "x")
    assert shared.daemon not in (None, os.getpid())


def test_a_second_daemon_started_by_hand_is_told_of_the_first(shared: Repo) -> None:
    send(shared, "x")
    pid = shared.daemon
    assert shared.thrum("daemon", "start") == f"✓ Daemon already running (pid {pid})\n"
    second = shared.spawn_python("-m", "thrum.daemon", str(shared.main))
    assert second.end().status == 1
    assert shared.daemon == pid


@pytest.mark.parametrize("words", [("daemon", "start", "--json"), ("inbox", "--json")], ids=["start", "first commands"])
def test_ten_at_once_start_one_daemon(shared: Repo, words: tuple[str, ...]) -> None:
    shared.kill_daemon()
    begun = [shared.start(*words) for _ in range(10)]
    ended = [each.end() for each in begun]
    assert [done.status for done in ended] == [0] * 10, [done for done in ended if done.status]
    pid = shared.daemon
    if words[0] == "daemon":
        assert {done.json["pid"] for done in ended} == {pid}
        assert sorted({done.json["status"] for done in ended}) in (["already_running", "started"], ["started"])
    serving = [line for line in (shared.var / "daemon.log").read_text().splitlines() if '"serving"' in line]
    assert sum(f'"pid":{pid}' in line.replace(" ", "") for line in serving) == 1
    assert [process.pid for process in shared.daemons()] == [pid]


@pytest.mark.long
def test_kill_9_while_it_starts_is_no_hindrance_for_the_next(shared: Repo) -> None:
    for _ in range(3):
        shared.kill_daemon()
        starting = shared.start("daemon", "start")
        wait_until(lambda: shared.daemon, "a daemon that starts")
        shared.kill_daemon()
        starting.end()
        send(shared, "x")


def test_a_socket_path_of_over_107_bytes(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)
    with open_repo("alice", "bob", parent=deep) as repo:
        assert len(str(repo.socket)) > 107
        send(repo, "deep down")
        assert inbox(repo) == ["deep down"]
        short = sockets.short_dir(repo.main / ".thrum") / "thrum.sock"
        assert len(str(short)) <= 107
        assert short.parent.stat().st_mode & 0o777 == 0o700
        assert repo.json("daemon", "status")["socket"] == str(short)
        assert repo.json("config", "show")["daemon"]["socket"] == str(short)
        repo.kill_daemon()
        send(repo, "again")
        assert inbox(repo) == ["deep down", "again"]
        repo.thrum("daemon", "stop")
        assert not short.parent.exists(), "nothing is left in the temporary directory"


def test_daemon_stop_answers_waits_and_the_next_command_starts_it_again(shared: Repo) -> None:
    bob = shared.worktree("bob")
    talker = shared.python("tests.support.daemon.rpc_talker", str(shared.socket), at=bob)
    shared.thrum("inbox", "--page-size", "1000", at=bob)
    talker.say('{"jsonrpc":"2.0","id":1,"method":"health"}')
    talker.line()
    talker.say('{"jsonrpc":"2.0","id":2,"method":"message.wait","params":{"timeout_ms":60000}}')
    shared.thrum("daemon", "stop")
    answer = json.loads(talker.line())
    assert answer["error"]["data"]["kind"] == "shutting_down"
    assert answer["error"]["data"]["details"]["retry_after_ms"] > 0
    assert shared.daemon is None
    assert shared.thrum("daemon", "stop") == "Daemon is not running\n"
    assert shared.run("send", "x", "--json", env={"THRUM_NO_AUTOSTART": "1"}).kind == "daemon_unavailable"
    send(shared, "x")


@pytest.mark.long
def test_a_daemon_whose_state_directory_or_socket_is_deleted_stops_by_itself(repo: Repo) -> None:
    with open_repo("alice", "bob") as other:
        send(repo, "one")
        send(other, "one")
        shutil.rmtree(repo.main / ".thrum")
        other.socket.unlink()
        wait_until(lambda: not repo.daemons() and not other.daemons(), "daemons that noticed", 20)
        assert repo.run("send", "x", "--json").kind == "not_initialized"
        send(other, "two")
        assert inbox(other) == ["one", "two"]


@pytest.mark.long
def test_a_command_right_after_the_socket_was_deleted_gets_through(repo: Repo) -> None:
    send(repo, "one")
    repo.socket.unlink()
    done = repo.run("send", "two", "--to", "@bob", "--json")
    if done.status:
        assert done.kind == "daemon_locked"
        assert done.json["error"]["remedy"] == "thrum daemon restart"
        repo.thrum("daemon", "restart")
        send(repo, "two")
    assert inbox(repo) == ["one", "two"]


def test_a_client_that_hangs_up_before_the_answer(shared: Repo) -> None:
    """Whether its message is stored is open; it is whole or not there."""
    request = '{"jsonrpc":"2.0","id":1,"method":"message.send","params":{"content":"gone %d"}}'
    program = (
        "import socket, sys\n"
        "for n in range(20):\n"
        "    connection = socket.socket(socket.AF_UNIX)\n"
        "    connection.connect(sys.argv[1])\n"
        f"    connection.sendall(b'{request}\\n' % n)\n"
        "    connection.close()\n"
    )
    assert shared.spawn_python("-c", program, str(shared.socket)).end().status == 0
    with shared.client() as client:
        heard = [message.body.content for message in client.call(MESSAGE_LIST, {"page_size": 1000}).messages]
    gone = [content for content in heard if content.startswith("gone")]
    assert set(gone) <= {f"gone {number}" for number in range(20)}
    assert len(set(gone)) == len(gone)


def test_many_senders_at_once_are_all_heard(shared: Repo) -> None:
    before = set(inbox(shared))
    contents = [f"at once {number}" for number in range(20)]
    threads = [threading.Thread(target=send, args=(shared, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # What a sender left behind that had hung up before may come in only now.
    assert {said for said in {*inbox(shared)} - before if not said.startswith("gone ")} == set(contents)
