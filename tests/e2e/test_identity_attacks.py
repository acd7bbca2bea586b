"""What somebody might plant, swap or claim, with real files and processes: a clear error, and nothing is changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Desks, kind, result, runtime_argv
from tests.support.daemon.repo import Repo, open_repo, wait_until
from tests.support.places import ROOT
from tests.support.trusted import trust_here
from thrum.identity.processes import open_process_table

QUICKSTART = ("--role", "builder", "--module", "core", "--no-agent-pid")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo() as opened:
        opened.thrum("daemon", "start")
        yield opened


def file_of(root: Path, name: str) -> Path:
    return root / ".thrum/identities" / f"{name}.json"


def contents(directory: Path) -> list[str]:
    """Every path, but for what a round writes in git's own directories by the way, and files of the moment."""
    found = [
        path.relative_to(directory)
        for path in directory.rglob("*")
        if not path.name.startswith(".compact.") and not path.name.endswith(".tmp") and path.name != "loose-bytes"
    ]
    return sorted(str(path) for path in found if ".git" not in path.parts or "thrum-sync" in path.parts)


@pytest.mark.spec("ID-21")
@pytest.mark.parametrize("linked", [".thrum", ".thrum/identities"])
def test_a_linked_directory_leads_nothing_elsewhere(repo: Repo, linked: str) -> None:
    name = f"led_{linked[1:].replace('/', '_')}"
    root = repo.worktree(name)
    elsewhere = repo.top / f"elsewhere_{name}"
    elsewhere.mkdir()
    if linked != ".thrum":
        (root / ".thrum").mkdir()
        (root / ".thrum/redirect").write_text(f"{repo.main}/.thrum\n")
        trust_here(root, repo.main / ".thrum")
    (root / linked).symlink_to(elsewhere)
    before = repo.facts()
    for command in (("quickstart", name), ("agent", "register", "--name", name)):
        done = repo.run(*command, "--role", "builder", "--module", name, "--json", at=root)
        refused, words = ("not_initialized", "its .thrum is a link")
        if linked != ".thrum":
            refused, words = ("store_failed", f"{root / linked}: it is a link")
        assert (done.status, done.kind) == (1, refused), done
        assert words in json.dumps(done.json["error"])
        assert done.json["error"]["remedy"]
    assert (contents(elsewhere), repo.facts()) == ([], before)


@pytest.mark.spec("ID-21")
def test_a_directory_swapped_for_a_link_later_is_neither_read_nor_written(repo: Repo, desk: Desks) -> None:
    root = repo.worktree("swapped")
    repo.thrum("quickstart", "swapped_one", *QUICKSTART[:2], "--module", "sw", "--no-agent-pid", at=root)
    identities = root / ".thrum/identities"
    quarantined = identities.rename(repo.top / "aside")
    identities.symlink_to(quarantined)
    before = {path.name: path.read_bytes() for path in quarantined.iterdir()}
    assert repo.run("whoami", "--json", at=root).kind == "no_identity"
    claude = desk(root, "claude")
    claude.ask("message.send", content="x")
    claude.ask("agent.set-status", status="blocked")
    assert {path.name: path.read_bytes() for path in quarantined.iterdir()} == before


@pytest.mark.spec("ID-13")
def test_a_pipe_in_place_of_a_file_holds_up_nobody(repo: Repo, desk: Desks) -> None:
    redirect, git = repo.worktree("piped"), repo.top / "piped_git"
    (redirect / ".thrum").mkdir()
    os.mkfifo(redirect / ".thrum/redirect")
    trust_here(redirect, repo.main / ".thrum")
    git.mkdir()
    os.mkfifo(git / ".git")
    assert repo.run("team", "--json", at=redirect).kind == "bad_redirect"
    assert repo.run("team", "--json", at=git).kind in ("not_a_repository", "not_initialized")
    shell = desk(repo.main)
    for place in (redirect, git):
        answer = shell.ask("cli.run", argv=["team"], cwd=str(place))
        assert result(answer)["exit_status"] == 1 or kind(answer)
        assert kind(desk(place).ask("message.send", content="x"))
    assert result(shell.ask("health"))["status"] == "ok"


@pytest.mark.spec("ID-22")
def test_a_file_that_others_may_write_says_nothing(repo: Repo) -> None:
    root = repo.agent("open_one", module="op", at=repo.worktree("open_one"))
    path = file_of(root, "open_one")
    path.chmod(0o666)
    data = path.read_bytes()
    done = repo.run("send", "x", "--json", at=root)
    assert done.kind == "identity_invalid" and f"chmod 600 {path}" in done.json["error"]["message"]
    assert repo.run("quickstart", "open_one", *QUICKSTART, "--json", at=root).kind == "identity_invalid"
    assert path.read_bytes() == data
    path.chmod(0o600)
    repo.thrum("send", "x", at=root)


