"""Compacting a store that is open without an event loop."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.store.opened import OWN
from thrum.model.clock import format_ms
from thrum.store.compaction import Draft, Drafter, discard
from thrum.store.recovery import Opened

FAR = format_ms(4_000_000_000_000)
"""Nothing in a test is ahead of it."""


def drafts_of(store: Opened, files: Iterable[str] = (), ahead: str = FAR) -> list[Draft]:
    """Drafts of these journals, or of all."""
    with Drafter(store.path, store.journals, OWN, ahead) as drafter:
        found = [drafter.draft(file) for file in files or store.journals.names()]
    return [draft for draft in found if draft is not None]


def compact(store: Opened, *files: str, ahead: str = FAR) -> int:
    """Compact now; how many bytes went."""
    drafts = drafts_of(store, files, ahead)
    try:
        return store.writer.compact(drafts)
    finally:
        discard(drafts)
