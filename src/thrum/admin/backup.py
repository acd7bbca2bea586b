"""Backups: a copy of the files that are the truth, and the archives of earlier ones (cli.md 3.15).

A backup is made beside the last one and replaces it once complete; the last one becomes an archive. A kill
meanwhile leaves the last one as it was, or both.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from thrum.admin import _bundle as bundle
from thrum.admin._bundle import FileEntry, Manifest
from thrum.admin._retention import archive_name, archive_time, to_remove
from thrum.admin.exclusive import hold_lock, owner_of
from thrum.model import config, events, files, settings
from thrum.model.clock import SystemClock, format_ms, parse_ms
from thrum.model.errors import BackupNotFound, StoreFailed, ThrumError
from thrum.model.files import ensure_private_dir, locked, sync_directory
from thrum.model.methods.admin import BackupArchives, BackupConfigResult, BackupResult, Retention
from thrum.model.notes import roots
from thrum.model.paths import Layout
from thrum.store import audit
from thrum.store.journal import JournalFiles
from thrum.sync import branch
from thrum.version import VERSION

_NEW, _OLD = ".new-", ".old"
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up. `journal_states`: how a running daemon's journals stand; None: none runs, whole lines
    count.
    """

    layout: Layout
    environ: Mapping[str, str]
    journal_states: audit.JournalStates | None = None


class JournalMoved(Exception):
    """A journal was rewritten since it was looked at: look again."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the backups of one repository lie."""

    directory: Path

    @property
    def current(self) -> Path:
        return self.directory / "current"

    @property
    def archives(self) -> Path:
        return self.directory / "archives"

    def archive_names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.archives) if archive_time(name))
        except FileNotFoundError:
            return []

    def free_name(self, ms: int, *, before_restore: bool = False) -> str:
        """A name for an archive of that time that none has yet."""
        taken, number = set(self.archive_names()), 1
        while (name := archive_name(ms, number, before_restore=before_restore)) in taken:
            number += 1
        return name


def directory_of(layout: Layout, given: str = "") -> Path:
    """DIR: what was given (absolute), else the setting, else `.thrum/backup`. Raises ConfigInvalid."""
    told = given or config.load_config(layout.config_file)[settings.BACKUP_DIR]
    return (layout.main_root / os.path.expanduser(told)) if told else layout.state_dir / "backup"


def shelf_of(layout: Layout, given: str = "") -> Shelf:
    return Shelf(directory_of(layout, given) / layout.main_root.name)


def settings_of(layout: Layout) -> BackupConfigResult:
    """Raises ConfigInvalid."""
    return BackupConfigResult(dir=str(directory_of(layout)), retention=_retention_of(layout))


def _retention_of(layout: Layout) -> Retention:
    found = config.load_config(layout.config_file)
    return Retention(
        daily=found[settings.KEPT_DAILY], weekly=found[settings.KEPT_WEEKLY], monthly=found[settings.KEPT_MONTHLY]
    )


# -- making one


def create_here(layout: Layout, environ: Mapping[str, str], given: str = "") -> BackupResult:
    """Back up without a daemon, under its lock. Raises DaemonLocked, and as `create`."""
    from thrum.admin.restore import finish

    with hold_lock(layout):
        finish(layout, environ)
        return create(Source(layout, environ), given)


