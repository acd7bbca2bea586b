"""A command with a terminal on its stdin, stdout and stderr, and a person who answers its questions."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.daemon.repo import SECONDS, THRUM, Repo

QUESTION = b"[y/N] "


def at_a_terminal(repo: Repo, at: Path, words: Sequence[str], *answers: str) -> tuple[int, str]:
    """Run thrum and type one answer at each question: its status, and all that the terminal showed."""
    ours, theirs = pty.openpty()
    argv = [str(THRUM), *words]
    process = subprocess.Popen(argv, cwd=at, env=repo.env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, left = b"", list(answers)
    try:
        while True:
            assert select.select([ours], [], [], SECONDS)[0], f"nothing more after {shown!r}"
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break  # as Linux says that nobody has the other end any more
            if not piece:
                break
            shown += piece
            if left and shown.count(QUESTION) > len(answers) - len(left):
                os.write(ours, f"{left.pop(0)}\n".encode())
        return process.wait(SECONDS), shown.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
