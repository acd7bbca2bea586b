"""What a measurement is: samples, medians, goals, rows of the table, and progress on the way there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def percentile(samples: Sequence[float], percent: float) -> float:
    """The sample below which `percent` of them lie. Raises ValueError without samples."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(samples: Sequence[float]) -> float:
    """The middle one of the samples."""
    return percentile(samples, 50)


@dataclass(frozen=True, slots=True)
class Goal:
    """What the issue asks of a figure: of the value itself, or of its ratio to the floor."""

    at_most: float | None = None
    at_least: float | None = None
    of_ratio: bool = False

    def holds(self, value: float, floor: float | None) -> bool:
        """Whether the figure reaches the goal."""
        figure = value / floor if self.of_ratio and floor else value
        return (self.at_most is None or figure <= self.at_most) and (self.at_least is None or figure >= self.at_least)

    def text(self) -> str:
        """As the table has it: `≤ 1.3 ×`."""
        sign, bound = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{sign} {number(bound or 0)}{' ×' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `name` is also the key in the history: it never changes its meaning."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    floor_name: str = ""
    goal: Goal | None = None
    more: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    """Further figures of the same samples, for the history and the remarks."""

    @property
    def ratio(self) -> float | None:
        """Value over floor; for rates below 1 is what is lost, for times above 1."""
        return self.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None without one."""
        return None if self.goal is None else self.goal.holds(self.value, self.floor)

    def document(self) -> dict[str, Any]:
        """For the history."""
        known: dict[str, Any] = {"value": rounded(self.value), "unit": self.unit}
        if self.floor is not None:
            known |= {"floor": rounded(self.floor), "floor_name": self.floor_name, "ratio": rounded(self.ratio or 0)}
        if self.goal is not None:
            known |= {"goal": self.goal.text(), "met": self.met}
        return known | {key: rounded(value) if isinstance(value, float) else value for key, value in self.more.items()}


def rounded(value: float) -> float:
    """Four digits are more than a shared machine can tell apart."""
    return float(f"{value:.4g}")


def number(value: float) -> str:
    """For people: 0.35, 16.4, 1,234."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """All rows as text, one block a scenario."""
    cells = [("", "measured", "floor", "ratio", "goal", "")]
    for scenario, found in rows.items():
        cells.append((scenario, "", "", "", "", ""))
        for row in found:
            floor = f"{number(row.floor)}  {row.floor_name}" if row.floor is not None else ""
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
            goal = row.goal.text() if row.goal else ""
            met = {None: "", True: "ok", False: "MISSED"}[row.met]
            cells.append((f"  {row.name}", f"{number(row.value)} {row.unit}", floor, ratio, goal, met))
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


class Progress:
    """What the bench is doing, on stderr: on a terminal one line that is overwritten, else a line now and then."""

    def __init__(self, silent: bool = False) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._said = 0.0
        self._width = 0

    def __call__(self, text: str) -> None:
        """Say where we are."""
        now = time.monotonic()
        if self._silent or (not self._terminal and now - self._said < 2.0):
            return
        self._said = now
        line = f"[{now - self._began:5.0f} s] {text}"
        end = "\r" if self._terminal else "\n"
        print(line.ljust(self._width if self._terminal else 0), end=end, file=sys.stderr, flush=True)
        self._width = len(line)

    def clear(self) -> None:
        """Leave no half line behind."""
        if self._terminal and not self._silent:
            print(" " * self._width, end="\r", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a scenario is given. `scale` picks its size: `smoke` for tests, `quick` for a look, `full` for the table."""

    directory: Path
    """Where repositories are made: on a real disk, for flushes to cost what they cost."""
    scale: str
    say: Progress

    def pick(self, smoke: Any, quick: Any, full: Any) -> Any:
        """The size for this run."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.scale]


Scenario = Callable[[Bench], list[Row]]


def alternate(
    rounds: int, parts: Mapping[str, Callable[[], float]], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Samples of each part, taken in turns, so that whatever else the machine does meets all of them alike.

    The first of several rounds warms up and does not count.
    """
    samples: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(0 if rounds > 1 else 1, rounds + 1):
        for name, part in parts.items():
            sample = part()
            if turn:
                samples[name].append(sample)
        say(f"round {turn}/{rounds}")
    return samples


def cpu_seconds(pid: int) -> float | None:
    """CPU time that a process has used so far, in all its threads; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
