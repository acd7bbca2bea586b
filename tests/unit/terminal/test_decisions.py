"""What may be typed as a line, a session's state, who is in front, and the end of a conversation: pure, or of one
process."""

from __future__ import annotations

import json

import pytest

from thrum.identity.processes import Process, ProcessMap, Program, Terminal
from thrum.terminal import foreground as module
from thrum.terminal.foreground import Foreground, foreground
from thrum.terminal.sessions import SessionFacts, pane_check, session_state
from thrum.terminal.snapshots import conversation
from thrum.terminal.tmux import tmux_environ
from thrum.terminal.typing import LINE_CHARS_MAX, unfit


@pytest.mark.parametrize(
    "text",
    [
        "",
        " padded",
        "padded ",
        "two\nlines",
        "a\ttab",
        "an \x1b[201~ escape",
        "x" * (LINE_CHARS_MAX + 1),
        "/clear",
        "!ls",
        "#note",
        "?",
        "@nux look",
        "ask @nux",
        "see /tmp",
        "hurry !",
        "say nux@",
        "ends with a backslash\\",
    ],
)
def test_a_text_that_a_runtime_would_take_for_a_command_or_complete_is_no_line(text: str) -> None:
    assert unfit(text)


@pytest.mark.parametrize(
    "text", ["thrum: mail from @nux in src/a.py, is it right? wak_01M8", "x" * LINE_CHARS_MAX, "ä ✓"]
)
def test_other_text_is_a_line(text: str) -> None:
    assert unfit(text) == ""


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (SessionFacts(False, True, "dialog"), "dead"),
        (SessionFacts(True, False, "dialog"), "stale"),
        (SessionFacts(True, True, "dialog", 500), "blocked"),
        (SessionFacts(True, True, "trust_dialog"), "blocked"),
        (SessionFacts(True, True, "idle_empty", 121), "idle"),
        (SessionFacts(True, True, "working", 120), "alive"),
        (SessionFacts(True, True), "alive"),
    ],
)
def test_a_session_s_state_follows_from_facts(facts: SessionFacts, state: str) -> None:
    assert session_state(facts) == state


def test_a_pane_is_checked_in_five_words() -> None:
    assert pane_check("dialog") == pane_check("trust_dialog", True) == "permission"
    assert pane_check("idle_empty") == pane_check("idle_draft") == "idle"
    assert pane_check("idle_empty", said_working=True) == "working_but_idle"
    assert pane_check("exited_to_shell") == "command_completed"
    assert pane_check("unknown") == pane_check("working") == "working"


def test_tmux_is_started_without_what_names_another_agent() -> None:
    unwanted = ("THRUM_NAME", "THRUM_ANY", "CLAUDE_PROJECT_DIR", "CLAUDECODE", "TMUX", "TMUX_PANE")
    assert tmux_environ({"PATH": "/bin", **dict.fromkeys(unwanted, "x")}) == {"PATH": "/bin"}


def _processes() -> ProcessMap:
    """A pane's shell 10, an agent 20 in it, an editor 30 that the agent started."""
    started = {"started": "b/1", "started_at": 1.0}
    table = ProcessMap(
        Process(10, 1, **started), Process(20, 10, **started), Process(30, 20, **started), Process(40, 1, **started)
    )
    table.programs = {10: Program("bash", "/bin/bash", ("-bash",)), 20: Program("claude"), 30: Program("vim")}
    table.terminals = {pid: Terminal("/dev/pts/1", True) for pid in (10, 20, 30)}
    return table


@pytest.mark.parametrize(
    ("leader", "agent", "owner"),
    [
        (20, 20, "agent"),
        (30, 20, "child"),
        (10, 20, "shell"),
        (10, 0, "shell"),
        (20, 0, "other"),
        (40, 20, "other"),
        (20, 99, "other"),
        (0, 20, "unknown"),
        (77, 20, "unknown"),
    ],
)
async def test_who_is_in_front_is_the_agent_its_child_the_shell_or_another(
    monkeypatch: pytest.MonkeyPatch, leader: int, agent: int, owner: str
) -> None:
    monkeypatch.setattr(module, "_by_proc", lambda pid: leader)
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module.os, "getpgid", lambda pid: pid)
    assert (await foreground(10, agent, _processes())).owner == owner


async def test_a_shell_that_runs_a_given_command_is_no_shell_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _processes()
    table.programs[10] = Program("bash", "/bin/bash", ("bash", "-c", "read -s x"))
    monkeypatch.setattr(module, "_by_proc", lambda pid: 10)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert await foreground(10, 0, table) == Foreground("other", 10)


def _claude(kind: str, content: object, **more: object) -> str:
    return json.dumps({"type": kind, "message": {"role": kind, "content": content}, **more})


def test_the_end_of_claude_s_record_is_what_was_said_and_called() -> None:
    record = [
        json.dumps({"type": "summary", "summary": "no turn"}),
        _claude("user", "run the tests\nall of them"),
        _claude("user", "of a sub-agent", isSidechain=True),
        _claude("user", "put in by Claude", isMeta=True),
        _claude("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I run them."}]),
        _claude("assistant", [{"type": "tool_use", "name": "Bash", "input": {"command": "pytest"}}]),
        _claude("user", [{"type": "tool_result", "content": "12 passed"}]),
        _claude("assistant", [{"type": "text", "text": "Done."}]),
        '{"type": "assist',
        "[1]",
        json.dumps({"type": "user", "message": None}),
    ]
    said = [
        "[user]",
        "run the tests",
        "all of them",
        "[assistant]",
        "I run them.",
        '(Bash: {"command": "pytest"})',
        "Done.",
    ]
    assert conversation(record, "claude", 200).splitlines() == said
    assert conversation(record, "claude", 2).splitlines() == said[-2:]
    assert conversation(record, "claude", 0) == conversation(record, "gemini", 9) == conversation([], "claude", 9) == ""


def test_the_end_of_codex_s_record_is_what_was_said_and_called() -> None:
    def item(**payload: object) -> str:
        return json.dumps({"timestamp": "t", "type": "response_item", "payload": payload})

    record = [
        json.dumps({"type": "session_meta", "payload": {"id": "x"}}),
        item(type="message", role="developer", content=[{"type": "input_text", "text": "rules"}]),
        item(type="message", role="user", content=[{"type": "input_text", "text": "hello"}]),
        item(type="reasoning", summary=[]),
        item(type="function_call", name="shell", arguments='{"command":["ls"]}' + "x" * 500),
        item(type="message", role="assistant", content=[{"type": "output_text", "text": "hi"}]),
        json.dumps({"type": "event_msg", "payload": {"type": "agent_message", "message": "hi"}}),
    ]
    lines = conversation(record, "codex", 200).splitlines()
    assert lines[:3] == ["[user]", "hello", "[assistant]"] and lines[-1] == "hi" and len(lines) == 5
    assert lines[3].startswith('(shell: {"command":["ls"]}x') and lines[3].endswith("…)") and len(lines[3]) < 220
