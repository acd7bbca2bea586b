"""Changes of the settings by several processes at once."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from thrum.model.config import load_config, update_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / ".thrum"
    directory.mkdir()
    return directory / "config.json"


def _count(file: Path) -> None:
    def up(config: dict[str, Any]) -> None:
        config["n"] = config.get("n", 0) + 1

    for _ in range(20):
        update_config(file, file.parent / "config.lock", up)


def test_no_change_of_two_at_once_is_lost(file: Path) -> None:
    context = get_context("spawn")
    workers = [context.Process(target=_count, args=(file,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert load_config(file).raw == {"n": 60}
