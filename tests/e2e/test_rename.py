"""An agent gets another name and keeps its mail: live, after a rebuild, and in other clones (docs/decisions/0050)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon.callers import Desks
from tests.support.daemon.clones import Clones, daemon_of, open_namesakes
from tests.support.daemon.repo import Repo, open_repo
from tests.support.git.stranger import Stranger
from tests.support.store.signers import Daemon
from thrum.model import clock, events
from thrum.model.events import AnyFact


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("furiosa", "nux") as opened:
        yield opened


def texts(found: Any, *, unread: bool = False) -> list[str]:
    return [each["body"]["content"] for each in found["messages"] if not (unread and each["is_read"])]


def test_an_agent_goes_on_under_another_name_with_its_mail_marks_notes_groups_and_session(repo: Repo) -> None:
    nux = repo.top / "nux"
    repo.thrum("agent", "set-status", "blocked")
    repo.thrum("session", "set-intent", "the token")
    repo.thrum("context", "save", stdin="remember the milk")
    repo.thrum("group", "create", "crew")
    repo.thrum("group", "add", "crew", "@furiosa")
    for text in ("read before", "seen before", "new"):
        repo.thrum("send", text, "--to", "@furiosa", at=nux)
        if text == "read before":
            repo.thrum("inbox")
        elif text == "seen before":
            assert "seen before" in repo.thrum("wait", "--timeout", "60s")
    file = repo.main / ".thrum/identities/furiosa.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"of_a_newer_thrum": 1}))

    assert "✓ @furiosa is @maxine now (2 unread)" in repo.thrum("agent", "rename", "maxine")

    files = {each.name for each in (repo.main / ".thrum/identities").iterdir() if not each.name.startswith(".")}
    assert files == {"maxine.json", "furiosa.json.deleted"}
    assert json.loads((repo.main / ".thrum/identities/maxine.json").read_text())["of_a_newer_thrum"] == 1
    me = repo.json("whoami")
    assert (me["agent_id"], me["role"], me["module"], me["intent"]) == ("maxine", "worker", "m0", "the token")
    assert me["session_id"] and me["status"] == "blocked"
    assert "remember the milk" in repo.thrum("context", "show")
    assert "# @maxine, worker of m0" in repo.thrum("context", "preamble")
    assert not list((repo.main / ".thrum/context").glob("furiosa*"))
    assert [each["agent_id"] for each in repo.json("team", "--all", at=nux)["members"]] != []
    assert {each["agent_id"] for each in repo.json("team", "--all", at=nux)["members"]} == {"maxine", "nux"}
    # What waits is what nobody saw; what was read is not told again.
    assert texts(repo.json("wait", "--timeout", "60s")) == ["new"]
    inbox = repo.json("inbox", "--peek")
    assert sorted(texts(inbox, unread=True)) == ["new", "seen before"] and len(texts(inbox)) == 3
    sent = repo.json("send", "to the crew", "--to", "@crew", at=nux)
    assert [each["agent_id"] for each in sent["recipients"]] == ["maxine"]
    repo.thrum("inbox")
    assert texts(repo.json("inbox", "--peek"), unread=True) == []
    repo.assert_projection_is_as_rebuilt()
    assert texts(repo.json("inbox", "--peek"), unread=True) == [] and len(texts(repo.json("inbox", "--peek"))) == 4
    # Twice is once more, and back again is a rename, too.
    assert "already has that name" in repo.thrum("agent", "rename", "maxine")
    repo.thrum("send", "still unread", "--to", "@maxine", at=nux)
    repo.thrum("agent", "rename", "furiosa")
    assert texts(repo.json("inbox", "--peek"), unread=True) == ["still unread"]
    assert len(texts(repo.json("inbox", "--peek"))) == 5
    repo.assert_projection_is_as_rebuilt()
    assert json.loads(repo.thrum("verify", "--json"))["ok"]


def test_a_name_that_cannot_be_had_is_refused_and_nothing_is_changed(repo: Repo) -> None:
    before = len(repo.facts())
    for name, kind in (
        ("nux", "name_taken"),
        ("worker", "name_equals_role"),
        ("Bad-Name", "invalid_name"),
        ("everyone", "reserved_name"),
    ):
        done = repo.run("agent", "rename", name, "--json")
        assert (done.status != 0, done.kind) == (True, kind), name
    (repo.main / ".thrum/identities/left.json").write_text("{}")
    done = repo.run("agent", "rename", "left", "--json", env={"THRUM_NAME": "furiosa"})
    assert done.kind == "name_taken" and "mv " in done.json["error"]["remedy"]
    (repo.main / ".thrum/identities/left.json").unlink()
    assert len(repo.facts()) == before and repo.json("whoami")["agent_id"] == "furiosa"


def test_a_running_agent_is_renamed_and_goes_on_as_itself(repo: Repo, desk: Desks) -> None:
    nux = repo.top / "nux"
    claude = desk(repo.main, "claude")
    assert claude.thrum("prime")["status"] == 0
    assert claude.thrum("agent", "rename", "boss")["status"] == 0
    waiting = repo.start("wait", "--timeout", "60s", at=nux)
    assert claude.thrum("send", "from me", "--to", "@nux")["status"] == 0
    assert any("@boss" in line for line in waiting.lines(lambda line: "from me" in line))
    member = next(each for each in repo.json("team")["members"] if each["agent_id"] == "boss")
    assert member["pid_live"] is True
    assert json.loads((repo.main / ".thrum/identities/boss.json").read_text())["agent_pid"] == claude.pid
    done = repo.run("agent", "rename", "slit", at=nux, env={"THRUM_NAME": "nux"})
    assert done.status == 0 and "export THRUM_NAME=slit" in done.err


@pytest.fixture
def clones() -> Iterator[Clones]:
    with open_namesakes() as clones:
        yield clones


def test_a_rename_parts_two_agents_of_one_name_and_each_keeps_its_mail(clones: Clones) -> None:
    alpha, beta, gamma = clones.repos
    gamma.thrum("send", "to both", "--to", "@sam")
    for repo in (alpha, beta):
        repo.thrum("send", "who am I?", "--to", "@eye")
    clones.settle()
    beta.thrum("agent", "rename", "pam")
    assert texts(beta.json("inbox", "--peek"), unread=True) == ["to both"]
    clones.settle()
    # What was said under that name before is answered to whom it was said by.
    for repo, answerer in ((alpha, "sam"), (beta, "pam")):
        asked = {each["origin_daemon"]: each["message_id"] for each in gamma.json("inbox", "--peek")["messages"]}
        answered = gamma.json("reply", asked[daemon_of(repo)], "an answer")
        assert [each["agent_id"] for each in answered["recipients"]] == [answerer]
    asked = {each["origin_daemon"]: each["message_id"] for each in gamma.json("inbox", "--peek")["messages"]}
    by_name = gamma.json("message", "get", "@sam", "--peek")["message"]["message_id"]
    assert by_name == asked[daemon_of(alpha)], "the newest by that name is of one who is pam now"
    for repo in clones.repos:
        found = {each["agent_id"]: each for each in repo.json("agent", "list")["agents"]["agents"]}
        assert {name: each["module"] for name, each in found.items()} == {
            "sam": "first",
            "pam": "second",
            "eye": "all",
        }
    # From now on the one name is the one's, the other the other's.
    for name in ("sam", "pam"):
        done = gamma.run("send", f"to {name} alone", "--to", f"@{name}")
        assert done.status == 0 and "several machines" not in done.err
    clones.settle()
    assert texts(alpha.json("inbox", "--peek"), unread=True) == ["to sam alone", "an answer", "to both"]
    assert texts(beta.json("inbox", "--peek"), unread=True) == ["to pam alone", "an answer", "to both"]
    beta.thrum("inbox")
    clones.settle()
    assert texts(alpha.json("inbox", "--peek"), unread=True) == ["to sam alone", "an answer", "to both"]
    read = {
        one["agent_id"]: one.get("read_at", "") for each in gamma.json("sent")["messages"] for one in each["recipients"]
    }
    assert read["pam"] and not read["sam"]
    for repo in clones.repos:
        repo.assert_projection_is_as_rebuilt()


def test_mail_by_the_old_name_from_where_the_new_one_is_not_known_yet_arrives(clones: Clones) -> None:
    alpha, _, gamma = clones.repos
    apart = clones.network.rename(clones.top / "away")
    gamma.thrum("agent", "rename", "ear")
    alpha.thrum("send", "are you there?", "--to", "@eye")
    apart.rename(clones.network)
    waiting = gamma.start("wait", "--timeout", "60s")
    clones.settle([alpha, gamma])
    assert "are you there?" in waiting.end().out
    assert texts(gamma.json("inbox", "--peek"), unread=True) == ["are you there?"]
    for repo in (alpha, gamma):
        repo.assert_projection_is_as_rebuilt()


def test_nobody_renames_an_agent_of_anothers_machine(clones: Clones) -> None:
    """Somebody who may push says that `eye` is his `evil` now, with all its mail."""
    alpha, _, gamma = clones.repos
    sent = alpha.json("send", "for the eye", "--to", "@eye")["message_id"]
    clones.settle()
    eve = Daemon(77, ms=clock.SystemClock().now_ms())
    ids = [id for fact in gamma.facts("daemon.key") for id in fact["repo_ids"]]
    said: list[AnyFact] = [eve.introduction(*ids)]
    for name in ("eye", "evil"):
        said.append(eve(events.AgentRegistered, agent_id=name, name=name, role="x", module="y", kind="agent"))
    said.append(eve(events.AgentAliased, agent_id="evil", of="eye", stored=(sent,)))
    said.append(eve(events.AgentAliased, agent_id="sam", of="eye", stored=(sent,)))
    lines = b"".join(eve.line(fact) + b"\n" for fact in said)
    Stranger(clones.remote, clones.top / "eve").push(appended={"events.jsonl": lines})
    clones.settle()
    for repo in clones.repos:
        found = repo.json("message", "get", sent, "--peek")["message"]
        assert [each["agent_id"] for each in found["recipients"]] == ["eye"]
    assert "eye" in {each["agent_id"] for each in alpha.json("team", "--all")["members"]}
    assert alpha.json("send", "still the eye", "--to", "@eye")["recipients"][0]["agent_id"] == "eye"
    clones.settle()
    for repo in clones.repos:
        repo.assert_projection_is_as_rebuilt()


def test_a_rename_that_was_killed_before_the_files_followed_is_finished_by_the_next_start(repo: Repo) -> None:
    repo.thrum("context", "save", stdin="remember the milk")
    repo.thrum("agent", "rename", "maxine")
    repo.kill_daemon()
    files = repo.main / ".thrum/identities"
    (files / "maxine.json").unlink()
    (files / "furiosa.json.deleted").rename(files / "furiosa.json")
    notes = repo.main / ".thrum/context"
    (notes / "maxine.md").rename(notes / "furiosa.md")
    repo.thrum("daemon", "start")
    assert {each.name for each in files.glob("*.json*")} == {"maxine.json", "furiosa.json.deleted"}
    assert repo.json("whoami")["agent_id"] == "maxine"
    assert "remember the milk" in repo.thrum("context", "show")
    assert repo.run("send", "here I am", "--to", "@nux").status == 0


def test_two_clones_that_take_one_name_by_renaming_apart_keep_each_its_own_mail(clones: Clones) -> None:
    """Alpha's `sam` and gamma's `eye` both become `boss` while neither hears of the other."""
    alpha, beta, gamma = clones.repos
    gamma.thrum("send", "for sam", "--to", "@sam")
    beta.thrum("send", "for eye", "--to", "@eye")
    clones.settle()
    apart = clones.network.rename(clones.top / "away")
    alpha.thrum("agent", "rename", "boss")
    gamma.thrum("agent", "rename", "boss")
    alpha.thrum("send", "late for eye", "--to", "@eye")
    apart.rename(clones.network)
    clones.settle()
    clones.settle()
    assert texts(alpha.json("inbox", "--peek"), unread=True) == ["for sam"]
    assert texts(gamma.json("inbox", "--peek"), unread=True) == ["late for eye", "for eye"]
    gamma.thrum("agent", "rename", "eye")
    clones.settle()
    assert texts(alpha.json("inbox", "--peek"), unread=True) == ["for sam"]
    assert texts(gamma.json("inbox", "--peek"), unread=True) == ["late for eye", "for eye"]
    for repo in clones.repos:
        repo.assert_projection_is_as_rebuilt()


def test_mail_that_comes_late_finds_its_way_along_a_chain_of_names(clones: Clones) -> None:
    alpha, _, gamma = clones.repos
    alpha.thrum("group", "create", "crew")
    alpha.thrum("group", "add", "crew", "@eye")
    asked = alpha.json("send", "first", "--to", "@eye")["message_id"]
    clones.settle([alpha, gamma])
    apart = clones.network.rename(clones.top / "away")
    for name in ("ear", "nose", "eye", "mouth"):
        gamma.thrum("agent", "rename", name)
    gamma.thrum("reply", asked, "an answer")
    for to in ("@eye", "@crew"):
        alpha.thrum("send", f"late for {to}", "--to", to)
    apart.rename(clones.network)
    clones.settle([alpha, gamma])
    clones.settle([alpha, gamma])
    assert texts(gamma.json("inbox", "--peek"), unread=True) == ["late for @crew", "late for @eye"]
    assert sorted(texts(gamma.json("inbox", "--peek"))) == ["first", "late for @crew", "late for @eye"]
    assert texts(alpha.json("inbox", "--peek"), unread=True)[0] == "an answer"
    answered = alpha.json("reply", "last", "thanks")
    assert [each["agent_id"] for each in answered["recipients"]] == ["mouth"]
    sent = alpha.json("send", "to the crew", "--to", "@crew")
    assert [each["agent_id"] for each in sent["recipients"]] == ["mouth"]
    clones.settle([alpha, gamma])
    gamma.thrum("inbox")
    clones.settle([alpha, gamma])
    [first] = [each for each in alpha.json("sent")["messages"] if each["message_id"] == asked]
    assert {one["agent_id"] for one in first["recipients"] if one.get("read_at")} == {"mouth"}
    for repo in (alpha, gamma):
        repo.assert_projection_is_as_rebuilt()


def test_who_is_deleted_after_a_rename_is_gone_by_every_name(repo: Repo) -> None:
    nux = repo.top / "nux"
    repo.thrum("send", "old", "--to", "@furiosa", at=nux)
    waiting = repo.start("wait", "--timeout", "60s")
    assert "old" in waiting.end().out
    repo.thrum("agent", "rename", "maxine")
    repo.thrum("backup", at=nux)
    repo.assert_projection_is_as_rebuilt()
    repo.thrum("agent", "delete", "maxine", "--yes")
    assert {each["agent_id"] for each in repo.json("team", "--all", at=nux)["members"]} == {"nux"}
    for name in ("furiosa", "maxine"):
        done = repo.run("send", "anybody?", "--to", f"@{name}", "--json", at=nux)
        assert done.status != 0, (name, done.out)
    repo.thrum("purge", "--all", "--confirm", at=nux)
    repo.assert_projection_is_as_rebuilt()
    # The name that was is free, and who takes it begins afresh.
    repo.agent("furiosa", role="worker", module="again", at=repo.main)
    assert texts(repo.json("inbox", "--peek")) == []
    repo.kill_daemon()
    repo.thrum("daemon", "start")
    assert repo.json("whoami")["agent_id"] == "furiosa"
