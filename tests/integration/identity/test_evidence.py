"""Evidence of real processes, with real worktrees and fake runtimes, and what is decided from it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.git.repository import git, make_repository
from tests.support.places import SUPPORT
from tests.support.trusted import trust_here
from thrum.identity.caller import AccessClass, Caller, Evidence, decide
from thrum.identity.evidence import AgentPlace, Failed, PeerEvidence, Registry
from thrum.identity.person import obstacle
from thrum.identity.processes import Process, ProcessMap, ProcessTable, Program, open_process_table
from thrum.model.methods.method import Access
from thrum.model.paths import Layout, find_layout

PYTHON = sys.executable
WAIT = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
AT_TERMINAL = (PYTHON, str(SUPPORT / "cli/at_terminal.py"))
RUN = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))\n"
OTHER = Process(900, 1, "b/900", 900.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "app"
    make_repository(path)
    (path / ".thrum" / "identities").mkdir(parents=True)
    (path / ".thrum" / "config.json").write_text("{}")
    trust_here(path)
    return path


def put(root: Path, name: str) -> None:
    directory = root / ".thrum" / "identities"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text("{}")


def place(agent_id: str, root: Path, process: Process | None = None) -> AgentPlace:
    if process is None:
        return AgentPlace(agent_id, str(root))
    return AgentPlace(agent_id, str(root), process.pid, process.started)


@contextlib.contextmanager
def running(*argv: str | Path, cwd: Path) -> Iterator[int]:
    """Start a command whose innermost process waits; gives that one's pid."""
    command = [*map(str, argv), PYTHON, "-c", WAIT]
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def fake_runtime(root: Path, name: str) -> Path:
    path = root / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(RUN)
    return path


def peer(root: Path, pid: int, table: ProcessTable | None = None) -> PeerEvidence:
    return PeerEvidence(table or open_process_table(), find_layout(root), pid=pid, uid=os.getuid())


def who(evidence: Evidence, access: AccessClass = "agent", claim: str | None = None) -> str:
    decision = decide(evidence, access, claim)
    return (decision.agent_id or "") if isinstance(decision, Caller) else decision.refusal.reason


def test_a_shell_in_a_root_is_its_only_agent(root: Path) -> None:
    put(root, "furiosa")
    deep = root / "a" / "b"
    deep.mkdir(parents=True)
    with running(cwd=deep) as pid:
        evidence = peer(root, pid).gather(Registry([place("furiosa", root)]), now=0.0)
        assert (evidence.root, evidence.here) == (str(root), {"furiosa": "none"})
        assert who(evidence) == "furiosa"


@pytest.mark.spec("ID-57")
def test_a_registration_on_an_open_connection_counts_from_the_next_call(root: Path) -> None:
    with running(cwd=root) as pid:
        connection = peer(root, pid)
        assert who(connection.gather(Registry(), now=0.0)) == "anonymous_mutating_rpc"
        put(root, "furiosa")
        assert connection.gather(Registry(), now=0.0).unbound_file
        registry = Registry([place("furiosa", root)])
        assert who(connection.gather(registry, now=0.0)) == "furiosa"
        (root / ".thrum" / "identities" / "furiosa.json").unlink()
        assert who(connection.gather(registry, now=0.0)) == "anonymous_mutating_rpc"


@pytest.mark.spec("ID-59")
def test_a_file_copied_from_another_root_proves_nothing(root: Path, tmp_path: Path) -> None:
    put(root, "furiosa")
    with running(cwd=root) as pid:
        evidence = peer(root, pid).gather(Registry([place("furiosa", tmp_path / "elsewhere")]), now=0.0)
        assert (evidence.here, evidence.unbound_file) == ({}, True)


@pytest.mark.spec("ID-33")
def test_of_nested_runtimes_the_nearest_registered_one_speaks(root: Path) -> None:
    put(root, "furiosa")
    put(root, "nux")
    claude, codex = fake_runtime(root, "claude"), fake_runtime(root, "codex")
    with running(PYTHON, claude, PYTHON, codex, cwd=root) as pid:
        connection = peer(root, pid)
        _, inner, outer, *_ = connection.chain()
        outer_only = Registry([place("furiosa", root, outer), place("nux", root)])
        assert who(connection.gather(outer_only, now=0.0)) == "furiosa"
        assert connection.binding("nux", outer_only, 0.0) == inner
        both = Registry([place("furiosa", root, outer), place("nux", root, inner)])
        assert who(connection.gather(both, now=0.0)) == "nux"
        assert who(connection.gather(both, "furiosa", now=0.0), claim="furiosa") == "furiosa"
        assert connection.binding("furiosa", both, 0.0) is None


