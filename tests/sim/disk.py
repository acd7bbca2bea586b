"""A disk that fills up, fails, and forgets what was not flushed. The journals on it are real files; the database too.

A kill leaves everything that was written. A loss of power leaves what was flushed, and of what was being written a
part, perhaps with zeros behind it; of SQLite's log it leaves any prefix.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.sim.faults import Chance, Killed
from thrum.store.journal import FileState, JournalFiles


class Disk:
    """What one clone's files lie on. `dead`: the daemon on it was killed and touches nothing any more."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.dead = False
        self.is_compacting = False

    def die(self) -> None:
        self.dead = True

    @contextmanager
    def compacting(self) -> Iterator[None]:
        """While journals are put in place of others."""
        self.is_compacting = True
        try:
            yield
        finally:
            self.is_compacting = False


class DiskJournals(JournalFiles):
    """Real journals on such a disk."""

    def __init__(self, disk: Disk, branch_dir: Path, local_journal: Path) -> None:
        super().__init__(branch_dir, local_journal)
        self._disk = disk
        self._paths: dict[str, Path] = {}

    def path(self, file: str) -> Path:
        if self._disk.is_compacting and self._disk.chance("kill in compaction"):
            self._die(f"while {file} was put in place")
        found = self._paths.get(file)
        if found is None:
            found = self._paths[file] = super().path(file)
        return found

    def append(self, buffers: Mapping[str, bytes | bytearray]) -> dict[str, FileState]:
        after = super().append(buffers)
        if self._disk.chance("kill after append"):
            self._die("between append and commit")
        return after

    def _append_one(self, file: str, data: bytes | bytearray) -> FileState:
        chance = self._disk.chance
        if chance("kill in append"):
            self._write_some(file, data, zeros=chance.below(3) == 0)
            self._die(f"while writing {file}")
        if chance("disk full"):
            self._write_some(file, data)
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path(file)))
        if chance("disk error"):
            super()._append_one(file, data)
            raise OSError(errno.EIO, "Input/output error", str(self.path(file)))
        return super()._append_one(file, data)

    def _write_some(self, file: str, data: bytes | bytearray, *, zeros: bool = False) -> None:
        """A part of an append, not flushed."""
        descriptor = os.open(self.path(file), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        status = os.fstat(descriptor)
        self._uncut[file] = FileState(status.st_ino, status.st_size)
        part = bytes(data[: self._disk.chance.below(len(data) + 1)])
        os.write(descriptor, part + b"\0" * (7 if zeros else 0))
        os.close(descriptor)

    def _cut(self, file: str, file_state: FileState) -> None:
        if self._disk.dead:
            raise Killed("long dead")
        if self._disk.chance("cut error"):
            raise OSError(errno.EIO, "Input/output error", str(self.path(file)))
        super()._cut(file, file_state)

    def _die(self, where: str) -> None:
        self._disk.die()
        raise Killed(where)


class Database:
    """The files of a database, seen from outside: what a crash leaves of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = Path(f"{path}-wal")

    def take(self) -> tuple[bytes, bytes]:
        """What is on disk while connections are open."""
        return _read(self.path), _read(self.log)

    def log_size(self) -> int:
        """Bytes of the log."""
        return self.log.stat().st_size if self.log.exists() else 0

    def put(self, files: tuple[bytes, bytes], chance: Chance | None, flushed: int) -> None:
        """Put it back after the connections were closed, which tidied up as no kill does. With dice: power was lost,
        and the first `flushed` bytes of the log were not.
        """
        database, log = files
        if chance is not None:
            if chance.below(6) == 0:
                database, log = b"", b""
            elif log:
                log = log[: max(flushed, chance.below(len(log) + 1))]
        for path, data in ((self.path, database), (self.log, log)):
            if data:
                path.write_bytes(data)
            else:
                path.unlink(missing_ok=True)
        Path(f"{self.path}-shm").unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
