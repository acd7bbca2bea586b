"""The peer of a Unix socket according to the kernel, never according to the peer (rpc.md §3)."""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

# macOS: <sys/un.h>. The socket module of Python knows neither the level nor the options.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED_VERSION = 0

_UCRED = struct.Struct("3i")
_XUCRED = struct.Struct("IIh16I")


class Peer(NamedTuple):
    """Credentials of the process that connected, as of that moment. `pid` 0: the kernel gave none."""

    uid: int
    gid: int
    pid: int


def peer_of(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket. Raises OSError when the kernel does not say."""
    if sys.platform == "darwin":
        raw = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
        version, uid, groups, *gids = _XUCRED.unpack(raw)
        if version != _XUCRED_VERSION:
            raise OSError(f"unknown version {version} of the peer's credentials")
        pid = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
        return Peer(uid, gids[0] if groups else -1, pid)
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid, gid, pid)
