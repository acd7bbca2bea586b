"""Starts at the same time agree on one id of the daemon."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from thrum.identity.daemon_id import Bootstrapped, bootstrap
from thrum.model.ids import Ulids
from thrum.model.paths import Layout

NOW = 1_770_141_730_000


ORIGIN = "https://github.com/user/repo.git"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "app"
    (root / ".thrum").mkdir(parents=True)
    (root / ".git" / "thrum-sync").mkdir(parents=True)
    return Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")


def start(layout: Layout, *, hostname: str = "laptop", origin: str = ORIGIN, now_ms: int = NOW) -> Bootstrapped:
    source = Ulids()
    return bootstrap(layout, new_ulid=lambda: source.at(now_ms), now_ms=now_ms, hostname=hostname, origin_url=origin)


@pytest.mark.spec("ID-76")
def test_two_at_once_give_one_id(layout: Layout) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(start(layout).identity.daemon_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8 and len(set(found)) == 1
