"""Claude Code's registry: what it says of a process, and of whom it says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thrum.model.wake_types import Process, Reachable
from thrum.runtimes.doors import claude
from thrum.runtimes.waiters import Waiters

PROCESS: Process = (8906, "6c1f-boot/3043853")
ENTRY = {
    "pid": 8906,
    "sessionId": "ece9ea5f",
    "cwd": "/repo",
    "procStart": "3043853",
    "version": "2.1.332",
    "kind": "interactive",
    "status": "idle",
    "statusUpdatedAt": 1796094059849,
}


def _written(directory: Path, **changes: object) -> str:
    sessions = directory / "sessions"
    sessions.mkdir(exist_ok=True)
    (sessions / "8906.json").write_text(json.dumps({**ENTRY, **changes}))
    return str(directory)


@pytest.mark.parametrize(
    ("status", "state"), [("idle", "idle"), ("busy", "working"), ("waiting", "dialog"), ("napping", "unknown")]
)
def test_its_status_is_the_runtimes_state(tmp_path: Path, status: str, state: str) -> None:
    found = claude.read_session(_written(tmp_path, status=status), PROCESS)
    assert found == claude.Session(state, 1796094059849, "ece9ea5f", "2.1.332")  # type: ignore[arg-type]


def test_the_file_of_a_process_that_was_killed_says_nothing_of_the_next_with_its_pid(tmp_path: Path) -> None:
    directory = _written(tmp_path)
    assert claude.read_session(directory, (8906, "6c1f-boot/9")) is None
    assert claude.read_session(directory, (8906, "6c1f-boot/13043853")) is None
    assert claude.read_session(directory, (1, PROCESS[1])) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "8906"}', '{"pid": 8906, "statusUpdatedAt": "x"}'])
def test_a_file_that_is_no_entry_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions/8906.json").write_text(text)
    assert claude.read_session(str(tmp_path), PROCESS) is None


def test_where_its_files_are_follows_from_its_own_environment() -> None:
    assert claude.config_dir({"HOME": "/home/u"}) == "/home/u/.claude"
    assert claude.config_dir({"HOME": "/home/u", "CLAUDE_CONFIG_DIR": "/etc/c"}) == "/etc/c"
    assert claude.config_dir({"HOME": "/home/u", "CLAUDE_CONFIG_DIR": "relative"}) == ""
    assert claude.config_dir({}) == ""


def test_with_p_there_is_no_person_at_it() -> None:
    assert claude.is_interactive(("claude", "--resume"))
    assert not claude.is_interactive(("claude", "-p", "do it"))
    assert not claude.is_interactive(("/bin/claude", "--print"))


def test_the_door_is_open_while_a_waiter_sleeps_and_proves_where_hooks_fire() -> None:
    door = claude.WaiterDoor(Waiters())
    agent = Reachable("bob", "idle", 0.0, PROCESS, "claude", hooks_fired=True)
    state = door.state(agent)
    assert (state.name, state.open, state.proves) == (claude.WAITER, False, True)
    assert state.takes == {"idle", "working", "unknown"}  # never while a dialog is open
    assert not door.state(Reachable("bob", "idle", 0.0, PROCESS, "claude", hooks_fired=False)).proves
