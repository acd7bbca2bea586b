"""Who can read git's objects, whether `init` may close them, and what is put back."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.git.initialised import actions, init, make_open_repository
from tests.support.git.repository import git
from thrum.admin import git_permissions
from thrum.model.paths import Layout, find_layout


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_open_repository(Path(os.path.realpath(tmp_path)) / "app")


def door_of(layout: Layout) -> git_permissions.AccessPath:
    door = git_permissions.find_access_path(layout, os.environ)
    assert door is not None
    return door


def test_init_closes_the_git_directory_says_so_and_keeps_what_it_was(root: Path) -> None:
    assert "mode of .git, 0755→0700" in actions(init(root, dry_run=True))
    assert mode(root / ".git") == 0o755
    result = init(root)
    assert actions(result)["mode of .git, 0755→0700"] == "merge"
    assert result.files[-1].undo.startswith("chmod 755 .git ")
    assert mode(root / ".git") == 0o700
    assert not any(name.startswith("mode of") for name in actions(init(root)))
    assert git_permissions.reopen(find_layout(root)) == f"{root}/.git, 0700→0755"
    assert mode(root / ".git") == 0o755


def test_the_bits_that_are_not_about_others_stay(root: Path) -> None:
    (root / ".git").chmod(0o2755)
    init(root)
    assert mode(root / ".git") == 0o2700
    git_permissions.reopen(find_layout(root))
    assert mode(root / ".git") == 0o2755


def _exported(root: Path) -> None:
    (root / ".git/git-daemon-export-ok").touch()


def _group_writable(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to give a directory to a group takes root")
    os.chown(root / ".git", -1, 1)
    (root / ".git").chmod(0o775)


def _all_writable(root: Path) -> None:
    (root / ".git").chmod(0o777)


def _objects_writable(root: Path) -> None:
    (root / ".git/objects").chmod(0o777)


def _shared(root: Path) -> None:
    git(root, "config", "core.sharedRepository", "group")


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (_shared, "core.sharedRepository is group"),
        (_group_writable, "others may write there"),
        (_all_writable, "others may write there"),
        (_objects_writable, "others may write there"),
        (_exported, "git-daemon-export-ok says that it is served"),
    ],
)
def test_what_is_shared_with_intent_is_left_alone_and_said(
    root: Path, share: Callable[[Path], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(root)
    before = mode(root / ".git")
    monkeypatch.setattr(
        git_permissions, "readers_of", lambda _path: git_permissions.EVERYBODY
    )  # the test's own directory is closed
    result = init(root)
    assert mode(root / ".git") == before
    told = result.files[-1]
    assert (told.action, told.skipped) == ("skip", True)
    assert told.skip_reason == f"every user of this machine can read the messages in it ({why})"
    assert not (root / ".git/thrum-sync/modes.json").exists()


def test_a_umask_of_002_in_a_group_of_one_s_own_shares_nothing(root: Path) -> None:
    """As several systems set users up: whatever git makes is 0775, of a group in which nobody else is."""
    if git_permissions._crowd((root / ".git").stat().st_gid):  # pyright: ignore[reportPrivateUsage]
        pytest.skip("this user's group has others in it")
    for path in (root / ".git", root / ".git/objects"):
        path.chmod(0o775)
    told = init(root).files[-1]
    assert mode(root / ".git") == 0o700
    assert told.undo.startswith("chmod 775 .git")


def test_an_unset_word_of_core_shared_repository_shares_nothing(root: Path) -> None:
    git(root, "config", "core.sharedRepository", "umask")
    init(root)
    assert mode(root / ".git") == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a directory away takes root")
def test_what_belongs_to_another_user_is_left_alone(root: Path) -> None:
    init(root, keep_modes=True)
    layout = find_layout(root)
    (root / ".git/thrum-sync/modes.json").unlink()
    os.chown(root / ".git", 65534, 65534)
    door = door_of(layout)
    assert not door.will_close
    assert "belongs to" in door.reason
    assert git_permissions.close(layout, door, keep=False) == ""
    assert mode(root / ".git") == 0o755


def test_a_bare_repository_with_worktrees_inside_keeps_them_reachable(root: Path) -> None:
    bare = root.parent / "bare"
    git(root.parent, "clone", "-q", "--bare", str(root), str(bare))
    bare.chmod(0o755)
    git(bare, "worktree", "add", "-q", str(bare / "work"))
    assert f"mode of {bare}/objects, 0755→0700" in actions(init(bare / "work"))
    assert mode(bare) == 0o755
    assert mode(bare / "objects") == 0o700
    # What git and thrum write meanwhile is theirs who could read it before, once it is put back.
    (bare / "work/file").write_text("new")
    git(bare / "work", "add", "file")
    (bare / "objects" / "ff").mkdir(mode=0o700, exist_ok=True)
    assert git_permissions.reopen(find_layout(bare / "work")).endswith("bare/objects, 0700→0755")
    assert all(each.stat().st_mode & 0o044 for each in (bare / "objects").rglob("*"))


def test_objects_that_lie_elsewhere_are_closed_where_they_lie(root: Path) -> None:
    elsewhere = root.parent / "objects"
    (root / ".git/objects").rename(elsewhere)
    (root / ".git/objects").symlink_to(elsewhere)
    init(root)
    assert mode(elsewhere) == 0o700
    assert git(root, "log", "--format=%s") == "first"


def test_a_killed_init_closes_the_next_time_and_what_was_opened_since_stays(root: Path) -> None:
    init(root)
    record = root / ".git/thrum-sync/modes.json"
    (root / ".git").chmod(0o755)
    assert door_of(find_layout(root)).reason == "it was reopened since"
    init(root)
    assert mode(root / ".git") == 0o755
    record.write_text(record.read_text().replace('"closed"', '"closing"'))
    init(root)
    assert mode(root / ".git") == 0o700
    assert '"mode":"0755"' in record.read_text()


def test_a_mode_that_somebody_changed_since_is_not_put_back(root: Path) -> None:
    init(root)
    (root / ".git").chmod(0o750)
    assert git_permissions.reopen(find_layout(root)) == ""
    assert mode(root / ".git") == 0o750


@pytest.mark.parametrize("text", ["", "{", '{"directory":".","mode":"9","state":"closed"}', "[]"])
def test_a_broken_record_is_none(root: Path, text: str) -> None:
    init(root)
    (root / ".git/thrum-sync/modes.json").write_text(text)
    assert git_permissions.reopen(find_layout(root)) == ""
    assert mode(root / ".git") == 0o700


def test_who_can_read_follows_from_every_directory_on_the_way(tmp_path: Path) -> None:
    top = Path(os.path.realpath(tmp_path))
    inner = top / "a" / "b"
    inner.mkdir(parents=True)
    assert git_permissions.readers_of(inner) == ""  # pytest's own directory is closed
    way = [each for each in (inner, *inner.parents) if each.stat().st_uid == os.geteuid() and each != Path("/")]
    before = {each: mode(each) for each in way}
    try:
        for each in way:
            each.chmod(mode(each) | 0o055)
        assert git_permissions.readers_of(inner) == git_permissions.EVERYBODY
        inner.parent.chmod(0o700)
        assert git_permissions.readers_of(inner) == ""
        inner.parent.chmod(0o711)  # what is known by name is readable without a list
        assert git_permissions.readers_of(inner) == git_permissions.EVERYBODY
        if os.geteuid() == 0:
            os.chown(inner, 0, 1)
            inner.chmod(0o750)
            assert git_permissions.readers_of(inner) == "every member of group daemon"
    finally:
        for each, was in before.items():
            each.chmod(was)


def test_an_access_list_is_shut_with_the_mode_and_opened_with_it(root: Path) -> None:
    # struct posix_acl_xattr: version 2; then tag, bits and id of owner, one user, group, mask, others.
    nobody = 65534
    entries = [
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 5, nobody),
        (0x04, 5, 0xFFFFFFFF),
        (0x10, 5, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    try:
        os.setxattr(root / ".git", "system.posix_acl_access", acl)
    except (OSError, AttributeError):
        pytest.skip("no access lists here")
    assert mode(root / ".git") == 0o750
    init(root)
    mask = os.getxattr(root / ".git", "system.posix_acl_access")[4 + 3 * 8 :][:4]
    assert mask == struct.pack("<HH", 0x10, 0)  # nothing of what it grants counts
    git_permissions.reopen(find_layout(root))
    assert os.getxattr(root / ".git", "system.posix_acl_access") == acl
