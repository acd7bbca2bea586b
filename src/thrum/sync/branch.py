"""The orphan branch `a-sync` and its linked worktree (events.md §1). Made and fixed here.

All of it blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from thrum.git.reader import BranchCommit, Reader, open_reader, read_ref
from thrum.git.refs import BRANCH, REF, seen_at_remote
from thrum.git.runner import DURABLE, checked_git, run_git
from thrum.git.trees import TreeEntry, index_bytes
from thrum.model import limits
from thrum.model.errors import NotAvailable, StoreFailed, UnsafeRepository, in_shell
from thrum.model.files import atomic_write, create_file, ensure_private_dir, locked, sync_directory
from thrum.model.ids import JOURNAL_NAME_PATTERN
from thrum.model.paths import Layout
from thrum.sync.merge import sound
from thrum.sync.worktree import checked_out, ensure_worktree, find_admin_dir, on_branch, write_if_other, write_index

log: Final = logging.getLogger("thrum.sync")

JOURNAL_FILE: Final = re.compile(rf"events\.jsonl|messages/{JOURNAL_NAME_PATTERN}".encode())
"""The files of the branch that are journals. Whatever else a foreign tree holds is never written to disk."""

_FIRST_COMMIT: Final = (
    b"tree %s\nauthor thrum <thrum@localhost> 0 +0000\ncommitter thrum <thrum@localhost> 0 +0000\n\nthrum: first\n"
)


@dataclass(frozen=True, slots=True)
class Ensured:
    """What `ensure_branch` found and made."""

    tip: str
    """The commit that the branch is at; `""` outside git."""
    branch: Literal["made", "taken", "there"]
    """`taken`: begun at the remote's."""
    worktree_made: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """The branch at one moment, as git has it. Raises StoreFailed when git's objects can't be read."""

    tip: str
    """`""`: there is none, or no git."""
    entries: Sequence[TreeEntry]
    """Its journals; whatever else it holds is left out."""
    is_thrums: bool
    """Whether there is nothing in it, or a journal."""
    _reader: Reader

    def blob(self, entry: TreeEntry) -> bytes:
        return self._reader.blob(entry.object_id)

    def at_remote(self, remote: str) -> list[TreeEntry] | None:
        """The journals of the remote's branch as it was last seen; None if it was not."""
        commit = seen_at_remote(self._reader.ref, remote)
        return _journals(self._reader.entries(commit)) if commit else None

    def commits(self, since_seconds: int = 0) -> Iterator[BranchCommit]:
        """Its rounds, newest first, back to a time (seconds since 1970)."""
        return self._reader.commits(self.tip, since_seconds) if self.tip else iter(())


def _journals(entries: Iterable[TreeEntry]) -> list[TreeEntry]:
    """What in a journal's place is a link or a submodule is none."""
    return [each for each in entries if JOURNAL_FILE.fullmatch(each.path) and each.is_file]


@contextlib.contextmanager
def read_branch(layout: Layout, environ: Mapping[str, str], *, at: str = "") -> Generator[Branch | None]:
    """The branch from git's objects alone, or as it was `at` a commit; None outside git.

    Raises UnsafeRepository, NotAvailable, StoreFailed (also when git has no such commit).
    """
    if layout.common_dir is None:
        yield None
        return
    verify_owner(layout.main_root, layout.common_dir, environ)
    with open_reader(layout.common_dir, environ) as reader:
        tip = at or reader.ref(REF)
        entries = reader.entries(tip) if tip else []
        journals = _journals(entries)
        yield Branch(tip, journals, bool(journals) or not entries, reader)


