"""Clones with thrum's branch and a bare repository where they meet, for tests of git's side of the sync."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.support.git.repository import git, layout_of
from thrum.git.trees import TreeEntry
from thrum.model.paths import Layout
from thrum.sync.branch import ensure_branch
from thrum.sync.repository import GitRepository

SECONDS_SINCE_1970 = 1_770_000_000


def make_origin(top: Path, *options: str) -> Path:
    """A bare repository with a first commit on `main`."""
    origin = top / "origin.git"
    git(top, "init", "-q", "--bare", *options, str(origin))
    tree = git(origin, "hash-object", "-w", "-t", "tree", "--stdin")
    first = git(origin, "commit-tree", tree, "-m", "first")
    git(origin, "update-ref", "refs/heads/main", first)
    return origin


def make_clone(top: Path, name: str, url: str, *options: str) -> Layout:
    """A clone with thrum's branch and its worktree."""
    git(top, "clone", "-q", *options, url, name)
    layout = layout_of(Path(os.path.realpath(top / name)))
    ensure_branch(layout, os.environ)
    return layout


def write(repo: GitRepository, files: Mapping[str, bytes], message: str = "sync: 1 message") -> str:
    """Commit files onto our branch, beside what is there: the new tip."""
    tip = repo.tip()
    entries = repo.files(tip)
    for path, data in files.items():
        entries[path] = TreeEntry(os.fsencode(path), 0o100644, repo.add_blob(data))
    commit = repo.add_commit(entries.values(), tip, message, SECONDS_SINCE_1970)
    assert repo.move(tip, commit)
    return commit


def contents(repo: GitRepository, commit: str) -> dict[str, bytes]:
    return {path: repo.blob(entry.object_id) for path, entry in repo.files(commit).items()}


def sync(repo: GitRepository) -> str:
    """What a round does when only one side has something new: the tip that both are at."""
    there = repo.fetch()
    if there and there != repo.tip() and repo.descends(there, repo.tip()):
        assert repo.move(repo.tip(), there)
    assert repo.push(repo.tip())
    return repo.tip()
