"""Ids made in many threads, and what importing them loads."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from thrum.model import ids


@pytest.mark.spec("ID-03")
def test_ulids_of_many_threads_are_distinct_and_rise_in_each() -> None:
    source = ids.Ulids()
    made: list[list[str]] = [[] for _ in range(8)]

    def make(mine: list[str], start: int) -> None:
        for i in range(10_000):
            mine.append(source.at(1_700_000_000_000 + start + i // 7))

    threads = [threading.Thread(target=make, args=(mine, n)) for n, mine in enumerate(made)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for mine in made:
        assert mine == sorted(mine)
    assert len({ulid for mine in made for ulid in mine}) == 80_000
    assert all(ids.is_id("evt", f"evt_{ulid}") for ulid in made[0])


def test_importing_ids_loads_nothing_heavy() -> None:
    code = "import sys, thrum.model.ids; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"trio", "msgspec", "ulid", "hashlib", "psutil", "zmq"} & set(loaded)
