"""The one way in which tests run git and make repositories."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from thrum.model.paths import Layout


def git(
    cwd: Path,
    *words: str | Path,
    stdin: bytes = b"",
    check: bool = True,
    environ: Mapping[str, str] | None = None,
) -> str:
    """What git prints, without the white space around it."""
    return git_output(cwd, *words, stdin=stdin, check=check, environ=environ).strip()


def git_output(
    cwd: Path,
    *words: str | Path,
    stdin: bytes = b"",
    check: bool = True,
    environ: Mapping[str, str] | None = None,
) -> str:
    """What git prints, to the byte. A failure is a `CalledProcessError` with both outputs, which it also shows."""
    argv = ["git", *map(str, words)]
    done = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, env=environ and dict(environ))
    out, err = (each.decode("utf-8", "surrogateescape") for each in (done.stdout, done.stderr))
    if check and done.returncode:
        error = subprocess.CalledProcessError(done.returncode, argv, out, err)
        error.add_note(err)
        raise error
    return out


def make_repository(root: Path, files: Mapping[str, str] | None = None, *options: str, message: str = "first") -> Path:
    """A repository with one commit, of these files; `options` are those of `git init`."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", *options)
    commit(root, files or {}, message)
    return root


def commit(root: Path, files: Mapping[str, str], message: str) -> str:
    """The id of a commit of these files alone."""
    write_files(root, files)
    if files:
        git(root, "add", "--", *files)
    git(root, "commit", "-q", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")


def write_files(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def put_commit(root: Path, index: Path, files: Mapping[str, str], *parents: str, message: str = "sync: by hand") -> str:
    """The id of a commit of these files and what `index` has already, beside the work tree and on no branch."""
    environ = {**os.environ, "GIT_INDEX_FILE": str(index)}
    blobs = {name: git(root, "hash-object", "-w", "--stdin", stdin=text.encode()) for name, text in files.items()}
    lines = "".join(f"100644 {blob}\t{name}\n" for name, blob in blobs.items())
    git(root, "update-index", "--add", "--index-info", stdin=lines.encode(), environ=environ)
    tree = git(root, "write-tree", environ=environ)
    return git(root, "commit-tree", tree, *(word for parent in parents for word in ("-p", parent)), "-m", message)


def layout_of(root: Path) -> Layout:
    """Where thrum's files of a repository lie, by what git says."""
    common = Path(os.path.realpath(root / git(root, "rev-parse", "--git-common-dir")))
    return Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=common)
