"""The entries of a tree of the branch, and a git index of them. Pure."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple


class TreeEntry(NamedTuple):
    path: bytes
    mode: int
    object_id: str

    @property
    def is_file(self) -> bool:
        """No link, no submodule."""
        return self.mode & 0o170000 == 0o100000

    def holds(self, data: bytes) -> bool:
        """Whether it is a file of these bytes, by its id, without reading it."""
        object_id = _digest(b"blob %d\0" % len(data) + data, len(self.object_id)).hex()
        return self.is_file and object_id == self.object_id


def index_bytes(entries: Iterable[TreeEntry], *, object_id_chars: int = 40) -> bytes:
    """A git index (version 3) of these files, each marked skip-worktree and assume-unchanged, without stat data."""
    ordered = sorted(entries)
    parts = [struct.pack(">4sII", b"DIRC", 3 if ordered else 2, len(ordered))]
    for path, mode, object_id in ordered:
        flags = 0x8000 | 0x4000 | min(len(path), 0xFFF)  # assume-valid, extended, length of the name
        entry = struct.pack(">10I", 0, 0, 0, 0, 0, 0, mode, 0, 0, 0) + bytes.fromhex(object_id)
        entry += struct.pack(">HH", flags, 0x4000) + path  # skip-worktree
        parts.append(entry + b"\0" * (8 - len(entry) % 8))
    body = b"".join(parts)
    return body + _digest(body, object_id_chars)


def _digest(data: bytes, object_id_chars: int) -> bytes:
    """git's, of a repository whose objects have names of so many characters."""
    return (hashlib.sha256(data) if object_id_chars == 64 else hashlib.sha1(data, usedforsecurity=False)).digest()
