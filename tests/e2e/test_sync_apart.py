"""Git and thrum leave each other alone: the user's own fetch, pushes from outside, mirrors, a look at the branch."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo, wait_until


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa"], ["nux"]) as made:
        yield made


def bodies(repo: Repo, at: Path | None = None) -> list[str]:
    found = repo.json("inbox", "--all", "--peek", "--limit", "1000", at=at)["messages"]
    return [each["body"]["content"] for each in found]


def comes(repo: Repo, text: str, at: Path | None = None) -> None:
    wait_until(lambda: text in bodies(repo, at), f"{text!r} comes")
    assert bodies(repo, at).count(text) == 1


def fetch_while_messages_flow(clones: Clones, count: int) -> None:
    """The user of both clones fetches all the time: no fetch fails, and between them nobody moves what they brought."""
    here, there = clones.repos
    left = {repo: [f"{repo.main.parent.name} {count} {number}" for number in range(count)] for repo in clones.repos}
    sent = [text for texts in left.values() for text in texts]
    fetched = dict.fromkeys(clones.repos, "")
    fetches = 0

    def talk_and_fetch() -> bool:
        nonlocal fetches
        for repo, to in ((here, "@nux"), (there, "@furiosa")):
            if left[repo]:
                repo.thrum("send", left[repo].pop(0), "--to", to)
            seen = repo.git("for-each-ref", "refs/remotes")
            assert fetched[repo] in ("", seen), "thrum moved a ref of the user's"
            repo.git("fetch", "-q", "--all", "--prune")
            fetched[repo] = repo.git("for-each-ref", "refs/remotes")
            fetches += 1
        tips = {clones.git("rev-parse", "a-sync"), *(repo.git("rev-parse", "a-sync") for repo in clones.repos)}
        return not any(left.values()) and len(tips) == 1 and set(sent) <= {*bodies(here), *bodies(there)}

    wait_until(talk_and_fetch, "all messages come", 60 + 5 * count)
    assert fetches >= 2 * count
    assert "refs/remotes/origin/a-sync" in fetched[here]


def test_the_users_own_fetch_never_fails_while_messages_flow(clones: Clones) -> None:
    fetch_while_messages_flow(clones, 6)


@pytest.mark.long
def test_the_users_own_fetch_never_fails_while_hundreds_of_messages_flow(clones: Clones) -> None:
    fetch_while_messages_flow(clones, 150)


# -- pushes from outside


@pytest.mark.parametrize("value", ["", "warn", "ignore", "updateInstead"])
def test_a_clone_that_is_pushed_into_loses_nothing_and_talks_on(value: str) -> None:
    place = Repo()
    clone: Repo | None = None
    try:
        if value:
            place.git("config", "receive.denyCurrentBranch", value)
        place.thrum("init")
        place.agent("nux", at=place.main)
        place.thrum("sync", "force", "--wait")
        clone = Repo(clone_of=place.main)
        clone.thrum("init", "--sync")
        clone.agent("furiosa", at=clone.main)
        place.thrum("send", "Said before the push", "--to", "@nux")
        clone.thrum("sync", "force", "--wait")
        clone.thrum("send", "From the clone", "--to", "@nux")
        comes(place, "From the clone")  # nobody asks for it there, and it is local only
        assert "Said before the push" in bodies(place)
        place.thrum("send", "Back to the clone", "--to", "@furiosa")
        place.thrum("sync", "force", "--wait")
        comes(clone, "Back to the clone")
        for repo in (place, clone):
            assert repo.run("verify").status == 0
            assert repo.git("status", "--porcelain") == repo.git("status", "--porcelain", cwd=repo.journals) == ""
            repo.fsck()
    finally:
        place.close()
        if clone is not None:
            clone.close()


# -- a mirror


def test_a_mirrors_plain_fetch_goes_on_working_and_doctor_says_what_keeps_it_off() -> None:
    with open_clones(["nux"]) as clones:
        there = clones.repos[0]
        mirror = Repo()
        try:
            bare = mirror.top / "m.git"
            mirror.git("clone", "-q", "--mirror", str(clones.remote), str(bare))
            feat = mirror.top / "feat"
            mirror.git("worktree", "add", "-q", "-b", "feat", str(feat), cwd=bare)
            said = mirror.thrum("init", "--sync", at=feat)
            assert "Note: git fetch origin moves a-sync, too (+refs/*:refs/*); to keep them apart: git config" in said
            mirror.agent("furiosa", at=feat)
            mirror.thrum("sync", "force", "--wait", at=feat)
            there.thrum("sync", "force", "--wait")
            for number in range(3):
                there.thrum("send", f"To the mirror {number}", "--to", "@furiosa")
                there.git("commit", "-q", "--allow-empty", "-m", f"more {number}")
                there.git("push", "-q", "origin", "HEAD:main")
                comes(mirror, f"To the mirror {number}", feat)
                mirror.git("fetch", "-q", *(["--prune"] if number else []), cwd=feat)
                assert mirror.git("rev-parse", "main", cwd=feat) == there.git("rev-parse", "HEAD")
            found = mirror.json("doctor", at=feat)["checks"]
            (met,) = [each for each in found if each["name"] == "repository"]
            assert met["status"] == "warn" and met["detail"].startswith("git fetch origin moves a-sync, too")
            subprocess.run(met["remedy"], shell=True, check=True, cwd=feat)
            found = mirror.json("doctor", at=feat)["checks"]
            assert [each["status"] for each in found if each["name"] == "repository"] == ["ok"]
            assert "Note:" not in mirror.thrum("init", at=feat)
            mirror.thrum("send", "From the mirror", "--to", "@nux", at=feat)
            mirror.git("fetch", "-q", "--prune", cwd=feat)
            comes(there, "From the mirror")
            mirror.thrum("verify", at=feat)
        finally:
            mirror.thrum("daemon", "stop", at=mirror.top / "feat")
            mirror.close()


# -- the branch itself


def test_while_somebody_looks_at_the_branch_it_stays_and_messages_do_not_wait(clones: Clones) -> None:
    here, there = clones.repos
    clones.settle()
    here.agent("slit", module="m_slit")
    clones.settle()
    here.git("switch", "-q", "a-sync")
    try:
        here.thrum("send", "While somebody looks", "--to", "@slit", "--to", "@nux")
        there.thrum("send", "To who looks", "--to", "@furiosa")
        there.thrum("sync", "force", "--wait")
        done = here.run("sync", "force", "--wait")
        assert done.status == 1 and f"branch a-sync is checked out in {here.main}" in done.err
        assert f"fix: git -C {here.main} switch OTHER_BRANCH" in done.err
        assert "While somebody looks" in bodies(here, here.worktree("slit"))
        comes(here, "To who looks")
        assert here.git("status", "--porcelain") == ""
        here.thrum("daemon", "restart")
        (found,) = [each for each in here.json("doctor")["checks"] if each["name"] == "repository"]
        assert found["status"] == "warn" and "nothing is committed or sent" in found["detail"]
    finally:
        here.git("switch", "-q", "main")
    assert sorted(path.name for path in here.main.iterdir()) == [".git", ".thrum", "README"]
    clones.settle()
    comes(there, "While somebody looks")


def test_a_remote_that_is_renamed_is_gone_on_with_under_its_new_name(clones: Clones) -> None:
    here, there = clones.repos
    here.git("remote", "rename", "origin", "up")
    try:
        here.thrum("send", "Before the word", "--to", "@nux")
        assert here.json("sync", "status")["local_only_reason"] == "there is no remote origin"
        here.thrum("config", "set", "sync.remote", "up")
        here.thrum("sync", "force", "--wait")
        comes(there, "Before the word")
        there.thrum("send", "To the new name", "--to", "@furiosa")
        comes(here, "To the new name")
    finally:
        here.git("remote", "rename", "up", "origin")
        here.thrum("config", "set", "sync.remote", "origin")
    clones.settle()
