"""The sessions that thrum makes in a real tmux: told apart from all others, clean, and ended without touching a
stranger's."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.terminal import screens
from tests.support.terminal.tmux_server import OwnServer, installed, own_server, until
from thrum.identity.processes import open_process_table
from thrum.model.errors import (
    AgentAlive,
    TmuxFailed,
    TmuxMissing,
    TmuxSessionExists,
    TmuxSessionNotFound,
    UsageError,
)
from thrum.terminal import foreground as foreground_module
from thrum.terminal.foreground import foreground
from thrum.terminal.sessions import Sessions, session_state
from thrum.terminal.tmux import Server, Tmux

pytestmark = pytest.mark.skipif(not installed, reason="tmux is not installed")

DAEMON = "d_01M805AJFYN4SGQ3TWNHN38YTH"


@pytest.fixture
async def server() -> AsyncIterator[OwnServer]:
    async with own_server() as server:
        yield server


@pytest.fixture
def sessions(server: OwnServer) -> Sessions:
    return Sessions(server.tmux, DAEMON, open_process_table())


async def _says(server: OwnServer, pane: str, words: str) -> None:
    async def is_said() -> bool:
        return words in await server.tmux.capture(pane)

    await until(is_said)


async def test_without_a_server_there_are_no_sessions_and_each_is_missed(sessions: Sessions) -> None:
    assert await sessions.list() == ()
    with pytest.raises(TmuxSessionNotFound) as missed:
        await sessions.find("work")
    assert missed.value.remedy == "thrum tmux status"


async def test_a_session_is_found_by_its_whole_name_and_strangers_are_neither_seen_nor_ended(
    server: OwnServer, sessions: Sessions, tmp_path: Path
) -> None:
    stranger = await server.start("auth-old", "cat")
    other = Sessions(server.tmux, "d_another", sessions.table)
    await other.create("auth-theirs", str(tmp_path))
    made = await sessions.create("auth", str(tmp_path), agent="furiosa", runtime="claude")
    assert [(each.name, each.directory, each.agent, each.runtime) for each in await sessions.list()] == [
        ("auth", str(tmp_path), "furiosa", "claude")
    ]
    with pytest.raises(TmuxSessionExists, match="there is a session 'auth'"):
        await sessions.create("auth", str(tmp_path))
    with pytest.raises(TmuxSessionExists, match="did not make"):
        await sessions.create("auth-old", str(tmp_path), replace=True)
    with pytest.raises(TmuxSessionExists, match="did not make"):
        await sessions.create("auth-theirs", str(tmp_path), replace=True)
    again = await sessions.create("auth", str(tmp_path), replace=True)
    assert again.id != made.id
    with pytest.raises((TmuxFailed, TmuxSessionNotFound)):
        await sessions.kill(made)
    with pytest.raises(TmuxFailed, match="no session of this daemon"):
        await other.kill(again)
    await sessions.kill(again)
    with pytest.raises(TmuxSessionNotFound):
        await sessions.find("auth")
    names = {row.session_name for row in await server.tmux.panes()}
    assert names == {"auth-old", "auth-theirs"}
    assert (await server.tmux.look(stranger)).dead is False


async def test_a_new_session_has_nothing_of_another_agent_in_its_environment(
    server: OwnServer, sessions: Sessions, tmp_path: Path
) -> None:
    await server.start("first", "cat")
    for name in ("THRUM_NAME", "THRUM_ROLE", "CLAUDE_PROJECT_DIR", "CODEX_THREAD_ID", "KEPT"):
        await server.tmux.run(("set-environment", "-g", name, "somebody-else"))
    session = await sessions.create("clean", str(tmp_path))
    show = "env | sort > env.txt; echo said-$((1+1))"
    await server.tmux.paste(session.pane, show, "t")
    await server.tmux.keys(session.pane, "Enter")
    await _says(server, session.pane, "said-2")
    environ = dict(line.partition("=")[::2] for line in (tmp_path / "env.txt").read_text().splitlines())
    assert environ["KEPT"] == "somebody-else" and environ["PWD"] == str(tmp_path)
    assert not {"THRUM_NAME", "THRUM_ROLE", "CLAUDE_PROJECT_DIR", "CODEX_THREAD_ID"} & environ.keys()
    launched = await sessions.launch(
        session, ("sh", "-c", "env > launched.txt; echo ready-$((1+1)); exec cat"), {"THRUM_NAME": "nux"}
    )
    await _says(server, launched.pane, "ready-2")
    assert "THRUM_NAME=nux\n" in (tmp_path / "launched.txt").read_text()
    assert "CLAUDE_PROJECT_DIR" not in (tmp_path / "launched.txt").read_text()


async def test_a_program_is_launched_only_over_a_shell_and_its_state_is_told(
    server: OwnServer, sessions: Sessions, tmp_path: Path
) -> None:
    session = await sessions.create("work", str(tmp_path), runtime="claude")
    assert session_state(await sessions.facts(session, 0)) == "stale"
    row = screens.one("claude", "dialog", (80, 24))
    screen, log = tmp_path / "screen.json", tmp_path / "log"
    screen.write_text(json.dumps(row.row), encoding="utf-8")
    stand_in = str(Path(screens.__file__).with_name("stand_in.py"))
    session = await sessions.launch(session, (sys.executable, "-S", "-E", stand_in, str(screen), str(log)))
    await server.tmux.run(("resize-window", "-t", session.id, "-x", "80", "-y", "24"))

    async def is_blocked() -> bool:
        return session_state(await sessions.facts(session, 0)) == "blocked"

    await until(is_blocked)
    front = await foreground(session.pane_pid, 0, sessions.table)
    assert (front.owner, front.pid) == ("other", session.pane_pid)
    with pytest.raises(AgentAlive, match="something runs in session 'work'"):
        await sessions.launch(session, ("true",))
    await server.tmux.keys(session.pane, "C-d")

    async def is_left() -> bool:
        return session_state(await sessions.facts(session, 0)) == "stale"

    await until(is_left)
    await sessions.send(session, f"echo {shlex.quote('a; b')}; echo done-$((1+1))")
    await _says(server, session.pane, "done-2")
    assert "a; b" in await sessions.capture(session)
    assert len((await sessions.capture(session, 2)).splitlines()) == 2


async def test_a_session_is_there_when_its_shell_is_however_long_that_takes_to_start(
    server: OwnServer, sessions: Sessions, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 0.3\nexec sh\n")
    slow.chmod(0o755)
    await server.start("first", "cat")
    await server.tmux.run(("set-option", "-g", "default-shell", str(slow)))
    made = await sessions.create("work", str(tmp_path))
    await sessions.launch(made, ("cat",))


async def test_both_ways_to_ask_for_the_foreground_group_agree(server: OwnServer) -> None:
    """`/proc`, and `ps` as on macOS, of a pane's first process; of one that does not exist nothing is told."""
    pid = await server.pid(await server.start("work", "cat"))
    assert foreground_module._by_proc(pid) == await foreground_module._by_ps(pid) == pid
    assert (await foreground(2**22 + 1, 0, open_process_table())).owner == "unknown"


