"""Keeping the branch small on disk: what rounds leave as whole loose files becomes deltas in a pack of thrum's own.

A journal of 10,000 lines is 0.9 MB for each round that touches it, and a delta of it some hundred bytes. Other packs
are never touched, and no object is removed that is not in the new pack or in another one. Killed at any step, it leaves
the same objects, some of them twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from thrum.git.reader import read_ref
from thrum.git.refs import REF
from thrum.git.runner import DURABLE, GitRunner, checked_git, run_git
from thrum.model.clock import SystemClock
from thrum.model.errors import StoreFailed
from thrum.model.files import atomic_write, sync_directory, try_lock

LOOSE_BYTES_MAX: Final = 8 << 20
"""So much may rounds leave, by their own count, before it is worth packing."""

_NEW_PACK_BYTES: Final = 1 << 20
"""What is new takes about so much: of each journal that was written to, one version whole."""
_REFLOG_BYTES_MAX: Final = 1 << 18
"""So much of a reflog is looked at from its end: what is older has been packed."""

_SECONDS_MAX: Final = 600.0
_GC_SECONDS: Final = 12 * 3600
"""By git's own rule an older `gc.pid` is of a `git gc` that died."""
_RUBBISH_SECONDS: Final = 3600
_OUR_TEMPORARY: Final = re.compile(r"tmp_obj_[0-9a-f]{12}")
_PACK: Final = re.compile(r"pack-(?:[0-9a-f]{40}|[0-9a-f]{64})")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PARTS: Final = (".idx", ".rev", ".bitmap", ".mtimes", ".pack")
"""In the order in which they go: without its index a pack is not looked at."""
_SETTINGS: Final = (
    *DURABLE,
    "-c",
    "pack.compression=1",
    "-c",
    "pack.packSizeLimit=0",
    "-c",
    "pack.indexVersion=2",
    # Above it git makes no deltas.
    "-c",
    "core.bigFileThreshold=512m",
)


