"""What a killed process was about to put in place goes at the next start, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thrum.admin.leftovers import AGE_MS, remove_leftovers
from thrum.model.clock import SystemClock
from thrum.model.paths import Layout, keep_of
from thrum.sync.worktree import ensure_worktree


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "app"
    found = Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")
    for directory in (found.var_dir, found.identities_dir, found.branch_dir / "messages"):
        directory.mkdir(parents=True)
    return found


def old(path: Path) -> Path:
    path.write_text("secret")
    seconds = (SystemClock().now_ms() - AGE_MS) // 1000 - 1
    os.utime(path, (seconds, seconds))
    return path


def remove(layout: Layout) -> None:
    remove_leftovers(layout, SystemClock().now_ms())


def test_temporary_files_of_killed_writers_go_wherever_they_write(layout: Layout) -> None:
    for directory in (layout.state_dir / "archive", keep_of(layout.root).record.parent, layout.root / ".git/info"):
        directory.mkdir(parents=True)
    admin_dir, _ = ensure_worktree(layout.root / ".git", layout.branch_dir, "0" * 40)
    left = [
        old(directory / ".some.json.0123456789ab.tmp")
        for directory in (
            layout.state_dir,
            layout.var_dir,
            layout.identities_dir,
            layout.thrum_sync_dir,
            layout.branch_dir,
            layout.branch_dir / "messages",
            layout.state_dir / "archive",
            keep_of(layout.root).record.parent,
            admin_dir,
            layout.root / ".git/info",
        )
    ]
    remove(layout)
    assert [path for path in left if path.exists()] == []


def test_a_linked_worktrees_go_too(layout: Layout, tmp_path: Path) -> None:
    record = layout.root / ".git/worktrees/w"
    record.mkdir(parents=True)
    (record / "gitdir").write_text(f"{tmp_path / 'w' / '.git'}\n")
    (tmp_path / "w/.thrum/context").mkdir(parents=True)
    left = old(tmp_path / "w/.thrum/context/.nux.md.0123456789ab.tmp")
    remove(layout)
    assert not left.exists()


def test_outside_git_where_the_settings_that_count_lie_is_looked_after_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "plain"
    (root / ".thrum").mkdir(parents=True)
    layout = Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=None)
    layout.trusted_dir.mkdir(parents=True)
    left = old(layout.trusted_dir / ".config.json.0123456789ab.tmp")
    remove(layout)
    assert not left.exists()


def test_what_may_be_about_to_be_put_in_place_stays(layout: Layout) -> None:
    young = layout.state_dir / ".config.json.0123456789ab.tmp"
    young.write_text("{}")
    remove(layout)
    assert young.exists()


def test_nothing_else_goes_and_no_link_is_followed(layout: Layout, tmp_path: Path) -> None:
    kept = [old(layout.state_dir / name) for name in ("config.json", ".hidden", "notes.tmp", ".notes.tmp")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept.append(old(elsewhere / ".theirs.0123456789ab.tmp"))
    layout.identities_dir.rmdir()
    layout.identities_dir.symlink_to(elsewhere)
    remove(layout)
    assert [path.read_text() for path in kept] == ["secret"] * 5
