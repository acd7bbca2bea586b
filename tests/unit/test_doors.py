"""The rules of the house that import-linter cannot see: sizes, and what else has one home."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

SOURCE = ROOT / "src" / "thrum"
MODULES = sorted(SOURCE.rglob("*.py"))
LINES_MAX = 500

HOMES: dict[str, tuple[str, ...]] = {
    "import zmq": ("bus/socket.py",),
    "import dulwich": ("git/reader.py",),
    "import psutil": ("identity/processes.py",),
    "import nacl": ("identity/signing.py",),
    "import wsproto": ("runtimes/codex/socket.py",),
    "import sqlite3": ("store/",),
    # Git is run by git.runner alone; the others start a daemon, what `thrum demo` shows, and a codex that is asked for
    # the digests of its hooks.
    "import subprocess": ("git/runner.py", "daemon/launch.py", "cli/commands/demo.py", "runtimes/codex/trust.py"),
    # Where each kind of process begins; everything else is handed what it needs of it.
    **dict.fromkeys(("os.environ", "os.environb"), ("cli/session.py", "launcher.py", "daemon/__main__.py")),
    "os.getenv": (),
    "os.putenv": (),
    "time.time": ("model/clock.py",),
    "time.time_ns": ("model/clock.py",),
    "datetime.now": ("model/clock.py",),
    "import asyncio": (),
    # Links are refused in model.files; the launcher, which may load nothing, says it once more.
    **dict.fromkeys(
        ("os.open", "os.O_NOFOLLOW", "os.lstat", ".islink", ".lstat()", ".is_symlink()", "follow_symlinks="),
        ("model/files.py", "launcher.py"),
    ),
}


def _mentions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What a module uses of the things that have a home, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield f"import {alias.name.partition('.')[0]}", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield f"import {node.module.partition('.')[0]}", node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Attribute):
            yield f"{node.value.id if isinstance(node.value, ast.Name) else ''}.{node.attr}", node.lineno
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and not node.args:
                yield f".{node.func.attr}()", node.lineno
            for word in node.keywords:
                yield f"{word.arg}=", word.value.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_fits_a_sitting_and_uses_only_what_may_live_there(path: Path) -> None:
    name = path.relative_to(SOURCE).as_posix()
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LINES_MAX, f"{name} is over {LINES_MAX} lines: give it rooms"
    strays = [
        f"{name}:{line}: {what}"
        for what, line in _mentions(ast.parse(text))
        if what in HOMES and not name.startswith(HOMES[what] or ("-",))
    ]
    assert strays == []


def test_what_a_room_keeps_to_itself_no_other_room_imports() -> None:
    """A module whose name begins with `_` is its package's own: `thrum.rpc._outbox` is nobody's but `thrum.rpc`'s."""
    strays: list[str] = []
    for path in MODULES:
        package = ".".join(("thrum", *path.relative_to(SOURCE).parts[:-1]))
        for what, line in _mentions(ast.parse(path.read_text(encoding="utf-8"))):
            owner = re.match(r"(thrum(?:\.[a-z]\w*)*)\._[a-z]", what)
            if owner and not f"{package}.".startswith(f"{owner[1]}."):
                strays.append(f"{path.relative_to(SOURCE)}:{line}: {what}")
    assert strays == []


def test_the_launcher_loads_nothing_that_costs() -> None:
    tree = ast.parse((SOURCE / "launcher.py").read_text(encoding="utf-8"))
    loaded = {what for node in tree.body for what, _ in _mentions(node) if what.startswith("import ")}
    inside = {
        what
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for what, _ in _mentions(node)
        if what.startswith("import ")
    }
    assert loaded - inside <= {
        "import __future__",
        "import os",
        "import sys",
        "import _socket",
        "import _json",
        "import collections",  # where types are checked, alone
        "import thrum",
        "thrum.__version__",
    }


def test_the_script_is_one_that_pip_only_changes_the_first_line_of() -> None:
    script = ROOT / "scripts" / "thrum"
    assert script.read_bytes().startswith(b"#!python\n")
    assert os.access(script, os.X_OK), "pip installs it with the mode that it has here"


def test_importing_thrum_costs_nothing() -> None:
    text = (SOURCE / "__init__.py").read_text(encoding="utf-8")
    assert re.fullmatch(r'__version__ = "[\d.]+\w*"\n', text), "every start of the launcher pays for what stands here"
