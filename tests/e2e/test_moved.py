"""Agents of a repository that is moved, copied or mounted elsewhere: real git, daemons, processes (identity.md §3)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_disk import may_mount, mounted
from tests.support.daemon.repo import Done, Repo, open_repo


@pytest.fixture
def repo() -> Generator[Repo]:
    with open_repo("furiosa", "nux") as repo:
        yield repo


def identity(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / f".thrum/identities/{name}.json").read_text())


def assert_is(name: str, done: Done, body: str) -> None:
    """An inbox that was read as that agent, without a word beside it but for whom one acts as where several live."""
    said = [text for text in done.err.splitlines() if not text.startswith("warning: several agents live here, and you")]
    assert (done.status, said) == (0, []) and body in done.out, (name, done)


def names_of(answer: Any) -> dict[str, str]:
    return {each["agent_id"]: each["worktree_path"] for each in answer["agents"]}


def test_agents_go_on_where_their_repository_was_moved_while_its_daemon_served(repo: Repo) -> None:
    inside = repo.main / "in"
    repo.git("worktree", "add", "-q", str(inside), "-b", "in")
    repo.agent("max", at=inside, module="m2")
    repo.agent("toast", at=repo.main, module="m3")
    repo.thrum("send", "kept", "--to", "@everyone", env={"THRUM_NAME": "furiosa"})
    before = identity(repo.main, "furiosa"), identity(repo.main, "toast")
    there = repo.top / "there"
    repo.main.rename(there)
    assert_is("toast", repo.run("inbox", at=there), "kept")  # of two the later one, as before (§6, P10)
    after = identity(there, "furiosa"), identity(there, "toast")
    for old, new in zip(before, after, strict=True):
        assert old["worktree"] == "main" and new["worktree"] == "there"
        assert {**old, "worktree": "", "updated_at": ""} == {**new, "worktree": "", "updated_at": ""}
    repo.git("worktree", "repair", str(there / "in"), str(repo.worktree("nux")), cwd=there)
    assert_is("max", repo.run("inbox", at=there / "in"), "kept")
    assert_is("nux", repo.run("inbox", at=repo.worktree("nux")), "kept")
    assert repo.run("send", "back", "--to", "@furiosa", at=repo.worktree("nux")).status == 0
    assert len(repo.daemons()) == 1
    assert repo.run("quickstart", "max", "--role", "worker", "--module", "m2", at=there / "in").status == 0


def test_agents_go_on_where_a_link_leads_from_the_old_place_to_the_new_one(repo: Repo) -> None:
    repo.thrum("send", "kept", "--to", "@everyone", at=repo.worktree("nux"))
    disk = repo.top / "disk"
    repo.main.rename(disk)
    repo.main.symlink_to(disk)
    assert_is("furiosa", repo.run("inbox"), "kept")
    assert_is("furiosa", repo.run("inbox", "--all", at=disk), "kept")
    assert_is("nux", repo.run("inbox", "--all", at=repo.worktree("nux")), "kept")
    assert len(repo.daemons()) == 1
    repo.thrum("daemon", "stop")


@pytest.mark.parametrize("way", ["git", "mv"])
def test_agents_follow_a_linked_worktree_that_is_moved_while_the_daemon_serves(repo: Repo, way: str) -> None:
    repo.thrum("send", "kept", "--to", "@nux")
    old, new = repo.worktree("nux"), repo.top / "far" / "away"
    new.parent.mkdir()
    if way == "git":
        repo.git("worktree", "move", str(old), str(new))
    else:
        old.rename(new)
    assert_is("nux", repo.run("inbox", at=new), "kept")
    assert repo.json("whoami", at=new)["worktree"] == str(new)


def test_worktrees_that_change_places_keep_their_agents(repo: Repo) -> None:
    nux, max_ = repo.worktree("nux"), repo.agent("max", module="m2")
    repo.thrum("send", "for nux", "--to", "@nux")
    repo.thrum("send", "for max", "--to", "@max")
    nux.rename(repo.top / "x")
    max_.rename(nux)
    (repo.top / "x").rename(max_)
    repo.git("worktree", "repair", str(nux), str(max_))
    assert_is("max", repo.run("inbox", at=nux), "for max")
    assert_is("nux", repo.run("inbox", at=max_), "for nux")
    repo.thrum("daemon", "restart")
    assert_is("max", repo.run("inbox", "--all", at=nux), "for max")


def test_another_repository_in_the_old_place_is_no_reason_to_stay(repo: Repo) -> None:
    """Nor do the moved one's worktrees talk to it."""
    repo.thrum("send", "kept", "--to", "@everyone")
    repo.thrum("daemon", "stop")
    there = repo.top / "there"
    repo.main.rename(there)
    repo.git("clone", "-q", str(there), str(repo.main), cwd=repo.top)
    repo.thrum("init")
    repo.agent("furiosa", at=repo.main)
    repo.git("worktree", "repair", str(repo.worktree("nux")), cwd=there)
    assert_is("nux", repo.run("inbox", at=repo.worktree("nux")), "kept")
    assert_is("furiosa", repo.run("inbox", at=there), "No messages")
    repo.thrum("daemon", "stop", at=there)


