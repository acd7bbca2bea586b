"""When Claude's own socket may be used: only where nothing lets the session be in bypass mode."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wake.rigs import SocketRig
from thrum.identity.processes import Program


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SocketRig]:
    (tmp_path / "c").mkdir()
    found = SocketRig(folder=tmp_path / "c")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path / "c")  # a path within the bounds of a socket's
        listener.bind("s.sock")
        yield found


async def is_open(rig: SocketRig) -> bool:
    return rig.door.state(rig.agent).open


async def test_nothing_opens_bypass_mode(rig: SocketRig) -> None:
    (rig.folder / "settings.json").write_text('{"permissions": {"allow": ["Bash(thrum:*)"]}} // mine')
    assert await is_open(rig)


@pytest.mark.parametrize(
    "words",
    [
        ("--dangerously-skip-permissions",),
        ("--allow-dangerously-skip-permissions",),
        ("--permission-mode", "bypassPermissions"),
        ("--permission-mode=bypassPermissions",),
        ("--agent", "reviewer"),
        ("--agents", "{}"),
        ("--settings", '{"permissions": {"defaultMode": "bypassPermissions"}}'),
        ("--settings=own.json",),
        ("--settings", "own.json"),
        ("-p", "hello"),
    ],
)
async def test_arguments_that_may_open_it_close_the_door(rig: SocketRig, words: tuple[str, ...]) -> None:
    (rig.folder / "own.json").write_text('{"permissions": {"defaultMode": "bypassPermissions"}}')
    rig.table.programs[rig.process[0]] = Program("claude", "", ("claude", *words))
    assert not await is_open(rig)


@pytest.mark.parametrize(
    "name",
    ["settings.json", ".claude/settings.json", ".claude/settings.local.json", "../.claude/settings.json",
     "managed/managed-settings.json", "managed/managed-settings.d/10.json"],
)  # fmt: skip
@pytest.mark.parametrize(
    "text", ['{"permissions": {"defaultMode": "bypassPermissions"}}', '{"agent": "x"}', "{", '{"permissions": 1}', "[]"]
)
async def test_settings_that_may_open_it_or_are_not_understood_close_the_door(
    rig: SocketRig, name: str, text: str
) -> None:
    path = rig.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert not await is_open(rig)


async def test_what_is_no_socket_of_the_users_is_none(rig: SocketRig) -> None:
    (rig.folder / "file").touch()
    rig.entry({"messagingSocketPath": str(rig.folder / "file")})
    assert not await is_open(rig)
    rig.entry({"messagingSocketPath": "s.sock"})
    rig.door.inner.forget(rig.process)
    assert not await is_open(rig)
