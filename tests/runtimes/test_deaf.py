"""Where no waiter is alive: Claude's own socket, then a line in its prompt; and a prompt that is a person's is never
touched (wake.md §3). With stand-ins in every run, with the real program in `make test-runtimes`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtimes.lab import Lab, open_lab, trust
from tests.runtimes.test_wake import Team
from tests.support.daemon.repo import THRUM, Repo, wait_until
from thrum.runtimes import hook_files

BYPASS = "--dangerously-skip-permissions"
"""Where bypass mode is possible, the socket is not used."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab("claude") as found:
        yield found


@pytest.fixture
def flags() -> str:
    return ""


@pytest.fixture
def hooks() -> bool:
    return True


typed = pytest.mark.parametrize("flags", [BYPASS], ids=["bypass"])
unhooked = pytest.mark.parametrize("hooks", [False], ids=["no-hooks"])


@pytest.fixture
def team(lab: Lab, flags: str, hooks: bool) -> Iterator[Team]:
    repo = Repo(lab.top)
    try:
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        bob = repo.agent("bob")
        if hooks:
            settings = bob / ".claude/settings.local.json"
            settings.parent.mkdir()
            settings.write_text(hook_files.installed("", "claude", str(THRUM)))
        trust(lab, bob)
        pane = lab.start(f"claude {flags}".rstrip(), bob)
        pane.wait_status("idle")
        pane.shows("❯")
        found = Team(lab, repo, bob, pane)
        if hooks:
            found.wait_waiter()
        else:
            pane.say("RUN: thrum prime")
            found.wait_process("bob", pane)
            pane.wait_status("idle")
        yield found
    finally:
        repo.close()


def deafen(team: Team) -> None:
    """Kill the waiters below bob's runtime: it starts none before the next event."""
    team.wait_waiter()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if b"hook\0claude\0wait" in words and parent == team.pane.pid:
                os.kill(int(entry.name), signal.SIGKILL)


def attempts(team: Team) -> list[tuple[str, str]]:
    return [(str(fact["door"]), str(fact["outcome"])) for fact in team.repo.facts("wake.attempt")]


def test_a_deaf_claude_is_told_by_its_socket_with_proof(team: Team) -> None:
    deafen(team)
    sent = team.send("by the socket SAY: got it")
    team.wait_why(sent, "deaf: ")
    team.wait_seen(sent)
    team.wait_told_once("by the socket")
    assert attempts(team) == [("claude.socket", "offered"), ("claude.socket", "proved")]
    team.wait_waiter()  # the turn's hooks started one again
    again = team.send("by the waiter again")
    team.wait_seen(again)
    assert attempts(team)[-1] == ("claude.waiter", "proved")


@unhooked
def test_without_hooks_it_is_told_once_by_its_socket_and_no_receipt_is_given(team: Team) -> None:
    sent = team.send("is there a hook SAY: yes")
    assert team.why(sent) == "no hooks: thrum hook install claude"
    team.lab.wait_given("is there a hook")
    team.wait_why(sent, "probably seen")
    team.wait_told_once("is there a hook")
    assert attempts(team) == [("claude.socket", "offered")]
    assert "seen_at" not in team.state(sent)


@typed
def test_where_bypass_mode_is_possible_a_line_is_typed_with_proof(team: Team) -> None:
    deafen(team)
    team.lab.tmux("rename-session", "-t", team.pane.pane, "renamed")
    sent = team.send("by the prompt")
    team.wait_seen(sent)
    team.lab.wait_given("1 message from alice. Read it: thrum inbox.")  # its hook is the first to know
    assert attempts(team) == [("typed", "offered"), ("typed", "proved")]
    assert not team.lab.given("by the prompt")


@typed
def test_a_daemon_that_is_killed_after_enter_types_no_second_line(team: Team) -> None:
    deafen(team)
    sent = team.send("before its death")
    team.lab.wait_given("1 message from alice")
    team.repo.kill_daemon()
    team.wait_seen(sent)
    team.pane.wait_status("idle")
    assert team.lab.given("1 message from alice") == 1
    assert attempts(team) == [("typed", "offered"), ("typed", "proved")]


@typed
@unhooked
def test_without_hooks_one_line_is_typed_and_no_receipt_is_given(team: Team) -> None:
    sent = [team.send("one"), team.send("two")]
    team.lab.wait_given("2 messages from alice")
    team.wait_why(sent[0], "probably seen")
    assert attempts(team) == [("typed", "offered")]
    assert "seen_at" not in team.state(sent[1])


@typed
def test_a_half_typed_line_is_left_alone_until_it_is_gone(team: Team) -> None:
    team.pane.type("half a line")
    team.pane.shows("half a line")
    deafen(team)
    sent = team.send("over there")
    team.wait_why(sent, "deaf: the pane shows idle_draft")
    assert attempts(team) == []
    team.pane.keys(*["BSpace"] * len("half a line"))
    team.wait_seen(sent)
    team.lab.wait_given("1 message from alice")
    assert not team.lab.given("half")


@typed
def test_copy_mode_is_left_alone(team: Team) -> None:
    team.lab.tmux("copy-mode", "-t", team.pane.pane)
    deafen(team)
    sent = team.send("while it is scrolled")
    team.wait_why(sent, "deaf: the pane shows copy_mode")
    assert attempts(team) == []
    team.lab.tmux("send-keys", "-X", "-t", team.pane.pane, "cancel")
    team.wait_seen(sent)


@typed
def test_a_shell_that_follows_in_the_pane_is_left_alone(team: Team) -> None:
    deafen(team)
    sent = team.send("to a shell")
    team.pane.say("/exit")
    team.pane.shows("bash")
    team.wait_why(sent, "process gone")
    assert "through thrum" not in team.pane.text()
    assert not [door for door, outcome in attempts(team) if outcome == "proved"]


@pytest.mark.parametrize("flags", ["--permission-mode default"], ids=["manual"])
def test_an_open_dialog_is_offered_nothing_by_any_door(team: Team) -> None:
    team.open_dialog(f"touch {team.lab.top}/never")
    deafen(team)
    sent = team.send("while the dialog is open")
    team.wait_why(sent, "dialog open ")
    wait_until(lambda: team.why(sent) >= "dialog open 12s" or "m" in team.why(sent)[12:], "the time of a deaf one")
    assert attempts(team) == []
    team.pane.keys("Escape")
    team.wait_seen(sent)
    team.wait_told_once("while the dialog is open")
    assert attempts(team) == [("claude.socket", "offered"), ("claude.socket", "proved")]
