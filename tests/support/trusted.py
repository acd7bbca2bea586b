"""What `init` would have done for a `.thrum` that a test has made by hand, and what a person does after editing it."""

from __future__ import annotations

from pathlib import Path

from thrum import accepting, trust
from thrum.paths import Places, keep_of


def trust_here(root: Path, redirect: Path | None = None) -> Path:
    """Let the `.thrum` of a root count; `redirect`: where it may lead. Returns it."""
    own = root.resolve() / ".thrum"
    trust.write_marks(own, keep_of(own.parent), str(redirect) if redirect else "")
    return own


def accept(places: Places) -> None:
    """Let count what a test wrote into the settings that people edit."""
    accepting.accept(places, accepting.look(places).changed)
