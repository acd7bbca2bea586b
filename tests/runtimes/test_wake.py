"""From sent to seen: a message reaches the model of a running agent, once, with proof (wake.md §7).

The same with stand-ins, in every run of the tests, and with the real programs (`make test-runtimes`). What the scripted
model was sent is the judge.
"""

from __future__ import annotations

import json
import time
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

    def why(self, message_id: str) -> str:
        """Why bob has not seen it yet."""
        return str(self.state(message_id).get("why", ""))

    def wait_why(self, message_id: str, said: str) -> None:
        wait_until(lambda: self.why(message_id).startswith(said), f"{said!r}, not {self.why(message_id)!r}")

    def wait_told_once(self, text: str) -> None:
        """Until bob's model was given that, and then it was given it once."""
        self.lab.wait_given(text)
        self.pane.wait_status("idle")
        assert self.lab.given(text) == 1

    def status(self) -> tuple[object, object]:
        """Bob's status as the team sees it, and what a dialog there asks."""
        team = self.repo.json("team", env={"THRUM_NAME": "alice"})
        bob = next(each for each in team["members"] if each["agent_id"] == "bob")
        return bob.get("agent_status"), bob.get("asks")

    def wait_process(self, agent_id: str, pane: Pane) -> None:
        """Until the program in the pane is that agent's recorded process."""
        place = {"agent_id": agent_id, "agent_pid": pane.pid}
        wait_until(lambda: any(place.items() <= each.items() for each in self.repo.facts("agent.place")), f"{place}")

    def offers(self) -> int:
        return sum(fact["outcome"] == "offered" for fact in self.repo.facts("wake.attempt"))

    def open_dialog(self, command: str) -> None:
        """Have bob's model run a command that its program asks the person about."""
        self.pane.say(f"RUN: {command}")
        self.pane.wait_status("waiting")
        wait_until(lambda: self.status()[0] == "blocked", "bob is blocked")

    def allow(self) -> None:
        """Answer the dialog with what it proposes. The real program takes no key in a dialog's first second."""

        def is_answered() -> bool:
            if self.pane.status == "waiting":
                self.pane.keys("Enter")
                time.sleep(0.5)
            return self.pane.status != "waiting"

        wait_until(is_answered, "the dialog is answered")

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
def flags() -> str:
    """What bob's program is started with."""
    return ""


MANUAL = pytest.mark.parametrize("flags", ["--permission-mode default"], ids=["manual"])
"""Bob's program asks its person before it runs a command."""


@pytest.fixture
def team(lab: Lab, flags: str) -> Iterator[Team]:
    repo = Repo(lab.top)
    try:
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        bob = repo.agent("bob")
        settings = bob / ".claude/settings.local.json"
        settings.parent.mkdir()
        settings.write_text(hook_files.installed("", "claude", str(THRUM)))
        trust(lab, bob)
        pane = lab.start(f"claude {flags}".rstrip(), bob)
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
    team.wait_told_once("while you work")


def test_the_next_message_is_told_too_and_a_burst_is_one_wake(team: Team) -> None:
    first = team.send("number one")
    team.wait_seen(first)
    team.pane.wait_status("idle")
    team.wait_waiter()
    burst = [team.send(f"burst {number}") for number in range(5)]
    for each in burst:
        team.wait_seen(each)
    for number in range(5):
        team.wait_told_once(f"burst {number}")
    assert team.offers() <= 4


def test_of_a_burst_of_a_hundred_each_is_told_once_and_wakes_are_few(team: Team) -> None:
    texts = [f"item {number} of the burst" for number in range(100)]
    send = f"THRUM_NAME=alice {THRUM} send 'item N of the burst' --to @bob --quiet"
    assert team.repo.shell(f'seq 0 99 | xargs -P 8 -I N sh -c "{send}"').end().status == 0

    def all_seen() -> bool:
        sent = team.repo.json("sent", "-n", "200", env={"THRUM_NAME": "alice"})["messages"]
        return len(sent) == 100 and all("seen_at" in each["recipients"][0] for each in sent)

    wait_until(all_seen, "the whole burst is seen")
    team.pane.wait_status("idle")
    given = " ".join(entry["new"] for entry in team.lab.model_log() if "through thrum" in entry["new"])
    assert team.offers() <= 20
    assert [given.count(f"{text}\n") for text in texts] == [1] * 100


