"""Hooks in files of settings: beside what is others', taken out to the byte, hidden from git, never by a link."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.git.repository import git_output, make_repository
from thrum.model import files
from thrum.model.errors import Busy, ConfigInvalid, FileUnreadable, NotAvailable, StateTracked, StoreFailed
from thrum.model.paths import Layout, layout_of
from thrum.runtimes import installer, opencode_plugin
from thrum.runtimes._records import Records
from thrum.runtimes.settings_files import Scope, SettingsFile, settings_file

PROGRAM = "/opt/thrum/bin/thrum"
BEFORE = b'{\r\n\t"permissions": {"allow": ["Bash(ls:*)"]},\r\n\t"hooks": {"Stop": []}\r\n}'


class Desk:
    """A repository, a home, and one runtime's file."""

    def __init__(self, top: Path) -> None:
        self.top, self.root, self.home = top, top / "shop", top / "home"
        self.home.mkdir()
        make_repository(self.root, {"README": "a shop\n"})
        self.environ = {"HOME": str(self.home), "PATH": os.environ["PATH"]}

    @property
    def layout(self) -> Layout:
        return layout_of(self.root, self.root / ".thrum")

    def file(self, runtime: str = "claude", scope: Scope = "private", root: Path | None = None) -> SettingsFile:
        return settings_file(runtime, scope, None if scope == "user" else root or self.root, self.environ)

    def install(self, file: SettingsFile, program: str = PROGRAM, layout: Layout | None = None) -> str:
        return installer.install(file, program, self.environ, layout or self.layout).change

    def uninstall(self, file: SettingsFile) -> str:
        return installer.uninstall(file, self.environ)

    @property
    def exclude(self) -> bytes:
        return (self.root / ".git/info/exclude").read_bytes()

    def status(self) -> str:
        return git_output(self.root, "status", "--short")

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Every file and directory here but git's objects and what thrum remembers."""
        return {
            str(path.relative_to(self.top)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(self.top.rglob("*"))
            if not {"objects", "index", ".thrum"} & set(path.relative_to(self.top).parts)
        }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


PLACES: list[tuple[str, Scope]] = [
    ("claude", "private"),
    ("claude", "project"),
    ("claude", "user"),
    ("codex", "user"),
    ("gemini", "private"),
    ("gemini", "user"),
    ("cursor", "private"),
    ("cursor", "user"),
]


@pytest.mark.parametrize(("runtime", "scope"), PLACES)
def test_where_there_was_no_file_nothing_is_left_of_it(desk: Desk, runtime: str, scope: Scope) -> None:
    before = desk.tree()
    file = desk.file(runtime, scope)
    assert desk.install(file) == "installed"
    assert all(PROGRAM in each for each in installer.commands_in(file))
    assert json.loads(file.path.read_bytes())["hooks"]
    assert stat.S_IMODE(file.path.stat().st_mode) == (0o644 if scope == "project" else 0o600)
    assert desk.uninstall(file) == "restored"
    assert desk.tree() == before
    assert desk.uninstall(file) == "absent"


@pytest.mark.parametrize(("runtime", "scope"), PLACES)
@pytest.mark.parametrize("before", [b"", b"{}", BEFORE], ids=["empty", "bare", "others"])
def test_what_was_in_the_file_comes_back_to_the_byte(desk: Desk, runtime: str, scope: Scope, before: bytes) -> None:
    file = desk.file(runtime, scope)
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(before)
    file.path.chmod(0o640)
    known = desk.tree()
    assert desk.install(file) == "installed"
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640
    assert file.path.read_bytes() != before
    assert desk.uninstall(file) == "restored"
    assert desk.tree() == known


def test_a_private_file_is_hidden_from_git_and_git_sees_what_it_saw(desk: Desk) -> None:
    file = desk.file()
    hidden = desk.exclude
    done = installer.install(file, PROGRAM, desk.environ, desk.layout)
    assert done.rule == str(desk.root / ".git/info/exclude")
    assert desk.exclude == hidden + b"/.claude/settings.local.json\n"
    assert desk.status() == ""
    desk.uninstall(file)
    assert desk.exclude == hidden


def test_what_git_leaves_out_already_needs_no_line(desk: Desk) -> None:
    (desk.root / ".gitignore").write_text(".claude/\n")
    hidden = desk.exclude
    assert installer.install(desk.file(), PROGRAM, desk.environ, desk.layout).rule == ""
    assert desk.exclude == hidden


def test_the_line_stays_while_another_worktree_needs_it(desk: Desk) -> None:
    second = desk.top / "second"
    git_output(desk.root, "worktree", "add", "-q", str(second))
    hidden = desk.exclude
    here, there = desk.file(), desk.file(root=second)
    desk.install(here)
    desk.install(there, layout=Layout(second, desk.root / ".thrum", desk.root, desk.root / ".git"))
    desk.uninstall(here)
    assert git_output(second, "status", "--short") == ""
    desk.uninstall(there)
    assert desk.exclude == hidden


def test_a_worktree_that_was_removed_needs_no_line(desk: Desk) -> None:
    second = desk.top / "second"
    git_output(desk.root, "worktree", "add", "-q", str(second))
    hidden = desk.exclude
    here = desk.file()
    desk.install(here)
    desk.install(desk.file(root=second), layout=Layout(second, desk.root / ".thrum", desk.root, desk.root / ".git"))
    git_output(desk.root, "worktree", "remove", "--force", str(second))
    desk.uninstall(here)
    assert desk.exclude == hidden


def test_what_others_wrote_into_a_private_file_of_thrums_stays_hidden(desk: Desk) -> None:
    file = desk.file()
    desk.install(file)
    value = json.loads(file.path.read_bytes())
    file.path.write_text(json.dumps({**value, "env": {"KEY": "secret"}}))
    assert desk.uninstall(file) == "removed"
    assert json.loads(file.path.read_bytes()) == {"env": {"KEY": "secret"}}
    assert desk.status() == ""


def test_a_file_that_git_tracks_is_refused_and_the_projects_own_is_not(desk: Desk) -> None:
    for name in (".claude/settings.local.json", ".claude/settings.json"):
        path = desk.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}\n")
    git_output(desk.root, "add", ".claude")
    before = desk.tree()
    with pytest.raises(StateTracked) as refused:
        desk.install(desk.file())
    assert "thrum hook install claude --project" in refused.value.remedy
    assert desk.tree() == before
    assert desk.install(desk.file(scope="project")) == "installed"


