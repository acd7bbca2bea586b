"""The programs themselves, before thrum comes: what thrum builds on holds of the stand-ins and of the real ones."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, open_lab, trust
from tests.support.daemon.repo import wait_until

WAITER = """\
import json, os, sys, time
payload = json.load(sys.stdin)
top = sys.argv[1]
with open(f"{top}/events", "a") as log:
    log.write(json.dumps([sys.argv[2], payload["hook_event_name"], payload.get("prompt", "")]) + "\\n")
if sys.argv[2] == "wait":
    lock = os.open(f"{top}/lock", os.O_CREAT | os.O_EXCL) if not os.path.exists(f"{top}/lock") else sys.exit(0)
    while not os.path.exists(f"{top}/wake"):
        if os.getppid() == 1:
            sys.exit(0)
        time.sleep(0.02)
    text = open(f"{top}/wake").read()
    os.unlink(f"{top}/wake")
    os.unlink(f"{top}/lock")
    sys.stderr.write(text)
    sys.exit(2)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("claude") as found:
        yield found


def _project(lab: Lab) -> Path:
    """A folder whose hooks note what happens, and whose waiter wakes with what is written into the file `wake`."""
    project = lab.top / "project"
    (project / ".claude").mkdir(parents=True)
    script = lab.top / "waiter.py"
    script.write_text(WAITER)
    command = shlex.join([sys.executable, str(script), str(lab.top)])
    hooks = {
        event: [
            {
                "matcher": "",
                "hooks": [
                    {"type": "command", "command": f"exec {command} note", "timeout": 60},
                    {"type": "command", "command": f"exec {command} wait", "asyncRewake": True, "timeout": 1_000_000},
                ],
            }
        ]
        for event in ("SessionStart", "UserPromptSubmit", "Stop")
    }
    (project / ".claude/settings.local.json").write_text(json.dumps({"hooks": hooks}))
    trust(lab, project)
    return project


def _noted(lab: Lab) -> list[list[str]]:
    path = lab.top / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for kind, *event in map(json.loads, lines) if kind == "note"]


def _wake(lab: Lab, text: str) -> None:
    wait_until(lambda: (lab.top / "lock").exists(), "a waiter")
    (lab.top / "wake.new").write_text(text)
    os.replace(lab.top / "wake.new", lab.top / "wake")


def test_a_background_hook_wakes_an_idle_claude_and_a_half_typed_line_stays(lab: Lab) -> None:
    pane = lab.start("claude", _project(lab))
    pane.wait_status("idle")
    pane.shows("❯")
    pane.type("half a line")
    pane.shows("half a line")
    _wake(lab, "news SAY: thanks wak_0000000000000000000000IDLE")
    lab.wait_given("wak_0000000000000000000000IDLE")
    wait_until(lambda: any("wak_" in prompt for _, prompt in _noted(lab)), "UserPromptSubmit with the token")
    pane.wait_status("idle")
    pane.shows("half a line")
    assert lab.given("wak_0000000000000000000000IDLE") == 1


def test_a_background_hook_is_taken_up_after_the_running_tool_in_the_same_turn(lab: Lab) -> None:
    pane = lab.start("claude", _project(lab))
    pane.wait_status("idle")
    pane.shows("❯")
    done = lab.top / "done"
    pane.say(f"RUN: until [ -e {done} ]; do sleep 0.1; done; sleep 2")  # the program notices its hook's end first
    wait_until(lambda: any(entry["answer"][0] == "tool" for entry in lab.model_log()), "the tool")
    pane.wait_status("busy")
    _wake(lab, "news wak_0000000000000000000000BUSY")
    wait_until(lambda: not (lab.top / "wake").exists(), "the waiter's end")
    assert not lab.given("wak_0000000000000000000000BUSY")
    done.touch()
    lab.wait_given("wak_0000000000000000000000BUSY")
    pane.wait_status("idle")
    assert lab.given("wak_0000000000000000000000BUSY") == 1
    assert [event for event, _ in _noted(lab)].count("Stop") == 1


def test_escape_ends_a_turn_without_a_stop_and_the_waiter_lives_on(lab: Lab) -> None:
    pane = lab.start("claude", _project(lab))
    pane.wait_status("idle")
    pane.shows("❯")
    pane.say("SLOW: 600")
    wait_until(lambda: any("SLOW" in entry["new"] for entry in lab.model_log()), "the request")
    pane.keys("Escape")
    pane.wait_status("idle")
    _wake(lab, "news wak_0000000000000000000000AESC")
    lab.wait_given("wak_0000000000000000000000AESC")
    assert "Stop" not in [event for event, _ in _noted(lab)][:-1]


def test_waiters_end_with_the_program(lab: Lab) -> None:
    pane = lab.start("claude", _project(lab))
    pane.wait_status("idle")
    pane.shows("❯")
    wait_until(lambda: (lab.top / "lock").exists(), "a waiter")
    pane.say("/exit")
    wait_until(lambda: not os.path.exists(f"/proc/{pane.pid}"), "its end")
    assert pane.status == ""
