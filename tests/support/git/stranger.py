"""Somebody who may push to the remote and writes there by plain git, without thrum."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from tests.support.git.repository import git
from thrum.model import clock, ids

_TRIES = 50
_LOST_THE_RACE = re.compile(r"fetch first|non-fast-forward|cannot lock ref|failed to update ref|stale info")
"""What git says of a push when another moved the branch between its look and its write."""
ORIGIN = "d_01KGH87Y00STRANGERSTRANGER"


def line(type_: str, *, ms: int | None = None, origin: str = ORIGIN, **fields: Any) -> bytes:
    """A fact's line with its newline, stamped now."""
    ms = clock.SystemClock().now_ms() if ms is None else ms
    envelope = {"type": type_, "timestamp": clock.format_ms(ms), "event_id": f"evt_{ids.Ulids().at(ms)}", "v": 1}
    return msgspec.json.encode({**envelope, "origin_daemon": origin, **fields}) + b"\n"


def letter(author: str, text: str, *to: str, **fields: Any) -> bytes:
    """The line of a message."""
    message_id = "msg_" + ids.Ulids().at(clock.SystemClock().now_ms())
    body = {"format": "plain", "content": text}
    return line("message.create", message_id=message_id, agent_id=author, body=body, recipients=list(to), **fields)


class Stranger:
    """A plain clone of a bare repository."""

    def __init__(self, remote: Path, directory: Path) -> None:
        self.directory = directory
        git(directory.parent, "clone", "-q", str(remote), str(directory))

    def git(self, *words: str, stdin: bytes = b"") -> str:
        return git(self.directory, *words, stdin=stdin)

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def push(self, **kwargs: Any) -> str:
        """See `commit`; also where a daemon was quicker, which pushes when it likes."""
        for _ in range(_TRIES):
            commit = self.commit(**kwargs)
            if self.lands(commit):
                return commit
        raise AssertionError(f"after {_TRIES} pushes somebody was still quicker")

    def lands(self, commit: str) -> bool:
        """Push a commit as the remote's branch; whether nobody was quicker. Raises for every other failure."""
        try:
            self.git("push", "-q", "--porcelain", "origin", f"{commit}:refs/heads/a-sync")
        except subprocess.CalledProcessError as error:
            if not _LOST_THE_RACE.search(error.stdout + error.stderr):
                raise AssertionError(error.stderr) from error
            return False
        return True

    def commit(
        self,
        *,
        appended: dict[str, bytes] | None = None,
        entries: dict[str, tuple[str, str]] | None = None,
        gone: tuple[str, ...] = (),
    ) -> str:
        """A commit on the remote's: lines behind those of its journals, and index entries (`mode`, object id)."""
        self.git("fetch", "-q", "--no-recurse-submodules", "origin", "a-sync")
        self.git("read-tree", "FETCH_HEAD")
        for path in gone:
            self.git("update-index", "--force-remove", path)
        put = dict(entries or {})
        for path, data in (appended or {}).items():
            there = self.git("ls-files", "-s", path)
            before = (
                subprocess.run(
                    ["git", "cat-file", "blob", there.split()[1]], cwd=self.directory, check=True, capture_output=True
                ).stdout
                if there
                else b""
            )
            put[path] = ("100644", self.blob(before + data))
        for path, (mode, object_id) in put.items():
            self.git("update-index", "--add", "--replace", "--cacheinfo", f"{mode},{object_id},{path}")
        tree = self.git("write-tree")
        who = ("-c", "user.name=stranger", "-c", "user.email=s@example.org")
        return self.git(*who, "commit-tree", tree, "-p", "FETCH_HEAD", "-m", "hello")
