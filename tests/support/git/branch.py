"""Commits on the branch a-sync that thrum has not made."""

from __future__ import annotations

from tests.support.daemon.repo import Repo
from tests.support.git.repository import put_commit


def commit_journals(repo: Repo, lines: dict[str, str]) -> str:
    """Put a commit with these journals on the branch, as another program would; its id."""
    commit = put_commit(repo.main, repo.top / "index", lines, "a-sync")
    repo.git("update-ref", "refs/heads/a-sync", commit)
    return commit
