"""`kill -9` of a forked child at any moment of an act, thousands of times in minutes.

The process that runs this imports once and forks for each try: a child that executes the act and always dies by
SIGKILL, at its N-th touch of the file system or after so many seconds (at its end at the latest); sometimes a child
that starts anew and is killed too; and a child that starts anew and looks. The process itself opens no store and has
one thread, so that its children may have more.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import logging
import os
import random
import selectors
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

SECONDS_MAX = 120.0
"""No child lives longer: beyond it something hangs."""
_AGAIN = 0.2
"""How often the start after a kill is killed too."""
_FEW = 50
_ONCE_MORE = 0.7
"""How often an act is executed again on what the kill left, before it is looked at."""
_AT_A_TOUCH = 0.75
"""How often a kill is at a touch; else at a moment, which may lie inside SQLite or git."""
_AUDITED = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.utime",
    "subprocess.Popen",
}
"""Python tells of these, and of files that are opened to be written, before they happen."""
_WRAPPED = ("write", "pwrite", "fsync", "fdatasync")
"""Of these it does not tell."""
_PR_SET_CHILD_SUBREAPER = 36

Say = Callable[..., None]


class Kill(NamedTuple):
    """When a child dies after it said `arm`: before that touch, or after so many seconds, whichever is not 0. One for
    each kind of the act (`say("arm", kind)`), `""` for what is not known yet.

    `truncated`: a write that it dies at is half done. `git_too`: what it started dies with it; else that goes on
    beside.
    """

    touch: int
    seconds: float
    truncated: bool
    git_too: bool


UNCOUNTED = Kill(0, 0.0, False, True)
NEVER = Kill(1 << 30, 0.0, False, True)
"""Both die at their end; of the second, touches are counted."""


class Told(NamedTuple):
    """What a child said: words in lists, and how it died."""

    lines: list[list[Any]]
    death: str
    touches: int
    seconds: float

    def of(self, word: str) -> list[list[Any]]:
        """What was said under a word, without the word."""
        return [rest for first, *rest in self.lines if first == word]


class Act(Protocol):
    """Something that is killed on the way. Every method but `__init__` and `reset` runs in a child of its own."""

    name: str
    links: int
    """How often it can be executed and killed until it is looked at, at most."""

    def prepare(self) -> None:
        """Make what each try begins with. Once."""
        ...

    def reset(self, chance: random.Random) -> None:
        """Bring that back."""
        ...

    def execute(self, link: int, chance: random.Random, say: Say) -> None:
        """The act, for the so-manieth time on what the one before left (from 0). `say("arm")`: from here on it may be
        killed. `say("?", …)` before, `say("!", …)` after each thing that is answered.
        """
        ...

    def start(self) -> None:
        """What a daemon does when it starts."""
        ...

    def check(self, told: Told, chance: random.Random) -> str:
        """Start, and look whether all is well: what became of the act, in a word or two. Raises AssertionError."""
        ...


@dataclass
class Tally:
    """How many kills there were, and what became of the acts."""

    act: str
    kills: int = 0
    starts_killed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    deaths: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {word}" for word, count in sorted(self.outcomes.items()))
        return (
            f"{self.act}: {self.kills} kills and {self.starts_killed} of the start after,"
            f" {len(self.failures)} failures, {self.seconds:.0f} s ({outcomes})"
        )


# -- in a child


class _Touches:
    """Counts what a child does to the file system, and kills it at one of these."""

    def __init__(self, kill: Kill, say: Say, pipe: int) -> None:
        self._kill = kill
        self._say = say
        self._pipe = pipe
        self._counter = itertools.count(1)
        self.count = 0
        self.armed = False

    def arm(self, kill: Kill) -> None:
        self._kill, self.armed = kill, True

    def install(self) -> None:
        sys.addaudithook(self._audit)
        for name in _WRAPPED:
            self._wrap(name)
        connect = sqlite3.connect

        def traced(*args: Any, **named: Any) -> sqlite3.Connection:
            db = connect(*args, **named)
            db.set_trace_callback(self._statement)
            return db

        sqlite3.connect = traced  # type: ignore[assignment]

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            if isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR) and args[0] != os.devnull:
                self._touch(f"open {_shown(args[0])}")
        elif event in _AUDITED:
            self._touch(f"{event} {_shown(args[1] if event == 'subprocess.Popen' else args[0])}")

    def _statement(self, sql: str) -> None:
        if self.armed and sql.startswith(("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA wal_checkpoint")):
            self._touch(sql)

    def _wrap(self, name: str) -> None:
        real = getattr(os, name)

        def call(descriptor: int, *args: Any) -> Any:
            if self.armed and descriptor != self._pipe:
                truncated = None
                if self._kill.truncated and name == "write" and len(args[0]) > 1:
                    truncated = lambda: real(descriptor, memoryview(args[0])[: len(args[0]) // 2])  # noqa: E731
                self._touch(f"{name} {_name_of(descriptor)}", truncated)
            return real(descriptor, *args)

        setattr(os, name, call)

    def _touch(self, what: str, before: Callable[[], Any] | None = None) -> None:
        self.count = next(self._counter)
        if self.count == self._kill.touch:
            self._say("killed", f"at touch {self.count}, {'half of ' if before else ''}{what}")
            if before is not None:
                before()
            die()


def fork_beside(work: Callable[[], Any]) -> None:
    """In a child: do `work` in another process, which goes on when this one is killed and says nothing."""
    if os.fork():
        return
    status = 1
    try:
        os.closerange(3, 256)
        work()
        status = 0
    finally:
        os._exit(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # a thread may run on for a moment


def _shown(value: Any) -> str:
    return " ".join(map(_shown, value[:6])) if isinstance(value, list) else str(value)


def _name_of(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}")
    return str(descriptor)


def _live(work: Callable[[Say], None], kills: dict[str, Kill], pipe: int) -> None:
    """The life of a child, which ends here."""
    real_write = os.write
    touches: _Touches

    def say(word: str, *rest: Any) -> None:
        if word == "arm":
            touches.arm(kills.get(str(rest[0]) if rest else "", kills[""]))
        real_write(pipe, json.dumps([word, *rest]).encode() + b"\n")

    kill = kills[""]
    touches = _Touches(kill, say, pipe)
    try:
        if kill.touch or kill.seconds:
            touches.install()
        work(say)
        touches.armed = False
        say("end", touches.count, *(sorted(sys.modules) if kill == NEVER else ()))
    except BaseException:
        touches.armed = False
        text = traceback.format_exc()
        say("failed", text if len(text) < 60_000 else text[:30_000] + text[-30_000:])
    die()


# -- in the process that forks


def run_child(work: Callable[[Say], None], kill: Kill | dict[str, Kill] = UNCOUNTED) -> Told:
    """Fork a child that does `work` and is killed; what it told. Raises AssertionError if it failed or hung."""
    kills = kill if isinstance(kill, dict) else {"": kill}
    kill = kills[""]
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(work, kills, writing)
    os.close(writing)
    lines: list[list[Any]] = []
    begun = time.monotonic()
    armed_at, ended_at, moment = 0.0, 0.0, False
    deadline = begun + SECONDS_MAX
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                os.kill(pid, signal.SIGKILL)
                moment = moment or bool(armed_at and kill.seconds and deadline < begun + SECONDS_MAX)
                if not moment:
                    os.waitpid(pid, 0)
                    raise AssertionError(f"a child hung; it said {lines[-3:]}")
                deadline = time.monotonic() + SECONDS_MAX  # what it said before
                continue
            data = os.read(reading, 1 << 20)
            if not data:
                break
            *whole, kept = (kept + data).split(b"\n")
            for line in whole:
                lines.append(json.loads(line))
                word = lines[-1][0]
                if word == "arm" and not armed_at:
                    armed_at = time.monotonic()
                    kill = kills.get(str((*lines[-1], "")[1]), kill)
                    if kill.seconds:
                        deadline = armed_at + kill.seconds
                elif word == "end":
                    ended_at = time.monotonic()
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if kill.git_too:
        _kill_children()
    failed = next((line[1] for line in lines if line[0] == "failed"), "")
    assert not failed, failed
    assert os.WIFSIGNALED(status), f"a child ended by itself: status {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL
    told = Told(lines, "", 0, ended_at - armed_at if ended_at and armed_at else 0.0)
    if at := told.of("killed"):
        return told._replace(death=str(at[0][0]))
    if end := told.of("end"):
        return told._replace(death="at its end", touches=end[0][0])
    return told._replace(death=f"after {kill.seconds * 1000:.1f} ms")


def _kill_children() -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _wait_children() -> None:
    """What a killed child left (a git) ends by itself."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            assert time.monotonic() < deadline, f"they do not end: {psutil.Process().children(recursive=True)}"
            time.sleep(0.002)


