"""A restore in one of two clones: what others have comes back, what was purged does not, and nobody loses anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo


@pytest.fixture
def clones() -> Iterator[Clones]:
    with open_clones(["alice"], ["bob"]) as opened:
        yield opened


def contents(repo: Repo) -> list[str]:
    found = repo.json("inbox", "--all", "--page-size", "100")["messages"]
    return sorted(message["body"]["content"] for message in found)


def test_the_next_sync_brings_back_what_the_remote_has(clones: Clones) -> None:
    here, there = clones.repos
    here.thrum("send", "before", "--to", "@bob")
    clones.settle()
    here.thrum("backup")
    here.thrum("send", "pushed later", "--to", "@bob")
    there.thrum("send", "from there", "--to", "@alice")
    clones.settle()
    here.thrum("backup", "restore", "--yes")
    clones.settle()
    for repo in clones.repos:
        assert contents(repo) == ["before", "from there", "pushed later"]
        assert repo.json("verify")["ok"]
    assert len(set(clones.trees())) == 1
    assert "were not here" not in here.thrum("overview"), "what comes back is this daemon's own"
    here.thrum("send", "and on it goes", "--to", "@bob")
    clones.settle()
    assert "and on it goes" in contents(there)


def test_what_was_never_pushed_is_gone_until_the_safety_backup_is_restored(clones: Clones) -> None:
    here, there = clones.repos
    here.thrum("backup")
    here.thrum("sync", "disable")
    here.thrum("send", "never pushed", "--to", "@bob")
    safety = here.json("backup", "restore", "--yes")["safety_backup"]
    here.thrum("sync", "enable", "--yes")
    clones.settle()
    assert contents(here) == contents(there) == []
    here.thrum("backup", "restore", safety, "--yes")
    here.thrum("sync", "enable", "--yes")
    clones.settle()
    assert contents(here) == contents(there) == ["never pushed"]


def test_what_was_purged_and_pushed_stays_purged(clones: Clones) -> None:
    here = clones.repos[0]
    here.thrum("send", "old", "--to", "@bob")
    clones.settle()
    here.thrum("backup")
    here.thrum("purge", "--all", "--confirm")
    here.thrum("send", "new", "--to", "@bob")
    clones.settle()
    here.thrum("backup", "restore", "--yes")
    clones.settle()
    for repo in clones.repos:
        assert contents(repo) == ["new"]
        assert repo.json("verify")["ok"]
