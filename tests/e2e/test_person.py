"""What is no agent's to do (rpc.md §3, Na), and what an agent may try that wants to be a person.

`test_what_a_hostile_program_can` says where the wall ends: it is for accidents and obedient agents.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import runtime_argv
from tests.support.daemon.repo import SECONDS, THRUM, Done, Repo, open_repo, wait_until
from tests.support.places import ROOT

LOOSER = ("config", "set", "identity_guard.cross_worktree", "off")
MARK = {"CLAUDECODE": "1"}
AT_TERMINAL = [sys.executable, "-m", "tests.support.cli.at_terminal"]
ORPHAN = (
    "import os, subprocess, sys, time\n"
    "if os.fork(): os._exit(0)\n"
    "if os.fork(): os._exit(0)\n"
    "parent = os.getppid()\n"
    "while os.getppid() == parent and parent != 1: time.sleep(0.001)\n"
    "out, *argv = sys.argv[1:]\n"
    "done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)\n"
    "open(out + '.part', 'w').write(done.stdout); os.rename(out + '.part', out)\n"
)
"""Forks twice and goes on when its parent is gone: no ancestor is left but whoever adopts orphans."""


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        remote = opened.top / "remote.git"
        opened.git("init", "-q", "--bare", str(remote))
        opened.git("remote", "add", "origin", str(remote))
        opened.thrum("daemon", "start")
        yield opened


def run(repo: Repo, argv: Sequence[str], env: dict[str, str] | None = None) -> Done:
    """A program that stands in the repository, and what it prints."""
    done = subprocess.run(
        argv,
        cwd=repo.main,
        env={**repo.env, "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def agent(repo: Repo, *argv: str, runtime: str = "claude") -> list[str]:
    """A command that an agent's runtime starts."""
    return [*runtime_argv(repo.top / "bin", runtime), *argv]


def thrum(*words: str) -> list[str]:
    return [str(THRUM), *words, "--json"]


