"""The current git state of worktrees, asked of git concurrently, each with a time limit, without touching anything.

What is kept from one call to the next cannot go stale: the commits between two ids never change, and a `.git` is known
by its stamp.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

import msgspec
import trio

from thrum.git._ref_files import USUAL_DEFAULTS, DefaultBranch, Head, Refs
from thrum.git._status_output import (
    FILES,
    LOG,
    NUMSTAT,
    STATUS,
    Change,
    parse_log,
    parse_numstat,
    parse_status,
    pathspecs,
)
from thrum.git.runner import GitFailed, read_git
from thrum.model import clock, files, limits
from thrum.model.dot_git import GitPlace, find_git, nowhere
from thrum.model.errors import ThrumError
from thrum.model.events import Commit, FileChange
from thrum.model.paths import Layout
from thrum.model.search import path_matches
from thrum.model.wire_types import GitState, GitUser

_SIDE_BY_SIDE: Final = 32
_KEPT_MAX: Final = 1_000
_PATHSPECS_MAX: Final = 200
"""With more changed files than this git looks at all of them, which is then as quick."""
_GRACE_SECONDS: Final = 0.5
_SETTINGS: Final = ("-c", "core.preloadIndex=false")
"""Preloading is for one git on many cores: here many run side by side, and the threads only cost."""
_TOO_LATE: Final = "it did not answer in time"
T = TypeVar("T")
Args = TypeVarTuple("Args")


@dataclass(frozen=True, slots=True)
class History:
    """The commits of a branch that are not merged: all counted, the newest kept, and every path that they touch."""

    ahead: int = 0
    commits: tuple[Commit, ...] = ()
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorktreeState:
    """What a worktree's files tell without git: what it is on, and what that is compared with."""

    root: str
    head: Head
    bases: tuple[str, ...]

    @property
    def span(self) -> tuple[str, ...]:
        """The commits that name its history; empty when there is nothing to ask for."""
        object_id = self.head.object_id
        return () if not object_id or not self.bases or object_id in self.bases else (object_id, *self.bases)


