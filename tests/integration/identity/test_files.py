"""Adoptions at the same time: one wins, and the identity file stays whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from thrum.identity.files import (
    Identity,
    Pid,
    identity_path,
    read_identity,
    update_identity,
    write_pid,
)
from thrum.identity.processes import Process

NOW = 1_770_141_730_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / ".thrum" / "identities"
    path.mkdir(parents=True)
    return path


def make(directory: Path, name: str = "furiosa", **fields: Any) -> Path:
    identity = Identity(name=name, role="implementer", module="auth", **fields)
    update_identity(directory, name, lambda _: identity, now_ms=NOW)
    return identity_path(directory, name)


def record(path: Path, expected: Pid, process: Process | None, owner: str | None = None) -> Pid:
    return write_pid(
        path, expected, process, runtime_of=lambda _: "claude", owner_of=lambda _: owner, now_ms=NOW + 1000
    )


@pytest.mark.spec("ID-40")
def test_of_twenty_that_adopt_at_once_one_wins(directory: Path) -> None:
    path = make(directory)
    results: list[Pid] = []

    def adopt(pid: int) -> None:
        results.append(record(path, Pid(), Process(pid, 1, f"boot/{pid}", 1000.0)))

    threads = [threading.Thread(target=adopt, args=(5000 + n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 20
    assert set(results) == {read_identity(path).owner}
