"""The daemon's sockets: where they are bound, and how they are reached without a link (rpc.md §1).

A client opens `.thrum` and `var` without following one, both this user's, and connects through the descriptor: so no
path is too long, and nothing can be put in between. The launcher has its own copy of this.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thrum.model.errors import DaemonStartFailed, in_shell
from thrum.model.files import ensure_private_dir, lstat, opened_parent, remove, status
from thrum.model.limits import socket_path_bytes_max, socket_path_bytes_max_macos
from thrum.model.paths import Layout

_SOCKET_PATH_BYTES_MAX = socket_path_bytes_max_macos if sys.platform == "darwin" else socket_path_bytes_max
_BY_DESCRIPTOR = sys.platform == "linux"
SHORT_BASE = Path("/tmp")
"""Where the short directories lie."""


@dataclass(frozen=True, slots=True)
class SocketPaths:
    """Where the daemon binds."""

    rpc: Path
    bus: Path
    private_dir: Path | None
    """The short directory that holds both, when the paths beside the state are too long; None when they fit."""


def socket_paths(layout: Layout, base: Path = SHORT_BASE, *, short: bool = False) -> SocketPaths:
    """Where both sockets lie: `.thrum/var/` if the paths fit, else a directory of this user under `base`.

    `short` forces the latter, for a file system that takes no sockets. Its name follows from the state directory, by
    device and inode: a client that finds no socket beside the state looks there.
    """
    rpc, bus = layout.socket_path, layout.var_dir / "bus.sock"
    if not short and _fits(rpc) and _fits(bus):
        return SocketPaths(rpc, bus, None)
    directory = short_dir(layout.state_dir, base)
    return SocketPaths(directory / "thrum.sock", directory / "bus.sock", directory)


def short_dir(state_dir: Path, base: Path = SHORT_BASE) -> Path:
    """The short directory of a state directory, whether it is there or not. Raises OSError."""
    found = os.stat(state_dir)
    return Path(os.path.realpath(base)) / f"thrum-{os.getuid()}-{found.st_dev:x}-{found.st_ino:x}"


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX


def prepare_socket_dir(layout: Layout, sockets: SocketPaths) -> None:
    """Make the directories to bind in. Call it under the daemon's lock.

    Raises DaemonStartFailed when the short directory is a link, belongs to another user or is open to others: they
    could put a socket of their own there.
    """
    ensure_private_dir(layout.var_dir)
    # What lies in a socket's place, a link or one of an earlier daemon, is no daemon's.
    for name in ("thrum.sock", "bus.sock"):
        remove(layout.var_dir / name)
    if sockets.private_dir is not None:
        _make_private(sockets.private_dir)


def remove_private_dir(sockets: SocketPaths) -> None:
    """Take the short directory away when the sockets in it are gone; the next daemon recreates it."""
    if sockets.private_dir is not None:
        with contextlib.suppress(OSError):
            sockets.private_dir.rmdir()


def remove_short_left(before_ms: int, base: Path = SHORT_BASE) -> None:
    """Take away this user's short directories in which no daemon listens and nothing was made since then: those of
    daemons that were killed, or of repositories that are gone. What can't be removed stays.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            if name.startswith(f"thrum-{os.getuid()}-"):
                with contextlib.suppress(OSError):
                    _remove_short(base / name, before_ms)


def _remove_short(directory: Path, before_ms: int) -> None:
    if private_dir_flaw(directory) or lstat(directory).st_mtime_ns >= before_ms * 1_000_000:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(directory / "thrum.sock")) not in (errno.ECONNREFUSED, errno.ENOENT):
            return
    for name in ("thrum.sock", "bus.sock"):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
    directory.rmdir()


Flaw = Literal["is not a directory", "belongs to another user", "is open to other users"]


def private_dir_flaw(path: Path) -> Flaw | None:
    """What makes a directory unfit for sockets, or None. Raises FileNotFoundError if there is none."""
    found = lstat(path)
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    return "is open to other users" if found.st_mode & 0o077 else None


def flaw_remedy(path: Path, flaw: Flaw) -> str:
    """What fixes it."""
    if flaw == "belongs to another user":  # in /tmp only they and root may remove it
        return f"as root: rm -r {in_shell(path)}; or move the repository to a shorter path; then: thrum daemon start"
    return f"remove {path}, then: thrum daemon start"


def _make_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        with contextlib.suppress(OSError):
            os.utime(path)  # in use again, so the removal of old leftovers spares it
    flaw = private_dir_flaw(path)
    if flaw is not None:
        raise DaemonStartFailed(f"the socket directory {path} {flaw}", remedy=flaw_remedy(path, flaw))


class Bound:
    """The sockets as this daemon bound them. Another one that took the place over has bound others there."""

    def __init__(self, sockets: SocketPaths) -> None:
        self._rpc = sockets.rpc
        self._inodes = {path: _inode(path) for path in (sockets.rpc, sockets.bus)}

    @property
    def are_there(self) -> bool:
        return all(inode is not None and _inode(path) == inode for path, inode in self._inodes.items())

    def remove_rpc(self) -> None:
        """Take the RPC socket away, if it is still this daemon's."""
        if self._inodes[self._rpc] is not None and _inode(self._rpc) == self._inodes[self._rpc]:
            with contextlib.suppress(OSError):
                remove(self._rpc)


def _inode(path: Path) -> tuple[int, int] | None:
    found = status(path)
    return None if found is None else (found.st_dev, found.st_ino)


def connect(path: Path | str, use: Callable[[str], None]) -> None:
    """Call `use` with an address of the daemon's socket: that of `path`, else, where a state directory has none, the
    short one. Errors of `use` are passed on; OSError also if a link is on the path.
    """
    path = Path(path)
    if not (path.name == "thrum.sock" and path.parent.name == "var" and path.parents[1].name == ".thrum"):
        use(str(path))  # as the user named it
        return
    try:
        _connect_beside(path, use)
    except FileNotFoundError:
        directory = short_dir(path.parents[1])
        if status(directory) is None:
            raise
        if flaw := private_dir_flaw(directory):
            raise PermissionError(errno.EACCES, flaw, str(directory)) from None
        use(str(directory / path.name))


def _connect_beside(path: Path, use: Callable[[str], None]) -> None:
    with opened_parent(path) as (directory, name):
        found = os.fstat(directory)
        if found.st_uid != os.getuid():
            raise PermissionError(errno.EACCES, "it belongs to another user", str(path.parent))
        there = lstat(name, dir_fd=directory)
        if stat.S_ISLNK(there.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is a link", str(path))
        use(f"/proc/self/fd/{directory}/{name}" if _BY_DESCRIPTOR else str(path))


def real_path(path: Path | str) -> str:
    """Where the daemon's socket lies, for people to look at."""
    found = str(path)

    def note(address: str) -> None:
        nonlocal found
        if not address.startswith("/proc/"):
            found = address

    try:
        connect(path, note)
    except OSError:
        pass
    return found
