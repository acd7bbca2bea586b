"""Claude Code's own socket for messages between sessions (2.1.224 and later): the door where no waiter is alive.

It never acknowledges; the proof is UserPromptSubmit, as for the waiter. A session in bypass mode holds what comes
there behind a question whose default is Deny, so it is used only where the process's arguments and settings rule
that mode out. What is not understood does not rule it out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import trio

from thrum.identity.processes import ProcessTable
from thrum.model import files
from thrum.model.wake_types import DoorState, Failed, Offered, Process, Reachable, Refused, State
from thrum.runtimes import _json_edit as json_edit
from thrum.runtimes.doors.claude import config_dir, is_interactive, read_entry

SOCKET: Final = "claude.socket"
CONNECT_SECONDS_MAX: Final = 3.0
SETTINGS_SECONDS: Final = 10.0
"""How long it is believed that a process's settings are as they were; an offer looks again."""

_TAKES: Final[frozenset[State]] = frozenset({"idle", "working", "unknown"})
_BYPASS: Final = "bypassPermissions"
_OPENING: Final = ("--dangerously-skip-permissions", "--allow-dangerously-skip-permissions", "--agent")
"""Arguments that begin so make bypass mode possible; an agent's definition may ask for it."""
_MANAGED: Final = ("/etc/claude-code", "/Library/Application Support/ClaudeCode")
_SETTINGS_BYTES_MAX: Final = 1 << 20
_PATHS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a process's socket. `path`: empty where it is not to be used."""

    path: str = ""
    why: str = ""
    is_gone: bool = False
    """Whether there is no socket: then a question of the settings does not come up."""
    at: float = 0.0


@dataclass(slots=True)
class SocketDoor:
    """`absent_since(process)`: since when the process has no waiter; None: it has one."""

    table: ProcessTable
    absent_since: Callable[[Process], float | None]
    deaf_seconds: float
    managed: Sequence[str] = _MANAGED
    _found: dict[Process, _Found] = field(default_factory=dict[Process, _Found])

    @property
    def name(self) -> str:
        return SOCKET

    def state(self, agent: Reachable) -> DoorState:
        since, is_open = None, False
        if agent.process is not None and (since := self.absent_since(agent.process)) is not None:
            is_open = bool(self._latest(agent.process, SETTINGS_SECONDS).path)
        opens_at = (since or 0.0) + self.deaf_seconds
        return DoorState(SOCKET, agent.hooks_fired, is_open, _TAKES, opens_at=opens_at)

    async def offer(self, agent: Reachable, text: str) -> Offered:
        await trio.lowlevel.checkpoint()
        process = agent.process
        if process is None:
            return Failed("the process is gone")
        found = self._latest(process, 0.0)
        if not found.path:
            return Failed(found.why) if found.is_gone else Refused(found.why)
        line = {
            "type": "user",
            "message": {"role": "user", "content": text},
            "session_id": agent.session,
            "from": "thrum",
            "priority": "next",
        }
        return await _send(found.path, process[0], msgspec.json.encode(line) + b"\n")

    def forget(self, process: Process) -> None:
        """The process has ended."""
        self._found.pop(process, None)

    def _latest(self, process: Process, age_max: float) -> _Found:
        now = trio.current_time()
        found = self._found.get(process)
        if found is None or now - found.at >= age_max:
            found = self._found[process] = replace(self._look(process), at=now)
        return found

    def _look(self, process: Process) -> _Found:
        """The socket that may be used. Blocking, some small files."""
        try:
            environ = self.table.environ(process[0])
        except OSError:
            return _Found(why="its variables can't be read")
        directory = config_dir(environ)
        entry = read_entry(directory, process) if directory else None
        argv = self.table.program(process[0]).argv
        if entry is None or not _is_socket(entry.messaging_socket_path) or not argv or not is_interactive(argv):
            return _Found(why="it has no socket", is_gone=True)
        at = [each for each in (entry.cwd, environ.get("PWD", "")) if os.path.isabs(each)]
        paths = (*settings_paths(directory, at, self.managed), *_named_settings(argv, entry.cwd))
        ruled_out = not _opens_bypass(argv) and all(_rules_out(text) for text in _texts(paths))
        return _Found(entry.messaging_socket_path) if ruled_out else _Found(why="bypass mode is not ruled out")


