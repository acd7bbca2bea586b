"""The orphan branch `a-sync` and its linked worktree (events.md §1). The only import of dulwich, made when it is used.

Where dulwich cannot read (partial clones, SHA-256), the git command does. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from thrum.errors import NotAvailable, StoreFailed, UnsafeRepository
from thrum.files import atomic_write, ensure_private_dir, locked, sync_directory
from thrum.paths import Places
from thrum.sync.worktree import (
    BRANCH,
    REF,
    TreeEntry,
    admin_dirs,
    ensure_worktree,
    find_admin_dir,
    index_bytes,
    linked_worktree,
    read_text,
    write_if_other,
)

if TYPE_CHECKING:
    from dulwich.repo import Repo

JOURNAL_FILE: Final = re.compile(rb"events\.jsonl|messages/[A-Za-z0-9_][A-Za-z0-9_.@+-]*\.jsonl")
"""The files of the branch that are journals. Whatever else a foreign tree holds is never written to disk."""

_FIRST_COMMIT: Final = (
    b"tree %s\nauthor thrum <thrum@localhost> 0 +0000\ncommitter thrum <thrum@localhost> 0 +0000\n\nthrum: first\n"
)
_GIT_PLACES: Final = frozenset(
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


@dataclass(frozen=True, slots=True)
class Ensured:
    """What `ensure_branch` found and made."""

    tip: str
    """The commit that the branch is at; `""` outside git."""
    branch: Literal["made", "taken", "there"]
    """`taken`: begun at the remote's."""
    worktree_made: bool


class _Reader(Protocol):
    """What is read of git's refs and objects. Ids are hexadecimal."""

    def ref(self, name: str) -> str:
        """The commit that a ref is at, or `""`."""
        ...

    def entries(self, commit: str) -> list[TreeEntry]:
        """All files of a commit's tree."""
        ...

    def blob(self, object_id: str) -> bytes: ...

    def commits(self, tip: str, since_seconds: int) -> Iterator[BranchCommit]:
        """The history of a commit, newest first, back to a time (seconds since 1970)."""
        ...


class BranchCommit(NamedTuple):
    """One round. `seconds`: since 1970."""

    commit: str
    seconds: int
    subject: str


@dataclass(frozen=True, slots=True)
class Branch:
    """The branch at one moment, as git has it. Raises StoreFailed when git's objects can't be read."""

    tip: str
    """`""`: there is none, or no git."""
    entries: Sequence[TreeEntry]
    """Its journals; whatever else it holds is left out."""
    _reader: _Reader

    def blob(self, entry: TreeEntry) -> bytes:
        return self._reader.blob(entry.object_id)

    def commits(self, since_seconds: int = 0) -> Iterator[BranchCommit]:
        """Its rounds, newest first, back to a time (seconds since 1970)."""
        return self._reader.commits(self.tip, since_seconds) if self.tip else iter(())


@contextlib.contextmanager
def read_branch(places: Places, environ: Mapping[str, str]) -> Generator[Branch | None]:
    """The branch from git's objects alone; None outside git. Raises UnsafeRepository, NotAvailable, StoreFailed."""
    if places.common_dir is None:
        yield None
        return
    verify_owner(places.main_root, places.common_dir, environ)
    with _open_reader(places.common_dir, environ) as reader:
        tip = reader.ref(REF)
        found = [each for each in reader.entries(tip) if JOURNAL_FILE.fullmatch(each.path)] if tip else []
        yield Branch(tip, found, reader)


def reset_branch(places: Places, environ: Mapping[str, str], commit: str) -> str:
    """Put the branch back to a commit that git still has, else to the first one of all; where it is then.

    Never to a commit that holds more than the journals: what a later round takes for known would be lost to them.
    Raises StoreFailed, NotAvailable.
    """
    if places.common_dir is None:
        return ""
    git = _GitCommand(places.common_dir, environ)
    target = commit if commit and git.has_commit(commit) else git.add_first_commit()
    git.set_ref(REF, target)
    return target


