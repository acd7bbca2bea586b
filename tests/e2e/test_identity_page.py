"""The user's document on identity (tests/data/identity_page.md): its shell examples run, what it shows comes out."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.callers import Desks, result
from tests.support.daemon.repo import SECONDS, THRUM, Repo, open_repo, wait_until
from tests.support.places import DATA
from thrum.cli.table import ALIASES, COMMANDS
from thrum.model.guards import DEFAULT_MODES
from thrum.model.methods.agents import AGENT_REGISTER
from thrum.store import database

PAGE = (DATA / "identity_page.md").read_text(encoding="utf-8")

PENDING = {
    "thrum mcp serve": "W5",
}
"""Commands of the page's examples that are not built yet; once they are, their examples have to run."""
PENDING_IN_PROSE = {"thrum peer add": "W6", "thrum peer remove": "W6"}
"""The same, of what it only mentions."""
NO_COMMANDS = {"thrum commands", "thrum tmux quickstart", "thrum worktree setup"}
"""Words of the page: "thrum commands", and two families of commands that it sums up so."""
PROSE = ("thrum team uses", "thrum daemon status Identity")
"""Sentences and headings that begin like a command."""

_EXAMPLE = re.compile(r"(?:THRUM_\w+=\S+ )*(?:thrum|export|cd) \S")

FURIOSA = "thrum quickstart furiosa --role implementer --module auth --no-agent-pid"
REVIEWER = "thrum quickstart reviewer --role checker --module auth --no-agent-pid"
BEFORE = {
    "export THRUM_NAME=furiosa": (FURIOSA, REVIEWER),
    "thrum agent delete furiosa": (FURIOSA,),
    "thrum agent cleanup": (REVIEWER,),
    "THRUM_NAME=furiosa thrum send": (FURIOSA, REVIEWER),
    "thrum agent whoami": (FURIOSA,),
}
"""What the page takes for granted where an example begins so."""
CONFIRMED = {
    "thrum agent delete furiosa": "thrum agent delete furiosa --force",
    # Two ways to one agent stand below each other on the page: here the second one makes another.
    "thrum worktree create auth -b feature/auth   --name furiosa --role implementer --module auth": (
        "thrum worktree create auth -b feature/auth --name rictus --role implementer --module login"
    ),
}
"""What asks its user; here is no terminal to answer at."""
AFTER = {
    "export THRUM_NAME=furiosa": ("thrum whoami --field agent_id", "furiosa"),
    "thrum quickstart --name coord_main": ("thrum whoami --field agent_id", "nux"),
    "THRUM_NAME=furiosa thrum send": ("thrum sent --json --role x | wc -l", ""),
    "thrum agent register --name=furiosa": ("thrum whoami --field agent_id", "furiosa"),
}
"""What shows that it worked: a command, and the last word that it says; nothing: that it passes."""


@dataclass(frozen=True)
class Example:
    """Commands that stand together, from this line of the page on."""

    line: int
    commands: tuple[str, ...]

    @property
    def pending(self) -> list[str]:
        return [name for name in PENDING if any(command.startswith(name) for command in map(_bare, self.commands))]


def _bare(command: str) -> str:
    """Without variables before it."""
    return re.sub(r"^(?:THRUM_\w+=\S+ )+", "", command)


def examples() -> list[Example]:
    lines = PAGE.replace("\\\n", "").splitlines()
    marked = [
        (number, line)
        for number, line in enumerate(lines, 1)
        if not line or line.startswith("#") or (_EXAMPLE.match(line) and not line.startswith(PROSE))
    ]
    # Lines that follow one another, with remarks and one empty line between them, are one example.
    runs = groupby(enumerate(marked), key=lambda pair: pair[1][0] - pair[0])
    found: list[Example] = []
    for _, run in runs:
        commands = [(number, line) for _, (number, line) in run if line and not line.startswith("#")]
        if commands:
            found.append(Example(commands[0][0], tuple(line for _, line in commands)))
    return found


def test_the_pages_examples_are_found() -> None:
    commands = [command for example in examples() for command in example.commands]
    assert len(commands) > 35
    assert any(command.startswith("thrum session start") for command in commands)


