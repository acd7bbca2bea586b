"""Thrum's hooks in a runtime's file of settings: put in, taken out again to the byte (wake.md §6).

What is others' in the file stays. How it was before is remembered (`_records`); if somebody has changed the file since,
thrum's entries alone are cut out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from thrum.model import files
from thrum.model.errors import ConfigInvalid, in_shell
from thrum.model.paths import Layout
from thrum.runtimes import _written, hook_files, opencode_plugin
from thrum.runtimes._json_edit import NotJson
from thrum.runtimes._records import Record, Records, digest
from thrum.runtimes.settings_files import HOOKED, SettingsFile, settings_files_in

PLUGIN: Final = "opencode"
"""The runtime whose hooks are no entries in a file of settings, but a file of their own."""
Change = Literal["installed", "replaced", "unchanged", "removed", "restored", "absent"]
"""What became of a file: `restored` is to the byte, `removed` is what is thrum's alone."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did. `was_there`: the file was; `rule`: the file of ignore rules that got a line, or empty."""

    file: SettingsFile
    change: Change
    was_there: bool
    rule: str = ""


def install(
    file: SettingsFile,
    program: str,
    environ: Mapping[str, str],
    layout: Layout | None,
    *,
    dry_run: bool = False,
) -> Installed:
    """Put the hooks that call `program` (an absolute path) into a file; what is there already is not written again.

    A private file is hidden from git first. Raises StateTracked for one that git tracks; ConfigInvalid for one that is
    no JSON of that form; Busy, FileUnreadable, StoreFailed. Then, and in a dry run, nothing is changed.
    """
    _written.check_untracked(file, environ)
    records = Records(environ)
    with _written.failing(file.path), contextlib.nullcontext() if dry_run else records.alone():
        old = _written.read(file.path)
        new = _edited(file, old, program)
        if new == old:
            return Installed(file, "unchanged", was_there=True)
        change: Change = "replaced" if old is not None and _ours(file, old) else "installed"
        if dry_run:
            return Installed(file, change, was_there=old is not None)
        rewrite = _rewrite(file, records.of(file.path), old, new)
        rule = _written.put(file, rewrite, layout, environ, records)
        return Installed(file, change, was_there=old is not None, rule=rule)


def uninstall(file: SettingsFile, environ: Mapping[str, str]) -> Change:
    """Take thrum's hooks out of a file, and what was made for them. Raises as `install` does."""
    records = Records(environ)
    with _written.failing(file.path), records.alone():
        known = records.of(file.path)
        old = _written.read(file.path)
        if known is None and (old is None or not _ours(file, old)):
            return "absent"
        new = _without(file, known, old)
        if new is None and old is not None:
            files.remove(file.path)
            files.sync_directory(file.path.parent)
        elif new is not None and new != old:
            _written.write(file.path, old, new, _written.PRIVATE)
        if known is not None:
            _written.clear(known, records)
        if known is not None and new == known.before:
            return "restored"
        return "absent" if new == old else "removed"


def commands_in(file: SettingsFile) -> Sequence[str]:
    """Thrum's commands in a file; of one that is not there, or cannot be read as it is, none."""
    try:
        data = _written.read(file.path)
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
        text = (old or b"").decode()
        if file.runtime == PLUGIN:
            return opencode_plugin.installed(text, program).encode()
        return hook_files.installed(text, file.runtime, program).encode()


def _ours(file: SettingsFile, data: bytes) -> Sequence[str]:
    if not data.strip():
        return ()
    with _as_config(file):
        text = data.decode()
        if file.runtime == PLUGIN:
            program = opencode_plugin.program_in(text)
            return [hook_files.command(program, PLUGIN, event) for event in opencode_plugin.events_in(text)]
        return hook_files.commands_in(text)


def _without(file: SettingsFile, known: Record | None, old: bytes | None) -> bytes | None:
    """What the file is to be; None: it is to go, or is gone."""
    if old is None:
        return None
    if known is not None and (digest(old) in known.after or old == known.before):
        return known.before
    if not _ours(file, old):
        return old
    if file.runtime == PLUGIN:
        return None  # the whole of it is thrum's
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


# -- what is remembered


def _rewrite(file: SettingsFile, known: Record | None, old: bytes | None, new: bytes) -> _written.Rewrite:
    """What to remember: of a file that has hooks already how it was before them, as far as that is known."""
    after: tuple[str, ...] = (digest(new),)
    if old is None or not _ours(file, old):
        before = old
    elif known is None:
        before = hook_files.removed(old.decode()).encode() if file.runtime != PLUGIN else None
    else:
        before = known.before
        # Where others have changed it since, what was before is not all that there is: then ours is cut out.
        after = (*known.after, *after) if digest(old) in known.after else ()
    return _written.Rewrite(old, new, before, after)
