"""Statements of the specification, and the tests that show them. `python -m tests.spec` prints both (`make spec`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"
STATEMENTS = DATA / "identity_statements.txt"
"""identity.md §17, one statement a line; headings begin with #."""
PENDING = DATA / "identity_pending.txt"
"""What no test shows yet: `ID DATE REASON`, or `ID DATE part: REASON` when tests show the rest of it."""

_STATEMENT = re.compile(r"(ID-\d\d) (.+)")
_PENDING = re.compile(r"(ID-\d\d) \d{4}-\d\d-\d\d (part: )?(.+)")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def statements() -> dict[str, str]:
    """Every statement: id and words."""
    found = [_STATEMENT.fullmatch(line) for line in _lines(STATEMENTS)]
    return {match[1]: match[2] for match in found if match}


def pending() -> tuple[dict[str, str], dict[str, str]]:
    """Why statements have no test; and why others have none for a part of them."""
    whole: dict[str, str] = {}
    part: dict[str, str] = {}
    for line in _lines(PENDING):
        match = _PENDING.fullmatch(line)
        assert match, f"{PENDING.name}: no entry: {line}"
        (part if match[2] else whole)[match[1]] = match[3]
    return whole, part


class Collector:
    """A pytest plugin: the tests of each marked statement."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            # The cases of a parametrised test are one test.
            name = item.nodeid.partition("[")[0]
            for marker in item.iter_markers("spec"):
                for statement in marker.args:
                    names = self.tests.setdefault(statement, [])
                    if name not in names:
                        names.append(name)
