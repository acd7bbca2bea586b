"""Where git's refs point, read from their files: no process, no lock. thrum runs on no repository with reftables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADS: Final = "refs/heads/"
REMOTE_HEAD: Final = "refs/remotes/origin/HEAD"
USUAL_DEFAULTS: Final = ("main", "master")
_OBJECT_ID: Final = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SYMBOLIC_DEPTH_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Head:
    """What a worktree is on. `ref` is empty when it is detached, `object_id` before the first commit."""

    ref: str = ""
    object_id: str = ""

    @property
    def branch(self) -> str:
        name = self.ref.removeprefix(HEADS) if self.ref.startswith(HEADS) else ""
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class DefaultBranch:
    """The branch that work is merged into: here, and as the remote had it when it was last fetched."""

    ref: str = ""
    object_id: str = ""
    remote_object_id: str = ""

    def bases_of(self, head: Head) -> tuple[str, ...]:
        """The commits that count as merged for a worktree: the remote's default branch and, anywhere but on that
        branch itself, the local one too, so that merged but unpushed work is not attributed to everyone.
        """
        local = "" if head.ref == self.ref and self.remote_object_id else self.object_id
        return tuple(base for base in (self.remote_object_id, local) if base)


class Refs:
    """The refs of one repository as they are now; `packed-refs` is read once."""

    def __init__(self, common_dir: Path) -> None:
        self._common_dir = common_dir
        self._packed: bytes | None = None

    def head(self, git_dir: Path) -> Head:
        """What the worktree with this git directory is on."""
        text = _read(git_dir / "HEAD")
        ref = _target(text)
        return Head(ref, self.object_id(ref)) if ref else Head("", _object_id(text))

    def object_id(self, ref: str, depth: int = 0) -> str:
        """The commit that a ref points to in the end; empty when there is none."""
        if not ref.startswith("refs/") or ".." in ref or depth > _SYMBOLIC_DEPTH_MAX:
            return ""
        text = _read(self._common_dir / ref)
        if target := _target(text):
            return self.object_id(target, depth + 1)
        return _object_id(text) or self._find_packed(ref)

    def default_branch(self, names: tuple[str, ...] = USUAL_DEFAULTS) -> DefaultBranch:
        """The branch of `origin/HEAD`, else the first of `names` that is there."""
        remote_ref = _target(_read(self._common_dir / REMOTE_HEAD))
        remote = self.object_id(remote_ref)
        if remote:
            ref = HEADS + remote_ref.removeprefix("refs/remotes/origin/")
            return DefaultBranch(ref, self.object_id(ref), remote)
        for name in names:
            if found := self.object_id(HEADS + name):
                return DefaultBranch(HEADS + name, found)
        return DefaultBranch()

    def _find_packed(self, ref: str) -> str:
        if self._packed is None:
            self._packed = b"\n" + _read(self._common_dir / "packed-refs")
        end = self._packed.find(f" {ref}\n".encode("utf-8", "surrogateescape"))
        return _object_id(self._packed[self._packed.rfind(b"\n", 0, end) + 1 : end]) if end > 0 else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _target(text: bytes) -> str:
    return text.removeprefix(b"ref:").strip().decode("utf-8", "surrogateescape") if text.startswith(b"ref:") else ""


def _object_id(text: bytes) -> str:
    bare = text.strip()
    return bare.decode() if _OBJECT_ID.fullmatch(bare) else ""
