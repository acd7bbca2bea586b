"""Thrum's hooks for one run of a runtime: given with the command that starts it, so that no file of the worktree or of
the user's is touched (wake.md §6).

Claude takes a file of settings beside its own. A runtime that takes none has those hooks alone that are installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from thrum.model import files
from thrum.model.errors import StoreFailed
from thrum.runtimes import hook_files
from thrum.runtimes.installer import installed_files
from thrum.runtimes.settings_files import HOOKED

_SETTINGS: Final = "--settings"
"""Claude's flag: a file of settings that counts beside all others, for this run."""
_TAKES_FILE: Final = ("claude",)


def arguments_for(
    runtime: str, given: Sequence[str], program: str, directory: Path, root: Path, environ: Mapping[str, str]
) -> tuple[tuple[str, ...], str]:
    """What to give to a runtime that starts in `root` beside what the user has `given`, and what there is to warn of.

    `program`: the absolute path of `thrum`; `directory`: a private one, where a file may be left. Nothing is given
    where hooks are installed: each would be called twice. Blocks. Raises StoreFailed.
    """
    if runtime not in HOOKED or any(file.runtime == runtime for file in installed_files(root, environ)):
        return (), ""
    if runtime not in _TAKES_FILE:
        return (), f"{runtime} calls thrum only where its hooks are installed: thrum hook install {runtime}"
    if any(word == _SETTINGS or word.startswith(f"{_SETTINGS}=") for word in given):
        return (), f"{_SETTINGS} is yours, so thrum's hooks are not given: thrum hook install {runtime}"
    return (_SETTINGS, str(_settings(runtime, program, directory))), ""


def _settings(runtime: str, program: str, directory: Path) -> Path:
    """The file, written again where it is another one: runs that go on have read it."""
    path = directory / f"{runtime}.json"
    content = hook_files.installed("", runtime, program).encode()
    try:
        files.ensure_private_dir(directory)
        try:
            is_there = files.read_bytes(path) == content
        except FileNotFoundError:
            is_there = False
        if not is_there:
            files.atomic_write(path, content)
    except OSError as error:
        raise StoreFailed(f"could not write {path}: {(error.strerror or str(error)).lower()}") from error
    return path
