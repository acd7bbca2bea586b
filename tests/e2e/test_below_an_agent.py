"""The tests themselves, run by an agent: below a process named `claude`, with variables that name somebody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.daemon.callers import runtime_argv
from tests.support.daemon.repo import SECONDS, wait_until
from tests.support.detached import runtimes_above
from tests.support.places import ROOT

SELECTION = (
    "tests/e2e/test_docs.py::test_make_demo_shows_the_main_job",
    "tests/integration/test_launcher_runs.py::test_a_stopped_launcher_cancels_its_run",
    "tests/e2e/test_caller.py::test_two_agents_speak_as_themselves_without_any_variable",
    "tests/e2e/test_caller.py::test_an_agent_that_went_elsewhere_is_still_itself_and_nobody_else",
    "tests/unit/identity/test_selection.py",
)
"""Tests that would find the agent among their ancestors, its variables in their environment, its `make` above their
own, or its way to start programs in the background."""

AGENT = {
    "THRUM_NAME": "max",
    "THRUM_ROLE": "tester",
    "THRUM_MODULE": "???",
    "THRUM_DISPLAY": "Nobody",
    "THRUM_HOME": "/nowhere",
    "THRUM_AGENT_ID": "somebody_else",
    "THRUM_HOSTNAME": "elsewhere",
    "THRUM_SOCKET": "/nowhere/thrum.sock",
    "THRUM_NO_HINTS": "maybe",
    "THRUM_NO_AUTOSTART": "1",
    "THRUM_LOCAL": "1",
    "CLAUDECODE": "1",
    "MAKEFLAGS": " -- ARGS=--long",
    "ARGS": "--long",
}
CONFTEST = ("-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--confcutdir", str(ROOT))
NEAR = "tests/spec/test_every_statement.py"
"""A file beside those that a test makes: with it comes the project's own conftest."""


def below(directory: Path, *words: str) -> list[str]:
    pytest = [sys.executable, "-m", "pytest", *CONFTEST, *words]
    background = ["sh", "-c", 'trap "" INT; "$@"', "sh"]
    return [*runtime_argv(directory / "bin", "claude", "codex"), *background, *pytest]


def run_below(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **AGENT}
    return subprocess.run(
        below(directory, *words), cwd=ROOT, env=env, capture_output=True, text=True, timeout=4 * SECONDS
    )


def test_no_test_has_a_runtime_above_it() -> None:
    assert runtimes_above() == []


def test_an_agent_can_run_the_tests(tmp_path: Path) -> None:
    done = run_below(tmp_path, *SELECTION)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_an_agent_is_told_what_fails(tmp_path: Path) -> None:
    failing = tmp_path / "test_that_fails.py"
    failing.write_text("def test_that_fails() -> None:\n    assert 'this' == 'that'\n")
    done = run_below(tmp_path, NEAR, str(failing), "-k", "that_fails")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "assert 'this' == 'that'" in done.stdout


def test_the_tests_end_with_the_agent_that_asked_for_them(tmp_path: Path) -> None:
    where = tmp_path / "pid"
    endless = tmp_path / "test_endless.py"
    endless.write_text(
        "import os, signal\n"
        "from pathlib import Path\n\n\n"
        "def test_endless() -> None:\n"
        f"    Path({str(where)!r}).write_text(str(os.getpid()))\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen(below(tmp_path, NEAR, str(endless), "-k", "endless"), cwd=ROOT) as agent:
        running = psutil.Process(int(wait_until(lambda: where.exists() and where.read_text(), "the test's beginning")))
        for child in psutil.Process(agent.pid).children(recursive=True):
            child.kill()
    wait_until(lambda: not running.is_running(), "the end of the tests")
