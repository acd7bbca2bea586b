"""A daemon that nobody has needed for a day ends by itself, and nobody else does."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import trio
import trio.testing

from tests.support.daemon.in_process import open_daemon
from thrum.daemon.shutdown import Ending, Idleness, is_needed, note_stop
from thrum.model import limits
from thrum.model.paths import layout_of
from thrum.rpc.dispatch import Drain
from thrum.rpc.sockets import remove_short_left


async def test_the_day_counts_from_whoever_came_last_and_from_when_nobody_was_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    needed, rested = [True], trio.Event()
    began = trio.current_time()
    idleness = Idleness(lambda: needed[0], trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idleness.watch, rested.set)
        await trio.sleep(2 * limits.idle_seconds_max)
        assert not rested.is_set(), "an agent is there"
        needed[0] = False
        await trio.sleep(limits.idle_seconds_max / 2)
        idleness.touch()
        await trio.sleep(limits.idle_seconds_max * 0.9)
        assert not rested.is_set(), "somebody came in between"
        await rested.wait()
    assert trio.current_time() - began <= 3.5 * limits.idle_seconds_max + limits.idle_check_seconds


async def test_an_open_session_or_somebody_who_waits_keeps_a_daemon(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        needed = partial(is_needed, daemon.parts)
        nux = await daemon.registered("nux")
        assert not needed(), "who is registered and not at work"
        await nux("session.start")
        assert needed()
        await nux("session.end")
        assert not needed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nux, "message.wait", timeout_ms=60_000))
            await trio.testing.wait_all_tasks_blocked()
            assert needed(), "a wait"
            nursery.cancel_scope.cancel()


def test_who_ends_by_itself_leaves_no_word_that_it_was_stopped(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, tmp_path / ".thrum")
    layout.var_dir.mkdir(parents=True)
    for end, marked in ((Ending.end_idle, False), (Ending.leave, False), (Ending.stop, True)):
        ending = Ending(Drain())
        end(ending)
        note_stop(layout, ending)
        assert ending.drain.begun and layout.stopped_mark.exists() == marked


def test_short_directories_of_killed_daemons_go_and_a_live_one_stays(tmp_path: Path) -> None:
    base = Path("/tmp") / f"thrum-left-{os.getpid()}"
    own = f"thrum-{os.getuid()}-"
    base.mkdir()
    try:
        for name in (f"{own}1-empty", f"{own}1-killed", f"{own}1-live", f"{own}1-young", f"{own}1-kept", "thrum-other"):
            (base / name).mkdir(mode=0o700)
        (base / f"{own}1-kept" / "mine").touch()
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(base / f"{own}1-killed" / "thrum.sock"))
        dead.close()
        (base / f"{own}1-killed" / "bus.sock").touch()
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(base / f"{own}1-live" / "thrum.sock"))
            live.listen()
            for each in base.iterdir():
                if not each.name.endswith("young"):
                    os.utime(each, (1, 1))
            remove_short_left(1_000_000, base)
        left = {each.name for each in base.iterdir()}
        assert left == {f"{own}1-live", f"{own}1-young", f"{own}1-kept", "thrum-other"}
    finally:
        for each in sorted(base.rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        base.rmdir()
