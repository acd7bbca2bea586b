"""The rule by which git passes `.thrum` over (cli.md 3.1)."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from thrum.files import atomic_write, sync_directory

IGNORE_RULE = ".thrum/"
_SAME_RULES = {".thrum/", ".thrum", "/.thrum/", "/.thrum"}


def is_ignored(path: Path) -> bool:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return False
    return any(os.fsdecode(line).strip() in _SAME_RULES for line in lines)


def add_ignore_rule(path: Path) -> None:
    """Append the rule, keeping the file's mode, its line ends, and what it links to."""
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        path.parent.mkdir()
        sync_directory(path.parent.parent)
    old, mode = b"", 0o644
    with contextlib.suppress(FileNotFoundError):
        old, mode = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    end = b"\r\n" if b"\r\n" in old else b"\n"
    gap = end if old and not old.endswith(b"\n") else b""
    atomic_write(path, old + gap + IGNORE_RULE.encode() + end, mode=mode)