def test_twice_is_once_and_a_moved_thrum_takes_the_place_of_the_old_one(desk: Desk) -> None:
    file = desk.file()
    file.path.parent.mkdir()
    file.path.write_bytes(BEFORE)
    desk.install(file)
    once = file.path.read_bytes(), file.path.stat().st_mtime_ns
    assert desk.install(file) == "unchanged"
    assert (file.path.read_bytes(), file.path.stat().st_mtime_ns) == once
    assert desk.install(file, "/new/thrum") == "replaced"
    assert all("/new/thrum" in each for each in installer.commands_in(file))
    assert PROGRAM.encode() not in file.path.read_bytes()
    assert desk.uninstall(file) == "restored"
    assert file.path.read_bytes() == BEFORE


def test_what_others_wrote_meanwhile_stays_and_thrums_entries_go(desk: Desk) -> None:
    file = desk.file()
    desk.install(file)
    value = json.loads(file.path.read_bytes())
    value["permissions"] = {"allow": ["Bash(make:*)"]}
    value["hooks"]["Stop"].append({"hooks": [{"type": "command", "command": "mine"}]})
    file.path.write_text(json.dumps(value, indent=4))
    assert desk.uninstall(file) == "removed"
    assert json.loads(file.path.read_bytes()) == {
        "permissions": {"allow": ["Bash(make:*)"]},
        "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "mine"}]}]},
    }


def test_a_file_of_thrums_that_was_only_laid_out_otherwise_goes_whole(desk: Desk) -> None:
    before = desk.tree()
    for runtime in ("claude", "cursor"):
        file = desk.file(runtime)
        desk.install(file)
        file.path.write_text(json.dumps(json.loads(file.path.read_bytes()), indent=8))
        assert desk.uninstall(file) == "restored"
    assert desk.tree() == before


def test_hooks_that_nothing_is_remembered_of_are_cut_out(desk: Desk) -> None:
    file = desk.file()
    file.path.parent.mkdir()
    file.path.write_bytes(BEFORE)
    desk.install(file)
    for path in (desk.home / ".thrum/hook-files").iterdir():
        path.unlink()
    assert desk.install(file, "/new/thrum") == "replaced"
    assert desk.uninstall(file) == "restored"
    assert json.loads(file.path.read_bytes()) == {"permissions": {"allow": ["Bash(ls:*)"]}}


@pytest.mark.parametrize(
    "text",
    [b"{", b"[]", b'{"hooks": []}', b'{"hooks": {"Stop": "thrum"}}', b"\xff{}"],
    ids=["cut", "a list", "hooks a list", "an event a text", "no UTF-8"],
)
def test_a_file_of_another_form_is_refused_and_nothing_changes(desk: Desk, text: bytes) -> None:
    file = desk.file()
    file.path.parent.mkdir()
    file.path.write_bytes(text)
    before = desk.tree()
    with pytest.raises(ConfigInvalid) as refused:
        desk.install(file)
    assert str(file.path) in refused.value.remedy
    assert desk.tree() == before


@pytest.mark.parametrize("name", [".claude", ".claude/settings.local.json"])
def test_no_link_of_a_branch_is_followed(desk: Desk, name: str) -> None:
    mine = desk.home / "mine"
    mine.mkdir()
    (mine / "settings.local.json").write_text("{}")
    link = desk.root / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(mine if name == ".claude" else mine / "settings.local.json")
    with pytest.raises(FileUnreadable):
        desk.file()
    assert (mine / "settings.local.json").read_text() == "{}"


