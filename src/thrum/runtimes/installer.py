"""Thrum's hooks in a runtime's file of settings: put in, taken out again to the byte (wake.md §6).

What is others' in the file stays. How it was before is remembered (`_records`); if somebody has changed the file since,
thrum's entries alone are cut out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from thrum.git import ignore_rules
from thrum.model import files
from thrum.model.errors import Busy, ConfigInvalid, StateTracked, StoreFailed, in_shell
from thrum.model.paths import Layout
from thrum.runtimes import hook_files
from thrum.runtimes._json_edit import NotJson
from thrum.runtimes._records import Record, Records, digest
from thrum.runtimes.settings_files import HOOKED, SettingsFile, settings_files_in

Change = Literal["installed", "replaced", "unchanged", "removed", "restored", "absent"]
"""What became of a file: `restored` is to the byte, `removed` is what is thrum's alone."""

_PRIVATE, _SHARED = 0o600, 0o644
_FILE_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did. `rule`: the file of ignore rules that a line was added to; empty: none had to be."""

    file: SettingsFile
    change: Change
    rule: str = ""


def install(file: SettingsFile, program: str, environ: Mapping[str, str], layout: Layout | None) -> Installed:
    """Put the hooks that call `program` (an absolute path) into a file; what is there already is not written again.

    A private file is hidden from git first. Raises StateTracked for one that git tracks; ConfigInvalid for one that is
    no JSON of that form; Busy, FileUnreadable, StoreFailed. Then nothing is changed.
    """
    if file.scope == "private":
        _check_untracked(file, environ)
    records = Records(environ)
    with _failing(file.path), records.alone():
        old = _read(file.path)
        new = _edited(file, old, program)
        if new == old:
            return Installed(file, "unchanged")
        exclude = _exclude_of(file, layout, environ, records)
        known = records.of(file.path)
        records.keep(_record(file, known, old, new, exclude))
        if exclude is not None and not exclude.is_there:
            ignore_rules.add_rule(Path(exclude.file), exclude.rule)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        _write(file.path, old, new, _SHARED if file.scope == "project" else _PRIVATE)
        had = old is not None and bool(_ours(file, old))
        added = exclude.file if exclude is not None and not exclude.is_there else ""
        return Installed(file, "replaced" if had else "installed", added)


def uninstall(file: SettingsFile, environ: Mapping[str, str]) -> Change:
    """Take thrum's hooks out of a file, and what was made for them. Raises as `install` does."""
    records = Records(environ)
    with _failing(file.path), records.alone():
        known = records.of(file.path)
        old = _read(file.path)
        if known is None and (old is None or not _ours(file, old)):
            return "absent"
        new = _without(file, known, old)
        if new is None and old is not None:
            files.remove(file.path)
            files.sync_directory(file.path.parent)
        elif new is not None and new != old:
            _write(file.path, old, new, _PRIVATE)
        if known is not None:
            _clear(known, records)
        if known is not None and new == known.before:
            return "restored"
        return "absent" if new == old else "removed"


def commands_in(file: SettingsFile) -> Sequence[str]:
    """Thrum's commands in a file; of one that is not there, or cannot be read as it is, none."""
    try:
        data = _read(file.path)
        return () if data is None else _ours(file, data)
    except (OSError, ConfigInvalid):
        return ()


def installed_files(root: Path | None, environ: Mapping[str, str]) -> list[SettingsFile]:
    """Every file with hooks of thrum in a worktree, if one is named, and of the user's own."""
    looked = [
        file
        for runtime in HOOKED
        for at in dict.fromkeys((root, None))
        for file in settings_files_in(runtime, at, environ)
    ]
    return [file for file in looked if commands_in(file)]


# -- the file's text


def _edited(file: SettingsFile, old: bytes | None, program: str) -> bytes:
    with _as_config(file):
        return hook_files.installed((old or b"").decode(), file.runtime, program).encode()


def _ours(file: SettingsFile, data: bytes) -> Sequence[str]:
    if not data.strip():
        return ()
    with _as_config(file):
        return hook_files.commands_in(data.decode())


