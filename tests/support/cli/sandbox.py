"""A sandbox as Codex's default one is: `python -m tests.support.cli.sandbox DENIED COMMAND…` runs a command under a
seccomp filter that answers EPERM to the network, also to `setsockopt` on a pair of sockets. DENIED: `connect` as Codex
does it, or `socket` for one that lets no socket be made at all. Status 77: this kernel takes no filter.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

REFUSED = 77

_NUMBERS = {
    "x86_64": {
        "socket": 41,
        "socketpair": 53,
        "connect": 42,
        "accept": 43,
        "accept4": 288,
        "sendto": 44,
        "shutdown": 48,
        "bind": 49,
        "listen": 50,
        "getsockname": 51,
        "getpeername": 52,
        "setsockopt": 54,
        "getsockopt": 55,
    },
    "aarch64": {
        "socket": 198,
        "socketpair": 199,
        "connect": 203,
        "accept": 202,
        "accept4": 242,
        "sendto": 206,
        "shutdown": 210,
        "bind": 200,
        "listen": 201,
        "getsockname": 204,
        "getpeername": 205,
        "setsockopt": 208,
        "getsockopt": 209,
    },
}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(denied: str, machine: str) -> bytes:
    """The filter as the kernel reads it: struct sock_filter, eight bytes each."""
    numbers = _NUMBERS[machine]
    names = [name for name in numbers if denied == "socket" or name not in ("socket", "socketpair")]
    steps = [(_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, len(names) - at, 0, numbers[name]) for at, name in enumerate(names)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def main(denied: str, *argv: str) -> None:
    if platform.machine() not in _NUMBERS or sys.platform != "linux":
        sys.exit(REFUSED)
    code = program(denied, platform.machine())
    kept = ctypes.create_string_buffer(code, len(code))
    asked = _Program(len(code) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(asked), 0, 0):
        sys.exit(REFUSED)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[1:])