def _opens_bypass(argv: Sequence[str]) -> bool:
    return any(word.startswith(_OPENING) or _BYPASS in word for word in argv)


def settings_paths(directory: str, at: Sequence[str], managed: Sequence[str]) -> tuple[str, ...]:
    """The files that may set the mode of a session that stands in one of these directories."""
    own = [f"{directory}/{name}" for name in ("settings.json", "settings.local.json", "remote-settings.json")]
    rules = [f"{each}/managed-settings.json" for each in managed]
    for each in managed:
        try:
            rules += [str(path) for path in sorted(Path(each, "managed-settings.d").iterdir())]
        except OSError:
            continue
    inside = [
        str(folder / ".claude" / name)
        for each in dict.fromkeys(at)
        for folder in (Path(each), *Path(each).parents)
        for name in ("settings.json", "settings.local.json")
    ]
    return tuple(dict.fromkeys((*own, *rules, *inside)))


def _named_settings(argv: Sequence[str], cwd: str) -> Iterator[str]:
    """What the arguments name as settings: a file, or JSON."""
    for at, word in enumerate(argv):
        given = argv[at + 1] if word == "--settings" and at + 1 < len(argv) else ""
        given = word.removeprefix("--settings=") if word.startswith("--settings=") else given
        if given:
            yield given if given.lstrip().startswith("{") else os.path.join(cwd, given)


def _texts(paths: Sequence[str]) -> Iterator[str]:
    """The settings in these files; what can't be read is no JSON, and so rules nothing out."""
    if len(paths) > 2 * _PATHS_MAX:
        yield "too many"
    for path in paths[: 2 * _PATHS_MAX]:
        if path.lstrip().startswith("{"):
            yield path
            continue
        try:
            with os.fdopen(files.open_following(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                data = file.read(_SETTINGS_BYTES_MAX + 1)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                yield "unreadable"
            continue
        yield data.decode("utf-8", "replace") if len(data) <= _SETTINGS_BYTES_MAX else "too long"


def _rules_out(text: str) -> bool:
    """Whether settings leave the mode of permissions as it is, or set another one than bypass."""
    if not text.strip():
        return True
    try:
        value: Any = json_edit.parse(text).to_value()
    except json_edit.NotJson:
        return False
    if not isinstance(value, dict):
        return False
    known = cast("dict[str, Any]", value)
    permissions = known.get("permissions", {})
    if not isinstance(permissions, dict) or known.get("agent"):
        return False
    return cast("dict[str, Any]", permissions).get("defaultMode") != _BYPASS


def _is_socket(path: str) -> bool:
    """Whether a socket of this user lies there."""
    try:
        found = files.lstat(path)
    except (OSError, ValueError):
        return False
    return os.path.isabs(path) and stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()


async def _send(path: str, pid: int, data: bytes) -> Offered:
    """Hand a line over to the process that listens at a socket, if it is that one."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            with trio.fail_after(CONNECT_SECONDS_MAX):
                await peer.connect(path)
            if (other := _listener(peer)) not in (0, pid):
                return Failed(f"another process listens at its socket (pid {other})")
        except (OSError, trio.TooSlowError) as error:
            return Failed(f"its socket: {error.strerror or 'refused' if isinstance(error, OSError) else 'no answer'}")
        sent = 0
        # From the first byte on it can't be taken back.
        with trio.CancelScope(shield=True), trio.move_on_after(CONNECT_SECONDS_MAX), contextlib.suppress(OSError):
            while sent < len(data):
                sent += await peer.send(data[sent:])
        return "offered" if sent else Failed("its socket took nothing")


def _listener(peer: trio.socket.SocketType) -> int:
    """The process that listens there; 0 where the kernel does not tell."""
    if sys.platform != "linux":
        return 0
    told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", told)[0])