def test_only_what_is_not_built_is_pending() -> None:
    built = {*map(" ".join, COMMANDS), *map(" ".join, ALIASES)}
    assert [name for name in PENDING if name.removeprefix("thrum ") in built] == []
    used = {name for example in examples() for name in example.pending}
    assert used == set(PENDING)


def test_every_command_that_the_page_mentions_is_there_or_pending() -> None:
    known = {f"thrum {' '.join(words)}" for words in (*COMMANDS, *ALIASES)}
    known |= PENDING.keys() | PENDING_IN_PROSE.keys() | NO_COMMANDS
    mentioned = re.findall(r"\bthrum (?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?", PAGE)
    assert len(mentioned) > 60
    assert [words for words in mentioned if words not in known and words.rpartition(" ")[0] not in known] == []
    assert [name for name in PENDING_IN_PROSE if name.removeprefix("thrum ") in {*map(" ".join, COMMANDS)}] == []


def _starting(table: dict[str, Any], command: str) -> Any:
    return next((value for start, value in table.items() if command.startswith(start)), None)


RUNNABLE = list({example.commands: example for example in examples() if not example.pending}.values())


@pytest.fixture
def repo() -> Iterator[Repo]:
    """Its tmux server is its own, and `claude` is a program that does nothing."""
    with open_repo() as opened:
        home = opened.top / "home"
        home.mkdir()
        shutil.copy(Path(opened.env["HOME"], ".gitconfig"), home)
        (home / "claude").write_text("#!/bin/sh\nexec cat\n")
        (home / "claude").chmod(0o755)
        path = os.pathsep.join([str(home), str(THRUM.parent), opened.env["PATH"]])
        opened.thrum("daemon", "stop")
        opened.env |= {"HOME": str(home), "TMUX_TMPDIR": str(home), "SHELL": "/bin/sh", "PATH": path}
        opened.env.pop("TMUX", None)
        try:
            yield opened
        finally:
            subprocess.run(["tmux", "kill-server"], env=opened.env, capture_output=True, check=False)


def _placed(command: str, repo: Repo) -> str:
    """With this repository's directories for those of the page."""
    if "/path/to/worktree" in command:
        command = command.replace("/path/to/worktree", str(repo.worktree("elsewhere")))
    return command.replace("/path/to/repo", str(repo.main))


@pytest.mark.parametrize("example", RUNNABLE, ids=lambda example: f"line {example.line}")
def test_an_example_of_the_page_does_what_it_says(example: Example, repo: Repo) -> None:
    workspaces = Path(repo.env["HOME"], ".workspaces/myapp")
    for name in ("auth", "sync"):
        if any(f"myapp/{name}" in command for command in example.commands):
            repo.git("worktree", "add", "-q", str(workspaces / name), "-b", name)
    checked = _starting(AFTER, example.commands[0])
    commands = [
        *(_starting(BEFORE, example.commands[0]) or ()),
        *(_placed(CONFIRMED.get(command, command), repo) for command in example.commands),
        *([checked[0]] if checked else ()),
    ]
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)],
        cwd=repo.main,
        env=repo.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, (commands, done.stdout, done.stderr)
    if checked and checked[1]:
        assert done.stdout.split()[-1] == checked[1], (commands, done.stdout)


# -- what the page shows


def _shown(start: str) -> Any:
    """The JSON object that follows these words."""
    return json.JSONDecoder().raw_decode(PAGE, PAGE.index("{", PAGE.index(start)))[0]


def test_an_identity_file_looks_as_shown(repo: Repo) -> None:
    shown = _shown("Identity file format (version 5)")
    repo.thrum("quickstart", "furiosa", "--role", "implementer", "--module", "auth", "--runtime", "claude")
    made = json.loads((repo.main / ".thrum/identities/furiosa.json").read_text())
    assert list(made["agent"]) == list(shown["agent"])
    assert [key for key in made if key in shown] == [key for key in shown if key in made]
    assert {"version", "repo_id", "agent", "worktree", "updated_at"} <= made.keys()
    path = repo.main / ".thrum/identities/furiosa.json"
    path.write_text(json.dumps(shown))
    me = repo.json("whoami")
    assert (me["display"], me["status"], me["tmux_session"]) == ("Auth Implementer", "working", "implementer-auth:0.0")


