"""The git state of real worktrees, asked of the real git."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.daemon.repo import wait_until
from tests.support.git.worktrees import Worktrees
from thrum.git.branches import branch_of
from thrum.git.worktree_status import LiveWork
from thrum.model import limits
from thrum.model.wire_types import GitState


def live_of(trees: Worktrees, **options: float) -> LiveWork:
    return LiveWork(trees.layout, os.environ, **options)


async def state_of(trees: Worktrees, at: Path, **options: object) -> GitState:
    states = await live_of(trees)([str(at)], **options)  # pyright: ignore[reportArgumentType]
    return states[str(at)]


async def test_every_kind_of_uncommitted_change_is_told_with_its_lines(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    nux = trees["nux"]
    trees.commit(nux, {"old.py": "a\nb\nc\nd\n", "gone.py": "x\ny\n", "logo.bin": "\0" * 50}, "second")
    trees.write(nux, {"src/auth/token.py": "one\n2\nthree\nfour\n", "new/deep/file.py": "1\n2\nno newline", "e": ""})
    trees.write(nux, {"logo.bin": "\0" * 60, "staged.py": "s\n", "wide ä.py": "w\n"})
    trees.git("mv", "old.py", "src/renamed.py", at=nux)
    trees.git("add", "staged.py", at=nux)
    (nux / "gone.py").unlink()
    state = await state_of(trees, nux)
    assert (state.branch, state.ahead, state.problem) == ("nux", 1, "")
    assert {(c.path, c.additions, c.deletions, c.status) for c in state.file_changes} == {
        ("src/auth/token.py", 2, 1, "modified"),
        ("new/deep/file.py", 3, 0, "added"),
        ("e", 0, 0, "added"),
        ("wide ä.py", 1, 0, "added"),
        ("staged.py", 1, 0, "added"),
        ("logo.bin", 0, 0, "modified"),
        ("gone.py", 0, 2, "deleted"),
        ("src/renamed.py", 0, 0, "renamed"),
    }
    assert set(state.uncommitted_files) == {change.path for change in state.file_changes} | {"old.py"}
    assert all(len(change.last_modified) == 24 for change in state.file_changes)


async def test_a_file_in_conflict_is_one_that_is_edited(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    trees.commit(trees.main, {"src/auth/token.py": "theirs\n"}, "theirs")
    trees.commit(trees["nux"], {"src/auth/token.py": "ours\n"}, "ours")
    with contextlib.suppress(subprocess.CalledProcessError):
        trees.git("merge", "main", at=trees["nux"])
    state = await state_of(trees, trees["nux"], wanted=["token.py"])
    assert [(change.path, change.status) for change in state.file_changes] == [("src/auth/token.py", "modified")]


async def test_an_answer_is_never_of_yesterday(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    nux, live = trees["nux"], live_of(trees)

    async def now(file: str) -> GitState:
        return (await live([str(nux)], wanted=[file]))[str(nux)]

    assert await now("token.py") == GitState(branch="nux")
    trees.write(nux, {"src/auth/token.py": "one\ntwo\nthree\n4\n"})
    changed = await now("token.py")
    assert [(c.additions, c.deletions) for c in changed.file_changes] == [(1, 0)]
    trees.write(nux, {"src/auth/token.py": "one\ntwo\nthree\n4\n5\n"})
    assert [(c.additions, c.deletions) for c in (await now("token.py")).file_changes] == [(2, 0)]
    sha = trees.commit(nux, {"src/auth/token.py": "1\n"}, "Shorter")
    committed = await now("token.py")
    assert (committed.file_changes, committed.changed_files) == ((), ("src/auth/token.py",))
    assert [(c.sha, c.message) for c in committed.unmerged_commits] == [(sha, "Shorter")]
    trees.git("merge", "-q", "nux")
    assert await now("token.py") == GitState(branch="nux"), "merged"
    trees.git("switch", "-q", "-c", "other", at=nux)
    assert (await now("token.py")).branch == "other"


async def test_what_is_asked_for_by_name_is_what_the_whole_answer_holds_of_it(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    nux = trees["nux"]
    trees.commit(nux, {"lib/token.py": "x\n", "lib/[a]*.py": "x\n", "other.py": "x\n"}, "more")
    trees.write(
        nux, {"src/auth/token.py": "1\n", "token.py": "new\n", "deep/er/token.py": "new\n", "mytoken.py": "n\n"}
    )
    trees.write(nux, {"lib/[a]*.py": "y\n", "lib/ab.py": "y\n", "token.py.d/x": "y\n", "here/token.py/x": "y\n"})
    whole = await state_of(trees, nux)
    by_name = await state_of(trees, nux, wanted=["token.py"])
    assert set(by_name.uncommitted_files) == {"src/auth/token.py", "token.py", "deep/er/token.py"}
    assert by_name.changed_files == ("lib/token.py",)
    assert by_name.unmerged_commits == whole.unmerged_commits
    assert set(by_name.file_changes) == {c for c in whole.file_changes if c.path in by_name.uncommitted_files}
    assert (await state_of(trees, nux, wanted=["lib/[a]*.py"])).uncommitted_files == ("lib/[a]*.py",)
    directory = await state_of(trees, nux, wanted=["lib/"])
    assert set(directory.uncommitted_files) == {"lib/[a]*.py", "lib/ab.py"}
    assert directory.changed_files == ("lib/[a]*.py", "lib/token.py")


async def test_ahead_is_counted_from_the_default_branch_of_the_remote_and_from_the_local_one(tmp_path: Path) -> None:
    origin = Worktrees(tmp_path / "theirs")
    trees = Worktrees(tmp_path / "ours")
    trees.git("remote", "add", "origin", str(origin.main))
    trees.git("fetch", "-q", "origin")
    trees.git("reset", "-q", "--hard", "origin/main")
    trees.git("remote", "set-head", "origin", "main")
    trees.git("pack-refs", "--all")
    trees.commit(trees.main, {"local.py": "x\n"}, "not pushed")
    nux = trees.add("nux")
    trees.commit(nux, {"mine.py": "x\n"}, "mine")
    on_main, on_branch = await state_of(trees, trees.main), await state_of(trees, nux)
    assert (on_main.branch, on_main.ahead, on_main.changed_files) == ("main", 1, ("local.py",))
    assert (on_branch.branch, on_branch.ahead, on_branch.changed_files) == ("nux", 1, ("mine.py",))


@pytest.mark.parametrize("default", ["master", "trunk"])
async def test_without_a_remote_the_usual_names_or_the_configured_one_are_the_default(
    tmp_path: Path, default: str
) -> None:
    trees = Worktrees(tmp_path, "nux")
    trees.git("branch", "-m", "main", default)
    trees.git("config", "init.defaultBranch", default)
    trees.commit(trees["nux"], {"a.py": "x\n"}, "mine")
    assert (await state_of(trees, trees["nux"])).ahead == 1
    assert (await state_of(trees, trees.main)).ahead == 0


async def test_odd_heads_are_no_hindrance(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    trees.git("checkout", "-q", "--detach", at=trees["nux"])
    trees.commit(trees["nux"], {"a.py": "x\n"}, "detached")
    detached = await state_of(trees, trees["nux"])
    assert (detached.branch, detached.ahead, detached.changed_files) == ("", 1, ("a.py",))
    trees.git("checkout", "-q", "--orphan", "fresh", at=trees["nux"])
    unborn = await state_of(trees, trees["nux"])
    assert (unborn.branch, unborn.ahead, unborn.problem) == ("fresh", 0, "")
    assert {(c.path, c.additions, c.status) for c in unborn.file_changes} >= {("a.py", 1, "added")}


async def test_long_lists_are_cut_and_commits_are_still_counted(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    nux = trees["nux"]
    for number in range(limits.work_commits_max + 5):
        trees.git("commit", "-q", "--allow-empty", "-m", f"commit {number}", at=nux)
    trees.write(nux, {f"many/{number:04}.py": "x\n" for number in range(limits.work_paths_max + 20)})
    state = await state_of(trees, nux)
    assert state.ahead == limits.work_commits_max + 5
    assert [c.message for c in state.unmerged_commits][:1] == [f"commit {limits.work_commits_max + 4}"]
    assert len(state.unmerged_commits) == limits.work_commits_max
    assert len(state.uncommitted_files) == len(state.file_changes) == limits.work_paths_max
    last = f"{limits.work_paths_max + 19:04}.py"
    assert (await state_of(trees, nux, wanted=[last])).uncommitted_files == (f"many/{last}",), "and yet each is found"


async def test_neither_index_nor_work_tree_is_touched(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    nux = trees["nux"]
    os.utime(nux / "README.md", (1, 1))  # git status would write the index anew
    before = trees.standing_of_index(nux)
    assert (await state_of(trees, nux)).file_changes == ()
    assert (await state_of(trees, nux, wanted=["README.md"])).file_changes == ()
    assert trees.standing_of_index(nux) == before


async def test_a_git_that_hangs_is_killed_with_its_children_and_holds_up_nobody(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "hangs", "nux")
    trees.write(trees["nux"], {"README.md": "changed\n"})
    hook, pid_file = tmp_path / "hook", tmp_path / "pid"
    hook.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ >{pid_file}.new; mv {pid_file}.new {pid_file}\nsleep 1000\n")
    hook.chmod(0o755)
    trees.git("config", "extensions.worktreeConfig", "true")
    trees.git("config", "--worktree", "core.fsmonitor", str(hook), at=trees["hangs"])
    states = await live_of(trees, seconds_max=1.0)([str(trees["hangs"]), str(trees["nux"])])
    hung, well = states[str(trees["hangs"])], states[str(trees["nux"])]
    assert (hung.branch, hung.problem) == ("hangs", "git did not answer in time")
    assert [change.path for change in well.file_changes] == ["README.md"] and not well.problem
    pid = int(pid_file.read_text())
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", "the hook's end")


async def test_what_git_refuses_is_told_and_is_no_answer(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "broken")
    trees.break_index(trees["broken"])
    state = await state_of(trees, trees["broken"])
    assert state.problem.startswith("git: ") and "\n" not in state.problem
    assert (state.branch, state.file_changes) == ("broken", ())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
async def test_a_worktree_of_another_user_is_not_read(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "foreign")
    trees.write(trees["foreign"], {"README.md": "secret\n"})
    for path in (trees["foreign"], trees["foreign"] / ".git"):
        os.chown(path, 12345, 12345)
    state = await state_of(trees, trees["foreign"])
    assert "dubious ownership" in state.problem and state.file_changes == ()


async def test_a_place_that_is_no_worktree_here_tells_nothing_of_what_lies_around_it(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path)
    inside = trees.main / "nested"
    inside.mkdir()
    foreign = Worktrees(tmp_path / "foreign")
    states = await live_of(trees)([str(tmp_path / "gone"), str(inside), str(foreign.main)])
    assert states[str(tmp_path / "gone")] == GitState()
    reason = "it is no longer a worktree of this repository"
    assert states[str(inside)] == GitState(problem=reason) == states[str(foreign.main)]


async def test_branch_and_commits_alone_need_no_look_at_the_files(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    trees.commit(trees["nux"], {"a.py": "x\n"}, "mine")
    trees.write(trees["nux"], {"b.py": "x\n"})
    live = live_of(trees)
    state = (await live([str(trees["nux"])], files=False))[str(trees["nux"])]
    assert (state.branch, state.ahead, state.file_changes, state.uncommitted_files) == ("nux", 1, (), ())


def test_the_branch_is_read_from_loose_and_odd_heads(tmp_path: Path) -> None:
    trees = Worktrees(tmp_path, "nux")
    trees.git("switch", "-q", "-c", "feature/auth", at=trees["nux"])
    assert branch_of(str(trees["nux"])) == "feature/auth"
    trees.git("checkout", "-q", "--detach", at=trees["nux"])
    assert branch_of(str(trees["nux"])) == ""
    assert branch_of(str(tmp_path)) == "" == branch_of(str(tmp_path / "gone"))
