"""A daemon that is killed after any step of a round: nothing lost, nothing twice, the next round goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo, wait_until

STEPS = ("fetched", "ingested", "copied receipts", "composed", "built", "moved", "remembered", "pushed")


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa"], ["nux"]) as made:
        yield made


def contents(repo: Repo) -> list[str]:
    return [each["body"]["content"] for each in repo.json("inbox", "--all", "--limit", "1000")["messages"]]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_any_step_loses_nothing(clones: Clones, step: str) -> None:
    here, there = clones.repos
    clones.settle()
    here.thrum("daemon", "stop")
    there.thrum("send", f"from there, {step}", "--to", "@furiosa")
    there.thrum("sync", "force", "--wait")
    here.thrum("send", f"from here, {step}", "--to", "@nux", env={"THRUM_FAILPOINT": f"sync:{step}"})
    # The first round of its life comes to every step: it fetches, ingests, commits and pushes.
    wait_until(lambda: here.daemon is None, f"the daemon was killed after {step}")
    clones.settle()
    for repo in clones.repos:
        found = contents(repo)
        assert (found.count(f"from here, {step}"), found.count(f"from there, {step}")) == (1, 1)
        assert repo.run("verify", "--json").json["ok"] is True
        repo.fsck()
    assert len(set(clones.trees())) == 1
