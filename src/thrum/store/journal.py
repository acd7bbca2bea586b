"""The journals as files: appended to, flushed, cut back, read. They are the truth (events.md §1, §11).

A journal is named by its relative file name (`events.jsonl`, `messages/{stem}.jsonl`, `local.jsonl`). Only the holder
of the daemon's lock may append. What each file's inode and size must be is remembered; a file that is not as remembered
was touched by someone else, and nothing is written into it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from thrum.model import events, files
from thrum.model.errors import StoreFailed
from thrum.model.events import bare

_FLUSH_THREADS: Final = 8
_POOL_PAYS_SECONDS: Final = 0.003
"""On a quick disk flushing some files one after the other is cheaper than waking threads for them."""
_READ_BYTES: Final = 1 << 16
_SUFFIX: Final = ".jsonl"
_NAME_BYTES_MAX: Final = 255
_TO_APPEND: Final = os.O_RDWR | os.O_APPEND


class FileState(NamedTuple):
    """What a journal must look like before the next append."""

    inode: int
    size: int


class Line(NamedTuple):
    """One line: its bytes without newline, and where they lie. `length` counts the newline."""

    raw: bytes
    offset: int
    length: int


class JournalChanged(StoreFailed):
    """Someone else replaced, cut or extended a journal; recovery has to look at it before anything is written."""

    default_remedy = "repeat the command: the daemon reads its journals again"


class JournalFiles:
    """Every journal of one repository on this machine.

    `branch_dir` holds the files that travel, `local_journal` is the one that never does. Methods block; `append` and
    `undo` are called by one thread at a time, reading is free.
    """

    def __init__(self, branch_dir: Path, local_journal: Path) -> None:
        self.branch_dir = branch_dir
        self.local_journal = local_journal
        self.still = threading.Lock()
        """Held from the first rename to the commit while journals are exchanged for shorter ones (compaction)."""
        self.exchanged = 0
        """How often that happened: a reader whose rows and lines differ looks at it."""
        self._known: dict[str, FileState] = {}
        # Files that may hold bytes of an append that did not count, beyond this size.
        self._uncut: dict[str, FileState] = {}
        self._flush_seconds = 0.0
        """What one flush takes on this disk, lately."""
        self._pool: ThreadPoolExecutor | None = None

    def prepare(self) -> None:
        """Make the directories, durable and private. Raises OSError."""
        messages = self.branch_dir / events.MESSAGES_DIR
        for directory in (self.local_journal.parent, self.branch_dir, messages):
            if not directory.is_dir():
                files.ensure_private_dir(directory)
                files.sync_directory(directory.parent)

    def close(self) -> None:
        """End the flushing threads. Nothing is pending in them."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    # -- what is there

    def path(self, file: str) -> Path:
        """Where a journal lies."""
        return self.local_journal if file == events.LOCAL_FILE else self.branch_dir / file

    def names(self) -> list[str]:
        """The journals that exist, in the order in which they are flushed: local, events, then messages by name.

        Links, directories and names that are no text are passed over.
        """
        found = [file for file in (events.LOCAL_FILE, events.EVENTS_FILE) if _is_regular(self.path(file))]
        try:
            listed = sorted(os.listdir(self.branch_dir / events.MESSAGES_DIR))
        except FileNotFoundError:
            listed = []
        for name in listed:
            file = f"{events.MESSAGES_DIR}/{name}"
            if name.endswith(_SUFFIX) and not name.startswith(".") and _is_text(name) and _is_regular(self.path(file)):
                found.append(file)
        return found

    def accept_state(self, file: str) -> FileState | None:
        """How a journal is now, and from now on is expected to be; None if it is not there. Raises OSError."""
        try:
            status = files.lstat(self.path(file))
        except FileNotFoundError:
            self._known.pop(file, None)
            return None
        self._uncut.pop(file, None)
        file_state = self._known[file] = FileState(status.st_ino, status.st_size)
        return file_state

    def end(self, file: str) -> int:
        """Where the next append to a journal begins: its remembered size in bytes."""
        known = self._known.get(file)
        return 0 if known is None else known.size

    def is_exchanged(self, since: int) -> bool:
        """Whether journals were exchanged since `exchanged` was that. Waits until one that is under way is done."""
        with self.still:
            return self.exchanged != since

    def file_states(self) -> dict[str, FileState]:
        """Every journal as it counts: what was appended and settled, no more. For any thread."""
        return dict(self._known)

    # -- writing

    def append(self, buffers: Mapping[str, bytes | bytearray]) -> dict[str, FileState]:
        """Append whole lines to each journal and make them durable: first local, then events, then messages side by
        side, so that what a message needs is on disk before it.

        Returns how the files are now; until `settle` the append can be taken back by `undo`. All or nothing: raises
        StoreFailed when the system refuses (disk full, permission) and JournalChanged when a file is not as remembered;
        then every file has been cut back, or is cut back before the next append.
        """
        whole = all(buffer.endswith(b"\n") for buffer in buffers.values())
        assert whole, "lines are appended whole: the next one would go on in what is left of this one"
        self._cut_what_is_left()
        after: dict[str, FileState] = {}
        try:
            for group in _flush_groups(buffers):
                self._append_group(group, buffers, after)
        except BaseException as error:
            self.undo()
            if isinstance(error, OSError):
                raise refusal(error) from error
            raise
        return after

    def settle(self, after: Mapping[str, FileState]) -> None:
        """The append that gave `after` counts: it is not taken back any more."""
        self._known.update(after)
        for file in after:
            self._uncut.pop(file, None)

    def undo(self) -> None:
        """Take back what was appended since the last `settle`. What can't be cut now is cut before the next append."""
        with contextlib.suppress(StoreFailed):
            self._cut_what_is_left()

    def _append_group(
        self, group: list[str], buffers: Mapping[str, bytes | bytearray], after: dict[str, FileState]
    ) -> None:
        if len(group) <= 2 or len(group) * self._flush_seconds < _POOL_PAYS_SECONDS:
            for file in group:
                after[file] = self._append_one(file, buffers[file])
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_FLUSH_THREADS, thread_name_prefix="thrum-flush")
            pool = self._pool
            running: list[tuple[str, Future[FileState]]] = [
                (file, pool.submit(self._append_one, file, buffers[file])) for file in group
            ]
            failure: BaseException | None = None
            for file, future in running:
                # All must have come to rest before anything is cut back.
                error = future.exception()
                if error is None:
                    after[file] = future.result()
                failure = failure or error
            if failure is not None:
                raise failure
        for directory in {self.path(file).parent for file in group if file not in self._known}:
            files.sync_directory(directory)

    def _append_one(self, file: str, data: bytes | bytearray) -> FileState:
        path = self.path(file)
        known = self._known.get(file)
        try:
            flags = _TO_APPEND | os.O_CREAT | os.O_EXCL if known is None else _TO_APPEND
            descriptor = files.open_nofollow(path, flags)
        except (FileExistsError, FileNotFoundError) as error:
            raise _changed(path) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _changed(path) from error
            raise
        try:
            status = os.fstat(descriptor)
            if known is not None and (status.st_ino, status.st_size) != known:
                raise _changed(path)
            self._uncut[file] = FileState(status.st_ino, status.st_size)
            begun = time.perf_counter()
            files.write_all(descriptor, data)
            sync_data(descriptor)
            self._flush_seconds += (time.perf_counter() - begun - self._flush_seconds) / 8
            size = os.fstat(descriptor).st_size
            if size != status.st_size + len(data):
                # Someone wrote at the same time: their bytes are not ours to cut.
                del self._uncut[file]
                raise _changed(path)
            return FileState(status.st_ino, size)
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        finally:
            os.close(descriptor)

    # -- taking back and fixing

    def _cut_what_is_left(self) -> None:
        """Cut every file in `_uncut` to its size. A file that was new stays, empty. Raises StoreFailed."""
        failure: OSError | None = None
        for file, file_state in list(self._uncut.items()):
            try:
                self._cut(file, file_state)
            except FileNotFoundError:
                continue  # taken away, perhaps for a moment only; an append to it says so
            except OSError as error:
                error.filename = error.filename or str(self.path(file))
                failure = failure or error
                continue
            del self._uncut[file]
        if failure is not None:
            raise refusal(failure)

    def _cut(self, file: str, file_state: FileState) -> None:
        descriptor = files.open_nofollow(self.path(file), _TO_APPEND)
        try:
            status = os.fstat(descriptor)
            if status.st_ino != file_state.inode:
                return  # not the file that was written to; the next append says so
            if status.st_size > file_state.size:
                os.ftruncate(descriptor, file_state.size)
                sync_data(descriptor)
            self._known[file] = file_state
        finally:
            os.close(descriptor)

    def cut_tail(self, file: str, size: int) -> None:
        """Cut a truncated last line off, durably. Raises OSError."""
        descriptor = files.open_nofollow(self.path(file), _TO_APPEND)
        try:
            os.ftruncate(descriptor, size)
            sync_data(descriptor)
        finally:
            os.close(descriptor)
        self.accept_state(file)

    def end_line(self, file: str) -> None:
        """Give a whole last line the newline that it lacks, durably. Raises OSError."""
        descriptor = files.open_nofollow(self.path(file), _TO_APPEND)
        try:
            os.write(descriptor, b"\n")
            sync_data(descriptor)
        finally:
            os.close(descriptor)
        self.accept_state(file)

    def sync(self, file: str) -> None:
        """Make what a journal holds durable: a killed writer may not have come to it. Raises OSError."""
        descriptor = files.open_nofollow(self.path(file), os.O_RDWR)
        try:
            sync_data(descriptor)
        finally:
            os.close(descriptor)
        files.sync_directory(self.path(file).parent)

    # -- reading

    def iter_lines(self, file: str, start: int = 0, end: int | None = None) -> Iterator[Line]:
        """The lines that begin in `start` .. `end` (bytes; `end` None: the end), without blank ones and a truncated
        last line.

        `start` must be the beginning of a line. Raises OSError; a missing file has no lines.
        """
        try:
            handle = self.path(file).open("rb", buffering=_READ_BYTES)
        except FileNotFoundError:
            return
        with handle:
            offset = start
            if start:
                handle.seek(start)
            for line in handle:
                length = len(line)
                if (end is not None and offset >= end) or not line.endswith(b"\n"):
                    return
                raw = line[:-1]
                if raw[:1] != b"{" or raw[-1:] != b"}":
                    raw = bare(raw)
                if raw and not raw.isspace():
                    yield Line(raw, offset, length)
                offset += length

    def read_start(self, file: str, file_state: FileState) -> bytes:
        """The first bytes of a journal, up to a size that it had. For any thread.

        Raises OSError, and JournalChanged when it is another file, shorter, or gone.
        """
        path = self.path(file)
        try:
            descriptor = files.open_nofollow(path, os.O_RDONLY)
        except FileNotFoundError as error:
            if file_state.size:
                raise _changed(path) from error
            return b""
        with os.fdopen(descriptor, "rb", buffering=0) as handle:
            if os.fstat(descriptor).st_ino != file_state.inode:
                raise _changed(path)
            data = bytearray()
            while len(data) < file_state.size and (read := handle.read(file_state.size - len(data))):
                data += read
        if len(data) < file_state.size:
            raise _changed(path)
        return bytes(data)

    def holds(self, file: str, raw: bytes) -> bool:
        """Whether a journal holds this line. Reads it all; raises OSError."""
        try:
            handle = self.path(file).open("rb", buffering=_READ_BYTES)
        except FileNotFoundError:
            return False
        with handle:
            return any(raw in line and bare(line) == raw for line in handle)

    def read_line(self, file: str, offset: int, length: int) -> bytes:
        """The line at a place that the projection names, without newline. Raises OSError."""
        descriptor = files.open_nofollow(self.path(file), os.O_RDONLY)
        try:
            return bare(os.pread(descriptor, length, offset))
        finally:
            os.close(descriptor)

    def last_line(self, file: str, end: int) -> Line:
        """The line that ends at `end`, as it is: with its newline if it has one, else it is a truncated last line."""
        descriptor = files.open_nofollow(self.path(file), os.O_RDONLY)
        try:
            start, data = end, b""
            while start > 0:
                step = min(start, max(4096, len(data)))
                start -= step
                data = os.pread(descriptor, step, start) + data
                found = data.rfind(b"\n", 0, max(len(data) - 1, 0))
                if found >= 0:
                    start += found + 1
                    data = data[found + 1 :]
                    break
        finally:
            os.close(descriptor)
        return Line(data, start, len(data))