def root_commits(layout: Layout, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The commits that the history of the user's HEAD begins with: alike in all clones of a project.

    Empty where that can't be told: no git, no commit, a shallow clone.
    """
    common_dir = layout.common_dir
    if common_dir is None or (common_dir / "shallow").exists():
        return ()
    done = run_git(
        ["-C", str(layout.main_root), "--no-replace-objects", "rev-list", "--max-parents=0", "HEAD", "--"], environ
    )
    return () if done is None or done.returncode != 0 else tuple(sorted(done.stdout.decode().split()))


def reset_branch(layout: Layout, environ: Mapping[str, str], commit: str) -> str:
    """Put the branch back to a commit that git still has, else to the first one of all; where it is then.

    Never to a commit that holds more than the journals: what a later round takes for known would be lost to them.
    Raises StoreFailed, NotAvailable.
    """
    if layout.common_dir is None:
        return ""
    git = _GitWriter(layout.common_dir, environ)
    target = commit if commit and git.has_commit(commit) else git.add_first_commit()
    git.set_ref(REF, target)
    return target


def ensure_branch(layout: Layout, environ: Mapping[str, str], *, remote: str = "origin") -> Ensured:
    """Make or fix the branch, its worktree and the journals' folder; what is right already is not written.

    For `init` and every start of the daemon. The branch begins at the remote's if the clone has it, else at the first
    commit that is alike in every clone; journals that the folder lacks are filled from the branch. The user's work
    tree, index and HEAD are not touched. `environ` is for git processes. Raises UnsafeRepository, NotAvailable (a
    branch `a-sync` that isn't thrum's, or is checked out elsewhere; reftables), StoreFailed.
    """
    common_dir = layout.common_dir
    if common_dir is not None:
        verify_owner(layout.main_root, common_dir, environ)
    try:
        ensure_private_dir(layout.thrum_sync_dir)
        with locked(layout.thrum_sync_dir / "setup.lock"):
            if common_dir is None:
                made = not layout.branch_dir.exists()
                _ensure_folder(layout.branch_dir)
                return Ensured("", "there", made)
            return _ensure(common_dir, layout.branch_dir, environ, remote)
    except OSError as error:
        name = error.filename or layout.thrum_sync_dir
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error


def branch_state(layout: Layout, environ: Mapping[str, str], *, remote: str = "origin") -> Ensured:
    """What `ensure_branch` would find and make. Writes nothing; raises as it does."""
    common_dir = layout.common_dir
    if common_dir is None:
        return Ensured("", "there", not layout.branch_dir.exists())
    verify_owner(layout.main_root, common_dir, environ)
    _refuse_unusable(common_dir, layout.branch_dir)
    with open_reader(common_dir, environ) as reader:
        tip, found = _tip(reader, remote)
        _refuse_foreign(reader.entries(tip) if tip else [])
    return Ensured(tip, found, find_admin_dir(common_dir, layout.branch_dir) is None)


def verify_owner(root: Path, common_dir: Path, environ: Mapping[str, str]) -> None:
    """Raise UnsafeRepository if the repository is another user's and git's `safe.directory` doesn't allow it.

    dulwich checks nothing of the kind, yet would obey such a repository's configuration.
    """
    user = os.geteuid()
    if all(path.stat().st_uid == user for path in (root, common_dir)):
        return
    # No matter who owns it: git alone knows what safe.directory and sudo allow.
    git = run_git(["-C", str(root), "rev-parse", "--git-dir"], environ)
    if git is None or git.returncode != 0:
        raise UnsafeRepository(
            f"repository {root} belongs to another user",
            remedy=f"git config --global --add safe.directory {in_shell(root)}",
        )


# -- the branch


def _ensure(common_dir: Path, folder: Path, environ: Mapping[str, str], remote: str) -> Ensured:
    _refuse_unusable(common_dir, folder)
    with open_reader(common_dir, environ) as reader:
        tip, found = _tip(reader, remote)
        try:
            entries = reader.entries(tip) if tip else []
        except StoreFailed:
            if found != "there":
                raise
            entries = []  # git lost it: the journals are here, a round will report it, and no message waits for git
        _refuse_foreign(entries)
        if found != "there":
            git = _GitWriter(common_dir, environ)
            tip = git.add_ref(REF, tip or git.add_first_commit())
            entries = reader.entries(tip)
        ensure_private_dir(folder)
        ensure_private_dir(folder / "messages")
        _fill_folder(reader, folder, entries)
    _ensure_folder(folder)
    write_if_other(folder / ".gitignore", b"*\n", 0o600)
    admin_dir, worktree_made = ensure_worktree(common_dir, folder, tip)
    write_index(admin_dir, index_bytes(entries, object_id_chars=len(tip)))
    return Ensured(tip, found, worktree_made)


def _tip(reader: Reader, remote: str) -> tuple[str, Literal["made", "taken", "there"]]:
    """Where the branch is or begins, `""` for the first commit."""
    if tip := reader.ref(REF):
        return tip, "there"
    theirs = seen_at_remote(reader.ref, remote)
    return theirs, "taken" if theirs else "made"


def _refuse_unusable(common_dir: Path, folder: Path) -> None:
    if (common_dir / "reftable").is_dir():
        raise NotAvailable(
            f"{common_dir} keeps its refs in reftables, which thrum cannot use yet",
            remedy="git refs migrate --ref-format=files",
        )
    # A branch that was thrum's before it was checked out stays where it is meanwhile: no message waits for that.
    if find_admin_dir(common_dir, folder) is None and (where := on_branch(common_dir, folder)):
        raise checked_out(where)


def _refuse_foreign(entries: Sequence[TreeEntry]) -> None:
    """The branch is thrum's if it is empty or holds a journal: a project may have one of that name for itself."""
    if entries and not any(JOURNAL_FILE.fullmatch(entry.path) for entry in entries):
        raise NotAvailable(
            f"there is a branch {BRANCH} that is not thrum's", remedy=f"git branch -m {BRANCH} ANOTHER_NAME"
        )


# -- the folder of the journals


def _fill_folder(reader: Reader, folder: Path, entries: Iterable[TreeEntry]) -> None:
    """Write out the journals of the branch that the folder lacks; what lies there already is newer, and stays.

    What a round would skip is skipped here too: too large, or git can't read it.
    """
    for entry in entries:
        path = folder / os.fsdecode(entry.path)
        if not JOURNAL_FILE.fullmatch(entry.path) or not entry.is_file or os.path.lexists(path):
            continue
        try:
            if reader.blob_size(entry.object_id) > limits.author_journal_bytes_max:
                raise StoreFailed(f"larger than {limits.author_journal_bytes_max} bytes")
            data = sound(reader.blob(entry.object_id))
        except StoreFailed as error:
            log.warning("journal %s of branch %s is skipped: %s", path.name, BRANCH, error.message)
            continue
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            atomic_write(temporary, data)
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
        os.close(create_file(folder / "events.jsonl"))
    except FileExistsError:
        return
    sync_directory(folder)


# -- git's refs and objects, written once in a repository's life


class _GitWriter:
    """By processes: on a full disk dulwich leaves its lock behind, and every later try would stumble over it."""

    def __init__(self, common_dir: Path, environ: Mapping[str, str]) -> None:
        self._common_dir = common_dir
        self._environ = environ

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return checked_git([f"--git-dir={self._common_dir}", *DURABLE, *arguments], self._environ, stdin=stdin)

    def add_first_commit(self) -> str:
        tree = self._git("hash-object", "-w", "-t", "tree", "--stdin").strip()
        return self._git("hash-object", "-w", "-t", "commit", "--stdin", stdin=_FIRST_COMMIT % tree).decode().strip()

    def add_ref(self, name: str, commit: str) -> str:
        """Make a ref: where it is then. Another process may have made it meanwhile (a git of a killed `init`)."""
        try:
            self._git("update-ref", name, commit, "0" * len(commit))
        except StoreFailed:
            if theirs := read_ref(self._common_dir, self._environ, name):
                return theirs
            raise
        return commit

    def has_commit(self, commit: str) -> bool:
        try:
            return self._git("cat-file", "-t", commit).strip() == b"commit"
        except StoreFailed:
            return False

    def set_ref(self, name: str, commit: str) -> None:
        self._git("update-ref", name, commit)


def origin_url(common_dir: Path, environ: Mapping[str, str]) -> str:
    """Git's effective URL of the remote `origin`, credentials included; `""` without one."""
    done = run_git([f"--git-dir={common_dir}", "remote", "get-url", "origin"], environ)
    return "" if done is None or done.returncode != 0 else os.fsdecode(done.stdout).strip()
