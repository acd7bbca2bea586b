"""What a developer does with git neither harms thrum nor is harmed by it; promise 5: work tree, index, branches."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo, wait_until


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa"], ["nux"]) as made:
        yield made


def commit(repo: Repo, name: str, text: str) -> None:
    (repo.main / name).write_text(text)
    repo.git("add", name)
    repo.git("commit", "-q", "-m", f"{name}: {text}")


def fsck(repo: Repo) -> None:
    repo.fsck()


def gc(repo: Repo) -> None:
    repo.git("gc", "-q", "--prune=now")


def prune(repo: Repo) -> None:
    repo.git("worktree", "prune", "--expire=now")


def stash(repo: Repo) -> None:
    (repo.main / "README").write_text("changed\n")
    (repo.main / "new.txt").write_text("new\n")
    repo.git("stash", "push", "-q", "--include-untracked")
    repo.git("stash", "pop", "-q")
    repo.git("checkout", "-q", "README")
    (repo.main / "new.txt").unlink()


def clean(repo: Repo) -> None:
    # It takes `.thrum` and with it the identity: what is in the git directory stays, and so does the daemon's id.
    daemon_id = repo.json("daemon", "status")["identity"]["daemon_id"]
    repo.git("clean", "-q", "-fdx")
    assert not (repo.main / ".thrum").exists()
    assert "Sync: on" in repo.thrum("init")  # as it was chosen here
    repo.thrum("daemon", "start")
    assert repo.json("daemon", "status")["identity"]["daemon_id"] == daemon_id
    name = "furiosa" if "furiosa" in {path.stem for path in (repo.journals / "messages").glob("*")} else "nux"
    repo.agent(name, at=repo.main, module=f"m_{name}")


def detach(repo: Repo) -> None:
    repo.git("checkout", "-q", "--detach")


def stop_in_a_rebase(repo: Repo) -> None:
    repo.git("checkout", "-q", "-B", "side", "main")
    commit(repo, "same.txt", "side")
    repo.git("checkout", "-q", "-B", "trunk", "main")
    commit(repo, "same.txt", "trunk")
    with pytest.raises(Exception, match="rebase"):
        repo.git("rebase", "-q", "side")


def end_the_rebase(repo: Repo) -> None:
    repo.git("rebase", "--abort")
    repo.git("checkout", "-q", "main")


def reset(repo: Repo) -> None:
    repo.git("reset", "-q", "--hard", cwd=repo.journals)
    repo.git("checkout", "-q", "-f", cwd=repo.journals)


def repack(repo: Repo) -> None:
    repo.git("repack", "-q", "-a", "-d")
    repo.git("pack-refs", "--all")


def push_all(repo: Repo) -> None:
    # Of our branch too, which may come too late: git says so, and pushes the others.
    with contextlib.suppress(subprocess.CalledProcessError):
        repo.git("push", "-q", "--all", "origin")


def push_mirror(repo: Repo) -> None:
    # By force; the daemon may push at the same moment, then git refuses once.
    wait_until(lambda: _is_pushed(repo, "--mirror"), "a push of all there is")


def _is_pushed(repo: Repo, *flags: str) -> bool:
    try:
        repo.git("push", "-q", *flags, "origin")
    except subprocess.CalledProcessError:
        return False
    return True


def fetch(repo: Repo) -> None:
    repo.git("fetch", "-q", "--all", "--prune")


def pull(repo: Repo) -> None:
    repo.git("pull", "-q", "--rebase", "origin", "main")


def delete_the_branch(repo: Repo) -> None:
    repo.git("branch", "-q", "-D", "a-sync")


def rename_the_branch(repo: Repo) -> None:
    repo.git("branch", "-m", "a-sync", "mine")


def delete_our_refs(repo: Repo) -> None:
    for ref in repo.git("for-each-ref", "refs/thrum", "--format=%(refname)").split():
        repo.git("update-ref", "-d", ref)


def index_of_our_worktree(repo: Repo) -> Path:
    return Path(repo.git("rev-parse", "--absolute-git-dir", cwd=repo.journals).strip(), "index")


def cut_our_index(repo: Repo) -> None:
    """As a power cut may leave what was never flushed, and the daemon does not see it."""
    data = index_of_our_worktree(repo).read_bytes()
    index_of_our_worktree(repo).write_bytes(data[: len(data) // 2])


def empty_our_index_in_a_power_cut(repo: Repo) -> None:
    repo.kill_daemon()
    index_of_our_worktree(repo).write_bytes(b"")


@pytest.mark.parametrize(
    "disturb",
    [
        *(fsck, gc, prune, stash, clean, detach, stop_in_a_rebase, end_the_rebase, reset, repack, push_all),
        *(push_mirror, fetch, pull, delete_the_branch, rename_the_branch, delete_our_refs),
        *(cut_our_index, empty_our_index_in_a_power_cut),
    ],
)
def test_git_and_thrum_leave_each_other_alone(clones: Clones, disturb: Callable[[Repo], None]) -> None:
    here, there = clones.repos
    before = f"before {disturb.__name__}"
    here.thrum("send", before, "--to", "@nux")
    disturb(here)
    branches = here.git("for-each-ref", "refs/heads", "--format=%(refname) %(objectname)")
    mine = [line for line in branches.split("\n") if "a-sync" not in line]
    status, index = here.git("status", "--porcelain"), (here.main / ".git/index").read_bytes()
    after = f"after {disturb.__name__}"
    here.thrum("send", after, "--to", "@nux")
    clones.settle()
    found = [each["body"]["content"] for each in there.json("inbox", "--peek", "--limit", "100")["messages"]]
    assert (found.count(before), found.count(after)) == (1, 1)
    now = here.git("for-each-ref", "refs/heads", "--format=%(refname) %(objectname)").split("\n")
    assert [line for line in now if "a-sync" not in line] == mine
    assert here.git("status", "--porcelain") == status
    assert (here.main / ".git/index").read_bytes() == index
    assert here.git("status", "--porcelain", cwd=here.journals) == ""
    fsck(here)


def test_the_list_of_branches_has_one_line_of_thrums(clones: Clones) -> None:
    here = clones.repos[0]
    clones.settle()
    here.git("remote", "update", "--prune")
    listed = [line.strip() for line in here.git("branch", "-a").split("\n") if "a-sync" in line or "thrum" in line]
    assert listed == ["a-sync", "remotes/origin/a-sync"], "the second one is what the user fetched"


def test_a_branch_that_git_lost_stops_no_message_and_is_made_anew(clones: Clones) -> None:
    here, there = clones.repos
    here.git("pack-refs", "--all")
    (here.main / ".git/refs/heads/a-sync").write_text("1" * 40 + "\n")
    here.thrum("daemon", "restart")
    here.thrum("send", "without the branch", "--to", "@nux")
    error = here.run("sync", "force", "--wait", "--json").json["error"]
    assert error["kind"] == "sync_failed" and "git update-ref -d refs/heads/a-sync" in error["remedy"]
    here.git("update-ref", "-d", "refs/heads/a-sync")
    clones.settle()
    found = [each["body"]["content"] for each in there.json("inbox", "--peek", "--limit", "100")["messages"]]
    assert found.count("without the branch") == 1
    assert here.run("verify").status == 0


def test_a_plain_clone_of_the_repository_takes_the_conversation_along(clones: Clones, tmp_path: Path) -> None:
    here = clones.repos[0]
    here.thrum("send", "For whoever comes later", "--to", "@nux")
    clones.settle()
    late = Repo(clone_of=clones.remote)
    try:
        late.thrum("init")
        everything = [each["body"]["content"] for each in late.json("inbox", "--all", "--limit", "100")["messages"]]
        assert "For whoever comes later" in everything
        assert "a-sync" in late.git("branch", "--list").split()
    finally:
        late.close()
