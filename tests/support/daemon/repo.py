"""A real repository, its worktrees, and the real `thrum`: processes, sockets and the kernel's word, nothing stands in.

Every process that is started here, and the daemon of every repository, is ended with the repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.git.repository import git_output, make_repository
from tests.support.places import ROOT
from tests.support.trusted import accept
from thrum.model import files
from thrum.model.errors import ConfigInvalid
from thrum.model.paths import Layout, find_layout
from thrum.rpc.client import BlockingClient
from thrum.store import database

THRUM = Path(sys.executable).parent / "thrum"
SECONDS = 60.0
"""No wait of a test is longer: beyond it something is wrong."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def kind(self) -> str:
        """The kind of the refusal that `--json` printed."""
        return self.json["error"]["kind"]


def wait_until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)
    return value


class Running:
    """A process of a test, with its lines as they come."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            bufsize=1,
        )
        self.pid = self.process.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.err_lines: list[str] = []
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.err_lines.append(line.rstrip("\n"))

    @property
    def err(self) -> str:
        return "\n".join(self.err_lines)

    def line(self, seconds: float = SECONDS) -> str:
        """The next line of its stdout. Fails when there is none."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no line within {seconds:g} s; stderr: {self.err}") from None
        if line is None:
            self._lines.put(None)  # for `end`, which waits for it
            raise AssertionError(f"the process ended; stderr: {self.err}")
        return line

    def lines(self, until: Callable[[str], bool]) -> list[str]:
        """Its lines up to and with the one that `until` is true of."""
        lines = [self.line()]
        while not until(lines[-1]):
            lines.append(self.line())
        return lines

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, *, stdin: str = "") -> Done:
        """Close its stdin and wait for its end; the lines that were not yet read are its output."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(stdin)
                self.process.stdin.close()
        try:
            status = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; stderr: {self.err}") from None
        for reader in self._readers:
            reader.join()
        lines: list[str] = []
        while (line := self._lines.get()) is not None:
            lines.append(line)
        self._lines.put(None)
        return Done(status, "\n".join(lines), self.err)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """End it, whatever it does, and leave no pipe open."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Repo:
    """A git repository in a short directory of its own: `main`, and worktrees beside it."""

    def __init__(self, parent: Path | None = None, *, clone_of: Path | None = None) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="thrum-e2e-", dir=parent)).resolve()
        self.main = self.top / "main"
        self.started: list[Running] = []
        self.program = THRUM
        self.env = dict(os.environ)
        if clone_of is not None:
            self.git("clone", "-q", str(clone_of), str(self.main), cwd=self.top)
        else:
            make_repository(self.main, {"README": "a project\n"})

    # -- commands

    def git(self, *words: str, cwd: Path | None = None) -> str:
        return git_output(cwd or self.main, *words)

    def fsck(self) -> None:
        """git's own verdict. It lists the objects first and the branches last, and says that what is committed in
        between is missing: then once more.
        """
        for _ in range(50):
            before = self.git("for-each-ref")
            try:
                self.git("fsck", "--strict", "--no-dangling")
            except subprocess.CalledProcessError as error:
                assert self.git("for-each-ref") != before, error.stdout + error.stderr
            else:
                return
        raise AssertionError("the branches are never at rest")

    def run(
        self,
        *words: str | bytes,
        at: Path | None = None,
        stdin: str | bytes = "",
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Done:
        """A whole run of `thrum` at a place (else main). `under`: a program that starts it."""
        done = subprocess.run(
            [*under, str(self.program), *words],
            cwd=at or self.main,
            env={**self.env, **(env or {})},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=SECONDS,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def thrum(self, *words: str, at: Path | None = None, **options: Any) -> str:
        """What a run that succeeds prints."""
        done = self.run(*words, at=at, **options)
        assert done.status == 0, (words, done)
        return done.out

    def json(self, *words: str, at: Path | None = None, **options: Any) -> Any:
        return json.loads(self.thrum(*words, "--json", at=at, **options))

    def start(self, *words: str, at: Path | None = None, env: Mapping[str, str] | None = None) -> Running:
        """A `thrum` that goes on running."""
        return self._track([str(self.program), *words], at, env)

    def python(self, module: str, *words: str, at: Path | None = None) -> Running:
        """A Python program of the tests, standing in `at`."""
        return self.spawn_python("-m", module, *words, at=at)

    def spawn_python(self, *words: str, at: Path | None = None) -> Running:
        """This interpreter with these arguments."""
        return self.start_program([sys.executable, *words], at)

    def start_program(self, argv: Sequence[str], at: Path | None = None) -> Running:
        return self._track(argv, at, {"PYTHONPATH": str(ROOT)})

    def shell(self, command: str) -> Running:
        return self.start_program(["sh", "-c", command])

    def _track(self, argv: Sequence[str], at: Path | None, env: Mapping[str, str] | None) -> Running:
        running = Running(argv, at or self.main, {**self.env, **(env or {})})
        self.started.append(running)
        return running

    # -- places

    def worktree(self, name: str) -> Path:
        path = self.top / name
        if not path.exists():
            self.git("worktree", "add", "-q", str(path), "-b", name)
        return path

    def agent(self, name: str, role: str = "worker", module: str = "core", at: Path | None = None) -> Path:
        """An agent in a worktree of its own (else `at`), which is returned."""
        path = at or self.worktree(name)
        self.thrum("quickstart", name, "--role", role, "--module", module, "--no-agent-pid", at=path)
        return path

    @property
    def layout(self) -> Layout:
        return find_layout(self.main)

    @property
    def journals(self) -> Path:
        return self.main / ".git/thrum-sync/a-sync"

    @property
    def local_journal(self) -> Path:
        return self.main / ".git/thrum-sync/local.jsonl"

    @property
    def var(self) -> Path:
        return self.main / ".thrum/var"

    @property
    def socket(self) -> Path:
        return self.var / "thrum.sock"

    def facts(self, kind: str = "") -> list[dict[str, Any]]:
        """Every fact of every journal file, in file order; a line that is none fails."""
        files = [self.journals / "events.jsonl", *sorted((self.journals / "messages").glob("*.jsonl"))]
        lines = [
            line for file in [*files, self.local_journal] if file.exists() for line in file.read_text().split("\n")
        ]
        facts = [json.loads(line) for line in lines if line]
        return [fact for fact in facts if not kind or fact["type"] == kind]

    @property
    def settings(self) -> Path:
        """The settings that count."""
        return self.main / ".git/thrum-sync/config.json"

    def guards(self, text: str = "") -> None:
        """Write the guards' modes for an incident where people do, and accept them; empty: none."""
        copy = self.var / "guard-daemon.json"
        copy.write_text(text) if text else copy.unlink(missing_ok=True)
        try:
            accept(self.layout)
        except ConfigInvalid:  # nobody can accept it: as it would be if the disk had spoilt it
            (self.main / ".git/thrum-sync/guard-daemon.json").write_text(text)

    # -- the daemon

    def client(self) -> BlockingClient:
        """A connection from this process, which stands outside every worktree."""
        return BlockingClient(self.socket)

    @property
    def daemon(self) -> int | None:
        """The pid of the running daemon."""
        return files.lock_holder(self.layout.lock_file)

    def daemons(self) -> list[psutil.Process]:
        """Every daemon of this repository that lives."""
        return [process for process in self._leftover() if "thrum.daemon" in process.info["cmdline"]]

    def kill_daemon(self, number: signal.Signals = signal.SIGKILL) -> int | None:
        """Send it a signal and wait for its end."""
        pid = self.daemon
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            wait_until(lambda: self.daemon != pid, "the daemon's end")
        return pid

    def delete_database(self) -> None:
        """Only while no daemon runs."""
        for path in self.var.glob("messages.db*"):
            path.unlink()

    def projection(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the database, without bookkeeping."""
        with contextlib.closing(database.connect(self.var / "messages.db")) as db:
            return database.dump(db)

    def assert_projection_is_as_rebuilt(self) -> None:
        """Stop the daemon, and compare what it had with what a new one rebuilds from the journals."""
        self.thrum("daemon", "stop")
        live = self.projection()
        self.delete_database()
        self.thrum("daemon", "start")
        self.thrum("daemon", "stop")
        rebuilt = self.projection()
        assert live.keys() == rebuilt.keys()
        for table, rows in live.items():
            if table == "client_keys":  # those of what is tombstoned go whenever the journals are compacted
                assert {*rebuilt[table]} <= {*rows}, table
                continue
            gone = [row for row in rows if row not in rebuilt[table]]
            new = [row for row in rebuilt[table] if row not in rows]
            assert rows == rebuilt[table], (table, gone, new)

    # -- the end

    def close(self) -> None:
        for running in self.started:
            running.close()
        for process in self._leftover():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not self._leftover(), f"the end of every process of {self.top}")
        shutil.rmtree(self.top)

    def _leftover(self) -> list[psutil.Process]:
        """Processes that have this repository in their command line: its daemons, and what they left."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words: list[str] = process.info["cmdline"] or []
            mine = any(str(self.top) in word for word in words)
            if mine and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


@contextlib.contextmanager
def open_repo(*names: str, parent: Path | None = None) -> Generator[Repo]:
    """A repository with thrum set up and these agents, the first in `main`, each other in a worktree of its name."""
    repo = Repo(parent)
    try:
        repo.thrum("init")
        for index, name in enumerate(names):
            repo.agent(name, at=None if index else repo.main, module=f"m{index}")
        yield repo
    finally:
        repo.close()
