"""The rule that makes git ignore `.thrum` (cli.md 3.1)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from thrum.model.errors import StoreFailed
from thrum.model.files import atomic_write, read_bytes, status, sync_directory

IGNORE_RULE = ".thrum/"
_SAME_RULES = {".thrum/", ".thrum", "/.thrum/", "/.thrum"}


def is_ignored(path: Path) -> bool:
    """Whether a file of ignore rules has ours. Raises StoreFailed if it can't be read."""
    return any(os.fsdecode(line).strip() in _SAME_RULES for line in _read(_real(path)).splitlines())


def add_ignore_rule(path: Path) -> None:
    """Append the rule, keeping the file's mode, its line ends, and what it links to. Raises OSError, StoreFailed."""
    path = _real(path)
    if not path.parent.is_dir():
        path.parent.mkdir()
        sync_directory(path.parent.parent)
    old, mode = _read(path), 0o644
    if (found := status(path)) is not None:
        mode = stat.S_IMODE(found.st_mode)
    end = b"\r\n" if b"\r\n" in old else b"\n"
    gap = end if old and not old.endswith(b"\n") else b""
    atomic_write(path, old + gap + IGNORE_RULE.encode() + end, mode=mode)


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
