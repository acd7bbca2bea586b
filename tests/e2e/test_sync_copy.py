"""A copy of a whole repository is another one: its daemon never speaks as the original's."""

from __future__ import annotations

import shutil

from tests.support.daemon.clones import open_clones
from tests.support.daemon.repo import Repo, open_repo


def daemon_id(repo: Repo) -> str:
    return repo.json("daemon", "status")["identity"]["daemon_id"]


def test_a_copied_repository_gets_a_daemon_id_of_its_own_and_a_moved_one_keeps_it() -> None:
    with open_repo("furiosa") as repo:
        repo.thrum("send", "From the original")
        original = daemon_id(repo)
        repo.thrum("daemon", "stop")
        copy = Repo()
        try:
            shutil.rmtree(copy.main)
            shutil.copytree(repo.main, copy.main, symlinks=True)
            copy.thrum("daemon", "start")
            assert daemon_id(copy) != original
            log = (copy.var / "daemon.log").read_text()
            assert f"[identity] daemon_id rotated: {original} -> {daemon_id(copy)} (reason: copied repository)" in log
            (message,) = copy.json("inbox", "--all")["messages"]
            assert message["origin_daemon"] == original, "what the original wrote is another daemon's now"
            assert daemon_id_after_start(repo) == original
            again = daemon_id(copy)
            copy.thrum("daemon", "restart")
            assert daemon_id(copy) == again
            copy.thrum("daemon", "stop")
            moved = copy.top / "moved"
            copy.main.rename(moved)
            copy.main = moved
            assert daemon_id_after_start(copy) == again
        finally:
            copy.close()


def daemon_id_after_start(repo: Repo) -> str:
    repo.thrum("daemon", "start")
    return daemon_id(repo)


def test_original_and_copy_sync_without_a_word_lost_or_doubled() -> None:
    with open_clones(["furiosa"], ["nux"]) as clones:
        here, there = clones.repos
        here.thrum("daemon", "stop")
        copy = Repo()
        try:
            shutil.rmtree(copy.main)
            shutil.copytree(here.main, copy.main, symlinks=True)
            here.thrum("send", "From here", "--to", "@nux")
            copy.agent("rictus", module="copy")
            copy.thrum("send", "From the copy", "--to", "@nux", at=copy.worktree("rictus"))
            clones.settle([here, copy, there])
            for repo in (here, copy, there):
                found = [each["body"]["content"] for each in repo.json("inbox", "--all")["messages"]]
                assert sorted(found) == ["From here", "From the copy"]
        finally:
            copy.close()
