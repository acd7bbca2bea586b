"""What git says of worktrees, read."""

from __future__ import annotations

from thrum.git.worktrees import Worktree, parse_list, parse_status


def test_every_kind_of_worktree_is_told_from_the_others() -> None:
    text = (
        "worktree /src/a shop\nHEAD 1111\nbranch refs/heads/main\n\n"
        "worktree /src/bare\nbare\n\n"
        "worktree /src/new\nHEAD 0000000000\nbranch refs/heads/new\n\n"
        "worktree /nowhere/gone\nHEAD 2222\ndetached\nlocked on a stick\nprunable gitdir file points to nowhere\n\n"
    )
    assert parse_list(text) == [
        Worktree("/src/a shop", "1111", "main"),
        Worktree("/src/bare", bare=True),
        Worktree("/src/new", "", "new"),
        Worktree("/nowhere/gone", "2222", locked="on a stick", gone=True),
    ]


def test_what_is_changed_and_what_git_ignores_are_two_lists_without_thrums_own() -> None:
    text = " M a file\0R  new name\0old name\0?? unknown\0!! .env\0!! .thrum/\0!! build/\0"
    assert parse_status(text) == (("a file", "new name", "unknown"), (".env", "build/"))