def test_a_copy_gains_no_agent_and_touches_none_of_the_originals(repo: Repo) -> None:
    repo.thrum("send", "kept", "--to", "@furiosa", at=repo.worktree("nux"))
    copy = repo.top / "copy"
    subprocess.run(["cp", "-a", str(repo.main), str(copy)], check=True)
    files = {path: path.read_bytes() for path in repo.top.glob("*/.thrum/identities/*.json") if "copy" not in str(path)}
    assert len(files) == 2
    for words in (("inbox",), ("send", "x", "--to", "@nux")):
        assert repo.run(*words, "--json", at=copy).kind in ("identity_mismatch", "anonymous_caller")
    again = ("quickstart", "furiosa", "--role", "worker", "--module", "m0")
    for force in ((), ("--force",)):
        refused = repo.run(*again, *force, "--json", at=copy)
        assert refused.json["register"]["conflict"]["reason"] == "other_daemon", refused
    assert "--force" not in repo.run(*again, at=copy).err
    repo.thrum("quickstart", "dag", "--role", "worker", "--module", "m9", "--no-agent-pid", at=copy)
    assert "kept" in repo.thrum("inbox", "--all", at=copy, env={"THRUM_NAME": "dag"})
    for name in ("furiosa", "nux"):
        repo.run("agent", "delete", name, "--force", at=copy, env={"THRUM_NAME": "dag"})
    assert {path: path.read_bytes() for path in files} == files
    assert_is("furiosa", repo.run("inbox"), "kept")
    assert_is("nux", repo.run("inbox", at=repo.worktree("nux")), "No messages")
    repo.thrum("daemon", "stop", at=copy)


def test_agents_go_on_in_a_copy_whose_original_is_gone(repo: Repo) -> None:
    """Moved to another disk, restored from a backup of files, unpacked elsewhere."""
    repo.thrum("send", "kept", "--to", "@everyone", at=repo.worktree("nux"))
    repo.thrum("daemon", "stop")
    there = repo.top / "there"
    subprocess.run(["cp", "-a", str(repo.main), str(there)], check=True)
    shutil.rmtree(repo.main)
    assert_is("furiosa", repo.run("inbox", at=there), "kept")
    repo.git("worktree", "repair", str(repo.worktree("nux")), cwd=there)
    assert repo.run("send", "on", "--to", "@furiosa", at=repo.worktree("nux")).status == 0
    assert_is("furiosa", repo.run("inbox", at=there), "on")
    repo.thrum("daemon", "stop", at=there)


def test_a_copied_linked_worktree_is_nobodys_while_the_first_is_there(repo: Repo) -> None:
    copy = repo.top / "copy"
    subprocess.run(["cp", "-a", str(repo.worktree("nux")), str(copy)], check=True)
    assert repo.run("inbox", "--json", at=copy).kind == "identity_mismatch"
    assert repo.run("inbox", at=repo.worktree("nux")).status == 0


def test_an_identity_alone_that_lies_elsewhere_moves_nobody(repo: Repo) -> None:
    """As a branch or an archive brings it, once the worktree that it is of is gone."""
    shipped = (repo.worktree("nux") / ".thrum/identities/nux.json").read_bytes()
    repo.git("worktree", "remove", "--force", str(repo.worktree("nux")))
    (repo.main / ".thrum/identities/nux.json").write_bytes(shipped)
    repo.thrum("daemon", "restart")
    done = repo.run("send", "x", "--to", "@furiosa", "--json", env={"THRUM_NAME": "nux"})
    assert done.kind == "identity_mismatch" and repo.facts("message.create") == []


@may_mount
def test_a_repository_that_is_mounted_elsewhere_too_has_the_same_agents(repo: Repo) -> None:
    repo.thrum("send", "kept", "--to", "@everyone", at=repo.worktree("nux"))
    for root, name in ((repo.main, "furiosa"), (repo.worktree("nux"), "nux")):
        alias = repo.top / f"alias-{name}"
        alias.mkdir()
        with mounted(alias, "--bind", str(root)):
            done = repo.run("inbox", "--peek", "--all", at=alias)
            assert_is(name, done, "kept")
    assert len(repo.daemons()) == 1
