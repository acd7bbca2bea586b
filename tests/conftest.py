"""What every test stands on: nothing of the developer's own environment or ancestors, and the option `--long`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from tests.support.detached import DETACHED, call_detached, marks_above, runtimes_above

_GIT_CONFIG = """\
[user]
	name = Test
	email = test@localhost
[init]
	defaultBranch = main
[protocol "file"]
	allow = always
[gc]
	auto = 0
"""

_NOT_INHERITED = ("THRUM_", "GIT_", "XDG_", "MAKE", "MFLAGS", "ARGS")
"""Beginnings of names: variables that would lead thrum or git elsewhere, or another `make` in this one's way."""
_INHERITED = "THRUM_REAL_"
"""What names the real programs that tests/runtimes is to judge: without it stand-ins would be judged in their place."""

_home = pytest.StashKey[Path]()

hypothesis.settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "deep",
    max_examples=2_000,
    stateful_step_count=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the deep tests: minutes, not seconds")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Below an agent's runtime, run the tests where they do not descend from it (tests/support/detached.py)."""
    if config.option.collectonly or os.environ.get(DETACHED) or not (runtimes_above() or marks_above()):
        return None
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)
    return call_detached([sys.executable, *sys.orig_argv[1:]])


def pytest_configure(config: pytest.Config) -> None:
    """Isolate this process and all that it starts, before any fixture or import reads the environment."""
    hypothesis.settings.load_profile("deep" if config.getoption("--long") else "default")
    home = Path(tempfile.mkdtemp(prefix="thrum-tests-home-"))
    config.stash[_home] = home
    (home / ".gitconfig").write_text(_GIT_CONFIG)
    for name in list(os.environ):
        if name.startswith(_INHERITED):
            continue
        if name.startswith(_NOT_INHERITED) or name in {"COLUMNS", "NO_COLOR", "FORCE_COLOR", DETACHED}:
            del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in the background so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ |= {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}


def pytest_unconfigure(config: pytest.Config) -> None:
    home = config.stash.get(_home, None)
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="deep: run with --long")
    cases: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        cases[test] += 1
        short = item.get_closest_marker("short")
        if item.get_closest_marker("long") or (short and cases[test] > short.args[0]):
            item.add_marker(skip)
