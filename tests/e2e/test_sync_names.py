"""What somebody pushes under others' names takes nothing from them: neither their words nor their work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo
from tests.support.git.stranger import Stranger
from tests.support.store.signers import Daemon
from thrum.model import clock, events
from thrum.model.events import AnyFact, Work
from thrum.model.tombstones import branch_file_of


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa", "max"], ["nux"]) as made:
        made.repos[0].thrum("group", "create", "crew")
        made.repos[0].thrum("group", "add", "crew", "@nux")
        made.repos[0].thrum("session", "set-intent", "the truth")
        made.settle()
        yield made


@pytest.fixture(scope="module")
def eve(clones: Clones) -> Daemon:
    """Who may push, and wrote in everybody's name, from a host called as theirs."""
    now_ms = clock.SystemClock().now_ms()
    eve, early = Daemon(77, ms=now_ms), Daemon(77, ms=now_ms - 999_999_999)
    host = clones.repos[1].json("team", "--all")["members"]
    registered = {"hostname": host[0]["hostname"], "kind": "agent", "module": "all"}
    said: list[AnyFact] = [eve.introduction(*_repo_ids(clones.repos[0]))]
    for name, role in (("furiosa", "main"), ("nux", "main"), ("worker", "x"), ("evil", "furiosa"), ("bad", "max")):
        said.append(eve(events.AgentRegistered, agent_id=name, name=name, role=role, **registered))
    for name in ("furiosa", "nux", "worker", "crew", "everyone", "--to"):
        group = early(events.GroupCreated, name=name, description="a lie", created_by="furiosa")
        member = {"group_id": group.group_id, "member_type": "role", "member_value": "*", "added_by": "nux"}
        said += [group, eve(events.GroupMemberAdded, **member)]
    later = clock.format_ms(now_ms + 1000)
    for name in ("furiosa", "nux"):
        session = eve(events.SessionStarted, agent_id=name)
        work = Work(session_id=session.session_id, intent="a lie", intent_updated_at=later)
        said += [session, eve(events.AgentUpdated, agent_id=name, work_contexts=(work,))]
        said.append(eve.message(name, "furiosa", "nux", text=f"a lie of {name}"))
    appended: dict[str, bytes] = {}
    for fact in said:
        appended[branch_file_of(fact)] = appended.get(branch_file_of(fact), b"") + eve.line(fact) + b"\n"
    Stranger(clones.remote, clones.top / "eve").push(appended=appended)
    clones.settle()
    return eve


def test_a_message_under_anothers_name_is_told_apart_wherever_it_is_shown(clones: Clones, eve: Daemon) -> None:
    clones.repos[0].thrum("send", "said by me", "--to", "@nux")
    clones.settle()
    for repo in clones.repos:
        for words in (("inbox", "--all"), ("log",), ("prime",)):
            lines = repo.thrum(*words).splitlines()
            forged = [line for line in lines if "@furiosa" in line and "another @furiosa" in line]
            assert len(forged) == 1 or (words == ("prime",) and repo is clones.repos[0]), (words, lines)
        shown: list[Any] = repo.json("inbox", "--all", "--limit", "100")["messages"]
        assert {each["body"]["content"] for each in shown if each.get("is_namesake")} == {
            "a lie of furiosa",
            "a lie of nux",
        }


def test_nobodys_work_is_told_by_another_daemon(clones: Clones, eve: Daemon) -> None:
    here, _ = clones.repos
    for repo in clones.repos:
        for words in (("team", "--all"), ("session", "list"), ("agent", "list")):
            assert "a lie" not in repo.thrum(*words)
        assert "the truth" in repo.thrum("team", "--all")
    here.thrum("session", "end")
    here.thrum("session", "set-intent", "still the truth")
    assert "still the truth" in here.thrum("team")


def test_words_that_are_in_use_here_stay_so_whatever_somebody_elsewhere_names_his(clones: Clones, eve: Daemon) -> None:
    here, there = clones.repos
    for repo, name, at in ((here, "furiosa", here.main), (here, "max", here.top / "max"), (there, "nux", there.main)):
        repo.thrum("quickstart", name, "--role", "worker", "--module", f"m_{name}", at=at)
    assert here.thrum("prime").count("not claimed") == 0
    for address, reached in (("@crew", {"nux"}), ("@worker", {"max", "nux"}), ("@max", {"max"}), ("@nux", {"nux"})):
        sent = here.json("send", "a word", "--to", address)
        assert {each["agent_id"] for each in sent["recipients"]} == reached, address
    assert set(here.thrum("group", "list").split()) & {"@--to", "lie"} == {"lie"}
    assert "a lie" not in here.thrum("group", "show", "crew")
    assert here.thrum("group", "list").count("@everyone") == 1


def _repo_ids(repo: Repo) -> list[str]:
    lines = (repo.journals / "events.jsonl").read_bytes().splitlines()
    return [id for raw in lines if b'"daemon.key"' in raw for id in msgspec.json.decode(raw)["repo_ids"]]
