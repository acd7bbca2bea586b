"""Three clones that were apart for a while, with much to tell and one name in two of them: they come to agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemon.clones import open_clones, shared
from tests.support.daemon.repo import Repo, wait_until


def send_many(repo: Repo, at: Path, count: int, text: str, *to: str) -> None:
    done = repo.spawn_python("-m", "tests.support.daemon.many_sender", str(repo.socket), str(count), text, *to, at=at)
    assert done.line() == "sent"
    done.end()


@pytest.mark.parametrize("events", [300, pytest.param(1_000, marks=pytest.mark.long)])
def test_three_clones_that_were_offline_converge(events: int) -> None:
    with open_clones(["furiosa"], ["nux"], ["max"]) as clones:
        away = clones.network.with_name("away")
        clones.network.rename(away)
        for number, repo in enumerate(clones.repos):
            mine = ("furiosa", "nux", "max")[number]
            # The same name in two clones: neither could know of the other.
            twin = repo.agent("twin", module="twins") if number < 2 else repo.main
            others = [f"@{name}" for name in ("furiosa", "nux", "max") if name != mine]
            send_many(repo, repo.main, events - 100, f"{mine} says", *others)
            send_many(repo, twin, 100, f"twin {number} says")
            wait_until(lambda: repo.json("sync", "status")["sync_state"] == "offline", "a round without a remote")  # noqa: B023
            status = repo.json("sync", "status")
            assert status["pending"] >= events
            assert "git ls-remote origin" in status["remedy"]
        away.rename(clones.network)
        clones.settle()
        assert len(set(clones.trees())) == 1
        for repo in clones.repos:
            found = repo.json("inbox", "--all", "--limit", "1")
            assert found["total"] == 3 * events
            verified = repo.run("verify")
            assert verified.status == 0, verified
            repo.thrum("daemon", "stop")
        projections = [shared(repo) for repo in clones.repos]
        assert projections[0].keys() == projections[1].keys()
        for table in projections[0]:
            if table not in ("agents", "message_recipients", "sessions"):
                assert projections[0][table] == projections[1][table] == projections[2][table], table
        assert len(projections[0]["messages"]) == 3 * events
        for repo in clones.repos:
            repo.thrum("daemon", "start")
            repo.assert_projection_is_as_rebuilt()


@pytest.mark.parametrize("trouble", ["no remote", "a hook", "a stranger's branch"])
def test_status_names_the_trouble_and_its_fix_and_nothing_is_lost(trouble: str) -> None:
    with open_clones(["furiosa"], ["nux"]) as clones:
        here, there = clones.repos
        if trouble == "no remote":
            here.git("remote", "remove", "origin")
        elif trouble == "a hook":
            hook = clones.remote / "hooks/pre-receive"
            hook.parent.mkdir(exist_ok=True)
            hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
            hook.chmod(0o755)
        else:
            tree = clones.git("rev-parse", "main^{tree}").strip()
            commit = clones.git(
                "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "a site", tree
            ).strip()
            clones.git("update-ref", "refs/heads/a-sync", commit)
        here.thrum("send", "All the same", "--to", "@nux")
        done = here.run("sync", "force", "--json")
        status = here.json("sync", "status")
        asked = here.thrum("sync", "force", "--timeout", "0")
        assert asked.startswith("Local only" if trouble == "no remote" else "Sync requested")
        if trouble == "no remote":
            assert done.status == 0 and status["local_only_reason"] == "there is no remote origin"
            here.git("remote", "add", "origin", str(clones.remote))
        else:
            assert done.kind == "sync_failed" and status["sync_state"] == "error"
            assert status["pending"] >= 1 and status["remedy"], status
            if trouble == "a hook":
                assert "not today" in status["last_error"]
                (clones.remote / "hooks/pre-receive").unlink()
            else:
                clones.git("update-ref", "-d", "refs/heads/a-sync")
        here.json("sync", "status")
        clones.settle()
        assert "All the same" in [each["body"]["content"] for each in there.json("inbox", "--peek")["messages"]]
