"""Repositories whose branch `a-sync` has a long history and a bare remote, and git doing the rounds by hand."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Bench
from bench.place import Repository, clean_environment, open_repository, write_history
from thrum.model.methods.sync import SYNC_CONFIGURE, SYNC_FORCE, SyncConfigureParams, SyncForceParams, SyncForceResult
from thrum.rpc.client import BlockingClient

BRANCH = "a-sync"
_REF = f"refs/heads/{BRANCH}"
_TRACKING = f"refs/remotes/origin/{BRANCH}"
_WAIT_MS = 60_000


def git(at: Path, *words: str, stdin: bytes = b"", environ: dict[str, str] | None = None) -> str:
    """What git prints. `at` is a work tree or a bare repository. Raises CalledProcessError."""
    argv = ["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", *words]
    done = subprocess.run(
        argv, cwd=at, env=environ or clean_environment(), input=stdin, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a branch is. `lines` are those of each journal, the journal of one agent's messages."""

    author_journals: int
    lines: int
    commits: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A repository whose daemon syncs with `remote`, and holds all that is there."""

    repository: Repository
    remote: Path
    """Bare."""


@contextlib.contextmanager
def open_synced(bench: Bench, shape: Shape) -> Generator[Synced]:
    """A repository of that shape. Its first agent's journal is the journal that is written to."""
    with open_repository(bench.directory, shape.author_journals) as repository:
        remote = repository.main.parent / "remote.git"
        write_history(repository, shape.author_journals * shape.lines, bench.say)
        bench.say(f"sync: {shape.commits:,} commits")
        _import_commits(repository, shape)
        git(repository.main, "clone", "-q", "--bare", ".", str(remote))
        git(repository.main, "remote", "add", "origin", str(remote))
        repository.start()
        begin_to_sync(repository)
        yield Synced(repository, remote)


def _import_commits(repository: Repository, shape: Shape) -> None:
    """Each commit adds a line to one of the journals, as rounds do; the last one holds them whole."""
    author_journals = [repository.journal(agent).read_bytes() for agent in repository.agents]
    lines = [author_journal[:20_000].splitlines(keepends=True)[:20] for author_journal in author_journals]
    parts: list[bytes] = []
    for number in range(shape.commits):
        parts.append(_commit_words(number))
        if number:
            author_journal, turn = number % shape.author_journals, number // shape.author_journals
            changed = {author_journal: b"".join(lines[author_journal][: turn % 20 + 1])}
        else:
            parts.append(f"from {_REF}^0\n".encode())
            changed = {}
        if number == shape.commits - 1:
            changed = dict(enumerate(author_journals))
        for author_journal, data in changed.items():
            path = f"messages/{repository.agents[author_journal]}.jsonl"
            parts.append(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    git(repository.main, "fast-import", "--quiet", stdin=b"".join(parts))


def _commit_words(number: int) -> bytes:
    subject = "sync: 1 message from bench@localhost"
    who = f"thrum <thrum@localhost> {1_700_000_000 + number} +0000"
    return f"commit {_REF}\ncommitter {who}\ndata {len(subject)}\n{subject}\n".encode()


def begin_to_sync(repository: Repository) -> None:
    """Turn sync on, and wait until the remote has all."""
    with BlockingClient(repository.socket) as client:
        client.call(SYNC_CONFIGURE, SyncConfigureParams(enabled=True, confirm_public=True))
        force(client)
        force(client)


def force(client: BlockingClient) -> SyncForceResult:
    """A round, waited for."""
    while True:
        done = client.call(SYNC_FORCE, SyncForceParams(wait_ms=_WAIT_MS))
        if not done.late:
            break
    if done.result == "error" or done.local_only:
        raise SystemExit(f"bench: a round failed: {done.last_error or done.local_only_reason}")
    return done


@dataclass(slots=True)
class ByHand:
    """The same branch in a clone without thrum: rounds by git's own commands, with the settings that git has."""

    clone: Path
    """Bare, as its remote is."""
    file: str
    """The journal that is written to."""
    working: Path
    """Its working file, outside the clone."""
    _number: int = field(default=0)

    def round_ms(self) -> float:
        """Append a line, and bring it to the remote."""
        self._number += 1
        with self.working.open("ab") as file:
            file.write(b'{"type":"message.create","number":%08d,"text":"%s"}\n' % (self._number, b"x" * 390))
        began = time.perf_counter()
        self.round()
        return (time.perf_counter() - began) * 1000

    def round(self) -> None:
        """fetch, the commit by plumbing, push: nothing is checked out."""
        self.fetch()
        tip = git(self.clone, "rev-parse", _REF)
        blob = git(self.clone, "hash-object", "-w", str(self.working))
        git(self.clone, "update-index", "--add", "--cacheinfo", f"100644,{blob},{self.file}")
        tree = git(self.clone, "write-tree")
        commit = git(self.clone, "commit-tree", "-p", tip, "-m", "sync: 1 message", tree)
        git(self.clone, "update-ref", _REF, commit, tip)
        git(self.clone, "push", "-q", "origin", f"{_REF}:{_REF}")

    def fetch(self) -> None:
        """What the remote's branch has."""
        git(self.clone, "fetch", "-q", "origin", f"+{_REF}:{_TRACKING}")


@contextlib.contextmanager
def open_by_hand(synced: Synced) -> Generator[ByHand]:
    """Git's own clone, with a bare remote of its own, as both are in `synced` now."""
    with tempfile.TemporaryDirectory(dir=synced.remote.parent) as directory:
        home = Path(directory)
        clone, working = home / "clone.git", home / "working.jsonl"
        git(home, "clone", "-q", "--bare", str(synced.remote), "remote.git")
        git(home, "clone", "-q", "--bare", "remote.git", "clone.git")
        git(clone, "read-tree", BRANCH)
        file = f"messages/{synced.repository.agents[0]}.jsonl"
        with working.open("wb") as target:
            argv = ["git", "cat-file", "blob", f"{BRANCH}:{file}"]
            subprocess.run(argv, cwd=clone, env=clean_environment(), stdout=target, check=True)
        hand = ByHand(clone, file, working)
        hand.round()
        yield hand


def bytes_below(directory: Path, leave_out: Sequence[str] = ()) -> int:
    """Sizes of all files in a directory."""
    size = 0
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in leave_out]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
