"""Bytes into lines and frames, and back. No I/O (rpc.md §1, §6)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from thrum.model import limits

_HEAD: Final = struct.Struct(">cI")

STDOUT: Final = b"o"
STDERR: Final = b"e"
WANT_STDIN: Final = b"i"
STDIN: Final = b"s"
FLUSH: Final = b"f"
FLUSHED: Final = b"a"
RUN_YOURSELF: Final = b"l"
EXIT: Final = b"x"
_TO_DAEMON: Final = frozenset({STDIN, FLUSHED})


class Overlong(ValueError):
    """A line or frame is longer than it may be; what comes after it can't be told apart any more."""


class LineSplitter:
    """Cuts a stream into its lines, without their `\\n`. A line of more than `line_bytes_max` bytes is Overlong."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, line_bytes_max: int = limits.request_line_bytes_max) -> None:
        self._limit = line_bytes_max
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> int:
        """How many bytes came of a line that is not whole."""
        return self._size

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises Overlong, after which the splitter is of no use."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts, self._size = [], 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
        if self._size > self._limit or (lines and max(map(len, lines)) > self._limit):
            raise Overlong
        return lines

    def rest(self) -> bytes:
        """What came after the last whole line; it is taken out."""
        rest = b"".join(self._parts)
        self._parts, self._size = [], 0
        return rest


class Frame(NamedTuple):
    kind: bytes
    payload: bytes


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame of a raw run: kind, length, payload."""
    return _HEAD.pack(kind, len(payload)) + payload


def output_frames(kind: bytes, data: bytes) -> list[bytes]:
    """`data` as frames of at most 64 KiB."""
    size = limits.frame_bytes_max
    return [frame(kind, data[start : start + size]) for start in range(0, len(data), size)]


class FrameSplitter:
    """Cuts what a launcher sends into frames. ValueError: it is no frame; Overlong: it is too long."""

    __slots__ = ("_buffer",)

    def __init__(self, data: bytes = b"") -> None:
        self._buffer = bytearray(data)

    def feed(self, data: bytes) -> list[Frame]:
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            kind, length = _HEAD.unpack_from(buffer, start)
            if kind not in _TO_DAEMON:
                raise ValueError(f"not a frame to the daemon: {kind!r}")
            if length > limits.frame_bytes_max:
                raise Overlong
            end = start + _HEAD.size + length
            if len(buffer) < end:
                break
            frames.append(Frame(kind, bytes(buffer[start + _HEAD.size : end])))
            start = end
        del buffer[:start]
        return frames
