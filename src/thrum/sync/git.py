"""Running git: never in another repository than ours, without a terminal to ask at, and not for ever."""

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

from thrum.errors import NotAvailable, StoreFailed

NO_HOOKS: Final = ("-c", "core.hooksPath=/dev/null")
"""The user's hooks are for the user's branches: a `pre-push` may run a whole test suite."""
DURABLE: Final = ("-c", "core.fsync=all")
"""By default git does not sync loose objects: after a power cut a ref would lead nowhere."""

_PLACES: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""What git sets for its hooks (`git rev-parse --local-env-vars`), and would take for this repository's."""
_KEPT_BYTES: Final = 1 << 20
_GRACE_SECONDS: Final = 2.0


def git_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """For a git process: English, no questions, no traces (they hold secrets), no other repository."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _PLACES and not name.startswith("GIT_TRACE") and name != "GIT_CURL_VERBOSE"
    }
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def run_git(
    arguments: Sequence[str], environ: Mapping[str, str], *, stdin: bytes = b"", cwd: str = "/"
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git to its end; None if it isn't installed. Variables that point it to another repository are left out."""
    try:
        return subprocess.run(
            ["git", *arguments],
            input=stdin,
            capture_output=True,
            env=git_environ(environ),
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError:
        return None


def checked_git(arguments: Sequence[str], environ: Mapping[str, str], *, stdin: bytes = b"") -> bytes:
    """What git prints. Raises NotAvailable if it isn't installed, StoreFailed if it fails."""
    done = run_git(arguments, environ, stdin=stdin)
    if done is None:
        raise git_missing()
    if done.returncode != 0:
        command = next(word for word in arguments if not word.startswith("-") and "=" not in word)
        reason = done.stderr.decode(errors="replace").strip()
        raise StoreFailed(f"git {command} failed: {reason}", remedy="mend what git names, then repeat the command")
    return done.stdout


def configured(git_dir: Path, pattern: str, environ: Mapping[str, str], *, cwd: str = "/") -> list[tuple[str, str]]:
    """What git's configuration has under keys that match a pattern (`git config --get-regexp`), in its order."""
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
    ended: Literal["", "stalled", "stopped"]
    """Why it was killed, if it was."""


class Talk:
    """Runs git processes that may take long, one at a time; `stop` and `cut` end the one that runs, from any thread.

    After them no other is started, after `cut` until `resume`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._cut = False

    def cut(self) -> None:
        """End the process that runs, if any; none is started before `resume`."""
        with self._lock:
            self._cut = True
            if self._process is not None:
                _signal_group(self._process, signal.SIGTERM)

    def resume(self) -> None:
        """What was cut is over. Whoever cut it has said before why, so look at that after this."""
        with self._lock:
            self._cut = False

    def stop(self) -> None:
        """End the process that runs, if any; none is started any more."""
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
        stdin: Path | None = None,
        nice: bool = False,
    ) -> Finished:
        """Run git in a process group of its own, which is killed when it says nothing for a while, or takes too long.

        So let it report its progress. `stdin`: a file. Raises NotAvailable if git isn't installed.
        """
        if self._stopped or self._cut:
            return Finished(-signal.SIGTERM, "", "", "stopped")
        words = ["nice", "-n", "10"] if nice and shutil.which("nice") else []
        try:
            with (stdin or Path(os.devnull)).open("rb") as given:
                process = subprocess.Popen(
                    [*words, "git", *arguments],
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=dict(environ),
                    cwd=cwd,
                    start_new_session=True,
                )
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
        ended: Literal["", "stalled", "stopped"] = ""
        if process.returncode != 0:
            ended = "stopped" if self._stopped or self._cut else "stalled" if late else ""
        return Finished(process.returncode, _text(out), _text(err), ended)


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
