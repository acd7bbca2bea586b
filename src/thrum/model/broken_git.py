"""A `.thrum` that was set up beside git, whose `.git` is missing or broken: git's problem, to be fixed there.

Without `.git` nothing tells such a `.thrum` from one that an archive brought, so nothing in it is obeyed. But its
identities and notes are the user's, and no remedy may move them away. Source: identity.md §3 "Trust"; decision 0064.
"""

from __future__ import annotations

import os
from pathlib import Path

from thrum.model import files, trust
from thrum.model.dot_git import find_git, first_line, git_at, nowhere, upwards
from thrum.model.errors import NotARepository, in_shell


def check_git_above(start: Path) -> None:
    """`check_git_beside` for the directories from `start` up to the first repository."""
    for directory in upwards(os.path.realpath(start)):
        check_git_beside(Path(directory))
        if git_at(directory) is not None:
            return


def check_git_beside(root: Path) -> None:
    """Raise NotARepository for a root whose `.thrum` was set up beside a `.git` that is missing or broken now."""
    why = broken(root)
    if not why or not _was_in_git(root):
        return
    main, linked = _main_of(root)
    if main is None and not os.path.lexists(root / ".git") and find_git(root) is not None:
        return  # part of the repository around it, which may have brought it
    message = f"{root}/.git {why}: thrum was set up here in a git repository"
    if main is not None and linked:
        raise NotARepository(message, remedy=f"git -C {in_shell(main)} worktree repair", broken_git=why)
    if main is not None:
        remedy = f"git -C {in_shell(main)} worktree add PATH BRANCH; git no longer lists this worktree"
        raise NotARepository(message, remedy=remedy, broken_git=why)
    remedy = (
        f"put {root}/.git back (in a linked worktree: git worktree repair, from the main one);"
        f" is the repository gone for good, or did an archive bring this .thrum: move {root}/.thrum away yourself"
    )
    raise NotARepository(message, remedy=remedy, broken_git=why)


def broken(root: Path) -> str:
    """What is wrong with the `.git` of a directory that needs one; empty if nothing is, or if it leads to what is not
    there (`paths.check_leads`).
    """
    dot_git = root / ".git"
    git = git_at(str(root))
    if git is None:
        if not os.path.lexists(dot_git):
            return "is missing"
        found = files.status(dot_git)
        return "is empty" if found is not None and not found.st_size else "is not a git file (gitdir: PATH)"
    if nowhere(git) is not None or os.path.lexists(git.git_dir / "HEAD"):
        return ""
    return (
        "is not a git directory (no HEAD)"
        if git.git_dir == dot_git
        else f"leads to {git.git_dir}, which is not a git directory"
    )


def _was_in_git(root: Path) -> bool:
    """Whether the `.thrum` of a root, one that does not count, says that it was set up in a repository: an archive can
    say that too, so it gives no right to anything.
    """
    own = root / ".thrum"
    if not files.is_file(own / trust.MARK):
        return False
    git = git_at(str(root))
    keeps = (trust.keep_outside(own), *(() if git is None else (trust.keep_in_git(git.git_dir, git.common_dir),)))
    if any(record is not None and trust.has_mark(own, record.mark) for record in map(trust.read_record, keeps)):
        return False  # it counts
    # Outside git the daemon's own things lie in `var`.
    return files.is_file(own / "redirect") or not files.is_file(own / "var" / "daemon.json")


def _main_of(root: Path) -> tuple[Path | None, bool]:
    """The root that a redirect leads to, if its repository knows the mark beside that redirect; and whether git has
    this worktree written down there.
    """
    own = root / ".thrum"
    try:
        state_dir = Path(os.path.realpath(os.fsdecode(files.read_bytes(own / "redirect")).strip()))
    except (OSError, ValueError):
        return None, False
    git = git_at(str(state_dir.parent))
    if git is None or not any(trust.has_mark(own, mark) for mark in trust.marks_in(git.common_dir)):
        return None, False
    # Not `worktrees`: that leaves out what leads elsewhere.
    listed = sorted((git.common_dir / "worktrees").glob("*/gitdir"))
    written = (os.path.normpath(each.parent / (first_line(str(each)) or "")) for each in listed)
    return state_dir.parent, f"{root}/.git" in written
