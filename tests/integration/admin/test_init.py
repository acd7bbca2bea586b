"""`thrum init` without its command line: what it makes, and what it refuses whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest

from tests.support.git.initialised import actions, init, make_open_repository
from tests.support.git.repository import git
from thrum.admin.git_permissions import UNDO
from thrum.admin.init import bootstrap_identity, recalled_choice, remember_choice
from thrum.model import settings
from thrum.model.clock import SystemClock
from thrum.model.config import load_config, update_config
from thrum.model.errors import (
    BadRedirect,
    ConfigInvalid,
    NotARepository,
    StoreFailed,
    ThrumError,
    UnsafeRepository,
    UsageError,
)
from thrum.model.paths import find_layout


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(directory.rglob("*")) if not p.is_socket()}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def root(top: Path) -> Path:
    return make_open_repository(top / "app")


def test_init_makes_all_that_thrum_needs_and_changes_no_tracked_file(root: Path) -> None:
    result = init(root)
    assert actions(result) == {
        ".thrum/": "create",
        ".git/thrum-sync/a-sync/": "create",
        "branch a-sync": "create",
        ".git/info/exclude": "merge",
        "mode of .git, 0755→0700": "merge",
    }
    assert [file.undo for file in result.files] == [
        "thrum daemon stop; rm -r .thrum",
        "git worktree remove -f -f .git/thrum-sync/a-sync; rm -r .git/thrum-sync",
        "git branch -D a-sync",
        "remove the line .thrum/",
        f"chmod 755 .git  # {UNDO}",
    ]
    assert git(root, "status", "--porcelain") == ""
    assert result.repo_path == str(root)
    assert result.thrum_dir == str(root / ".thrum")
    assert not result.already_initialized
    assert find_layout(root).state_dir == root / ".thrum"
    config = json.loads((root / ".thrum" / "config.json").read_text())
    assert config["identity"]["daemon_id"] == result.daemon_id
    assert config["identity"]["hostname"] == "laptop"
    assert config["daemon"] == {"local_only": True}
    assert result.repo_id.startswith("r_")
    for name in ("identities", "var", "context", "context/project_state.md"):
        path = root / ".thrum" / name
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert not list((root / ".thrum").glob("*-bak"))


def test_every_undo_line_undoes(root: Path) -> None:
    before = git(root, "for-each-ref"), git(root, "worktree", "list")
    for file in init(root).files:
        if not file.undo.startswith("remove the line"):
            subprocess.run(file.undo.removeprefix("thrum daemon stop; "), shell=True, cwd=root, check=True)
    assert (git(root, "for-each-ref"), git(root, "worktree", "list")) == before
    assert not (root / ".thrum").exists()
    assert not (root / ".git" / "thrum-sync").exists()
    assert not init(root).already_initialized


def test_a_second_init_says_so_and_changes_nothing(root: Path) -> None:
    first = init(root)
    before = snapshot(root)
    second = init(root)
    assert second.already_initialized
    assert set(actions(second).values()) == {"noop"}
    assert (second.daemon_id, second.repo_id) == (first.daemon_id, first.repo_id)
    assert snapshot(root) == before


def test_a_later_init_adds_what_is_missing(root: Path) -> None:
    init(root)
    shutil.rmtree(root / ".thrum" / "context")
    assert actions(init(root))[".thrum/"] == "merge"
    assert (root / ".thrum" / "context" / "project_state.md").is_file()


def test_a_deleted_thrum_directory_makes_no_stranger(root: Path) -> None:
    first = init(root)
    git(root, "clean", "-fdxq")
    shutil.rmtree(root / ".thrum", ignore_errors=True)
    assert init(root).daemon_id == first.daemon_id


@pytest.mark.parametrize("sync", [True, False])
def test_whether_a_clone_syncs_is_kept_when_git_clean_takes_its_settings(root: Path, sync: bool) -> None:
    assert not init(root, sync=sync).sync_recalled
    git(root, "clean", "-fdxq")
    assert not (root / ".thrum").exists()
    assert init(root, dry_run=True).sync_recalled is sync
    assert init(root).sync_recalled is sync
    assert load_config(root / ".thrum" / "config.json")[settings.LOCAL_ONLY] is not sync
    assert not init(root).sync_recalled


def test_what_was_set_by_hand_is_the_choice_that_is_kept(root: Path) -> None:
    init(root)
    layout = find_layout(root)
    update_config(
        layout.config_file, layout.config_lock, lambda raw: settings.set_value(raw, "daemon.local_only", False)
    )
    bootstrap_identity(layout, "laptop", os.environ, SystemClock())
    shutil.rmtree(root / ".thrum")
    assert init(root).sync_recalled
    remember_choice(layout, True)
    assert recalled_choice(layout) is True
    (layout.thrum_sync_dir / "sync-choice").write_text("rubbish")
    assert recalled_choice(layout) is None


def test_a_dry_run_touches_nothing(root: Path) -> None:
    before = snapshot(root)
    planned = init(root, dry_run=True)
    assert snapshot(root) == before
    assert planned.dry_run
    assert planned.daemon_id == ""
    assert actions(planned) == actions(init(root))


def test_from_a_subdirectory_the_root_is_set_up(root: Path) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    assert init(root / "deep" / "er").repo_path == str(root)
    assert not (root / "deep" / "er" / ".thrum").exists()


def test_sync_and_settings_are_stored(root: Path) -> None:
    init(root, sync=True, runtime="claude", worktrees_root=str(root.parent / "trees"))
    config = load_config(root / ".thrum" / "config.json")
    assert not config[settings.LOCAL_ONLY]
    assert config[settings.PRIMARY_RUNTIME] == "claude"
    assert settings.lookup(config.raw, "worktrees.base_path") == str(root.parent / "trees")
    init(root)
    assert not load_config(root / ".thrum" / "config.json")[settings.LOCAL_ONLY]


def test_what_is_changed_in_the_settings_of_before_is_listed_with_its_undo(root: Path) -> None:
    init(root, runtime="claude")
    trees = str(root.parent / "trees")
    for dry_run in (True, False):
        found = init(root, sync=True, runtime="codex", worktrees_root=trees, dry_run=dry_run)
        assert found.already_initialized
        assert {each.path: each.undo for each in found.files if each.action != "noop"} == {
            "setting daemon.local_only = false": "thrum config set daemon.local_only true",
            "setting runtime.primary = codex": "thrum config set runtime.primary claude",
            f"setting worktrees.base_path = {trees}": "thrum config unset worktrees.base_path",
        }
    again = init(root, sync=True, runtime="codex", worktrees_root=trees)
    assert set(actions(again).values()) == {"noop"}, "nothing is said of what is so already"


def test_the_rule_goes_to_gitignore_on_request(root: Path) -> None:
    (root / ".gitignore").write_bytes(b"build\r\n*.o")
    (root / ".gitignore").chmod(0o640)
    assert actions(init(root, gitignore=True))[".gitignore"] == "merge"
    assert (root / ".gitignore").read_bytes() == b"build\r\n*.o\r\n.thrum/\r\n"
    assert stat.S_IMODE((root / ".gitignore").stat().st_mode) == 0o640
    assert actions(init(root, gitignore=True))[".gitignore"] == "noop"


def test_a_gitignore_that_leads_out_of_the_repository_is_not_written_through(root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious\n")
    (root / ".gitignore").symlink_to(mine)
    with pytest.raises(StoreFailed, match="it is a link"):
        init(root, gitignore=True)
    assert mine.read_text() == "precious\n" and not (root / ".thrum").exists()
    (root / ".gitignore").unlink()
    os.mkfifo(root / ".gitignore")
    with pytest.raises(StoreFailed, match="not a plain file"):
        init(root, gitignore=True)


def test_an_exclude_file_that_is_missing_is_made(root: Path) -> None:
    shutil.rmtree(root / ".git" / "info")
    assert actions(init(root))[".git/info/exclude"] == "create"
    assert (root / ".git" / "info" / "exclude").read_text() == ".thrum/\n"


@pytest.mark.spec("ID-02")
def test_the_origin_gives_the_repository_its_id(root: Path, top: Path) -> None:
    git(root, "remote", "add", "origin", "https://me:secret@example.org/me/app.git")
    git(top, "init", "-q", "other")
    git(top / "other", "remote", "add", "origin", "git@example.org:me/app")
    assert init(root).repo_id == init(top / "other").repo_id
    assert b"secret" not in b"".join(snapshot(root / ".thrum").values())


@pytest.mark.spec("ID-69")
def test_outside_git_init_is_refused_by_its_guard(top: Path) -> None:
    with pytest.raises(NotARepository, match="non_git_bootstrap") as caught:
        init(top)
    assert caught.value.details["reason"] == "not_a_git_repo"
    assert list(top.iterdir()) == []


@pytest.mark.spec("ID-70")
def test_outside_git_force_makes_a_throw_away_place(top: Path) -> None:
    result = init(top, force=True)
    assert actions(result) == {".thrum/": "create"}
    assert (top / ".thrum" / "var" / "a-sync" / "events.jsonl").is_file()
    assert find_layout(top).thrum_sync_dir == top / ".thrum" / "var"
    assert init(top, force=True).already_initialized


@pytest.mark.spec("ID-14")
def test_a_linked_worktree_gets_a_redirect_and_its_main_the_state(root: Path) -> None:
    git(root, "worktree", "add", "-q", str(root.parent / "feature"))
    feature = root.parent / "feature"
    result = init(feature)
    assert result.redirect == str(root / ".thrum")
    assert result.repo_path == str(feature)
    assert (feature / ".thrum" / "redirect").read_text().strip() == str(root / ".thrum")
    assert (feature / ".thrum" / "identities").is_dir()
    layout = find_layout(feature)
    assert (layout.root, layout.state_dir) == (feature, root / ".thrum")
    assert find_layout(root).state_dir == root / ".thrum"
    assert git(feature, "status", "--porcelain") == ""
    assert init(root).already_initialized
    assert init(feature).already_initialized
    assert init(feature).daemon_id == result.daemon_id


def test_the_first_worktree_of_a_bare_repository_keeps_the_state(root: Path) -> None:
    bare = root.parent / "bare.git"
    git(root.parent, "clone", "-q", "--bare", "app", "bare.git")
    for name in ("one", "two"):
        git(bare, "worktree", "add", "-q", "-b", name, str(root.parent / name))
    first = init(root.parent / "one")
    second = init(root.parent / "two")
    assert first.thrum_dir == second.thrum_dir == second.redirect == str(root.parent / "one" / ".thrum")
    assert first.redirect == ""
    assert first.daemon_id == second.daemon_id


def test_a_bare_repository_itself_is_refused(root: Path) -> None:
    git(root.parent, "clone", "-q", "--bare", "app", "bare.git")
    before = snapshot(root.parent / "bare.git")
    with pytest.raises(NotARepository, match="bare repository") as caught:
        init(root.parent / "bare.git")
    assert "git worktree add" in caught.value.remedy
    assert snapshot(root.parent / "bare.git") == before


def test_a_submodule_is_set_up_as_a_repository_of_its_own(root: Path, top: Path) -> None:
    git(top, "init", "-q", "outer")
    git(top / "outer", "submodule", "--quiet", "add", str(root), "sub")
    result = init(top / "outer" / "sub")
    assert result.repo_path == str(top / "outer" / "sub")
    assert (top / "outer" / ".git" / "modules" / "sub" / "thrum-sync" / "a-sync" / "events.jsonl").is_file()
    assert git(top / "outer" / "sub", "status", "--porcelain") == ""


def test_inside_the_branchs_own_worktree_the_repository_is_meant(root: Path) -> None:
    init(root)
    result = init(root / ".git" / "thrum-sync" / "a-sync")
    assert result.repo_path == str(root)
    assert result.already_initialized


@pytest.mark.spec("ID-13")
def test_a_bad_redirect_is_not_papered_over(root: Path) -> None:
    init(root)
    (root / ".thrum" / "redirect").write_text("/nowhere\n")
    with pytest.raises(BadRedirect):
        init(root)


@pytest.mark.spec("ID-78")
def test_a_broken_config_is_refused_and_stays(root: Path) -> None:
    init(root)
    (root / ".git" / "thrum-sync" / "config.json").write_text("{")
    before = snapshot(root)
    with pytest.raises(ConfigInvalid, match="at line 1"):
        init(root)
    assert snapshot(root) == before


@pytest.mark.parametrize("path", ["trees", "{root}/trees", "{root}"])
def test_a_worktrees_root_must_be_absolute_and_outside(root: Path, path: str) -> None:
    before = snapshot(root)
    with pytest.raises(UsageError):
        init(root, worktrees_root=path.format(root=root))
    assert snapshot(root) == before


def test_a_missing_directory_is_named(top: Path) -> None:
    with pytest.raises(NotARepository, match="no such directory"):
        init(top / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_another_users_repository_is_refused_before_anything_is_made(root: Path, top: Path) -> None:
    os.chown(root, 12345, 12345)
    before = snapshot(root)
    with pytest.raises(UnsafeRepository):
        init(root, environ=os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"})
    assert snapshot(root) == before


def _mounted(source: Path, target: Path, *options: str) -> None:
    target.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(source), str(target)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs the right to mount")


def test_a_read_only_file_system_is_refused_and_named(root: Path, top: Path) -> None:
    view = top / "view"
    _mounted(root, view, "--bind", "-o", "ro")
    try:
        with pytest.raises(StoreFailed, match="read-only file system") as caught:
            init(view)
    finally:
        subprocess.run(["umount", "--lazy", str(view)], check=True)
    assert "writable" in caught.value.remedy
    assert not (root / ".thrum").exists()
    assert not (root / ".git" / "thrum-sync").exists()


def test_a_full_disk_leaves_nothing_half_made_and_the_next_init_completes_it(top: Path) -> None:
    disk = top / "disk"
    _mounted(Path("none"), disk, "-t", "tmpfs", "-o", "size=640k,nr_inodes=200")
    try:
        git(disk, "init", "-q", "app")
        filler = disk / "filler"
        refused = 0
        for free_pages in range(40):
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            size = filler.stat().st_size
            os.truncate(filler, max(0, size - free_pages * 4096))
            try:
                init(disk / "app")
            except ThrumError as error:
                assert isinstance(error, StoreFailed)
                assert "no space left on device" in error.message.lower()
                # Whole, but for a setting, or not there at all.
                state = disk / "app" / ".thrum"
                assert not state.exists() or load_config(state / "config.json").raw["identity"]["daemon_id"]
                refused += 1
                continue
            break
        assert refused > 0
        assert init(disk / "app").already_initialized
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


_KILLED = """
import os, sys
from pathlib import Path
import dulwich.object_store, dulwich.repo
from thrum.admin.init import InitOptions, initialise
print("ready", flush=True)
initialise(Path(sys.argv[1]), InitOptions("laptop", os.environ))
"""


def _kill_inits_and_repeat_them(top: Path, kills: int) -> None:
    for number in range(kills):
        root = top / f"app{number}"
        git(top, "init", "-q", root.name)
        with subprocess.Popen([sys.executable, "-c", _KILLED, str(root)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.04 * number / kills)
            process.kill()
        init(root)
        assert init(root).already_initialized
        assert git(root / ".git" / "thrum-sync" / "a-sync", "status", "--porcelain") == ""
        assert len(git(root, "worktree", "list").splitlines()) == 2
        assert len(os.listdir(root / ".git" / "worktrees")) == 1


def test_an_init_that_is_killed_is_completed_by_the_next(top: Path) -> None:
    _kill_inits_and_repeat_them(top, 6)


@pytest.mark.long
def test_an_init_that_is_killed_at_any_moment_is_completed_by_the_next(top: Path) -> None:
    _kill_inits_and_repeat_them(top, 150)


def _init_id(root: Path) -> str:
    return init(root).daemon_id


@pytest.mark.spec("ID-76")
def test_several_at_once_agree_on_one_id(root: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_init_id, [root] * 8))) == 1


def test_the_result_has_the_shape_of_the_specification(root: Path) -> None:
    shape = json.loads(msgspec.json.encode(init(root)))
    assert set(shape) == {
        "repo_path",
        "thrum_dir",
        "repo_id",
        "daemon_id",
        "already_initialized",
        "dry_run",
        "detected",
        "files",
    }
    assert all(set(file) <= {"path", "action", "undo"} for file in shape["files"])
