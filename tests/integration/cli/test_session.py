"""Which stdin counts where no word asked for it: nobody hangs on one that a parent left open (cli.md 3.3)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from thrum.cli.session import is_offered


async def test_a_file_counts_and_a_keyboard_or_nothing_does_not(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x")
    notes, null = (os.open(path, os.O_RDONLY) for path in (tmp_path / "notes", os.devnull))
    assert await is_offered(notes)
    assert not await is_offered(null)
    os.close(notes)
    assert not await is_offered(notes)
    os.close(null)


async def test_a_pipe_that_speaks_or_ends_counts_and_a_silent_one_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reader, writer = os.pipe()
    here, there = socket.socketpair()
    try:
        assert not await is_offered(reader)
        assert not await is_offered(here.fileno())
        assert autojump_clock.current_time() >= 2.0
        os.write(writer, b"x")
        there.send(b"x")
        assert await is_offered(reader)
        assert await is_offered(here.fileno())
        os.read(reader, 1)
    finally:
        os.close(writer)
        here.close()
        there.close()
    assert await is_offered(reader)
    os.close(reader)


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells who writes to a pipe")
async def test_a_pipe_that_a_command_writes_to_is_waited_for_however_long_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=writer) as producer:  # noqa: ASYNC220
        os.close(writer)
        found: list[bool] = []

        async def look() -> None:
            found.append(await is_offered(reader))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.sleep(3600)
            assert not found, "neither given up nor read before it spoke"
            assert producer.stdin is not None
            producer.stdin.close()  # it ends without a word: its reader finds the end
        assert found == [True]
    os.close(reader)
