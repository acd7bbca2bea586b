"""Paths: repository, root, state directory and redirects (identity.md §3).

Everything is read from files, without a git process. Nothing here reads the environment: values are passed in.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thrum.model import trust
from thrum.model.broken_git import check_git_beside
from thrum.model.dot_git import GitPlace, find_git, first_line, git_at, main_worktree, nowhere, upwards, worktrees
from thrum.model.errors import (
    BadRedirect,
    ForeignUser,
    NotARepository,
    NotInitialized,
    RepoConflict,
    StoreFailed,
    in_shell,
)
from thrum.model.files import atomic_write, ensure_private_dir, is_file, is_link, locked, read_bytes, status


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories of one root. All paths are absolute and free of links."""

    root: Path
    """The current worktree; it has its own identities and context files."""
    state_dir: Path
    """The `.thrum` with config, socket and database; another root's under a redirect."""
    main_root: Path
    """The root that holds the state."""
    common_dir: Path | None
    """Git's common directory of the main root; None outside git."""

    @property
    def identities_dir(self) -> Path:
        return self.root / ".thrum" / "identities"

    @property
    def context_dir(self) -> Path:
        return self.root / ".thrum" / "context"

    @property
    def trusted_dir(self) -> Path:
        """Where the settings that count lie, out of reach of git, tar and patch (`trust`)."""
        return trust.keep_outside(self.state_dir).directory if self.common_dir is None else self.thrum_sync_dir

    @property
    def config_file(self) -> Path:
        """The settings that count."""
        return self.trusted_dir / "config.json"

    @property
    def config_copy(self) -> Path:
        """The copy of them that people edit; what was changed there counts once it is accepted."""
        return self.state_dir / "config.json"

    @property
    def guard_file(self) -> Path:
        """The guards' modes for an incident that count; a copy is at `guard_copy`."""
        return self.trusted_dir / "guard-daemon.json"

    @property
    def guard_copy(self) -> Path:
        return self.var_dir / "guard-daemon.json"

    @property
    def per_run_dir(self) -> Path:
        """Where what a runtime is given for one run lies: it names a program that the runtime executes."""
        return self.trusted_dir / "per-run"

    @property
    def config_lock(self) -> Path:
        """Held while the settings are rewritten."""
        return self.var_dir / "config.lock"

    @property
    def var_dir(self) -> Path:
        return self.state_dir / "var"

    @property
    def database(self) -> Path:
        return self.var_dir / "messages.db"

    @property
    def log_file(self) -> Path:
        return self.var_dir / "daemon.log"

    @property
    def proofs_dir(self) -> Path:
        """Where hooks leave proofs of wakes while no daemon answers: empty files, each named by a token."""
        return self.var_dir / "proofs"

    @property
    def socket_path(self) -> Path:
        """The daemon's socket; where that path is too long for one, `rpc.sockets` has a short one instead."""
        return self.var_dir / "thrum.sock"

    @property
    def thrum_sync_dir(self) -> Path:
        return self.var_dir if self.common_dir is None else self.common_dir / "thrum-sync"

    @property
    def branch_dir(self) -> Path:
        return self.thrum_sync_dir / "a-sync"

    @property
    def local_journal(self) -> Path:
        return self.thrum_sync_dir / "local.jsonl"

    @property
    def quarantine(self) -> Path:
        return self.thrum_sync_dir / "quarantine.jsonl"

    @property
    def lock_file(self) -> Path:
        """Held by the one daemon of the repository."""
        return self.thrum_sync_dir / "daemon.lock"

    @property
    def stopped_mark(self) -> Path:
        """Is there when the daemon was stopped on purpose: `wait` does not start such a one again."""
        return self.var_dir / "stopped"

    @property
    def daemon_json(self) -> Path:
        return self.thrum_sync_dir / "daemon.json"

    @property
    def daemon_key(self) -> Path:
        """Who reads it can sign as this daemon."""
        return self.thrum_sync_dir / "daemon.key"


# -- thrum

_OUTSIDE_GIT = "thrum init --force (moves what it finds to .thrum.found-UTC); to keep it, if it is yours, add --keep"


