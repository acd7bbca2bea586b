"""The only place that runs git: one environment for all of it, no prompts, no hooks, a time limit, no orphans."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from thrum.model import limits
from thrum.model.errors import NotAvailable, StoreFailed

DURABLE: Final = ("-c", "core.fsync=all")
"""By default git does not sync loose objects: after a power cut a ref would lead nowhere."""

LOCAL_VARIABLES: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""What `git rev-parse --local-env-vars` lists: what git sets for its hooks and aliases, true of one repository only."""
_NOT_INHERITED: Final = LOCAL_VARIABLES | {
    "GIT_CURL_VERBOSE",
    "GIT_GLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_PAGER_IN_USE",
    "GIT_QUARANTINE_PATH",
}
"""Also what would change which refs there are, what a path means, or what git prints."""
_NOT_INHERITED_PREFIXES: Final = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_", "GIT_TRACE")
"""Settings of one command, and traces: those hold secrets."""
_SET: Final[Mapping[str, str]] = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
_GIT: Final = ("git", "--no-pager", "-c", "core.hooksPath=/dev/null")
"""The user's hooks are for the user's branches: a `pre-push` may run a whole test suite."""
_KEPT_BYTES: Final = 1 << 20
_GRACE_SECONDS: Final = 2.0
_KILL_SECONDS: Final = 0.2

Ended = Literal["", "stalled", "stopped"]


class GitFailed(Exception):
    """Git could not be started, refused, or took too long; its text is for people."""


def git_environ(environ: Mapping[str, str], extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of every git process: no other repository than the one named, English, no questions, no traces.

    The user's configuration files stay as `GIT_CONFIG_GLOBAL`, `_SYSTEM` and `_NOSYSTEM` say. `extra` is added after
    that, and so may hold what is not inherited.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _NOT_INHERITED and not name.startswith(_NOT_INHERITED_PREFIXES)
    }
    return {**kept, **_SET, **(extra or {})}


def run_git(
    arguments: Sequence[str | bytes],
    environ: Mapping[str, str],
    *,
    stdin: bytes = b"",
    cwd: str = "/",
    seconds_max: float = limits.git_seconds_max,
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git to its end and return what came of it; None if it is not installed. Blocks.

    A git that takes longer is killed with all its children, and has failed: its stderr says why.
    """
    try:
        return _complete(arguments, environ, stdin, cwd, seconds_max)
    except FileNotFoundError:
        return None
    except GitFailed as failed:
        return subprocess.CompletedProcess(arguments, -signal.SIGKILL, b"", f"fatal: {failed}\n".encode())


def checked_git(arguments: Sequence[str], environ: Mapping[str, str], *, stdin: bytes = b"") -> bytes:
    """Return what git prints. Raises NotAvailable if it is not installed, StoreFailed if it fails."""
    done = run_git(arguments, environ, stdin=stdin)
    if done is None:
        raise git_missing()
    if done.returncode != 0:
        command = next(word for word in arguments if not word.startswith("-") and "=" not in word)
        reason = done.stderr.decode(errors="replace").strip()
        raise StoreFailed(f"git {command} failed: {reason}", remedy="fix what git names, then repeat the command")
    return done.stdout


def read_git(
    root: str, arguments: Sequence[str | bytes], environ: Mapping[str, str], deadline: float, *settings: str
) -> bytes:
    """Return what git prints, run in a worktree; `deadline` is of the monotonic clock. Blocks. Raises GitFailed.

    `settings` are options before the subcommand (`-c`, `key=value`). Whether a repository of another user may be read
    at all, git itself decides (`safe.directory`).
    """
    try:
        done = _complete([*settings, "-C", root, *arguments], environ, b"", "/", deadline - time.monotonic())
    except OSError as error:
        raise GitFailed(f"git cannot be started: {(error.strerror or str(error)).lower()}") from error
    if done.returncode:
        raise GitFailed(_reason(done.stderr, done.returncode))
    return done.stdout


def configured(git_dir: Path, pattern: str, environ: Mapping[str, str], *, cwd: str = "/") -> list[tuple[str, str]]:
    """Return what git's configuration has under keys that match a pattern (`git config --get-regexp`), in its order."""
    done = run_git([f"--git-dir={git_dir}", "config", "-z", "--get-regexp", pattern], environ, cwd=cwd)
    text = "" if done is None else os.fsdecode(done.stdout)
    entries = [entry.partition("\n") for entry in text.split("\0") if entry]
    return [(key, value) for key, _, value in entries]


def git_missing() -> NotAvailable:
    return NotAvailable("git is not installed, and thrum needs it", remedy="install git")


class Finished(NamedTuple):
    """A git that ran under watch."""

    status: int
    out: str
    err: str
    ended: Ended
    """Why it was killed, if it was."""


class GitRunner:
    """Runs git processes that may take long, one at a time; `stop` and `cut` end the one that runs, from any thread.

    After them no other is started, after `cut` until `resume`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._cut = False

    def cut(self) -> None:
        """End the process that runs, if any; start none before `resume`."""
        with self._lock:
            self._cut = True
            if self._process is not None:
                _signal_group(self._process, signal.SIGTERM)

    def resume(self) -> None:
        """Allow processes again after `cut`. Its caller left a reason first: look at it after this."""
        with self._lock:
            self._cut = False

    def stop(self) -> None:
        """End the process that runs, if any; start none any more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _signal_group(self._process, signal.SIGTERM)

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        cwd: str,
        silent_seconds_max: float,
        seconds_max: float,
        extra: Mapping[str, str] | None = None,
        stdin: Path | None = None,
        nice: bool = False,
    ) -> Finished:
        """Run git in a process group of its own, which is killed when it says nothing for a while, or takes too long.

        So let it report its progress. `extra`: variables on top of `git_environ`. `stdin`: a file. Raises NotAvailable
        if git is not installed.
        """
        if self._stopped or self._cut:
            return Finished(-signal.SIGTERM, "", "", "stopped")
        words = ("nice", "-n", "10") if nice and shutil.which("nice") else ()
        try:
            with (stdin or Path(os.devnull)).open("rb") as given:
                process = _start(arguments, git_environ(environ, extra), cwd, given.fileno(), before=words)
        except FileNotFoundError as error:
            raise git_missing() from error
        with self._lock:
            self._process = process
            if self._stopped or self._cut:
                _signal_group(process, signal.SIGTERM)
        try:
            out, err, late = _listen(process, silent_seconds_max, seconds_max)
        finally:
            with self._lock:
                self._process = None
            # What is still there is not what we wait for: an ssh that stays as master for the next call.
            if process.poll() is None:
                try:
                    process.wait(_GRACE_SECONDS)
                except subprocess.TimeoutExpired:
                    _signal_group(process, signal.SIGKILL)
                    process.wait()
        ended: Ended = ""
        if process.returncode != 0:
            ended = "stopped" if self._stopped or self._cut else "stalled" if late else ""
        return Finished(process.returncode, _text(out), _text(err), ended)


