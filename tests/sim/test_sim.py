"""Seeds of the simulator: whatever goes wrong, at rest all clones agree and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.world import run_seed

_PORTION = 25


@pytest.mark.parametrize("first", range(0, 100, _PORTION))
def test_whatever_goes_wrong_all_clones_agree_at_last_and_nothing_is_lost(first: int) -> None:
    for seed in range(first, first + _PORTION):
        run_seed(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1_000, 6_000, _PORTION))
def test_and_in_thousands_of_seeds_more(first: int) -> None:
    for seed in range(first, first + _PORTION):
        run_seed(seed)


@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_comes_out_the_same_every_time(seed: int) -> None:
    traces = {
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", str(seed)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1
    assert "no violation" in traces.pop()
