"""`thrum verify`: damage to journals, database, branch and identity files is named, and fixed where it can be."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, open_repo
from tests.support.git.branch import commit_journals
from thrum.identity.daemon_key import load_key
from thrum.model import clock, ids, signatures


@pytest.fixture
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        opened.thrum("send", "one", "--to", "@bob")
        opened.thrum("send", "two", "--to", "@bob")
        opened.thrum("inbox", at=opened.worktree("bob"))
        yield opened


def verify(repo: Repo, *words: str, status: int) -> dict[str, Any]:
    done = repo.run("verify", "--json", *words)
    assert done.status == status, done
    return done.json


def another(repo: Repo, line: str, content: str) -> str:
    """A second message like this one, written by this repository's daemon."""
    key = load_key(repo.journals.parent / "daemon.key")
    assert key is not None
    base = signatures.unsigned(line.rstrip("\n").encode()).decode()
    told = json.loads(base)
    ulid = signatures.CertifiedUlids(key.daemon_id).at((ids.ulid_ms(told["event_id"]) or 0) + 1)
    base = base.replace('"one"', f'"{content}"').replace(told["event_id"].removeprefix("evt_"), ulid)
    return key.signer.sign(base.encode()).decode() + "\n"


def check(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["checks"] if each["name"] == name)


def failed(found: dict[str, Any]) -> list[str]:
    return [each["name"] for each in found["checks"] if not each["ok"]]


def change(repo: Repo, statement: str) -> None:
    """Change the database behind the daemon's back."""
    with contextlib.closing(sqlite3.connect(repo.var / "messages.db", isolation_level=None)) as db:
        db.execute(statement)


