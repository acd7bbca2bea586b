"""What the end-to-end tests share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.callers import Desk, Desks
from tests.support.daemon.repo import Repo
from thrum.model.errors import ThrumError


@pytest.fixture
def desk(repo: Repo) -> Iterator[Desks]:
    """Opens desks in the test's repository, below fake runtimes; closed at the end, and the guards as
    they were.
    """
    opened: list[Desk] = []

    def make(at: Path, *runtimes: str, terminal: bool = False, **env: str) -> Desk:
        opened.append(Desk(repo, at, *runtimes, terminal=terminal, **env))
        return opened[-1]

    yield make
    for each in opened:
        with contextlib.suppress(BrokenPipeError):
            each.close()
    with contextlib.suppress(ThrumError):
        repo.guards()
