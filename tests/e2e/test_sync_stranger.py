"""What somebody pushes by plain git stops nobody: it is used or set aside, reported, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.clones import Clones, open_clones
from tests.support.repo import Repo
from tests.support.stranger import Stranger, letter, line


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
        repo.git("fsck", "--strict", "--no-dangling")


def test_lines_that_nobody_can_use_are_set_aside_and_no_fault_of_the_store(clones: Clones, stranger: Stranger) -> None:
    far = line("message.delete", message_id="m").replace(b'"timestamp":"', b'"timestamp":"9999-12-31T23:59:59-23:00')
    deep = line("message.delete", message_id="m", x=0).replace(b'"x":0', b'"x":' + b"[" * 100_000)
    bad = b"garbage\n\xff\xfe\n{}\n[1]\n" + deep + far + line("journal.format", format=2**63)
    shards = {"messages/slit.jsonl": bad + letter("slit", "between the garbage", "nux") + b'{"torn'}
    stranger.push(appended=shards | {"events.jsonl": line("agent.exit", agent_id="furiosa", agent_pid=1)})
    assert_they_go_on(clones, "past the garbage")
    reasons: set[str] = set()
    for repo in clones.repos:
        assert bodies(repo).count("between the garbage") == 1
        # Who comes second may find the branch cleaned already.
        reasons |= {each["reason"] for each in repo.run("verify", "--json").json["quarantine"]}
    assert reasons >= {"not_json", "not_utf8", "not_object", "missing_field", "bad_field", "local_type_on_branch"}


def test_what_is_no_file_in_a_journals_place_is_replaced_or_passed_over(clones: Clones, stranger: Stranger) -> None:
    link, text = stranger.blob(b"/etc/passwd"), stranger.blob(b"x")
    places = {
        "messages/furiosa.jsonl": ("120000", link),
        "messages/link.jsonl": ("120000", link),
        "messages/submodule.jsonl": ("160000", "1" * 40),
        "messages/.hidden.jsonl": ("100644", text),
        "messages/é/x.jsonl": ("100644", text),
        "events.jsonl/inner": ("100644", text),
    }
    stranger.push(entries=places, gone=("events.jsonl",))
    assert_they_go_on(clones, "past the links")
    for repo in clones.repos:
        assert {path.name for path in (repo.journals / "messages").iterdir()} <= {
            "furiosa.jsonl",
            "nux.jsonl",
            "slit.jsonl",
        }