def logged(repo: Repo, message: str) -> list[dict[str, Any]]:
    lines = (repo.var / "daemon.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["message"] == message]


def orphaned(repo: Repo, argv: Sequence[str], env: dict[str, str]) -> Any:
    """What a command prints that an agent's double fork starts."""
    out = repo.top / f"orphan-{len(list(repo.top.glob('orphan-*')))}"
    done = run(repo, agent(repo, sys.executable, "-c", ORPHAN, str(out), *argv), env)
    assert done.status == 0, done
    wait_until(out.exists, "the orphan's end")
    return json.loads(out.read_text())


def is_refused(document: Any, *words: str) -> None:
    assert document["error"]["kind"] == "not_a_person", document
    assert document["error"]["message"].startswith("this needs a person at a terminal: ")
    assert all(word in document["error"]["message"] for word in words), document
    assert document["error"]["remedy"] == "open a terminal that no agent started, repeat there"


PROTECTED = [
    ("config", "set", "identity_guard.cross_worktree", "off"),
    ("config", "unset", "identity_guard.cross_worktree"),
    ("config", "set", "daemon.local_only", "false"),
    ("config", "unset", "daemon.local_only"),
    ("config", "set", "runtime.processes", '{"claude": []}'),
    ("sync", "enable"),
    ("sync", "disable"),
    ("init", "--sync"),
    ("init", "--keep"),
    ("init", "--keep-modes"),
    ("uninstall", "--yes"),
]


@pytest.mark.spec("ID-62")
@pytest.mark.short(3)
@pytest.mark.parametrize("words", PROTECTED, ids=" ".join)
def test_what_guards_agents_is_no_agent_s_to_change_with_a_daemon_and_without(
    repo: Repo, words: tuple[str, ...]
) -> None:
    config = repo.main / ".thrum/config.json"
    before = config.read_bytes()
    refusals = len(logged(repo, "not_a_person"))
    is_refused(run(repo, agent(repo, *thrum(*words))).json, "claude (pid ", "is among the ancestors")
    assert [record["act"] for record in logged(repo, "not_a_person")[refusals:]]
    repo.thrum("daemon", "stop")
    try:
        is_refused(run(repo, agent(repo, *thrum(*words))).json, "claude (pid ", "is among the ancestors")
    finally:
        repo.thrum("daemon", "start")
    assert config.read_bytes() == before
    assert len(logged(repo, "not_a_person")) == refusals + 2


def test_an_agent_accepts_no_settings_that_guard_agents_with_a_daemon_and_without(repo: Repo) -> None:
    config = repo.main / ".thrum/config.json"
    before = config.read_bytes()
    for edit, refused in (
        ({"identity_guard": {"cross_worktree": "off"}}, True),
        ({"runtime": {"processes": {"claude": []}}}, True),
        ({"sync": {"interval": "20s"}}, False),
    ):
        for running in (True, False):
            config.write_text(json.dumps({**json.loads(before), **edit}))
            if not running:
                repo.thrum("daemon", "stop")
            try:
                done = run(repo, agent(repo, *thrum("config", "accept", "--yes")))
                if refused:
                    is_refused(done.json, "claude (pid ", "is among the ancestors")
                else:
                    assert done.status == 0, done
            finally:
                config.write_bytes(before)
                repo.thrum("config", "accept", "--yes")
                repo.thrum("daemon", "start")
    assert repo.run("config", "get", "identity_guard.cross_worktree").out == "strict\n"


def test_what_an_agent_may_change_is_as_free_as_before(repo: Repo) -> None:
    for words in (("config", "set", "daemon.log_level", "debug"), ("config", "unset", "daemon.log_level")):
        assert run(repo, agent(repo, *thrum(*words))).status == 0
    for words in (("config", "show"), ("config", "get", "identity_guard.cross_worktree"), ("sync", "status")):
        assert run(repo, agent(repo, *thrum(*words))).status == 0


def test_a_daemon_that_an_agent_starts_does_not_sync_because_the_agent_says_so(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    try:
        is_refused(run(repo, agent(repo, *thrum("daemon", "start")), {"THRUM_LOCAL": "0"}).json, "claude (pid ")
        # One that a command starts by the way runs, as the settings say.
        assert run(repo, agent(repo, *thrum("team")), {"THRUM_LOCAL": "0"}).status == 0
        assert repo.json("sync", "status")["local_only"] is True
        done = run(repo, agent(repo, *thrum("sync", "status")), {"THRUM_LOCAL": "0"})
        assert "not by an agent" in done.json["warnings"][0]
        is_refused(run(repo, agent(repo, *thrum("daemon", "restart")), {"THRUM_LOCAL": "0"}).json, "claude (pid ")
        assert repo.run("daemon", "restart", env={"THRUM_LOCAL": "0"}).status == 0
        assert repo.json("sync", "status")["local_only"] is False
    finally:
        repo.thrum("daemon", "restart")
    assert repo.json("sync", "status")["local_only"] is True


# -- an agent that wants to be a person


def under_tmux(repo: Repo, server: str, env: dict[str, str], argv: Sequence[str]) -> Any:
    """What a command prints in a new window of a tmux server, which an agent asks for."""
    out = repo.top / f"tmux-{server}-{len(list(repo.top.glob('tmux-*')))}"
    command = f"{' '.join(argv)} > {out}.part; mv {out}.part {out}"
    window = ["tmux", "-L", server, "new-window", "-c", str(repo.main), "sh", "-c", f"'{command}'"]
    done = run(repo, agent(repo, "sh", "-c", " ".join(window)), env)
    assert done.status == 0, done
    wait_until(out.exists, "the window's end")
    return json.loads(out.read_text())


@pytest.fixture
def tmux(repo: Repo) -> Iterator[str]:
    """The name of a tmux server, ended with the test."""
    if shutil.which("tmux") is None:
        pytest.skip("no tmux")
    name = f"thrum-{os.getpid()}"
    yield name
    subprocess.run(["tmux", "-L", name, "kill-server"], check=False, capture_output=True)


@pytest.mark.parametrize(
    "under",
    [
        (),
        ("setsid", "--wait"),
        ("nohup",),
        ("env", "-u", "CLAUDECODE"),
        ("env", "-i"),
        ("sh", "-c", '"$@" & wait', "sh"),
        tuple(AT_TERMINAL),
        (*AT_TERMINAL, "env", "-i"),
    ],
    ids=lambda words: " ".join(words[-2:]) or "itself",
)
def test_what_has_the_runtime_above_it_is_refused_whatever_it_looks_like(repo: Repo, under: tuple[str, ...]) -> None:
    is_refused(run(repo, agent(repo, *under, *thrum(*LOOSER)), MARK).json, "claude (pid ", "is among the ancestors")


def test_a_pseudo_terminal_of_the_agent_s_own_is_refused(repo: Repo) -> None:
    if shutil.which("script") is None:
        pytest.skip("no script")
    command = ["script", "-q", "-c", " ".join(thrum(*LOOSER)), "/dev/null"]
    assert '"not_a_person"' in run(repo, agent(repo, *command), MARK).out


@pytest.mark.parametrize(
    "argv",
    [thrum(*LOOSER), ["setsid", "--wait", *thrum(*LOOSER)], [*AT_TERMINAL, *thrum(*LOOSER)]],
    ids=["double fork", "and setsid", "and a terminal of its own"],
)
def test_an_orphan_of_a_runtime_that_marks_what_it_starts_is_refused(repo: Repo, argv: list[str]) -> None:
    """As `at`, `nohup … &` and a daemon would run it: nobody is above, the variables are still there."""
    is_refused(orphaned(repo, argv, MARK), "CLAUDECODE of claude is in the environment of pid ")


def test_an_orphan_that_drops_the_mark_for_one_command_is_refused(repo: Repo) -> None:
    is_refused(orphaned(repo, ["env", "-u", "CLAUDECODE", *thrum(*LOOSER)], MARK), "CLAUDECODE of claude")


def test_a_window_of_a_tmux_server_that_an_agent_started_is_refused(repo: Repo, tmux: str) -> None:
    started = run(repo, agent(repo, "tmux", "-L", tmux, "new-session", "-d", "cat"), MARK)
    assert started.status == 0, started
    is_refused(under_tmux(repo, tmux, MARK, thrum(*LOOSER)), "CLAUDECODE of claude")


def test_a_daemon_that_an_agent_started_passes_no_mark_on_and_no_trust(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    assert run(repo, agent(repo, *thrum("daemon", "start")), MARK).status == 0
    daemon = repo.daemon
    assert daemon is not None
    assert b"CLAUDECODE" not in Path(f"/proc/{daemon}/environ").read_bytes()
    assert repo.run("config", "set", "identity_guard.cross_worktree", "strict").status == 0
    assert repo.run("config", "unset", "identity_guard.cross_worktree").status == 0


def test_what_a_hostile_program_can(repo: Repo, tmux: str) -> None:
    """It runs where nothing of the agent is above it and nothing marks it: as the user, who it is. docs/security.md."""
    clean = ["env", "-i", f"HOME={repo.env['HOME']}"]
    # An orphan that drops the mark before its parent goes, or of a runtime that marks nothing.
    assert orphaned(repo, thrum(*LOOSER), {})["value"] == "off"
    # A new window of the tmux server of a person.
    started = run(repo, [*clean, shutil.which("tmux") or "", "-L", tmux, "new-session", "-d", "cat"])
    assert started.status == 0, started
    words = ("config", "unset", "identity_guard.cross_worktree")
    assert under_tmux(repo, tmux, MARK, thrum(*words))["value"] == "strict"


# -- scripts, containers, CI


CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
"""A pid namespace of its own, whose first process the command is; with the /proc of outside, unless `--mount-proc`."""


@pytest.fixture
def container() -> list[str]:
    """How a command is started as the first process of a container."""
    words = [*CONTAINER, "--mount-proc"]
    if subprocess.run([*words, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no namespaces here")
    return words


def test_the_first_process_of_a_container_sets_a_repository_up(container: list[str], tmp_path: Path) -> None:
    """As `docker run IMAGE thrum …`: nothing is above it."""
    with open_repo() as fresh:
        shutil.rmtree(fresh.main / ".thrum")
        shutil.rmtree(fresh.main / ".git/thrum-sync", ignore_errors=True)
        remote = tmp_path / "remote.git"
        fresh.git("init", "-q", "--bare", str(remote))
        fresh.git("remote", "add", "origin", str(remote))
        for words in (("init", "--sync"), LOOSER, ("quickstart", "furiosa", "--role", "builder", "--module", "core")):
            done = run(fresh, [*container, *thrum(*words)])
            assert done.status == 0, (words, done)
        # Beside its daemon, in whose namespace it is the first too.
        for words in (LOOSER, ("send", "ready", "--to", "@furiosa"), ("team",)):
            script = f"{THRUM} daemon start > /dev/null && exec {' '.join(thrum(*words))}"
            done = run(fresh, [*container, "sh", "-c", script])
            assert done.status == 0, (words, done)
        assert {record["chain"] for record in logged(fresh, "person_act")} == {"thrum"}


def test_a_runtime_that_is_the_first_process_of_a_container_is_refused(repo: Repo, container: list[str]) -> None:
    repo.thrum("daemon", "stop")
    try:
        refused = run(repo, [*container, *agent(repo, "sh", "-c", f"{' '.join(thrum(*LOOSER))}; exit 1")])
        is_refused(refused.json, "claude (pid 1) is among the ancestors")
        script = f"{THRUM} daemon start > /dev/null; {' '.join(thrum(*LOOSER))}; exit 1"
        is_refused(run(repo, [*container, *agent(repo, "sh", "-c", script)]).json, "claude (pid 1)")
    finally:
        repo.thrum("daemon", "start")


def test_in_a_pid_namespace_with_another_s_proc_nobody_is_taken_for_another_process(
    repo: Repo, container: list[str]
) -> None:
    repo.thrum("daemon", "stop")
    try:
        refused = run(repo, [*CONTAINER, *thrum(*LOOSER)]).json["error"]
        assert refused["kind"] == "caller_unproved", refused
        assert "/proc is of another pid namespace" in refused["message"], refused
    finally:
        repo.thrum("daemon", "start")


def test_a_script_without_a_terminal_sets_a_repository_up(tmp_path: Path) -> None:
    """The whole of it: no terminal, no agent above."""
    with open_repo() as fresh:
        shutil.rmtree(fresh.main / ".thrum")
        shutil.rmtree(fresh.main / ".git/thrum-sync", ignore_errors=True)
        remote = tmp_path / "remote.git"
        fresh.git("init", "-q", "--bare", str(remote))
        fresh.git("remote", "add", "origin", str(remote))
        for words in (
            ("init", "--sync"),
            ("config", "set", "identity_guard.dead_pid_auto_reclaim", "off"),
            ("config", "set", "runtime.processes", '{"mytool": ["mytool"]}'),
            ("daemon", "start"),
            ("config", "set", "identity_guard.prime_ownership", "warn"),
            ("config", "unset", "identity_guard.prime_ownership"),
            ("sync", "disable"),
            ("sync", "enable", "--yes"),
            ("config", "set", "daemon.local_only", "true"),
            ("quickstart", "furiosa", "--role", "builder", "--module", "core"),
            ("send", "set up", "--to", "@furiosa"),
        ):
            done = run(fresh, ["setsid", "--wait", *thrum(*words)])
            assert done.status == 0, (words, done)
        acts = logged(fresh, "person_act")
        assert [record["act"] for record in acts] == [
            "config.set identity_guard.dead_pid_auto_reclaim",
            "config.set runtime.processes",
            "config.set identity_guard.prime_ownership",
            "config.unset identity_guard.prime_ownership",
            "sync.configure",
            "sync.configure",
            "config.set daemon.local_only",
        ]
        assert all(record["caller_pid"] and "thrum" in record["chain"] for record in acts)
        assert all("terminal" not in record for record in acts)
