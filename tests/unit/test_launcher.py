"""The thin front: where it finds the daemon, what it asks, what it imports."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import msgspec
import pytest

from tests.support.trusted import trust_here
from thrum import launcher, version
from thrum.model.errors import DaemonUnavailable
from thrum.model.files import opened_parent
from thrum.model.methods.daemon import CliRunParams
from thrum.rpc import sockets
from thrum.rpc.client import BlockingClient
from thrum.rpc.jsonrpc import decode_request


def _state(root: Path) -> Path:
    (root / ".thrum" / "identities").mkdir(parents=True)
    (root / ".thrum" / "config.json").write_text("{}")
    return trust_here(root)


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
