"""Runs that answer once are told from those that a person is at."""

from __future__ import annotations

import pytest

from thrum.runtimes.one_shot import is_one_shot


@pytest.mark.parametrize(
    ("runtime", "line", "once"),
    [
        ("claude", "claude -p hello", True),
        ("claude", "claude --resume", False),
        ("gemini", "node /opt/bin/gemini -p hello", True),
        ("gemini", "node /opt/bin/gemini --prompt=hello", True),
        ("gemini", "node /opt/bin/gemini --yolo", False),
        ("cursor", "cursor-agent --print hello", True),
        ("cursor", "cursor-agent", False),
        ("opencode", "opencode run hello", True),
        ("opencode", "opencode /srv/run", False),
        ("opencode", "opencode", False),
        ("codex", "codex exec hello", False),
    ],
)
def test_a_run_that_answers_once(runtime: str, line: str, once: bool) -> None:
    assert is_one_shot(runtime, line.split()) is once
