"""Who can read a remote. (Placeholder until helper h3's module lands: replace it wholly.)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from thrum.paths import Places
from thrum.sync.ports import RemoteInfo

Readers = Literal["private", "public", "unknown"]


def who_can_read(info: RemoteInfo, environ: Mapping[str, str]) -> Readers:
    """`private` for a directory on this machine, else `unknown`."""
    return "private" if info.path else "unknown"


def is_confirmed(places: Places, url: str) -> bool:
    """Whether the user has said that this remote is meant."""
    return (places.thrum_sync_dir / "remotes.json").exists() and bool(url)


def confirm(places: Places, url: str) -> None:
    """Remember it."""
    (places.thrum_sync_dir / "remotes.json").write_text(url)