@MANUAL
def test_nothing_is_offered_into_a_dialog_and_the_team_sees_what_it_asks(team: Team) -> None:
    made = team.lab.top / "made"
    team.open_dialog(f"touch {made}")
    status, asks = team.status()
    assert status == "blocked" and f"touch {made}" in str(asks)
    sent = team.send("while the dialog is open")
    team.wait_why(sent, "dialog open ")
    assert team.offers() == 0
    team.allow()
    team.wait_seen(sent)
    team.wait_told_once("while the dialog is open")
    assert made.exists()
    wait_until(lambda: team.status() == ("idle", None), "bob is not blocked any more")


@MANUAL
def test_escape_ends_a_dialog_and_what_waited_is_told_though_no_hook_fires(team: Team) -> None:
    team.open_dialog(f"touch {team.lab.top}/never")
    sent = team.send("after the dialog was refused")
    team.wait_why(sent, "dialog open ")
    team.pane.keys("Escape")
    team.wait_seen(sent)
    team.wait_told_once("after the dialog was refused")
    wait_until(lambda: team.status() == ("idle", None), "bob is not blocked any more")


@MANUAL
def test_escape_alone_ends_that_an_agent_is_blocked(team: Team) -> None:
    team.open_dialog(f"touch {team.lab.top}/never")
    team.pane.keys("Escape")
    wait_until(lambda: team.status() == ("idle", None), "bob is not blocked any more")


@MANUAL
def test_what_was_read_deleted_or_replaced_before_the_door_opened_is_not_told(team: Team) -> None:
    team.open_dialog(f"touch {team.lab.top}/never")
    read, deleted, replaced = (team.send(f"the {each} one") for each in ("read", "deleted", "replaced"))
    for each in (read, deleted, replaced):
        team.wait_why(each, "dialog open ")
    team.repo.thrum("message", "read", read, at=team.bob, env={"THRUM_NAME": "bob"})
    team.repo.thrum("message", "delete", deleted, "--yes", env={"THRUM_NAME": "alice"})
    last = team.send("the one that counts", "--supersedes", replaced)
    team.pane.keys("Escape")
    team.wait_seen(last)
    team.wait_told_once("the one that counts")
    assert [team.lab.given(f"the {each} one") for each in ("read", "deleted", "replaced")] == [0, 0, 0]
    assert team.offers() == 1


def test_after_escape_the_next_message_is_told_and_a_wake_that_escape_met_is_not_told_again(team: Team) -> None:
    first = team.send("SLOW: 600")
    team.wait_seen(first)
    team.lab.wait_given("SLOW: 600")
    team.wait_waiter()
    team.pane.keys("Escape")
    team.pane.wait_status("idle")
    second = team.send("after that")
    team.wait_seen(second)
    team.wait_told_once("after that")
    assert team.offers() == 2


def test_a_wake_that_was_held_by_a_tool_comes_out_once_after_escape(team: Team) -> None:
    team.pane.say("RUN: sleep 600")
    wait_until(lambda: any(entry["answer"][0] == "tool" for entry in team.lab.model_log()), "the tool")
    team.wait_waiter()
    sent = team.send("held by the tool")
    wait_until(team.offers, "the offer")
    team.pane.keys("Escape")
    team.wait_seen(sent)
    team.wait_told_once("held by the tool")
    assert team.offers() == 1


def test_after_clear_the_next_message_is_told(team: Team) -> None:
    first = team.send("before it")
    team.wait_seen(first)
    team.wait_told_once("before it")
    session = team.repo.facts("agent.place")[-1]["runtime_session"]
    team.pane.say("/clear")
    wait_until(lambda: team.repo.facts("agent.place")[-1]["runtime_session"] != session, "the new session")
    team.wait_waiter()
    second = team.send("after it")
    team.wait_seen(second)
    team.wait_told_once("after it")