def find_layout(start: Path) -> Layout:
    """Root and state directory of a process in `start`: the walk of identity.md §3, first hit wins.

    Raises BadRedirect (never passed over: that would raise a second daemon), NotInitialized, or NotARepository when
    there is no git repository either, none where a `.git` leads, or what thrum was set up beside is no `.git` any more.
    """
    try:
        directory = os.path.realpath(start)
    except ValueError:
        directory = ""  # a NUL in it: no file system has such a name
    if not os.path.isdir(directory):
        raise NotARepository(f"no such directory: {start}", remedy="correct the path")
    seen_git: GitPlace | None = None
    for candidate in upwards(directory):
        git = git_at(candidate)
        if git is not None and (git.git_dir.parent.name == "worktrees" or os.path.lexists(f"{candidate}/.thrum")):
            check_leads(git)  # else a submodule or a copy of one: it belongs to what is around it
        seen_git = seen_git or git
        try:
            state_dir = _state_at(candidate, git)
        except NotInitialized:
            check_git_beside(Path(candidate))
            raise
        if state_dir is not None:
            return layout_of(Path(candidate), Path(state_dir))
    check_leads(seen_git)
    if seen_git is not None:
        raise NotInitialized(f"thrum is not initialized in {seen_git.root}")
    bare = find_git(start)
    if bare is not None:
        message = f"not a git worktree: {bare.root} is a bare repository"
        raise NotARepository(message, remedy="git worktree add PATH, then cd there and run: thrum init")
    raise NotARepository(f"not a git repository: {start}")


def check_leads(git: GitPlace | None) -> None:
    """Raise NotARepository for a worktree whose `.git` leads to what is not there: git works nowhere below it."""
    gone = nowhere(git) if git is not None else None
    if git is not None and gone is not None:
        why = "its repository is not mounted here, or was moved or deleted"
        remedy = (
            f"make {gone} reachable; if it was moved, in its main worktree: git worktree repair {in_shell(git.root)}"
        )
        message = f"{git.root}/.git leads to {gone}, which is not there: {why}"
        raise NotARepository(message, remedy=remedy, leads_to=str(gone))


def layout_of(root: Path, state_dir: Path) -> Layout:
    """The places of a root whose state directory is known. Both must be real paths."""
    git = git_at(str(state_dir.parent))
    common_dir = None if git is None else git.common_dir
    return Layout(root=root, state_dir=state_dir, main_root=state_dir.parent, common_dir=common_dir)


def keep_of(root: Path) -> trust.Keep:
    """Where what counts is kept for the `.thrum` of a root. Only a `.git` beside it makes it git's: a clone can ship
    what else a repository looks like."""
    git = git_at(str(root))
    return trust.keep_outside(root / ".thrum") if git is None else trust.keep_in_git(git.git_dir, git.common_dir)


def _state_at(directory: str, git: GitPlace | None) -> str | None:
    """The state directory that a root at `directory` has; None if `directory` is no root.

    Raises NotInitialized or ForeignUser for a `.thrum` that does not count: that ends the walk.
    """
    own = f"{directory.rstrip('/')}/.thrum"
    linked = git is not None and git.linked
    if os.path.lexists(f"{own}/redirect"):
        record = _follow_state(Path(own), git, _require(Path(own), git))
        target = _redirect_target(own)
        if target not in (record.redirect, os.path.realpath(record.redirect)):
            remedy = f"rm {in_shell(f'{own}/redirect')}; thrum setup"
            raise trust.refused(Path(directory), "its .thrum/redirect is not as thrum wrote it", remedy)
        _require(Path(target), git_at(os.path.dirname(target)))
        return target
    if os.path.isfile(f"{own}/config.json"):
        _require(Path(own), git)
        return own
    if any(os.path.lexists(f"{own}/{name}") for name in ("identities", trust.MARK, *(("context",) if linked else ()))):
        _require(Path(own), git)
        if not linked:
            return own
    if git is None or not linked or (main := main_worktree(git)) is None:
        return None
    # As if redirected to the main worktree; its own redirect, if it has one, is the single hop.
    return None if str(main) == directory else _state_at(str(main), git_at(str(main)))


