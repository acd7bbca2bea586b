"""Temporary files of killed processes, removed at the next start: they may contain messages."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from thrum.model import events, files
from thrum.model.notes import roots
from thrum.model.paths import Layout, keep_of
from thrum.rpc import sockets
from thrum.sync.worktree import find_admin_dir

_TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]+\.tmp")
"""What `files.atomic_write` and others name a file that is not in its place yet."""
AGE_MS: Final = 3_600_000
"""A younger one may be another process's, which is about to put it in place."""


def remove_leftovers(layout: Layout, now_ms: int) -> None:
    """Remove temporary files that were not written to for an hour, wherever thrum puts files in place. The caller
    holds the daemon's lock. What can't be looked at or removed stays: nothing depends on it.
    """
    directories = {
        layout.state_dir,
        layout.var_dir,
        layout.state_dir / "archive",
        layout.trusted_dir,
        layout.thrum_sync_dir,
        layout.branch_dir,
        layout.branch_dir / events.MESSAGES_DIR,
        layout.identities_dir,
        layout.context_dir,
    }
    for root in roots(layout):
        own = root / ".thrum"
        directories |= {own, own / "identities", own / "context", keep_of(root).record.parent}
    if layout.common_dir is not None:
        directories.add(layout.common_dir / "info")  # `init` writes its ignore rule there
        if admin_dir := find_admin_dir(layout.common_dir, layout.branch_dir):
            directories.add(admin_dir)
    for directory in directories:
        with suppress(OSError):
            _remove_old(directory, now_ms - AGE_MS)
    sockets.remove_short_left(now_ms - AGE_MS)


def _remove_old(directory: Path, before_ms: int) -> None:
    descriptor = files.open_nofollow(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(descriptor):
            if not _TEMPORARY.fullmatch(name):
                continue
            status = files.lstat(name, dir_fd=descriptor)
            if not stat.S_ISDIR(status.st_mode) and status.st_mtime_ns < before_ms * 1_000_000:
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
