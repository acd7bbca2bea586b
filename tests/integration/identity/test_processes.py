"""The process table on real processes: terminals, zombies, runtimes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT, SUPPORT
from thrum.identity.processes import (
    ProcessMap,
    ProcessTable,
    ProcTable,
    PsutilTable,
    environment_of,
    open_process_table,
    same_process,
)
from thrum.identity.runtimes import links_of, runtime_of_process

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


def in_memory() -> ProcessMap:
    """This process, its parent and what its working directory is, as the other tables would tell it."""
    real = open_process_table()
    table = ProcessMap(*real.chain(os.getpid()))
    table.cwds[os.getpid()] = os.path.realpath(Path.cwd())
    table.programs[os.getpid()] = real.program(os.getpid())
    return table


@pytest.fixture(params=[pytest.param(ProcTable, marks=LINUX), PsutilTable, in_memory])
def table(request: pytest.FixtureRequest) -> ProcessTable:
    make: Callable[[], ProcessTable] = request.param
    return make()


def test_a_terminal_is_told_with_who_is_in_its_foreground_and_a_process_without_one_has_none() -> None:
    """Of a process with and one without, each table that can see them says the same."""
    wait = "import sys; print(flush=True); sys.stdin.read()"
    script = SUPPORT / "cli/at_terminal.py"
    for argv, has in (([sys.executable, str(script)], True), ([], False)):
        with subprocess.Popen(
            [*argv, sys.executable, "-c", wait],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for real in (PsutilTable(), open_process_table()):
                found = real.terminal(process.pid)
                assert (found is not None) == has
                if found is not None:
                    assert found.foreground and Path(found.name).is_char_device()
            process.communicate()


def test_a_job_in_the_background_of_a_terminal_is_not_in_its_foreground() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from tests.support.cli.at_terminal import take_terminal\n"
        "take_terminal()\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], process_group=0)\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        job = int(process.stdout.readline())
        found = open_process_table().terminal(job)
        assert found is not None
        if sys.platform == "linux":  # psutil does not tell
            assert not found.foreground
        process.communicate()


@LINUX
def test_an_environment_of_any_size_is_read_whole_and_the_first_of_two_counts() -> None:
    env = {f"V{number}": "x" * 4000 for number in range(50)} | {"LAST": "seen"}
    with subprocess.Popen(["cat"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"it runs\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"it runs\n"
        found = ProcTable().environ(process.pid)
        process.stdin.close()
    assert found == env
    assert environment_of(b"A=1\0A=2\0no\0B==\0") == {"A": "1", "B": "="}


@contextlib.contextmanager
def child(*argv: str | Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(word) for word in argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def last_pid(process: subprocess.Popen[str]) -> int:
    """The pid that the innermost process printed."""
    assert process.stdout is not None
    return int(process.stdout.readline())


WAIT = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"


RUN = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))\n"


def fake_runtime(directory: Path, name: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(RUN)
    return path


@LINUX
@pytest.mark.spec("ID-25")
def test_a_zombie_is_there_and_dead() -> None:
    for table in (ProcTable(), PsutilTable()):
        with child(sys.executable, "-c", WAIT) as process:
            pid = last_pid(process)
            alive = table.read(pid)
            assert alive is not None and same_process(alive.started, 0.0, alive)
            process.kill()
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            zombie = table.read(pid)
            assert zombie is not None and zombie.state == "Z"
            assert not same_process(alive.started, 0.0, zombie)
            os.kill(pid, 0)
        assert table.read(pid) is None


@LINUX
@pytest.mark.spec("ID-24")
def test_nested_runtimes_are_recognised_in_the_chain(tmp_path: Path) -> None:
    claude, codex = (fake_runtime(tmp_path / "bin", name) for name in ("claude", "codex"))
    python = sys.executable
    with child(python, claude, python, codex, python, "-c", WAIT) as process:
        table = ProcTable()
        chain = table.chain(last_pid(process))
        links = links_of(table, chain)
        assert [link.runtime for link in links[:3]] == [None, "codex", "claude"]
        assert links[2].pid == process.pid


@pytest.mark.spec("ID-24")
@LINUX
@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_a_node_script_is_recognised(tmp_path: Path) -> None:
    script = tmp_path / "gemini"
    script.write_text("console.log(process.pid); process.stdin.resume()\n")
    with child("node", "--no-warnings", script) as process:
        assert runtime_of_process(ProcTable().program(last_pid(process))) == "gemini"


@LINUX
def test_a_deleted_working_directory_is_no_directory(tmp_path: Path) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    with child(sys.executable, "-c", WAIT, cwd=place) as process:
        pid = last_pid(process)
        assert ProcTable().cwd(pid) == str(place.resolve())
        place.rmdir()
        with pytest.raises(FileNotFoundError):
            ProcTable().cwd(pid)


@LINUX
def test_a_name_with_blanks_and_brackets_is_read_whole(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to(os.path.realpath(shutil.which("sleep") or "/bin/sleep"))
    with child(odd, "60") as process:
        read = ProcTable().read(process.pid)
        assert read is not None and read.ppid == os.getpid()
