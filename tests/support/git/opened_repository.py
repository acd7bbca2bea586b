"""Git's side of sync rounds, opened as a starting daemon opens it: first it looks whose repository that is."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

from thrum.model.paths import Layout
from thrum.sync.branch import verify_owner
from thrum.sync.repository import GitRepository


@contextlib.contextmanager
def open_repository(layout: Layout, environ: Mapping[str, str], *, remote: str = "origin") -> Generator[GitRepository]:
    """Raises UnsafeRepository before anything of another user's configuration is honoured."""
    assert layout.common_dir is not None
    verify_owner(layout.main_root, layout.common_dir, environ)
    repository = GitRepository(layout, layout.common_dir, environ, remote)
    try:
        yield repository
    finally:
        repository.close_packs()
