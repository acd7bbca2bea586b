"""The socket that the daemon listens on, and how many connections its open files allow (rpc.md §1)."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path

import trio

from thrum.model import files, limits
from thrum.model.errors import DaemonStartFailed
from thrum.rpc.jsonrpc import encode_error

_PAUSE_SECONDS = 0.05


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


def raise_open_file_limit() -> int:
    """Let this process open as many files as the daemon wants, as far as the hard limit goes; how many connections it
    may hold then.

    Raises DaemonStartFailed when they are too few for any daemon.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.open_files_wanted
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return connections_within(limits.open_files_wanted if soft == resource.RLIM_INFINITY else soft)


def connections_within(open_files: int) -> int:
    """How many connections fit beside the daemon's own files, of which a third of all are kept free for it.

    Raises DaemonStartFailed.
    """
    own = min(limits.own_files_max, max(limits.own_files_min, open_files // 3))
    connections = min(limits.connections_max, open_files - own)
    if connections < limits.connections_min:
        least = limits.own_files_min + limits.connections_min
        raise DaemonStartFailed(
            f"only {open_files} open files are allowed, the daemon needs {least}",
            remedy="raise the limit: ulimit -n 1024 (ulimit -Hn shows how far it goes), then repeat",
            limit=open_files,
        )
    return connections


def few_open_files(open_files: int) -> str:
    """What to say of a number of open files with which a daemon serves, and not many; empty where it is enough.

    Raises DaemonStartFailed where it does not even start.
    """
    connections = connections_within(open_files)
    if open_files >= limits.open_files_least:
        return ""
    return f"only {open_files} open files are allowed: {connections} connections at a time, one for each wait"


class Spare:
    """One descriptor kept for the moment when there is no other: with it, who connects then can be told so."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._keep()

    async def turn_away(self, listener: socket.socket) -> None:
        """Tell one that connects that there is no descriptor for it. Else it would stay there, and wake us for ever."""
        self.close()
        try:
            accepted, _ = listener.accept()
        except OSError:
            pass
        else:
            with accepted, contextlib.suppress(OSError):
                accepted.setblocking(False)
                accepted.send(encode_error(None, files.too_many()))
        # A connection that is closed to make room needs a turn for it.
        await trio.lowlevel.checkpoint()
        if not self._keep():
            await trio.sleep(_PAUSE_SECONDS)
            self._keep()

    def _keep(self) -> bool:
        if self._descriptor < 0:
            with contextlib.suppress(OSError):
                self._descriptor = files.open_following(os.devnull, os.O_RDONLY)
        return self._descriptor >= 0

    def close(self) -> None:
        """Make it free for something else."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
