"""Every statement of the identity specification is shown by a test."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.spec import statements
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def printed() -> str:
    """What `make spec` prints."""
    return subprocess.run([sys.executable, "-m", "tests.spec"], cwd=ROOT, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def shown(printed: str) -> dict[str, list[str]]:
    """The tests of each statement."""
    tests: dict[str, list[str]] = {}
    statement = ""
    for line in printed.splitlines():
        if not line.startswith(" "):
            statement = line.partition(" ")[0]
        elif line.startswith("    tests/"):
            tests.setdefault(statement, []).append(line.strip())
    return tests


def test_the_list_is_whole() -> None:
    assert list(statements()) == [f"ID-{number:02}" for number in range(1, 81)]


def test_each_statement_has_a_test(shown: dict[str, list[str]]) -> None:
    assert [statement for statement in statements() if statement not in shown] == []


def test_the_list_says_of_each_statement_what_shows_it(printed: str, shown: dict[str, list[str]]) -> None:
    for statement, words in statements().items():
        assert f"\n{statement} {words}\n" in f"\n{printed}"
    assert "tests/unit/model/test_ids.py::test_every_spelling_of_a_remote_gives_one_repository_id" in shown["ID-01"]
    assert "unknown:" not in shown, shown.get("unknown:")