def fact(kind: str, *, ms: int | None = None, **fields: Any) -> str:
    ms = clock.SystemClock().now_ms() if ms is None else ms
    envelope = {"type": kind, "timestamp": clock.format_ms(ms), "event_id": f"evt_{ids.Ulids().at(ms)}", "v": 1}
    return json.dumps({**envelope, "origin_daemon": "d_01KGH87Y00CCCCCCCCCCCCCCCC", **fields}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_sound_repository_is_verified_with_and_without_a_daemon_and_left_as_it_is(repo: Repo) -> None:
    assert repo.thrum("verify").splitlines()[-1] == "Verified."
    assert repo.daemon
    repo.thrum("daemon", "stop")
    before = {path: path.read_bytes() for path in repo.journals.rglob("*.jsonl")}
    shown = repo.thrum("verify")
    assert [text.split()[:2] for text in shown.splitlines()[:-1]] == [
        ["journal", "ok"],
        ["signatures", "ok"],
        ["database", "ok"],
        ["branch", "ok"],
        ["identities", "ok"],
    ]
    assert before == {path: path.read_bytes() for path in repo.journals.rglob("*.jsonl")}
    assert not list(repo.var.glob("verify*"))
    assert not repo.daemon, "it starts none"


@pytest.mark.short(1)
@pytest.mark.parametrize("running", [True, False])
def test_rows_that_were_taken_away_changed_or_added_are_counted_and_a_repair_rebuilds_them(
    repo: Repo, running: bool
) -> None:
    if not running:
        repo.thrum("daemon", "stop")
    [first] = [each["message_id"] for each in repo.facts("message.create") if each["body"]["content"] == "one"]
    change(repo, "DELETE FROM messages WHERE body_content = 'one'")
    change(repo, "UPDATE messages SET body_content = 'three' WHERE body_content = 'two'")
    change(
        repo,
        "INSERT INTO groups (group_id, name, description, created_at, created_by, create_event, origin_daemon, trust)"
        " VALUES ('grp_x', 'x', '', '', '', '', '', 0)",
    )
    found = verify(repo, status=1)
    assert failed(found) == ["database"]
    differences = {each["table"]: each for each in check(found, "database")["differences"]}
    assert differences["messages"]["missing"] == 1
    assert differences["messages"]["changed"] == 1
    assert first in differences["messages"]["ids"]
    assert differences["groups"]["extra"] == 1
    shown = repo.run("verify")
    assert "database   DIFFERS  groups: 1 extra; messages: 1 missing, 1 changed" in shown.out
    assert shown.out.splitlines()[-2:] == ["Not in agreement.", "  fix: thrum verify --repair"]
    fixed = verify(repo, "--repair", status=0)
    assert fixed["repaired"]
    assert not verify(repo, "--repair", status=0)["repaired"], "nothing is left to do"
    assert bool(repo.daemon) is running
    contents = [each["body"]["content"] for each in repo.json("inbox", "--peek", at=repo.worktree("bob"))["messages"]]
    assert contents == ["two", "one"]


def test_numbered_facts_that_are_gone_from_the_database_are_missed(repo: Repo) -> None:
    change(repo, "DELETE FROM events WHERE type = 'message.create'")
    assert check(verify(repo, status=1), "database")["differences"][0] | {"ids": []} == {
        "table": "events",
        "missing": 2,
        "ids": [],
    }


def test_an_index_of_words_that_lost_a_message_is_found_and_made_anew(repo: Repo) -> None:
    repo.thrum("inbox", "--search", "one", at=repo.worktree("bob"))
    repo.thrum("daemon", "stop")
    change(repo, "DELETE FROM messages_fts_data WHERE id > 10")
    change(repo, "DELETE FROM unindexed")
    assert failed(verify(repo, status=1)) == ["database"]
    assert verify(repo, "--repair", status=0)["repaired"]
    found = repo.json("inbox", "--search", "one", "--peek", at=repo.worktree("bob"))
    assert [each["body"]["content"] for each in found["messages"]] == ["one"]


def test_a_database_with_flipped_bytes_is_found_and_rebuilt(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    path = repo.var / "messages.db"
    data = bytearray(path.read_bytes())
    for offset in range(8192, len(data), 4096):
        data[offset : offset + 64] = os.urandom(64)
    path.write_bytes(data)
    assert check(verify(repo, status=1), "database")["detail"].startswith("damaged: ")
    assert verify(repo, "--repair", status=0)["repaired"]
    repo.assert_projection_is_as_rebuilt()


def test_a_missing_database_is_no_fault(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    repo.delete_database()
    assert "none yet" in check(verify(repo, status=0), "database")["detail"]


def test_facts_that_a_killed_daemon_left_behind_the_database_are_no_fault(repo: Repo) -> None:
    repo.kill_daemon()
    append(repo.journals / "messages/alice.jsonl", fact("agent.update", agent_id="alice", work_contexts=[]))
    assert "1 line not in it yet" in check(verify(repo, status=0), "database")["detail"]


@pytest.mark.short(1)
@pytest.mark.parametrize("running", [True, False])
def test_a_truncated_last_line_is_named_and_a_repair_moves_it_to_quarantine(repo: Repo, running: bool) -> None:
    if not running:
        repo.thrum("daemon", "stop")
    author_journal = repo.journals / "messages/alice.jsonl"
    whole = author_journal.read_bytes()
    append(author_journal, '{"type":"message.cre')
    found = verify(repo, status=1)
    assert failed(found) == ["journal"]
    assert check(found, "journal")["detail"] == "1 truncated last line"
    assert author_journal.read_bytes() != whole
    fixed = verify(repo, "--repair", status=0)
    assert fixed["repaired"]
    assert author_journal.read_bytes() == whole
    assert [(each["file"], each["reason"]) for each in fixed["quarantine"]] == [("messages/alice.jsonl", "torn_tail")]
    assert "1 line in quarantine:\n  messages/alice.jsonl byte" in repo.thrum("verify")


@pytest.mark.short(1)
@pytest.mark.parametrize("running", [True, False])
def test_a_journal_that_lost_a_line_is_called_shorter_and_gets_it_back_from_the_branch(
    repo: Repo, running: bool
) -> None:
    repo.thrum("sync", "force", "--wait")
    if not running:
        repo.thrum("daemon", "stop")
    author_journal = repo.journals / "messages/alice.jsonl"
    whole = author_journal.read_bytes()
    last = whole.splitlines(True)[-1]
    os.truncate(author_journal, len(whole) - len(last))
    found = verify(repo, status=1)
    assert check(found, "journal")["detail"] == "1 journal is shorter than it was"
    assert check(found, "journal")["differences"][0]["reason"] == f"shorter: by {len(last)} bytes"
    assert found["remedy"] == "thrum verify --repair"
    repaired = verify(repo, "--repair", status=0 if running else 1)
    if not running:
        assert repaired["remedy"] == "thrum sync force --wait; thrum verify"
        repo.thrum("sync", "force", "--wait")
    verify(repo, status=0)
    assert author_journal.read_bytes() == whole


def test_a_journal_that_another_program_wrote_to_is_called_changed(repo: Repo) -> None:
    author_journal = repo.journals / "messages/alice.jsonl"
    line = fact("message.edit", message_id="m", agent_id="alice", body={"format": "markdown", "content": "?"})
    append(author_journal, line)
    found = verify(repo, status=1)
    assert check(found, "journal")["detail"] == "1 journal was changed by another program"
    assert check(found, "journal")["differences"][0]["reason"] == f"changed: {len(line)} bytes more"
    verify(repo, "--repair", status=0)
    saved = repo.top / "saved"  # as an editor saves: a new file takes the old one's place
    saved.write_bytes(author_journal.read_bytes().replace(b'"one"', b'"eno"'))
    saved.replace(author_journal)
    shown = repo.run("verify").out
    assert "1 journal was changed by another program\n  messages/alice.jsonl: changed: it is another file" in shown
    assert shown.endswith("Not in agreement.\n  fix: thrum verify --repair\n")
    assert repo.thrum("verify", "--repair").endswith("Repaired.\nVerified.\n")


def test_a_line_that_lost_a_byte_is_named_and_once_quarantined_it_is_no_fault(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    author_journal = repo.journals / "messages/alice.jsonl"
    damaged = author_journal.read_bytes().replace(b'"one"', b'"one?', 1)
    author_journal.write_bytes(damaged)
    found = verify(repo, status=1)
    assert failed(found) == ["journal", "database"]
    [difference] = check(found, "journal")["differences"]
    assert (difference["file"], difference["reason"]) == ("messages/alice.jsonl", "bad_line: not_json")
    assert author_journal.read_bytes().splitlines()[difference["line"] - 1].count(b'"one?') == 1
    fixed = verify(repo, "--repair", status=0)
    assert author_journal.read_bytes() == damaged, "whole lines are never rewritten"
    assert [each["reason"] for each in fixed["quarantine"]] == ["not_json"]


def test_a_fact_in_the_wrong_file_is_named_and_stays_one(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    [line] = [text for text in (repo.journals / "messages/alice.jsonl").read_text().splitlines(True) if '"one"' in text]
    append(repo.journals / "messages/bob.jsonl", another(repo, line, "won"))
    found = verify(repo, status=1)
    assert check(found, "journal")["detail"] == "1 fact in the wrong file"
    assert check(found, "journal")["differences"][0]["reason"] == "wrong_file: messages/alice.jsonl"
    repo.thrum("daemon", "start")
    again = verify(repo, "--repair", status=1)
    assert failed(again) == ["journal"], "used all the same, and no line is ever moved"
    assert again["remedy"].startswith("nothing to do")


def test_an_id_with_two_contents_is_named_until_one_is_quarantined(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    author_journal = repo.journals / "messages/alice.jsonl"
    [line] = [text for text in author_journal.read_text().splitlines(True) if '"one"' in text]
    append(author_journal, signatures.unsigned(line.rstrip("\n").encode()).decode().replace('"one"', '"zzz"') + "\n")
    assert check(verify(repo, status=1), "journal")["detail"] == "1 id has two contents"
    assert [each["reason"] for each in verify(repo, "--repair", status=0)["quarantine"]] == ["id_conflict"]


def test_what_waits_for_long_and_what_comes_from_the_future_is_named(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    now_ms, author_journal = clock.SystemClock().now_ms(), repo.journals / "messages/alice.jsonl"
    body = {"format": "markdown", "content": "?"}
    for ms in (now_ms - 2 * 3_600_000, now_ms):
        message_id = f"msg_{ids.Ulids().at(ms)}"
        append(author_journal, fact("message.edit", ms=ms, message_id=message_id, agent_id="alice", body=body))
    append(
        author_journal, fact("message.create", ms=now_ms + 2 * 86_400_000, message_id="m", agent_id="alice", body=body)
    )
    append(repo.journals / "events.jsonl", fact("weather.forecast", sky="blue"))
    repo.thrum("daemon", "start")
    found = verify(repo, status=1)
    assert failed(found) == ["journal"]
    assert check(found, "journal")["detail"] == "1 stamp over a day ahead, 1 fact has waited for an hour"
    assert found["sealed"] == {"weather.forecast": 1}


def test_a_receipt_that_comes_after_the_purge_of_its_message_is_no_fault(repo: Repo) -> None:
    """It travels in its reader's journal, and says of no daemon that the message was its own."""
    repo.thrum("purge", "--all", "--yes")
    repo.thrum("daemon", "stop")
    ms = clock.SystemClock().now_ms() - 2 * 3_600_000
    told = {"agent_id": "bob", "session_id": "s", "receipt_type": "read"}
    reader = repo.journals / "messages/bob.jsonl"
    append(reader, fact("message.receipt", ms=ms, message_id=f"msg_{ids.Ulids().at(ms)}", **told))
    repo.thrum("daemon", "start")
    verify(repo, status=0)
    repo.thrum("daemon", "stop")
    later = f"msg_{ids.Ulids().at(clock.SystemClock().now_ms() + 60_000)}"
    append(reader, fact("message.receipt", ms=ms, message_id=later, **told))
    repo.thrum("daemon", "start")
    assert check(verify(repo, status=1), "journal")["detail"] == "1 fact has waited for an hour"


def test_identity_files_are_held_against_the_records(repo: Repo) -> None:
    directory = repo.main / ".thrum/identities"
    told = json.loads((directory / "alice.json").read_text())
    told["agent"]["role"] = "boss"
    (directory / "alice.json").write_text(json.dumps(told))
    (directory / "carol.json").write_text("{")
    stranger = json.loads((repo.worktree("bob") / ".thrum/identities/bob.json").read_text())
    (directory / "bob.json").write_text(json.dumps(stranger))
    found = verify(repo, status=1)
    assert failed(found) == ["identities"]
    reasons = {each["file"]: each["reason"] for each in check(found, "identities")["differences"]}
    assert reasons[".thrum/identities/alice.json"] == "role is boss, registered as worker"
    assert reasons[".thrum/identities/carol.json"].startswith("broken: ")
    assert reasons[".thrum/identities/bob.json"] == f"bob is registered in {repo.worktree('bob')}"
    shown = repo.run("verify").out
    assert "identities DIFFERS  3 files do not agree\n" in shown
    assert shown.count("role is boss, registered as worker\n") == 1
    assert "  fix: thrum quickstart alice --role ROLE --module MODULE" in shown


def test_what_is_committed_on_the_branch_has_to_be_in_the_journals(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    author_journal = (repo.journals / "messages/alice.jsonl").read_text()
    commit_journals(repo, {"messages/alice.jsonl": author_journal})
    found = verify(repo, status=0)
    total = sum(len(path.read_text().splitlines()) for path in repo.journals.rglob("*.jsonl"))
    assert found["uncommitted"] == total - len(author_journal.splitlines())
    other = fact(
        "message.create",
        message_id=f"msg_{ids.Ulids().at(1)}",
        agent_id="alice",
        body={"format": "markdown", "content": "lost"},
    )
    commit_journals(repo, {"messages/alice.jsonl": author_journal.replace('"one"', '"eno"') + other})
    [difference] = check(verify(repo, status=1), "branch")["differences"]
    assert difference | {"ids": []} == {"file": "messages/alice.jsonl", "missing": 1, "changed": 1, "ids": []}
    assert failed(verify(repo, "--repair", status=1)) == ["branch"], "the branch is never rewritten"


def test_agents_go_on_while_it_verifies(repo: Repo) -> None:
    for number in range(20):
        running = repo.start("verify", "--json")
        repo.thrum("send", f"more {number}", "--to", "@bob")
        assert running.end().json["ok"]
