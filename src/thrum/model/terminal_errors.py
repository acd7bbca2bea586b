"""The kinds of refusal about worktrees and terminals (cli.md §6). All kinds are to be had from `errors`."""

from __future__ import annotations

from thrum.model.error_base import ThrumError

# -- worktrees


class InvalidWorktreeName(
    ThrumError,
    kind="invalid_worktree_name",
    code=-32602,
    remedy="give a plain name: thrum worktree create auth",
): ...


class WorktreeExists(ThrumError, kind="worktree_exists", code=-32005, remedy="choose another name"): ...


class WorktreeNotFound(ThrumError, kind="worktree_not_found", code=-32004, remedy="thrum worktree list"): ...


class WorktreeDirty(ThrumError, kind="worktree_dirty", code=-32005, remedy="commit it, or repeat with --force"):
    """What would be lost with a worktree: uncommitted files, commits on no branch."""


class BranchInUse(ThrumError, kind="branch_in_use", code=-32005, remedy="name another branch: -b BRANCH"): ...


class BadBase(ThrumError, kind="bad_base", code=-32602, remedy="name a branch, tag or commit: --base REF"): ...


# -- terminals


class TmuxMissing(ThrumError, kind="tmux_missing", code=-32007, remedy="install tmux, then repeat the command"): ...


class TmuxFailed(ThrumError, kind="tmux_failed", code=-32007, remedy="fix what tmux names, and repeat it"): ...


class TmuxSessionNotFound(ThrumError, kind="tmux_session_not_found", code=-32004, remedy="thrum tmux status"): ...


class TmuxSessionExists(ThrumError, kind="tmux_session_exists", code=-32005, remedy="choose another name"): ...


class NoAgentInSession(
    ThrumError,
    kind="no_agent_in_session",
    code=-32004,
    remedy="thrum tmux create SESSION --name NAME --role ROLE --module MODULE --force",
): ...


class IdentityAlive(
    ThrumError, kind="identity_alive", code=-32005, remedy="use a worktree of its own: thrum worktree create NAME"
): ...


class IdentityStale(
    ThrumError, kind="identity_stale", code=-32005, remedy="repeat with --force, which moves that identity away"
): ...


class NoSnapshot(ThrumError, kind="no_snapshot", code=-32004, remedy="thrum tmux snapshot save"): ...
