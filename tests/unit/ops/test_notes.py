"""Notes and preambles: files of one worktree, and who may write them (rpc.md §5, cli.md 3.12)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from thrum.model import errors, limits, notes
from thrum.model.paths import Layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "w" / ".thrum").mkdir(parents=True)
    return tmp_path / "w"


def test_notes_are_written_whole_and_for_nobody_else_to_read(root: Path) -> None:
    saved = notes.save_notes(root, "nux", "one\n")
    assert saved.path == root / ".thrum" / "context" / "nux.md"
    assert stat.S_IMODE(saved.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(saved.path.parent.stat().st_mode) == 0o700
    found = notes.read_notes(root, "nux")
    assert found == saved
    assert found is not None and (found.text, found.size) == ("one\n", 4)
    assert notes.read_preamble(root, "nux") is None
    assert [path.name for path in saved.path.parent.iterdir()] == ["nux.md"], "no temporary file stays"


def test_clearing_leaves_the_preamble(root: Path) -> None:
    notes.save_notes(root, "nux", "one")
    notes.save_preamble(root, "nux", "two")
    assert notes.clear_notes(root, "nux")
    assert not notes.clear_notes(root, "nux")
    assert notes.read_notes(root, "nux") is None
    assert notes.read_preamble(root, "nux") is not None


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", "", "x" * 65, "..", ".hidden", "nu\u0445", "system", "peer:x"])
def test_a_name_that_is_none_leads_to_no_file(root: Path, name: str) -> None:
    for call in (notes.read_notes, notes.read_preamble, notes.clear_notes):
        with pytest.raises((errors.InvalidName, errors.ReservedName)):
            call(root, name)
    with pytest.raises((errors.InvalidName, errors.ReservedName)):
        notes.save_notes(root, name, "text")
    assert not (root / ".thrum" / "context").exists()


def test_no_name_has_the_file_of_another(root: Path) -> None:
    """`project_state` and `nux_preamble` are names that an agent may have."""
    paths = [notes.context_dir(root) / "project_state.md"]
    for name in ("nux", "nux_preamble", "project_state", "project_state_preamble", "tester_35HV562E0K", "user:nux"):
        paths += [notes.notes_path(root, name), notes.preamble_path(root, name)]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {notes.context_dir(root)}


def test_too_much_and_nothing_are_refused_and_change_nothing(root: Path) -> None:
    notes.save_notes(root, "nux", "one")
    with pytest.raises(errors.BodyTooLarge) as refused:
        notes.save_notes(root, "nux", "é" * (limits.context_bytes_max // 2) + "x")
    assert refused.value.details["limit"] == limits.context_bytes_max
    with pytest.raises(errors.EmptyBody):
        notes.save_notes(root, "nux", " \n")
    found = notes.read_notes(root, "nux")
    assert found is not None and found.text == "one"
    assert notes.save_notes(root, "nux", "x" * limits.context_bytes_max).size == limits.context_bytes_max


def test_a_link_is_neither_read_nor_written_through(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = notes.notes_path(root, "nux")
    path.parent.mkdir()
    path.symlink_to(secret)
    with pytest.raises(errors.FileUnreadable, match="is a link"):
        notes.read_notes(root, "nux")
    notes.save_notes(root, "nux", "mine")
    assert secret.read_text() == "secret" and not path.is_symlink()


@pytest.mark.parametrize("linked", [".thrum", ".thrum/context"])
def test_nothing_is_written_through_a_linked_directory(root: Path, tmp_path: Path, linked: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "context").mkdir(parents=True)
    (elsewhere / "nux.md").write_text("theirs")
    (elsewhere / "context" / "nux.md").write_text("theirs")
    if linked == ".thrum":
        (root / ".thrum").rmdir()
    (root / linked).symlink_to(elsewhere)
    for change in (lambda: notes.save_notes(root, "nux", "x"), lambda: notes.clear_notes(root, "nux")):
        with pytest.raises(errors.StoreFailed, match="is a link"):
            change()
    assert (elsewhere / "nux.md").read_text() == (elsewhere / "context" / "nux.md").read_text() == "theirs"


def test_what_is_no_text_file_holds_nobody_up(root: Path) -> None:
    path = notes.notes_path(root, "nux")
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(errors.FileUnreadable):
        notes.read_notes(root, "nux")
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.FileUnreadable):
        notes.read_notes(root, "nux")
    path.rmdir()
    path.write_bytes(b"x" * (limits.MIB + 1))
    with pytest.raises(errors.FileTooLarge):
        notes.read_notes(root, "nux")
    path.write_bytes(b"caf\xe9")
    found = notes.read_notes(root, "nux")
    assert found is not None and (found.text, found.size) == ("caf�", 4)


def test_a_worktree_without_a_project_state_reads_the_shared_one(tmp_path: Path) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    layout = Layout(root=linked, state_dir=main / ".thrum", main_root=main, common_dir=None)
    assert notes.read_project_state(layout) is None
    for root, text in ((main, "shared"), (linked, "own")):
        (root / ".thrum" / "context").mkdir(parents=True)
        (root / ".thrum" / "context" / "project_state.md").write_text(text)
        found = notes.read_project_state(layout)
        assert found is not None and found.text == text


def test_a_preamble_begins_as_the_roles_template(tmp_path: Path) -> None:
    state = tmp_path / ".thrum"
    (state / "role_templates").mkdir(parents=True)
    (state / "role_templates" / "tester.md").write_text("I am {{.AgentName}}, {{ Role }} of {{.Module}}; {{.Other}}")
    (tmp_path / "secret.md").write_text("TREASURE")
    layout = Layout(root=tmp_path, state_dir=state, main_root=tmp_path, common_dir=None)
    assert notes.first_preamble(layout, "nux", "tester", "auth") == "I am nux, tester of auth; {{.Other}}"
    assert notes.first_preamble(layout, "nux", "reviewer", "auth").startswith("# @nux, reviewer of auth\n")
    assert "TREASURE" not in notes.first_preamble(layout, "nux", "../../secret", "auth")


# -- over RPC