def ensure_branch(places: Places, environ: Mapping[str, str], *, remote: str = "origin") -> Ensured:
    """Make or mend the branch, its worktree and the journals' folder; what is right already is not written.

    For `init` and every start of the daemon. The branch begins at the remote's if the clone has it, else at the first
    commit that is alike in every clone; journals that the folder lacks are filled from the branch. The user's work
    tree, index and HEAD are not touched. `environ` is for git processes. Raises UnsafeRepository, NotAvailable (a
    branch `a-sync` that isn't thrum's, or is checked out elsewhere; reftables), StoreFailed.
    """
    common_dir = places.common_dir
    if common_dir is not None:
        verify_owner(places.main_root, common_dir, environ)
    try:
        ensure_private_dir(places.thrum_sync_dir)
        with locked(places.thrum_sync_dir / "setup.lock"):
            if common_dir is None:
                made = not places.branch_dir.exists()
                _ensure_folder(places.branch_dir)
                return Ensured("", "there", made)
            return _ensure(common_dir, places.branch_dir, environ, remote)
    except OSError as error:
        name = error.filename or places.thrum_sync_dir
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error


def branch_state(places: Places, environ: Mapping[str, str], *, remote: str = "origin") -> Ensured:
    """What `ensure_branch` would find and make. Writes nothing; raises as it does."""
    common_dir = places.common_dir
    if common_dir is None:
        return Ensured("", "there", not places.branch_dir.exists())
    verify_owner(places.main_root, common_dir, environ)
    _refuse_unusable(common_dir, places.branch_dir)
    with _open_reader(common_dir, environ) as reader:
        tip, found = _tip(reader, remote)
        _refuse_foreign(reader.entries(tip) if tip else [])
    return Ensured(tip, found, find_admin_dir(common_dir, places.branch_dir) is None)


def verify_owner(root: Path, common_dir: Path, environ: Mapping[str, str]) -> None:
    """Raise UnsafeRepository if the repository is another user's and git's `safe.directory` doesn't allow it.

    dulwich checks nothing of the kind, yet would obey such a repository's configuration.
    """
    user = os.geteuid()
    if all(path.stat().st_uid == user for path in (root, common_dir)):
        return
    # Whoever owns it: git alone knows what safe.directory and sudo allow.
    git = _run_git(["-C", str(root), "rev-parse", "--git-dir"], environ)
    if git is None or git.returncode != 0:
        raise UnsafeRepository(
            f"repository {root} belongs to another user", remedy=f"git config --global --add safe.directory {root}"
        )


# -- the branch


def _ensure(common_dir: Path, folder: Path, environ: Mapping[str, str], remote: str) -> Ensured:
    _refuse_unusable(common_dir, folder)
    with _open_reader(common_dir, environ) as reader:
        tip, found = _tip(reader, remote)
        entries = reader.entries(tip) if tip else []
        _refuse_foreign(entries)
        if found != "there":
            git = _GitCommand(common_dir, environ)
            tip = git.add_ref(REF, tip or git.add_first_commit())
            entries = reader.entries(tip)
        ensure_private_dir(folder)
        ensure_private_dir(folder / "messages")
        _fill_folder(reader, folder, entries)
    _ensure_folder(folder)
    write_if_other(folder / ".gitignore", b"*\n", 0o600)
    admin_dir, worktree_made = ensure_worktree(common_dir, folder)
    write_if_other(admin_dir / "index", index_bytes(entries, object_id_chars=len(tip)), 0o644)
    return Ensured(tip, found, worktree_made)


def _tip(reader: _Reader, remote: str) -> tuple[str, Literal["made", "taken", "there"]]:
    """Where the branch is or begins, `""` for the first commit."""
    if tip := reader.ref(REF):
        return tip, "there"
    theirs = reader.ref(f"refs/remotes/{remote}/{BRANCH}")
    return theirs, "taken" if theirs else "made"


