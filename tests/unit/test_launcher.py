"""The thin front: where it finds the daemon, what it asks, what it imports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.trusted import trust_here
from thrum import launcher, version
from thrum.model import paths
from thrum.model.errors import DaemonUnavailable, ThrumError
from thrum.model.files import opened_parent
from thrum.model.methods.daemon import CliRunParams
from thrum.rpc import sockets
from thrum.rpc.client import BlockingClient
from thrum.rpc.jsonrpc import decode_request

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "thrum"


def _git(*words: str | Path, cwd: Path) -> None:
    subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True)


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
    main.mkdir()
    _git("init", cwd=main)
    _git("commit", "--allow-empty", "-m", "x", cwd=main)
    for name in ("plain", "own", "identities", "redirected"):
        _git("worktree", "add", top / name, cwd=main)
    _state(main)
    _state(top / "own")
    (top / "identities" / ".thrum" / "identities").mkdir(parents=True)
    trust_here(top / "identities")
    _redirect(top / "redirected", main / ".thrum")
    (main / "deep" / "er").mkdir(parents=True)
    (main / "vendored").mkdir()
    _git("init", cwd=main / "vendored")
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
    _git("clone", "--bare", main, top / "bare.git", cwd=top)
    _git("worktree", "add", top / "of_bare", cwd=top / "bare.git")
    (top / "identities_only" / ".thrum" / "identities").mkdir(parents=True)
    trust_here(top / "identities_only")
    (top / "chained_main").mkdir()
    _git("init", cwd=top / "chained_main")
    _git("commit", "--allow-empty", "-m", "x", cwd=top / "chained_main")
    _redirect(top / "chained_main", main / ".thrum")
    _git("worktree", "add", top / "of_chained", cwd=top / "chained_main")
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


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    with opened_parent(path) as (directory, name):
        listener.bind(f"/proc/self/fd/{directory}/{name}")
    listener.listen(1)
    return listener


def _reaches(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            launcher.connect(caller, str(address))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("length", [1, 150])
def test_a_socket_is_reached_however_long_its_path_is(tmp_path: Path, length: int) -> None:
    state = _state(tmp_path / ("x" * length))
    (state / "var").mkdir()
    address = state / "var" / "thrum.sock"
    assert not _reaches(address)
    with _listener(address):
        assert _reaches(address)


def test_a_short_socket_is_found_by_its_state_directory_and_only_if_nobody_else_may_enter(tmp_path: Path) -> None:
    state = _state(tmp_path / "r")
    directory = sockets.short_dir(state)
    directory.mkdir(mode=0o700)
    try:
        with _listener(directory / "thrum.sock"):
            assert _reaches(state / "var" / "thrum.sock")
            directory.chmod(0o755)
            assert not _reaches(state / "var" / "thrum.sock")
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("where", ["socket", "var", "state"])
def test_no_link_leads_to_a_foreign_socket(tmp_path: Path, where: str) -> None:
    other, state = _state(tmp_path / "other"), _state(tmp_path / "r")
    (other / "var").mkdir()
    with _listener(other / "var" / "thrum.sock"):
        if where == "socket":
            (state / "var").mkdir()
            (state / "var" / "thrum.sock").symlink_to(other / "var" / "thrum.sock")
        elif where == "var":
            (state / "var").symlink_to(other / "var")
        else:
            shutil.rmtree(state)
            state.symlink_to(other)
        assert _reaches(other / "var" / "thrum.sock")
        assert not _reaches(state / "var" / "thrum.sock")
        with pytest.raises(DaemonUnavailable):
            BlockingClient(state / "var" / "thrum.sock")


def test_the_request_is_what_the_daemon_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / 'a "b" \\ü'
    place.mkdir()
    monkeypatch.chdir(place)
    argv = ["send", "".join(map(chr, range(1, 128))) + "ü\u2028\U0001f600", "", "\\u0041"]
    for name, value in (
        ("THRUM_NAME", "bob\n"),
        ("TMUX_PANE", "%1"),
        ("COLUMNS", "77"),
        ("CODEX_THREAD_ID", "t"),
        ("SECRET", "x"),
    ):
        monkeypatch.setenv(name, value)
    line = launcher.request_line(argv, "0123")
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    params = msgspec.json.decode(decode_request(line[:-1]).params, type=CliRunParams)
    assert list(params.argv) == argv
    assert (params.cwd, params.width, params.frames, params.client_key) == (str(place), 77, "raw", "0123")
    assert params.program == version.VERSION
    assert params.env["CODEX_THREAD_ID"] == "t"
    assert params.env["THRUM_NAME"] == "bob\n" and params.env["TMUX_PANE"] == "%1"
    assert not {"SECRET", "HOME", "PATH"} & params.env.keys()


def test_bytes_that_are_no_text_stay_in_this_process() -> None:
    with pytest.raises(UnicodeEncodeError):
        launcher.request_line(["send", os.fsdecode(b"\xff")], "k")


def test_it_says_its_version_without_asking_anybody(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "THRUM_SOCKET": str(tmp_path / "none")}
    for flag in ("--version", "-v"):
        said = subprocess.run([sys.executable, SCRIPT, flag], env=environ, capture_output=True, check=True)
        assert said.stdout.decode() == version.version_text() + "\n"
        assert said.stdout.decode().startswith(f"thrum {version.VERSION} (build ")
