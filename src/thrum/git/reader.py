"""Reading git's refs and objects: with dulwich (imported only here, on first use), or else with git.

Where dulwich cannot read (partial clones, SHA-256), the git command does.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from thrum.git.refs import BRANCH
from thrum.git.runner import checked_git
from thrum.git.trees import TreeEntry
from thrum.model.errors import NotAvailable, StoreFailed

if TYPE_CHECKING:
    from dulwich.objects import Commit, ObjectID
    from dulwich.pack import Pack
    from dulwich.repo import Repo

FILES_MAX: Final = 100_000
"""Of one tree. A hostile one of ten levels, each ten times the next, would have 10,000,000,000."""
DEPTH_MAX: Final = 64

REMEDY: Final = (
    f"git fsck; if {BRANCH} is lost: git update-ref -d refs/heads/{BRANCH} (it is recreated from the journals)"
)

_OBJECT_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NO_NAMES: Final = frozenset({b"", b".", b"..", b".git"})
_DIRECTORY: Final = 0o040000
_REGULAR: Final = 0o100000
_LINK: Final = 0o120000
_SUBMODULE: Final = 0o160000
_HEAD_BYTES: Final = 64
_PACK_HEAD_BYTES: Final = 1024
_OFFSET_DELTA: Final = 6
_REFERENCE_DELTA: Final = 7
_DELTA_HEAD_BYTES: Final = 32


class BranchCommit(NamedTuple):
    """One round. `seconds`: since 1970."""

    commit: str
    seconds: int
    subject: str


class Reader(Protocol):
    """What is read of git's refs and objects. Ids are hexadecimal. Raises StoreFailed for what is not there."""

    def ref(self, name: str) -> str:
        """The commit that a ref is at, or `""`."""
        ...

    def entries(self, commit: str) -> list[TreeEntry]:
        """All files of a commit's tree; names that git itself refuses are left out."""
        ...

    def blob(self, object_id: str) -> bytes: ...

    def blob_size(self, object_id: str) -> int: ...

    def parents(self, commit: str) -> list[str]: ...

    def commits(self, tip: str, since_seconds: int) -> Iterator[BranchCommit]:
        """The history of a commit, newest first, back to a time (seconds since 1970)."""
        ...

    def is_packed(self, object_id: str) -> bool:
        """Whether a pack holds it. May say no where asking would cost a process."""
        ...

    @property
    def object_id_chars(self) -> int:
        """40 or 64."""
        ...


@contextlib.contextmanager
def open_reader(common_dir: Path, environ: Mapping[str, str]) -> Generator[Reader]:
    """A reader for one thread at a time. It holds packs open: not for long."""
    from dulwich.errors import NotGitRepository
    from dulwich.repo import InvalidWorktreeConfiguration, Repo, UnsupportedExtension, UnsupportedVersion

    try:
        repo = Repo(str(common_dir), bare=True)
    except (UnsupportedExtension, UnsupportedVersion, InvalidWorktreeConfiguration):
        yield GitReader(common_dir, environ)
        return
    except NotGitRepository as error:
        raise NotAvailable(f"{common_dir} is not a git directory", remedy="git fsck") from error
    try:
        sha1 = repo.object_format.name == "sha1"
        yield _DulwichReader(repo, common_dir, environ) if sha1 else GitReader(common_dir, environ)
    finally:
        repo.close()