@as_root
@pytest.mark.spec("ID-22")
def test_a_file_of_another_user_says_nothing_unless_the_worktree_is_theirs(repo: Repo) -> None:
    root = repo.agent("given_one", module="gi", at=repo.worktree("given_one"))
    path = file_of(root, "given_one")
    os.chown(path, 65534, 65534)
    done = repo.run("whoami", "--json", at=root)
    assert done.kind == "identity_invalid" and "another user (uid 65534)" in done.json["error"]["message"]
    os.chown(root, 65534, 65534)
    assert repo.json("whoami", at=root)["agent_id"] == "given_one"


@pytest.mark.spec("ID-17")
def test_a_file_of_a_future_version_serves_and_stays_what_it_is(repo: Repo) -> None:
    root = repo.agent("future_one", module="fu", at=repo.worktree("future_one"))
    path = file_of(root, "future_one")
    fields: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "version": 99, "later": {"x": [1]}, "agent_status": 7}))
    repo.thrum("agent", "set-status", "blocked", at=root)
    after = json.loads(path.read_text())
    assert (after["version"], after["later"], after["agent_status"]) == (99, {"x": [1]}, "blocked")


@pytest.mark.parametrize("name", ["../x", "\x1b[2J\nx", ".x"])
@pytest.mark.spec("ID-05")
def test_a_name_that_is_no_name_makes_no_file_wherever_it_is_said(repo: Repo, desk: Desks, name: str) -> None:
    shell = desk(repo.main)
    before, facts = contents(repo.top), repo.facts()
    assert repo.run("quickstart", "--name", name, *QUICKSTART, "--json").kind == "invalid_name"
    for variable in ("THRUM_NAME", "THRUM_AGENT_ID"):
        done = repo.run("send", "x", env={variable: name})
        assert done.status == 1 and "has invalid characters" in done.err
        assert all(char.isprintable() for char in done.err.replace("\n", ""))
        assert len(done.err.splitlines()) == 2, done.err
    assert kind(shell.register(name)) == "invalid_name"
    for method in ("agent.delete", "context.save", "agent.set-status"):
        params = {"agent.delete": {"name": name}, "agent.set-status": {"agent": name, "status": "idle"}}
        assert kind(shell.ask(method, **params.get(method, {"agent_name": name, "content": "x"})))
    assert kind(shell.ask("message.send", content="x", caller_agent_id=name))
    assert (contents(repo.top), repo.facts()) == (before, facts)


# -- processes


def test_a_process_that_becomes_another_program_after_connecting_is_judged_as_what_it_is(repo: Repo) -> None:
    """It connects as `claude`, then executes itself as a plain program over the same connection: pid and start stay."""
    root = repo.worktree("changing")
    program = (
        "import json, os, socket, sys\n"
        "if len(sys.argv) == 2:\n"
        "    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.set_inheritable(True)\n"
        "    fd = s.detach()\n"
        "else:\n"
        "    fd = int(sys.argv[2])\n"
        "s = socket.socket(fileno=fd)\n"
        "def ask(method, **params):\n"
        "    s.sendall(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': params}).encode() + b'\\n')\n"
        "    return json.loads(s.makefile().readline())\n"
        "if len(sys.argv) == 2:\n"
        "    told = ask('agent.register', name='changing_one', role='builder', module='ch')\n"
        "    print(json.dumps(told), flush=True)\n"
        "    plain = os.path.join(os.path.dirname(sys.argv[0]), 'plain.py')\n"
        "    os.execv(sys.executable, [sys.executable, plain, sys.argv[1], str(s.detach())])\n"
        "print(json.dumps(ask('message.send', content='x')), flush=True)\n"
        "os.chdir('/')\n"
        "print(json.dumps(ask('message.send', content='x', caller_agent_id='max')), flush=True)\n"
    )
    place = repo.top / "changing_bin"
    place.mkdir()
    for name in ("claude", "plain.py"):
        (place / name).write_text(program)
    running = repo.start_program([sys.executable, str(place / "claude"), str(repo.socket)], root)
    assert json.loads(running.line())["result"]["status"] == "registered"
    # The process recorded is still that process, whatever it runs now: so it is itself, and nobody else.
    assert "result" in json.loads(running.line())
    assert kind(json.loads(running.line())) == "identity_mismatch"
    assert running.end().status == 0


