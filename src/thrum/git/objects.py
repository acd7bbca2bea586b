"""Writing git's objects: loose files, written here where the repository is a plain one, else by the git command.

Our own: git's costs a process for each, and dulwich's neither syncs nor cleans up on a full disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, Protocol

from thrum.git.reader import loose_size
from thrum.git.runner import DURABLE, checked_git
from thrum.git.trees import TreeEntry
from thrum.model.errors import StoreFailed
from thrum.model.files import create_file, sync_directory, write_all

Kind = Literal["blob", "tree", "commit"]

_DIRECTORY: Final = 0o040000
_ZLIB_LEVEL: Final = 1
"""A journal of 10,000 lines: 27 ms, not 63; what it costs on disk, `maintenance` gives back."""
_WRITE_BYTES: Final = 1 << 18
_FLUSH_THREADS: Final = 4
_RECENT_SECONDS: Final = 120.0
"""From git's look at the refs to the last file that its prune takes: half a minute in a large repository."""
_RECENT_BYTES_MAX: Final = 32 << 20
_FLUSHING_MAX: Final = 64
"""So many objects may wait for the disk: each holds a file open."""


class Writer(Protocol):
    """Puts objects into the object store. Raises StoreFailed; then nothing is left of the one that failed."""

    def add(self, kind: Kind, data: bytes) -> str:
        """Write an object unless it is there: its id."""
        ...

    def settle(self) -> int:
        """Make all that was added durable, before a ref leads to it; the bytes that it takes on disk."""
        ...

    def fix(self) -> bool:
        """Write again what was deleted since: a `git gc --prune=now` that looked at the refs before ours moved
        takes what it leads to now. Whether there was any, as far as that can be told.
        """
        ...


class LooseWriter:
    """Writes loose objects as git does. `is_packed` tells whether a pack has an object already.

    An object is there when `settle` returns, not before: the flushes of those that belong together go side by side,
    which a disk answers in the time of one or two.
    """

    def __init__(self, objects_dir: Path, is_packed: Callable[[str], bool]) -> None:
        self._objects_dir = objects_dir
        self._is_packed = is_packed
        self._unsynced: set[Path] = set()
        self._written_bytes = 0
        self._flushing: dict[Path, Future[None]] = {}
        self._recent: dict[str, tuple[float, Kind, bytes]] = {}
        """What was added lately, in that order, with the time (monotonic)."""
        self._pool: ThreadPoolExecutor | None = None

    def add(self, kind: Kind, data: bytes) -> str:
        head = b"%s %d\0" % (kind.encode(), len(data))
        digest = hashlib.sha1(head, usedforsecurity=False)
        digest.update(data)
        object_id = digest.hexdigest()
        directory = self._objects_dir / object_id[:2]
        path = directory / object_id[2:]
        if path in self._flushing:
            return object_id
        try:
            sound = self._is_sound(path, object_id, len(data))
            if sound or not self._is_packed(object_id):
                self._recent.pop(object_id, None)
                self._recent[object_id] = time.monotonic(), kind, data
                if not sound:
                    self._write(directory, path, head, data)
        except OSError as error:
            raise _failed(path, error) from error
        if len(self._flushing) >= _FLUSHING_MAX:
            self._wait()
        return object_id

    def _is_sound(self, path: Path, object_id: str, size: int) -> bool:
        """Whether a loose object is there, and whole as far as its head tells; from now on it is durable and young."""
        try:
            there = loose_size(self._objects_dir, object_id)
        except StoreFailed:
            return False  # of a power cut: empty, or zeros. It is replaced.
        if there != size:
            return False
        with path.open("rb") as file:
            # As git does: what no ref leads to yet must not be old in the eyes of a `git gc`.
            with contextlib.suppress(OSError):
                os.utime(file.fileno())
            os.fsync(file.fileno())
        self._unsynced.add(path.parent)
        return True

    def _write(self, directory: Path, path: Path, head: bytes, data: bytes) -> None:
        # The modes of `objects` tell what core.sharedRepository and the umask made of it.
        mode = self._objects_dir.stat().st_mode & 0o7777
        try:
            directory.mkdir()
        except FileExistsError:
            pass
        else:
            directory.chmod(mode)
            self._unsynced.add(self._objects_dir)
        # By this name `git prune` takes away what a killed process left.
        temporary = directory / f"tmp_obj_{secrets.token_hex(6)}"
        descriptor = create_file(temporary, 0o400)
        try:
            self._written_bytes += _deflate(descriptor, head, data)
            os.fchmod(descriptor, mode & 0o444 | 0o400)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._flushing[path] = self._threads.submit(_finish, descriptor, temporary, path)
        self._unsynced.add(directory)

    @property
    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_FLUSH_THREADS, thread_name_prefix="thrum-objects")
        return self._pool

    def _wait(self) -> None:
        """Until all are in their places, or none of them goes there any more. Raises StoreFailed."""
        flushing, self._flushing = self._flushing, {}
        failure: StoreFailed | None = None
        for path, future in flushing.items():
            error = future.exception()
            if isinstance(error, OSError):
                failure = failure or _failed(path, error)
            elif error is not None:
                raise error
        if failure is not None:
            raise failure

    def fix(self) -> bool:
        recent, self._recent = self._recent, {}
        now, total, fixed = time.monotonic(), 0, False
        for object_id, (when, kind, data) in reversed(recent.items()):
            total += len(data)
            is_there = (self._objects_dir / object_id[:2] / object_id[2:]).exists() or self._is_packed(object_id)
            if not is_there:
                self.add(kind, data)
                fixed = True
            elif now - when < _RECENT_SECONDS and total < _RECENT_BYTES_MAX:
                self._recent[object_id] = when, kind, data
        self._recent = dict(reversed(self._recent.items()))
        if fixed:
            self.settle()
        return fixed

    def settle(self) -> int:
        self._wait()
        try:
            list(self._threads.map(_sync_directory, self._unsynced))
        except OSError as error:
            raise _failed(self._objects_dir, error) from error
        self._unsynced.clear()
        written, self._written_bytes = self._written_bytes, 0
        return written


