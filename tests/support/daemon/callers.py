"""Callers of the daemon that stand somewhere, under processes that count as agent runtimes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.daemon.repo import THRUM, Repo, Running
from tests.support.places import ROOT

RUNTIME = (
    "import subprocess, sys\n"
    "argv = sys.argv[1:]\n"
    "sys.exit(subprocess.call(argv[1:] if argv[0] == 'app-server' else argv))\n"
)
"""A script that runs a command as its child: called `claude`, it counts as that runtime, and `codex app-server` as a
server of many sessions."""

Answer = dict[str, Any]


def runtime_argv(directory: Path, *names: str) -> list[str]:
    """How to start a command under runtimes of these names, outermost first; their scripts lie in `directory`.

    A name may have a word behind it: `codex app-server`.
    """
    directory.mkdir(exist_ok=True)
    argv: list[str] = []
    for name, *words in map(str.split, names):
        script = directory / name
        if not script.exists():  # one that is just starting must not find it empty
            script.write_text(RUNTIME)
        argv += [sys.executable, str(script), *words]
    return argv


class Desk:
    """A process that stands somewhere, under runtimes of these names, outermost first.

    `terminal`: on a terminal of its own, as a person's shell is.
    """

    def __init__(self, repo: Repo, at: Path, *runtimes: str, terminal: bool = False, **env: str) -> None:
        argv = [sys.executable, "-m", "tests.support.cli.at_terminal"] if terminal else []
        argv += runtime_argv(repo.top / "bin", *runtimes)
        argv += [sys.executable, "-m", "tests.support.daemon.caller_child", str(repo.socket)]
        self._running = Running(argv, at, {**repo.env, "PYTHONPATH": str(ROOT), **env})
        self.pid = self._running.pid

    def order(self, **order: Any) -> Any:
        self.begin(order)
        return self.outcome()

    def begin(self, order: dict[str, Any]) -> None:
        self._running.say(json.dumps(order))

    def outcome(self) -> Any:
        return json.loads(self._running.line())

    def ask(self, method: str, **params: Any) -> Answer:
        return self.order(rpc=method, params=params)

    def register(self, name: str, role: str = "builder", module: str = "core", **options: Any) -> Answer:
        return self.ask("agent.register", name=name, role=role, module=module, **options)

    def thrum(self, *words: str, **env: str) -> Answer:
        return self.order(run=[str(THRUM), *words], env=env)

    def send(self, **params: Any) -> str:
        """What came of a message: its author, or the kind of the refusal."""
        answer = self.ask("message.send", content="hello", **params)
        if "error" in answer:
            return kind(answer)
        return self.ask("message.get", message_id=answer["result"]["message_id"])["result"]["message"]["author"][
            "agent_id"
        ]

    def close(self) -> None:
        self._running.end()
        self._running.close()


def result(answer: Answer) -> Any:
    assert "result" in answer, answer
    return answer["result"]


def kind(answer: Answer) -> str:
    assert "error" in answer, answer
    assert answer["error"]["data"]["remedy"], answer
    return answer["error"]["data"]["kind"]


Desks = Callable[..., Desk]
"""`desk(at, *runtimes, terminal=False, **env)`: the fixture of tests/e2e/conftest.py."""