def _require(own: Path, git: GitPlace | None) -> trust.Record:
    """The record of a `.thrum` that counts; one that a thrum without marks set up is marked first. Raises as above."""
    keep = trust.keep_outside(own) if git is None else trust.keep_in_git(git.git_dir, git.common_dir)
    try:
        return trust.require(own, keep)
    except NotInitialized as error:
        if git is None and not is_link(own) and find_git(own.parent) is None:
            # Nothing there tells an earlier installation from an archive: a person decides.
            raise trust.refused(own.parent, error.details["reason"], _OUTSIDE_GIT) from error
        state_dir = None if git is None else _earlier_state_dir(own, git)
        if git is not None and state_dir is not None:
            take_over(state_dir, git.common_dir)
    # Another process may have taken it over since the first look, and then it is not an earlier one any more.
    return trust.require(own, keep)


def _follow_state(own: Path, git: GitPlace | None, record: trust.Record) -> trust.Record:
    """Let the redirect of a linked worktree lead to where its repository's state is now, as git tells, if what it
    names is none of this repository: the main worktree was moved. What others put into the file stays there.
    """
    if git is None or not git.linked or not record.redirect:
        return record
    there = git_at(os.path.dirname(record.redirect))
    if os.path.isdir(record.redirect) and (there is None or there.common_dir == git.common_dir):
        return record
    state = _state_in(git)
    if state is None or is_tracked(own / "redirect"):
        return record
    with contextlib.suppress(OSError):
        if _text_in(own / "redirect") == record.redirect:
            # First the file: it leads where a worktree without one would.
            atomic_write(own / "redirect", os.fsencode(f"{state}\n"))
        record = record._replace(redirect=state)
        trust.write_record(keep_of(own.parent), record)
    return record


def _state_in(git: GitPlace) -> str | None:
    """Where a repository has its state by git's own files: in the main worktree, else in the one that was the first."""
    main = main_worktree(git)
    for root in worktrees(git.common_dir) if main is None else [main]:
        with contextlib.suppress(NotInitialized, BadRedirect, ForeignUser):
            state = _state_at(str(root), git_at(str(root))) if is_file(root / ".thrum" / "config.json") else None
            if state == str(root / ".thrum"):
                return state
    return None


def counts(root: Path) -> bool:
    """Whether the `.thrum` of a root is thrum's; False also if there is none. Raises ForeignUser, BadRedirect."""
    own = root / ".thrum"
    try:
        if not os.path.lexists(own):
            return False
        check_counts(root)
    except NotInitialized:
        return False
    return True


def check_counts(root: Path) -> None:
    """Raise NotInitialized, with the reason, or ForeignUser unless the `.thrum` of a root is trusted."""
    _require(root / ".thrum", git_at(str(root)))


def check_rightful(root: Path) -> None:
    """Raise RepoConflict if the `.git` of a root is that of another place, where thrum is set up: an archive can bring
    a file or a link that leads to any repository, and thrum would take it away from there.
    """
    git = git_at(str(root))
    if git is None or counts(root):
        return
    written = first_line(f"{git.git_dir}/gitdir") if git.linked else ""
    rightful = Path(os.path.realpath(git.git_dir / written)).parent if written else git.git_dir.parent
    there = git_at(str(rightful))
    if rightful != root and there is not None and there.git_dir == git.git_dir and counts(rightful):
        remedy = f"cd {in_shell(rightful)}; or give it a repository of its own: rm {in_shell(root / '.git')}; git init"
        raise RepoConflict(f"{root}/.git is that of {rightful}, where thrum is set up", remedy=remedy)


def _redirect_target(own: str) -> str:
    """Where `.thrum/redirect` in the directory `own` leads. Raises BadRedirect, each case with its own words."""
    try:
        target = _text_in(Path(own, "redirect"))
    except OSError as error:
        raise BadRedirect(f"redirect file cannot be read: {own}/redirect ({error.strerror})") from error
    pointing = f"{own}/redirect points to {target}"
    if not target:
        raise BadRedirect(f"redirect file is empty: {own}/redirect")
    if not os.path.isabs(target):
        raise BadRedirect(f"redirect target must be absolute path: {pointing}")
    if not os.path.exists(target):
        raise BadRedirect(f"redirect target does not exist: {pointing}, which is not there")
    if not os.path.isdir(target):
        raise BadRedirect(f"redirect target is not a directory: {pointing}")
    real = os.path.realpath(target)
    if real == os.path.realpath(own):
        raise BadRedirect(f"redirect points to itself: {own}/redirect")
    if os.path.lexists(f"{real}/redirect"):
        message = f"redirect chain detected: {pointing}, which has a redirect of its own"
        raise BadRedirect(f"{message}; only single-hop redirects are supported")
    return real


