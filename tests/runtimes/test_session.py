"""What an agent's model knows from the first moment of a session: the briefing, by the hook of its start."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, Pane, open_lab, trust
from tests.support.daemon.repo import THRUM, Repo, wait_until
from thrum.runtimes import hook_files


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("claude") as found:
        yield found


@pytest.fixture
def repo(lab: Lab) -> Iterator[Repo]:
    found = Repo(lab.top)
    try:
        found.thrum("init")
        found.agent("alice", at=found.main, module="m0")
        yield found
    finally:
        found.close()


def _hooked(lab: Lab, place: Path) -> Path:
    settings = place / ".claude/settings.local.json"
    settings.parent.mkdir()
    settings.write_text(hook_files.installed("", "claude", str(THRUM)))
    trust(lab, place)
    return place


def _started(lab: Lab, place: Path) -> Pane:
    pane = lab.start("claude", place)
    pane.wait_status("idle")
    pane.shows("❯")
    return pane


def _first_words(lab: Lab, pane: Pane, text: str) -> str:
    """What a model was given with the first thing that its person says."""
    pane.say(text)
    lab.wait_given(text)
    pane.wait_status("idle")
    return next(entry["new"] for entry in lab.model_log() if text in entry["new"])


def test_a_session_begins_with_the_briefing_and_its_agent_is_that_process(lab: Lab, repo: Repo) -> None:
    bob = _hooked(lab, repo.agent("bob"))
    repo.thrum("send", "about the parser", "--to", "@bob", env={"THRUM_NAME": "alice"})
    pane = _started(lab, bob)
    lab.wait_given("about the parser")  # its waiter tells it, with the briefing before
    pane.wait_status("idle")
    said = next(entry["new"] for entry in lab.model_log() if "about the parser" in entry["new"])
    assert "# @bob (worker, core)" in said
    assert "thrum reply" in said
    place = repo.facts("agent.place")[-1]
    assert (place["agent_id"], place["agent_pid"], place["runtime"]) == ("bob", pane.pid, "claude")
    assert place["runtime_session"]
    assert place["hooks_seen_at"]
    assert said.count("about the parser") == lab.given("about the parser") == 1


def test_when_each_hook_last_fired_is_shown_and_which_one_never_does(lab: Lab, repo: Repo) -> None:
    bob = _hooked(lab, repo.agent("bob"))
    settings = bob / ".claude/settings.local.json"
    told = json.loads(settings.read_text())
    stop = told["hooks"].pop("Stop")
    settings.write_text(json.dumps(told))
    pane = _started(lab, bob)
    for turn in range(3):
        _first_words(lab, pane, f"SAY: turn {turn}")
    env = {"THRUM_NAME": "alice"}
    shown = repo.thrum("hook", "status", at=bob, env=env)
    assert re.search(r"@bob (just now|\d+s ago)", shown) and "UserPromptSubmit just now" in shown
    (claude,) = [each for each in repo.json("hook", "status", at=bob, env=env)["hooks"] if each["runtime"] == "claude"]
    (fired,) = [each for each in claude["fired"] if each["agent_id"] == "bob"]
    assert {*fired["events"]} == {"SessionStart", "UserPromptSubmit", "wait"}
    assert f"hook Stop of claude has not fired for @bob since {fired['at']}" in repo.run("doctor", at=bob, env=env).out
    os.kill(pane.pid, signal.SIGKILL)
    settings.write_text(json.dumps({"hooks": {**told["hooks"], "Stop": stop}}))
    _first_words(lab, _started(lab, bob), "SAY: turn 4")
    wait_until(lambda: "has not fired" not in repo.run("doctor", at=bob, env=env).out, "all is well")


def test_a_second_runtime_in_a_worktree_is_offered_a_name_of_its_own_in_the_words_to_type(lab: Lab, repo: Repo) -> None:
    bob = _hooked(lab, repo.agent("bob"))
    first = _started(lab, bob)
    wait_until(lambda: repo.facts("agent.place")[-1].get("agent_pid") == first.pid, "bob is the first one")
    second = _started(lab, bob)
    said = _first_words(lab, second, "SAY: second")
    assert "thrum quickstart" in said
    assert repo.facts("agent.place")[-1]["agent_pid"] == first.pid


def test_where_no_agent_lives_the_model_is_told_how_to_register(lab: Lab, repo: Repo) -> None:
    place = _hooked(lab, repo.worktree("empty"))
    said = _first_words(lab, _started(lab, place), "SAY: empty")
    assert "thrum quickstart" in said


def test_in_a_repository_without_thrum_nothing_is_said(lab: Lab) -> None:
    other = Repo(lab.top)
    try:
        said = _first_words(lab, _started(lab, _hooked(lab, other.main)), "SAY: hello")
        assert "thrum" not in said.replace(str(other.main), "")  # the program tells where it is
    finally:
        other.close()


def test_after_clear_the_briefing_comes_again(lab: Lab, repo: Repo) -> None:
    bob = _hooked(lab, repo.agent("bob"))
    pane = _started(lab, bob)
    _first_words(lab, pane, "SAY: one")
    pane.say("/clear")
    wait_until(lambda: len({fact.get("runtime_session") for fact in repo.facts("agent.place")} - {None}) == 2, "/clear")
    assert "# @bob" in _first_words(lab, pane, "SAY: two")
