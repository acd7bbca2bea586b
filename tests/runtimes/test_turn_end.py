"""Gemini and Cursor: what is unseen when a turn ends goes on in it, once, with proof (wake.md §3, §7).

The same with stand-ins, in every run of the tests, and with the real Gemini (`make test-runtimes`). What the scripted
model was sent is the judge.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtimes.lab import open_lab, real
from tests.runtimes.teams import ALICE, Bob, open_bob
from tests.support.daemon.repo import THRUM, wait_until

BOTH = pytest.mark.parametrize("runtime", ["gemini", "cursor"])
ASKS = pytest.mark.parametrize(("runtime", "flags"), [("gemini", "")], ids=["gemini"])
"""It asks its person before it runs a command."""


@pytest.fixture
def flags(runtime: str) -> str:
    """What bob's program is started with."""
    return "--yolo" if runtime == "gemini" else ""


@pytest.fixture
def bob(runtime: str, flags: str) -> Iterator[Bob]:
    if runtime != "gemini" and real("gemini"):
        pytest.skip("beside the real Gemini the stand-in of another program shows nothing")
    with open_lab(runtime) as lab, open_bob(lab, runtime, flags) as found:
        found.wait_process()
        yield found


def _door(bob: Bob) -> str:
    return f"{bob.runtime}.turn_end"


@BOTH
def test_what_comes_while_it_works_is_told_when_the_turn_ends_once_with_proof(bob: Bob) -> None:
    done = bob.work()
    sent = bob.send("please look at the parser")
    bob.wait_why(sent, "working (turn end)")
    assert not bob.given("please look at the parser")
    done.touch()
    bob.wait_seen(sent)
    bob.wait_told_once("please look at the parser")
    assert bob.attempts() == [(_door(bob), "offered"), (_door(bob), "proved")]
    said = next(entry["new"] for entry in bob.lab.model_log() if "the parser" in entry["new"])
    assert "through thrum" in said
    assert "@alice" in said


@BOTH
def test_no_turn_is_prolonged_twice_in_a_row_and_the_next_one_is_again(bob: Bob) -> None:
    done = bob.work()
    script = bob.lab.top / "s"
    script.write_text(f"touch {bob.lab.top}/began; until [ -e {bob.lab.top}/more ]; do sleep 0.1; done")
    first = bob.send(f"RUN: sh {script}")
    done.touch()
    wait_until((bob.lab.top / "began").exists, f"the turn goes on: {bob.pane.text()}")
    second = bob.send("the second one")
    (bob.lab.top / "more").touch()
    bob.wait_seen(first)
    bob.wait_idle()
    assert not bob.given("the second one")
    assert len([door for door, outcome in bob.attempts() if door == _door(bob) and outcome == "offered"]) == 1
    bob.say("SAY: hello")
    bob.wait_seen(second)
    bob.wait_told_once("the second one")


@BOTH
def test_a_burst_is_told_at_one_turns_end(bob: Bob) -> None:
    done = bob.work()
    send = f"THRUM_NAME=alice {THRUM} send 'item N of the burst' --to @bob --quiet"
    assert bob.repo.shell(f'seq 10 29 | xargs -P 4 -I N sh -c "{send}"').end().status == 0
    done.touch()

    def are_seen() -> bool:
        sent = bob.repo.json("sent", "-n", "50", env=ALICE)["messages"]
        return len(sent) == 20 and all("seen_at" in each["recipients"][0] for each in sent)

    wait_until(are_seen, f"the whole burst is seen: {bob.pane.text()}")
    bob.wait_idle()
    for number in range(10, 30):
        bob.wait_told_once(f"item {number} of the burst")
    assert bob.attempts().count((_door(bob), "offered")) == 1


@BOTH
def test_what_was_read_meanwhile_is_not_told_and_a_turn_without_mail_just_ends(bob: Bob) -> None:
    done = bob.work()
    sent = bob.send("read before the turn ended")
    bob.repo.thrum("message", "read", sent, at=bob.home, env={"THRUM_NAME": "bob"})
    done.touch()
    bob.wait_idle()
    assert not bob.given("read before the turn ended")
    assert bob.attempts() == []


@BOTH
def test_a_daemon_that_is_gone_breaks_no_turn_and_the_next_one_tells(bob: Bob) -> None:
    done = bob.work()
    bob.repo.kill_daemon()
    done.touch()
    bob.wait_idle()
    sent = bob.send("after the daemon died")
    assert not bob.given("after the daemon died")
    bob.say("SAY: go on")
    bob.wait_seen(sent)
    bob.wait_told_once("after the daemon died")


@BOTH
def test_escape_ends_a_turn_that_is_not_prolonged(bob: Bob) -> None:
    bob.work()
    sent = bob.send("after escape")
    bob.pane.keys("Escape")
    bob.wait_idle()
    assert not bob.given("after escape")
    bob.say("SAY: hello")
    bob.wait_seen(sent)
    bob.wait_told_once("after escape")


@ASKS
def test_a_dialog_blocks_the_agent_and_what_waits_is_told_when_the_turn_ends(bob: Bob) -> None:
    made = bob.lab.top / "made"
    bob.say(f"RUN: mkdir {made}")
    bob.wait_dialog()
    wait_until(lambda: bob.status()[0] == "blocked", "bob is blocked")
    assert f"mkdir {made}" in str(bob.status()[1])
    sent = bob.send("while the dialog is open")
    bob.wait_why(sent, "dialog open ")
    assert bob.attempts() == []
    bob.pane.keys("Enter")
    bob.wait_seen(sent)
    bob.wait_told_once("while the dialog is open")
    assert made.exists()
    wait_until(lambda: bob.status() == ("idle", None), f"bob is not blocked any more: {bob.status()}")


@BOTH
def test_without_hooks_the_turn_ends_untouched_and_the_sender_is_told_the_remedy(runtime: str, flags: str) -> None:
    if runtime != "gemini" and real("gemini"):
        pytest.skip("beside the real Gemini the stand-in of another program shows nothing")
    with open_lab(runtime) as lab, open_bob(lab, runtime, flags, hooks=False) as bob:
        bob.say("RUN: thrum prime")
        bob.wait_process()
        bob.wait_idle()
        sent = bob.send("is there a hook")
        assert bob.why(sent) == f"no hooks: thrum hook install {runtime}"
        bob.say("SAY: hello")
        bob.wait_given("SAY: hello")
        bob.wait_idle()
        assert not bob.given("is there a hook")
