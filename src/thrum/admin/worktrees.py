"""Worktrees with thrum set up in them: made, listed, taken down (cli.md 3.17). Blocks.

What is there already is used, and said; what only a worktree has is never lost without `force`, and with it named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from thrum.admin.worktree_setup import set_up_worktree
from thrum.git.branches import branch_exists
from thrum.git.refs import BRANCH
from thrum.git.worktrees import Risk, Worktree, WorktreeGit
from thrum.model import settings
from thrum.model.config import Config
from thrum.model.errors import (
    BadConfigValue,
    BranchInUse,
    InvalidWorktreeName,
    NotAWorktree,
    StoreFailed,
    WorktreeDirty,
    WorktreeExists,
    WorktreeNotFound,
    in_shell,
)
from thrum.model.files import is_same
from thrum.model.paths import Layout

_NAME: Final = re.compile(r"[^\W_][\w.-]{0,99}")
_SHOWN_FILES: Final = 10


class Wanted(NamedTuple):
    """What is to be made. `branch` empty: `feature/NAME`; `base` empty: the HEAD where the caller stands."""

    name: str
    branch: str = ""
    base: str = ""
    detach: bool = False


@dataclass(frozen=True, slots=True)
class Created:
    """A worktree that is there now. `notes`: what was there before, and was used."""

    path: str
    branch: str
    redirect: str
    reused: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Doomed:
    """A worktree that may be taken down. `risk`: what goes with it; `unmerged`: commits that only its branch has."""

    worktree: Worktree
    risk: Risk
    unmerged: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """`branch`: the one deleted too; `lost`: what is gone with it, a line each."""

    branch: str = ""
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worktrees:
    """The worktrees of one repository. All methods raise StoreFailed and NotAvailable of git."""

    layout: Layout
    environ: Mapping[str, str]
    config: Config

    def base(self) -> Path:
        """Where new ones go. Raises BadConfigValue without a home."""
        told, home = self.config[settings.WORKTREES_BASE], self.environ.get("HOME", "")
        if told and not told.startswith("~"):
            return Path(told)
        if not os.path.isabs(home):
            raise BadConfigValue("there is no home directory to put worktrees in", remedy=_SET_BASE)
        return Path(home, told[2:]) if told else Path(home, ".thrum", "worktrees", self.layout.main_root.name)

    def listed(self) -> list[Worktree]:
        """All but thrum's own, the main one first. Raises NotAWorktree outside of git."""
        hidden = self.layout.thrum_sync_dir
        return [each for each in self._git().listed() if not _is_below(each.path, hidden)]

    def create(self, wanted: Wanted, at: str) -> Created:
        """Make one, or find it made, and set thrum up in it; `at`: the root where the caller stands.

        Raises InvalidWorktreeName, WorktreeExists, BranchInUse, BadBase, UsageError.
        """
        check_name(wanted.name)
        path = self.base() / wanted.name
        git = self._git(at)
        branch = "" if wanted.detach else wanted.branch or f"feature/{wanted.name}"
        if wanted.branch == BRANCH:
            raise BranchInUse(f"branch {BRANCH} is thrum's own: messages travel on it")
        if wanted.branch:
            git.check_branch(wanted.branch)
        if self._is_new(path, branch) and (made := self._made_at_once(git, path, branch, wanted)) is not None:
            return made
        main, *linked = git.listed()
        there = next((each for each in linked if is_same(each.path, path) or each.path == str(path)), None)
        if there is not None and not there.gone:
            _check_is_it(there, wanted)
            return self._used(there, f"{there.path} is there already: used as it is, {_on(there)}")
        holder = next((each for each in (main, *linked) if branch and each.branch == branch and not each.gone), None)
        if holder is not None:
            if holder is main or _is_below(holder.path, self.layout.thrum_sync_dir):
                raise BranchInUse(f"branch {branch} is checked out in {holder.path}")
            return self._used(holder, f"branch {branch} is checked out in {holder.path}: that is used")
        if is_same(path, self.layout.main_root):
            raise WorktreeExists(f"{path} is the repository itself")
        if os.path.lexists(path) and not _is_empty(path):
            raise WorktreeExists(f"{path} exists, and is no worktree of this repository")
        note = self._add(git, path, branch, wanted, again=there is not None)
        return Created(str(path), branch, self._set_up(str(path)), notes=(note,) if note else ())

    def _is_new(self, path: Path, branch: str) -> bool:
        """Whether nothing is there yet by either name; then no worktree can have the branch."""
        return not os.path.lexists(path) and not (branch and branch_exists(self.layout.common_dir, branch))

    def _made_at_once(self, git: WorktreeGit, path: Path, branch: str, wanted: Wanted) -> Created | None:
        """The usual case, without asking git what there is. None if it would not: what is in the way is looked for."""
        try:
            note = self._add(git, path, branch, wanted, again=False)
        except StoreFailed:
            return None
        return Created(str(path), branch, self._set_up(str(path)), notes=(note,) if note else ())

    def _add(self, git: WorktreeGit, path: Path, branch: str, wanted: Wanted, *, again: bool) -> str:
        """Have git make it; what of it is no news."""
        if not branch:
            self._add_at(git, path, ("--detach",), wanted.base, again=again)
            return ""
        if branch_exists(self.layout.common_dir, branch):
            git.add(str(path), (), branch, again=again)
            return f"branch {branch} is there already: used" + (", without --base" if wanted.base else "")
        if not wanted.base and len(remote := git.remote_branches(branch)) == 1:
            git.add(str(path), ("--track", "-b", branch), remote[0], again=again)
            return f"branch {branch} begins at {remote[0]}"
        self._add_at(git, path, ("-b", branch), wanted.base, again=again)
        return ""

    def _add_at(self, git: WorktreeGit, path: Path, words: tuple[str, ...], base: str, *, again: bool) -> None:
        """Raises BadBase. A branch that begins at a remote's does not follow that: the commit is named."""
        try:
            git.add(str(path), words, git.commit_of(base) if base else "HEAD", again=again)
        except StoreFailed:
            git.commit_of("HEAD")  # says so if there is no commit yet
            raise

    def _used(self, there: Worktree, note: str) -> Created:
        return Created(there.path, there.branch, self._set_up(there.path), reused=True, notes=(note,))

    def _set_up(self, path: str) -> str:
        """The redirect there; empty where the settings want none."""
        if not self.config[settings.WORKTREES_THRUM]:
            return ""
        return set_up_worktree(Path(path), None, self.environ).redirect

    def find(self, name: str) -> Worktree:
        """The linked one of that name: where new ones go, else anywhere. Raises WorktreeNotFound."""
        check_name(name)
        linked = self.listed()[1:]
        path = self.base() / name
        exact = [each for each in linked if each.path == str(path) or is_same(each.path, path)]
        found = exact or [each for each in linked if os.path.basename(each.path) == name]
        if len(found) > 1:
            paths = ", ".join(each.path for each in found)
            raise WorktreeNotFound(f"several worktrees are called {name}: {paths}", remedy="git worktree remove PATH")
        if not found:
            raise WorktreeNotFound(f"no worktree {name}")
        return found[0]

    def look(self, worktree: Worktree, *, delete_branch: bool, force: bool) -> Doomed:
        """What would go with it. Raises WorktreeDirty without `force`, and for one that git has locked."""
        git, name = self._git(), os.path.basename(worktree.path)
        if worktree.locked is not None:
            why = f": {worktree.locked}" if worktree.locked else ""
            remedy = f"git worktree unlock {in_shell(worktree.path)}, then repeat the command"
            raise WorktreeDirty(f"{name} is locked{why}", remedy=remedy)
        risk = Risk() if worktree.gone else git.risk(worktree)
        unmerged = git.unmerged(worktree.branch) if delete_branch and worktree.branch else 0
        if not force:
            _check_nothing_lost(name, worktree, risk, unmerged)
        return Doomed(worktree, risk, unmerged)

    def remove(self, doomed: Doomed, *, delete_branch: bool, force: bool) -> Removed:
        """Take it down. What only it had is named."""
        git, worktree, risk = self._git(), doomed.worktree, doomed.risk
        git.remove(worktree, force=force)
        lost: list[str] = []
        if risk.files:
            lost.append(f"uncommitted: {_few(risk.files)}")
        if risk.commits:
            lost.append(f"{_commits(risk.commits)} on no branch (back: git branch NAME {risk.head[:12]})")
        if risk.ignored:
            lost.append(f"ignored by git: {_few(risk.ignored)}")
        if not (delete_branch and worktree.branch):
            return Removed(lost=tuple(lost))
        commit = git.delete_branch(worktree.branch)
        if doomed.unmerged:
            back = f"git branch {in_shell(worktree.branch)} {commit[:12]}"
            lost.append(f"{_commits(doomed.unmerged)} of {worktree.branch} (back: {back})")
        return Removed(worktree.branch, tuple(lost))

    def _git(self, at: str = "") -> WorktreeGit:
        if self.layout.common_dir is None:
            raise NotAWorktree(f"{self.layout.main_root} is no git repository", remedy="git init; thrum init")
        return WorktreeGit(at or str(self.layout.main_root), self.environ)


