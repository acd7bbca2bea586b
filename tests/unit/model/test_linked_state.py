"""A linked worktree's own `.thrum`, and places that no file system has (identity.md §3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trusted import trust_here
from thrum.model.errors import NotARepository
from thrum.model.paths import find_layout, link_state


def test_a_linked_worktree_gets_private_directories_and_a_redirect(tmp_path: Path) -> None:
    root, state = tmp_path / "linked", tmp_path / "main/.thrum"
    root.mkdir()
    link_state(root, state)
    own = root / ".thrum"
    assert (own / "redirect").read_text() == f"{state}\n"
    for directory in (own, own / "identities", own / "context"):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_redirect_that_is_there_stays_even_if_it_is_a_dangling_link(tmp_path: Path) -> None:
    own = tmp_path / "linked/.thrum"
    own.mkdir(parents=True)
    trust_here(tmp_path / "linked")
    (own / "redirect").symlink_to(tmp_path / "nowhere")
    link_state(tmp_path / "linked", tmp_path / "main/.thrum")
    assert (own / "redirect").is_symlink()


def test_a_root_with_a_state_of_its_own_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "own/.thrum"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    trust_here(tmp_path / "own")
    link_state(tmp_path / "own", tmp_path / "main/.thrum")
    link_state(tmp_path / "own", own)
    assert sorted(each.name for each in own.iterdir()) == [".mark", "config.json"]


def test_a_path_with_a_nul_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(NotARepository, match="no such directory"):
        find_layout(tmp_path / "a\0b")
