"""From sent to seen: a message reaches the model of a running agent, once, with proof (wake.md §7).

The same with stand-ins, in every run of the tests, and with the real programs (`make test-runtimes`). What the scripted
model was sent is the judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, Pane, open_lab, trust
from tests.support.daemon.repo import THRUM, Repo, wait_until
from thrum.runtimes import hook_files


@dataclass
class Team:
    """A repository with alice, who sends from a shell, and bob, who runs in Claude."""

    lab: Lab
    repo: Repo
    bob: Path
    pane: Pane

    def send(self, text: str, *flags: str) -> str:
        """Alice's message to bob; its id."""
        return str(self.repo.json("send", text, "--to", "@bob", *flags, env={"THRUM_NAME": "alice"})["message_id"])

    def state(self, message_id: str) -> dict[str, object]:
        """How far it came with bob."""
        got = self.repo.json("message", "get", message_id, "--peek", env={"THRUM_NAME": "alice"})
        return next(each for each in got["message"]["recipients"] if each["agent_id"] == "bob")

    def wait_seen(self, message_id: str) -> None:
        wait_until(lambda: "seen_at" in self.state(message_id), f"{message_id} seen: {self.pane.text()}")

    def wait_waiter(self) -> None:
        """Until bob's runtime has a waiter asleep."""
        pid = self.pane.pid

        def is_there() -> bool:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        words = (entry / "cmdline").read_bytes().split(b"\0")
                        parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    except OSError:
                        continue
                    if words[-4:-1] == [b"hook", b"claude", b"wait"] and parent == pid:
                        return True
            return False

        wait_until(is_there, f"a waiter below {pid}")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("claude") as found:
        yield found


@pytest.fixture
def team(lab: Lab) -> Iterator[Team]:
    repo = Repo(lab.top)
    try:
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        bob = repo.agent("bob")
        settings = bob / ".claude/settings.local.json"
        settings.parent.mkdir()
        settings.write_text(hook_files.installed("", "claude", str(THRUM)))
        trust(lab, bob)
        pane = lab.start("claude", bob)
        pane.wait_status("idle")
        pane.shows("❯")
        found = Team(lab, repo, bob, pane)
        found.wait_waiter()
        yield found
    finally:
        repo.close()


def test_a_message_reaches_an_idle_agents_model_once_with_proof(team: Team) -> None:
    sent = team.send("please look at the parser SAY: I will")
    team.lab.wait_given("please look at the parser")
    team.wait_seen(sent)
    team.pane.wait_status("idle")
    assert team.lab.given("please look at the parser") == 1
    facts = team.repo.facts("wake.attempt")
    assert [fact["outcome"] for fact in facts] == ["offered", "proved"]
    assert json.dumps(facts[0]["attempt_id"]) == json.dumps(facts[1]["attempt_id"])
    said = next(entry["new"] for entry in team.lab.model_log() if "the parser" in entry["new"])
    assert "through thrum" in said
    assert "@alice" in said


def test_a_half_typed_line_survives_a_wake(team: Team) -> None:
    team.pane.type("half a line")
    team.pane.shows("half a line")
    sent = team.send("are you there")
    team.wait_seen(sent)
    team.pane.wait_status("idle")
    team.pane.shows("half a line")


def test_while_it_works_the_message_comes_after_the_running_tool_in_the_same_turn(team: Team) -> None:
    done = team.lab.top / "done"
    team.pane.say(f"RUN: until [ -e {done} ]; do sleep 0.1; done")
    wait_until(lambda: any(entry["answer"][0] == "tool" for entry in team.lab.model_log()), "the tool")
    team.wait_waiter()
    sent = team.send("while you work")
    wait_until(lambda: team.repo.facts("wake.attempt"), "the offer")
    assert not team.lab.given("while you work")
    assert "seen_at" not in team.state(sent)
    done.touch()
    team.wait_seen(sent)
    assert team.lab.given("while you work") == 1


def test_the_next_message_is_told_too_and_a_burst_is_one_wake(team: Team) -> None:
    first = team.send("number one")
    team.wait_seen(first)
    team.pane.wait_status("idle")
    team.wait_waiter()
    burst = [team.send(f"burst {number}") for number in range(5)]
    for each in burst:
        team.wait_seen(each)
    for number in range(5):
        assert team.lab.given(f"burst {number}") == 1
    offers = [fact for fact in team.repo.facts("wake.attempt") if fact["outcome"] == "offered"]
    assert len(offers) <= 4


def test_what_was_read_meanwhile_wakes_nobody(team: Team) -> None:
    team.pane.say("SLOW: 600")
    wait_until(lambda: any("SLOW" in entry["new"] for entry in team.lab.model_log()), "the request")
    assert team.pane.status == "busy"


def test_a_killed_daemon_is_found_again_by_its_waiters(team: Team) -> None:
    team.repo.kill_daemon()
    sent = team.send("after the daemon died")
    team.wait_seen(sent)
    assert team.lab.given("after the daemon died") == 1


def test_no_process_is_left_when_the_runtime_is_killed(team: Team) -> None:
    import os
    import signal

    os.kill(team.pane.pid, signal.SIGKILL)

    def waiters() -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes()
                    environ = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if b"hook\0claude\0wait" in words and str(team.lab.home).encode() in environ:
                    found.append(entry.name)
        return found

    wait_until(lambda: not waiters(), "the end of its waiters")
