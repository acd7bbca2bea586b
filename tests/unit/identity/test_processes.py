"""The process tables under one contract, and liveness on real processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thrum.identity.processes import (
    Process,
    ProcessMap,
    ProcessTable,
    ProcTable,
    Program,
    PsutilTable,
    is_daemon,
    is_live,
    open_process_table,
    same_process,
)

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


def test_a_daemon_is_known_by_its_command_line() -> None:
    assert is_daemon(Program("python", "", ("python", "-m", "thrum.daemon", "/repo")))
    assert not is_daemon(Program("grep", "", ("grep", "thrum.daemon", "-m")))


def test_the_program_tells_executable_and_arguments(table: ProcessTable) -> None:
    program = table.program(os.getpid())
    assert "python" in os.path.basename(program.exe)
    assert program.argv
    assert table.program(2**22 + 5).argv == ()


# -- real processes


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