# -- earlier installations


def _earlier_state_dir(own: Path, git: GitPlace) -> Path | None:
    """The state directory of an installation by a thrum that knew no marks, if `own` belongs to one: git's directory,
    which no archive can bring along, names it (identity.md §3 "Trust")."""
    try:
        kept: Any = json.loads(read_bytes(git.common_dir / "thrum-sync" / "daemon.json"))
        state_dir = os.path.realpath(kept["state_dir"])
        told = os.path.realpath(_text_in(own / "redirect")) if status(own / "redirect") else str(own)
        if is_link(own) or told != state_dir or trust.tracked(git.git_dir, git.common_dir) != []:
            return None
        return None if status(keep_of(Path(state_dir).parent).record) is not None else Path(state_dir)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def take_over(state_dir: Path, common_dir: Path, *, tracked: bool = False, was: Path | None = None) -> None:
    """Mark a state directory, and every worktree that git lists whose redirect names it; its settings count.

    `was`: what it was called before it was moved. Nothing of it where git tracks what lies there, unless `tracked`.
    Raises StoreFailed.
    """
    was = was or state_dir
    try:
        ensure_private_dir(common_dir / "thrum-sync")
        with locked(common_dir / "thrum-sync" / "setup.lock"):
            layout, keep = layout_of(state_dir.parent, state_dir), keep_of(state_dir.parent)
            if layout.common_dir != common_dir or not (tracked or _is_untracked(state_dir.parent)):
                return
            for copy, file in ((layout.config_copy, layout.config_file), (layout.guard_copy, layout.guard_file)):
                if is_file(copy) and not is_file(file):
                    atomic_write(file, read_bytes(copy))
            for root in worktrees(common_dir):
                own = root / ".thrum"
                told = os.path.realpath(_text_in(own / "redirect")) if is_file(own / "redirect") else ""
                if told in (str(state_dir), str(was)) and _is_untracked(root):
                    # Left as it was: the next look there finds out what was moved.
                    inside = root.is_relative_to(layout.main_root)
                    before = was.parent / root.relative_to(layout.main_root) if inside else root
                    trust.write_marks(own, keep_of(root), told, str(before))
            # Last of all: it is the sign that all of it was done.
            trust.write_marks(state_dir, keep, root=str(was.parent))
    except OSError as error:
        name = error.filename or common_dir
        raise StoreFailed(f"could not write {name}: {(error.strerror or str(error)).lower()}") from error


def _is_untracked(root: Path) -> bool:
    git = git_at(str(root))
    return git is not None and trust.tracked(git.git_dir, git.common_dir) == []


def _text_in(path: Path) -> str:
    return os.fsdecode(read_bytes(path)).strip()


def tracked_in(root: Path) -> list[str]:
    """The paths at or below the `.thrum` of a root that git tracks there."""
    git = git_at(str(root))
    return [] if git is None else trust.tracked(git.git_dir, git.common_dir) or []


def index_of(root: Path) -> list[Path]:
    """The file in which git says what it tracks in a root."""
    git = git_at(str(root))
    return [] if git is None else [git.git_dir / "index"]


def is_tracked(path: Path) -> bool:
    """Whether git tracks a path at or below a `.thrum`: then nothing is written there."""
    names = str(path).split("/.thrum/", 1)
    return len(names) == 2 and f".thrum/{names[1]}".casefold() in map(str.casefold, tracked_in(Path(names[0])))


def link_state(root: Path, state_dir: Path) -> None:
    """Give a linked worktree a `.thrum` of its own, redirected to the state (identity.md §3 "Local always").

    What is there stays: a redirect, or a state of its own. Raises OSError; RepoConflict; NotInitialized for a `.thrum`
    that thrum did not set up.
    """
    own = root / ".thrum"
    if own == state_dir:
        return
    if os.path.lexists(own):
        _require(own, git_at(str(root)))
    if is_file(own / "config.json"):
        return
    check_rightful(root)
    for directory in (own, own / "context", own / "identities"):
        ensure_private_dir(directory)
    if status(own / "redirect") is None:
        trust.write_marks(own, keep_of(root), str(state_dir))
        atomic_write(own / "redirect", os.fsencode(f"{state_dir}\n"))
