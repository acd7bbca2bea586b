"""Lines in a file of git's ignore rules, put in and taken out; the rest stays byte for byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from thrum.git.runner import run_git
from thrum.model.errors import StoreFailed
from thrum.model.files import atomic_write, read_bytes, status, sync_directory


def rules_in(path: Path) -> list[str]:
    """Its rules, without blanks around them; of a file that is not there none. Raises StoreFailed."""
    return [os.fsdecode(line).strip() for line in _read(_real(path)).splitlines()]


def add_rule(path: Path, rule: str) -> None:
    """Append a rule, keeping the file's mode, its line ends, and what it links to. Raises OSError, StoreFailed."""
    path = _real(path)
    if not path.parent.is_dir():
        path.parent.mkdir()
        sync_directory(path.parent.parent)
    old, mode = _read(path), 0o644
    if (found := status(path)) is not None:
        mode = stat.S_IMODE(found.st_mode)
    end = b"\r\n" if b"\r\n" in old else b"\n"
    gap = end if old and not old.endswith(b"\n") else b""
    atomic_write(path, old + gap + os.fsencode(rule) + end, mode=mode)


def remove_rule(path: Path, rule: str) -> bool:
    """Take every line out that is this rule; whether there was one. Raises OSError."""
    path = Path(os.path.realpath(path))
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return False
    rest = [line for line in lines if line.strip() != os.fsencode(rule)]
    if len(rest) == len(lines):
        return False
    atomic_write(path, b"".join(rest), mode=stat.S_IMODE(path.stat().st_mode))
    return True


def is_ignored(root: Path, name: str, environ: Mapping[str, str]) -> bool:
    """Whether git would leave a file of a worktree out, by whatever rule. Blocks."""
    done = run_git(["-C", str(root), "check-ignore", "--quiet", "--", name], environ)
    return done is not None and done.returncode == 0


def is_tracked(root: Path, name: str, environ: Mapping[str, str]) -> bool:
    """Whether git tracks a file of a worktree. Blocks."""
    words = ["-C", str(root), "--literal-pathspecs", "ls-files", "--error-unmatch", "--", name]
    done = run_git(words, environ)
    return done is not None and done.returncode == 0


def _real(path: Path) -> Path:
    """Git's own file may be a link of the user's. A `.gitignore` comes with the repository, and may lead anywhere."""
    return path if path.name == ".gitignore" else Path(os.path.realpath(path))


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreFailed(f"cannot read {path}: {reason.lower()}", remedy="fix it, or leave --gitignore out") from error
