"""`kill -9` during purge, compaction, `backup restore`, edit, key rotation, sync and a rename: nothing answered is lost
or there twice, and the next one completes. What is looked at after a kill stands in `acts.py` and `life.check_sound`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kills.every_act import ACTS
from tests.support.places import ROOT


def kill(act: str, kills: int, seed: int) -> None:
    """In a process of its own: it forks, and has one thread."""
    command = [sys.executable, "-m", "tests.kills", "--act", act, "--kills", str(kills), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


def test_a_few_kills_of_each_act_at_any_moment_harm_nothing() -> None:
    kill("all", 2, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("act", ACTS)
def test_a_thousand_kills_at_any_moment_harm_nothing(act: str) -> None:
    kill(act, 1_000, seed=2)