class LiveWork:
    """Reads worktrees of one repository; `ops.context.ReadWork` is its contract."""

    def __init__(
        self, layout: Layout, environ: Mapping[str, str], *, seconds_max: float = limits.work_seconds_max
    ) -> None:
        self._layout = layout
        self._environ = environ
        self._seconds_max = seconds_max
        self._limiter = trio.CapacityLimiter(_SIDE_BY_SIDE)
        self._git_layout: dict[str, tuple[tuple[int, ...], GitPlace]] = {}
        self._histories: dict[tuple[str, ...], History] = {(): History()}

    async def __call__(
        self, roots: Collection[str], *, wanted: Sequence[str] = (), files: bool = True
    ) -> dict[str, GitState]:
        """The state of each root. `wanted` narrows every list of paths to what `path_matches` one of them, and so
        spares git most of the work; without `files` the work tree is not looked at: branch and commits alone.
        """
        found: dict[str, GitState] = dict.fromkeys(roots, GitState())
        if not found or self._layout.common_dir is None:
            return found
        deadline = time.monotonic() + self._seconds_max
        found = dict.fromkeys(roots, GitState(problem=_TOO_LATE))
        # What hangs (a file system, too) holds its thread, not the answer.
        patience = trio.current_time() + self._seconds_max + _GRACE_SECONDS
        with trio.move_on_at(patience):
            worktree_states = await self._in_thread(self._checkouts, tuple(found), deadline)
            async with trio.open_nursery() as nursery:
                for root, worktree_state in worktree_states.items():
                    if isinstance(worktree_state, GitState):
                        found[root] = worktree_state
                    elif not files and (history := self._histories.get(worktree_state.span)) is not None:
                        found[root] = _state(worktree_state, history)
                    else:
                        nursery.start_soon(self._ask, found, worktree_state, wanted, files, deadline)
        return found

    async def unseen(self, roots: Collection[str], wanted: Sequence[str]) -> tuple[str, ...]:
        """Which of the paths wanted git knows in none of these worktrees: they don't exist, or git ignores them.

        Where git gives no answer it may know them all.
        """
        if self._layout.common_dir is None:
            return ()
        deadline = time.monotonic() + self._seconds_max
        with trio.move_on_at(trio.current_time() + self._seconds_max + _GRACE_SECONDS):
            return await self._in_thread(self._find_unseen, tuple(roots), wanted, deadline)
        return ()

    async def user(self) -> GitUser:
        """Whom git would name as the author in the main worktree, as configured now. Raises ThrumError without one."""
        deadline = time.monotonic() + self._seconds_max
        with trio.move_on_at(trio.current_time() + self._seconds_max + _GRACE_SECONDS):
            return await self._in_thread(self._read_user, deadline)
        raise ThrumError(f"git config could not be read: {_TOO_LATE}", remedy="repeat it")

    async def _ask(
        self,
        found: dict[str, GitState],
        worktree_state: WorktreeState,
        wanted: Sequence[str],
        files: bool,
        deadline: float,
    ) -> None:
        found[worktree_state.root] = await self._in_thread(self._read, worktree_state, wanted, files, deadline)

    async def _in_thread(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._limiter)

    # -- in threads

    def _checkouts(self, roots: Collection[str], deadline: float) -> dict[str, WorktreeState | GitState]:
        """The checkout of each root, or its final state if git tells nothing."""
        common_dir, main_root = self._layout.common_dir, str(self._layout.main_root)
        assert common_dir is not None
        refs = Refs(common_dir)
        default = self._default_branch(refs, deadline)
        worktree_states: dict[str, WorktreeState | GitState] = {}
        for root in roots:
            git = self._git_place(root)
            if git is None or git.bare or not os.path.isdir(root):
                worktree_states[root] = GitState()
            elif (gone := nowhere(git)) is not None:
                worktree_states[root] = GitState(problem=f"its .git leads to {gone}, which is not there")
            elif git.common_dir != common_dir or (str(git.root) != root != main_root):
                worktree_states[root] = GitState(problem="it is no longer a worktree of this repository")
            else:
                head = refs.head(git.git_dir)
                worktree_states[root] = WorktreeState(root, head, default.bases_of(head))
        return worktree_states

    def _find_unseen(self, roots: Sequence[str], wanted: Sequence[str], deadline: float) -> tuple[str, ...]:
        left = list(wanted)
        for root in roots:
            git = self._git_place(root)
            if not left or git is None or git.bare or not os.path.isdir(root):
                continue
            try:
                listed = self._git(root, (*FILES, "--", *pathspecs(left)), deadline)
            except GitFailed:
                return ()
            paths = [_text(path) for path in listed.split(b"\0")]
            left = [file for file in left if not any(path_matches(path, file) for path in paths)]
        return tuple(left)

    def _read_user(self, deadline: float) -> GitUser:
        try:
            out = self._git(str(self._layout.main_root), ("config", "--list", "-z"), deadline)
        except GitFailed as failed:
            raise ThrumError(f"git config could not be read: {failed}", remedy="git config --list") from failed
        # As git has it: the last one counts.
        found: dict[str, str] = {}
        for entry in out.decode("utf-8", "replace").split("\0"):
            key, _, value = entry.partition("\n")
            found[key] = value
        name = found.get("user.name", "").strip()
        if not name:
            raise ThrumError("git config user.name not set", remedy='git config user.name "YOUR NAME"')
        return GitUser(name, found.get("user.email", "").strip())

    def _git_place(self, root: str) -> GitPlace | None:
        """Where git has a root's files. It is found again when `.git` is not the very same file any more."""
        try:
            status = os.stat(f"{root}/.git")
        except OSError:
            return find_git(Path(root))
        stamp = (status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size)
        known = self._git_layout.get(root)
        if known is not None and known[0] == stamp:
            return known[1]
        place = find_git(Path(root))
        if place is not None and len(self._git_layout) < _KEPT_MAX:
            self._git_layout[root] = (stamp, place)
        return place

    def _default_branch(self, refs: Refs, deadline: float) -> DefaultBranch:
        found = refs.default_branch()
        if found.ref:
            return found
        try:
            configured = self._git(str(self._layout.main_root), ("config", "--get", "init.defaultBranch"), deadline)
        except GitFailed:
            return found
        return refs.default_branch((*USUAL_DEFAULTS, _text(configured.strip())))

    def _read(self, worktree_state: WorktreeState, wanted: Sequence[str], files: bool, deadline: float) -> GitState:
        """Everything that git can tell; what it cannot is empty, with the reason as `problem`."""
        history = History()
        try:
            history = self._history(worktree_state, deadline)
            if not files:
                return _state(worktree_state, history, wanted)
            found = parse_status(self._git(worktree_state.root, (*STATUS, "--", *pathspecs(wanted)), deadline))
            found = [each for each in found if _is_wanted(_text(each.path), wanted)]
            shown = found[: limits.work_paths_max]
            known = [each for each in shown if not each.untracked] if worktree_state.head.object_id else []
            counts = self._counts(worktree_state.root, known, deadline)
        except GitFailed as failed:
            return msgspec.structs.replace(_state(worktree_state, history, wanted), problem=str(failed))
        paths = dict.fromkeys(_text(path) for each in found for path in (each.path, each.old_path) if path)
        return msgspec.structs.replace(
            _state(worktree_state, history, wanted),
            uncommitted_files=_wanted(tuple(paths), wanted),
            file_changes=tuple(_file_change(worktree_state.root, each, counts) for each in shown),
        )

    def _history(self, worktree_state: WorktreeState, deadline: float) -> History:
        """What the head has and the bases have not. Raises GitFailed."""
        span = worktree_state.span
        known = self._histories.get(span)
        if known is not None:
            return known
        head, *bases = span
        words = [*LOG, f"--max-count={limits.work_commits_read_max}", head, "--not", *bases, "--"]
        logged = parse_log(self._git(worktree_state.root, words, deadline))
        commits = tuple(
            Commit(commit.sha, commit.subject[: limits.work_subject_chars_max])
            for commit in logged[: limits.work_commits_max]
        )
        paths = dict.fromkeys(_text(path) for commit in logged for path in commit.paths)
        if len(self._histories) >= _KEPT_MAX:
            self._histories = {(): History()}
        return self._histories.setdefault(span, History(len(logged), commits, tuple(sorted(paths))))

    def _counts(self, root: str, changes: Sequence[Change], deadline: float) -> dict[bytes, tuple[int, int]]:
        """Lines added to and taken from files that git knows."""
        if not changes:
            return {}
        paths = [path for each in changes for path in (each.path, each.old_path) if path]
        some = [b":(top,literal)" + path for path in paths] if len(paths) <= _PATHSPECS_MAX else []
        return parse_numstat(self._git(root, (*NUMSTAT, "--", *some), deadline))

    def _git(self, root: str, words: Sequence[str | bytes], deadline: float) -> bytes:
        return read_git(root, words, self._environ, deadline, *_SETTINGS)


