"""What every test stands on: nothing of the developer's own environment, and the option `--long`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

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


def pytest_configure(config: pytest.Config) -> None:
    """Isolate this process and all that it starts, before any fixture or import reads the environment."""
    hypothesis.settings.load_profile("deep" if config.getoption("--long") else "default")
    home = Path(tempfile.mkdtemp(prefix="thrum-tests-home-"))
    config.stash[_home] = home
    (home / ".gitconfig").write_text(_GIT_CONFIG)
    for name in list(os.environ):
        if name.startswith(("THRUM_", "GIT_", "XDG_")) or name in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}:
            del os.environ[name]
    os.environ |= {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}


def pytest_unconfigure(config: pytest.Config) -> None:
    home = config.stash.get(_home, None)
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="deep: run with --long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
