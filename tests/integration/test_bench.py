"""Every scenario of the bench runs, in its smallest form, and its table and history can be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import run
from bench.measure import Bench, Goal, Progress, Row, percentile, table


@pytest.mark.short(3)
@pytest.mark.parametrize("name", run.SCENARIOS)
def test_scenario_runs_in_its_smallest_form(name: str, tmp_path: Path) -> None:
    rows = run.SCENARIOS[name](Bench(tmp_path, "smoke", Progress(silent=True)))
    if not Path("/proc/self/status").exists() and name == "idle":
        return
    assert rows
    assert all(row.value >= 0 for row in rows)
    assert len({row.name for row in rows}) == len(rows)
    assert name in table({name: rows})
    line = json.dumps(run.record({name: rows}, quick=True))
    assert str(tmp_path) not in line
    assert not list(tmp_path.glob("thrum-bench-*"))


def test_a_goal_can_be_on_the_value_or_on_its_ratio_to_the_floor() -> None:
    ratio = Row("a", 1.2, "ms", floor=1.0, goal=Goal(at_most=1.3, of_ratio=True))
    rate = Row("b", 4_000, "/s", goal=Goal(at_least=5_000))
    assert ratio.met and rate.met is False and Row("c", 1.0, "ms").met is None
    shown = table({"x": [ratio, rate]})
    assert "≤ 1.3 ×" in shown and "4,000 /s" in shown and "MISSED" in shown


def test_a_percentile_is_one_of_the_samples() -> None:
    samples = [float(n) for n in range(100, 0, -1)]
    assert percentile(samples, 50) == 51
    assert percentile(samples, 99) == 100
    with pytest.raises(ValueError):
        percentile([], 50)
