"""What a killed process was about to put in place goes at the next start, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thrum.admin.leftovers import AGE_MS, remove_leftovers
from thrum.model.clock import SystemClock
from thrum.model.paths import Places, keep_of
from thrum.sync.worktree import ensure_worktree


@pytest.fixture
def places(tmp_path: Path) -> Places:
    root = tmp_path / "app"
    found = Places(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")
    for directory in (found.var_dir, found.identities_dir, found.branch_dir / "messages"):
        directory.mkdir(parents=True)
    return found


def old(path: Path) -> Path:
    path.write_text("secret")
    seconds = (SystemClock().now_ms() - AGE_MS) // 1000 - 1
    os.utime(path, (seconds, seconds))
    return path


def remove(places: Places) -> None:
    remove_leftovers(places, SystemClock().now_ms())


def test_temporary_files_of_killed_writers_go_wherever_they_write(places: Places) -> None:
    for directory in (places.state_dir / "archive", keep_of(places.root).record.parent, places.root / ".git/info"):
        directory.mkdir(parents=True)
    admin_dir, _ = ensure_worktree(places.root / ".git", places.branch_dir, "0" * 40)
    left = [
        old(directory / ".some.json.0123456789ab.tmp")
        for directory in (
            places.state_dir,
            places.var_dir,
            places.identities_dir,
            places.thrum_sync_dir,
            places.branch_dir,
            places.branch_dir / "messages",
            places.state_dir / "archive",
            keep_of(places.root).record.parent,
            admin_dir,
            places.root / ".git/info",
        )
    ]
    remove(places)
    assert [path for path in left if path.exists()] == []


def test_a_linked_worktrees_go_too(places: Places, tmp_path: Path) -> None:
    record = places.root / ".git/worktrees/w"
    record.mkdir(parents=True)
    (record / "gitdir").write_text(f"{tmp_path / 'w' / '.git'}\n")
    (tmp_path / "w/.thrum/context").mkdir(parents=True)
    left = old(tmp_path / "w/.thrum/context/.nux.md.0123456789ab.tmp")
    remove(places)
    assert not left.exists()


def test_outside_git_where_the_settings_that_count_lie_is_looked_after_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "plain"
    (root / ".thrum").mkdir(parents=True)
    places = Places(root=root, state_dir=root / ".thrum", main_root=root, common_dir=None)
    places.keep_dir.mkdir(parents=True)
    left = old(places.keep_dir / ".config.json.0123456789ab.tmp")
    remove(places)
    assert not left.exists()


def test_what_may_be_about_to_be_put_in_place_stays(places: Places) -> None:
    young = places.state_dir / ".config.json.0123456789ab.tmp"
    young.write_text("{}")
    remove(places)
    assert young.exists()


def test_nothing_else_goes_and_no_link_is_followed(places: Places, tmp_path: Path) -> None:
    kept = [old(places.state_dir / name) for name in ("config.json", ".hidden", "notes.tmp", ".notes.tmp")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept.append(old(elsewhere / ".theirs.0123456789ab.tmp"))
    places.identities_dir.rmdir()
    places.identities_dir.symlink_to(elsewhere)
    remove(places)
    assert [path.read_text() for path in kept] == ["secret"] * 5
