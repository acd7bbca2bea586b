"""A git repository as its own files tell it: its worktrees and directories, without a git process (identity.md §3)."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from thrum.model.files import open_following

_BARE = re.compile(r"^\s*bare\s*=\s*(\w+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GitPlace:
    """A git repository as its files tell it."""

    root: Path
    """The worktree; of a bare repository the repository itself."""
    git_dir: Path
    common_dir: Path
    """Shared by all worktrees of the repository."""
    linked: bool
    """Made by `git worktree add`; submodules and main worktrees are not."""
    bare: bool


def find_git(start: Path) -> GitPlace | None:
    """The git repository at `start` or above, a bare one included; None if there is none."""
    for directory in upwards(os.path.realpath(start)):
        found = git_at(directory)
        if found is not None:
            return replace(found, bare=not found.linked and _configured_bare(found.common_dir))
        if _is_git_dir(directory) and os.path.basename(directory) != ".git":
            path = Path(directory)
            return GitPlace(path, path, path, linked=False, bare=True)
    return None


def main_worktree(git: GitPlace) -> Path | None:
    """The worktree that `git clone` or `git init` made; None if the repository is bare."""
    common = git.common_dir
    return common.parent if common.name == ".git" and not _configured_bare(common) else None


def _configured_bare(common_dir: Path) -> bool:
    """Whether git's configuration says that no worktree belongs to this directory (`git clone --bare PATH/.git`)."""
    for name in ("config.worktree", "config"):
        try:
            text = (common_dir / name).read_text(errors="replace")
        except OSError:
            continue
        if match := _BARE.search(text):
            return match[1].lower() in ("true", "yes", "on", "1")
    return False


def upwards(directory: str) -> list[str]:
    """A directory and all above it."""
    chain = [directory]
    while (parent := os.path.dirname(directory)) != directory:
        chain.append(parent)
        directory = parent
    return chain


def _is_git_dir(directory: str) -> bool:
    return (
        os.path.isfile(f"{directory}/HEAD")
        and os.path.isdir(f"{directory}/objects")
        and os.path.isdir(f"{directory}/refs")
    )


def git_at(directory: str) -> GitPlace | None:
    """The repository whose worktree `directory` is, by its `.git`."""
    dot_git = f"{directory.rstrip('/')}/.git"
    try:
        mode = os.stat(dot_git).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(mode):
        path = Path(os.path.realpath(dot_git))
        return GitPlace(Path(directory), path, path, linked=False, bare=False)
    text = first_line(dot_git)
    if text is None or not text.startswith("gitdir:"):
        return None
    git_dir = os.path.realpath(os.path.join(directory, text.removeprefix("gitdir:").strip()))
    common = first_line(f"{git_dir}/commondir")
    if not common:
        return GitPlace(Path(directory), Path(git_dir), Path(git_dir), linked=False, bare=False)
    common_dir = os.path.realpath(os.path.join(git_dir, common))
    return GitPlace(Path(directory), Path(git_dir), Path(common_dir), linked=True, bare=False)


def nowhere(git: GitPlace) -> Path | None:
    """What a worktree's `.git` leads to and is not there: the repository is not mounted, was moved, or is gone."""
    return next((path for path in (git.git_dir, git.common_dir) if not path.is_dir()), None)


def first_line(path: str) -> str | None:
    """The stripped text of a small file, or None if it can't be read."""
    try:
        return _small_text(path)
    except OSError:
        return None


def _small_text(path: str) -> str:
    """The stripped text of a small file. Raises OSError, also for what is no plain file: a pipe would be waited for."""
    descriptor = open_following(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", path)
        return os.fsdecode(os.read(descriptor, 65536)).strip()
    finally:
        os.close(descriptor)


def worktrees(common_dir: Path) -> list[Path]:
    """The linked worktrees that git has written down; of a copied repository not those that are the original's."""
    found: list[Path] = []
    for entry in sorted((common_dir / "worktrees").glob("*/gitdir")):
        with contextlib.suppress(OSError, UnicodeError):
            root = Path(os.path.realpath(Path(entry.parent, entry.read_text().strip()))).parent
            git = git_at(str(root))
            if git is None or git.common_dir == common_dir:
                found.append(root)
    return found
