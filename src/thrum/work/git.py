"""One git process: it takes no lock, is given a deadline, and is killed with all that it started when that passes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

_PLACES: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_GLOB_PATHSPECS",
        "GIT_GRAFT_FILE",
        "GIT_ICASE_PATHSPECS",
        "GIT_INDEX_FILE",
        "GIT_LITERAL_PATHSPECS",
        "GIT_NAMESPACE",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""Variables that would send git elsewhere, or change what a path means: the daemon may be a hook's child."""
_BEFORE: Final = ("git", "--no-optional-locks", "--no-pager", "-c", "core.preloadIndex=false", "-C")
"""Preloading is for one git on many cores: here many run side by side, and the threads only cost."""
_LAST_WORDS_SECONDS: Final = 0.2


class GitFailed(Exception):
    """Git could not be asked, or refused; its text is for people."""


def git_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for git: it stays in its place, asks nothing, writes nothing, and speaks plain English."""
    kept = {name: value for name, value in environ.items() if name not in _PLACES}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}


def run_git(root: str, words: Sequence[str | bytes], environ: Mapping[str, str], deadline: float) -> bytes:
    """What git prints, run in `root`; `deadline` is of the monotonic clock. Blocks. Raises GitFailed.

    Whether a repository of another user may be read at all, git itself decides (`safe.directory`).
    """
    try:
        process = subprocess.Popen(
            [*_BEFORE, root, *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise GitFailed(f"git cannot be started: {(error.strerror or str(error)).lower()}") from error
    try:
        out, err = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise GitFailed("git did not answer in time") from None
    finally:
        if process.returncode is None:
            _kill(process)
    if process.returncode:
        raise GitFailed(_reason(err, process.returncode))
    return out


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and its children, whatever they do. One that even SIGKILL doesn't end is left to the kernel."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORDS_SECONDS)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _reason(err: bytes, status: int) -> str:
    lines = [line for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    return f"git: {said.partition(': ')[2] or said}" if said else f"git failed with status {status}"