_SET_BASE: Final = "thrum config set worktrees.base_path PATH"


def check_name(name: str) -> None:
    """Raise InvalidWorktreeName for what is no plain name of a directory."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidWorktreeName(f"invalid worktree name {name!r}")


def _check_is_it(there: Worktree, wanted: Wanted) -> None:
    if wanted.branch and there.branch != wanted.branch:
        other = f"-b {in_shell(there.branch)}, or " if there.branch else "leave -b out, or choose "
        raise WorktreeExists(f"{there.path} exists, {_on(there)}", remedy=f"{other}another name")


def _check_nothing_lost(name: str, worktree: Worktree, risk: Risk, unmerged: int) -> None:
    if risk.files:
        count = f"{len(risk.files)} uncommitted file{'' if len(risk.files) == 1 else 's'}"
        raise WorktreeDirty(f"{name} has {count}: {_few(risk.files)}", files=list(risk.files[:_SHOWN_FILES]))
    if risk.commits:
        raise WorktreeDirty(
            f"{name} has {_commits(risk.commits)} on no branch",
            remedy=f"git -C {in_shell(worktree.path)} switch -c BRANCH, or repeat with --force",
        )
    if unmerged:
        raise WorktreeDirty(
            f"{worktree.branch} has {_commits(unmerged)} that no other branch has",
            remedy="merge it, or leave --delete-branch out, or repeat with --force",
        )


def _commits(count: int) -> str:
    return f"{count} commit{'' if count == 1 else 's'}"


def _on(there: Worktree) -> str:
    return f"on branch {there.branch}" if there.branch else f"at {there.head[:12]}, on no branch"


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN_FILES])
    more = len(names) - _SHOWN_FILES
    return f"{shown} and {more} more" if more > 0 else shown


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_below(path: str, directory: Path) -> bool:
    return Path(path).is_relative_to(directory) or Path(os.path.realpath(path)).is_relative_to(directory)
