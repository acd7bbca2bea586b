"""What is already at the path of a `.thrum` when one is to be set up there, and was not made by thrum.

It is moved away unread, or, if a person says so, used as it is (identity.md §3 "Trust", cli.md 3.1).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from thrum.model import files, trust
from thrum.model.clock import format_ms
from thrum.model.errors import BadRedirect, StoreFailed
from thrum.model.files import sync_directory
from thrum.model.paths import counts, keep_of, layout_of, take_over


def is_foreign(root: Path) -> bool:
    """Whether something lies in the place of a root's `.thrum` that is not of thrum's making there."""
    own = root / ".thrum"
    if not os.path.lexists(own) or counts(root):
        return False
    # What a user has of thrum's in the home directory is there before it is a repository, and is no state.
    return own != Path.home() / ".thrum" or any(os.path.lexists(own / name) for name in ("config.json", "redirect"))


def keep(root: Path, common_dir: Path | None) -> None:
    """Let the `.thrum` of a root count as it is. Raises StoreFailed, BadRedirect."""
    own = root / ".thrum"
    if not files.is_directory(own) or counts(root):
        return
    try:
        target = os.fsdecode(files.read_bytes(own / "redirect")).strip() if files.is_file(own / "redirect") else ""
        state_dir = Path(os.path.realpath(target)) if target else own
        if not state_dir.is_dir() or state_dir.name != ".thrum":
            raise BadRedirect(f"redirect target does not exist: {own}/redirect points to {target}")
        if common_dir is not None:
            take_over(state_dir, common_dir, tracked=True, was=_was(common_dir))
        trust.write_marks(own, keep_of(root), str(state_dir) if target else "")
        layout = layout_of(state_dir.parent, state_dir)
        if files.is_file(layout.config_copy) and not files.is_file(layout.config_file):
            files.atomic_write(layout.config_file, files.read_bytes(layout.config_copy))
    except OSError as error:
        raise StoreFailed(
            f"could not write {error.filename or own}: {(error.strerror or str(error)).lower()}"
        ) from error


def _was(common_dir: Path) -> Path | None:
    """The state directory that git's directory names: another one if the repository was moved."""
    try:
        kept: Any = json.loads(files.read_bytes(common_dir / "thrum-sync" / "daemon.json"))
        return Path(os.path.realpath(kept["state_dir"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def quarantined(own: Path, now_ms: int) -> Path:
    """The name under which what is found there is kept."""
    utc = format_ms(now_ms).translate(str.maketrans("", "", "-:")).replace(".", "")
    return own.with_name(f"{own.name}.found-{utc}")


def move_away(own: Path, now_ms: int) -> None:
    """Move it away as it is, a link as a link."""
    if os.path.lexists(own):
        os.rename(own, quarantined(own, now_ms))
        sync_directory(own.parent)