def _failed(path: Path, error: OSError) -> StoreFailed:
    return StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}")


def _finish(descriptor: int, temporary: Path, path: Path) -> None:
    """Make a written object durable, then give it its name. Raises OSError; then nothing is left of it."""
    try:
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # emptied by a `git gc` since
        sync_directory(directory)


def _deflate(descriptor: int, head: bytes, data: bytes) -> int:
    """Write an object's bytes, compressed; how many."""
    packer = zlib.compressobj(_ZLIB_LEVEL)
    view = memoryview(data)
    written = write_all(descriptor, packer.compress(head))
    for start in range(0, len(view), _WRITE_BYTES):
        written += write_all(descriptor, packer.compress(view[start : start + _WRITE_BYTES]))
    return written + write_all(descriptor, packer.flush())


class GitWriter:
    """By processes: SHA-256, and whatever git may keep its objects in."""

    def __init__(self, common_dir: Path, environ: Mapping[str, str]) -> None:
        self._common_dir = common_dir
        self._environ = environ
        self._added_bytes = 0

    def add(self, kind: Kind, data: bytes) -> str:
        arguments = [f"--git-dir={self._common_dir}", *DURABLE, "hash-object", "-w", "-t", kind, "--stdin"]
        object_id = checked_git(arguments, self._environ, stdin=data).decode().strip()
        with contextlib.suppress(OSError):
            self._added_bytes += (self._common_dir / "objects" / object_id[:2] / object_id[2:]).stat().st_size
        return object_id

    def settle(self) -> int:
        added, self._added_bytes = self._added_bytes, 0
        return added

    def fix(self) -> bool:
        return False


def add_trees(writer: Writer, files: Iterable[TreeEntry]) -> str:
    """Write the trees that hold these files: the id of the topmost. Where a directory is, no file can be."""
    trees: dict[bytes, dict[bytes, tuple[int, str]]] = {b"": {}}
    for path, mode, object_id in files:
        directory, _, name = path.rpartition(b"/")
        trees.setdefault(directory, {})[name] = (mode, object_id)
        while directory and (parent := directory.rpartition(b"/")[0]) not in trees:
            trees[parent] = {}
            directory = parent
    top = ""
    for directory in sorted(trees, key=_depth, reverse=True):
        top = writer.add("tree", _tree_bytes(trees[directory]))
        if directory:
            parent, _, name = directory.rpartition(b"/")
            trees[parent][name] = (_DIRECTORY, top)
    return top


def _depth(directory: bytes) -> int:
    return directory.count(b"/") + 1 if directory else 0


def _tree_bytes(entries: Mapping[bytes, tuple[int, str]]) -> bytes:
    """In git's order: a directory sorts as if its name ended with a slash."""
    ordered = sorted(entries.items(), key=lambda item: item[0] + b"/" if item[1][0] == _DIRECTORY else item[0])
    return b"".join(b"%o %s\0" % (mode, name) + bytes.fromhex(object_id) for name, (mode, object_id) in ordered)


def commit_bytes(tree: str, parent: str, message: str, seconds: int) -> bytes:
    """A commit of thrum's. `parent` may be empty."""
    who = f"thrum <thrum@localhost> {max(seconds, 0)} +0000"
    parents = f"parent {parent}\n" if parent else ""
    text = message.replace("\0", "").strip()
    head = f"tree {tree}\n{parents}author {who}\ncommitter {who}\n\n{text}\n"
    return head.encode("utf-8", "replace")