class Maintenance:
    """Packs the branch's loose objects when rounds have left enough of them. Blocks.

    `run` may run beside rounds: they count in another thread, and `stop` is called from a third one.
    """

    def __init__(self, common_dir: Path, thrum_sync_dir: Path, environ: Mapping[str, str], seen_ref: str) -> None:
        self._common_dir = common_dir
        self._environ = environ
        self._refs = (REF, seen_ref)
        self._runner = GitRunner()
        self._packs_dir = common_dir / "objects" / "pack"
        self._work_dir = common_dir / "objects" / "thrum-packing"
        self._state_file = thrum_sync_dir / "packs.json"
        self._lock_file = thrum_sync_dir / "packs.lock"
        self._count_file = thrum_sync_dir / "loose-bytes"
        self._counting = threading.Lock()
        self._fetched: list[tuple[str, str]] = []
        self._loose_bytes = self._read_count()

    # -- counting

    def note_written(self, size: int) -> None:
        """A round wrote so many bytes of loose objects."""
        self._count(size)

    def note_fetched(self, before: str, now: str) -> None:
        """The remote's branch was fetched; it is measured on request."""
        if now and now != before:
            with self._counting:
                self._fetched.append((before, now))

    def is_ready(self) -> bool:
        with self._counting:
            fetched, self._fetched = self._fetched, []
        self._count(sum(self._loose_size(before, now) for before, now in fetched))
        return self._loose_bytes >= LOOSE_BYTES_MAX

    def stop(self) -> None:
        """End the git that packs, and every later one."""
        self._runner.stop()

    def _loose_size(self, before: str, now: str) -> int:
        """Bytes of the loose objects that came with a fetch. 0 if this git can't tell: those wait for the next time."""
        range_ = [now, f"^{before}"] if before else [now]
        words = ["--no-replace-objects", "rev-list", "--disk-usage", "--objects", "--unpacked", *range_, "--"]
        done = run_git([f"--git-dir={self._common_dir}", *words], self._environ)
        text = b"" if done is None or done.returncode != 0 else done.stdout.strip()
        return int(text) if text.isdigit() else 0

    def _count(self, more: int) -> None:
        # Neither synced nor replaced: it says when to look, no more.
        if more:
            with self._counting:
                self._loose_bytes += more
                with contextlib.suppress(OSError):
                    self._count_file.touch(mode=0o600)
                    self._count_file.write_text(f"{self._loose_bytes}\n")

    def _read_count(self) -> int:
        try:
            return int(self._count_file.read_text())
        except (OSError, ValueError):
            return 0

    # -- packing

    def run(self) -> None:
        """Make one pack of all that is ours, then remove what it makes superfluous. Raises StoreFailed.

        Does nothing while a `git gc` or another process of thrum's is at it.
        """
        try:
            lock = try_lock(self._lock_file)
            if lock is None:
                return
            try:
                if not self._collecting():
                    self._count(-self._loose_bytes)
                    self._pack()
                    self._sweep()
            finally:
                shutil.rmtree(self._work_dir, ignore_errors=True)
                os.close(lock)
        except OSError as error:
            raise StoreFailed(f"could not pack {REF}: {(error.strerror or str(error)).lower()}") from error

    def _collecting(self) -> bool:
        try:
            began = (self._common_dir / "gc.pid").stat().st_mtime
        except OSError:
            return False
        return SystemClock().now_ms() / 1000 - began < _GC_SECONDS

    def _pack(self) -> None:
        packs = {path.stem for path in self._packs_dir.glob("*.idx")}
        known = self._ours()
        ours = [name for name in known if name in packs]
        for name in known:
            if name not in packs:
                self._remove(name)  # taken by a `git gc`, or not whole when we were killed
        merged = self._small(ours)
        kept = {name: known[name] for name in ours if name not in merged}
        others = sorted(packs.difference(merged))
        tip, new = read_ref(self._common_dir, self._environ, REF), self._make(merged, others, kept.values())
        if not new:
            return
        self._remember(known | {new: tip})
        self._put(new)
        for object_id in index_ids(self._packs_dir / f"{new}.idx"):
            text = object_id.hex()
            (self._common_dir / "objects" / text[:2] / text[2:]).unlink(missing_ok=True)
        for old in merged:
            if old != new and self._is_needed(old, new, others):
                kept[old] = known[old]
            elif old != new:
                self._remove(old)
        self._remember(kept | {new: tip})

    def _small(self, ours: list[str]) -> list[str]:
        """The packs that go into the new one: each that is left is larger than all the smaller ones twice.

        So few packs remain, and what is in a large one is rewritten a few times in its life.
        """
        total = _NEW_PACK_BYTES
        sizes = sorted(((self._packs_dir / f"{name}.pack").stat().st_size, name) for name in ours)
        small: list[str] = []
        for size, name in sizes:
            if size >= 2 * total:
                break
            total += size
            small.append(name)
        return small

    def _remove(self, name: str) -> None:
        for part in _PARTS:
            (self._packs_dir / f"{name}{part}").unlink(missing_ok=True)

    def _make(self, merged: list[str], others: list[str], packed: Iterable[str]) -> str:
        """Write the new pack into the work directory: its name, `""` if there is nothing to pack.

        `packed`: commits whose whole history is in packs that stay.
        """
        shutil.rmtree(self._work_dir, ignore_errors=True)
        self._work_dir.mkdir(mode=0o700)
        revisions = self._work_dir / "revisions"
        limits = [f"^{commit}" for commit in self._existing(packed)]
        revisions.write_text("".join(f"{line}\n" for line in (*self._commits(merged), *limits)))
        words = ["pack-objects", "--revs", "--delta-base-offset", "--quiet", "--threads=1", "--window=1", "--depth=50"]
        words += [f"--keep-pack={name}.pack" for name in others]
        if self._is_partial():
            words.append("--exclude-promisor-objects")
        done = self._runner.run(
            [f"--git-dir={self._common_dir}", "--no-replace-objects", *_SETTINGS, *words, str(self._work_dir / "pack")],
            self._environ,
            cwd="/",
            silent_seconds_max=_SECONDS_MAX,
            seconds_max=_SECONDS_MAX,
            stdin=revisions,
            nice=True,
        )
        if done.status != 0:
            raise StoreFailed(f"could not pack {REF}: {done.ended or done.err.strip()}", remedy="git fsck")
        names = [f"pack-{line}" for line in done.out.split()]
        return names[0] if names and (self._work_dir / f"{names[0]}.idx").exists() else ""

    def _commits(self, merged: list[str]) -> list[str]:
        """Where to walk from: the branch, what it was at by its reflog, and every commit that is packed again.

        So that everything still in use (a branch of the user's, a reflog) stays.
        """
        known: dict[str, None] = {}
        for ref in self._refs:
            for line in _last_lines(self._common_dir / "logs" / ref):
                known[line.split(" ", 2)[1] if line.count(" ") > 1 else ""] = None
        words = ["for-each-ref", "--format=%(objectname)", *self._refs]
        known |= dict.fromkeys(checked_git([f"--git-dir={self._common_dir}", *words], self._environ).decode().split())
        for name in merged:
            known |= dict.fromkeys(object_id.hex() for object_id in index_ids(self._packs_dir / f"{name}.idx"))
        return self._existing(known)

    def _existing(self, object_ids: Iterable[str]) -> list[str]:
        """Those that are commits, and there."""
        asked = "".join(f"{object_id}\n" for object_id in object_ids if object_id.strip("0"))
        words = ["--no-replace-objects", "cat-file", "--batch-check=%(objectname) %(objecttype)"]
        # Nothing is fetched for this where objects may be missing.
        environ = {**self._environ, "GIT_NO_LAZY_FETCH": "1"}
        told = checked_git([f"--git-dir={self._common_dir}", *words], environ, stdin=asked.encode()).decode()
        return [line.partition(" ")[0] for line in told.splitlines() if line.endswith(" commit")]

    def _is_partial(self) -> bool:
        words = ["config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"]
        done = run_git([f"--git-dir={self._common_dir}", *words], self._environ)
        return done is not None and done.returncode == 0

    def _put(self, name: str) -> None:
        """Move the new pack among git's, its index last."""
        for part in reversed(_PARTS):
            made = self._work_dir / f"{name}{part}"
            if made.exists():
                made.rename(self._packs_dir / made.name)
        sync_directory(self._packs_dir)

    def _is_needed(self, old: str, new: str, others: list[str]) -> bool:
        """Whether an old pack of ours is still needed: told to keep it, indexed together with others, or alone in
        having an object.
        """
        if (self._packs_dir / f"{old}.keep").exists():
            return True
        joint = [self._packs_dir / "multi-pack-index", *self._packs_dir.glob("multi-pack-index.d/*")]
        for path in joint:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                if old.encode() in path.read_bytes():
                    return True
        lacking = set(index_ids(self._packs_dir / f"{old}.idx"))
        for name in (new, *others):
            if lacking:
                with contextlib.suppress(FileNotFoundError):
                    lacking.difference_update(index_ids(self._packs_dir / f"{name}.idx"))
        return bool(lacking)

    # -- which packs are ours

    def _ours(self) -> dict[str, str]:
        """Our packs, each with the commit whose history was packed when it had been made; `""`: not known."""
        try:
            known: Any = json.loads(self._state_file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        names: Any = cast("dict[str, Any]", known).get("packs") if isinstance(known, dict) else None
        if isinstance(names, list):
            names = dict.fromkeys((name for name in cast("list[Any]", names) if isinstance(name, str)), "")
        if not isinstance(names, dict):
            return {}
        found = cast("dict[str, Any]", names)
        return {name: _commit_id(tip) for name, tip in found.items() if _PACK.fullmatch(name)}

    def _remember(self, packs: Mapping[str, str]) -> None:
        atomic_write(self._state_file, json.dumps({"packs": packs}).encode() + b"\n")

    def _sweep(self) -> None:
        """Take away what a kill left of objects that were being written."""
        now = SystemClock().now_ms() / 1000
        for directory in (self._common_dir / "objects").glob("[0-9a-f][0-9a-f]"):
            for name in os.listdir(directory):
                if _OUR_TEMPORARY.fullmatch(name):
                    path = directory / name
                    with contextlib.suppress(FileNotFoundError):
                        if now - path.stat().st_mtime > _RUBBISH_SECONDS:
                            path.unlink()


def _commit_id(text: object) -> str:
    return text if isinstance(text, str) and _COMMIT.fullmatch(text) else ""


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _REFLOG_BYTES_MAX))
            return file.read().decode("utf-8", "replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def index_ids(path: Path) -> Iterator[bytes]:
    """The ids (binary) of the objects in a pack, by its index of version 2; none of any other."""
    data = path.read_bytes()
    if data[:8] != b"\xfftOc\0\0\0\2":
        return
    (count,) = struct.unpack_from(">I", data, 8 + 255 * 4)
    start, size = 8 + 256 * 4, 32 if len(path.stem) > len("pack-") + 40 else 20
    for offset in range(start, start + count * size, size):
        yield data[offset : offset + size]
