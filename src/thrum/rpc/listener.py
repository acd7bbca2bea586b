"""The socket that the daemon listens on, and how many connections its open files allow (rpc.md §1)."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path

from thrum import limits

_SPARE_FILES = 256


def bind_listener(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, 0600; one that was left there is replaced. Call it under the daemon's lock.

    Raises OSError: path too long, or a file system that takes no sockets.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(limits.listen_backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def raise_open_file_limit(connections: int = limits.connections_max) -> None:
    """Let this process hold that many connections, as far as the hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Bound:
    """The sockets as this daemon bound them. Another one that took the place over has bound others there."""

    def __init__(self, rpc: Path, bus: Path) -> None:
        self._rpc = rpc
        self._inodes = {path: _inode(path) for path in (rpc, bus)}

    @property
    def are_there(self) -> bool:
        return all(inode is not None and _inode(path) == inode for path, inode in self._inodes.items())

    def remove_rpc(self) -> None:
        """Take the RPC socket away, if it is still this daemon's."""
        if self._inodes[self._rpc] is not None and _inode(self._rpc) == self._inodes[self._rpc]:
            with contextlib.suppress(OSError):
                self._rpc.unlink()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
