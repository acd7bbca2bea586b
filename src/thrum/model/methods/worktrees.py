"""Worktrees: made with thrum set up in them, listed, taken down (rpc.md §5, cli.md 3.17)."""

from __future__ import annotations

from typing import Final

import msgspec

from thrum.model.methods.method import Access, Empty, Method, Mutating, Params


class WorktreeCreateParams(Params, kw_only=True):
    """`base`: what a new branch begins at, without it the HEAD where the caller stands. With `agent_name`, `role` and
    `module` an agent is registered in it, and a tmux session `name` made."""

    name: str
    branch: str = ""
    base: str = ""
    detach: bool = False
    agent_name: str = ""
    role: str = ""
    module: str = ""
    intent: str = ""
    runtime: str = ""


class WorktreeCreateResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`reused`: the worktree was there before; `notes`: what else was, and was used. `redirect` is where it leads."""

    worktree_path: str
    branch: str = ""
    detached: bool = False
    reused: bool = False
    redirect: str = ""
    session: str = ""
    agent_id: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


WORKTREE_CREATE: Final = Method(
    name="worktree.create",
    params=WorktreeCreateParams,
    result=WorktreeCreateResult,
    access=Access.OPERATOR,
    transports="U",
    long_poll=True,
)
"""For every process of the user, as `git worktree add` is; the agent registers itself. A checkout may take long."""


class WorktreeRow(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A worktree, once for each of its agents. `status`: active, offline or, of one whose directory is gone, gone."""

    path: str
    branch: str
    head: str
    agent: str = ""
    role: str = ""
    status: str = ""


class WorktreeListResult(msgspec.Struct):
    worktrees: tuple[WorktreeRow, ...]


WORKTREE_LIST: Final = Method(
    name="worktree.list", params=Empty, result=WorktreeListResult, access=Access.ANONYMOUS, transports="U"
)


class WorktreeTeardownParams(Mutating, kw_only=True):
    name: str
    delete_branch: bool = False
    keep_agent: bool = False
    force: bool = False


class WorktreeTeardownResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`lost`: what only the worktree had, a line each."""

    name: str
    worktree_path: str
    removed: bool
    agents_deleted: tuple[str, ...]
    branch_deleted: str = ""
    session_killed: str = ""
    lost: tuple[str, ...] = ()


WORKTREE_TEARDOWN: Final = Method(
    name="worktree.teardown",
    params=WorktreeTeardownParams,
    result=WorktreeTeardownResult,
    transports="U",
    long_poll=True,
)