class _DulwichReader:
    """Without a process. What dulwich cannot read, git may: it fetches what a partial clone lacks."""

    object_id_chars = 40

    def __init__(self, repo: Repo, common_dir: Path, environ: Mapping[str, str]) -> None:
        from dulwich.errors import ChecksumMismatch, FileFormatException, ObjectMissing
        from dulwich.pack import PackFileDisappeared

        self._repo = repo
        self._common_dir = common_dir
        self._environ = environ
        self._git = GitReader(common_dir, environ)
        self._packs: list[Pack] = []
        self._failures = (
            *(AssertionError, LookupError, OSError, ValueError, zlib.error, struct.error),
            *(ChecksumMismatch, FileFormatException, ObjectMissing, PackFileDisappeared),
        )

    def ref(self, name: str) -> str:
        return read_ref(self._common_dir, self._environ, name)

    def entries(self, commit: str) -> list[TreeEntry]:
        try:
            return _walk(self._commit(commit).tree.decode(), self._tree)
        except self._failures:
            return self._git.entries(commit)

    def _tree(self, object_id: str) -> list[tuple[bytes, int, str]]:
        from dulwich.objects import ObjectID, Tree

        found = self._repo.object_store[ObjectID(object_id.encode())]
        if not isinstance(found, Tree):
            raise LookupError(object_id)
        return [(each.path, each.mode, each.sha.decode()) for each in found.iteritems(name_order=True)]

    def _commit(self, object_id: str) -> Commit:
        from dulwich.objects import Commit, ObjectID

        found = self._repo.object_store[ObjectID(object_id.encode())]
        if not isinstance(found, Commit):
            raise LookupError(object_id)
        return found

    def blob(self, object_id: str) -> bytes:
        from dulwich.objects import ObjectID

        try:
            return self._repo.object_store[ObjectID(object_id.encode())].as_raw_string()
        except self._failures:
            return self._git.blob(object_id)

    def blob_size(self, object_id: str) -> int:
        size = loose_size(self._common_dir / "objects", object_id)
        if size is None:
            size = self._packed_size(object_id)
        return self._git.blob_size(object_id) if size is None else size

    def _packed_size(self, object_id: str) -> int | None:
        """By the object's head in a pack, so that a branch of many journals does not cost a process for each."""
        from dulwich.objects import ObjectID

        sha = ObjectID(object_id.encode())
        try:
            found = self._place_in_packs(sha)
            if found is None:
                self._packs = [*self._repo.object_store.packs]  # looks at the directory
                found = self._place_in_packs(sha)
            if found is not None:
                path, offset = found
                with Path(path).open("rb", buffering=0) as file:
                    return size_in_pack(os.pread(file.fileno(), _PACK_HEAD_BYTES, offset))
        except self._failures:
            self._packs = []
        return None

    def _place_in_packs(self, sha: ObjectID) -> tuple[str, int] | None:
        """The pack that has an object, and where. Each index is asked for one id: `in` would go through all of them."""
        for pack in self._packs:
            with contextlib.suppress(KeyError):
                return os.fspath(pack.data.path), pack.index.object_offset(sha)
        return None

    def parents(self, commit: str) -> list[str]:
        try:
            return [parent.decode() for parent in self._commit(commit).parents]
        except self._failures:
            return self._git.parents(commit)

    def commits(self, tip: str, since_seconds: int) -> Iterator[BranchCommit]:
        from dulwich.objects import ObjectID

        try:
            for entry in self._repo.get_walker(include=[ObjectID(tip.encode())], since=since_seconds or None):
                found = entry.commit
                subject = found.message.split(b"\n", 1)[0].decode(errors="replace")
                yield BranchCommit(found.id.decode(), found.commit_time, subject)
        except self._failures as error:
            raise StoreFailed(f"cannot read branch {BRANCH}: {error!r}", remedy="git fsck") from error

    def is_packed(self, object_id: str) -> bool:
        from dulwich.objects import ObjectID

        try:
            return self._repo.object_store.contains_packed(ObjectID(object_id.encode()))
        except self._failures:
            return False


def size_in_pack(data: bytes) -> int:
    """Bytes of the object that begins there in a pack (gitformat-pack). Raises ValueError, IndexError, zlib.error."""
    kind = data[0] >> 4 & 7
    more, at = _number(data, 1) if data[0] & 0x80 else (0, 1)
    size = data[0] & 15 | more << 4
    if 1 <= kind <= 4:
        return size
    if kind == _OFFSET_DELTA:
        while data[at] & 0x80:
            at += 1
        at += 1
    elif kind == _REFERENCE_DELTA:
        at += 20
    else:
        raise ValueError(f"no object: {kind}")
    # A delta says first how large its base is, then what it makes of that.
    head = zlib.decompressobj().decompress(data[at:], _DELTA_HEAD_BYTES)
    return _number(head, _number(head, 0)[1])[0]


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the low ones first, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def _walk(root: str, tree: Callable[[str], list[tuple[bytes, int, str]]]) -> list[TreeEntry]:
    """The files below a tree, in the order of their paths. `tree` gives the entries of one."""
    found: list[TreeEntry] = []
    waiting = [(b"", root, 0)]
    while waiting:
        prefix, object_id, depth = waiting.pop()
        for name, mode, entry_id in tree(object_id):
            if name.lower() in _NO_NAMES or b"/" in name:
                continue
            if mode & 0o170000 != _DIRECTORY:
                found.append(TreeEntry(prefix + name, _canonical(mode), entry_id))
            elif depth < DEPTH_MAX:
                waiting.append((prefix + name + b"/", entry_id, depth + 1))
            if len(found) + len(waiting) > FILES_MAX or depth > DEPTH_MAX:
                raise StoreFailed(f"branch {BRANCH} holds more than {FILES_MAX:,} files", remedy=f"git log {BRANCH}")
    return sorted(found)


