"""A throw-away repository in which the documentation is acted out, command by command, with the real `thrum`."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import psutil

from tests.support.docs.pages import END, Step, pair_up

SECONDS = 60.0
"""No wait is longer: beyond it something is wrong."""
HOME = "/src"
"""Where the repositories lie as the pages show it."""
STREAMS = ("thrum watch", "thrum daemon logs -f")
"""What goes on until it is interrupted."""
REFUSED = ("Error: ", "NO_MESSAGES_TIMEOUT", "NO_ANSWER_TIMEOUT", "Daemon:   not running")
"""How the output of a command begins whose status is not 0."""

_SYNC_SERVICE = b"State:     syncing\n"
_ID = re.compile(r"\b(?:msg|thr|ses)_[0-9A-HJKMNP-TV-Z]{26}\b")


class Background:
    """A command that goes on while the next one runs."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: dict[str, str], *, stream: bool) -> None:
        self.stream = stream
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.decode().rstrip("\n"))
        self._lines.put(None)

    def take(self, count: int, seconds: float = SECONDS) -> list[str]:
        """Its next lines. Raises queue.Empty if one does not come in time."""
        lines = [self._lines.get(timeout=seconds) for _ in range(count)]
        return [line for line in lines if line is not None]

    def await_call(self) -> None:
        """Until it has called the daemon: what the next command does then finds it waiting."""
        deadline = time.monotonic() + SECONDS
        while not psutil.Process(self.process.pid).net_connections("unix"):
            assert time.monotonic() < deadline, "it does not call the daemon"

    def end(self) -> list[str]:
        """Its remaining lines; a stream is interrupted, as a reader would."""
        if self.stream:
            self.process.send_signal(signal.SIGINT)
        status = self.process.wait(SECONDS)
        self._reader.join()
        assert status == 0, f"{self.process.args} ended with status {status}"
        rest: list[str] = []
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            rest.append(line)
        return rest

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Stage:
    """The repository `shop` in a directory of its own; worktrees lie beside it. Commands without a place run in `shop`.

    Ids in the pages are those of another run: what comes out where a page shows one is put in its place later on.
    """

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="thrum-docs-")).resolve()
        self.shop = self.home / "shop"
        self.env = {**os.environ, "THRUM_HOSTNAME": "desk"}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"
        # A tmux server of its own.
        self.env.update(TMUX_TMPDIR=str(self.home), SHELL="/bin/sh")
        self.env.pop("TMUX", None)
        self._ids: dict[str, str] = {}
        self._background: Background | None = None
        for command in ("git init -q -b main shop", "git -C shop commit -q --allow-empty -m Start"):
            subprocess.run(command.split(), cwd=self.home, env=self.env, check=True)

    def prepare(self, *commands: str) -> None:
        """What a page takes for granted; each as `DIRECTORY: command`."""
        for text in commands:
            where, _, command = text.partition(": ")
            self.play(Step("prepared", where, command, None))

    def play(self, step: Step) -> list[str]:
        """Execute one step; what came out. Fails if that is not what the page shows."""
        command = step.command
        for pattern in (_ID, END):
            command = pattern.sub(lambda found: self._ids.get(found[0], found[0]), command)
        cwd = self.home / step.where if step.where else self.shop
        if step.in_background:
            assert self._background is None
            words = shlex.split(command.removesuffix(" &"))
            stream = " ".join(words).startswith(STREAMS)
            words[0] = shutil.which(words[0], path=self.env["PATH"]) or words[0]
            self._background = Background(words, cwd, self.env, stream=stream)
            if not stream:
                self._background.await_call()
            printed = self._background.take(len(step.shown or ()))
            status = 0
        else:
            done = self._run(command, cwd)
            while command.endswith("sync status") and _SYNC_SERVICE in done.stdout:
                done = self._run(command, cwd)  # a round is under way: the page shows what comes of it
            status = done.returncode
            printed = done.stdout.decode().splitlines() + self._end_background(step, done.stdout.count(b"\n"))
        printed = [line.replace(str(self.home), HOME) for line in printed]
        refused = any(line.startswith(REFUSED) for line in step.shown or ())
        assert bool(status) == refused, f"{step.place}: {command}: status {status}: {printed}"
        self._compare(step, printed)
        return printed

    def _run(self, command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
        )

    def _end_background(self, step: Step, printed: int) -> list[str]:
        """The output of what ran beside this step, once the step has given it reason to print."""
        background, self._background = self._background, None
        if background is None:
            return []
        with contextlib.closing(background):
            lines = background.take(len(step.shown or ()) - printed) if background.stream else []
            return lines + background.end()

    def _compare(self, step: Step, printed: list[str]) -> None:
        if step.shown is None:
            return
        pairs = pair_up([line.rstrip() for line in step.shown], printed)
        assert pairs is not None, f"{step.place}: {step.command}\nshown:\n{_text(step.shown)}\nreal:\n{_text(printed)}"
        for shown, real in pairs:
            for old, new in zip(_ID.findall(shown), _ID.findall(real), strict=False):
                known = self._ids.setdefault(old, new)
                self._ids.setdefault(old[-6:], new[-6:])
                assert known == new, f"{step.place}: two things are shown under the id {old}"
            for old, new in zip(END.findall(shown), END.findall(real), strict=False):
                assert self._ids.get(old) == new, f"{step.place}: {old} is the end of no id that is shown"

    def close(self) -> None:
        if self._background is not None:
            self._background.close()
        for root in (path.parent for path in self.home.glob("*/.thrum/config.json")):
            subprocess.run(["thrum", "daemon", "stop"], cwd=root, env=self.env, capture_output=True, check=False)
        if any(self.home.glob("tmux-*/*")):
            subprocess.run(["tmux", "kill-server"], env=self.env, capture_output=True, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines)


@contextlib.contextmanager
def open_stage() -> Generator[Stage]:
    with contextlib.closing(Stage()) as stage:
        yield stage
