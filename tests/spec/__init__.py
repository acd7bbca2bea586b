"""Statements of the specification, and the tests that show them. `python -m tests.spec` prints both (`make spec`)."""

from __future__ import annotations

import re

import pytest

from tests.support.places import DATA

STATEMENTS = DATA / "identity_statements.txt"
"""identity.md §17, one statement a line; headings begin with #."""

_STATEMENT = re.compile(r"(ID-\d\d) (.+)")


def statements() -> dict[str, str]:
    """Every statement: id and words."""
    found = [_STATEMENT.fullmatch(line) for line in STATEMENTS.read_text(encoding="utf-8").splitlines()]
    return {match[1]: match[2] for match in found if match}


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
