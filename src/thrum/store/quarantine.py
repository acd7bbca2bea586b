"""What could not be used, kept with its reason: `quarantine.jsonl` beside the local journal (events.md §11).

One line per (file, sha256): `{at, file, offset, length, reason, sha256, text | base64}`. The file is for people and for
`thrum verify`; nothing in the picture depends on it, so a damaged line of its own is passed over.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from thrum import clock, files, limits


class Quarantined(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One set-aside line. `offset` and `length` (bytes, without newline) tell where it lay when it was found; the
    offset is -1 for a line of the branch that did not come into the journal here; of one over the limit only the start
    is kept.
    """

    at: str
    file: str
    offset: int
    commit: str = ""
    length: int
    reason: str
    sha256: str
    text: str = ""
    base64: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Quarantined)


class Quarantine:
    """The quarantine file. Owned by whoever holds the daemon's lock; not for several threads at once."""

    def __init__(self, path: Path, wall: clock.Clock) -> None:
        self.path = path
        self._wall = wall
        self._known: set[tuple[str, str]] | None = None
        self._unsynced = False

    def add(self, file: str, offset: int, raw: bytes, reason: str) -> bool:
        """Keep `raw`, found in the journal `file`; False if the same bytes of that file are kept already.

        Durable after the next `flush`. Raises OSError.
        """
        known = self._load()
        digest = hashlib.sha256(raw).hexdigest()
        if (file, digest) in known:
            return False
        # Of a line that is no fact by its size alone, and that git keeps, the start will do.
        huge = offset < 0 and len(raw) > limits.line_bytes_max
        kept = raw[: limits.quarantined_bytes_max] if huge else raw
        try:
            text, encoded = kept.decode(), ""
        except UnicodeDecodeError:
            text, encoded = "", base64.b64encode(kept).decode()
        line = Quarantined(
            at=clock.format_ms(self._wall.now_ms()),
            file=file,
            offset=offset,
            length=len(raw),
            reason=reason,
            sha256=digest,
            text=text,
            base64=encoded,
        )
        self._append(_encoder.encode(line) + b"\n")
        known.add((file, digest))
        return True

    def holds(self, file: str, raw: bytes) -> bool:
        """Whether these bytes of that journal are kept already."""
        return (file, hashlib.sha256(raw).hexdigest()) in self._load()

    def flush(self) -> None:
        """Make every kept line durable. Raises OSError."""
        if not self._unsynced:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        files.sync_directory(self.path.parent)
        self._unsynced = False

    def entries(self) -> Iterator[Quarantined]:
        """Every kept line, oldest first."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                try:
                    yield _decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue

    def __len__(self) -> int:
        """How many lines are kept."""
        return len(self._load())

    def _load(self) -> set[tuple[str, str]]:
        if self._known is None:
            self._known = {(entry.file, entry.sha256) for entry in self.entries()}
        return self._known

    def _append(self, line: bytes) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # A kill tore this file's own last line: never glue two together.
                line = b"\n" + line
            view = memoryview(line)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        self._unsynced = True
