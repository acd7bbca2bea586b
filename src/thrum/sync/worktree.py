"""The linked worktree of the branch `a-sync`, by git's own files (events.md §1).

It is real and locked, and nothing is checked out in it: its index holds the tip's tree, each entry skip-worktree and
assume-unchanged, and its `.gitignore` is `*`. So git neither reads nor writes the journals there.

Its HEAD is the tip itself, not the branch: of a branch that a worktree is on, a push from outside rewrites the files
(`receive.denyCurrentBranch=updateInstead`) or is refused, and a fetch that names it (a mirror's) fails.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Final

from thrum.git.refs import BRANCH, REF
from thrum.model.errors import NotAvailable, in_shell
from thrum.model.files import atomic_write, sync_directory

FIRST: Final = "90843369767a3f41f94cd357d4493648e1154213"
"""The commit that the branch begins with, alike in every clone whose objects have SHA-1 names."""
LOCK_REASON: Final = "thrum keeps the messages of this repository here"


def ensure_worktree(common_dir: Path, folder: Path, tip: str, likely: Path | None = None) -> tuple[Path, bool]:
    """Make or fix what ties the folder and git's record of it together: that record, and whether it is new.

    `tip`: the commit whose tree its index holds. `likely`: the record that it was the last time, so that not all of
    them are read.
    """
    is_likely = likely is not None and linked_worktree(likely) == folder
    admin_dir = likely if is_likely else find_admin_dir(common_dir, folder)
    made = admin_dir is None
    if admin_dir is None:
        admin_dir = _make_admin_dir(common_dir)
    # First the lock: from here on no `git worktree prune` takes it away.
    write_if_other(admin_dir / "locked", f"{LOCK_REASON}\n".encode(), 0o644)
    write_if_other(admin_dir / "commondir", b"../..\n", 0o644)
    # Not synced, as the index is not: git does without it, and the next start fixes it.
    write_if_other(admin_dir / "HEAD", f"{tip}\n".encode(), 0o644, durable=made)
    if linked_worktree(admin_dir) != folder:
        atomic_write(admin_dir / "gitdir", os.fsencode(f"{folder / '.git'}\n"), mode=0o644)
    target = read_text(folder / ".git").removeprefix("gitdir:").strip()
    if not target or os.path.realpath(folder / target) != str(admin_dir):
        atomic_write(folder / ".git", os.fsencode(f"gitdir: {admin_dir}\n"), mode=0o600)
    return admin_dir, made


def on_branch(common_dir: Path, folder: Path) -> Path | None:
    """Where the branch is checked out: a worktree that is not ours. None: nowhere."""
    found = [each for each in (common_dir, *admin_dirs(common_dir)) if read_text(each / "HEAD") == f"ref: {REF}"]
    ours = find_admin_dir(common_dir, folder) if found else None
    for git_dir in found:
        if git_dir != ours:
            return common_dir.parent if git_dir == common_dir else linked_worktree(git_dir) or git_dir
    return None


def checked_out(where: Path) -> NotAvailable:
    """Thrum does not move a branch that a user is on: their index and files would not agree with it any more."""
    return NotAvailable(
        f"branch {BRANCH} is checked out in {where}; it belongs to thrum",
        remedy=f"git -C {in_shell(where)} switch OTHER_BRANCH, then repeat the command",
    )


def admin_dirs(common_dir: Path) -> list[Path]:
    """Git's records of all linked worktrees."""
    try:
        return sorted(path for path in (common_dir / "worktrees").iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def find_admin_dir(common_dir: Path, folder: Path) -> Path | None:
    """Git's record of our worktree: the one that names the folder; in a moved repository the one that we locked."""
    records = admin_dirs(common_dir)
    named = [path for path in records if linked_worktree(path) == folder]
    return next(iter(named + [path for path in records if read_text(path / "locked") == LOCK_REASON]), None)


def _make_admin_dir(common_dir: Path) -> Path:
    """A directory in git's `worktrees/`, by git's rule for names: `a-sync`, `a-sync1`, …"""
    parent = common_dir / "worktrees"
    parent.mkdir(exist_ok=True)
    for number in itertools.count():
        path = parent / (f"{BRANCH}{number}" if number else BRANCH)
        try:
            path.mkdir()
        except FileExistsError:
            # Without a file of git's it is what a killed call began here.
            if all(name.startswith(".") for name in os.listdir(path)):
                return path
            continue
        sync_directory(parent)
        return path
    raise AssertionError("numbers don't end")


def linked_worktree(admin_dir: Path) -> Path | None:
    """The directory that a record in `worktrees/` says it belongs to."""
    text = read_text(admin_dir / "gitdir")
    return Path(os.path.realpath(os.path.dirname(admin_dir / text))) if text else None


def read_text(path: Path) -> str:
    """A small file's text without blanks around it; `""` if it isn't there."""
    try:
        return os.fsdecode(path.read_bytes()).strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""


def write_if_other(path: Path, data: bytes, mode: int, *, durable: bool = True) -> None:
    """Replace a file by `data` unless it holds that already."""
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    atomic_write(path, data, mode=mode, durable=durable)


def write_index(admin_dir: Path, index: bytes, *, durable: bool = True) -> None:
    """Replace our worktree's index. It names the agents that spoke: only those that can read the objects can read
    it."""
    path, objects = admin_dir / "index", admin_dir.parents[1] / "objects"
    mode = 0o600 | objects.stat().st_mode & 0o044
    write_if_other(path, index, mode, durable=durable)
    if path.stat().st_mode & 0o077 & ~mode:
        path.chmod(mode)
