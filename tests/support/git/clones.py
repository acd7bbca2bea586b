"""Clones with thrum's branch and a bare repository where they meet, for tests of git's side of the sync."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from thrum.git.trees import TreeEntry
from thrum.model.paths import Layout
from thrum.sync.branch import ensure_branch
from thrum.sync.repository import GitRepository

SECONDS_SINCE_1970 = 1_770_000_000


def git(
    cwd: Path, *arguments: str, stdin: bytes = b"", check: bool = True, environ: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, input=stdin, capture_output=True, check=False, env=environ and dict(environ)
    )
    assert not check or done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def layout_of(root: Path) -> Layout:
    common = Path(os.path.realpath(root / git(root, "rev-parse", "--git-common-dir")))
    return Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=common)


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