async def test_a_session_that_is_gone_is_made_again_by_a_restart_and_one_that_is_there_keeps_its_id(
    server: OwnServer, sessions: Sessions, tmp_path: Path
) -> None:
    await server.start("other", "cat")
    first = await sessions.restart("work", str(tmp_path), ("cat",), agent="nux", runtime="codex")
    assert (first.directory, first.agent, first.runtime) == (str(tmp_path), "nux", "codex")
    second = await sessions.restart("work", "/", ("sh", "-c", "pwd; exec cat"))
    assert (second.id, second.directory) == (first.id, str(tmp_path))
    await _says(server, second.pane, str(tmp_path))


@pytest.mark.parametrize("name", ["", "a.b", "a:b", "=a", "$1", "-x", "a b", "x" * 65])
async def test_a_name_that_tmux_would_read_as_something_else_is_refused(sessions: Sessions, name: str) -> None:
    with pytest.raises(UsageError, match="no name of a session"):
        await sessions.create(name, "/")


async def test_a_target_that_is_no_id_is_never_given_to_tmux(server: OwnServer) -> None:
    await server.start("auth-old", "cat")
    for target in ("auth", "auth-old", "=auth-old", "%0;kill-server", ""):
        with pytest.raises(TmuxFailed, match="is no id"):
            await server.tmux.look(target)
        with pytest.raises(TmuxFailed, match="is no id"):
            await server.tmux.keys(target, "Enter")


async def test_what_tmux_can_not_do_is_told_with_a_fix(server: OwnServer, tmp_path: Path) -> None:
    with pytest.raises(TmuxMissing) as missing:
        await Tmux({"PATH": str(tmp_path)}).run(("ls",))
    assert missing.value.remedy
    await server.start("work", "cat")
    with pytest.raises(TmuxFailed, match="unknown command"):
        await server.tmux.run(("no-such-command",))
    with pytest.raises(TmuxSessionNotFound):
        await server.tmux.look("%99")
    slow = Tmux(server.tmux.environ, server.tmux.server, seconds_max=0.2)
    with pytest.raises(TmuxFailed, match=r"no answer within 0\.2 s"):
        await slow.run(("run-shell", "sleep 60"))


async def test_text_that_looks_like_tmux_commands_and_formats_comes_through_as_it_is(server: OwnServer) -> None:
    pane = await server.start("work", "cat")
    text = "ä ✓ #{pane_id} %s $(x) `y` 'q' \\; kill-server ;"
    await server.tmux.paste(pane, text, "t")
    await _says(server, pane, text)


async def test_a_title_comes_whole_with_a_look(server: OwnServer) -> None:
    pane = await server.start("work", "sh", "-c", r"printf '\033]2;3 tasks: a, b | %%s 100%% #{x}\007'; exec cat")

    async def has_title() -> bool:
        return (await server.tmux.look(pane)).screen.title == "3 tasks: a, b | %s 100% #{x}"

    await until(has_title)


async def test_another_server_s_flags_come_first() -> None:
    assert Server(name="x", config="/dev/null").flags == ("-L", "x", "-f", "/dev/null")
    assert Server(path="/s").flags == ("-S", "/s")
    assert Server().flags == ()