def test_whoami_answers_as_shown(repo: Repo) -> None:
    repo.thrum("quickstart", "furiosa", "--role", "implementer", "--module", "auth")
    me = repo.json("agent", "whoami", env={"THRUM_DISPLAY": "Auth Agent"})
    shown = _shown("# See who you are and if you have an active session")
    assert list(me)[:5] == list(shown)[:5]
    assert shown.keys() <= me.keys()
    assert {key: me[key] for key in ("agent_id", "role", "module", "display")} == {
        key: shown[key] for key in ("agent_id", "role", "module", "display")
    }


def test_registrations_and_conflicts_answer_as_shown(repo: Repo) -> None:
    register = ["agent", "register", "--name", "furiosa", "--role", "implementer", "--module", "auth"]
    assert repo.json(*register)["status"] == "registered"
    shown = _shown('Response:\n\n{\n  "agent_id": "furiosa",\n  "status": "updated"')
    again = repo.json(*register, "--re-register")
    assert {key: again[key] for key in shown} == shown
    conflict = repo.run(*register, "--json", at=repo.worktree("other")).json
    shown = _shown("When conflict is detected:")
    assert (conflict["agent_id"], conflict["status"]) == (shown["agent_id"], shown["status"])
    assert shown["conflict"].keys() <= conflict["conflict"].keys()
    assert repo.json(*register, "--force", at=repo.worktree("other"))["status"] == "updated"


def test_requests_of_the_page_are_taken_as_they_stand(repo: Repo, desk: Desks) -> None:
    repo.thrum("daemon", "start")
    here, there = desk(repo.main), desk(repo.worktree("other"))
    again, force = _shown("Use the re_register flag when:"), _shown("Override the existing agent")
    assert result(here.ask(AGENT_REGISTER.name, **again)) == {"agent_id": "furiosa", "status": "registered"}
    assert result(here.ask(AGENT_REGISTER.name, **again)) == _shown("Response:")
    assert result(there.ask(AGENT_REGISTER.name, **again))["status"] == "conflict"
    assert result(there.ask(AGENT_REGISTER.name, **force))["status"] == "updated"


def test_the_team_and_who_of_it_lives_look_as_shown(repo: Repo, desk: Desks) -> None:
    shown = PAGE[PAGE.index("@implementer [active]") : PAGE.index("Liveness is checked")]
    live, stale = (block.splitlines() for block in shown.strip().split("\n\n"))
    alive, crashed = desk(repo.main, "claude"), desk(repo.worktree("other"), "codex")
    for name, agent in (("one", alive), ("other", crashed)):
        done = agent.thrum("quickstart", name, "--role", f"role_{name}", "--module", "auth", "--intent", "Fixing it")
        assert done["status"] == 0, done
    os.kill(crashed.pid, signal.SIGKILL)
    wait_until(lambda: f"{crashed.pid} [stale]" in repo.thrum("team"), "the sight of a death")
    blocks = {block.split()[0]: block.splitlines() for block in repo.thrum("team").strip().split("\n\n")}
    assert blocks["@one"][1] == live[1].replace("12345", str(alive.pid))
    assert blocks["@other"][1] == stale[1].replace("67890", str(crashed.pid))
    for block, page in ((blocks["@one"], live), (blocks["@other"], stale)):
        assert re.fullmatch(r"@\w+ \[active\] auth — \S+", block[0]), block
        labels = [line.partition(":")[0] for line in block]
        assert [label for label in labels[1:] if label in {line.partition(":")[0] for line in page}] == [
            line.partition(":")[0] for line in page[1:]
        ]


