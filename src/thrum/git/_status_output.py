"""What git prints, `-z` forms only, as values. Pure: bytes in, structs out. Paths stay bytes, as the disk has them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from thrum.model.search import is_pattern

STATUS: Final = (
    "status",
    "--porcelain=v2",
    "-z",
    "--untracked-files=all",
    "--find-renames",
    "--ignore-submodules=dirty",
)
NUMSTAT: Final = ("diff", "--numstat", "-z", "--find-renames", "--no-ext-diff", "--no-textconv", "HEAD")
FILES: Final = ("ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard")
LOG: Final = (
    "log",
    "-z",
    "--no-renames",
    "--name-only",
    "--no-show-signature",
    "--no-ext-diff",
    "--encoding=UTF-8",
    "--format=%x01%H%x00%s",
)

_COMMIT: Final = re.compile(rb"\x01([0-9a-f]{40,64})")
_PATH_FIELD: Final = {b"1": 8, b"2": 9, b"u": 10}
"""How many blanks stand before the path of an entry of each kind."""


class Change(NamedTuple):
    """An uncommitted change. `old_path`: where a renamed file was; `untracked`: git has nothing to compare it with."""

    path: bytes
    status: str
    old_path: bytes = b""
    untracked: bool = False


class LoggedCommit(NamedTuple):
    sha: str
    subject: str
    paths: tuple[bytes, ...]


def parse_status(output: bytes) -> list[Change]:
    """`git status --porcelain=v2 -z`: one change a path, in git's order."""
    changes: dict[bytes, Change] = {}
    entries = iter(output.split(b"\0"))
    for entry in entries:
        kind = entry[:1]
        if kind == b"?":
            path = entry[2:]
            # A file that was taken out of the index and is still there.
            changes[path] = Change(path, "modified") if path in changes else Change(path, "added", untracked=True)
        elif kind in _PATH_FIELD:
            blanks = _PATH_FIELD[kind]
            fields = entry.split(b" ", blanks)
            path, codes = fields[blanks], fields[1]
            old_path = next(entries, b"") if kind == b"2" else b""
            status = "renamed" if kind == b"2" and fields[8].startswith(b"R") else _status(codes)
            changes[path] = Change(path, status, old_path if status == "renamed" else b"")
    return list(changes.values())


def _status(codes: bytes) -> str:
    if b"D" in codes and b"U" not in codes:
        return "deleted"
    return "added" if (codes[:1] in (b"A", b"C") and b"U" not in codes) or codes == b".A" else "modified"


def parse_numstat(output: bytes) -> dict[bytes, tuple[int, int]]:
    """`git diff --numstat -z`: path -> (additions, deletions); 0 for what is no text."""
    found: dict[bytes, tuple[int, int]] = {}
    entries = iter(output.split(b"\0"))
    for entry in entries:
        additions, tab, rest = entry.partition(b"\t")
        deletions, _, path = rest.partition(b"\t")
        if not tab:
            continue
        if not path:
            next(entries, b"")
            path = next(entries, b"")
        found[path] = (_number(additions), _number(deletions))
    return found


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0


def parse_log(output: bytes) -> list[LoggedCommit]:
    """`git log` in the form of LOG: newest first."""
    commits: list[LoggedCommit] = []
    tokens = output.split(b"\0")
    starts = [index for index, token in enumerate(tokens) if _COMMIT.fullmatch(token)]
    for start, end in itertools.pairwise([*starts, len(tokens)]):
        subject, *paths = tokens[start + 1 : end] or [b""]
        # Git sets the names off with a newline, which the first one begins with.
        names = [path.removeprefix(b"\n") if index == 0 else path for index, path in enumerate(paths)]
        sha = tokens[start][1:].decode()
        commits.append(LoggedCommit(sha, subject.decode("utf-8", "replace"), tuple(name for name in names if name)))
    return commits


def pathspecs(wanted: Sequence[str]) -> Sequence[bytes]:
    """What limits git to files as `path_matches` takes them; git itself may find a little more. None: no limit."""
    return [_pathspec(file) for file in wanted]


def _pathspec(file: str) -> bytes:
    name = file.encode("utf-8", "surrogateescape")
    if is_pattern(file):
        inside = b"**" if file.endswith("/") else b""
        return b":(top,glob)**/" + re.sub(rb"([\[\\])", rb"\\\1", name) + inside
    if file.endswith("/"):
        return b":(top,literal)" + name
    return b":(top,glob)**/" + re.sub(rb"([\[\\])", rb"\\\1", name)
