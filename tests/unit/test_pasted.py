"""What a remedy or an undo gives to be pasted does what it says, whatever a directory is called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.places import ROOT
from thrum.model import broken_git
from thrum.model.errors import NotARepository, in_shell


@pytest.mark.parametrize("listed", [True, False])
def test_its_repair_can_be_pasted_whatever_the_repository_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    main = tmp_path / "my shop; echo $HOME"
    (tmp_path / ".git").write_text("hello\n")
    monkeypatch.setattr(broken_git, "_was_in_git", lambda _root: True)
    monkeypatch.setattr(broken_git, "_main_of", lambda _root: (main, listed))
    with pytest.raises(NotARepository) as refused:
        broken_git.check_git_beside(tmp_path)
    words = shlex.split(refused.value.remedy.partition(" PATH")[0])
    assert words == ["git", "-C", str(main), "worktree", "repair" if listed else "add"]


SOURCES = sorted((ROOT / "src").rglob("*.py"))
UNQUOTED = re.compile(r"""\b(?:rm|mv|chmod|cd|git -C)(?: -\w+| \d+| go-rwx)* \{(?!in_shell\(|[^}]*:o\})[^}]*\}""")
"""A path right behind a command's name."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_command_has_a_path_that_the_shell_would_take_apart(path: Path) -> None:
    assert UNQUOTED.findall(path.read_text(encoding="utf-8")) == []


def test_a_path_with_blanks_and_worse_is_one_word() -> None:
    for name in ("my shop", "a;b", "it's", "-x", ""):
        assert shlex.split(f"rm {in_shell(Path('/top') / name)}") == ["rm", str(Path("/top") / name)]