def test_of_two_agents_in_one_worktree_each_is_told_its_own(team: Team) -> None:
    team.repo.agent("carol", role="reviewer", module="core", at=team.bob)
    other = team.lab.start("claude", team.bob, env={"THRUM_NAME": "carol"})
    other.wait_status("idle")
    team.wait_process("carol", other)
    Team(team.lab, team.repo, team.bob, other).wait_waiter()
    to_bob = team.send("for bob alone")
    to_carol = team.repo.json("send", "for carol alone", "--to", "@carol", env={"THRUM_NAME": "alice"})
    team.wait_seen(to_bob)
    team.wait_told_once("for bob alone")
    team.lab.wait_given("for carol alone")
    other.wait_status("idle")
    assert team.lab.given("for carol alone") == 1
    attempts = [fact for fact in team.repo.facts("wake.attempt") if fact["outcome"] == "proved"]
    proved = {fact["agent_id"]: fact["message_ids"] for fact in attempts}
    assert proved == {"bob": [to_bob], "carol": [to_carol["message_id"]]}


def test_of_a_program_without_hooks_the_sender_is_told_the_remedy(team: Team) -> None:
    team.pane.say("/exit")
    team.pane.shows("bash")
    (team.bob / ".claude/settings.local.json").unlink()
    pane = team.lab.start("claude", team.bob)
    pane.wait_status("idle")
    pane.say("RUN: thrum prime")
    team.wait_process("bob", pane)
    pane.wait_status("idle")
    done = team.repo.run("send", "is there a hook", "--to", "@bob", "--json", env={"THRUM_NAME": "alice"})
    assert json.loads(done.out)["recipients"][0]["why"] == "no hooks: thrum hook install claude"


def test_a_program_that_answers_once_is_offered_nothing_and_does_not_hang(team: Team) -> None:
    team.pane.say("/exit")
    team.pane.shows("bash")
    done = team.lab.top / "done"
    loop = f"RUN: until [ -e {done} ]; do sleep 0.1; done"
    team.lab.start(f"claude -p '{loop}' --allowedTools Bash; echo status $?", team.bob)
    wait_until(lambda: any(entry["answer"][0] == "tool" for entry in team.lab.model_log()), "the tool")
    sent = team.send("to one that answers once")
    assert "seen_at" not in team.state(sent) and team.why(sent)
    done.touch()
    team.wait_why(sent, "process gone ")
    assert team.offers() == 0
    assert not team.lab.given("to one that answers once")


def test_a_killed_daemon_is_found_again_by_its_waiters(team: Team) -> None:
    team.repo.kill_daemon()
    sent = team.send("after the daemon died")
    team.wait_seen(sent)
    team.wait_told_once("after the daemon died")


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


@MANUAL
def test_supervisors_are_told_once_of_a_dialog_and_what_it_asks_outlives_the_daemon(team: Team) -> None:
    team.repo.agent("ann", role="coordinator", module="all", at=team.repo.main)
    made = team.lab.top / "made"
    team.open_dialog(f"touch {made}")

    def told() -> list[str]:
        inbox = team.repo.json("inbox", "--all", "--peek", env={"THRUM_NAME": "ann"})
        return [each["body"]["content"] for each in inbox["messages"] if each["agent_id"] == "system"]

    (said,) = wait_until(told, "what ann is told")
    assert said.startswith("@bob asks its person for permission: Bash: touch ") and "Only a person" in said
    team.repo.kill_daemon()
    status, asks = team.status()
    assert status == "blocked" and f"touch {made}" in str(asks)
    team.allow()
    wait_until(lambda: team.status() == ("idle", None), "bob is not blocked any more")
    assert told() == [said]
    team.open_dialog(f"touch {made}.2")
    wait_until(lambda: len(told()) == 2, "what ann is told of the next one")