def test_a_descendant_that_outlives_its_agent_does_not_speak_as_it_elsewhere(repo: Repo) -> None:
    root = repo.worktree("outlived")
    desk = [sys.executable, "-m", "tests.support.daemon.caller_child", str(repo.socket)]
    detached = ["setsid", *desk]
    running = repo.start_program([*runtime_argv(repo.top / "bin", "claude"), *detached], root)

    def ask(method: str, **params: Any) -> Any:
        running.say(json.dumps({"rpc": method, "params": params}))
        return json.loads(running.line())

    assert result(ask("agent.register", name="outlived_one", role="builder", module="ou"))["status"] == "registered"
    running.say(json.dumps({"cd": str(repo.top)}))
    running.line()
    assert result(ask("message.send", content="as itself, from outside"))
    os.kill(running.pid, signal.SIGKILL)
    wait_until(lambda: any(f["agent_id"] == "outlived_one" for f in repo.facts("agent.exit")), "the agent's end")
    assert kind(ask("message.send", content="x")) == "anonymous_caller"
    assert kind(ask("message.send", content="x", caller_agent_id="outlived_one")) in (
        "anonymous_caller",
        "identity_mismatch",
    )
    running.say(json.dumps({"hang_up": True}))
    running.line()
    assert kind(ask("message.send", content="x")) == "anonymous_caller"
    running.end()  # its stdin, at whose end the descendant ends too


@pytest.mark.spec("ID-40")
def test_of_sessions_that_adopt_at_once_one_wins_and_the_others_are_refused(repo: Repo, desk: Desks) -> None:
    root = repo.agent("wanted_one", module="wa", at=repo.worktree("wanted_one"))
    sessions = [desk(root, "claude") for _ in range(6)]
    for each in sessions:
        result(each.ask("health"))
    for each in sessions:
        each.begin({"rpc": "message.send", "params": {"content": "mine"}})
    outcomes = [each.outcome() for each in sessions]
    winners = [each for each, outcome in zip(sessions, outcomes, strict=True) if "result" in outcome]
    assert [kind(outcome) for outcome in outcomes if "error" in outcome] == ["cross_worktree"] * 5
    (winner,) = winners
    assert json.loads(file_of(root, "wanted_one").read_text())["agent_pid"] == winner.pid


@as_root
@pytest.mark.spec("ID-65")
def test_another_user_gets_nothing_by_any_door(repo: Repo) -> None:
    """As that user: the command line over the repository's files, and the socket itself."""
    before, files = repo.facts(), contents(repo.main / ".thrum")
    repo.top.chmod(0o755)
    thrum = f"cd {repo.main} && HOME=/tmp {Path(sys.executable).parent / 'thrum'}"
    commands = [["sh", "-c", f"{thrum} {words}"] for words in ("send hi", "whoami", "inbox", "team")]
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(repo.socket)!r})"
    for argv in (*commands, [sys.executable, "-c", script]):
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv],
            cwd=ROOT.root,
            env={**repo.env, "THRUM_NO_AUTOSTART": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode != 0 and ("denied" in done.stderr or "Error: " in done.stderr), done
    repo.top.chmod(0o700)
    assert (repo.facts(), contents(repo.main / ".thrum")) == (before, files)


@pytest.mark.parametrize("pid", ["none", "caller", "gone"])
def test_what_a_file_says_of_a_process_lets_nobody_act_in_a_commands_own_process_either(
    repo: Repo, desk: Desks, tmp_path: Path, pid: str
) -> None:
    """A command that must look at files runs in the user's own process and chooses by identity files, which a branch
    may bring: what it chooses is a claim, and the daemon goes by its records."""
    name = f"kept_{pid}"
    root = repo.worktree(name)
    owner, other = desk(root, "claude"), desk(root, "codex")
    result(owner.register(name, module=name))
    path = file_of(root, name)
    fields: dict[str, Any] = json.loads(path.read_text())
    assert fields.pop("agent_pid") and fields.pop("agent_pid_started")
    if pid == "caller":
        ancestor = other.pid
        fields |= {"agent_pid": ancestor, "agent_pid_started": started_of(ancestor)}
    elif pid == "gone":
        fields |= {"agent_pid": 2**22 - 1, "agent_pid_started": "x/1"}
    path.write_text(json.dumps(fields))
    body = tmp_path / "body"
    body.write_text("forged")
    before = len(repo.facts("message.create"))
    for words in (("--body-file", str(body)), ("a word",)):
        answer = other.thrum("send", *words, "--json")
        assert answer["status"] == 1, answer
        error = json.loads(answer["out"])["error"]
        assert error["kind"] == "cross_worktree", answer
        if words[0] == "--body-file":
            assert error["details"]["method"] == "message.send", "the daemon says so, not the command"
    assert len(repo.facts("message.create")) == before
    path.write_text(json.dumps(fields | {"agent_pid": 0}))
    assert owner.thrum("send", "--body-file", str(body), "--json")["status"] == 0
    assert len(repo.facts("message.create")) == before + 1


def started_of(pid: int) -> str:
    seen = open_process_table().read(pid)
    assert seen is not None
    return seen.started
