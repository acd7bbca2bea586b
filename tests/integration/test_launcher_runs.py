"""The launcher and a daemon: frames, streams, signals, and when it runs the command itself (rpc.md §6)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from tests.support.cli.served_commands import Commands, launcher_argv, launcher_env
from tests.support.daemon.served import request, serving, talking
from thrum import version
from thrum.rpc._framing import frame


async def _run(path: Path, *words: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        launcher_argv(*words),
        stdin=stdin,
        env=launcher_env(path),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_output_and_status_arrive_as_the_command_gave_them(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        done = await _run(served.path, "out:hü\n", "err:oh\n", "out:\x1b[0m", "exit:3")
        assert (done.stdout, done.stderr, done.returncode) == ("hü\n\x1b[0m".encode(), b"oh\n", 3)
        done = await _run(served.path, "big:1000000")
        assert (done.stdout, done.returncode) == (b"x" * 1_000_000, 0)
    assert commands.peers[0].peer.uid == os.getuid()
    assert commands.params[0].client_key != commands.params[1].client_key


async def test_stdin_is_read_when_it_is_asked_for_and_not_before(tmp_path: Path) -> None:
    commands = Commands()
    body = os.urandom(200_000)
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        done = await _run(served.path, "stdin", stdin=body)
        assert done.stdout == body
        read, write = os.pipe()
        os.write(write, b"first second")
        with os.fdopen(read, "rb") as left, os.fdopen(write, "wb"):
            await trio.run_process(launcher_argv("out:x"), stdin=left, env=launcher_env(served.path))
            assert os.read(left.fileno(), 100) == b"first second"
        done = await _run(served.path, "piece", "piece", "piece", stdin=b"one")
        assert done.stdout == b"<one><><>"


async def test_messages_are_marked_only_once_the_output_is_out(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        await _run(served.path, "out:x", "mark:printed")
        assert commands.marked == ["printed"]
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as broken:
            done = await trio.run_process(
                launcher_argv("big:100000", "mark:swallowed"),
                stdout=broken,
                capture_stderr=True,
                env=launcher_env(served.path),
                check=False,
            )
        assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")
        await commands.ended.wait()
    assert commands.marked == ["printed"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
async def test_a_stopped_launcher_cancels_its_run(number: signal.Signals, status: int, tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        process = await trio.lowlevel.open_process(launcher_argv("wait"), env=launcher_env(served.path))
        await commands.begun.wait()
        process.send_signal(number)
        assert await process.wait() == status
        await commands.ended.wait()
    assert commands.cancelled


async def test_it_runs_here_when_the_daemon_says_so_or_fails_before_its_first_output(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        for word in ("own", "fail"):
            done = await _run(served.path, word)
            assert (done.stdout, done.returncode) == (f"own '{word}' 32 \n".encode(), 9)
        done = await _run(served.path, "out:x", "fail")
        assert (done.stdout, done.returncode) == (b"x", 1)
        assert b"internal error" in done.stderr and b"fix: " in done.stderr
        served.dispatcher.drain.begin(30)
        assert (await _run(served.path, "late")).stdout == b"own 'late' 0 \n"


async def test_it_runs_here_without_a_key_when_nobody_got_the_command(tmp_path: Path) -> None:
    assert (await _run(tmp_path / "missing", "a b")).stdout == b"own 'a b' 0 \n"
    (tmp_path / "file").write_text("")
    assert (await _run(tmp_path / "file", "x")).returncode == 9
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        done = await _run(served.path, b"\xff")
        assert done.stdout == b"own '\\udcff' 0 \n"
    assert not commands.params


class _Scripted:
    """A daemon that says some bytes and hangs up."""

    def __init__(self, path: Path, said: bytes) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._said = said
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listener:
            connection, _ = self._listener.accept()
        with connection:
            while not connection.recv(65536).endswith(b"\n"):
                pass
            connection.sendall(self._said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("cut", range(16))
async def test_a_daemon_that_dies_before_the_first_output_leaves_the_command_to_the_launcher(
    cut: int, tmp_path: Path
) -> None:
    said = frame(b"i") + frame(b"f") + frame(b"o", b"x") + frame(b"x", b"\0")
    _Scripted(tmp_path / "s", said[:cut])
    done = await _run(tmp_path / "s", "stdin", stdin=b"the body")
    assert done.stdout == b"own 'stdin' 32 the body\n"


@pytest.mark.parametrize("rest", [b"", b"x", b"x\0\0\0\1", b"?\0\0\0\0", b'{"jsonrpc"'])
async def test_a_daemon_that_dies_later_is_an_error(rest: bytes, tmp_path: Path) -> None:
    _Scripted(tmp_path / "s", frame(b"o", b"some") + rest)
    done = await _run(tmp_path / "s", "x")
    assert (done.stdout, done.returncode) == (b"some", 1)
    assert done.stderr.startswith(b"Error: the daemon went away") and b"\n  fix: " in done.stderr


async def test_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    commands = Commands()
    if not Path("/dev/full").exists():  # noqa: ASYNC240
        pytest.skip("no /dev/full")
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123
            done = await trio.run_process(
                launcher_argv("out:x", "mark:lost"),
                stdout=full,
                capture_stderr=True,
                env=launcher_env(served.path),
                check=False,
            )
        assert done.returncode == 1 and b"No space left" in done.stderr
        await commands.ended.wait()
    assert not commands.marked


async def test_a_pipe_that_somebody_made_nonblocking_loses_nothing(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        read, write = os.pipe()
        os.set_blocking(write, False)
        process = await trio.lowlevel.open_process(
            launcher_argv("big:500000", "mark:all"), stdout=write, env=launcher_env(served.path)
        )
        os.close(write)
        received = 0
        async with trio.lowlevel.FdStream(read) as stream:
            async for data in stream:
                received += len(data)
        assert received == 500_000
        assert await process.wait() == 0
    assert commands.marked == ["all"]


async def test_a_launcher_of_another_version_is_told_to_run_it_itself(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served, talking(served.path) as talk:
        params = {"argv": ["out:x"], "cwd": "/", "frames": "raw", "program": "9.9.9"}
        await talk.send(request("cli.run", params))
        assert await talk.read_some() == frame(b"l")
    assert not commands.params


async def test_a_raw_run_wants_a_connection_of_its_own(tmp_path: Path) -> None:
    commands = Commands()
    raw = {"argv": ["wait"], "cwd": "/", "frames": "raw", "program": version.VERSION}
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served, talking(served.path) as talk:
        await talk.send(request("cli.run", {"argv": ["wait"], "cwd": "/"}, 1) + request("cli.run", raw, 2))
        answer = await talk.read()
        assert (answer["id"], answer["error"]["data"]["kind"]) == (2, "invalid_request")
        answer = await talk.ask("cli.run", {"argv": "x", "frames": "raw"}, 3)
        assert (answer["id"], answer["error"]["data"]["kind"]) == (3, "invalid_params")


async def test_frames_may_follow_their_request_at_once_and_wrong_ones_end_the_run(tmp_path: Path) -> None:
    commands = Commands()
    raw = {"argv": ["stdin", "wait"], "cwd": "/", "frames": "raw", "program": version.VERSION}
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served, talking(served.path) as talk:
        await talk.send(request("cli.run", raw) + frame(b"s", b"a\nb\n") + frame(b"s"))
        said = b""
        while frame(b"o", b"a\nb\n") not in said:
            said += await talk.read_some()
        await talk.send(b"garbage")
        await commands.ended.wait()
        assert await talk.read_line() == b""
    assert commands.cancelled


async def test_without_frames_the_whole_output_is_one_answer(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served, talking(served.path) as talk:
        params = {"argv": ["out:a", "stdin", "err:b", "mark:m", "exit:4"], "cwd": "/", "stdin": "ü"}
        answer = await talk.ask("cli.run", params)
        assert answer["result"] == {"exit_status": 4, "stdout": "aü", "stderr": "b"}
        answer = await talk.ask("cli.run", {"argv": ["own"], "cwd": "/"})
        assert answer["error"]["data"]["kind"] == "not_available"


def _imported(*arguments: str, path: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], env=launcher_env(path), capture_output=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}


async def test_the_warm_path_imports_nothing_but_os_sys_and_socket(tmp_path: Path) -> None:
    commands = Commands()
    async with serving(tmp_path / "s", {}, run_command=commands.run) as served:
        script = launcher_argv("out:x", "mark:m", stubbed=False)[1:]
        bare = await trio.to_thread.run_sync(lambda: _imported("-c", "pass", path=served.path))
        warm = await trio.to_thread.run_sync(lambda: _imported(*map(str, script), path=served.path))
    assert warm - bare == {"thrum", "thrum.launcher", "_socket"}
    assert commands.marked == ["m"]
