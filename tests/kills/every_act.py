"""All acts, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.kills.acts import Compaction, Edit, Purge, Restore, Rotation, Sync
from tests.kills.harness import Act
from tests.kills.renames import Rename

ACTS: dict[str, Callable[[Path], Act]] = {
    each.name: each for each in (Purge, Compaction, Edit, Restore, Rotation, Sync, Rename)
}
