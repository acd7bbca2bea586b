"""What could not be used, kept with its reason: `quarantine.jsonl` beside the local journal (events.md §11).

One line per (file, sha256): `{at, file, offset, length, reason, sha256, text | base64}`. Anyone with push access can
fill it: so a sample is kept per journal and reason, and the number of the rest, in one line that is overwritten. The
file is for people and for `thrum verify`; nothing in the projection depends on it, so a damaged line in it is skipped.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from thrum.model import clock, files, limits

ALWAYS_KEPT: Final = "torn_tail"
"""The reason for bytes that are cut off a journal: there is no other copy of them."""


class Quarantined(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One quarantined line. `offset` and `length` (bytes, without newline) tell where it lay when it was found; the
    offset is -1 for a line of the branch that did not come into the journal here; of one over the limit only the start
    is kept. With `more` it counts further lines that were not kept, `length` bytes together.
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
    more: int = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Quarantined)

_Kind = tuple[str, str]
"""A journal and a reason."""


class Kept:
    """What a quarantine holds, for who asks whether a line was quarantined."""

    __slots__ = ("_counts", "_lines")

    def __init__(self, entries: Iterable[Quarantined] = ()) -> None:
        self._lines: set[tuple[str, str]] = set()
        self._counts: Counter[_Kind] = Counter()
        for entry in entries:
            self.note(entry)

    def note(self, entry: Quarantined) -> None:
        """Add one of its lines."""
        if entry.more:
            self._counts[entry.file, entry.reason] += limits.quarantined_each_max
        else:
            self._lines.add((entry.file, entry.sha256))
            self._counts[entry.file, entry.reason] += 1

    def has(self, file: str, digest: str) -> bool:
        """Whether the line of that sha256 (hexadecimal) was kept."""
        return (file, digest) in self._lines

    def is_full(self, file: str, reason: str) -> bool:
        """Whether no more lines of that reason are kept of the journal."""
        return self._counts[file, reason] >= limits.quarantined_each_max

    def covers(self, file: str, raw: bytes, reason: str) -> bool:
        """Whether the line was quarantined: kept, or one of so many that they were only counted."""
        return self.is_full(file, reason) or self.is_full("", reason) or self.has(file, digest(raw))

    def __len__(self) -> int:
        return len(self._lines)


class _Count(NamedTuple):
    """Lines that were not kept. `place`: offset and length of that line in the quarantine; it may grow."""

    lines: int
    bytes: int
    place: tuple[int, int] | None


def digest(raw: bytes) -> str:
    """What a line is known by in quarantine."""
    return hashlib.sha256(raw).hexdigest()


class Quarantine:
    """The quarantine file. Owned by the holder of the daemon's lock; not for several threads at once."""

    def __init__(self, path: Path, wall: clock.Clock) -> None:
        self.path = path
        self._wall = wall
        self._kept: Kept | None = None
        self._counts: dict[_Kind, _Count] = {}
        self._recount: set[_Kind] = set()
        self._size = 0
        self._unsynced = False

    def add(self, file: str, offset: int, raw: bytes, reason: str, *, stays: bool = False) -> bool:
        """Keep `raw`, found in the journal `file`, or count it, if enough of that reason is kept; False if the same
        bytes of that file are kept already. One that `stays` in its journal is not counted: it can be found there.

        Durable after the next `flush`. Raises OSError.
        """
        kept = self._load()
        sha256 = digest(raw)
        if kept.has(file, sha256):
            return False
        is_full = kept.is_full(file, reason) or self._size >= limits.quarantined_all_bytes_max
        if is_full and reason != ALWAYS_KEPT:
            if not stays:
                self.count(file, reason, 1, len(raw))
            return not stays
        # Of a line that is no fact by its size alone, and that git keeps, the start will do.
        huge = offset < 0 and len(raw) > limits.line_bytes_max
        text, encoded = _spelled(raw[: limits.quarantined_bytes_max] if huge else raw)
        line = Quarantined(
            at=clock.format_ms(self._wall.now_ms()),
            file=file,
            offset=offset,
            length=len(raw),
            reason=reason,
            sha256=sha256,
            text=text,
            base64=encoded,
        )
        self._append(_encoder.encode(line) + b"\n")
        kept.note(line)
        return True

    def count(self, file: str, reason: str, lines: int, size: int) -> None:
        """Note that so many lines of that journal, `size` bytes together, were not kept."""
        self._load()
        kind = (file, reason)
        if kind not in self._counts and len(self._counts) >= limits.quarantined_counts_max:
            kind = ("", reason)
        before = self._counts.get(kind, _Count(0, 0, None))
        self._counts[kind] = _Count(before.lines + lines, before.bytes + size, before.place)
        self._recount.add(kind)

    def holds(self, file: str, raw: bytes) -> bool:
        """Whether these bytes of that journal are kept already."""
        return self._load().has(file, digest(raw))

    def flush(self) -> None:
        """Make every kept line durable, and write how many were not kept. Raises OSError."""
        for kind in sorted(self._recount):
            self._write_count(kind)
        self._recount.clear()
        if not self._unsynced:
            return
        descriptor = files.open_nofollow(self.path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        files.sync_directory(self.path.parent)
        self._unsynced = False

    def entries(self) -> Iterator[Quarantined]:
        """Every kept line, oldest first, and the counts of those that were not kept."""
        return (entry for entry, _, _ in self._read())

    def __len__(self) -> int:
        """How many lines were quarantined, those that were only counted too."""
        kept = self._load()
        return len(kept) + sum(count.lines for count in self._counts.values())

    def _read(self) -> Iterator[tuple[Quarantined, int, int]]:
        """Each line, where it begins and how long it is."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            offset = 0
            for line in file:
                try:
                    yield _decoder.decode(line), offset, len(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    pass
                offset += len(line)

    def _load(self) -> Kept:
        if self._kept is None:
            self._kept = Kept()
            for entry, offset, length in self._read():
                self._kept.note(entry)
                if entry.more:
                    self._counts[entry.file, entry.reason] = _Count(entry.more, entry.length, (offset, length))
                self._size = offset + length
        return self._kept

    # -- what is only counted

    def _write_count(self, kind: _Kind) -> None:
        """Over the line that said it before, if that is still there."""
        file, reason = kind
        lines, size, place = self._counts[kind]
        at = clock.format_ms(self._wall.now_ms())
        entry = Quarantined(at=at, file=file, offset=-1, length=size, reason=reason, sha256="", more=lines)
        room = msgspec.structs.replace(entry, length=limits.integer_max, more=limits.integer_max)
        line = _encoder.encode(entry).ljust(len(_encoder.encode(room))) + b"\n"
        if place is None or not self._overwrite(place, kind, line):
            begin = self._append(line)
            self._counts[kind] = _Count(lines, size, (begin, len(line)))

    def _overwrite(self, place: tuple[int, int], kind: _Kind, line: bytes) -> bool:
        """False if it contains something else: the file may have been edited or removed."""
        offset, length = place
        try:
            descriptor = files.open_nofollow(self.path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            before = _decoder.decode(os.pread(descriptor, length, offset))
            if length != len(line) or not before.more or (before.file, before.reason) != kind:
                return False
            os.pwrite(descriptor, line, offset)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        finally:
            os.close(descriptor)
        self._unsynced = True
        return True

    def _append(self, line: bytes) -> int:
        """Where it lies now."""
        descriptor = files.open_nofollow(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # A kill tore this file's own last line: never glue two together.
                line = b"\n" + line
                size += 1
            files.write_all(descriptor, line)
            self._size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        self._unsynced = True
        return size


class QuarantineBatch:
    """What a batch quarantines: lines of the branch, and numbers of others (see `Quarantine.count`)."""

    def __init__(self, quarantine: Quarantine) -> None:
        self.surplus: list[tuple[str, str, int, int]] = []
        self._quarantine = quarantine
        self._lines: dict[tuple[str, bytes], str] = {}

    def add(self, file: str, raw: bytes, reason: str) -> bool:
        """False if that is in quarantine, or on the way there."""
        if (file, raw) in self._lines or self._quarantine.holds(file, raw):
            return False
        self._lines[file, raw] = reason
        return True

    def cut(self, lines: int) -> None:
        """Forget all but so many lines."""
        while len(self._lines) > lines:
            self._lines.popitem()

    def flush(self) -> None:
        """Put it into quarantine, durably. Raises OSError."""
        for (file, raw), reason in self._lines.items():
            self._quarantine.add(file, -1, raw, reason)
        for surplus in self.surplus:
            self._quarantine.count(*surplus)
        if self:
            self._quarantine.flush()

    def __len__(self) -> int:
        return len(self._lines)

    def __bool__(self) -> bool:
        return bool(self._lines or self.surplus)


def _spelled(raw: bytes) -> tuple[str, str]:
    """A line as text, or in base64."""
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        return "", base64.b64encode(raw).decode()
