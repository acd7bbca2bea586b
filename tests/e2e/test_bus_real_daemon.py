"""The public subscriber beside the real daemon, which is killed, restarted and loses its database (rpc.md §11.5)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator

import pytest
import trio

from tests.support.daemon.repo import Repo, open_repo
from thrum.bus import subscriber
from thrum.model.methods.messages import MESSAGE_LIST, MessageListParams
from thrum.rpc.client import BlockingClient

SECONDS = 120


@pytest.fixture
def repo() -> Iterator[Repo]:
    """Alice writes to bob, who stands in a worktree of his own."""
    with open_repo("alice", "bob") as opened:
        yield opened


async def send(repo: Repo, *contents: str) -> None:
    for content in contents:
        await trio.to_thread.run_sync(lambda content=content: repo.thrum("send", content, "--to", "@bob"))


@contextlib.asynccontextmanager
async def open_listener(repo: Repo) -> AsyncGenerator[list[str]]:
    """All previews that a stream from now on gives, as they come; `end` ends it."""
    previews: list[str] = []
    async with trio.open_nursery() as nursery:
        audience = subscriber.agent_audience("bob")

        async def listen(*, task_status: trio.TaskStatus[None]) -> None:
            async with subscriber.open_stream_async(audience, repo=repo.main, types=("message.create",)) as stream:
                task_status.started()
                async for hint in stream:
                    previews.append(hint.preview)
                    if hint.preview == "end":
                        return

        await nursery.start(listen)
        yield previews


async def test_every_message_once_over_kill_9_and_a_deleted_database(repo: Repo) -> None:
    with trio.fail_after(SECONDS):
        await send(repo, "before")
        async with open_listener(repo) as previews:
            await send(repo, "one", "two")
            await trio.to_thread.run_sync(repo.kill_daemon)
            await send(repo, "three", "four")
            await trio.to_thread.run_sync(repo.kill_daemon)
            repo.delete_database()
            await send(repo, "five", "end")
        assert previews == ["one", "two", "three", "four", "five", "end"]


async def test_an_inbox_of_bob_s_own_process_marks_what_it_handled(repo: Repo) -> None:
    program = (
        "from thrum.bus.subscriber import open_inbox\n"
        "with open_inbox('bob') as inbox:\n"
        "    for message in inbox:\n"
        "        print(message.body.content, flush=True)\n"
        "        if message.body.content == 'end':\n"
        "            break\n"
    )
    with trio.fail_after(SECONDS):
        await send(repo, "one")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", program], cwd=repo.worktree("bob"), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            printed = await process.stdout.receive_some()
            await trio.to_thread.run_sync(repo.kill_daemon)
            await send(repo, "two", "end")
            async for data in process.stdout:
                printed += data
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()
        assert printed.decode().split() == ["one", "two", "end"]
        with BlockingClient(repo.socket) as client:
            unread = client.call(MESSAGE_LIST, MessageListParams(unread_for_agent="bob", after_seq=0))
        assert unread.messages == ()
