"""A line is typed into panes of a real tmux, in which stand-ins draw recorded screens: only where it is idle and
empty."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import trio

from tests.support.terminal import screens
from tests.support.terminal.tmux_server import OwnServer, StandIn, installed, own_server, until
from thrum.terminal.panes import read_pane
from thrum.terminal.tmux import Look
from thrum.terminal.typing import Failed, Offered, Refused, Sight, TmuxPane, type_line

pytestmark = pytest.mark.skipif(not installed, reason="tmux is not installed")

LINE = "thrum: 2 messages from @nux wait for you: run thrum inbox; wak_01M805AJFYN4SGQ3TWNHN38YTH"


@pytest.fixture
async def server() -> AsyncIterator[OwnServer]:
    async with own_server() as server:
        yield server


class Meddled(TmuxPane):
    """A pane in which something happens at a certain moment of the act."""

    async def press(self, seen: Look, key: str, times: int = 1) -> bool:
        if key == "Enter":
            await self.meddle()
        return await super().press(seen, key, times)

    async def meddle(self) -> None:
        raise NotImplementedError


async def _quiet(pane: StandIn) -> None:
    """Until nobody has pressed a key for long enough."""

    async def is_quiet() -> bool:
        look = await pane.server.tmux.look(pane.pane)
        return look.now - look.last_key >= 2

    await until(is_quiet)


@pytest.mark.parametrize(("runtime", "size"), [("claude", (80, 24)), ("codex", (80, 24)), ("gemini", (120, 40))])
async def test_a_line_is_typed_whole_and_sent_once_where_the_prompt_is_idle_and_empty(
    server: OwnServer, runtime: str, size: tuple[int, int]
) -> None:
    pane = await server.show(screens.one(runtime, "idle_empty", size), lag=0.02)
    await _quiet(pane)
    assert await type_line(pane.port(), runtime, LINE) == Offered()
    await pane.logged(lambda entries: bool(pane.submitted()))
    assert pane.submitted() == [LINE]
    assert pane.typed() == LINE + "\r", "no Escape, nothing besides"
    assert (await server.tmux.run(("list-buffers",))) == ""
    assert not (await server.tmux.look(pane.pane)).input_off


@pytest.mark.parametrize(
    ("runtime", "state"),
    [
        ("claude", "idle_draft"),
        ("codex", "idle_draft"),
        ("gemini", "idle_draft"),
        ("claude", "working"),
        ("codex", "working"),
        ("gemini", "working"),
        ("claude", "dialog"),
        ("codex", "dialog"),
        ("gemini", "dialog"),
        ("claude", "trust_dialog"),
        ("codex", "starting"),
    ],
)
async def test_what_is_not_idle_and_empty_gets_no_key(server: OwnServer, runtime: str, state: str) -> None:
    row = next(
        each
        for each in screens.recorded()
        if (each.runtime, each.state) == (runtime, state)
        and each.size[0] >= 80
        and (state != "starting" or each.screen.cursor[0] > 0)
    )
    pane = await server.show(row)
    await _quiet(pane)
    before = (await server.tmux.look(pane.pane)).screen
    assert await type_line(pane.port(), runtime, LINE) == Refused(f"the pane shows {state}")
    assert (await server.tmux.look(pane.pane)).screen == before
    assert pane.typed() == ""


async def test_a_pane_in_copy_mode_and_one_with_a_shell_in_front_get_no_key(server: OwnServer) -> None:
    pane = await server.show(screens.one("claude", "idle_empty", (80, 24)))
    await _quiet(pane)
    await server.tmux.run(("copy-mode", "-t", pane.pane))
    assert await type_line(pane.port(), "claude", LINE) == Refused("the pane shows copy_mode")
    await server.tmux.run(("send-keys", "-X", "-t", pane.pane, "cancel"))
    assert await type_line(pane.port(agent_pid=os.getpid()), "claude", LINE) == Refused("another program is in front")
    shell = await server.start("shell", "/bin/sh")
    port = TmuxPane(server.tmux, shell, pane.pid, pane.port().table)

    async def is_started() -> bool:
        return (await port.look()).owner == "shell"

    await until(is_started)
    assert await type_line(port, "claude", LINE) == Refused("the shell is in front")
    assert pane.typed() == ""
    assert LINE not in await server.tmux.capture(shell)


async def test_a_key_of_a_person_between_the_look_and_enter_sends_nothing(server: OwnServer) -> None:
    row = screens.one("claude", "idle_empty", (80, 24))
    pane = await server.show(row, lag=0.3)
    terminal = server.attach("work", row.size)

    async def is_shown() -> bool:
        look = await server.tmux.look(pane.pane)
        return look.watched and read_pane("claude", look.screen).state == "idle_empty"

    await until(is_shown)
    await _quiet(pane)

    class Typist(Meddled):
        async def meddle(self) -> None:
            os.write(terminal, b"x")
            await pane.logged(lambda entries: {"key": "x"} in entries)

    port = Typist(server.tmux, pane.pane, pane.pid, pane.port().table, sleep=pane.port().sleep)
    assert await type_line(port, "claude", LINE) == Failed("somebody touched the pane")
    assert pane.submitted() == []

    async def has_both() -> bool:
        return pane.typed() == LINE + "x"

    await until(has_both)  # the person's key is there, and nothing was taken back from under it


async def test_a_key_that_another_program_sends_between_the_look_and_enter_is_in_no_mixed_line(
    server: OwnServer,
) -> None:
    pane = await server.show(screens.one("claude", "idle_empty", (80, 24)), lag=0.3)
    await _quiet(pane)

    class Tool(Meddled):
        async def meddle(self) -> None:
            await self.tmux.keys(self.pane, "x")

    async def patient(seconds: float) -> None:
        await trio.sleep(max(seconds, 0.4))

    port = Tool(server.tmux, pane.pane, pane.pid, pane.port().table, sleep=patient)
    assert await type_line(port, "claude", LINE) == Offered()
    await pane.logged(lambda entries: bool(pane.submitted()))
    assert pane.submitted() == [LINE]


async def test_a_key_drawn_beside_the_line_leaves_both_in_the_prompt(server: OwnServer) -> None:
    pane = await server.show(screens.one("codex", "idle_empty", (80, 24)))
    await _quiet(pane)

    class Early(TmuxPane):
        async def paste(self, seen: Look, text: str) -> bool:
            pasted = await super().paste(seen, text)
            await self.tmux.keys(self.pane, "x")
            return pasted

    port = Early(server.tmux, pane.pane, pane.pid, pane.port().table, sleep=pane.port().sleep)
    result = await type_line(port, "codex", LINE)
    assert isinstance(result, Failed) and result.left
    assert pane.submitted() == []
    assert pane.typed() == LINE + "x"


async def test_a_line_that_stands_alone_is_taken_back_when_enter_was_not_pressed(server: OwnServer) -> None:
    pane = await server.show(screens.one("codex", "idle_empty", (80, 24)))
    await _quiet(pane)

    class Moved(TmuxPane):
        looks = 0

        async def look(self) -> Sight:
            sight = await super().look()
            self.looks += 1
            drawn = read_pane("codex", sight.look.screen).state == "idle_draft"
            return sight._replace(owner="child") if drawn and self._held else sight

    port = Moved(server.tmux, pane.pane, pane.pid, pane.port().table, sleep=pane.port().sleep)
    result = await type_line(port, "codex", LINE)
    assert result == Failed("a program that the agent started is in front", left=False)
    assert pane.submitted() == []
    assert read_pane("codex", (await server.tmux.look(pane.pane)).screen).state == "idle_empty"


async def test_a_pane_whose_keys_go_elsewhere_too_or_that_takes_none_is_left_alone(server: OwnServer) -> None:
    pane = await server.show(screens.one("claude", "idle_empty", (80, 24)))
    await _quiet(pane)
    await server.tmux.run(("set-option", "-w", "-t", pane.pane, "synchronize-panes", "on"))
    assert await type_line(pane.port(), "claude", LINE) == Refused("its keys would go into other panes, too")
    await server.tmux.run(
        ("set-option", "-w", "-t", pane.pane, "synchronize-panes", "off"), ("select-pane", "-d", "-t", pane.pane)
    )
    assert await type_line(pane.port(), "claude", LINE) == Refused("the pane takes no keys")
    assert pane.typed() == ""


@pytest.mark.parametrize("runtime", ["claude", "codex"])
async def test_of_two_daemons_at_one_pane_only_one_types(server: OwnServer, runtime: str) -> None:
    pane = await server.show(screens.one(runtime, "idle_empty", (80, 24)), lag=0.2)
    await _quiet(pane)
    results: list[object] = []

    async def act(line: str) -> None:
        port = pane.port()
        try:
            results.append(await type_line(port, runtime, line))
        finally:
            await port.unmark()

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(act, f"{number} {LINE}")
    assert [type(each) for each in results].count(Offered) == 1, results
    assert all(isinstance(each, Offered | Refused) for each in results), results
    await pane.logged(lambda entries: bool(pane.submitted()))
    (said,) = pane.submitted()
    assert said[2:] == LINE and pane.typed() == said + "\r", "no key of another act"
    assert await server.tmux.run(("list-buffers",)) == ""


async def test_the_mark_of_a_daemon_that_was_killed_is_no_hindrance_for_long(server: OwnServer) -> None:
    pane = await server.show(screens.one("codex", "idle_empty", (80, 24)))
    await _quiet(pane)
    now = (await server.tmux.look(pane.pane)).now
    await server.tmux.run(("set-option", "-p", "-t", pane.pane, "@thrum-typing", f"thrum-dead {now}"))
    assert await type_line(pane.port(), "codex", LINE) == Refused("another daemon types here")
    await server.tmux.run(("set-option", "-p", "-t", pane.pane, "@thrum-typing", f"thrum-dead {now - 60}"))
    assert await type_line(pane.port(), "codex", LINE) == Offered()