def _complete(
    arguments: Sequence[str | bytes], environ: Mapping[str, str], stdin: bytes, cwd: str, seconds_max: float
) -> subprocess.CompletedProcess[bytes]:
    """Run git to its end. Raises OSError if it cannot be started, GitFailed if it was killed for taking too long."""
    process = _start(arguments, git_environ(environ), cwd, subprocess.PIPE)
    try:
        out, err = process.communicate(stdin, timeout=max(0.0, seconds_max))
    except subprocess.TimeoutExpired:
        raise GitFailed("git did not answer in time") from None
    finally:
        if process.returncode is None:
            _kill(process)
    return subprocess.CompletedProcess(arguments, process.wait(), out, err)


def _start(
    arguments: Sequence[str | bytes], environ: Mapping[str, str], cwd: str, stdin: int, *, before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start git in a session of its own: without a terminal to ask at, and in a group that can be killed whole."""
    return subprocess.Popen(
        [*before, *_GIT, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        cwd=cwd,
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and its children, whatever they do. One that even SIGKILL does not end is left to the kernel."""
    _signal_group(process, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_SECONDS)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _listen(process: subprocess.Popen[bytes], silent_seconds: float, seconds: float) -> tuple[bytes, bytes, bool]:
    """Its output up to the end of its stdout (its stderr may be held open by others), and whether it was too late."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    heard: dict[int, bytes] = {out: b"", err: b""}
    now = time.monotonic()
    deadline, silent_until = now + seconds, now + silent_seconds
    killed = False
    with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        selector.register(out, selectors.EVENT_READ)
        selector.register(err, selectors.EVENT_READ)
        while out in selector.get_map():
            now = time.monotonic()
            if now >= min(deadline, silent_until):
                _signal_group(process, signal.SIGKILL if killed else signal.SIGTERM)
                if killed:
                    break
                killed, deadline, silent_until = True, now + _GRACE_SECONDS, now + _GRACE_SECONDS
                continue
            for key, _ in selector.select(min(deadline, silent_until) - now):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                heard[key.fd] = (heard[key.fd] + data)[-_KEPT_BYTES:]
                if not killed:
                    silent_until = time.monotonic() + silent_seconds
        if not killed:
            os.set_blocking(err, False)
            with contextlib.suppress(BlockingIOError):
                while data := os.read(err, 65536):
                    heard[err] = (heard[err] + data)[-_KEPT_BYTES:]
    return heard[out], heard[err], killed


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Not yet waited for, so the number is still its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _reason(err: bytes, status: int) -> str:
    lines = [line for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    return f"git: {said.partition(': ')[2] or said}" if said else f"git failed with status {status}"