def _without(file: SettingsFile, known: Record | None, old: bytes | None) -> bytes | None:
    """What the file is to be; None: it is to go, or is gone."""
    if old is None:
        return None
    if known is not None and (digest(old) in known.after or old == known.before):
        return known.before
    if not _ours(file, old):
        return old
    with _as_config(file):
        text = hook_files.removed(old.decode())
        is_thrums = known is not None and known.before is None
        return None if is_thrums and hook_files.is_bare(text, file.runtime) else text.encode()


@contextlib.contextmanager
def _as_config(file: SettingsFile) -> Generator[None]:
    """Say of what cannot be read as settings what is wrong with it."""
    try:
        yield
    except (NotJson, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigInvalid(
            f"{file.name}: {why}", remedy=f"fix {in_shell(str(file.path))}, then: thrum hook install {file.runtime}"
        ) from error


# -- the file


def _read(path: Path) -> bytes | None:
    try:
        return files.read_bytes(path, _FILE_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, old: bytes | None, new: bytes, mode: int) -> None:
    """Replace the file, with the mode that it has, unless its program has just written it. Raises Busy, OSError."""
    found = files.status(path)
    if _read(path) != old:
        raise Busy(f"{path} was just changed by another program", remedy="repeat the command", retry_after_ms=100)
    files.atomic_write(path, new, mode=mode if found is None else stat.S_IMODE(found.st_mode))


def _missing(directory: Path) -> tuple[str, ...]:
    """The directories on the way that are not there yet, the outermost first."""
    way = (directory, *directory.parents)
    return tuple(str(each) for each in reversed(way) if not each.exists())


@contextlib.contextmanager
def _failing(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        name = str(error.filename or path)
        said = f"{name}: {(error.strerror or str(error)).lower()}"
        raise StoreFailed(f"could not change {said}", remedy=files.remedy_of(error, name)) from error


# -- what is remembered, and git


@dataclass(frozen=True, slots=True)
class _Exclude:
    file: str
    rule: str
    is_there: bool


def _check_untracked(file: SettingsFile, environ: Mapping[str, str]) -> None:
    if file.root is not None and ignore_rules.is_tracked(file.root, file.name, environ):
        raise StateTracked(
            f"git tracks {file.name}: hooks that only you want would be committed with it",
            remedy=f"for all who clone it: thrum hook install {file.runtime} --project;"
            f" for you in all repositories: thrum hook install {file.runtime} --user",
        )


def _exclude_of(
    file: SettingsFile, layout: Layout | None, environ: Mapping[str, str], records: Records
) -> _Exclude | None:
    """The line that hides a private file; None where git leaves it out anyway, or there is no git."""
    if file.scope != "private" or file.root is None or layout is None or layout.common_dir is None:
        return None
    made = _Exclude(str(layout.common_dir / "info" / "exclude"), f"/{file.name}", is_there=False)
    if not ignore_rules.is_ignored(file.root, file.name, environ):
        return made
    known = records.of(file.path)
    ours = (known is not None and known.exclude == made.file) or records.share_rule(file.path, made.file, made.rule)
    return _Exclude(made.file, made.rule, is_there=True) if ours else None


def _record(
    file: SettingsFile, known: Record | None, old: bytes | None, new: bytes, exclude: _Exclude | None
) -> Record:
    """What to remember: of a file that has hooks already how it was before them, as far as that is known."""
    after: tuple[str, ...] = (digest(new),)
    if old is None or not _ours(file, old):
        before = old
    elif known is None:
        before = hook_files.removed(old.decode()).encode()
    else:
        before = known.before
        # Where others have changed it since, what was before is not all that there is: then ours is cut out.
        after = (*known.after, *after) if digest(old) in known.after else ()
    made = (*(known.made if known is not None else ()), *_missing(file.path.parent))
    return Record(
        path=str(file.path),
        before=before,
        after=tuple(dict.fromkeys(after)),
        made=tuple(dict.fromkeys(made)),
        exclude=exclude.file if exclude is not None else "",
        rule=exclude.rule if exclude is not None else "",
    )


def _clear(known: Record, records: Records) -> None:
    """Take away what was made for the file, and then the record."""
    path = Path(known.path)
    if not path.exists():
        for directory in reversed(known.made):
            with contextlib.suppress(OSError):
                os.rmdir(directory)  # only where it is empty
    if known.exclude and not records.share_rule(path, known.exclude, known.rule):
        ignore_rules.remove_rule(Path(known.exclude), known.rule)
    records.drop(path)