@pytest.mark.spec("ID-60")
def test_an_agent_in_anothers_worktree_speaks_only_as_itself(root: Path, tmp_path: Path) -> None:
    put(root, "furiosa")
    home = tmp_path.resolve() / "home"
    put(home, "coord_main")
    claude = fake_runtime(home, "claude")
    with running(PYTHON, claude, cwd=root) as pid:
        connection = peer(root, pid)
        registry = Registry([place("furiosa", root), place("coord_main", home, connection.chain()[1])])
        assert who(connection.gather(registry, now=0.0)) == "coord_main"
        assert who(connection.gather(registry, "furiosa", now=0.0), claim="furiosa") == "identity_mismatch"


@pytest.mark.spec("ID-61")
def test_a_neighbour_that_lives_elsewhere_is_not_taken_over_by_a_runtime(root: Path) -> None:
    put(root, "furiosa")
    claude = fake_runtime(root, "claude")
    with running(PYTHON, claude, cwd=root) as one, running(PYTHON, claude, cwd=root) as other, running(cwd=root) as sh:
        owner = peer(root, one).chain()[1]
        registry = Registry([place("furiosa", root, owner)])
        evidence = peer(root, other).gather(registry, "furiosa", now=0.0)
        assert (evidence.runtime, evidence.here) == (True, {"furiosa": "elsewhere"})
        assert who(evidence, claim="furiosa") == "pid_mismatch"
        shell = peer(root, sh).gather(registry, "furiosa", now=0.0)
        assert who(shell) == "pid_mismatch"
        assert who(shell, claim="furiosa") == "pid_mismatch"
    assert peer(root, os.getpid()).state_of(place("furiosa", root, owner)) == "dead"


@pytest.mark.spec("ID-61")
def test_a_claim_of_a_living_agent_counts_from_a_terminal_or_by_the_first_environment(root: Path) -> None:
    put(root, "furiosa")
    claude = fake_runtime(root, "claude")
    named, stray = ["env", "THRUM_NAME=furiosa"], ["env", "THRUM_NAME=nux"]
    with (
        running(PYTHON, claude, cwd=root) as one,
        running(*AT_TERMINAL, cwd=root) as person,
        running(*named, cwd=root) as hook,
        running(*stray, cwd=root) as other,
    ):
        registry = Registry([place("furiosa", root, peer(root, one).chain()[1])])
        for pid, outcome in ((person, "furiosa"), (hook, "furiosa"), (other, "pid_mismatch")):
            assert who(peer(root, pid).gather(registry, "furiosa", now=0.0), claim="furiosa") == outcome
        assert peer(root, hook).gather(registry, "furiosa", now=0.0).named


# -- a person


def stands(root: Path, pid: int, registry: Registry) -> str:
    return obstacle(peer(root, pid).ancestry(registry), Access.PERSON)


def test_a_person_is_who_sits_at_a_terminal_in_which_no_agent_runs(root: Path) -> None:
    claude, told = fake_runtime(root, "claude"), root / "pid"
    beside = (
        "import os, subprocess, sys\n"
        f"agent = subprocess.Popen([sys.executable, {str(claude)!r}, 'sleep', '1000'])\n"
        f"open({str(told)!r}, 'w').write(str(agent.pid))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    with (
        running(*AT_TERMINAL, cwd=root) as person,
        running(cwd=root) as script,
        running(*AT_TERMINAL, PYTHON, claude, cwd=root) as tool,
        running(*AT_TERMINAL, PYTHON, "-c", beside, cwd=root) as neighbour,
    ):
        agent = open_process_table().read(int(told.read_text()))
        registry = Registry([place("furiosa", root, agent)])
        assert stands(root, person, registry) == ""
        assert stands(root, script, registry) == "no terminal"
        assert stands(root, tool, registry).startswith("claude (pid ")
        assert stands(root, neighbour, Registry()) == ""
        assert stands(root, neighbour, registry).startswith("@furiosa runs in this terminal, /dev/")
        gone = peer(root, person)
    with pytest.raises(Failed):
        gone.ancestry(registry)


