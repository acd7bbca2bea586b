"""The public subscriber: its two forms, its errors, its timeouts. Separate processes: tests/e2e."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel

from tests.support.daemon.bus_daemon import BusDaemon, make_repo, open_bus_daemon
from thrum.bus import subscriber
from thrum.model import events
from thrum.model.errors import (
    BadCursor,
    DaemonUnavailable,
    InvalidParams,
    NotARepository,
    NotInitialized,
    StaleCursor,
    ThrumError,
)

SECONDS = 120


@pytest.fixture
def repo() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="thrum-bus-"))
    yield make_repo(directory)
    shutil.rmtree(directory)


def say(daemon: BusDaemon, *contents: str, to: str = "bob", author: str = "alice") -> None:
    for content in contents:
        daemon.commit(daemon.message((to,), content, author=author))


async def test_five_lines_are_enough(repo: Path) -> None:
    def program() -> list[str]:
        seen: list[str] = []
        with subscriber.open_inbox("bob", repo=repo) as inbox:
            for message in inbox:
                seen.append(message.body.content)
                if len(seen) == 3:
                    break
        return seen

    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            say(daemon, "one", "two", "three")
            assert await trio.to_thread.run_sync(program) == ["one", "two", "three"]
            assert len(daemon.read_by("bob")) == 3, "the last one too: its handler came to its end"


async def test_a_message_whose_handler_failed_stays_unread(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            say(daemon, "one", "two")
            with pytest.raises(ZeroDivisionError):
                async with subscriber.open_inbox_async("bob", repo=repo) as inbox:
                    async for message in inbox:
                        if message.body.content == "two":
                            raise ZeroDivisionError
            assert len(daemon.read_by("bob")) == 1
            async with subscriber.open_inbox_async("bob", repo=repo, mark=False) as inbox:
                again = await inbox.next()
                assert again is not None and again.body.content == "two"
            assert len(daemon.read_by("bob")) == 1


async def test_an_inbox_leaves_out_own_messages_and_posts_to_the_team(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            say(daemon, "to myself", author="bob")
            quiet = daemon.message(("bob",), "for information")
            daemon.commit(msgspec.structs.replace(quiet, quiet=True))
            say(daemon, "to bob")
            async with subscriber.open_inbox_async("bob", repo=repo) as inbox:
                first = await inbox.next()
                assert first is not None and first.body.content == "to bob"
                assert (inbox.agent_id, inbox.audience) == ("bob", "agent/bob/")
            async with subscriber.open_inbox_async("bob", repo=repo, quiet=True) as inbox:
                first = await inbox.next()
                assert first is not None and first.body.content == "for information"


async def test_next_gives_none_when_the_time_is_over_and_what_is_there_at_once(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            async with subscriber.open_stream_async("all/", repo=repo) as stream:
                assert await stream.next(timeout_seconds=0) is None
                assert await stream.next(timeout_seconds=0.01) is None
                say(daemon, "one")
                hint = await stream.next(timeout_seconds=SECONDS)
                assert hint is not None and (hint.preview, hint.to) == ("one", ("@bob",))

            def program() -> bool:
                with subscriber.open_stream("all/", repo=repo) as blocking:
                    return blocking.next(0) is None and blocking.next(0.01) is None

            assert await trio.to_thread.run_sync(program)


async def test_types_and_facts_in_full(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            types = ("message.receipt",)
            async with subscriber.open_stream_async("all/", cursor=0, types=types, full=True, repo=repo) as stream:
                say(daemon, "one")
                await mark_one(repo)
                hint = await stream.next()
                assert hint is not None and hint.type == "message.receipt" and hint.fact
                fact = events.decode(bytes(hint.fact))
                assert isinstance(fact, events.MessageReceipt) and fact.agent_id == "bob"
                await mark_one(repo, daemon)
                hint = await stream.next()
                assert hint is not None and hint.fact, "also of what comes live"


async def mark_one(repo: Path, daemon: BusDaemon | None = None) -> None:
    if daemon is not None:
        say(daemon, "more")
    async with subscriber.open_inbox_async("bob", repo=repo) as inbox:
        assert await inbox.next() is not None


async def test_a_stream_that_is_cancelled_again_and_again_loses_nothing(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo) as daemon:
            seen: list[str] = []
            async with subscriber.open_inbox_async("bob", repo=repo) as inbox, trio.open_nursery() as nursery:

                async def send() -> None:
                    for number in range(100):
                        say(daemon, str(number))
                        await trio.lowlevel.checkpoint()

                nursery.start_soon(send)
                patience = 0.0
                while len(seen) < 100:
                    with trio.move_on_after(patience):
                        message = await inbox.next()
                        assert message is not None
                        seen.append(message.body.content)
                    patience = patience + 0.0003 if patience < 0.005 else 0.0
            assert seen == [str(number) for number in range(100)]


def test_without_a_daemon_it_says_how_to_start_one_and_starts_none(repo: Path) -> None:
    with pytest.raises(DaemonUnavailable) as caught, subscriber.open_inbox("bob", repo=repo):
        pass
    assert caught.value.remedy == "thrum daemon start"
    assert not (repo / ".thrum/var/thrum.sock").exists()


async def test_it_waits_for_a_daemon_if_asked_to(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            opened = trio.Event()

            async def wait() -> None:
                async with subscriber.open_stream_async("team/", repo=repo, wait_seconds=SECONDS):
                    opened.set()

            nursery.start_soon(wait)
            async with open_bus_daemon(repo):
                await opened.wait()
        with pytest.raises(DaemonUnavailable):
            async with subscriber.open_stream_async("team/", repo=repo, wait_seconds=0.05):
                pass


async def test_a_daemon_that_stays_away_is_an_error_and_asking_again_waits_again(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            first = await nursery.start(serve_daemon, repo)
            async with subscriber.open_stream_async("all/", repo=repo, reconnect_seconds=0.1) as stream:
                first.cancel()
                for _ in range(2):
                    with pytest.raises(DaemonUnavailable, match="did not come back"):
                        await stream.next()
                assert await stream.next(timeout_seconds=0) is None
                async with open_bus_daemon(repo) as daemon:
                    say(daemon, "back")
                    hint = await stream.next()
                    assert hint is not None and hint.preview == "back"


async def serve_daemon(repo: Path, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with open_bus_daemon(repo):
            task_status.started(scope)
            await trio.sleep_forever()


async def test_a_cursor_of_another_epoch_is_refused(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo, "one") as daemon:
            say(daemon, "one")
            async with subscriber.open_stream_async(repo=repo, cursor=0) as stream:
                await stream.next()
                cursor = str(stream.cursor)
            with pytest.raises(StaleCursor, match="ahead"):
                async with subscriber.open_stream_async(repo=repo, cursor="one.2"):
                    pass
        async with open_bus_daemon(repo, "two"):
            with pytest.raises(StaleCursor):
                async with subscriber.open_stream_async(repo=repo, cursor=cursor):
                    pass


@pytest.mark.parametrize("audience", ["", "all", "agent/bob", "daemon/", "agent/", "agent/bob/message.create"])
def test_what_is_no_stream_is_refused(repo: Path, audience: str) -> None:
    with pytest.raises(InvalidParams) as caught, subscriber.open_stream(audience, repo=repo):
        pass
    assert "agent/ID/" in caught.value.remedy


@pytest.mark.parametrize("cursor", ["", "x", "one.-1", "one.1.2", 7])
def test_what_is_no_cursor_is_refused(repo: Path, cursor: str | int) -> None:
    with pytest.raises(BadCursor), subscriber.open_stream("all/", cursor=cursor, repo=repo):
        pass


def test_the_repository_is_that_of_the_directory(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(repo)
    with pytest.raises(DaemonUnavailable), subscriber.open_stream():
        pass
    with pytest.raises((NotARepository, NotInitialized)), subscriber.open_stream(repo=tmp_path):
        pass


async def test_a_forked_child_is_told_to_open_its_own(repo: Path) -> None:
    def program() -> int:
        with subscriber.open_stream("all/", repo=repo) as stream:
            stream._pid = os.getpid() + 1  # as a child sees it
            try:
                stream.next(0)
            except ThrumError as error:
                return "fork" in error.remedy
            return False

    with trio.fail_after(SECONDS):
        async with open_bus_daemon(repo):
            assert await trio.to_thread.run_sync(program)
