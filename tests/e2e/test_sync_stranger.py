"""What somebody pushes by plain git stops nobody: it is used or quarantined, reported, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from tests.support.daemon.clones import Clones, open_clones
from tests.support.daemon.repo import Repo
from tests.support.git.stranger import Stranger, letter, line
from tests.support.store.signers import Daemon
from thrum.model import events
from thrum.model.events import Body
from thrum.model.tombstones import branch_file_of


@pytest.fixture(scope="module")
def clones() -> Iterator[Clones]:
    with open_clones(["furiosa"], ["nux"]) as made:
        yield made


@pytest.fixture(scope="module")
def stranger(clones: Clones) -> Stranger:
    return Stranger(clones.remote, clones.top / "stranger")


def bodies(repo: Repo) -> list[str]:
    return [each["body"]["content"] for each in repo.json("inbox", "--all", "--limit", "1000")["messages"]]


def assert_they_go_on(clones: Clones, text: str) -> None:
    """A message of one arrives at the other, once; all agree, and no store has a fault."""
    here, there = clones.repos
    here.thrum("send", text, "--to", "@nux")
    clones.settle()
    assert bodies(there).count(text) == 1
    for repo in clones.repos:
        done = repo.run("verify")
        assert done.status == 0, done
        assert repo.json("sync", "status")["sync_state"] in ("synced", "syncing")
        repo.fsck()


def test_lines_that_nobody_can_use_are_quarantined_and_no_fault_of_the_store(
    clones: Clones, stranger: Stranger
) -> None:
    far = line("message.delete", message_id="m").replace(b'"timestamp":"', b'"timestamp":"9999-12-31T23:59:59-23:00')
    deep = line("message.delete", message_id="m", x=0).replace(b'"x":0', b'"x":' + b"[" * 100_000)
    bad = b"garbage\n\xff\xfe\n{}\n[1]\n" + deep + far + line("journal.format", format=2**63)
    author_journals = {"messages/slit.jsonl": bad + letter("slit", "between the garbage", "nux") + b'{"torn'}
    stranger.push(appended=author_journals | {"events.jsonl": line("agent.exit", agent_id="furiosa", agent_pid=1)})
    assert_they_go_on(clones, "past the garbage")
    reasons: set[str] = set()
    for repo in clones.repos:
        # It is a message, but nobody signed it.
        assert bodies(repo).count("between the garbage") == 0
        assert "thrum sync accept d_" in repo.thrum("sync", "status")
        # Who comes second may find the branch cleaned already.
        reasons |= {each["reason"] for each in repo.run("verify", "--json").json["quarantine"]}
    assert reasons >= {"not_json", "not_utf8", "not_object", "missing_field", "bad_field", "local_type_on_branch"}


def test_a_flood_of_garbage_costs_one_line_of_the_log_and_hides_nothing(clones: Clones, stranger: Stranger) -> None:
    """What of it nobody can use is counted; the message in the middle arrives as any other."""
    said = [each.layout.log_file.read_bytes().count(b"quarantined") for each in clones.repos]
    half = b"".join(b"flood %d\n" % number for number in range(10_000))
    stranger.push(appended={"messages/slit.jsonl": half + letter("slit", "in the flood", "nux") + half[:-9] + b"\n"})
    assert_they_go_on(clones, "past the flood")
    for repo, before in zip(clones.repos, said, strict=True):
        found = repo.run("verify", "--json").json
        kept = [each for each in found["quarantine"] if each["reason"] == "not_json" and not each.get("more")]
        more = sum(each.get("more", 0) for each in found["quarantine"])
        # Who comes second may find the branch cleaned already.
        if repo.layout.quarantine.exists() and more:
            assert len(kept) <= 100 and more > 9_000 and found["quarantined"] > 9_000
            assert repo.layout.log_file.read_bytes().count(b"quarantined") == before + 1
            assert repo.layout.quarantine.stat().st_size < 500_000
        assert len(repo.thrum("verify").splitlines()) < 60
    assert any(b"flood 7" in repo.layout.quarantine.read_bytes() for repo in clones.repos)
    assert any(b"in the flood" in (repo.journals / "messages/slit.jsonl").read_bytes() for repo in clones.repos)


def test_what_is_no_file_in_a_journals_place_is_replaced_or_passed_over(clones: Clones, stranger: Stranger) -> None:
    link, text = stranger.blob(b"/etc/passwd"), stranger.blob(b"x")
    layout = {
        "messages/furiosa.jsonl": ("120000", link),
        "messages/link.jsonl": ("120000", link),
        "messages/submodule.jsonl": ("160000", "1" * 40),
        "messages/.hidden.jsonl": ("100644", text),
        "messages/é/x.jsonl": ("100644", text),
        "events.jsonl/inner": ("100644", text),
    }
    stranger.push(entries=layout, gone=("events.jsonl",))
    assert_they_go_on(clones, "past the links")
    for repo in clones.repos:
        assert {path.name for path in (repo.journals / "messages").iterdir()} <= {
            "furiosa.jsonl",
            "nux.jsonl",
            "slit.jsonl",
        }


# -- what somebody says in others' names


@pytest.fixture(scope="module")
def talked(clones: Clones) -> tuple[str, str]:
    """What furiosa wrote to nux, and the daemon that signed it."""
    here, _ = clones.repos
    sent = here.json("send", "the truth", "--to", "@nux")["message_id"]
    clones.settle()
    return sent, here.json("daemon", "status")["identity"]["daemon_id"]


def test_who_may_push_rewrites_nothing(clones: Clones, stranger: Stranger, talked: tuple[str, str]) -> None:
    message_id, origin = talked
    here, there = clones.repos
    before = [sorted(bodies(repo)) for repo in clones.repos]
    teams = [
        {each["agent_id"]: each["role"] for each in repo.json("team", "--all")["members"]} for repo in clones.repos
    ]
    eve = Daemon(77, ms=1_790_000_000_000)
    key = eve.introduction(*_repo_ids(here))
    cutoff = "2027-01-01T00:00:00.000Z"
    of = {"message_id": message_id, "agent_id": "furiosa"}
    said = [
        eve(events.MessageEdited, body=Body("plain", "a lie"), **of),
        eve(events.MessageDeleted, **of),
        eve(events.MessageReceipt, message_id=message_id, agent_id="nux", receipt_type="read"),
        eve(events.AgentCleaned, agent_id="furiosa", messages=True),
        eve(events.AgentRegistered, agent_id="furiosa", name="furiosa", kind="agent", role="evil", module="all"),
        eve(events.AgentRegistered, agent_id="everyone", name="everyone", kind="agent", role="evil", module="all"),
        eve(events.PurgeExecuted, cutoff=cutoff),
        eve(events.JournalFormat, format=1),
    ]
    forged = [
        msgspec.structs.replace(fact, origin_daemon=origin, event_id=f"evt_{number}")
        for number, fact in enumerate(said)
    ]
    appended: dict[str, bytes] = {"events.jsonl": eve.line(key) + b"\n"}
    for fact, raw in [*((fact, eve.line(fact)) for fact in said), *((fact, events.encode(fact)) for fact in forged)]:
        file = branch_file_of(fact)
        appended[file] = appended.get(file, b"") + raw + b"\n"
    stranger.push(appended=appended)
    assert_they_go_on(clones, "past the liar")
    for repo, found, team in zip(clones.repos, before, teams, strict=True):
        assert sorted(set(bodies(repo)) - {"past the liar"}) == sorted(set(found))
        members = roles_of(repo)
        assert {name: members[name] for name in team} == team and "everyone" not in members
    shown = there.json("message", "get", message_id)["message"]
    assert (shown["body"]["content"], shown["deleted"]) == ("the truth", False)


def test_nobody_is_taken_for_a_daemon_that_has_a_key(
    clones: Clones, stranger: Stranger, talked: tuple[str, str]
) -> None:
    message_id, origin = talked
    here, there = clones.repos
    mallory = Daemon(78, ms=1_790_000_050_000)
    said = [mallory.introduction(*_repo_ids(here)), mallory(events.DaemonSucceeded, previous_id=origin)]
    lie = mallory(events.MessageEdited, message_id=message_id, agent_id="furiosa", body=Body("plain", "a lie"))
    appended = {"events.jsonl": b"".join(mallory.line(fact) + b"\n" for fact in said)}
    stranger.push(appended=appended | {branch_file_of(lie): mallory.line(lie) + b"\n"})
    clones.settle()
    assert f"says it was {origin}" not in there.thrum("sync", "status")
    done = there.run("sync", "accept", mallory.daemon_id, "--json")
    assert done.status == 1 and "signs for itself" in done.json["error"]["message"]
    for repo in clones.repos:
        assert repo.json("message", "get", message_id)["message"]["body"]["content"] == "the truth"


def test_a_pushed_format_of_the_future_makes_the_branch_read_only_and_nobody_dumb(
    clones: Clones, stranger: Stranger
) -> None:
    here, _ = clones.repos
    eve = Daemon(77, ms=1_790_000_100_000)
    said = [eve.introduction(*_repo_ids(here)), eve(events.JournalFormat, format=99)]
    stranger.push(appended={"events.jsonl": b"".join(eve.line(fact) + b"\n" for fact in said)})
    for repo in clones.repos:
        repo.run("sync", "force", "--wait")
        assert "a newer thrum writes there" in repo.thrum("sync", "status")
    here.thrum("send", "still here", "--to", "@nux")


def roles_of(repo: Repo) -> dict[str, str]:
    return {each["agent_id"]: each["role"] for each in repo.json("team", "--all")["members"]}


def _repo_ids(repo: Repo) -> list[str]:
    lines = (repo.journals / "events.jsonl").read_bytes().splitlines()
    return [id for raw in lines if b'"daemon.key"' in raw for id in msgspec.json.decode(raw)["repo_ids"]]
