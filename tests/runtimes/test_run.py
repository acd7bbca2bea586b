"""`thrum run`: from an empty repository to agents that reach each other's models, in one command each (wake.md §6).

With stand-ins in every run of the tests, and with the real programs (`make test-runtimes`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, Pane, open_lab, trust
from tests.support.daemon.repo import wait_until
from tests.support.places import ROOT


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("claude") as found:
        yield found


@pytest.fixture
def place(lab: Lab) -> Path:
    """A repository that nothing was done in but its first commit."""
    found = lab.top / "shop"
    for words in (["init", "-q", "-b", "main", str(found)], ["-C", str(found), "commit", "-q", "--allow-empty", "-mi"]):
        subprocess.run(["git", *words], env=lab.environment(), check=True)
    trust(lab, found)
    return found


def thrum(lab: Lab, place: Path, *words: str, env: Mapping[str, str] = {}) -> str:
    environ = {**lab.environment(), **env}
    done = subprocess.run([lab.bin / "thrum", *words], cwd=place, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (words, done)
    return done.stdout


def run(lab: Lab, place: Path, name: str) -> Pane:
    return started(lab, place, f"thrum run {name} claude")


def started(lab: Lab, place: Path, line: str) -> Pane:
    pane = lab.start(line, place, runtime="claude")
    pane.wait_status("idle")
    pane.shows("❯")
    return pane


def test_two_terminals_are_the_whole_set_up_as_the_first_page_of_the_quickstart_says(lab: Lab, place: Path) -> None:
    page = (ROOT / "docs/quickstart.md").read_text()
    typed = re.findall(r"^shop \$ (thrum run \w+ \w+)$", page[: page.index("\n# Two agents")], re.MULTILINE)
    assert [line.split()[-1] for line in typed] == ["claude", "codex"]
    lab.install("codex")
    trust(lab, place)
    alice = started(lab, place, typed[0])
    bob = lab.start(typed[1], place, runtime="codex")
    bob.shows("fake default")
    untouched = subprocess.run(["git", "status", "--porcelain"], cwd=place, check=True, capture_output=True)
    assert untouched.stdout == b"" and not (place / ".claude").exists()
    alice.say("RUN: thrum send 'how old is it? RUN: thrum reply @alice $((6 * 7))-years' --to @bob")
    lab.wait_given("42-years")  # what bob's shell made of it: nothing but the answer has it
    alice.wait_status("idle")
    assert lab.given("42-years") == 1
    assert lab.given("through thrum") >= 2, "each model was told by a wake"


def test_two_of_a_kind_in_one_directory_answer_each_other(lab: Lab, place: Path) -> None:
    alice = run(lab, place, "alice")
    run(lab, place, "bob")
    alice.say("RUN: thrum send 'how old is it? RUN: thrum reply @alice $((6 * 7))-years' --to @bob")
    lab.wait_given("42-years")
    alice.wait_status("idle")
    assert lab.given("42-years") == 1


def facts(place: Path, kind: str, agent: str = "") -> list[dict[str, object]]:
    lines = (place / ".git/thrum-sync/local.jsonl").read_text().splitlines()
    found = [fact for fact in map(json.loads, lines) if fact["type"] == kind]
    return [fact for fact in found if not agent or fact["agent_id"] == agent]


def test_the_process_is_the_runtime_itself_and_its_end_is_the_agents(lab: Lab, place: Path) -> None:
    pane = run(lab, place, "alice")
    wait_until(lambda: any(fact.get("agent_pid") == pane.pid for fact in facts(place, "agent.place")), "its process")
    os.kill(pane.pid, signal.SIGKILL)
    wait_until(lambda: [fact["agent_id"] for fact in facts(place, "agent.exit")] == ["alice"], "its end")
    again = run(lab, place, "alice")
    wait_until(lambda: facts(place, "agent.place")[-1].get("agent_pid") == again.pid, "its next process")


def test_in_a_session_it_is_reached_all_the_same(lab: Lab, place: Path) -> None:
    run(lab, place, "alice")  # it starts the daemon, and with it tmux, where real programs find the model alone
    said = thrum(lab, place, "run", "carl", "claude", "--tmux", "--worktree", "w")
    assert "thrum tmux connect carl" in said
    places = ("agent.place", "carl")
    wait_until(lambda: any(fact.get("agent_pid") for fact in facts(place, *places)), "its process")
    thrum(lab, place, "quickstart", "dora", "--role=r", "--module=m", "--no-agent-pid")
    thrum(lab, place, "send", "to a session", "--to", "@carl", env={"THRUM_NAME": "dora"})
    lab.wait_given("to a session")
    thrum(lab, place, "tmux", "kill", "carl", env={"THRUM_NAME": "dora"})
