"""The process tables under one contract, and liveness on real processes."""

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
    Process,
    ProcessMap,
    ProcessTable,
    ProcTable,
    Program,
    PsutilTable,
    environment_of,
    is_daemon,
    is_live,
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


def test_a_process_is_read_with_parent_and_a_start_that_stays(table: ProcessTable) -> None:
    me = table.read(os.getpid())
    assert me is not None
    assert (me.pid, me.ppid) == (os.getpid(), os.getppid())
    assert me.started and me.started_at > 1_000_000_000
    again = table.read(os.getpid())
    assert again is not None and again.started == me.started
    assert is_live(me)


def test_a_pid_that_is_nobodys_reads_as_none(table: ProcessTable) -> None:
    assert table.read(2**22 + 5) is None
    for call in (table.chain, table.cwd):
        with pytest.raises(ProcessLookupError if call == table.chain else OSError):
            call(2**22 + 5)


def test_a_chain_goes_up_from_the_process_and_leaves_pid_1_out(table: ProcessTable) -> None:
    chain = table.chain(os.getpid())
    assert chain[0].pid == os.getpid()
    assert [each.ppid for each in chain[:-1]] == [each.pid for each in chain[1:]]
    assert all(each.pid > 1 for each in chain)
    assert chain[-1].ppid <= 1


def test_the_working_directory_is_a_real_path(table: ProcessTable) -> None:
    assert table.cwd(os.getpid()) == os.path.realpath(Path.cwd())


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


def test_the_first_environment_is_that_of_the_start(table: ProcessTable) -> None:
    if isinstance(table, ProcessMap):
        table.environs[os.getpid()] = open_process_table().environ(os.getpid())
    before = table.environ(os.getpid())
    assert before["PATH"]
    os.environ["SET_LATER"] = "1"
    try:
        assert table.environ(os.getpid()) == before
    finally:
        del os.environ["SET_LATER"]
    with pytest.raises(OSError):
        table.environ(2**22 + 5)
    with pytest.raises(OSError):
        table.terminal(2**22 + 5)


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


def test_a_daemon_is_known_by_its_command_line() -> None:
    assert is_daemon(Program("python", "", ("python", "-m", "thrum.daemon", "/repo")))
    assert not is_daemon(Program("grep", "", ("grep", "thrum.daemon", "-m")))


def test_the_program_tells_executable_and_arguments(table: ProcessTable) -> None:
    program = table.program(os.getpid())
    assert "python" in os.path.basename(program.exe)
    assert program.argv
    assert table.program(2**22 + 5).argv == ()


# -- real processes


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


@pytest.mark.spec("ID-26")
def test_a_used_up_pid_with_another_start_is_somebody_else() -> None:
    me = open_process_table().read(os.getpid())
    assert me is not None
    assert same_process(me.started, 0.0, me)
    assert not same_process(me.started + "9", 0.0, me)
    assert not same_process(me.started, 0.0, None)


@pytest.mark.spec("ID-26")
def test_without_a_recorded_start_only_a_runtime_older_than_the_record_counts() -> None:
    seen = Process(100, 1, "boot/100", 1000.0)
    assert same_process("", 998.0, seen, lambda: True)
    assert not same_process("", 997.9, seen, lambda: True)
    assert not same_process("", 5000.0, seen, lambda: False)
    assert not is_live(Process(1, 0, "boot/1", 1.0))


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


# -- walks


def test_a_parent_that_vanishes_in_mid_walk_is_walked_around_once() -> None:
    class Vanishing(ProcessMap):
        def read(self, pid: int) -> Process | None:
            if pid == 20 and 20 in self.processes:
                del self.processes[20]
                self.processes[30] = Process(30, 10, "b/30", 30.0)
                return None
            return super().read(pid)

    table = Vanishing(Process(10, 1, "b/10", 10.0), Process(20, 10, "b/20", 20.0), Process(30, 20, "b/30", 30.0))
    assert [each.pid for each in table.chain(30)] == [30, 10]


def test_a_parent_that_stays_away_and_a_younger_one_fail_the_walk() -> None:
    orphan = Process(30, 20, "b/30", 30.0)
    for table in (ProcessMap(orphan), ProcessMap(orphan, Process(20, 1, "b/99", 99.0))):
        with pytest.raises(ProcessLookupError):
            table.chain(30)


@LINUX
def test_a_chain_ends_below_a_parent_that_another_user_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    class Hiding(ProcTable):
        def read(self, pid: int) -> Process | None:
            return None if pid == os.getppid() else super().read(pid)

    class Locked(ProcTable):
        def read(self, pid: int) -> Process | None:
            return forbidden() if pid == os.getppid() else super().read(pid)

    assert [each.pid for each in Locked().chain(os.getpid())] == [os.getpid()]
    monkeypatch.setattr(os, "kill", forbidden)
    assert [each.pid for each in Hiding().chain(os.getpid())] == [os.getpid()]


def test_a_deep_tree_is_cut_after_64_steps() -> None:
    table = ProcessMap(*(Process(pid, pid - 1, f"b/{pid}", float(pid)) for pid in range(2, 200)))
    assert len(table.chain(199)) == 64
    assert table.chain(1 + 1)[-1].pid == 2