# -- a server of many sessions


def test_a_shared_server_and_its_starter_prove_nobody_and_are_bound_to_nobody(root: Path) -> None:
    put(root, "furiosa")
    codex, claude = fake_runtime(root, "codex"), fake_runtime(root, "claude")
    server = [PYTHON, claude, PYTHON, codex, "app-server", "--managed-daemon"]
    codex.write_text("import subprocess, sys; sys.exit(subprocess.call(sys.argv[3:]))\n")
    with running(*server, cwd=root) as tool:
        by_tool = peer(root, tool)
        _, at_server, starter = by_tool.chain()[:3]
        for owner, state in ((starter, "chain"), (at_server, "none")):
            registry = Registry([place("furiosa", root, owner)])
            evidence = by_tool.gather(registry, now=0.0)
            assert (evidence.owner, evidence.shared_server, evidence.here) == (None, True, {"furiosa": state})
        assert by_tool.binding("furiosa", Registry(), 0.0) is None
        assert [link.shared for link in by_tool.links(0.0)][:3] == [False, True, False]


@pytest.mark.parametrize("told", ["by its first environment", "by the launcher"])
def test_below_a_shared_server_the_session_s_agent_speaks_where_it_lives(root: Path, told: str) -> None:
    put(root, "furiosa")
    codex = fake_runtime(root, "codex")
    codex.write_text("import subprocess, sys; sys.exit(subprocess.call(sys.argv[2:]))\n")
    env = ["env", "CODEX_THREAD_ID=t1" if told == "by its first environment" else "X=1"]
    registry = Registry([replace(place("furiosa", root), runtime_session="t1"), place("nux", root)])
    with (
        running(PYTHON, codex, "app-server", *env, cwd=root) as here,
        running(PYTHON, codex, "app-server", *env, cwd=root.parent) as away,
        running(PYTHON, codex, "exec", *env, cwd=root) as plain,
    ):
        outcomes: list[str] = []
        for pid in (here, away, plain):
            by_tool = peer(root, pid)
            by_tool.runtime_session = "" if told == "by its first environment" else "t1"
            evidence = by_tool.gather(registry, now=0.0)
            decision = decide(evidence, "agent")
            outcomes.append(decision.rule)
        assert outcomes == ["C3a", "C8", "C14"]


def test_the_place_is_looked_at_anew_for_every_request(root: Path, tmp_path: Path) -> None:
    put(root, "furiosa")
    registry = Registry([place("furiosa", root)])
    table = ProcessMap(OTHER)
    table.cwds[900] = str(root)
    connection = peer(root, 900, table)
    assert who(connection.gather(registry, now=0.0)) == "furiosa"
    table.cwds[900] = str(tmp_path)
    assert who(connection.gather(registry, now=0.0)) == "anonymous_mutating_rpc"


def test_a_root_that_appears_later_is_found_after_a_moment(root: Path) -> None:
    put(root, "furiosa")
    nested = root / "nested"
    nested.mkdir()
    registry = Registry([place("furiosa", root)])
    table = ProcessMap(OTHER)
    table.cwds[900] = str(nested)
    connection = peer(root, 900, table)
    assert connection.gather(registry, now=10.0).root == str(root)
    git(root, "worktree", "add", "-q", nested)
    assert connection.gather(registry, now=11.5).root == str(nested)


@pytest.mark.spec("ID-26")
def test_a_dead_ancestor_proves_nothing_even_if_its_pid_is_used_again(root: Path) -> None:
    put(root, "furiosa")
    parent = Process(800, 1, "b/800", 800.0)
    table = ProcessMap(parent, Process(900, 800, "b/900", 900.0))
    table.cwds[900] = "/"
    connection = peer(root, 900, table)
    assert connection.gather(Registry([place("furiosa", root, parent)]), now=0.0).owner == "furiosa"
    table.processes[800] = reborn = Process(800, 1, "b/950", 950.0)
    assert connection.gather(Registry([place("furiosa", root, reborn)]), now=0.0).owner is None
    del table.processes[800]
    assert connection.gather(Registry([place("furiosa", root, parent)]), now=0.0).owner is None


