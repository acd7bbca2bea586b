"""Redirecting a worktree that git made without thrum to its repository's state: `thrum setup` (cli.md 3.17)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from thrum.admin._foreign_state import move_away
from thrum.model import files
from thrum.model.broken_git import check_git_above
from thrum.model.clock import SystemClock
from thrum.model.dot_git import GitPlace, find_git, main_worktree
from thrum.model.errors import BadRedirect, NotARepository, NotAWorktree, NotInitialized, StoreFailed, in_shell
from thrum.model.paths import check_leads, counts, find_layout, layout_of, link_state
from thrum.sync import branch


class SetupResult(msgspec.Struct, kw_only=True):
    """`Setup` of cli.md §4. `redirect` is where it leads."""

    worktree_path: str
    redirect: str
    identities_dir: str


def set_up_worktree(start: Path, main_repo: Path | None, environ: Mapping[str, str]) -> SetupResult:
    """Redirect a worktree that git already has to its repository's state: that of `main_repo`, else as git tells.

    A redirect that is there is replaced; data of its own is never hidden. Raises NotARepository, NotAWorktree,
    NotInitialized, BadRedirect, UnsafeRepository, StoreFailed.
    """
    check_git_above(start)
    git = find_git(start) if start.is_dir() else None
    if git is None or git.bare:
        raise NotARepository(f"not a git worktree: {start}")
    check_leads(git)
    root = git.root
    state_dir = _state_of_main(git, main_repo)
    if state_dir.parent == root:
        raise NotAWorktree(f"{root} is the main worktree: it needs no redirect", remedy="run it in a linked worktree")
    main = find_git(state_dir.parent)
    if main is None or main.common_dir != git.common_dir:
        message = f"{root} is not a git worktree of {state_dir.parent}"
        raise NotAWorktree(
            message, remedy=f"git -C {in_shell(state_dir.parent)} worktree add PATH; a clone has its own: thrum init"
        )
    branch.verify_owner(root, git.common_dir, environ)
    check_writable(root)
    own = root / ".thrum"
    if files.is_link(own):
        raise BadRedirect(
            f"{own} is a link: a redirect in it would land elsewhere", remedy=f"rm {in_shell(own)}; thrum setup"
        )
    if os.path.lexists(own) and not counts(root):
        move_away(own, SystemClock().now_ms())
    if files.is_file(own / "config.json"):
        message = f"{own} holds data of its own, which a redirect would hide"
        raise BadRedirect(message, remedy=f"move {own} away, then: thrum setup")
    _write_redirect(root, state_dir)
    return SetupResult(
        worktree_path=str(root), redirect=str(state_dir), identities_dir=str(layout_of(root, state_dir).identities_dir)
    )


def _state_of_main(git: GitPlace, main_repo: Path | None) -> Path:
    """The state directory that a worktree shares. Raises NotInitialized, BadRedirect, NotARepository."""
    if main_repo is not None:
        return find_layout(main_repo).state_dir
    main = main_worktree(git) if git.linked else git.root
    if main is not None:
        return git.root / ".thrum" if main == git.root else find_layout(main).state_dir
    kept = kept_state(git.common_dir)
    if kept is None:
        raise NotInitialized(f"thrum is not initialized in any worktree of {git.common_dir}")
    return kept


def _write_redirect(root: Path, state_dir: Path) -> None:
    own = root / ".thrum"
    wanted = os.fsencode(f"{state_dir}\n")
    try:
        with contextlib.suppress(FileNotFoundError):
            if not files.is_file(own / "redirect") or files.read_bytes(own / "redirect") != wanted:
                files.remove(own / "redirect")
        link_state(root, state_dir)
    except OSError as error:
        raise StoreFailed(f"could not write {own}: {(error.strerror or str(error)).lower()}") from error


def kept_state(common_dir: Path) -> Path | None:
    """A bare repository's: the worktree that was initialised first keeps the state."""
    try:
        kept: Any = msgspec.json.decode((common_dir / "thrum-sync" / "daemon.json").read_bytes())
        first = Path(str(kept["state_dir"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return first if counts(first.parent) else None


def check_writable(directory: Path) -> None:
    if directory.exists() and not os.access(directory, os.W_OK | os.X_OK):
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
        reason = "read-only file system" if read_only else "permission denied"
        raise StoreFailed(
            f"could not write {directory}: {reason}", remedy=f"make {directory} writable, then: thrum init"
        )