def sync_data(descriptor: int) -> None:
    """Bring a file's bytes and size to the disk; on macOS through the drive's cache too."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:
            os.fsync(descriptor)  # network and other odd file systems have no full sync
    else:
        os.fdatasync(descriptor)


def recover_tail(journals: JournalFiles, file: str, quarantine_line: Callable[[str, int, bytes, str], None]) -> None:
    """Make a journal end with a newline: a whole fact gets its newline, anything else is quarantined and cut off.

    `quarantine_line(file, offset, raw, reason)` must have made its copy durable when it returns. Raises OSError.
    """
    file_state = journals.accept_state(file)
    if file_state is None or file_state.size == 0:
        return
    tail, offset, _ = journals.last_line(file, file_state.size)
    if tail.endswith(b"\n"):
        return
    try:
        events.decode(bare(tail))
    except events.BadLine:
        quarantine_line(file, offset, tail, "torn_tail")
        journals.cut_tail(file, offset)
    else:
        journals.end_line(file)


def line_id_of(raw: bytes) -> str:
    """What the projection remembers of the line at its position: its event id, or a digest if it is no fact."""
    line = bare(raw)
    try:
        return events.decode(line).event_id
    except events.BadLine:
        return f"sha256:{hashlib.sha256(line).hexdigest()[:16]}"


def is_branch_file(file: str) -> bool:
    """Whether a relative name is one of a journal of the branch: a file that `names` would list."""
    if file == events.EVENTS_FILE:
        return True
    directory, _, name = file.partition("/")
    return (
        directory == events.MESSAGES_DIR
        and name.endswith(_SUFFIX)
        and not name.startswith(".")
        and not {"/", "\0"} & {*name}
        and _is_text(name)
        and len(name.encode()) <= _NAME_BYTES_MAX
    )


def _flush_groups(buffers: Mapping[str, bytes | bytearray]) -> list[list[str]]:
    messages = [file for file in buffers if file not in (events.LOCAL_FILE, events.EVENTS_FILE)]
    single = [[file] for file in (events.LOCAL_FILE, events.EVENTS_FILE) if file in buffers]
    return [*single, messages] if messages else single


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(files.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _changed(path: Path) -> JournalChanged:
    return JournalChanged(f"could not write {path}: another program replaced or changed it", cause="journal_changed")


def refusal(error: OSError, verb: str = "write") -> StoreFailed:
    """The error that callers get when the system refused to write (or read): it names the file and the fix."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a journal"
    reason = (error.strerror or str(error)).lower()
    return StoreFailed(f"could not {verb} {path}: {reason}", remedy=files.remedy_of(error, path))
