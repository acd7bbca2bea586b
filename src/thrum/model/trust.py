"""Which `.thrum` is trusted: the one that thrum set up, known by a mark that no clone, branch or archive can bring
along.

`.thrum` is where git, tar and patch can write, so nothing is trusted because it is there. What counts is in git's
common directory, below `thrum-sync`, which is never cloned and never checked out: a record for each worktree, with the
random mark that `.thrum/.mark` must repeat and the one target that a redirect may name. Outside git it is in the user's
home, by device and inode of `.thrum`. Source: identity.md §3 "Trust"; docs/decisions/0031.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from thrum.model import files
from thrum.model.errors import ForeignUser, NotInitialized, in_shell

MARK = ".mark"
_MARK_BYTES = 16


class Keep(NamedTuple):
    """Where what counts is kept for one `.thrum`."""

    directory: Path
    """With the settings that count: of the whole repository, or outside git of this `.thrum` alone."""
    record: Path
    """Of this `.thrum`."""


class Record(NamedTuple):
    """What thrum wrote down when it set a `.thrum` up."""

    mark: str
    redirect: str = ""
    """The state directory that its `redirect` may name; empty: it may have none."""
    root: str = ""
    """Where it stood when agents were last bound to it; empty: a program that did not say so wrote this."""


def keep_in_git(git_dir: str | Path, common_dir: str | Path) -> Keep:
    """That of the worktree whose git directory this is. It goes with the worktree, wherever that is moved."""
    directory = Path(common_dir, "thrum-sync")
    key = hashlib.sha256(os.fsencode(os.path.relpath(git_dir, common_dir))).hexdigest()[:16]
    return Keep(directory, directory / "state" / f"{key}.json")


def keep_outside(own: str | Path) -> Keep:
    """That of a `.thrum` outside git."""
    try:
        found = files.lstat(own)
        name = f"{found.st_dev:x}-{found.st_ino:x}"
    except OSError:
        name = "none"  # not there yet: nothing is kept under this name
    directory = Path.home() / ".local" / "state" / "thrum" / name
    return Keep(directory, directory / "state.json")


def read_record(keep: Keep) -> Record | None:
    """What was written down, None if nothing that can be read."""
    try:
        raw: Any = json.loads(files.read_bytes(keep.record))
    except (OSError, ValueError, RecursionError):
        return None
    fields = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    mark, *others = (fields.get(name, "") for name in Record._fields)
    return Record(mark, *others) if mark and all(isinstance(each, str) for each in (mark, *others)) else None


def marks_in(common_dir: Path) -> Iterator[str]:
    """The marks of all worktrees of a repository."""
    directory = common_dir / "thrum-sync"
    for path in sorted((directory / "state").glob("*.json")):
        if (record := read_record(Keep(directory, path))) is not None:
            yield record.mark


def require(own: Path, keep: Keep) -> Record:
    """The record of a `.thrum` that counts. Raises NotInitialized with the reason, or ForeignUser."""
    root = own.parent
    found = files.lstat(own)
    if stat.S_ISLNK(found.st_mode):
        raise refused(root, "its .thrum is a link", remedy=f"rm {in_shell(own)}; thrum init")
    if found.st_uid != os.geteuid():
        remedy = "run thrum as that user, or in a clone of your own"
        raise ForeignUser(f"{own} belongs to uid {found.st_uid}", remedy=remedy, reason="foreign_uid")
    record = read_record(keep)
    if record is None or not has_mark(own, record.mark):
        raise refused(root, "a .thrum lies there that thrum did not set up (no mark)")
    return record


def has_mark(own: Path, mark: str) -> bool:
    """Whether a `.thrum` repeats that mark."""
    return secrets.compare_digest(_mark_in(own), mark.encode())


def refused(root: Path, why: str, remedy: str = "") -> NotInitialized:
    """The refusal of what does not count."""
    remedy = remedy or "thrum init (moves what it finds to .thrum.found-UTC)"
    return NotInitialized(f"thrum is not initialized in {root}: {why}", remedy=remedy, reason=why)


def _mark_in(own: Path) -> bytes:
    try:
        return files.read_bytes(own / MARK)[: 4 * _MARK_BYTES].strip()
    except OSError:
        return b""


def write_marks(own: Path, keep: Keep, redirect: str = "", root: str = "") -> None:
    """Let a `.thrum` count from now on. A mark that both sides have stays, and with it the root that agents are bound
    to: changing those is up to the caller that moves them. `root`: where it stood, if that is not where it is. Raises
    OSError.
    """
    before = read_record(keep)
    if before is not None and has_mark(own, before.mark):
        after = before._replace(redirect=redirect)
    else:
        after = Record(secrets.token_hex(_MARK_BYTES), redirect, root or str(own.parent))
    files.ensure_private_dir(own)
    if not has_mark(own, after.mark):
        files.atomic_write(own / MARK, f"{after.mark}\n".encode())
    if before != after:
        write_record(keep, after)


def write_record(keep: Keep, record: Record) -> None:
    """Write a record down. Raises OSError."""
    files.ensure_private_dir(keep.directory)
    files.ensure_private_dir(keep.record.parent)
    document = {name: value for name, value in record._asdict().items() if value}
    files.atomic_write(keep.record, json.dumps(document).encode() + b"\n")


# -- what git tracks


def tracked(git_dir: Path, common_dir: Path) -> list[str] | None:
    """The paths at or below `.thrum` in a worktree's index, also under names that some file systems fold to it.

    None: the index can't be read. A message, not the wall: one that is locked or being written says what was before.
    Reads no further than the first path beyond `.`.
    """
    found: list[str] = []
    try:
        id_bytes = 32 if b"sha256" in (common_dir / "config").read_bytes().lower() else 20
        for path in (git_dir / "index", *git_dir.glob("sharedindex.*")):
            if path.exists():
                with path.open("rb") as index:
                    found += [os.fsdecode(name) for name in _dotted(index, id_bytes) if _is_own(name)]
    except (OSError, ValueError, IndexError):
        return None
    return list(dict.fromkeys(found))


def _is_own(path: bytes) -> bool:
    name = path.split(b"/", 1)[0].decode("utf-8", "replace")
    # As HFS+ and NTFS fold it: letters' case, characters that are ignored, blanks and dots at the end.
    folded = "".join(each for each in name if each.isprintable()).casefold().rstrip(". ")
    return folded == ".thrum" or folded.startswith((".thrum:", "thrum~"))


def _dotted(index: BinaryIO, id_bytes: int) -> Iterator[bytes]:
    """The paths of an index up to the first one past `.` (git's index-format, versions 2 to 4). Raises ValueError."""
    header = index.read(12)
    version = int.from_bytes(header[4:8], "big")
    if header[:4] != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("no index")
    before = b""
    for _ in range(int.from_bytes(header[8:12], "big")):
        fixed = index.read(40 + id_bytes + 2)
        size = 40 + id_bytes + 2
        if len(fixed) < size:
            raise ValueError("cut off")
        if fixed[-2] & 0x40:
            size += len(index.read(2))
        if version == 4:
            before = before[: len(before) - _offset(index)]
            before += _name(index)
        else:
            before = _name(index)
            size += len(before) + 1
            index.read(-size % 8)
        if before[:1] > b".":
            return
        yield before


def _offset(index: BinaryIO) -> int:
    """How much of the path before is cut off: git's variable width."""
    byte = index.read(1)[0]
    value = byte & 0x7F
    while byte & 0x80:
        byte = index.read(1)[0]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value


def _name(index: BinaryIO) -> bytes:
    name = bytearray()
    while (byte := index.read(1)) not in (b"\0", b""):
        name += byte
    return bytes(name)
