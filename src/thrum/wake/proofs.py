"""Proofs that found no daemon: empty files, each named by a token, in the state directory's `var/proofs/`.

A hook leaves one, the daemon reads them at start and before any second door (wake.md §4). Blocking, but a directory
that is nearly always empty.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from thrum.model import files
from thrum.model.attempt_ids import tokens_in


def leave(directory: Path, token: str) -> None:
    """Note that a model was given `token`. Raises OSError, and ValueError for what is no token."""
    if tokens_in(token) != (token,):
        raise ValueError("not a token")
    files.ensure_private_dir(directory)
    os.close(files.open_file(directory / token, os.O_WRONLY | os.O_CREAT))


def left(directory: Path) -> list[str]:
    """The tokens that were left; empty where there is no such directory, or it can't be read."""
    try:
        names = files.names_in(directory)
    except OSError:
        return []
    return sorted(name for name in names if tokens_in(name) == (name,))


def remove(directory: Path, token: str) -> None:
    """Forget one, once its receipts are on disk."""
    with contextlib.suppress(OSError):
        files.remove(directory / token)
