"""OpenCode: thrum's plugin in its process gives the model what came, at once or with the next request (wake.md §3, §7).

The same with a stand-in, in every run of the tests, and with the real program (`make test-runtimes`). What the scripted
model was sent is the judge.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, open_lab, real
from tests.runtimes.teams import ALICE, Bob, open_bob
from tests.support.daemon.repo import THRUM, wait_until

pytestmark = pytest.mark.skipif(
    not real("opencode") and shutil.which("node") is None, reason="the stand-in loads the plugin: it needs node"
)
DOOR = "opencode.waiter"
FIRST_TURN_SECONDS = 240
"""Without a network the real program hesitates for a minute or more before its first request."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("opencode") as found:
        yield found


@pytest.fixture
def bob(lab: Lab) -> Iterator[Bob]:
    """Bob after a first turn: before it the program has no session that could be spoken to."""
    with open_bob(lab, "opencode") as found:
        found.wait_process()
        found.say("SAY: hello")
        found.wait_given("SAY: hello", seconds=FIRST_TURN_SECONDS)
        found.wait_idle()
        wait_waiter(found)
        yield found


def waiters(bob: Bob) -> list[int]:
    """The waiters of bob's program."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                home = f"HOME={bob.lab.home}\0".encode() in (entry / "environ").read_bytes() + b"\0"
            except OSError:
                continue
            if b"hook\0opencode\0wait" in words and home:
                found.append(int(entry.name))
    return found


def wait_waiter(bob: Bob) -> None:
    wait_until(lambda: waiters(bob), f"a waiter: {bob.pane.text()}")


def test_a_message_reaches_an_idle_agents_model_once_with_proof_and_a_half_typed_line_stays(bob: Bob) -> None:
    bob.pane.type("half a line")
    bob.pane.shows("half a line")
    sent = bob.send("please look at the parser SAY: I will")
    bob.wait_seen(sent)
    bob.wait_given("please look at the parser")
    bob.pane.shows("half a line")
    wait_until(lambda: "interrupt" not in bob.pane.text(), "the turn's end")
    assert bob.given("please look at the parser") == 1
    assert bob.attempts() == [(DOOR, "offered"), (DOOR, "proved")]
    said = next(entry["new"] for entry in bob.lab.model_log() if "the parser" in entry["new"])
    assert "through thrum" in said
    assert "@alice" in said


def test_the_model_knows_the_briefing(bob: Bob) -> None:
    assert any("bob" in entry.get("system", "") and "thrum" in entry.get("system", "") for entry in bob.lab.model_log())


def test_while_it_works_the_message_comes_after_the_running_tool_in_the_same_turn(bob: Bob) -> None:
    done = bob.work()
    sent = bob.send("while you work")
    wait_until(lambda: (DOOR, "offered") in bob.attempts(), "the offer")
    assert not bob.given("while you work")
    assert "seen_at" not in bob.state(sent)
    done.touch()
    bob.wait_seen(sent)
    bob.wait_told_once("while you work")


def test_the_next_message_is_told_too_and_a_burst_is_few_wakes(bob: Bob) -> None:
    first = bob.send("number one")
    bob.wait_seen(first)
    send = f"THRUM_NAME=alice {THRUM} send 'item N of the burst' --to @bob --quiet"
    assert bob.repo.shell(f'seq 10 39 | xargs -P 4 -I N sh -c "{send}"').end().status == 0

    def are_seen() -> bool:
        sent = bob.repo.json("sent", "-n", "50", env=ALICE)["messages"]
        return len(sent) == 31 and all("seen_at" in each["recipients"][0] for each in sent)

    wait_until(are_seen, f"the whole burst is seen: {bob.pane.text()}", seconds=180)
    bob.wait_idle()
    given = " ".join(entry["new"] for entry in bob.lab.model_log() if "through thrum" in entry["new"])
    assert [given.count(f"item {number} of the burst\n") for number in range(10, 40)] == [1] * 30
    assert bob.attempts().count((DOOR, "offered")) <= 12


def test_nothing_is_offered_into_a_dialog_and_after_it_it_is(bob: Bob) -> None:
    made = bob.lab.top / "made"
    bob.say(f"RUN: touch {made}")
    bob.wait_dialog()
    wait_until(lambda: bob.status()[0] == "blocked", "bob is blocked")
    assert f"touch {made}" in str(bob.status()[1])
    read = bob.send("read meanwhile")
    sent = bob.send("while the dialog is open")
    bob.wait_why(sent, "dialog open ")
    assert bob.attempts() == []
    bob.repo.thrum("message", "read", read, at=bob.home, env={"THRUM_NAME": "bob"})
    bob.pane.keys("Enter")
    bob.wait_seen(sent)
    bob.wait_told_once("while the dialog is open")
    assert made.exists()
    assert not bob.given("read meanwhile")
    wait_until(lambda: bob.status() == ("idle", None), f"bob is not blocked any more: {bob.status()}")


def test_a_sub_agent_is_told_nothing_and_the_agent_is_told_once(bob: Bob) -> None:
    if real("opencode"):
        pytest.skip("the scripted model starts no sub-agent of the real program")
    done = bob.lab.top / "done"
    script = bob.lab.top / "s"
    script.write_text(f"touch {bob.lab.top}/began; until [ -e {done} ]; do sleep 0.1; done")
    bob.say(f"RUN: task RUN: sh {script}")
    wait_until((bob.lab.top / "began").exists, f"the sub-agent's tool: {bob.pane.text()}")
    session = bob.places()[-1]["runtime_session"]
    sent = bob.send("while a sub-agent works")
    wait_until(lambda: (DOOR, "offered") in bob.attempts(), "the offer")
    done.touch()
    bob.wait_seen(sent)
    bob.wait_told_once("while a sub-agent works")
    assert bob.places()[-1]["runtime_session"] == session
    told = next(entry for entry in bob.lab.model_log() if "while a sub-agent works" in entry["new"])
    assert "task said" in told["new"], "it went to the agent's own session, after its tool"


def test_a_killed_daemon_is_found_again(bob: Bob) -> None:
    bob.repo.kill_daemon()
    sent = bob.send("after the daemon died")
    bob.wait_seen(sent)
    bob.wait_told_once("after the daemon died")


def test_without_a_plugin_nothing_is_offered_and_the_sender_is_told_the_remedy(lab: Lab) -> None:
    with open_bob(lab, "opencode", hooks=False) as bob:
        bob.say("RUN: thrum prime")
        bob.wait_given("RUN: thrum prime", seconds=FIRST_TURN_SECONDS)
        bob.wait_process()
        bob.wait_idle()
        sent = bob.send("is there a hook")
        assert bob.why(sent) == "no hooks: thrum hook install opencode"
        assert bob.attempts() == []


def test_a_plugin_whose_thrum_is_gone_hinders_nothing(lab: Lab) -> None:
    gone = lab.top / "gone"
    gone.symlink_to(THRUM)
    with open_bob(lab, "opencode") as bob:
        file = bob.home / ".opencode/plugins/thrum.js"
        bob.pane.keys("C-c")
        bob.pane.shows("bash")
        file.write_text(file.read_text().replace(json.dumps(str(THRUM)), json.dumps(str(gone))))
        gone.unlink()
        pane = lab.start("opencode", bob.home)
        again = Bob(lab, bob.repo, "opencode", bob.home, pane)
        again.wait_idle()
        again.say("SAY: hello")
        again.wait_given("SAY: hello", seconds=FIRST_TURN_SECONDS)
        again.wait_idle()


def test_no_process_is_left_when_the_program_is_killed(bob: Bob) -> None:
    os.kill(bob.pane.pid, signal.SIGKILL)
    wait_until(lambda: not waiters(bob), "the end of its waiters")
