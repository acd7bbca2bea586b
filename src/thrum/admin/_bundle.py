"""What a backup is made of, as a directory or as a zip, and reading one that may be hostile (cli.md 3.15).

    events.jsonl  messages/*.jsonl  local/local.jsonl  local/quarantine.jsonl
    config/config.json  config/identities/*.json  config/context/*.md  config/worktrees/wN/…  manifest.json

Only these names are ever read, only if they are regular files, and only if size and SHA-256 match the manifest.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from thrum.model import limits
from thrum.model.errors import BackupInvalid, BackupNotFound, StoreFailed
from thrum.model.files import create_file, ensure_private_dir, is_link, lstat, open_nofollow, sync_directory, write_all
from thrum.model.methods.admin import BackupCounts

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
LOCAL: Final = "local/local.jsonl"
QUARANTINE: Final = "local/quarantine.jsonl"
CONFIG: Final = "config/config.json"

_JOURNAL: Final = re.compile(r"events\.jsonl|messages/[^./\x00-\x1f][^/\x00-\x1f]*\.jsonl")
_FILE_OF_A_ROOT: Final = re.compile(
    r"config/(?:worktrees/(?P<root>w\d{1,6})/)?(?P<path>identities/[^./\x00-\x1f][^/\x00-\x1f]*\.json"
    r"|context/[^./\x00-\x1f][^/\x00-\x1f]*\.md)"
)
_READ_BYTES: Final = 1 << 20
_MANIFEST_BYTES_MAX: Final = 64 * limits.MIB
_CONFIG_BYTES_MAX: Final = 8 * limits.MIB
_FILES_MAX: Final = 200_000
_BYTES_WITHOUT_QUESTION: Final = 1024 * limits.MIB
_RATIO_MAX: Final = 200
"""Beyond the former an archive may not unpack to more than so many times its size."""


class FileEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """`modified_ms`: since 1970; of files whose time people are shown."""

    bytes: int
    sha256: str
    modified_ms: int = 0


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`head`: the commit that the branch was at. `worktrees`: the directory of each `wN`.

    `roots`: the commits that the project's history begins with, if that can be told.
    """

    version: int
    timestamp: str
    thrum_version: str
    repo_name: str
    daemon_id: str = ""
    head: str = ""
    roots: tuple[str, ...] = ()
    counts: BackupCounts
    files: dict[str, FileEntry]
    worktrees: dict[str, str] = {}


def is_journal(name: str) -> bool:
    """Whether a file of a backup is a journal of the branch."""
    return _JOURNAL.fullmatch(name) is not None


def file_of_root(name: str) -> tuple[str, str] | None:
    """For an identity or context file: `(wN or "" for the main root, path below that root's .thrum)`."""
    match = _FILE_OF_A_ROOT.fullmatch(name)
    return None if match is None else (match["root"] or "", match["path"])


def is_known(name: str) -> bool:
    """Whether a backup may hold a file of that name."""
    return name in (MANIFEST, LOCAL, QUARANTINE, CONFIG) or is_journal(name) or file_of_root(name) is not None


def counts_of(files: Mapping[str, FileEntry], events: int) -> BackupCounts:
    return BackupCounts(
        events=events,
        message_files=sum(name.startswith("messages/") for name in files),
        local_tables=int(LOCAL in files),
        config_files=sum(name.startswith("config/") for name in files),
    )