def _refuse_unusable(common_dir: Path, folder: Path) -> None:
    if (common_dir / "reftable").is_dir():
        raise NotAvailable(
            f"{common_dir} keeps its refs in reftables, which thrum cannot use yet",
            remedy="git refs migrate --ref-format=files",
        )
    ours = find_admin_dir(common_dir, folder)
    for git_dir in (common_dir, *admin_dirs(common_dir)):
        if git_dir != ours and read_text(git_dir / "HEAD") == f"ref: {REF}":
            where = common_dir.parent if git_dir == common_dir else linked_worktree(git_dir)
            raise NotAvailable(
                f"branch {BRANCH} is checked out in {where}; it belongs to thrum",
                remedy="git switch to another branch there, then repeat the command",
            )


def _refuse_foreign(entries: Sequence[TreeEntry]) -> None:
    """The branch is thrum's if it is empty or holds a journal: a project may have one of that name for itself."""
    if entries and not any(JOURNAL_FILE.fullmatch(entry.path) for entry in entries):
        raise NotAvailable(
            f"there is a branch {BRANCH} that is not thrum's", remedy=f"git branch -m {BRANCH} ANOTHER_NAME"
        )


# -- the folder of the journals


def _fill_folder(reader: _Reader, folder: Path, entries: Iterable[TreeEntry]) -> None:
    """Write out the journals of the branch that the folder lacks; what lies there already is newer, and stays."""
    for entry in entries:
        path = folder / os.fsdecode(entry.path)
        if not JOURNAL_FILE.fullmatch(entry.path) or entry.mode & 0o170000 != 0o100000 or os.path.lexists(path):
            continue
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            atomic_write(temporary, reader.blob(entry.object_id))
            # A link refuses to replace, so that a line appended meanwhile is never lost.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def _ensure_folder(folder: Path) -> None:
    ensure_private_dir(folder)
    ensure_private_dir(folder / "messages")
    try:
        os.close(os.open(folder / "events.jsonl", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sync_directory(folder)


# -- git's refs and objects: read by dulwich, else by the git command; written by the git command


@contextlib.contextmanager
def _open_reader(common_dir: Path, environ: Mapping[str, str]) -> Generator[_Reader]:
    from dulwich.errors import FileFormatException, NotGitRepository, ObjectMissing
    from dulwich.repo import InvalidWorktreeConfiguration, Repo, UnsupportedExtension, UnsupportedVersion

    try:
        repo = Repo(str(common_dir), bare=True)
    except (UnsupportedExtension, UnsupportedVersion, InvalidWorktreeConfiguration):
        yield _GitCommand(common_dir, environ)
        return
    except NotGitRepository as error:
        raise NotAvailable(f"{common_dir} is no git directory", remedy="git fsck") from error
    try:
        yield _Dulwich(repo) if repo.object_format.name == "sha1" else _GitCommand(common_dir, environ)
    except (KeyError, ObjectMissing, FileFormatException) as error:
        raise StoreFailed(f"cannot read branch {BRANCH}: {error!r}", remedy="git fsck") from error
    finally:
        repo.close()


class _Dulwich:
    """Without a process."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    def ref(self, name: str) -> str:
        from dulwich.refs import Ref

        try:
            return self._repo.refs[Ref(name.encode())].decode()
        except KeyError:
            return ""

    def entries(self, commit: str) -> list[TreeEntry]:
        from dulwich.object_store import iter_tree_contents
        from dulwich.objects import Commit, ObjectID

        store = self._repo.object_store
        found = store[ObjectID(commit.encode())]
        if not isinstance(found, Commit):
            raise KeyError(f"{commit} is no commit")
        return [TreeEntry(each.path, each.mode, each.sha.decode()) for each in iter_tree_contents(store, found.tree)]

    def blob(self, object_id: str) -> bytes:
        from dulwich.objects import ObjectID

        return self._repo.object_store[ObjectID(object_id.encode())].as_raw_string()

    def commits(self, tip: str, since_seconds: int) -> Iterator[BranchCommit]:
        from dulwich.objects import ObjectID

        for entry in self._repo.get_walker(include=[ObjectID(tip.encode())], since=since_seconds or None):
            found = entry.commit
            subject = found.message.split(b"\n", 1)[0].decode(errors="replace")
            yield BranchCommit(found.id.decode(), found.commit_time, subject)


class _GitCommand:
    """By processes. What is written, once in a repository's life, is written so: on a full disk dulwich leaves its lock
    behind, and every later try would stumble over it.
    """

    def __init__(self, common_dir: Path, environ: Mapping[str, str]) -> None:
        self._common_dir = common_dir
        self._environ = environ

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        # By default git does not sync loose objects: after a power cut the ref would lead nowhere.
        flags = [f"--git-dir={self._common_dir}", "-c", "core.fsync=all"]
        done = _run_git([*flags, *arguments], self._environ, stdin=stdin)
        if done is None:
            raise NotAvailable("git is not installed, and thrum needs it", remedy="install git")
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip()
            raise StoreFailed(
                f"git {arguments[0]} failed: {reason}", remedy="mend what git names, then repeat the command"
            )
        return done.stdout

    def ref(self, name: str) -> str:
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)", name).decode().splitlines()
        return next((line.split()[1] for line in lines if line.split()[0] == name), "")

    def add_first_commit(self) -> str:
        tree = self._git("hash-object", "-w", "-t", "tree", "--stdin").strip()
        return self._git("hash-object", "-w", "-t", "commit", "--stdin", stdin=_FIRST_COMMIT % tree).decode().strip()

    def add_ref(self, name: str, commit: str) -> str:
        """Make a ref: where it is then. Another process may have made it meanwhile (a git of a killed `init`)."""
        try:
            self._git("update-ref", name, commit, "0" * len(commit))
        except StoreFailed:
            if theirs := self.ref(name):
                return theirs
            raise
        return commit

    def entries(self, commit: str) -> list[TreeEntry]:
        lines = self._git("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
        found: list[TreeEntry] = []
        for line in lines:
            head, _, path = line.partition(b"\t")
            mode, _, object_id = head.split(b" ")
            found.append(TreeEntry(path, int(mode, 8), object_id.decode()))
        return found

    def blob(self, object_id: str) -> bytes:
        return self._git("cat-file", "blob", object_id)

    def commits(self, tip: str, since_seconds: int) -> Iterator[BranchCommit]:
        since = [f"--since=@{since_seconds}"] if since_seconds else []
        lines = self._git("log", "-z", "--format=%H %ct %s", *since, tip).decode(errors="replace")
        for text in lines.split("\0"):
            if text:
                commit, seconds, subject = text.split(" ", 2)
                yield BranchCommit(commit, int(seconds), subject)

    def has_commit(self, commit: str) -> bool:
        try:
            return self._git("cat-file", "-t", commit).strip() == b"commit"
        except StoreFailed:
            return False

    def set_ref(self, name: str, commit: str) -> None:
        self._git("update-ref", name, commit)


def origin_url(common_dir: Path, environ: Mapping[str, str]) -> str:
    """Git's effective URL of the remote `origin`, credentials included; `""` without one."""
    done = _run_git([f"--git-dir={common_dir}", "remote", "get-url", "origin"], environ)
    return "" if done is None or done.returncode != 0 else os.fsdecode(done.stdout).strip()


def _run_git(
    arguments: Sequence[str], environ: Mapping[str, str], *, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes] | None:
    """Run git to its end; None if it isn't installed. Variables that point it to another repository are left out."""
    clean = {name: value for name, value in environ.items() if name not in _GIT_PLACES}
    try:
        return subprocess.run(
            ["git", *arguments],
            input=stdin,
            capture_output=True,
            env=clean | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            cwd="/",
            check=False,
        )
    except FileNotFoundError:
        return None
