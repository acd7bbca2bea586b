"""Few descriptors: a daemon starts or says the number, and beyond it `busy`; nothing spins, nothing is internal."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from tests.support.daemon.repo import THRUM, Repo, open_repo
from tests.support.named import named
from thrum.model import limits
from thrum.model.errors import DaemonStartFailed, ThrumError
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.messages import MESSAGE_SEND
from thrum.rpc import sockets
from thrum.rpc.listener import connections_within, few_open_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="another process's limits are set on Linux alone")


@pytest.fixture
def repo() -> Generator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def files_of(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


@contextlib.contextmanager
def exhausted(pid: int) -> Generator[None]:
    """A daemon that may open no file more: the next number is beyond its limit."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken, seen = files_of(pid), set[int]()
    while taken != seen:  # what it closes later, after a round say, it could use again
        time.sleep(0.5)
        taken, seen = files_of(pid), taken
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_connections_are_what_the_limit_leaves_beside_the_daemons_own_files() -> None:
    assert [connections_within(files) for files in (48, 64, 256, 1024, 4096)] == [8, 24, 171, 768, 2048]
    with pytest.raises(DaemonStartFailed, match="only 47 open files are allowed, the daemon needs 48") as refused:
        connections_within(47)
    assert "ulimit -n" in refused.value.remedy


def test_few_files_are_named_in_the_log_and_by_the_doctor(repo: Repo) -> None:
    assert few_open_files(limits.open_files_least) == ""
    repo.thrum("daemon", "stop")
    few = ("sh", "-c", 'ulimit -n 256; exec "$0" "$@"')
    repo.thrum("daemon", "start", under=few)
    said = few_open_files(256)
    assert said.startswith("only 256 open files are allowed: 171 connections")
    assert said in repo.thrum("daemon", "logs")
    (found,) = [each for each in repo.json("doctor")["checks"] if each["name"] == "open files"]
    assert (found["status"], found["detail"]) == ("warn", said) and "ulimit -n 4096" in found["remedy"]
    repo.thrum("daemon", "restart")
    (found,) = [each for each in repo.json("doctor")["checks"] if each["name"] == "open files"]
    assert found["status"] == "ok" and found["detail"].endswith(" for the daemon")


def test_with_too_few_files_no_daemon_starts_and_the_number_is_said(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    done = repo.shell(f"ulimit -n 32; exec {THRUM} daemon start").end()
    assert done.status != 0 and "only 32 open files are allowed, the daemon needs 48" in done.err
    assert "ulimit -n" in done.err


def test_without_a_file_left_what_needs_one_says_so_nothing_is_written_and_then_it_goes_on(repo: Repo) -> None:
    pid = repo.daemon or 0
    before = repo.facts()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(repo.main))
        client = stack.enter_context(repo.client())
        assert client.call(HEALTH).status == "ok"
        stack.enter_context(exhausted(pid))
        for method, params in (
            ("message.send", {"content": "x", "to": ["@bob"]}),
            ("verify.run", {}),
            ("backup.create", {}),
        ):
            with pytest.raises(ThrumError) as refused:
                client.call(named(method), params)
            # Who calls may not be readable either; that is said with its reason.
            assert refused.value.kind in {"busy", "caller_unproved"}, (method, refused.value.kind)
            assert "too many open files" in refused.value.message
    assert repo.facts() == before
    with contextlib.chdir(repo.main), repo.client() as client:
        client.call(MESSAGE_SEND, {"content": "and on it goes", "to": ["@bob"]})
        assert client.call(HEALTH).status == "ok"


def test_a_command_that_may_open_nothing_says_so_itself(repo: Repo) -> None:
    for words in ("verify", "backup", "sync status", "inbox", "send x --to @bob"):
        done = repo.shell(f"cd {repo.main}; ulimit -n 9; exec {THRUM} {words}").end()
        assert "internal" not in done.err.lower() and "Traceback" not in done.err, (words, done.err)


def test_a_daemon_that_can_open_nothing_does_not_think_that_its_place_is_gone(repo: Repo) -> None:
    pid = repo.daemon or 0
    with exhausted(pid):
        time.sleep(limits.state_check_seconds + 1)  # it looks meanwhile
    assert repo.daemon == pid, Path(repo.var, "daemon.log").read_text()
    with contextlib.chdir(repo.main), repo.client() as client:
        assert client.call(HEALTH).status == "ok"


def test_the_log_says_once_that_there_are_too_few(repo: Repo) -> None:
    pid = repo.daemon or 0
    with exhausted(pid), contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.settimeout(60)
            sockets.connect(repo.socket, connection.connect)
            assert msgspec.json.decode(connection.recv(65536))["error"]["data"]["kind"] == "busy"
    log = Path(repo.var, "daemon.log").read_text()
    assert log.count("cannot accept") == 1
