"""The constants of all methods: one each, answered by somebody, and loaded by family."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.places import ROOT
from thrum.model.methods.method import Method
from thrum.model.methods.table import METHODS

FAMILIES = sorted(ROOT.glob("src/thrum/model/methods/*.py"))


def _constant(name: str) -> str:
    """`agent.listContext` -> `AGENT_LIST_CONTEXT`."""
    return re.sub(r"[.-]", "_", re.sub(r"([a-z])([A-Z])", r"\1_\2", name)).upper()


@pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.name)
def test_a_family_loads_no_other_and_names_its_constants_as_the_wire_does(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    if path.name != "table.py":
        assert {name for name in imported if name.startswith("thrum.model.methods")} <= {"thrum.model.methods.method"}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and isinstance(node.target, ast.Name):
            name = next(ast.literal_eval(each.value) for each in node.value.keywords if each.arg == "name")
            assert node.target.id == _constant(name)
            assert isinstance(METHODS[name], Method)


def test_a_name_is_one_constants_alone() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in FAMILIES)
    assert text.count("Final = Method(") == len(METHODS)
