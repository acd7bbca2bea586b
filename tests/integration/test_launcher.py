"""The launcher and the rule of `model.paths` find the same place; what it loads."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git.repository import git, make_repository
from tests.support.places import ROOT
from tests.support.trusted import trust_here
from thrum import launcher, version
from thrum.model import paths
from thrum.model.errors import ThrumError

SCRIPT = ROOT / "scripts" / "thrum"


def _state(root: Path) -> Path:
    (root / ".thrum" / "identities").mkdir(parents=True)
    (root / ".thrum" / "config.json").write_text("{}")
    return trust_here(root)


def _redirect(root: Path, target: str | Path) -> None:
    (root / ".thrum").mkdir(exist_ok=True)
    (root / ".thrum" / "redirect").write_text(f" {target}\n")
    trust_here(root, Path(os.path.realpath(target)))


@pytest.fixture
def world() -> Iterator[Path]:
    """Repositories, worktrees and directories of every sort that the walk can meet. Their sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="thrum-") as directory:
        yield _fill(Path(directory).resolve())


def _fill(top: Path) -> Path:
    main = top / "main"
    make_repository(main)
    for name in ("plain", "own", "identities", "redirected"):
        git(main, "worktree", "add", top / name)
    _state(main)
    _state(top / "own")
    (top / "identities" / ".thrum" / "identities").mkdir(parents=True)
    trust_here(top / "identities")
    _redirect(top / "redirected", main / ".thrum")
    (main / "deep" / "er").mkdir(parents=True)
    (main / "vendored").mkdir()
    git(main / "vendored", "init")
    (main / "home" / ".thrum" / "worktrees").mkdir(parents=True)
    (top / "link").symlink_to(main / "deep")
    bad = {"empty": "", "relative": "x/.thrum", "missing": top / "no", "file": main / ".git" / "HEAD"}
    for name, target in bad.items():
        (main / name).mkdir()
        _redirect(main / name, target)
    (main / "self").mkdir()
    _redirect(main / "self", main / "self" / ".thrum")
    (main / "chain").mkdir()
    _redirect(main / "chain", top / "redirected" / ".thrum")
    git(top, "clone", "--bare", main, top / "bare.git")
    git(top / "bare.git", "worktree", "add", top / "of_bare")
    (top / "identities_only" / ".thrum" / "identities").mkdir(parents=True)
    trust_here(top / "identities_only")
    make_repository(top / "chained_main")
    _redirect(top / "chained_main", main / ".thrum")
    git(top / "chained_main", "worktree", "add", top / "of_chained")
    return top


def test_the_walk_finds_the_place_that_the_rule_finds_or_none(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = [world / name for name in sorted(os.listdir(world))]
    layout += [world / "main" / name for name in sorted(os.listdir(world / "main")) if name != ".git"]
    layout += [world / "main" / "deep" / "er", world / "main" / ".thrum" / "identities"]
    found = 0
    for place in layout:
        if not place.is_dir():
            continue
        try:
            expected = str(paths.find_layout(place).socket_path)
        except ThrumError:
            expected = ""
        monkeypatch.chdir(place)
        assert launcher.find_socket([]) == expected, place
        monkeypatch.chdir("/")
        assert launcher.find_socket(["inbox", "--repo", str(place)]) == expected, place
        monkeypatch.setenv("THRUM_HOME", str(place))
        assert launcher.find_socket(["inbox"]) == expected, place
        monkeypatch.delenv("THRUM_HOME")
        found += bool(expected)
    assert found >= 10


def test_what_says_where_to_look_has_its_order(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, own = f"{world}/main/.thrum/var/thrum.sock", f"{world}/own/.thrum/var/thrum.sock"
    monkeypatch.chdir(world / "main")
    assert launcher.find_socket(["send", "--", "--repo", "x"]) == main
    monkeypatch.setenv("THRUM_HOME", str(world / "own"))
    assert launcher.find_socket(["send"]) == own
    assert launcher.find_socket(["send", f"--repo={world}/main"]) == main
    assert launcher.find_socket(["send", "--repo", "../main"]) == main
    assert launcher.find_socket(["send", "--repo", "a", "--repo", "b"]) == ""
    assert launcher.find_socket(["send", "--repo"]) == ""
    assert launcher.find_socket(["send", "--repo="]) == ""
    assert launcher.find_socket(["send", "--repo", ""]) == ""
    monkeypatch.setenv("THRUM_SOCKET", "/elsewhere/x.sock")
    assert launcher.find_socket(["send"]) == "/elsewhere/x.sock"


def test_it_says_its_version_without_asking_anybody(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "THRUM_SOCKET": str(tmp_path / "none")}
    for flag in ("--version", "-v"):
        said = subprocess.run([sys.executable, SCRIPT, flag], env=environ, capture_output=True, check=True)
        assert said.stdout.decode() == version.version_text() + "\n"
        assert said.stdout.decode().startswith(f"thrum {version.VERSION} (build ")