def adopt_orphans() -> None:
    """Let what killed children leave become this process's children, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class _Size:
    """How many touches and seconds each kind of an act took last: what is drawn from."""

    def __init__(self) -> None:
        self._touches: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def note(self, told: Told) -> None:
        kind = str((*told.of("arm")[0], "")[0]) if told.of("arm") else ""
        for each in {kind, ""} if told.seconds else ():
            self._touches[each] = told.touches or self._touches.get(each, 1)
            self._seconds[each] = told.seconds

    def kills(self, chance: random.Random) -> dict[str, Kill]:
        truncated, git_too, share = chance.random() < 0.5, chance.random() < 0.5, chance.random()
        if chance.random() < _AT_A_TOUCH:
            sizes = self._touches.items()
            return {kind: Kill(1 + int(share * 1.02 * size), 0.0, truncated, git_too) for kind, size in sizes}
        return {kind: Kill(0, max(1e-6, share * size), truncated, git_too) for kind, size in self._seconds.items()}


def run_many(act: Act, kills: int, seed: int, first: int = 0, *, stop_after: int = 5) -> Tally:
    """Kill an act so often. The same seed and number of a try give the same choices (a moment is never quite the
    same).
    """
    logging.getLogger("thrum").addHandler(logging.NullHandler())
    logging.getLogger("thrum").propagate = False
    tally = Tally(act.name)
    begun = time.monotonic()
    acting, starting = _Size(), _Size()
    run_child(lambda _say: act.prepare())
    _wait_children()
    for number in range(-3 if kills > _FEW else -1, 0):  # how long it is
        chance = random.Random(f"{act.name}.{number}")
        act.reset(chance)
        told = run_child(lambda say, chance=chance: act.execute(0, chance, say), NEVER)
        acting.note(told)
        starting.note(run_child(lambda say: _start(act, say), NEVER))
        checked = run_child(lambda _say, chance=chance, told=told: act.check(told, chance) and None, NEVER)
        _import(told.of("end")[0][1:] + checked.of("end")[0][1:])
        _wait_children()
    for number in itertools.count(first):
        if tally.kills >= kills or len(tally.failures) >= stop_after:
            break
        try:
            _run_one(act, seed, number, acting, starting, tally)
        except AssertionError as error:
            tally.failures.append(f"--act {act.name} --seed {seed} --first {number} --kills 1: {error}")
            print(f"FAILED {tally.failures[-1]}", flush=True)
        finally:
            _wait_children()
        tally.seconds = time.monotonic() - begun
        if number % _FEW == _FEW - 1:
            print(f"… {tally}", file=sys.stderr, flush=True)
    tally.seconds = time.monotonic() - begun
    return tally


def _import(names: list[str]) -> None:
    """What children came to need: they need not import it again."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _start(act: Act, say: Say) -> None:
    say("arm")
    act.start()


def _run_one(act: Act, seed: int, number: int, acting: _Size, starting: _Size, tally: Tally) -> None:
    chance = random.Random(f"{act.name}.{seed}.{number}")
    act.reset(chance)
    deaths: list[str] = []
    lines: list[list[Any]] = []
    try:
        for link in range(act.links):
            told = run_child(lambda say, link=link: act.execute(link, chance, say), acting.kills(chance))
            acting.note(told)
            lines += told.lines
            tally.kills += 1
            deaths.append(told.death)
            while chance.random() < _AGAIN:
                again = run_child(lambda say: _start(act, say), starting.kills(chance))
                tally.starts_killed += 1
                deaths.append(f"its start {again.death}")
            if chance.random() > _ONCE_MORE:
                break
        told = Told(lines, "", 0, 0.0)
        outcome = run_child(lambda say: say("outcome", act.check(told, chance))).of("outcome")[0][0]
    except AssertionError as error:
        raise AssertionError(f"killed {', then '.join(deaths)}\n{error}") from error
    tally.outcomes[outcome] += 1


def remove(path: Path) -> None:
    """A tree, whatever goes on in it."""
    import shutil

    for _ in range(100):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
    raise AssertionError(f"{path} can't be removed")
