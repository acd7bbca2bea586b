"""Subscribers as separate processes: late, stopped, killed, over restarts and rebuilds (rpc.md §8, §11.5)."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.daemon.bus_daemon import make_repo
from tests.support.named import named
from tests.support.places import ROOT
from thrum.rpc.client import open_client

SECONDS = 60

FORMS = pytest.mark.parametrize("form", [(), ("--trio",)], ids=["blocking", "trio"])


@pytest.fixture
def repo() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="thrum-bus-"))  # short: it holds sockets
    yield make_repo(directory)
    shutil.rmtree(directory)


class Program:
    """A running helper program and its lines."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            data = await self.process.stdout.receive_some()
            assert data, "the program ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def items_until_end(self) -> list[list[str]]:
        items: list[list[str]] = []
        while not items or items[-1][3] != "end":
            items.append((await self.line()).split(" "))
        return items

    async def cursor(self) -> str:
        word, _, cursor = (await self.line()).partition(" ")
        assert word == "cursor"
        await self.process.wait()
        return cursor

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@contextlib.asynccontextmanager
async def open_program(module: str, *arguments: str) -> AsyncGenerator[Program]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", f"tests.support.daemon.{module}", *arguments], stdout=subprocess.PIPE, cwd=ROOT
    )
    program = Program(process)
    try:
        assert await program.line() == "ready"
        yield program
    finally:
        if process.poll() is None:
            process.kill()
            process.send_signal(signal.SIGCONT)
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


def open_daemon(repo: Path, epoch: str = "one") -> contextlib.AbstractAsyncContextManager[Program]:
    return open_program("bus_daemon", str(repo), epoch)


def open_listener(repo: Path, *options: str) -> contextlib.AbstractAsyncContextManager[Program]:
    return open_program("bus_listener", str(repo), *options)


async def ask(repo: Path, method: str, **params: Any) -> Any:
    async with open_client(repo / ".thrum/var/thrum.sock") as client:
        return await client.call(named(method), params)


async def send(repo: Path, first: int, count: int, to: tuple[str, ...] = ("bob",), pad: str = "") -> None:
    await ask(repo, "test.send", first=first, count=count, to=to, pad=pad)


async def end(repo: Path, to: tuple[str, ...] = ("bob",)) -> None:
    """The last message: listeners stop at it."""
    async with open_client(repo / ".thrum/var/thrum.sock") as client:
        await client.call(named("test.end"), {"to": to})


def assert_once_and_in_order(items: list[list[str]], numbers: range) -> None:
    assert [item[3] for item in items] == [*map(str, numbers), "end"]
    seqs = [int(item[1]) for item in items]
    assert seqs == sorted(set(seqs))
    assert len({item[2] for item in items}) == len(items)


@FORMS
async def test_a_late_subscriber_sees_everything_once_although_messages_keep_coming(
    repo: Path, form: tuple[str, ...]
) -> None:
    with trio.fail_after(SECONDS):
        async with open_daemon(repo):
            await send(repo, 0, 300)
            sent = 300
            async with trio.open_nursery() as nursery:

                async def keep_sending() -> None:
                    nonlocal sent
                    while True:
                        await send(repo, sent, 10)
                        sent += 10

                nursery.start_soon(keep_sending)
                async with open_listener(repo, "--audience", "agent/bob/", "--cursor", "0", *form) as listener:
                    for _ in range(400):
                        await listener.line()
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        # A call that was cancelled is executed all the same: what is there tells how many there are.
                        sent = (await ask(repo, "bus.info")).seq
                        await end(repo)
                        assert_once_and_in_order(await listener.items_until_end(), range(400, sent))


