"""What `init` would have done for a `.thrum` that a test has made by hand, and what a person does after editing it."""

from __future__ import annotations

from pathlib import Path

from thrum.model import config_acceptance, trust
from thrum.model.paths import Layout, keep_of


def trust_here(root: Path, redirect: Path | None = None) -> Path:
    """Let the `.thrum` of a root count; `redirect`: where it may lead. Returns it."""
    own = root.resolve() / ".thrum"
    trust.write_marks(own, keep_of(own.parent), str(redirect) if redirect else "")
    return own


def accept(layout: Layout) -> None:
    """Let count what a test wrote into the settings that people edit."""
    config_acceptance.accept(layout, config_acceptance.look(layout).changed)
