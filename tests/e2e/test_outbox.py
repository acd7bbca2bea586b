"""What an agent sends from inside a sandbox without sockets goes out with the next hook of its session, once (0074).

The sandbox is a real seccomp filter, as Codex's default one; tools and hooks run below a process that the kernel shows
as Codex's app-server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli.sandbox import REFUSED
from tests.support.daemon.repo import Done, Repo
from tests.support.places import SUPPORT

SANDBOX = SUPPORT / "cli" / "sandbox.py"
SESSION = "0199aaaa-bbbb-7ccc-8ddd-eeeeffff0001"
SERVER = "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[2:]))\n"


class Codex:
    """Bob's session in Codex: a server, whose tools are in a sandbox, and its hooks."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.bob = repo.agent("bob")
        self.server = repo.top / "codex"
        self.server.write_text(SERVER)

    def below(self, *argv: str | Path, at: Path | None = None, stdin: str = "", env: Mapping[str, str] = {}) -> Done:
        command = [sys.executable, str(self.server), "app-server", *map(str, argv)]
        done = subprocess.run(
            command,
            cwd=at or self.bob,
            env={**self.repo.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def tool(self, *words: str, session: str = SESSION, at: Path | None = None, stdin: str = "") -> Done:
        program = (sys.executable, SANDBOX, "connect", self.repo.program)
        return self.below(*program, *words, at=at, stdin=stdin, env={"CODEX_THREAD_ID": session})

    def hook(self, event: str, session: str = SESSION, at: Path | None = None, **payload: Any) -> Done:
        told = json.dumps({"session_id": session, "cwd": str(at or self.bob), "hook_event_name": event, **payload})
        return self.below(self.repo.program, "hook", "codex", event, at=at, stdin=told)

    @property
    def outbox(self) -> Path:
        return self.bob / ".thrum/outbox" / SESSION

    def waiting(self) -> list[str]:
        return sorted(path.name for path in self.outbox.glob("*.json"))

    def texts(self) -> list[str]:
        return [str(fact["body"]["content"]) for fact in self.repo.facts("message.create")]


@pytest.fixture
def codex() -> Iterator[Codex]:
    repo = Repo()
    try:
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        made = Codex(repo)
        if made.tool("--version").status == REFUSED:
            pytest.skip("this kernel takes no seccomp filter")
        made.hook("SessionStart", source="startup")
        yield made
    finally:
        repo.close()


def test_what_is_sent_goes_out_with_the_next_hook_in_order_and_once(codex: Codex) -> None:
    for number in range(3):
        done = codex.tool("send", f"number {number}", "--to", "@alice")
        assert done.status == 0 and "goes out with the next hook" in done.out, done
    assert len(codex.waiting()) == 3 and codex.texts() == []
    done = codex.hook("PostToolUse", tool_name="shell")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert codex.texts() == ["number 0", "number 1", "number 2"]
    assert {fact["agent_id"] for fact in codex.repo.facts("message.create")} == {"bob"}
    assert not codex.waiting()
    codex.hook("Stop")
    assert len(codex.texts()) == 3
    message = codex.repo.json("inbox", env={"THRUM_NAME": "alice"})["messages"][-1]
    codex.repo.thrum("reply", message["message_id"], "why?", env={"THRUM_NAME": "alice"})
    answered = codex.tool("reply", "@alice", stdin="because\nof that\n")
    assert answered.status == 0, answered
    codex.hook("Stop")
    assert codex.texts()[-1] == "because\nof that"
    assert "reply_to" in {ref["type"] for ref in codex.repo.facts("message.create")[-1]["refs"]}


def test_a_request_that_was_handed_in_before_its_hook_was_killed_counts_once(codex: Codex) -> None:
    codex.tool("send", "only once", "--to", "@alice")
    (name,) = codex.waiting()
    data = (codex.outbox / name).read_bytes()
    codex.hook("PostToolUse")
    (codex.outbox / name).write_bytes(data)  # as if the hook had died before it took the file away
    codex.hook("PostToolUse")
    assert codex.texts() == ["only once"] and not codex.waiting()


def test_a_refusal_stops_nothing_behind_it_and_the_model_is_told_by_the_next_hook_that_can_speak(codex: Codex) -> None:
    codex.tool("send", "lost", "--to", "@nosuch")
    codex.tool("send", "kept", "--to", "@alice")
    assert codex.hook("Stop").out == ""
    assert codex.texts() == ["kept"]
    told = json.loads(codex.hook("PostToolUse").out)["hookSpecificOutput"]["additionalContext"]
    assert "thrum send lost --to @nosuch" in told and "refused" in told and "nosuch" in told
    assert codex.hook("PostToolUse").out == "", "once"


def test_while_no_daemon_answers_a_request_waits(codex: Codex) -> None:
    codex.tool("send", "later", "--to", "@alice")
    codex.repo.thrum("daemon", "stop")
    codex.hook("Stop")
    assert codex.waiting() or codex.texts() == ["later"]
    codex.repo.thrum("daemon", "start")
    codex.hook("Stop")
    assert codex.texts() == ["later"] and not codex.waiting()


def test_a_command_line_that_is_wrong_is_refused_at_once(codex: Codex) -> None:
    done = codex.tool("send", "x", "--nosuch")
    assert done.status == 2 and "unknown flag --nosuch" in done.err and not codex.waiting()
    long = codex.tool("send", "-", "--to", "@alice", stdin="x" * 70_000)
    assert long.status == 1 and "the limit from inside a sandbox is 65536" in long.err and not codex.waiting()
    asked = codex.tool("ask", "alice", "well?")
    assert asked.status == 2 and "a sandbox forbids Unix sockets" in asked.err
    assert codex.tool("wait").status == 2


def test_a_full_outbox_says_so(codex: Codex) -> None:
    codex.tool("send", "first", "--to", "@alice")
    (name,) = codex.waiting()
    data = (codex.outbox / name).read_bytes()
    for number in range(99):
        (codex.outbox / f"{name[:20]}{number:06d}.json".replace("I", "J")).write_bytes(data)
    done = codex.tool("send", "one too many", "--to", "@alice")
    assert done.status == 1 and "100 requests wait already" in done.err


def test_without_a_hook_of_the_session_nothing_is_taken_for_sent(codex: Codex) -> None:
    done = codex.tool("send", "hi", "--to", "@alice", session="0199aaaa-bbbb-7ccc-8ddd-eeeeffff0002")
    assert done.status == 1 and "a sandbox forbids Unix sockets" in done.err
    odd = codex.tool("send", "hi", "--to", "@alice", session="../../x")
    assert odd.status == 1 and "a sandbox forbids" in odd.err


@pytest.mark.parametrize("forgery", ["another nonce", "a link", "a hard link", "no json", "a pipe", "too large"])
def test_what_is_no_request_of_the_session_is_never_run(codex: Codex, forgery: str) -> None:
    codex.tool("send", "true", "--to", "@alice")
    (name,) = codex.waiting()
    path = codex.outbox / name
    request = json.loads(path.read_text())
    path.unlink()
    target = codex.repo.top / "elsewhere.json"
    target.write_text(json.dumps(request))
    match forgery:
        case "another nonce":  # as a branch could bring it
            path.write_text(json.dumps({**request, "nonce": "0" * 32}))
        case "a link":
            path.symlink_to(target)
        case "a hard link":
            os.link(target, path)
        case "no json":
            path.write_text("{")
        case "a pipe":
            os.mkfifo(path)
        case _:
            path.write_text(json.dumps({**request, "stdin": "x" * 70_000}))
    done = codex.hook("PostToolUse")
    assert (done.status, done.out) == (0, "")
    assert codex.texts() == [] and not codex.waiting()


def test_another_sessions_hook_hands_nothing_in_and_another_worktree_neither(codex: Codex) -> None:
    carol = codex.repo.agent("carol")
    codex.tool("send", "bob's", "--to", "@alice")
    codex.hook("PostToolUse", session="0199aaaa-bbbb-7ccc-8ddd-eeeeffff0003")
    codex.hook("PostToolUse", at=carol)
    assert codex.texts() == [] and len(codex.waiting()) == 1
    # A directory that was carried to another worktree is no outbox there: bob's session speaks where bob lives.
    there = carol / ".thrum/outbox" / SESSION
    shutil.rmtree(there)
    codex.outbox.rename(there)
    codex.hook("PostToolUse", at=carol)
    assert "carol" not in {fact["agent_id"] for fact in codex.repo.facts("message.create")}
