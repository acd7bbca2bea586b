"""What git says of a worktree, read from its files: no git process, no lock, no write."""

from __future__ import annotations

from pathlib import Path

from thrum.paths import find_git

_BRANCHES = "refs/heads/"


def branch_of(root: str) -> str:
    """The branch that a worktree is on; empty when its HEAD is detached or nothing can be read there."""
    git = find_git(Path(root))
    if git is None or git.bare:
        return ""
    try:
        head = (git.git_dir / "HEAD").read_text(errors="replace").strip()
    except OSError:
        return ""
    ref = head.removeprefix("ref:").strip()
    return ref.removeprefix(_BRANCHES) if head.startswith("ref:") and ref.startswith(_BRANCHES) else ""
