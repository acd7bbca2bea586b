"""Parts of facts that are not facts themselves (events.md §4)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from thrum.model import limits

Whole = Annotated[int, msgspec.Meta(ge=-limits.integer_max, le=limits.integer_max)]
"""What JSON readers and SQLite can hold (events.md §3)."""


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A scope, a ref or an audience."""

    type: str
    value: str


class Body(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a message says. `structured` is JSON text: object or array, compact, keys sorted."""

    format: str
    content: str
    structured: str = ""


class Commit(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    sha: str
    message: str
    files: tuple[str, ...] = ()


class FileChange(msgspec.Struct, frozen=True, gc=False):
    path: str
    last_modified: str
    additions: Whole
    deletions: Whole
    status: str


class Work(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What one session works on: three registers (git, task, intent), each set by its `*_updated_at`.

    A time that is present with its value absent means: cleared.
    """

    session_id: str
    branch: str = ""
    worktree_path: str = ""
    unmerged_commits: tuple[Commit, ...] = ()
    uncommitted_files: tuple[str, ...] = ()
    changed_files: tuple[str, ...] = ()
    file_changes: tuple[FileChange, ...] = ()
    git_updated_at: str = ""
    current_task: str = ""
    task_updated_at: str = ""
    intent: str = ""
    intent_updated_at: str = ""


class GroupFields(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a group update changes; None leaves a field as it is, an empty text clears it."""

    description: str | None = None
    name: str | None = None
