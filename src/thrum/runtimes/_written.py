"""A file that thrum writes for a runtime: read, replaced, hidden from git, and what was made for it taken away."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from thrum.git import ignore_rules
from thrum.model import files
from thrum.model.errors import Busy, StateTracked, StoreFailed
from thrum.model.paths import Layout
from thrum.runtimes._records import Record, Records
from thrum.runtimes.settings_files import SettingsFile

PRIVATE, SHARED = 0o600, 0o644
"""Modes of new files, by whether others are to read them."""
_FILE_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A file as it is, and as it is to be. `before`, `after`: what is remembered of it (`_records.Record`)."""

    old: bytes | None
    new: bytes
    before: bytes | None
    after: tuple[str, ...]


def put(
    file: SettingsFile, rewrite: Rewrite, layout: Layout | None, environ: Mapping[str, str], records: Records
) -> str:
    """Remember, hide, write, in this order: killed in between, `thrum hook uninstall` finds its way back.

    Returns the file of ignore rules that a line was added to. Raises Busy, OSError, StoreFailed.
    """
    exclude = exclude_of(file, layout, environ, records)
    known = records.of(file.path)
    made = (*(known.made if known is not None else ()), *missing(file.path.parent))
    records.keep(
        Record(
            path=str(file.path),
            before=rewrite.before,
            after=tuple(dict.fromkeys(rewrite.after)),
            made=tuple(dict.fromkeys(made)),
            exclude=exclude.file if exclude is not None else "",
            rule=exclude.rule if exclude is not None else "",
        )
    )
    is_new = exclude is not None and not exclude.is_there
    if exclude is not None and is_new:
        ignore_rules.add_rule(Path(exclude.file), exclude.rule)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    write(file.path, rewrite.old, rewrite.new, SHARED if file.scope == "project" else PRIVATE)
    return exclude.file if exclude is not None and is_new else ""


def read(path: Path) -> bytes | None:
    """What is in a file; None: there is none. Raises OSError."""
    try:
        return files.read_bytes(path, _FILE_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: Path, old: bytes | None, new: bytes, mode: int) -> None:
    """Replace the file, with the mode that it has, unless its program has just written it. Raises Busy, OSError."""
    found = files.status(path)
    if read(path) != old:
        raise Busy(f"{path} was just changed by another program", remedy="repeat the command", retry_after_ms=100)
    files.atomic_write(path, new, mode=mode if found is None else stat.S_IMODE(found.st_mode))


def missing(directory: Path) -> tuple[str, ...]:
    """The directories on the way that are not there yet, the outermost first."""
    way = (directory, *directory.parents)
    return tuple(str(each) for each in reversed(way) if not each.exists())


@contextlib.contextmanager
def failing(path: Path) -> Generator[None]:
    """Raise StoreFailed for an OSError, which says what it was about."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or path)
        said = f"{name}: {(error.strerror or str(error)).lower()}"
        raise StoreFailed(f"could not change {said}", remedy=files.remedy_of(error, name)) from error


# -- what is remembered, and git


@dataclass(frozen=True, slots=True)
class Exclude:
    """A line in a file of ignore rules. `is_there`: it was put there for another file."""

    file: str
    rule: str
    is_there: bool


def check_untracked(file: SettingsFile, environ: Mapping[str, str]) -> None:
    """Raise StateTracked for a private file that git tracks."""
    if file.scope == "private" and file.root is not None and ignore_rules.is_tracked(file.root, file.name, environ):
        raise StateTracked(
            f"git tracks {file.name}: what only you want would be committed with it",
            remedy=f"for all who clone it: thrum hook install {file.runtime} --project;"
            f" for you in all repositories: thrum hook install {file.runtime} --user",
        )


def exclude_of(
    file: SettingsFile, layout: Layout | None, environ: Mapping[str, str], records: Records
) -> Exclude | None:
    """The line that hides a private file; None where git leaves it out anyway, or there is no git."""
    if file.scope != "private" or file.root is None or layout is None or layout.common_dir is None:
        return None
    made = Exclude(str(layout.common_dir / "info" / "exclude"), f"/{file.name}", is_there=False)
    if not ignore_rules.is_ignored(file.root, file.name, environ):
        return made
    known = records.of(file.path)
    ours = (known is not None and known.exclude == made.file) or records.share_rule(file.path, made.file, made.rule)
    return Exclude(made.file, made.rule, is_there=True) if ours else None


def clear(known: Record, records: Records) -> None:
    """Take away what was made for the file, and then the record."""
    path = Path(known.path)
    if not path.exists():
        for directory in reversed(known.made):
            with contextlib.suppress(OSError):
                os.rmdir(directory)  # only where it is empty
        records.hand_over(path, [each for each in known.made if os.path.isdir(each)])
    is_hidden = known.before is None and path.exists()  # others' private words are in it now
    if known.exclude and not is_hidden and not records.share_rule(path, known.exclude, known.rule):
        ignore_rules.remove_rule(Path(known.exclude), known.rule)
    records.drop(path)
