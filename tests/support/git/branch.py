"""Commits on the branch a-sync that thrum has not made."""

from __future__ import annotations

import os
import subprocess

from tests.support.daemon.repo import Repo


def commit_journals(repo: Repo, lines: dict[str, str]) -> str:
    """Put a commit with these journals on the branch, as another program would; its id."""
    environ = {**os.environ, "GIT_INDEX_FILE": str(repo.top / "index")}

    def git(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["git", *words], cwd=repo.main, input=stdin, env=environ, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    for name, text in lines.items():
        git("update-index", "--add", "--cacheinfo", f"100644,{git('hash-object', '-w', '--stdin', stdin=text)},{name}")
    commit = git("commit-tree", git("write-tree"), "-p", "a-sync", "-m", "sync: by hand")
    git("update-ref", "refs/heads/a-sync", commit)
    return commit