def create(source: Source, given: str = "") -> BackupResult:
    """Back up now. Raises ConfigInvalid, StoreFailed, JournalMoved (with a running daemon: look again)."""
    layout = source.layout
    shelf = shelf_of(layout, given)
    retention = _retention_of(layout)
    with _refusals(shelf.directory), _locked(shelf):
        _tidy(shelf)
        fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=shelf.directory))
        try:
            manifest = copy_to(source, fresh)
            _archive_current(shelf)
            _exchange(shelf, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for name in to_remove(shelf.archive_names(), retention):
            (shelf.archives / name).unlink(missing_ok=True)
    return _result(shelf, manifest)


def copy_to(source: Source, target: Path) -> Manifest:
    """Copy what is truth into an empty directory, the manifest last. Raises OSError, ConfigInvalid, JournalMoved."""
    layout = source.layout
    # First of all: a round that is under way commits only what was in the journals before.
    head = _head(source)
    found: dict[str, FileEntry] = {}
    lines = 0
    for name, pieces in _journal_files(source):
        entry, lines_here = _copy(target / name, pieces)
        found[name] = entry
        lines += lines_here if name == events.EVENTS_FILE else 0
    worktrees: dict[str, str] = {}
    for name, path in _other_files(layout, worktrees):
        with contextlib.suppress(FileNotFoundError):
            modified_ms = path.stat().st_mtime_ns // 1_000_000
            entry, _ = _copy(target / name, _plain_pieces(path))
            found[name] = msgspec.structs.replace(entry, modified_ms=modified_ms)
    manifest = Manifest(
        version=bundle.VERSION,
        timestamp=format_ms(SystemClock().now_ms()),
        thrum_version=VERSION,
        repo_name=layout.main_root.name,
        daemon_id=owner_of(layout).daemon_id,
        head=head,
        roots=branch.root_commits(layout, source.environ),
        counts=bundle.counts_of(found, lines),
        files=found,
        worktrees=worktrees,
    )
    bundle.write_durably(target / bundle.MANIFEST, [msgspec.json.format(msgspec.json.encode(manifest)), b"\n"])
    for directory in {target, *(path for path in target.rglob("*") if path.is_dir())}:
        sync_directory(directory)
    return manifest


def _head(source: Source) -> str:
    try:
        with branch.read_branch(source.layout, source.environ) as found:
            return "" if found is None else found.tip
    except ThrumError:
        return ""  # what git can't read is no part of a backup: the journals hold all of it


def _copy(target: Path, pieces: Iterator[bytes]) -> tuple[FileEntry, int]:
    """The new file, and its lines."""
    lines = 0

    def counted() -> Iterator[bytes]:
        nonlocal lines
        for piece in pieces:
            lines += piece.count(b"\n")
            yield piece

    ensure_private_dir(target.parent)
    return bundle.write_durably(target, counted()), lines


def _journal_files(source: Source) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Every journal as a backup names it, up to where it counts."""
    layout = source.layout
    journals = JournalFiles(layout.branch_dir, layout.local_journal)
    ends = audit.whole_ends(journals) if source.journal_states is None else source.journal_states.ends
    for file, end in ends.items():
        name = bundle.LOCAL if file == events.LOCAL_FILE else file
        if bundle.is_known(name):
            inode = None if source.journal_states is None else source.journal_states.inodes[file]
            yield name, _pieces_up_to(journals.path(file), end, inode)


def _pieces_up_to(path: Path, end: int, inode: int | None) -> Iterator[bytes]:
    descriptor = files.open_nofollow(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        if inode is not None and os.fstat(descriptor).st_ino != inode:
            raise JournalMoved
        while end > 0 and (piece := file.read(min(_COPY_BYTES, end))):
            end -= len(piece)
            yield piece
    if end:
        raise JournalMoved


def _plain_pieces(path: Path) -> Iterator[bytes]:
    descriptor = files.open_nofollow(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        while piece := file.read(_COPY_BYTES):
            yield piece


def _other_files(layout: Layout, worktrees: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Quarantine, settings, identity files and notes. `worktrees` is filled with the roots beside the main one."""
    if layout.quarantine.is_file():
        yield bundle.QUARANTINE, layout.quarantine
    if layout.config_file.is_file():
        yield bundle.CONFIG, layout.config_file
    for root in sorted(set(roots(layout)) - {layout.main_root, layout.branch_dir}, key=str):
        worktrees[f"w{len(worktrees) + 1}"] = str(root)
    for prefix, root in [("", layout.main_root), *((f"worktrees/{name}/", Path(at)) for name, at in worktrees.items())]:
        for kind in ("identities", "context"):
            for path in _plain_files(root / ".thrum" / kind):
                name = f"config/{prefix}{kind}/{path.name}"
                if bundle.is_known(name):
                    yield name, path


def _plain_files(directory: Path) -> list[Path]:
    try:
        names = files.names_in(directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    return [directory / name for name in names if name.isprintable() and files.is_file(directory / name)]


# -- the shelf


@contextlib.contextmanager
def _refusals(directory: Path) -> Generator[None]:
    """What the system refuses, as an error that names the file."""
    try:
        yield
    except OSError as error:
        name = error.filename or directory
        raise StoreFailed(
            f"could not write {name}: {(error.strerror or str(error)).lower()}",
            remedy="free space, or choose another place: thrum backup --dir DIR; the last backup is unchanged",
        ) from error


@contextlib.contextmanager
def _locked(shelf: Shelf) -> Generator[None]:
    ensure_private_dir(shelf.directory)
    with locked(shelf.directory / ".lock"):
        yield


def _tidy(shelf: Shelf) -> None:
    """Finish or take away what a killed backup left."""
    old = shelf.directory / _OLD
    if old.exists() and not shelf.current.exists():
        old.rename(shelf.current)
    for left in (old, *shelf.directory.glob(f"{_NEW}*")):
        shutil.rmtree(left, ignore_errors=True)


def _archive_current(shelf: Shelf) -> None:
    """Pack the last backup up, unless a killed call has. One that was damaged meanwhile is moved away as it is."""
    if not shelf.current.exists():
        return
    try:
        with bundle.open_bundle(shelf.current) as last:
            manifest, ms = last.manifest, parse_ms(last.manifest.timestamp)
    except (ThrumError, ValueError):
        quarantined = archive_name(SystemClock().now_ms()).removesuffix(".zip")
        shelf.current.rename(shelf.directory / f"damaged-{quarantined}")
        return
    for number in itertools.count(1):
        path = shelf.archives / archive_name(ms, number)
        if not path.exists():
            bundle.pack(shelf.current, path)
            return
        with contextlib.suppress(ThrumError), bundle.open_bundle(path) as packed:
            if packed.manifest == manifest:
                return


def _exchange(shelf: Shelf, fresh: Path) -> None:
    old = shelf.directory / _OLD
    if shelf.current.exists():
        shelf.current.rename(old)
    fresh.rename(shelf.current)
    sync_directory(shelf.directory)
    shutil.rmtree(old, ignore_errors=True)


# -- looking


def status(layout: Layout, given: str = "") -> BackupResult:
    """The last backup and the archives. Raises BackupNotFound, BackupInvalid, ConfigInvalid."""
    shelf = shelf_of(layout, given)
    if not shelf.current.is_dir() and not (shelf.directory / _OLD).is_dir():
        raise BackupNotFound(f"no backup in {shelf.directory}", remedy="thrum backup")
    if not shelf.current.is_dir():
        with _refusals(shelf.directory), _locked(shelf):
            _tidy(shelf)
    with bundle.open_bundle(shelf.current) as last:
        result = _result(shelf, last.manifest)
    names = shelf.archive_names()
    if names:
        times = sorted(time for name in names if (time := archive_time(name)))
        size = sum((shelf.archives / name).stat().st_size for name in names)
        oldest, newest = (format_ms(int(time.timestamp() * 1000)) for time in (times[0], times[-1]))
        result.archives = BackupArchives(count=len(names), bytes=size, oldest=oldest, newest=newest)
    return result


def _result(shelf: Shelf, manifest: Manifest) -> BackupResult:
    return BackupResult(
        version=manifest.version,
        timestamp=manifest.timestamp,
        thrum_version=manifest.thrum_version,
        repo_name=manifest.repo_name,
        counts=manifest.counts,
        location=str(shelf.current),
    )