async def test_a_subscriber_from_now_on_sees_the_first_message_after_it_began(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_daemon(repo):
            await send(repo, 0, 20)
            async with open_listener(repo, "--audience", "agent/bob/") as listener:
                await send(repo, 20, 20)
                await send(repo, 0, 5, ("bob2",))
                await end(repo)
                assert_once_and_in_order(await listener.items_until_end(), range(20, 40))


@FORMS
async def test_a_subscriber_stopped_past_the_high_water_mark_reads_the_gap_from_the_store(
    repo: Path, form: tuple[str, ...]
) -> None:
    with trio.fail_after(SECONDS):
        async with open_daemon(repo), open_listener(repo, "--audience", "all/", *form) as listener:
            await send(repo, 0, 10)
            for _ in range(10):
                await listener.line()
            listener.process.send_signal(signal.SIGSTOP)
            for first in range(10, 8_010, 1_000):
                await send(repo, first, 1_000, pad="x" * 110)
            fetched = (await ask(repo, "test.calls")).get("events.since", 0)
            listener.process.send_signal(signal.SIGCONT)
            sent = 8_010
            while (await ask(repo, "test.calls")).get("events.since", 0) == fetched:
                # One of these is the first that finds room again, and shows the gap; else the next tick would.
                await send(repo, sent, 1)
                sent += 1
            await end(repo)
            assert_once_and_in_order(await listener.items_until_end(), range(10, sent))


@FORMS
async def test_a_subscriber_lives_through_kill_9_and_restart_of_the_daemon(repo: Path, form: tuple[str, ...]) -> None:
    with trio.fail_after(SECONDS):
        async with contextlib.AsyncExitStack() as stack:
            daemon = await stack.enter_async_context(open_daemon(repo))
            listener = await stack.enter_async_context(open_listener(repo, "--audience", "agent/bob/", *form))
            for start in range(0, 300, 100):
                await send(repo, start, 100)
                await daemon.kill()
                daemon = await stack.enter_async_context(open_daemon(repo))
            await end(repo)
            assert_once_and_in_order(await listener.items_until_end(), range(300))


async def test_a_rebuilt_database_makes_a_running_subscriber_neither_lose_nor_repeat(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with contextlib.AsyncExitStack() as stack:
            daemon = await stack.enter_async_context(open_daemon(repo, "one"))
            await send(repo, 0, 50)
            await ask(repo, "test.send_old", to=("carol",))
            listener = await stack.enter_async_context(open_listener(repo, "--audience", "agent/bob/"))
            await send(repo, 50, 50)
            first = [(await listener.line()).split(" ") for _ in range(50)]
            # What is committed while it is stopped it hears of only under the new numbers.
            listener.process.send_signal(signal.SIGSTOP)
            await send(repo, 100, 50)
            await daemon.kill()
            await stack.enter_async_context(open_daemon(repo, "two"))
            listener.process.send_signal(signal.SIGCONT)
            await send(repo, 150, 50)
            await end(repo)
            rest = await listener.items_until_end()
            assert [item[3] for item in first + rest] == [*map(str, range(50, 200)), "end"]


@FORMS
async def test_a_stored_cursor_resumes_right_after_its_item(repo: Path, form: tuple[str, ...]) -> None:
    with trio.fail_after(SECONDS):
        async with open_daemon(repo):
            await send(repo, 0, 250)
            await end(repo)
            async with open_listener(repo, "--audience", "agent/bob/", "--cursor", "0", *form) as listener:
                assert_once_and_in_order(await listener.items_until_end(), range(250))
                cursor = await listener.cursor()
            await send(repo, 250, 250, ("bob", "carol"))
            await end(repo)
            async with open_listener(repo, "--audience", "agent/bob/", "--cursor", cursor, *form) as listener:
                assert_once_and_in_order(await listener.items_until_end(), range(250, 500))


@FORMS
async def test_an_inbox_gives_unread_and_new_messages_once_and_marks_what_was_handled(
    repo: Path, form: tuple[str, ...]
) -> None:
    with trio.fail_after(SECONDS):
        async with contextlib.AsyncExitStack() as stack:
            daemon = await stack.enter_async_context(open_daemon(repo))
            await send(repo, 0, 30)
            listener = await stack.enter_async_context(open_listener(repo, "--inbox", "bob", *form))
            await send(repo, 30, 30)
            first = [(await listener.line()).split(" ") for _ in range(60)]
            await daemon.kill()
            daemon = await stack.enter_async_context(open_daemon(repo))
            await send(repo, 60, 30)
            more = [(await listener.line()).split(" ") for _ in range(30)]
            await daemon.kill()
            await stack.enter_async_context(open_daemon(repo, "two"))
            await send(repo, 90, 30)
            await end(repo)
            rest = await listener.items_until_end()
            assert [item[3] for item in first + more + rest] == [*map(str, range(120)), "end"]
            assert await listener.cursor() == ""
            assert (await ask(repo, "message.list", unread_for_agent="bob", after_seq=0)).messages == ()


async def test_a_killed_inbox_program_gets_the_message_in_hand_again(repo: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_daemon(repo):
            await send(repo, 0, 1)
            async with open_listener(repo, "--inbox", "bob") as listener:
                taken = await listener.line()
            # It was killed while it waited for the next one, so the first was marked; what it never saw is unread.
            assert taken.endswith(" 0")
            await send(repo, 1, 1)
            await end(repo)
            async with open_listener(repo, "--inbox", "bob") as listener:
                items = await listener.items_until_end()
            assert [item[3] for item in items][-2:] == ["1", "end"]