def test_a_link_of_the_users_own_leads_to_the_file_and_stays_a_link(desk: Desk) -> None:
    kept = desk.home / "dotfiles/claude.json"
    kept.parent.mkdir()
    kept.write_text('{"model": "opus"}\n')
    (desk.home / ".claude").mkdir()
    (desk.home / ".claude/settings.json").symlink_to(kept)
    file = desk.file(scope="user")
    desk.install(file)
    assert (desk.home / ".claude/settings.json").is_symlink()
    assert "UserPromptSubmit" in kept.read_text()
    assert desk.uninstall(file) == "restored"
    assert kept.read_text() == '{"model": "opus"}\n'


@pytest.mark.parametrize("act", ["install", "uninstall"])
def test_killed_at_any_write_it_is_repeated_and_all_is_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    file = desk.file()
    file.path.parent.mkdir()
    file.path.write_bytes(BEFORE)
    before = desk.tree()
    if act == "uninstall":
        desk.install(file)
    number = 0
    while _killed_at(number, desk, file, monkeypatch, act):
        assert file.path.read_bytes() == BEFORE or installer.commands_in(file)
        assert desk.uninstall(file) in ("restored", "absent")
        assert desk.tree() == before, number
        if act == "uninstall":
            desk.install(file)
        number += 1
    assert number >= 2


class Killed(BaseException): ...


def _killed_at(number: int, desk: Desk, file: SettingsFile, monkeypatch: pytest.MonkeyPatch, act: str) -> bool:
    """Do it, and be killed before the write of that number; whether there was one."""
    left = [number]

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def die(*args: object, **kwargs: object) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            write(*args, **kwargs)

        return die

    with monkeypatch.context() as patch:
        patch.setattr(files, "atomic_write", dying(files.atomic_write))
        patch.setattr("thrum.git.ignore_rules.atomic_write", files.atomic_write)
        patch.setattr(files, "remove", dying(files.remove))
        try:
            desk.install(file) if act == "install" else desk.uninstall(file)
        except Killed:
            return True
    return False


def test_a_program_that_writes_at_the_same_moment_loses_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = desk.file()
    keep = Records.keep

    def meanwhile(records: object, record: object) -> None:
        keep(records, record)  # pyright: ignore[reportArgumentType]
        file.path.parent.mkdir(exist_ok=True)
        file.path.write_text('{"model": "opus"}')

    monkeypatch.setattr(Records, "keep", meanwhile)
    with pytest.raises(Busy):
        desk.install(file)
    assert file.path.read_text() == '{"model": "opus"}'
    assert desk.uninstall(file) == "absent"
    assert file.path.read_text() == '{"model": "opus"}'


def test_what_is_remembered_is_private(desk: Desk) -> None:
    desk.install(desk.file())
    kept = desk.home / ".thrum/hook-files"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in kept.iterdir()} == {0o600}


def test_what_cannot_be_done_says_why(desk: Desk) -> None:
    with pytest.raises(NotAvailable):
        desk.file("codex", "project")
    desk.environ["HOME"] = ""
    with pytest.raises(NotAvailable):
        desk.file("codex", "user")
    desk.environ["HOME"] = str(desk.home)
    (desk.root / ".claude").write_text("a file")
    with pytest.raises(StoreFailed):
        desk.install(desk.file())


@pytest.mark.parametrize("scope", ["private", "project", "user"])
def test_a_plugin_is_a_file_of_its_own_and_nothing_is_left_of_it(desk: Desk, scope: Scope) -> None:
    before = desk.tree()
    file = desk.file("opencode", scope)
    assert desk.install(file) == "installed"
    assert [each.split()[-1] for each in installer.commands_in(file)] == list(opencode_plugin.EVENTS)
    assert all(PROGRAM in each for each in installer.commands_in(file))
    assert file in installer.installed_files(None if scope == "user" else desk.root, desk.environ) or scope == "project"
    assert desk.status() == ("" if scope != "project" else "?? .opencode/\n")
    assert desk.install(file) == "unchanged"
    assert desk.install(file, "/elsewhere/my thrum") == "replaced"
    assert opencode_plugin.program_in(file.path.read_text()) == "/elsewhere/my thrum"
    assert desk.uninstall(file) == "restored"
    assert desk.tree() == before
    assert desk.uninstall(file) == "absent"


def test_a_plugin_that_is_not_thrums_is_neither_replaced_nor_taken_out(desk: Desk) -> None:
    file = desk.file("opencode")
    file.path.parent.mkdir(parents=True)
    file.path.write_text("export const Thrum = async () => ({})\n")
    before = desk.tree()
    with pytest.raises(ConfigInvalid, match="another plugin"):
        desk.install(file)
    assert desk.uninstall(file) == "absent"
    assert desk.tree() == before


def test_a_plugin_that_was_changed_since_goes_as_a_whole(desk: Desk) -> None:
    before = desk.tree()
    file = desk.file("opencode")
    desk.install(file)
    with file.path.open("a") as out:
        out.write("// mine\n")
    assert desk.uninstall(file) == "restored"
    assert desk.tree() == before
