"""The branches of a repository, read from its files."""

from __future__ import annotations

from pathlib import Path

from thrum.git._ref_files import HEADS, Refs
from thrum.model.dot_git import find_git


def branch_of(root: str) -> str:
    """The branch that a worktree is on; empty when its HEAD is detached or nothing can be read there."""
    git = find_git(Path(root))
    if git is None or git.bare:
        return ""
    return Refs(git.common_dir).head(git.git_dir).branch


def branch_exists(common_dir: Path | None, branch: str) -> bool:
    """Whether a repository has that branch. Outside of git every branch is as good as any other."""
    return common_dir is None or bool(Refs(common_dir).object_id(HEADS + branch))
