"""Where each runtime has the file with its hooks (cli.md 3.20, wake.md §6).

`private`: in the worktree, git-ignored; `project`: in the worktree, for everybody who clones it; `user`: in the user's
own directory, for all repositories.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from thrum.model import files
from thrum.model.errors import FileUnreadable, NotAvailable, NotInitialized, in_shell
from thrum.runtimes.doors.claude import config_dir

Scope = Literal["private", "project", "user"]

_FILES: Final[dict[str, dict[Scope, str]]] = {
    "claude": {
        "private": ".claude/settings.local.json",
        "project": ".claude/settings.json",
        "user": "settings.json",
    },
    "codex": {"user": "hooks.json"},
    "gemini": {"private": ".gemini/settings.json", "project": ".gemini/settings.json", "user": "settings.json"},
    "cursor": {"private": ".cursor/hooks.json", "project": ".cursor/hooks.json", "user": "hooks.json"},
    "opencode": {
        "private": ".opencode/plugins/thrum.js",
        "project": ".opencode/plugins/thrum.js",
        "user": "plugins/thrum.js",
    },
}
_DIRECTORIES: Final = {"codex": ".codex", "gemini": ".gemini", "cursor": ".cursor", "opencode": ".config/opencode"}
"""The user's own, below HOME."""

HOOKED: Final = tuple(_FILES)
"""The runtimes that thrum can write hooks for."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """One file. `name`: as people call it; `root`: the worktree that it is in, None for the user's own."""

    runtime: str
    scope: Scope
    path: Path
    name: str
    root: Path | None = None


def scopes_of(runtime: str) -> tuple[Scope, ...]:
    """Where its hooks may be; the first is where they go if nothing else is said."""
    return tuple(_FILES[runtime])


def settings_file(runtime: str, scope: Scope, root: Path | None, environ: Mapping[str, str]) -> SettingsFile:
    """The file of a runtime. A link of the user's own is followed, one in a worktree is refused.

    Raises NotAvailable for a runtime without such a file; NotInitialized without a worktree; FileUnreadable.
    """
    name = _FILES[runtime].get(scope)
    if name is None:
        raise NotAvailable(
            f"{runtime} reads no hooks of a project: its only file is your own", remedy=f"thrum hook install {runtime}"
        )
    if scope != "user":
        if root is None:
            raise NotInitialized("thrum is not set up here")
        return SettingsFile(runtime, scope, file_inside(root, name), name, root)
    directory = user_directory(runtime, environ)
    if not directory:
        raise NotAvailable("there is no home directory", remedy="export HOME=DIR")
    home = environ.get("HOME", "")
    shown = f"{directory}/{name}"
    short = f"~{shown[len(home) :]}" if home and shown.startswith(f"{home}/") else shown
    return SettingsFile(runtime, scope, Path(os.path.realpath(shown)), short)


def settings_files_in(runtime: str, root: Path | None, environ: Mapping[str, str]) -> list[SettingsFile]:
    """Its files in a worktree, but those that lie behind a link: thrum never wrote there. None: the user's own."""
    found: dict[Path, SettingsFile] = {}
    for scope in scopes_of(runtime):
        if (scope == "user") == (root is None):
            with contextlib.suppress(FileUnreadable, NotAvailable):
                file = settings_file(runtime, scope, root, environ)
                found.setdefault(file.path, file)
    return list(found.values())


def user_directory(runtime: str, environ: Mapping[str, str]) -> str:
    """Where it keeps what is the user's; empty where the variables do not tell."""
    if runtime == "claude":
        return config_dir(environ)
    if runtime == "codex" and os.path.isabs(given := environ.get("CODEX_HOME", "")):
        return given
    if runtime == "opencode" and os.path.isabs(given := environ.get("XDG_CONFIG_HOME", "")):
        return f"{given}/opencode"
    home = environ.get("HOME", "")
    return f"{home}/{_DIRECTORIES[runtime]}" if os.path.isabs(home) else ""


def file_inside(root: Path, name: str) -> Path:
    """A path in a worktree, where a branch may have put links. Raises FileUnreadable."""
    path = root / name
    for each in (*reversed([at for at in path.parents if at.is_relative_to(root) and at != root]), path):
        if files.is_link(each):
            raise FileUnreadable(
                f"{each} is a link: nothing is written through it",
                remedy=f"mv {in_shell(each)} {in_shell(f'{each}.found')}, or: --user",
            )
    return path