def test_of_two_agents_with_one_process_the_claimed_one_speaks_else_the_later(root: Path) -> None:
    table = ProcessMap(OTHER)
    registry = Registry(
        [
            AgentPlace("old", str(root), 900, "b/900", recorded_at=1.0),
            AgentPlace("new", str(root), 900, "b/900", recorded_at=2.0),
        ]
    )
    connection = peer(root, 900, table)
    assert connection.gather(registry, now=0.0).owner == "new"
    assert connection.gather(registry, "old", now=0.0).owner == "old"


# -- failing steps


class Failing(ProcessMap):
    """A table in which one step can't be done."""

    step = ""

    def read(self, pid: int) -> Process | None:
        if self.step == "process":
            raise PermissionError(13, "Permission denied")
        return super().read(pid)

    def chain(self, pid: int) -> tuple[Process, ...]:
        if self.step == "chain":
            raise ProcessLookupError(3, "No such process")
        return super().chain(pid)

    def program(self, pid: int) -> Program:
        return Program("bash", "/usr/bin/bash")


@pytest.mark.spec("ID-64")
@pytest.mark.parametrize("step", ["peer", "process", "chain", "cwd", "registry"])
def test_each_failing_step_refuses_acts_with_its_name_and_allows_reads(root: Path, step: str) -> None:
    put(root, "furiosa")
    table = Failing(OTHER)
    table.step = step
    if step != "cwd":
        table.cwds[900] = str(root)
    connection = peer(root, 0 if step == "peer" else 900, table)
    evidence = connection.gather(None if step == "registry" else Registry([place("furiosa", root)]), now=0.0)
    assert evidence.failed == step
    assert evidence.failed_cause
    assert who(evidence, claim="furiosa") == "introspection_failed"
    assert who(evidence, "read", "furiosa") == ""


@pytest.mark.spec("ID-64")
def test_an_unreadable_directory_does_not_matter_to_a_proved_owner(root: Path) -> None:
    registry = Registry([place("furiosa", root, OTHER)])
    connection = peer(root, 900, ProcessMap(OTHER))
    assert who(connection.gather(registry, now=0.0)) == "furiosa"
    assert who(connection.gather(registry, "nux", now=0.0), claim="nux") == "identity_mismatch"


def test_a_peer_that_has_ended_proves_nothing(root: Path) -> None:
    put(root, "furiosa")
    registry = Registry([place("furiosa", root)])
    table = ProcessMap(OTHER)
    table.cwds[900] = str(root)
    connection = peer(root, 900, table)
    for now_there in (None, Process(900, 1, "b/901", 901.0), Process(900, 1, "b/900", 900.0, "Z")):
        table.processes.pop(900, None)
        if now_there is not None:
            table.processes[900] = now_there
        assert connection.gather(registry, now=0.0).failed == "process"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_process_that_ended_proves_nothing_though_its_parent_has_not_taken_note(root: Path) -> None:
    put(root, "furiosa")
    registry = Registry([place("furiosa", root)])
    process = subprocess.Popen([PYTHON, "-c", WAIT], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline()
        connection = peer(root, process.pid)
        assert who(connection.gather(registry, now=0.0)) == "furiosa"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert connection.gather(registry, now=0.0).failed == "process"
    finally:
        process.kill()
        process.communicate()
    assert connection.gather(registry, now=0.0).failed == "process"


def test_a_peer_with_pid_1_is_as_good_as_any(root: Path) -> None:
    put(root, "furiosa")
    table = ProcessMap(Process(1, 0, "b/1", 1.0))
    table.cwds[1] = str(root)
    assert who(peer(root, 1, table).gather(Registry([place("furiosa", root)]), now=0.0)) == "furiosa"


@pytest.mark.spec("ID-65")
def test_another_user_is_nobody_whatever_the_kernel_knows(root: Path) -> None:
    layout: Layout = find_layout(root)
    connection = PeerEvidence(ProcessMap(OTHER), layout, pid=900, uid=os.getuid() + 1)
    evidence = connection.gather(Registry([place("furiosa", root, OTHER)]), now=0.0)
    assert (evidence.uid_ok, evidence.daemon_uid) == (False, os.getuid())
    assert who(evidence, "read") == "foreign_uid"


def test_the_chain_of_a_failed_look_says_why(root: Path) -> None:
    with pytest.raises(Failed) as caught:
        peer(root, 901, ProcessMap(OTHER)).chain()
    assert (caught.value.step, caught.value.cause) == ("process", "no such process")
