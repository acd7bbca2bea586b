"""The worktrees of a repository, as git lists, makes and removes them, and what would go with one. Blocks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from thrum.git._ref_files import HEADS
from thrum.git.runner import git_missing, run_git
from thrum.model.dot_git import find_git
from thrum.model.errors import BadBase, StoreFailed, UsageError

_OWN: Final = ".thrum/"


@dataclass(frozen=True, slots=True)
class Worktree:
    """One, as `git worktree list` has it."""

    path: str
    head: str = ""
    """The commit; empty where there is none yet, and for a bare repository."""
    branch: str = ""
    """Empty if its HEAD is detached."""
    bare: bool = False
    locked: str | None = None
    """Why, if it is locked; git asks for no reason."""
    gone: bool = False
    """Whether git has only its record left."""


class Risk(NamedTuple):
    """What only this worktree has."""

    files: tuple[str, ...] = ()
    """Changed and new ones, as git names them."""
    commits: int = 0
    """On no branch, for its HEAD is detached."""
    head: str = ""
    ignored: tuple[str, ...] = ()
    """What git ignores there, directories as one."""


@dataclass(frozen=True, slots=True)
class WorktreeGit:
    """Git, run in a directory of the repository, with these variables. All methods raise StoreFailed, NotAvailable."""

    root: str
    environ: Mapping[str, str]

    def listed(self) -> list[Worktree]:
        """All, the main one first."""
        return parse_list(self._git("worktree", "list", "--porcelain"))

    def commit_of(self, ref: str) -> str:
        """The commit that a ref names. Raises BadBase."""
        done = self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if done[0] != 0:
            if ref == "HEAD":
                raise BadBase("there is no commit yet to begin from", remedy="commit something first")
            raise BadBase(f"no such base: {ref}")
        return done[1].strip()

    def check_branch(self, branch: str) -> None:
        """Raise UsageError for what git takes for no branch's name."""
        if branch.startswith("-") or self._try("check-ref-format", f"{HEADS}{branch}")[0] != 0:
            raise UsageError(f"{branch!r} is no name of a branch", remedy="name another: -b BRANCH")

    def remote_branches(self, branch: str) -> list[str]:
        """What remotes have under that name: `origin/auth`. Without remotes git is not asked."""
        if not self._has_remote_refs():
            return []
        text = self._git("for-each-ref", "--format=%(refname:lstrip=2)", f"refs/remotes/*/{branch}")
        return text.split()

    def _has_remote_refs(self) -> bool:
        git = find_git(Path(self.root))
        if git is None or (git.common_dir / "refs" / "remotes").is_dir() or (git.common_dir / "reftable").is_dir():
            return True
        try:
            return b" refs/remotes/" in (git.common_dir / "packed-refs").read_bytes()
        except OSError:
            return False

    def add(self, path: str, words: Sequence[str], commit: str, *, again: bool = False) -> None:
        """Make a worktree. `words`: `-b BRANCH`, `--detach` …; `again`: git still has a record of one there."""
        force = ("--force",) if again else ()
        self._git("worktree", "add", "--quiet", *force, *words, "--", path, *((commit,) if commit else ()))

    def risk(self, worktree: Worktree) -> Risk:
        """What would be lost with it."""
        words = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored=traditional")
        changed, ignored = parse_status(self._git(*words, at=worktree.path))
        commits = 0
        if not worktree.branch and worktree.head:
            words = ("rev-list", "--count", "HEAD", "--not", "--branches", "--tags", "--remotes")
            commits = int(self._git(*words, at=worktree.path))
        return Risk(changed, commits, worktree.head, ignored)

    def unmerged(self, branch: str) -> int:
        """How many commits no other branch has, here or at a remote as last fetched."""
        others = ("--not", f"--exclude={branch}", "--branches", "--tags", "--remotes")
        return int(self._git("rev-list", "--count", f"{HEADS}{branch}", *others))

    def remove(self, worktree: Worktree, *, force: bool) -> None:
        """Remove it. Without `force` git looks once more, and refuses what it would lose."""
        if worktree.gone:
            self._git("worktree", "prune")
            return
        self._git("worktree", "remove", *(("--force",) if force else ()), "--", worktree.path)

    def delete_branch(self, branch: str) -> str:
        """Delete it, merged or not; the commit that it was at."""
        commit = self.commit_of(f"{HEADS}{branch}")
        self._git("branch", "--quiet", "-D", "--", branch)
        return commit

    def _git(self, *words: str, at: str = "") -> str:
        status, out, err = self._try(*words, at=at)
        if status != 0:
            reason = err.strip().removeprefix("fatal: ").removeprefix("error: ") or f"status {status}"
            raise StoreFailed(
                f"git {' '.join(words[:2])} failed: {reason}", remedy="fix what git names, then repeat the command"
            )
        return out

    def _try(self, *words: str, at: str = "") -> tuple[int, str, str]:
        done = run_git(("-C", at or self.root, *words), self.environ)
        if done is None:
            raise git_missing()
        return done.returncode, os.fsdecode(done.stdout), done.stderr.decode("utf-8", "replace")


def parse_list(text: str) -> list[Worktree]:
    """What `git worktree list --porcelain` prints. Pure."""
    return [_worktree(block) for block in text.split("\n\n") if block.startswith("worktree ")]


def _worktree(block: str) -> Worktree:
    words = [line.partition(" ") for line in block.splitlines()]
    fields = {key: value for key, _, value in words}
    head = fields.get("HEAD", "")
    return Worktree(
        path=fields["worktree"],
        head=head if head.strip("0") else "",
        branch=fields.get("branch", "").removeprefix(HEADS),
        bare="bare" in fields,
        locked=fields.get("locked"),
        gone="prunable" in fields and not Path(fields["worktree"]).exists(),
    )


def parse_status(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of `git status --porcelain=v1 -z`: what is changed or new, and what git ignores; thrum's own left out. Pure."""
    changed: list[str] = []
    ignored: list[str] = []
    entries = iter(text.split("\0"))
    for entry in entries:
        code, path = entry[:2], entry[3:]
        if code[:1] in ("R", "C"):
            next(entries, None)  # where it was before
        if path and not path.startswith(_OWN):
            (ignored if code == "!!" else changed).append(path)
    return tuple(changed), tuple(ignored)