def _canonical(mode: int) -> int:
    """The mode that git takes a file's for (its `canon_mode`): an index with any other makes git itself fail."""
    kind = mode & 0o170000
    if kind == _REGULAR:
        return 0o100755 if mode & 0o100 else 0o100644
    return kind if kind == _LINK else _SUBMODULE


class GitReader:
    """By processes."""

    def __init__(self, common_dir: Path, environ: Mapping[str, str]) -> None:
        self._common_dir = common_dir
        self._environ = environ

    def _git(self, *arguments: str) -> bytes:
        try:
            return checked_git([f"--git-dir={self._common_dir}", "--no-replace-objects", *arguments], self._environ)
        except StoreFailed as error:
            raise StoreFailed(f"cannot read branch {BRANCH}: {error.message}", remedy=REMEDY) from error

    @property
    def object_id_chars(self) -> int:
        return 64 if self._git("rev-parse", "--show-object-format").strip() == b"sha256" else 40

    def ref(self, name: str) -> str:
        return read_ref(self._common_dir, self._environ, name)

    def entries(self, commit: str) -> list[TreeEntry]:
        return _walk(f"{commit}^{{tree}}", self._tree)

    def _tree(self, object_id: str) -> list[tuple[bytes, int, str]]:
        found: list[tuple[bytes, int, str]] = []
        for line in self._git("ls-tree", "-z", "--full-tree", object_id).split(b"\0")[:-1]:
            head, _, name = line.partition(b"\t")
            mode, _, entry_id = head.split(b" ")
            found.append((name, int(mode, 8), entry_id.decode()))
        return found

    def blob(self, object_id: str) -> bytes:
        return self._git("cat-file", "blob", object_id)

    def blob_size(self, object_id: str) -> int:
        return int(self._git("cat-file", "-s", object_id))

    def parents(self, commit: str) -> list[str]:
        return self._git("rev-list", "--parents", "--max-count=1", commit, "--").decode().split()[1:]

    def commits(self, tip: str, since_seconds: int) -> Iterator[BranchCommit]:
        since = [f"--since=@{since_seconds}"] if since_seconds else []
        lines = self._git("log", "-z", "--format=%H %ct %s", *since, tip).decode(errors="replace")
        for text in lines.split("\0"):
            if text:
                commit, seconds, subject = text.split(" ", 2)
                yield BranchCommit(commit, int(seconds), subject)

    def is_packed(self, object_id: str) -> bool:
        return False


def read_ref(common_dir: Path, environ: Mapping[str, str], name: str) -> str:
    """The commit that a ref is at, or `""`. Looked up each time: other programs move and pack refs."""
    if (common_dir / "reftable").is_dir():
        lines = checked_git(
            [f"--git-dir={common_dir}", "for-each-ref", "--format=%(refname) %(objectname)", name], environ
        )
        return next((line.split()[1] for line in lines.decode().splitlines() if line.split()[0] == name), "")
    for _ in range(5):
        try:
            text = (common_dir / name).read_text("utf-8", "replace").strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return _packed_ref(common_dir, name)
        except OSError as error:
            raise StoreFailed(f"cannot read {common_dir / name}: {error.strerror}", remedy="git fsck") from error
        if _OBJECT_ID.fullmatch(text):
            return text
        if not text.startswith("ref: refs/") or ".." in text:
            break
        name = text.removeprefix("ref: ")
    raise StoreFailed(f"{common_dir / name} holds no commit", remedy=REMEDY)


def _packed_ref(common_dir: Path, name: str) -> str:
    try:
        data = b"\n" + (common_dir / "packed-refs").read_bytes()
    except FileNotFoundError:
        return ""
    end = data.find(f" {name}\n".encode())
    return "" if end < 0 else data[data.rindex(b"\n", 0, end) + 1 : end].decode()


def loose_size(objects_dir: Path, object_id: str) -> int | None:
    """Bytes that a loose object holds, by its head; None if there is no such file. Raises StoreFailed."""
    try:
        with (objects_dir / object_id[:2] / object_id[2:]).open("rb") as file:
            inflater, head = zlib.decompressobj(), b""
            # The codes of a dynamic block come first, and may fill more than one piece.
            while b"\0" not in head and (piece := file.read(_HEAD_BYTES)):
                head += inflater.decompress(piece)
        return int(head[: head.index(b"\0")].split(b" ")[1])
    except FileNotFoundError:
        return None
    except (OSError, zlib.error, ValueError, IndexError) as error:
        raise StoreFailed(f"cannot read object {object_id}: {error}", remedy="git fsck") from error