# -- reading


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open backup whose manifest fits what is there."""

    path: Path
    manifest: Manifest
    open: Callable[[str], IO[bytes]]

    def read(self, name: str) -> bytes:
        """A small file, checked. Raises BackupInvalid."""
        return b"".join(self._pieces(name))

    def unpack(self, name: str, target: Path) -> None:
        """Write a file out, private and durable. Raises BackupInvalid when it isn't what the manifest says, OSError."""
        write_durably(target, self._pieces(name))
        if ms := self.manifest.files[name].modified_ms:
            os.utime(target, ns=(ms * 1_000_000, ms * 1_000_000))

    def _pieces(self, name: str) -> Iterator[bytes]:
        expected = self.manifest.files[name]
        digest, left = hashlib.sha256(), expected.bytes
        try:
            with self.open(name) as file:
                while piece := file.read(min(_READ_BYTES, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        break
                    digest.update(piece)
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise self.invalid(f"{name}: {error}") from error
        if left or digest.hexdigest() != expected.sha256:
            raise self.invalid(f"{name} does not match its manifest")

    def invalid(self, reason: str) -> BackupInvalid:
        return invalid(self.path, reason)


def invalid(path: Path, reason: str) -> BackupInvalid:
    return BackupInvalid(f"{path} is not a thrum backup: {reason}")


@contextmanager
def open_bundle(path: Path) -> Generator[Bundle]:
    """Open a backup: a directory or a zip. Raises BackupNotFound, BackupInvalid, StoreFailed."""
    with ExitStack() as stack:
        try:
            found = _open(path, stack)
        except FileNotFoundError as error:
            raise BackupNotFound(f"no backup in {path}") from error
        except OSError as error:
            name = error.filename or path
            raise StoreFailed(f"could not read {name}: {(error.strerror or str(error)).lower()}") from error
        yield found


def _open(path: Path, stack: ExitStack) -> Bundle:
    if path.is_dir():
        return _checked(path, _directory_sizes(path), lambda name: _open_plain(path / name))
    file = stack.enter_context(path.open("rb"))
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise invalid(path, str(error) or "not a zip file") from error
    sizes = _archive_sizes(path, archive, os.fstat(file.fileno()).st_size)
    return _checked(path, sizes, archive.open)


def _open_plain(path: Path) -> IO[bytes]:
    return os.fdopen(open_nofollow(path, os.O_RDONLY), "rb")


def _directory_sizes(path: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for directory, below, files in os.walk(path):
        for each in (*below, *files):
            full = Path(directory, each)
            status, name = lstat(full), str(full.relative_to(path))
            if stat.S_ISREG(status.st_mode):
                sizes[name] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise invalid(path, f"{name} is a link or not a regular file")
    return sizes


def _archive_sizes(path: Path, archive: zipfile.ZipFile, packed_bytes: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for info in archive.infolist():
        kind = info.external_attr >> 16 & 0o170000
        if info.is_dir() and not kind & ~0o040000:
            continue  # nothing is made of it
        if kind not in (0, stat.S_IFREG):
            raise invalid(path, f"{info.filename!r} is a link or not a regular file")
        if info.flag_bits & 1:
            raise invalid(path, f"{info.filename!r} is encrypted")
        if info.filename in sizes:
            raise invalid(path, f"{info.filename!r} occurs twice")
        sizes[info.filename] = info.file_size
    if sum(sizes.values()) > max(_BYTES_WITHOUT_QUESTION, _RATIO_MAX * packed_bytes):
        raise invalid(path, "it unpacks to more bytes than it can hold")
    return sizes


def _checked(path: Path, sizes: Mapping[str, int], open_: Callable[[str], IO[bytes]]) -> Bundle:
    if MANIFEST not in sizes:
        raise BackupNotFound(f"no backup in {path}") if path.is_dir() and not sizes else invalid(path, "no manifest")
    for name in sizes:
        if not is_known(name):
            raise invalid(path, f"{name!r} does not belong in a backup")
    if sizes[MANIFEST] > _MANIFEST_BYTES_MAX or len(sizes) > _FILES_MAX:
        raise invalid(path, "it has too many files")
    try:
        with open_(MANIFEST) as file:
            manifest = msgspec.json.decode(file.read(_MANIFEST_BYTES_MAX), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise invalid(path, f"{MANIFEST}: {error}") from error
    if manifest.version > VERSION:
        raise BackupInvalid(f"{path} was made by a newer thrum", remedy="upgrade thrum")
    told = {name: entry.bytes for name, entry in manifest.files.items()}
    if told != {name: size for name, size in sizes.items() if name != MANIFEST}:
        raise invalid(path, "its files do not match its manifest")
    for name, size in told.items():
        if name.startswith("config/") and size > _CONFIG_BYTES_MAX:
            raise invalid(path, f"{name} is too large")
    return Bundle(path, manifest, open_)


# -- writing


def write_durably(target: Path, pieces: Iterable[bytes]) -> FileEntry:
    """A new private file of these bytes, synced; its directory is the caller's to sync. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = create_file(target)
    try:
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            write_all(descriptor, piece)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileEntry(size, digest.hexdigest())


def pack(directory: Path, target: Path) -> None:
    """Make a zip of a backup's directory: whole, or not at all. Raises OSError."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    ensure_private_dir(target.parent)
    try:
        with os.fdopen(create_file(temporary), "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
                for path in sorted(directory.rglob("*")):
                    if path.is_file() and not is_link(path):
                        archive.write(path, path.relative_to(directory).as_posix())
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(target.parent)
