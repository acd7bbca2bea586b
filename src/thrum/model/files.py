"""Files written whole or not at all, private directories, and locks that die with their process.

This is the one opener of what thrum has, and here alone links are refused: nothing at or below `.thrum` or `thrum-sync`
is reached through one, for git, tar and patch write links there as easily as files (identity.md §3 "Trust"). A path is
walked from the directory that holds the first of these names, component by component; what is elsewhere is opened as
it is named.

Where the way there is not the question, because it was walked before, or is git's and may well lead through links, the
first section has what looks at the last name alone, at the price of one call. The launcher has its own: it may load
nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import secrets
import stat
from collections.abc import Generator
from pathlib import Path
from typing import cast

from thrum.model import limits
from thrum.model.errors import Busy, in_shell

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
        if getattr(seen, "sqlite_errorcode", 0) & 0xFF == _SQLITE_CANTOPEN and is_short():
            return too_many()  # SQLite does not say why
        seen = seen.__cause__ or seen.__context__
    return None


def too_many() -> Busy:
    """The refusal when one more file is needed than may be open."""
    limit = open_files_max()
    return Busy(
        f"too many open files: {limit} are allowed",
        remedy=f"repeat the command; or raise the limit: ulimit -n {max(2 * limit, 1024)}, then: thrum daemon restart",
        retry_after_ms=limits.retry_after_ms,
        limit=limit,
    )


_OPEN_AT_ONCE = 8


def is_short() -> bool:
    """Whether next to nothing can be opened just now. What a look found meanwhile may be wrong: it opens several."""
    opened: list[int] = []
    try:
        opened += (os.open(os.devnull, os.O_RDONLY) for _ in range(_OPEN_AT_ONCE))
    except OSError:
        return True
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False


# -- the last name alone


def open_nofollow(path: Path | str | bytes, flags: int, mode: int = 0o600) -> int:
    """A descriptor of what lies at `path` itself. Raises OSError: ELOOP for a link."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def create_file(path: Path | str, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
    """A descriptor to write a file that was not there: FileExistsError for anything that was, a link too."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=dir_fd)


def open_following(path: Path | str, flags: int) -> int:
    """A descriptor of what `path` leads to: the kernel's files, and those of git's that a user may have linked."""
    return os.open(path, flags | os.O_CLOEXEC)


def lstat(path: Path | str | bytes, *, dir_fd: int | None = None) -> os.stat_result:
    """What lies at `path`, a link as itself. Raises OSError."""
    return os.stat(path, dir_fd=dir_fd, follow_symlinks=False)


def is_link(path: Path) -> bool:
    """Whether a link lies at `path`. Raises OSError where that can't be looked at."""
    return path.is_symlink()


def inode_of(path: Path | str) -> tuple[int, int] | None:
    """Device and inode of what lies at `path`, a link as itself; None if nothing can be seen there."""
    try:
        found = lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_times(path: Path, found: os.stat_result) -> None:
    """Give what lies at `path` itself the times of another file. Raises OSError."""
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def write_all(descriptor: int, data: bytes | bytearray) -> int:
    """Write all of it, in as many calls as it takes; how many bytes. Raises OSError; then a part may be written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


# -- the way there too


_OWN = frozenset({".thrum", "thrum-sync"})
_O_PATH: int = getattr(os, "O_PATH", os.O_RDONLY)
_STEP = _O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _split(path: str) -> tuple[str, list[str]]:
    """A directory to begin at, and the names below it none of which may be a link."""
    names = path.split("/")
    for index, name in enumerate(names):
        if name in _OWN:
            return "/".join(names[:index]) or ("/" if path.startswith("/") else "."), names[index:]
    return os.path.dirname(path) or ".", [os.path.basename(path)]


def _step(name: str, directory: int, shown: str) -> int:
    """The directory `name` in another one. Raises OSError that names it as `shown`, as `_named` does."""
    try:
        return os.open(name, _STEP, dir_fd=directory)
    except OSError as error:
        raise _named(error, name, directory, shown) from None


def _named(error: OSError, name: str, directory: int, shown: str) -> OSError:
    """The same error with the whole path in it, and a plain explanation if a link is in the way."""
    number, words = error.errno or 0, error.strerror
    if number in (errno.ELOOP, errno.ENOTDIR):
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(lstat(name, dir_fd=directory).st_mode):
                number, words = errno.ELOOP, "it is a link"
    return OSError(number, words, shown)


@contextlib.contextmanager
def _naming(path: Path | str) -> Generator[None]:
    """Let errors of what is done by a descriptor and a name tell the whole path."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def remedy_of(error: OSError, path: str) -> str | None:
    """What a person does about it; None where no more is known than that the disk may be full."""
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY):
        return f"move it away, thrum needs that path for a file: mv {in_shell(path)} {in_shell(f'{path}.found')}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"fix the permissions of {path}, then repeat the command; nothing was recorded"
    return None


