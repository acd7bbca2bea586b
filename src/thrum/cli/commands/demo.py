"""demo: the main job in a throw-away repository, with the real command, a real daemon, and files one can look at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import trio

from thrum.cli.connect import own_links
from thrum.cli.parser import RUN, switch
from thrum.cli.run import Answer, Run
from thrum.cli.session import own_environment
from thrum.model.errors import ThrumError, in_shell
from thrum.model.paths import find_layout

STEP_SECONDS_MAX = 30.0
_GIT = ("-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
_QUERY = "SELECT message_id, agent_id, body_content FROM messages ORDER BY seq"
_SQL = f"""import sqlite3
for row in sqlite3.connect("file:.thrum/var/messages.db?mode=ro", uri=True).execute(
    "{_QUERY}"
): print(*row, sep=" | ")"""


class DemoFailed(ThrumError):
    """A step of the demo did not do what it shows."""

    default_remedy = "thrum daemon logs there, if you kept it: thrum demo --keep"


@dataclass
class _Walk:
    """The repository, what was run in it, and what it said."""

    run: Run
    home: Path
    steps: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    waiting: str = ""

    @property
    def app(self) -> Path:
        return self.home / "app"

    @property
    def worktree(self) -> Path:
        return self.home / "app-review"

    async def say(self, text: str) -> None:
        """A remark for people."""
        if not self.run.flags.json and not self.run.quiet:
            await self.run.write(text)

    async def do(self, cwd: Path, *argv: str) -> str:
        """Run one command and show it with its output. Raises DemoFailed if it fails."""
        await self.show(cwd, argv)
        return await self.tell(argv, await _started(argv, cwd))

    async def show(self, cwd: Path, argv: Sequence[str], tail: str = "") -> None:
        text = " ".join(_quoted(word) for word in argv)
        if not self.run.flags.json:
            await self.run.write(f"{cwd.name} $ {text}{tail}")

    async def tell(self, argv: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> str:
        out, err = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
        self.steps.append({"argv": list(argv), "status": done.returncode, "stdout": out})
        if not self.run.flags.json:
            text = (out + err).rstrip("\n")
            await self.run.write(f"{text}\n" if text else "")
        if done.returncode:
            raise DemoFailed(f"{' '.join(argv[:3])} ended with status {done.returncode}: {err.strip()[:500]}")
        return out


def _thrum() -> list[str]:
    """The command beside this interpreter, else the package itself."""
    script = Path(sys.executable).with_name("thrum")
    return [str(script)] if script.is_file() else [sys.executable, "-P", "-m", "thrum"]


def _environment() -> dict[str, str]:
    """The user's, without what would lead git or thrum elsewhere."""
    kept = {name: value for name, value in own_environment().items() if not name.startswith(("THRUM_", "GIT_"))}
    return kept | {"THRUM_LOCAL": "1", "COLUMNS": "100", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def _real(argv: Sequence[str]) -> list[str]:
    """What is shown as `thrum …`, `git …` or `python …`, as it is run."""
    match argv[0]:
        case "thrum":
            return [*_thrum(), *argv[1:]]
        case "git":
            return ["git", *_GIT, *argv[1:]]
        case "python":
            return [sys.executable, *argv[1:]]
        case _:
            return list(argv)


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word and not set(word) & set('"$`\\\n') else in_shell(word)


async def _started(argv: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(STEP_SECONDS_MAX):
        return await trio.run_process(
            _real(argv), cwd=cwd, env=_environment(), stdin=b"", capture_stdout=True, capture_stderr=True, check=False
        )


async def demo(
    *,
    keep: Annotated[bool, switch("keep the repository; its daemon is stopped")] = False,
    run: Annotated[Run, RUN],
) -> Answer:
    run.require_own_process()
    walk = _Walk(run, _new_home())
    began = trio.current_time()
    try:
        await _talk(walk)
        await _look(walk)
    except trio.TooSlowError as error:
        raise DemoFailed(f"a step took more than {STEP_SECONDS_MAX:g} s") from error
    finally:
        with trio.CancelScope(shield=True):
            await _clean_up(walk, keep)
    document: dict[str, Any] = {"steps": walk.steps} | ({"kept": str(walk.home)} if keep else {})
    end = f"✓ Demo done in {trio.current_time() - began:.1f} s"
    return Answer(document, said=end + (f"; kept: {walk.home}" if keep else "; everything removed"))


def _new_home() -> Path:
    """A fresh directory, free of links: so paths in the output are the real ones."""
    return Path(tempfile.mkdtemp(prefix="thrum-demo-")).resolve()


async def _talk(walk: _Walk) -> None:
    """Two agents, two worktrees: one waits, the other sends."""
    app, review = walk.app, walk.worktree
    app.mkdir()
    await walk.say(f"# A repository with two worktrees, in {walk.home}")
    await walk.do(app, "git", "init", "-q", "-b", "main")
    await walk.do(app, "git", "commit", "-q", "--allow-empty", "-m", "Start")
    await walk.do(app, "git", "worktree", "add", "-q", "-b", "feature/review", str(review))
    await walk.say("# Set up thrum, and register an agent in each worktree")
    await walk.do(app, "thrum", "init")
    intent = ("--intent", "Token refresh")
    # Below one agent runtime both would be that one process, and the second be refused as somebody else.
    apart = ["--no-agent-pid"] if any(link.runtime for link in own_links(_environment(), find_layout(app))) else []
    await walk.do(app, "thrum", "quickstart", "furiosa", "--role", "implementer", "--module", "auth", *intent, *apart)
    await walk.do(review, "thrum", "quickstart", "nux", "--role", "reviewer", "--module", "auth", *apart)
    await walk.say("# nux waits; furiosa writes to it, and nux is woken")
    wait = ("thrum", "wait", "--timeout", "20s")
    await walk.show(review, wait, tail=" &\n")
    woken: list[tuple[subprocess.CompletedProcess[bytes], float]] = []

    async def nux() -> None:
        woken.append((await _started(wait, review), trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nux)
        await trio.sleep(0.4)  # so that it really waits when the message comes
        send = ("--to", "@nux", "--scope", "module:auth")
        await walk.do(app, "thrum", "send", "Token refresh is in. Can you review it?", *send)
        sent = trio.current_time()
    done, ended = woken[0]
    when = f", {max(0.0, ended - sent) * 1000:.0f} ms after the send ended" if ended > sent else ""
    await walk.say(f"# nux was woken{when}. It prints:")
    out = await walk.tell(wait, done)
    message_id = next(word for word in out.split() if word.startswith("msg_"))
    await walk.do(review, "thrum", "reply", message_id, "Reading it now")
    await walk.do(app, "thrum", "inbox")
    await walk.do(app, "thrum", "team")


async def _look(walk: _Walk) -> None:
    """Where it all lies."""
    await walk.say("# Nothing is hidden: the journal, one JSON fact a line, on a branch of its own")
    await walk.do(walk.app, "cat", ".git/thrum-sync/a-sync/messages/furiosa.jsonl")
    await walk.do(walk.app, "git", "log", "--oneline", "a-sync")
    await walk.say("# and a SQLite index, rebuilt from the journal whenever it is gone")
    await walk.do(walk.app, "python", "-c", _SQL)


async def _clean_up(walk: _Walk, keep: bool) -> None:
    """Stop the daemon and take everything away, whatever happened."""
    if walk.app.joinpath(".thrum").is_dir():
        argv = ("thrum", "daemon", "stop")
        if not walk.run.flags.json:
            await walk.show(walk.app, argv)
        done = await _started(argv, walk.app)
        walk.steps.append({"argv": list(argv), "status": done.returncode, "stdout": done.stdout.decode()})
        if not walk.run.flags.json:
            await walk.run.write(done.stdout.decode().rstrip("\n") + "\n")
    if not keep:
        await trio.to_thread.run_sync(lambda: shutil.rmtree(walk.home, ignore_errors=True))
