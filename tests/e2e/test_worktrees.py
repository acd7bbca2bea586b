"""worktree create|list|teardown with real git: what is there is used, what would be lost is refused, or named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.repo import Repo


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    """leon in `main`; worktrees go below its own home; tests of this module share it."""
    repo = Repo()
    try:
        home = repo.top / "home"
        home.mkdir()
        shutil.copy(Path(repo.env["HOME"], ".gitconfig"), home)
        repo.env.update(HOME=str(home), TMUX_TMPDIR=str(home), SHELL="/bin/sh")
        repo.thrum("init")
        repo.thrum("quickstart", "leon", "--role", "developer", "--module", "all", "--no-agent-pid")
        yield repo
    finally:
        repo.close()


def place(repo: Repo, name: str) -> Path:
    return repo.top / "home" / ".thrum" / "worktrees" / "main" / name


def branches(repo: Repo) -> list[str]:
    return repo.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()


def test_a_worktree_is_made_where_the_settings_say_and_thrum_works_in_it(repo: Repo) -> None:
    made = repo.json("worktree", "create", "plain")
    root = place(repo, "plain")
    assert made == {
        "worktree_path": str(root),
        "branch": "feature/plain",
        "redirect": str(repo.main / ".thrum"),
    }
    assert repo.git("rev-parse", "--abbrev-ref", "HEAD", cwd=root).strip() == "feature/plain"
    assert repo.git("status", "--porcelain", cwd=root) == ""
    assert repo.agent("plain_agent", at=root, module="plain") == root
    repo.thrum("config", "set", "worktrees.base_path", str(repo.top / "elsewhere"))
    try:
        said = repo.thrum("worktree", "setup", "other", "--detach")
        assert said.splitlines()[0] == f"✓ Worktree created at {repo.top}/elsewhere/other"
    finally:
        repo.thrum("config", "unset", "worktrees.base_path")
    assert (repo.top / "elsewhere/other/.thrum/redirect").exists()
    repo.thrum("config", "set", "worktrees.thrum_enabled", "false")
    try:
        assert "redirect" not in repo.json("worktree", "create", "bare_tree")
    finally:
        repo.thrum("config", "unset", "worktrees.thrum_enabled")
    assert not (place(repo, "bare_tree") / ".thrum").exists()


def test_what_is_there_already_is_used_and_said(repo: Repo) -> None:
    repo.git("branch", "topic")
    first = repo.run("worktree", "create", "used", "-b", "topic")
    assert "branch topic is there already: used" in first.out, first
    again = repo.run("worktree", "create", "used")
    assert again.status == 0 and f"{place(repo, 'used')} is there already" in again.out, again
    assert again.out.startswith("✓ Worktree found at")
    by_branch = repo.json("worktree", "create", "another", "-b", "topic")
    assert (by_branch["worktree_path"], by_branch["reused"]) == (str(place(repo, "used")), True)
    shutil.rmtree(place(repo, "used"))
    back = repo.json("worktree", "create", "used", "-b", "topic")
    assert "reused" not in back and (place(repo, "used") / "README").exists(), "git had only its record left"
    repo.git("remote", "add", "far", str(repo.main))
    repo.git("branch", "away")
    repo.git("fetch", "-q", "far")
    repo.git("branch", "-D", "away")
    assert "begins at far/away" in repo.thrum("worktree", "create", "away", "-b", "away")


def test_what_can_t_be_made_is_refused_by_its_kind_and_leaves_nothing(repo: Repo) -> None:
    main = repo.git("rev-parse", "--abbrev-ref", "HEAD").strip()
    (place(repo, "full")).mkdir(parents=True)
    (place(repo, "full") / "mine").write_text("mine")
    before = branches(repo)
    for words, kind in (
        (["../x"], "invalid_worktree_name"),
        (["a/b"], "invalid_worktree_name"),
        (["-x"], "usage"),
        (["m", "-b", main], "branch_in_use"),
        (["m", "-b", "a-sync"], "branch_in_use"),
        (["m", "--base", "nowhere"], "bad_base"),
        (["m", "-b", "two..dots"], "usage"),
        (["full"], "worktree_exists"),
        (["plain", "-b", "other"], "worktree_exists"),
        (["m", "--name", "nux"], "role_missing"),
        (["m", "--name", "nux", "--role", "tester"], "module_missing"),
        (["m", "--role", "tester"], "usage"),
    ):
        done = repo.run("worktree", "create", *words, "--json")
        assert (done.status in (1, 2), done.kind) == (True, kind), (words, done)
        assert done.json["error"]["remedy"], words
    assert branches(repo) == before and not place(repo, "m").exists()
    empty = repo.top / "unborn"
    repo.git("init", "-q", str(empty))
    repo.thrum("init", at=empty)
    done = repo.run("worktree", "create", "first", "--json", at=empty)
    assert (done.kind, "commit something" in done.json["error"]["remedy"]) == ("bad_base", True), done
    repo.thrum("daemon", "stop", at=empty)


def test_nothing_that_only_a_worktree_has_is_lost_without_force_and_then_it_is_named(repo: Repo) -> None:
    repo.thrum("worktree", "create", "work")
    root = place(repo, "work")
    (root / "new.txt").write_text("work")
    refused = repo.run("worktree", "teardown", "work")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.splitlines()[0] == "Error: work has 1 uncommitted file: new.txt", refused
    inside = repo.run("worktree", "teardown", "work", "--force", at=root, env={"THRUM_NAME": "leon"})
    assert inside.status == 1 and root.exists(), inside
    repo.git("add", ".", cwd=root)
    repo.git("commit", "-qm", "kept", cwd=root)
    unmerged = repo.run("worktree", "teardown", "work", "--delete-branch")
    assert "feature/work has 1 commit that no other branch has" in unmerged.err and root.exists(), unmerged
    repo.git("switch", "-q", "--detach", cwd=root)
    repo.git("commit", "-q", "--allow-empty", "-m", "nowhere else", cwd=root)
    commit = repo.git("rev-parse", "HEAD", cwd=root).strip()
    assert "work has 1 commit on no branch" in repo.run("worktree", "teardown", "work").err
    repo.git("worktree", "lock", str(root))
    assert "git worktree unlock" in repo.run("worktree", "teardown", "work", "--force").err
    repo.git("worktree", "unlock", str(root))
    forced = repo.run("worktree", "teardown", "work", "--force")
    assert forced.status == 0 and f"(back: git branch NAME {commit[:12]})" in forced.err, forced
    assert not root.exists() and "feature/work" in branches(repo), "the branch stays"
    assert repo.run("worktree", "teardown", "work", "--json").kind == "worktree_not_found"
    repo.thrum("worktree", "create", "work")
    (root / "late.txt").write_text("x")
    gone = repo.run("worktree", "teardown", "work", "--delete-branch", "--force")
    assert "uncommitted: late.txt" in gone.err and "(back: git branch feature/work " in gone.err, gone
    assert "feature/work" not in branches(repo)


def test_the_list_has_every_worktree_and_agent_but_thrum_s_own_also_without_a_daemon(repo: Repo) -> None:
    repo.thrum("worktree", "create", "listed")
    root = place(repo, "listed")
    for name in ("one", "two"):
        repo.agent(name, at=root, module=name)
    rows = repo.json("worktree", "list")["worktrees"]
    assert [(row["agent"], row["status"]) for row in rows if row["path"] == str(root)] == [
        ("one", "active"),
        ("two", "active"),
    ]
    assert rows[0] == {
        "path": str(repo.main),
        "branch": repo.git("rev-parse", "--abbrev-ref", "HEAD").strip(),
        "head": repo.git("rev-parse", "HEAD").strip(),
        "agent": "leon",
        "role": "developer",
        "status": "active",
    }
    assert not [row for row in rows if "thrum-sync" in row["path"]]
    repo.thrum("daemon", "stop")
    silent = repo.json("worktree", "list")["worktrees"]
    assert repo.daemon is None, "looking starts none"
    assert [row["path"] for row in silent] == [row["path"] for row in rows]
    assert [row.get("agent") for row in silent] == [row.get("agent") for row in rows]
    assert repo.thrum("worktree", "list").splitlines()[0].split() == ["WORKTREE", "BRANCH", "HEAD", "AGENT", "STATUS"]
    repo.thrum("daemon", "start")
    told = json.loads(repo.run("worktree", "teardown", "listed", "--keep-agent", "--json").out)
    assert (told["removed"], told["agents_deleted"]) == (True, [])
    late = repo.json("worktree", "teardown", "listed")
    assert (late["removed"], late["agents_deleted"]) == (False, ["one", "two"]), "who was left is found by the place"
    listed = repo.thrum("agent", "list")
    assert "@one" not in listed and "@leon" in listed
