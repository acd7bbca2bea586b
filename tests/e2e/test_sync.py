"""Two clones, two daemons, one conversation: through a bare repository, with real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo, open_repo, wait_until


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa"], ["nux"]) as made:
        yield made


@pytest.fixture
def here(clones: Clones) -> Repo:
    return clones.repos[0]


@pytest.fixture
def there(clones: Clones) -> Repo:
    return clones.repos[1]


def bodies(repo: Repo) -> list[str]:
    return [each["body"]["content"] for each in repo.json("inbox", "--peek", "--limit", "100")["messages"]]


def test_agents_of_both_clones_are_one_team(clones: Clones, here: Repo, there: Repo) -> None:
    for repo in (here, there):
        names = {each["agent_id"] for each in repo.json("agent", "list")["agents"]["agents"]}
        assert names == {"furiosa", "nux"}
    assert len(set(clones.trees())) == 1


def test_a_message_wakes_who_waits_in_the_other_clone(here: Repo, there: Repo) -> None:
    waiting = there.start("wait", "--timeout", "60s", "--json")
    sent = here.json("send", "Token refresh is in", "--to", "@nux")
    document = json.loads(waiting.line())
    assert [each["message_id"] for each in document["messages"]] == [sent["message_id"]]
    assert document["messages"][0]["origin_daemon"], "it says that it is another daemon's"
    assert waiting.end().status == 0


def test_a_reply_an_edit_and_a_delete_come_over_once(clones: Clones, here: Repo, there: Repo) -> None:
    sent = here.json("send", "Can you test it?", "--to", "@nux")["message_id"]
    clones.settle()
    reply = there.json("reply", sent, "On it")
    assert bodies(here).count("On it") == 0
    clones.settle()
    assert bodies(here).count("On it") == 1
    assert here.json("message", "get", reply["message_id"])["message"]["reply_to"] == sent
    here.thrum("message", "edit", sent, "Can you test it today?")
    clones.settle()
    assert bodies(there).count("Can you test it today?") == 1
    assert "Can you test it?" not in bodies(there)
    here.thrum("message", "delete", sent, "--force")
    clones.settle()
    assert "Can you test it today?" not in bodies(there)
    assert there.json("message", "get", sent, "--peek")["message"]["deleted"] is True
    threads = [repo.json("message", "get", reply["message_id"])["message"]["thread_id"] for repo in clones.repos]
    assert threads == [reply["thread_id"]] * 2


def test_the_sender_sees_that_the_other_has_read(clones: Clones, here: Repo, there: Repo) -> None:
    sent = here.json("send", "Read me", "--to", "@nux")["message_id"]
    clones.settle()
    there.thrum("message", "get", sent)

    def read() -> bool:
        clones.settle()
        (mine,) = [each for each in here.json("sent")["messages"] if each["message_id"] == sent]
        return any(each.get("read_at") for each in mine["recipients"] if each["agent_id"] == "nux")

    wait_until(read, "the receipt came over")


def test_an_agent_that_registers_later_is_known_everywhere(clones: Clones, here: Repo, there: Repo) -> None:
    there.agent("max", role="tester")
    clones.settle()
    assert "max" in {each["agent_id"] for each in here.json("agent", "list")["agents"]["agents"]}
    here.thrum("send", "Welcome", "--to", "@tester")
    clones.settle()
    assert "Welcome" in [each["body"]["content"] for each in there.json("inbox", "--all", "--to", "@max")["messages"]]


def test_a_name_that_lives_in_the_other_clone_is_refused(there: Repo) -> None:
    done = there.run(
        "agent",
        "register",
        "--name",
        "furiosa",
        "--role",
        "worker",
        "--module",
        "other",
        "--json",
        at=there.worktree("taken"),
    )
    assert done.status == 1
    assert done.json["conflict"]["reason"] == "other_daemon"


def test_notes_go_over_when_they_are_synced(clones: Clones, here: Repo, there: Repo) -> None:
    here.thrum("context", "clear")
    before = here.json("sync", "status")
    assert here.thrum("context", "sync") == "furiosa has no notes; the rest is synced.\n"
    assert here.json("sync", "status")["last_sync_at"] > before["last_sync_at"], "a round all the same"
    here.thrum("context", "save", stdin="Half way through the token code\n")
    assert here.thrum("context", "sync") == "Context synced for furiosa.\n"
    clones.settle()
    assert "Half way through the token code" in there.thrum("context", "show", "--agent", "furiosa")


def test_who_wrote_from_elsewhere_is_shown_with_its_host(clones: Clones, here: Repo, there: Repo) -> None:
    here.thrum("send", "From afar", "--to", "@nux")
    clones.settle()
    heads = [line for line in there.thrum("inbox", "--peek", "--all").split("\n") if "@furiosa [" in line]
    assert heads, "the host stands behind the author"


def test_status_says_what_is_true(here: Repo) -> None:
    found = here.json("sync", "status")
    assert (found["sync_state"], found["local_only"], found["pending"]) == ("synced", False, 0)
    assert found["remote"] == "origin" and found["head"] == here.git("rev-parse", "a-sync").strip()
    shown = here.thrum("sync", "status")
    assert shown.startswith("Sync:") and "State:     synced" in shown


def test_the_branch_reads_well_and_is_sound(clones: Clones, here: Repo) -> None:
    subjects = here.git("log", "--format=%s", "a-sync").strip().split("\n")
    assert subjects[-1] == "thrum: first"
    assert all(subject.startswith("sync: ") and "@" in subject for subject in subjects[:-1])
    for repo in clones.repos:
        repo.fsck()
        assert repo.git("status", "--porcelain") == ""
        assert repo.git("status", "--porcelain", cwd=repo.journals) == ""


def test_both_clones_have_the_same_bytes_and_a_sound_store(clones: Clones) -> None:
    clones.settle()
    assert len(set(clones.trees())) == 1
    for repo in clones.repos:
        verified = repo.json("verify")
        assert verified["ok"] is True
        assert "origin has the same" in next(each["detail"] for each in verified["checks"] if each["name"] == "branch")


def test_verify_tells_what_the_remote_lacks(clones: Clones, here: Repo, there: Repo) -> None:
    clones.settle()
    here.thrum("sync", "disable")
    here.thrum("send", "Not there yet", "--to", "@nux")
    here.thrum("sync", "force", "--wait")
    branch = next(line for line in here.thrum("verify").split("\n") if line.startswith("branch"))
    assert "1 not at origin yet" in branch
    here.thrum("sync", "enable")
    clones.settle()


def test_a_repository_that_got_its_remote_after_init_is_of_one_project_with_its_clones() -> None:
    with open_repo("furiosa") as first:
        remote = first.top / "late.git"
        first.git("clone", "-q", "--bare", str(first.main), str(remote))
        first.git("remote", "add", "origin", str(remote))
        first.thrum("sync", "enable")
        first.thrum("sync", "force", "--wait")
        second = Repo(clone_of=remote)
        try:
            second.thrum("init", "--sync")
            second.agent("nux", at=second.main, module="m_nux")
            second.thrum("sync", "force", "--wait")
            assert {each["agent_id"] for each in second.json("agent", "list")["agents"]["agents"]} == {"furiosa", "nux"}
        finally:
            second.close()
