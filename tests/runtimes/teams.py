"""Alice, who sends from a shell, and bob, who runs in an agent program: what the suites of all programs ask of both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.runtimes.lab import PROGRAMS, Lab, Pane, real, supply_opencode, trust
from tests.support.daemon.repo import THRUM, Repo, wait_until
from thrum.runtimes.hook_files import installed
from thrum.runtimes.opencode_plugin import installed as plugin

ALICE: Final = {"THRUM_NAME": "alice"}


def _title(pane: Pane) -> str:
    return pane.lab.tmux("display-message", "-p", "-t", pane.pane, "#{pane_title}")


_IDLE: Final[Mapping[str, Callable[[Pane], bool]]] = {
    "gemini": lambda pane: "Ready" in _title(pane) and "Type your message" in pane.text(),
    "cursor": lambda pane: "Plan, search" in pane.text(),
    "opencode": lambda pane: "interrupt" not in (text := pane.text()) and "commands" in text,
}
_DIALOG: Final = {"gemini": "Allow", "opencode": "Permission required"}
_FILES: Final = {
    "gemini": ".gemini/settings.json",
    "cursor": ".cursor/hooks.json",
    "opencode": ".opencode/plugins/thrum.js",
}


@dataclass
class Bob:
    """A repository with alice and bob, whose program is in a pane."""

    lab: Lab
    repo: Repo
    runtime: str
    home: Path
    pane: Pane

    # -- the program

    def is_idle(self) -> bool:
        return _IDLE[self.runtime](self.pane)

    def wait_idle(self) -> None:
        wait_until(self.is_idle, f"an idle prompt: {self.pane.text()}", seconds=120)

    def say(self, text: str) -> None:
        """Type a line and send it off. Real programs take an Enter just behind text for a part of what is pasted."""
        self.pane.type(text)
        self.pane.shows(text[-20:])
        if real(self.runtime):
            time.sleep(0.5)
        self.pane.keys("Enter")

    def wait_dialog(self) -> None:
        self.pane.shows(_DIALOG[self.runtime])

    def work(self, *, then: str = "") -> Path:
        """Have its model run a tool until the returned file exists."""
        done = self.lab.top / "done"
        before = len(self.tools())
        self.say(f"RUN: until [ -e {done} ]; do sleep 0.1; done{then}")
        wait_until(lambda: len(self.tools()) > before, f"the tool: {self.pane.text()}")
        return done

    def tools(self) -> Sequence[Any]:
        return [entry for entry in self.lab.model_log() if entry["answer"][0] == "tool"]

    def given(self, text: str) -> int:
        """How many requests brought that text new to its model: those that offer tools, for OpenCode has another one
        make up a title."""
        return sum(text in entry["new"] and bool(entry["tools"]) for entry in self.lab.model_log())

    def wait_given(self, text: str, seconds: float = 60) -> None:
        what = f"{text!r} in what its model was given: {self.pane.text()}"
        wait_until(lambda: self.given(text), what, seconds=seconds)

    # -- alice

    def send(self, text: str, *flags: str) -> str:
        """Alice's message to bob; its id."""
        return str(self.repo.json("send", text, "--to", "@bob", *flags, env=ALICE)["message_id"])

    def state(self, message_id: str) -> Mapping[str, Any]:
        got = self.repo.json("message", "get", message_id, "--peek", env=ALICE)
        return next(each for each in got["message"]["recipients"] if each["agent_id"] == "bob")

    def why(self, message_id: str) -> str:
        return str(self.state(message_id).get("why", ""))

    def wait_why(self, message_id: str, said: str) -> None:
        wait_until(lambda: self.why(message_id).startswith(said), f"{said!r}, not {self.why(message_id)!r}")

    def wait_seen(self, *message_ids: str) -> None:
        for each in message_ids:
            wait_until(lambda each=each: "seen_at" in self.state(each), f"{each} seen: {self.pane.text()}")

    def wait_told_once(self, text: str) -> None:
        self.wait_given(text)
        self.wait_idle()
        assert self.given(text) == 1

    def status(self) -> tuple[object, object]:
        """Bob's status as the team sees it, and what a dialog there asks."""
        team = self.repo.json("team", env=ALICE)
        bob = next(each for each in team["members"] if each["agent_id"] == "bob")
        return bob.get("agent_status"), bob.get("asks")

    def attempts(self) -> list[tuple[str, str]]:
        """Doors and outcomes."""
        return [(fact["door"], fact["outcome"]) for fact in self.repo.facts("wake.attempt")]

    def wait_process(self) -> None:
        """Until bob's record names the program in the pane, or one below it."""
        wait_until(
            lambda: any(each.get("agent_pid", 0) > 1 for each in self.places()), f"bob's process: {self.pane.text()}"
        )

    def places(self) -> Sequence[Mapping[str, Any]]:
        return [each for each in self.repo.facts("agent.place") if each["agent_id"] == "bob"]


@contextlib.contextmanager
def open_bob(lab: Lab, runtime: str, flags: str = "", *, hooks: bool = True) -> Generator[Bob]:
    """Bob in a program of this runtime, with thrum's hooks in his worktree, idle. `flags`: what it is started with."""
    repo = Repo(lab.top)
    try:
        repo.thrum("init")
        repo.agent("alice", at=repo.main, module="m0")
        home = repo.agent("bob")
        file = home / _FILES[runtime]
        if hooks:
            file.parent.mkdir(parents=True)
            made = plugin("", str(THRUM)) if runtime == "opencode" else installed("", runtime, str(THRUM))
            file.write_text(made)
            if runtime == "opencode":
                supply_opencode(home / ".opencode")
        trust(lab, home)
        program = PROGRAMS.get(runtime, runtime)
        bob = Bob(lab, repo, runtime, home, lab.start(f"{program} {flags}".rstrip(), home))
        bob.wait_idle()
        yield bob
    finally:
        repo.close()