@contextlib.contextmanager
def opened_parent(path: Path | str) -> Generator[tuple[int, str]]:
    """A descriptor of the directory that `path` lies in, and its name there. Raises OSError: ELOOP for a link on the
    way."""
    start, names = _split(os.fspath(path))
    descriptor = os.open(start, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        shown = start
        for name in names[:-1]:
            shown = f"{shown.rstrip('/')}/{name}"
            below = _step(name, descriptor, shown)
            os.close(descriptor)
            descriptor = below
        yield descriptor, names[-1]
    finally:
        os.close(descriptor)


def open_file(path: Path | str, flags: int, mode: int = 0o600) -> int:
    """A descriptor of the file at `path`, never through a link. Raises OSError.

    One that is to be written where it lies, and has another name too, is refused (EMLINK): the other name may be
    any file, and an archive can make one.
    """
    with opened_parent(path) as (directory, name):
        try:
            # A directory that is none of thrum's may well be a link: git's own, say.
            follow = flags & os.O_DIRECTORY and _OWN.isdisjoint(os.fspath(path).split("/"))
            flags |= os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
            descriptor = os.open(name, flags, mode, dir_fd=directory)
        except OSError as error:
            raise _named(error, name, directory, os.fspath(path)) from None
    if flags & (os.O_APPEND | os.O_TRUNC) and os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EMLINK, "it has another hard link", os.fspath(path))
    return descriptor


def read_bytes(path: Path | str, most: int = limits.read_bytes_max) -> bytes:
    """What is in a plain file of at most so many bytes. Raises OSError, also for what is none (a pipe would be waited
    for), and for a larger one: a branch of a few kilobytes can bring one of gigabytes.
    """
    descriptor = open_file(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", os.fspath(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most} bytes", os.fspath(path))
        return file.read()


def status(path: Path | str) -> os.stat_result | None:
    """What lies at `path`, a link as itself; None if nothing does, or only by way of a link."""
    try:
        with opened_parent(path) as (directory, name):
            return lstat(name, dir_fd=directory)
    except (OSError, ValueError):
        return None


def is_file(path: Path | str) -> bool:
    """Whether a plain file lies at `path`."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_directory(path: Path | str) -> bool:
    """Whether a directory lies at `path`."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_same(one: Path | str, other: Path | str) -> bool:
    """Whether two paths are one place, by whatever mount or link."""
    try:
        return str(one) == str(other) or os.path.samefile(one, other)
    except OSError:
        return False


def names_in(directory: Path | str) -> list[str]:
    """The names in a directory, sorted. Raises OSError."""
    descriptor = open_file(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def remove(path: Path | str) -> None:
    """Take away the file, or the link, at `path`; fine if there is none. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), opened_parent(path) as (directory, name), _naming(path):
        os.unlink(name, dir_fd=directory)


def rename(source: Path | str, target: Path | str) -> None:
    """Give a file another name, over what has that one. Raises OSError."""
    with opened_parent(source) as (here, name), opened_parent(target) as (there, other), _naming(target):
        os.rename(name, other, src_dir_fd=here, dst_dir_fd=there)


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` by `data`: a kill at any point leaves the old file or the new one, never a part.

    The temporary file lies in the same directory, has `mode` from its first byte, and is synced before, the directory
    after the rename, unless the file is one that is recreated when a power cut spoils it (`durable=False`). Raises
    OSError; then `path` is as it was.
    """
    with opened_parent(path) as (directory, name):
        temporary = f".{name}.{secrets.token_hex(6)}.tmp"
        try:
            descriptor = create_file(temporary, mode, dir_fd=directory)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path.with_name(temporary))) from None
        try:
            try:
                os.fchmod(descriptor, mode)
                write_all(descriptor, data)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with _naming(path):
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: after a file in it was made, renamed or removed."""
    descriptor = open_file(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_private_dir(path: Path) -> None:
    """Make `path` and its parents; `path` itself is 0700 whatever the umask says, also if it was there.

    Raises OSError, above all where one of them is a link: what is private would be another directory.
    """
    start, names = _split(os.fspath(path))
    Path(start).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(start, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        shown = start
        for name in names:
            shown = f"{shown.rstrip('/')}/{name}"
            try:
                os.mkdir(name, 0o777 if name != names[-1] else 0o700, dir_fd=descriptor)
            except FileExistsError:
                pass
            except OSError as error:
                raise OSError(error.errno, error.strerror, shown) from None
            below = _step(name, descriptor, shown)
            os.close(descriptor)
            descriptor = below
        if os.fstat(descriptor).st_mode & 0o777 != 0o700:
            own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                os.fchmod(own, 0o700)
            finally:
                os.close(own)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold an exclusive lock on the file `path` (made if missing, 0600); waits while another process holds it."""
    descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
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
    descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def note_holder(descriptor: int) -> None:
    """Write this process's pid into the lock that it holds, for `lock_holder`."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def lock_holder(path: Path) -> int | None:
    """What the process that holds a lock wrote into it, its pid; 0 while it has written none; None if it is free.

    The look itself is a shared lock, so that looks do not take each other for a holder. Raises OSError.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None