def test_what_the_page_says_of_files_and_tables_is_so(repo: Repo) -> None:
    for name in ("furiosa", "nux"):
        repo.agent(name, at=repo.main, module=name)
    tree = PAGE[PAGE.index("├── furiosa.json") : PAGE.index("Identity file format")]
    shown = [line.split()[1] for line in tree.splitlines() if line.startswith(("├", "└"))]
    there = {path.name for path in (repo.main / ".thrum/identities").iterdir() if path.suffix == ".json"}
    assert {name for name in shown if not name.startswith("coordinator")} <= there
    repo.thrum("send", "x", "--to", "@nux", env={"THRUM_NAME": "furiosa"})
    assert (repo.main / ".git/thrum-sync/a-sync/messages/furiosa.jsonl").exists()
    assert (repo.main / ".git/thrum-sync/a-sync/events.jsonl").exists()
    columns = PAGE[PAGE.index("Columns: ") :].partition(".\n")[0].removeprefix("Columns: ")
    named = [column.split()[0] for column in columns.split(", ")]
    with contextlib.closing(database.connect(repo.var / "messages.db")) as db:
        assert [row[1] for row in db.execute("PRAGMA table_info(daemon_identity)")] == named
        assert "agent_pid" in {row[1] for row in db.execute("PRAGMA table_info(agents)")}


def test_the_errors_that_the_page_names_are_the_real_ones(repo: Repo) -> None:
    named = {line.split('"')[1].lower() for line in PAGE.splitlines() if re.fullmatch(r'"[^"]+" Error', line)}
    assert named == {"role not specified", "multiple identity files found"}
    told = [repo.run("quickstart", "x", "--module", "m").err]
    repo.thrum("quickstart", "furiosa", "--role", "implementer", "--module", "auth", "--no-agent-pid")
    repo.thrum("quickstart", "reviewer", "--role", "checker", "--module", "auth", "--no-agent-pid")
    for name in ("furiosa", "reviewer"):
        path = repo.main / f".thrum/identities/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"worktree": "elsewhere"}))
    several = repo.run("send", "x").err
    assert "cannot auto-select" in several and "export THRUM_NAME=" in several
    told.append(several)
    for words in named:
        assert any(f"Error: {words}" in text for text in told), (words, told)
    missing = repo.run("send", "x", env={"THRUM_NAME": "ghost"})
    assert missing.status == 1 and "ghost.json does not exist" in missing.err


def test_a_rotated_daemon_id_is_logged_as_on_the_page(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    config = repo.settings
    fields = json.loads(config.read_text())
    fields["identity"]["daemon_id"] = "d_abc123abc123"
    config.write_text(json.dumps(fields))
    for name in ("daemon.key", "daemon.json"):  # there were none in those days
        (repo.journals.parent / name).unlink()
    repo.thrum("daemon", "start")
    log = repo.thrum("daemon", "logs")
    shown = [line.strip() for line in PAGE.splitlines() if line.strip().startswith("[identity]")]
    assert len(shown) == 4
    for line in shown:
        words = re.escape(line).replace(r"d_abc123\.\.\.", r"d_abc123\w+").replace(r"d_01HY\.\.\.", r"d_\w{26}")
        words = words.replace(r"<this\-hostname>", r"\S+").replace(r"\ \.\.\.", " .+")
        assert re.search(words, log), (line, log)


def test_the_status_shows_the_daemons_identity_as_on_the_page(repo: Repo) -> None:
    repo.git("remote", "add", "origin", "https://github.com/leonletto/thrum")
    repo.thrum("daemon", "restart")
    status = repo.thrum("daemon", "status")
    block = PAGE[PAGE.index("\nIdentity:\n") + 1 :].splitlines()[:7]
    labels = [line.split(":")[0] for line in block]
    assert [line.split(":")[0] for line in status[status.index("Identity:") :].splitlines()] == labels


def test_the_guards_of_the_page_are_those_that_there_are() -> None:
    configured = _shown("Set modes in .thrum/config.json")["identity_guard"]
    assert configured.keys() == DEFAULT_MODES.keys()
    table = PAGE[PAGE.index("Guard key Trigger Default mode") :]
    for key, mode in DEFAULT_MODES.items():
        row = next(line for line in table.splitlines() if line.startswith(f"{key} "))
        assert re.search(r" (strict|warn) ", row), row
        assert re.search(r" (strict|warn) ", row)[1] == mode  # pyright: ignore[reportOptionalSubscript]
