"""Compacts a store and kills itself on the way: `python -m tests.support.store.compacting_child DIRECTORY STEP`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.store.compacting import drafts_of
from tests.support.store.opened import open_here
from thrum.model import files
from thrum.store import compaction

STEPS = (
    "written",
    "drafted",
    "caught up",
    "rows moved",
    "one renamed",
    "all renamed",
    "directories synced",
    "committed",
)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(module: Any, name: str, times: int = 1) -> None:
    """Die once a function of a module has been executed so often."""
    real: Callable[..., Any] = getattr(module, name)
    left = [times]

    def call(*args: Any, **named: Any) -> Any:
        result = real(*args, **named)
        left[0] -= 1
        if left[0] == 0:
            die()
        return result

    setattr(module, name, call)


def main(directory: Path, step: str) -> None:
    store = open_here(directory)
    if step == "written":
        after(compaction, "_write")
    drafts = drafts_of(store)
    assert len(drafts) > 1
    if step == "drafted":
        die()
    where: dict[str, tuple[Any, str, int]] = {
        "caught up": (compaction, "_catch_up", 1),
        "rows moved": (compaction, "_move_rows", 1),
        "one renamed": (os, "rename", 1),
        "all renamed": (os, "rename", len(drafts)),
        "directories synced": (files, "sync_directory", len({draft.path.parent for draft in drafts})),
    }
    if step in where:
        after(*where[step])
    store.writer.compact(drafts)
    die()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