def _state(worktree_state: WorktreeState, history: History, wanted: Sequence[str] = ()) -> GitState:
    return GitState(
        branch=worktree_state.head.branch,
        ahead=history.ahead,
        unmerged_commits=history.commits,
        changed_files=_wanted(history.paths, wanted),
    )


def _wanted(paths: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    return tuple([path for path in paths if _is_wanted(path, wanted)][: limits.work_paths_max])


def _is_wanted(path: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(path_matches(path, file) for file in wanted)


def _file_change(root: str, change: Change, counts: Mapping[bytes, tuple[int, int]]) -> FileChange:
    path = os.path.join(os.fsencode(root), change.path)
    known = counts.get(change.path)
    if known is None:
        known = (_lines(path), 0) if change.status == "added" else (0, 0)
    return FileChange(_text(change.path), _modified_at(path), *known, change.status)


def _text(path: bytes) -> str:
    """A path for a fact or an answer, which hold UTF-8 alone."""
    return path.decode("utf-8", "replace")


def _modified_at(path: bytes) -> str:
    """When a file was written; of one that is gone, when its directory was."""
    while True:
        try:
            return clock.format_ms(max(0, files.lstat(path).st_mtime_ns // 1_000_000))
        except OSError:
            parent = os.path.dirname(path)
            if parent == path:
                return clock.format_ms(0)
            path = parent


def _lines(path: bytes) -> int:
    """The lines of a new text file; 0 for anything else."""
    try:
        with open(files.open_nofollow(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limits.work_counted_bytes_max:
                return 0
            content = file.read(limits.work_counted_bytes_max + 1)
    except OSError:
        return 0
    if b"\0" in content[:8000]:
        return 0
    return content.count(b"\n") + (content[-1:] not in (b"", b"\n"))
