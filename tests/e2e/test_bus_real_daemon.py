"""The public subscriber beside the real daemon, which is killed, restarted and loses its database (rpc.md §11.5)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
import trio

from thrum.bus import subscriber
from thrum.model.errors import DaemonUnavailable
from thrum.model.methods.daemon import HEALTH
from thrum.model.methods.messages import MESSAGE_LIST, MessageListParams
from thrum.rpc.client import BlockingClient

SECONDS = 60


class Place:
    """A repository in which alice writes to bob, who stands in a worktree of his own."""

    def __init__(self, root: Path) -> None:
        self.main, self.other = root / "main", root / "other"
        self.main.mkdir()
        for words in (
            ["init", "-q"],
            ["commit", "-q", "--allow-empty", "-m", "x"],
            ["worktree", "add", "-q", "../other"],
        ):
            subprocess.run(["git", *words], cwd=self.main, check=True, capture_output=True)
        self.thrum("init")
        self.thrum("quickstart", "alice", "--role", "writer", "--module", "m")
        self.thrum("quickstart", "bob", "--role", "reader", "--module", "m", cwd=self.other)

    def thrum(self, *words: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "thrum", *words],
            cwd=cwd or self.main,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def send(self, *contents: str) -> None:
        for content in contents:
            self.thrum("send", content, "--to", "@bob")

    def kill_daemon(self) -> None:
        """As `kill -9`; returns when its connections have ended."""
        client = BlockingClient(self.main / ".thrum/var/thrum.sock")
        with client:
            pid = client.call(HEALTH).pid
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(DaemonUnavailable):
                while True:
                    client.call(HEALTH)

    def delete_database(self) -> None:
        for path in (self.main / ".thrum/var").glob("messages.db*"):
            path.unlink()


@pytest.fixture
def place() -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="thrum-bus-"))
    made = Place(root)
    yield made
    made.thrum("daemon", "stop")
    shutil.rmtree(root)


@contextlib.asynccontextmanager
async def open_listener(place: Place) -> AsyncGenerator[list[str]]:
    """All previews that a stream from now on gives, as they come; `end` ends it."""
    previews: list[str] = []
    async with trio.open_nursery() as nursery:
        audience = subscriber.agent_audience("bob")

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            async with subscriber.open_stream_async(audience, repo=place.main, types=("message.create",)) as stream:
                task_status.started()
                async for hint in stream:
                    previews.append(hint.preview)
                    if hint.preview == "end":
                        return

        await nursery.start(listen)
        yield previews


async def test_every_message_once_over_kill_9_and_a_deleted_database(place: Place) -> None:
    with trio.fail_after(SECONDS):
        await trio.to_thread.run_sync(place.send, "before")
        async with open_listener(place) as previews:
            await trio.to_thread.run_sync(place.send, "one", "two")
            await trio.to_thread.run_sync(place.kill_daemon)
            await trio.to_thread.run_sync(place.send, "three", "four")
            await trio.to_thread.run_sync(place.kill_daemon)
            place.delete_database()
            await trio.to_thread.run_sync(place.send, "five", "end")
        assert previews == ["one", "two", "three", "four", "five", "end"]


async def test_an_inbox_of_bob_s_own_process_marks_what_it_handled(place: Place) -> None:
    program = (
        "from thrum.bus.subscriber import open_inbox\n"
        "with open_inbox('bob') as inbox:\n"
        "    for message in inbox:\n"
        "        print(message.body.content, flush=True)\n"
        "        if message.body.content == 'end':\n"
        "            break\n"
    )
    with trio.fail_after(SECONDS):
        await trio.to_thread.run_sync(place.send, "one")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", program], cwd=place.other, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            printed = await process.stdout.receive_some()
            await trio.to_thread.run_sync(place.kill_daemon)
            await trio.to_thread.run_sync(place.send, "two", "end")
            async for data in process.stdout:
                printed += data
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()
        assert printed.decode().split() == ["one", "two", "end"]
        with BlockingClient(place.main / ".thrum/var/thrum.sock") as client:
            unread = client.call(MESSAGE_LIST, MessageListParams(unread_for_agent="bob", after_seq=0))
        assert unread.messages == ()
