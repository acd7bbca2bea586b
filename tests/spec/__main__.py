"""Prints each statement with its tests, which are collected and not run; status 1 if one has none."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest

from tests.spec import Collector, statements
from tests.support.places import ROOT


def main() -> int:
    collector = Collector()
    options = ["--collect-only", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main([*options, str(ROOT / "tests")], plugins=[collector])
    if status:
        print(said.getvalue(), file=sys.stderr)
        return int(status)
    without = 0
    for statement, words in statements().items():
        tests = collector.tests.get(statement, [])
        without += not tests
        print(f"{statement} {words}")
        for name in tests:
            print(f"    {name}")
        if not tests:
            print("    NO TEST")
    unknown = collector.tests.keys() - statements().keys()
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}")
        for statement in sorted(unknown):
            print("\n".join(f"    {name}" for name in collector.tests[statement]))
    print(f"{len(statements())} statements, {without} without a test")
    return 1 if without or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
