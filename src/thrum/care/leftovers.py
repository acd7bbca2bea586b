"""What a killed process was about to put in place, taken away at the next start: it may hold messages."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from thrum import events
from thrum.identity.notes import roots
from thrum.paths import Places

_TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]+\.tmp")
"""What `files.atomic_write` and others name a file that is not in its place yet."""
AGE_MS: Final = 3_600_000
"""A younger one may be another process's, which is about to put it in place."""


def remove_leftovers(places: Places, now_ms: int) -> None:
    """Take away temporary files in thrum's directories that nobody wrote to for an hour. Whoever holds the daemon's
    lock calls it. What can't be looked at or removed stays: nothing depends on it.
    """
    directories = {
        places.state_dir,
        places.var_dir,
        places.thrum_sync_dir,
        places.branch_dir,
        places.branch_dir / events.MESSAGES_DIR,
        places.identities_dir,
        places.context_dir,
    }
    for root in roots(places):
        directories |= {root / ".thrum", root / ".thrum" / "identities", root / ".thrum" / "context"}
    for directory in directories:
        with suppress(OSError):
            _remove_old(directory, now_ms - AGE_MS)


def _remove_old(directory: Path, before_ms: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(descriptor):
            if not _TEMPORARY.fullmatch(name):
                continue
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode) and status.st_mtime_ns < before_ms * 1_000_000:
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
