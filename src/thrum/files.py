"""Files written whole or not at all, private directories, and locks that die with their process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import cast

from thrum import limits
from thrum.errors import Busy

_SQLITE_CANTOPEN = 14


def open_files_max() -> int:
    """How many files this process may have open at a time, its sockets and pipes included."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def shortage(error: BaseException) -> Busy | None:
    """What to say of an error behind which a lack of descriptors lies, whatever it was made into; None of any other.

    It is a state that passes: nothing is broken, and nothing was done.
    """
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, BaseExceptionGroup):
            seen = cast("BaseExceptionGroup[BaseException]", seen).exceptions[0]
        if seen is None or isinstance(seen, Busy):
            return None
        if isinstance(seen, OSError) and seen.errno in (errno.EMFILE, errno.ENFILE):
            return too_many()
        if getattr(seen, "sqlite_errorcode", 0) & 0xFF == _SQLITE_CANTOPEN and _is_short():
            return too_many()  # SQLite does not say why
        seen = seen.__cause__ or seen.__context__
    return None


def too_many() -> Busy:
    """The refusal of whoever needs one more file than may be open."""
    limit = open_files_max()
    return Busy(
        f"too many open files: {limit} are allowed",
        remedy=f"repeat the command; or raise the limit: ulimit -n {max(2 * limit, 1024)}, then: thrum daemon restart",
        retry_after_ms=limits.retry_after_ms,
        limit=limit,
    )


def _is_short() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    return False


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` by `data`: a kill at any point leaves the old file or the new one, never a part.

    The temporary file lies in the same directory, has `mode` from its first byte, and is synced before, the directory
    after the rename, unless the file is one that is made anew when a power cut spoils it (`durable=False`). Raises
    OSError; then `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: after a file in it was made, renamed or removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_private_dir(path: Path) -> None:
    """Make `path` and its parents; `path` itself is 0700 whatever the umask says, also if it was there."""
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_mode & 0o777 != 0o700:
        path.chmod(0o700)


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold an exclusive lock on the file `path` (made if missing, 0600); waits for whoever holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """A descriptor that holds an exclusive lock on `path`, or None if another process holds it.

    The lock ends when the descriptor is closed or the process dies, so no lock is ever stale. It is not inherited by
    children that are started with closed descriptors.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
