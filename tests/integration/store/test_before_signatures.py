"""What an installation had before there were signatures it goes on with: mail, marks, agents, groups, sessions.

`tests/data/before/*` are the journals of one clone of three, and the projection that the program of before made of
them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.here import HandClock
from tests.support.places import DATA
from tests.support.store.opened import IDENTITY, layout_at
from tests.support.store.signers import Daemon
from thrum.model import events
from thrum.model.events import Accepted, Body, MessageCreated
from thrum.model.tombstones import branch_file_of
from thrum.ops import introduction
from thrum.store import database
from thrum.store.ingest import verified
from thrum.store.journal import bare
from thrum.store.recovery import Opened, open_blocking
from thrum.store.writer import Call, Errand, Writer

JOURNALS = sorted(path.name for path in (DATA / "before").iterdir())
REPLACED = {"horizons", "client_keys", "daemon_identity"}
"""Tables that have other columns now, or tell of this daemon alone."""


class Before:
    """One of those installations, with the program of today: a new id, the old one among its former ones."""

    def __init__(self, name: str, directory: Path) -> None:
        source = DATA / "before" / name
        self.expected = json.loads((source / "expected.json").read_text())
        self.directory = directory
        self.me = Daemon(1, self.expected["now_ms"])
        self.former = self.expected["daemon_id"]
        self.own = frozenset({self.me.daemon_id, self.former, ""})
        layout = layout_at(directory)
        layout.branch_dir.parent.mkdir(parents=True)
        shutil.copytree(source / "a-sync", layout.branch_dir)
        shutil.copy(source / "local.jsonl", layout.local_journal)
        self.wall = HandClock(self.expected["now_ms"])

    def open(self) -> Opened:
        identity = msgspec.structs.replace(IDENTITY, daemon_id=self.me.daemon_id)
        return open_blocking(
            layout_at(self.directory),
            identity,
            self.own,
            wall=self.wall,
            program="test",
            boot_id="boot",
            signer=self.me.signer,
        )

    def rows(self, opened: Opened) -> dict[str, list[tuple[Any, ...]]]:
        """The columns that there were before."""
        columns = self.expected["columns"]
        with closing(database.open_reader(opened.path)) as db:
            return {
                table: sorted(db.execute(f"SELECT {', '.join(columns[table])} FROM {table}").fetchall(), key=repr)
                for table in columns
                if table not in REPLACED
            }

    def wanted(self) -> dict[str, list[tuple[Any, ...]]]:
        rows = self.expected["rows"]
        return {table: sorted(map(tuple, found), key=repr) for table, found in rows.items() if table not in REPLACED}


@pytest.fixture(params=JOURNALS)
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Before:
    return Before(request.param, tmp_path)


def run(store: Opened, *calls: Call) -> None:
    store.writer.begin()
    for call in calls:
        store.writer.execute(call)
        assert call.error is None, call.error
    if store.writer.has_work:
        store.writer.flush()
    else:
        store.writer.rollback()


def arrive(store: Opened, *lines: bytes) -> None:
    arrived = [(file_of(raw), raw) for raw in lines]
    run(store, Errand(partial(Writer.ingest, arrived=verified(arrived))))


def file_of(raw: bytes) -> str:
    fact = events.decode(raw)
    assert not isinstance(fact, events.UnknownEvent)
    return branch_file_of(fact)


def introduce(before: Before) -> Call:
    return Call(lambda view, stamp: introduction.decide(view, stamp, {"r_7K2Q1X9M3P0B"}, before.own))


def accepted(before: Before) -> list[Accepted]:
    lines = layout_at(before.directory).local_journal.read_bytes().splitlines()
    found = [events.decode(line) for line in lines]
    return [fact for fact in found if isinstance(fact, Accepted)]


def test_everything_is_as_it_was_and_stays_so_when_the_projection_is_rebuilt(before: Before) -> None:
    for again in range(3):
        store = before.open()
        assert bool(store.recovery.rebuilt) is (again != 1)
        assert before.rows(store) == before.wanted()
        store.close()
        kinds = [(fact.kind, bool(fact.lines)) for fact in accepted(before)]
        assert (
            kinds[0] == ("before", True) and kinds[-1] == ("before", False) and len(kinds) == len({*accepted(before)})
        )
        assert ("origin", False) in kinds
        if again:
            layout_at(before.directory).database.unlink()


def test_it_says_who_it_was_before_and_its_agents_go_on(before: Before) -> None:
    store = before.open()
    run(store, introduce(before))
    agents = {row.agent_id for row in store.view.agents() if row.is_own}
    assert agents and {row.origin_daemon for row in store.view.own_registrations()} == {before.me.daemon_id}
    assert store.view.previous_ids_of(before.me.daemon_id) == {before.former}
    written = store.view.head_seq()
    run(store, introduce(before))
    assert store.view.head_seq() == written  # once
    # But for whose registrations they are, nothing changed.
    rows, wanted = before.rows(store), before.wanted()
    assert {table for table in rows if rows[table] != wanted[table]} <= {"agents"}
    columns = before.expected["columns"]["agents"]
    kept = [columns.index(name) for name in ("agent_id", "kind", "role", "module", "live", "registered_at")]
    assert [[row[i] for i in kept] for row in rows["agents"]] == [[row[i] for i in kept] for row in wanted["agents"]]
    store.close()


def test_an_old_message_of_its_own_is_edited_here_as_ever(before: Before) -> None:
    store = before.open()
    run(store, introduce(before))
    rows = store.reader.execute(
        "SELECT message_id, agent_id FROM messages WHERE origin_daemon = ? AND deleted = 0", (before.former,)
    ).fetchall()
    assert rows
    message_id, author = rows[0]
    run(store, Call(_editing(message_id, author)))
    row = store.view.message(message_id)
    assert row is not None and row.body_content == "anew"
    store.close()


def _editing(message_id: str, author: str) -> Callable[..., Any]:
    def decide(_view: Any, stamp: Any) -> Any:
        fact = stamp.make(events.MessageEdited, message_id=message_id, agent_id=author, body=Body("plain", "anew"))
        return introduction.Decision([fact], lambda _view, _seqs: None)

    return decide


def test_a_clone_that_is_not_upgraded_goes_on_talking_and_a_pusher_speaks_for_nobody_new(before: Before) -> None:
    store = before.open()
    run(store, introduce(before))
    neighbour = next(
        row[0]
        for row in store.reader.execute("SELECT DISTINCT origin_daemon FROM messages")
        if row[0] not in before.own
    )
    me = next(row.agent_id for row in store.view.agents() if row.is_own)

    def letter(number: int, origin: str) -> MessageCreated:
        return MessageCreated(
            timestamp="2026-12-01T10:00:00.000Z",
            event_id=f"evt_{number}",
            v=1,
            origin_daemon=origin,
            message_id=f"msg_{number}",
            agent_id="bob",
            body=Body("plain", origin),
            recipients=(me,),
        )

    before.wall.ms = 1_900_000_000_000
    lines = [letter(1, neighbour), letter(2, "d_01KGH87Y00FFFFFFFFFFFFFFFF"), letter(3, before.former)]
    arrive(store, *map(events.encode, lines))
    states = {row.event_id: row.state for row in store.view.events_after(0, 1000)}
    assert [states[fact.event_id] for fact in lines] == ["applied", "hidden", "hidden"]
    # What was here before nobody changes without a signature.
    old = next(
        (
            row
            for row in store.reader.execute(
                "SELECT message_id, agent_id, origin_daemon FROM messages WHERE message_id <> 'msg_1' AND deleted = 0"
            )
            if row[2] not in before.own
        ),
        None,
    )
    if old is None:
        return  # all of it was purged
    forged = events.MessageDeleted(
        timestamp="2026-12-01T10:00:01.000Z",
        event_id="evt_4",
        v=1,
        origin_daemon=old[2],
        message_id=old[0],
        agent_id=old[1],
    )
    arrive(store, events.encode(forged))
    row = store.view.message(old[0])
    assert row is not None and not row.deleted


def test_no_later_unsigned_line_takes_the_place_of_one_that_was_here_before(before: Before) -> None:
    """Of two unsigned lines the smaller one is the fact; whoever may push can make a smaller one of the same id."""
    store = before.open()
    run(store, introduce(before))
    shown = before.rows(store)
    arrive(store, *twins_of(store))
    assert not store.writer.superseded
    assert before.rows(store) == shown
    store.close()
    store = before.open()
    assert before.rows(store) == shown
    store.close()


def test_nor_where_a_journal_holds_both(before: Before) -> None:
    """As a journal does that was filled in from a branch."""
    store = before.open()
    run(store, introduce(before))
    shown, layout, twins = before.rows(store), layout_at(before.directory), twins_of(store)
    store.close()
    for twin in twins:
        with store.journals.path(file_of(twin)).open("ab") as journal:
            journal.write(twin + b"\n")
    for is_rebuilt in (False, True):
        if is_rebuilt:
            layout.database.unlink()
        store = before.open()
        assert before.rows(store) == shown
        store.close()


def test_what_was_here_before_takes_its_place_when_it_comes_after_such_a_line(before: Before) -> None:
    store = before.open()
    run(store, introduce(before))
    layout, twins = layout_at(before.directory), twins_of(store)
    originals = {
        file: [bare(line.raw) for line in store.journals.iter_lines(file)]
        for file in store.journals.names()
        if file != events.LOCAL_FILE
    }
    messages = texts_of(store)
    store.close()
    layout.database.unlink()
    for file in originals:
        said = [twin for twin in twins if file_of(twin) == file]
        store.journals.path(file).write_bytes(b"".join(twin + b"\n" for twin in said))
    store = before.open()
    assert texts_of(store) != messages
    arrived = [(file, raw) for file, lines in originals.items() for raw in lines]
    run(store, Errand(partial(Writer.ingest, arrived=verified(arrived))))
    store.close()
    for is_rebuilt in (False, True):
        if is_rebuilt:
            layout.database.unlink()
        store = before.open()
        assert texts_of(store) == messages
        store.close()


def twins_of(store: Opened) -> list[bytes]:
    """Of every unsigned line of the branch a smaller one of its id, that says the same."""
    twins: list[bytes] = []
    for line in (line for file in store.journals.names() for line in store.journals.iter_lines(file)):
        twin = line.raw.rstrip(b"\n").replace(b'"v":1', b'"v":1,"aa":1', 1)
        if b'"sig"' not in twin and not events.never_travels(fact := events.decode(twin)):
            assert twin < line.raw and not isinstance(fact, events.UnknownEvent)
            twins.append(twin)
    assert twins
    return twins


def texts_of(store: Opened) -> list[tuple[str, str, int]]:
    return store.reader.execute("SELECT message_id, body_content, trust FROM messages ORDER BY message_id").fetchall()


def test_a_key_that_lies_behind_the_projection_at_a_start_ends_what_its_daemon_did_not_sign(tmp_path: Path) -> None:
    """As a branch brings it that was filled in after a journal had been lost."""
    name = JOURNALS[0]
    before, eve = Before(name, tmp_path), Daemon(2, 1_000)
    layout = layout_at(tmp_path)
    author_journal = layout.branch_dir / "messages" / "eve.jsonl"
    said = eve(MessageCreated, message_id="", agent_id="eve", body=Body("plain", "unsigned"))
    author_journal.write_bytes(events.encode(said) + b"\n")
    opened = before.open()
    assert opened.view.message(said.message_id) is not None
    opened.close()
    with (layout.branch_dir / "events.jsonl").open("ab") as journal:
        journal.write(eve.line(eve.introduction()) + b"\n")
    opened = before.open()
    assert opened.view.message(said.message_id) is None
    live = database.dump(opened.reader)
    opened.close()
    layout.database.unlink()
    opened = before.open()
    assert database.dump(opened.reader) == live
    opened.close()


def test_a_line_of_before_takes_nobody_out_of_a_signed_group(tmp_path: Path) -> None:
    """Unsigned, it says who says it no better than by his name; in a group of before that is enough."""
    before, ann, eve = Before(JOURNALS[0], tmp_path), Daemon(2, 1_000), Daemon(3, 99_000)
    bob: dict[str, Any] = {"agent_id": "bob", "kind": "agent", "name": "bob", "role": "tester", "module": "all"}
    group = ann(events.GroupCreated, group_id="", name="core", created_by="ann")
    member: dict[str, Any] = {"group_id": group.group_id, "member_type": "agent", "member_value": "bob"}
    forged = (eve(events.AgentRegistered, **bob), eve(events.GroupMemberRemoved, removed_by="bob", **member))
    with (layout_at(tmp_path).branch_dir / "events.jsonl").open("ab") as journal:
        journal.writelines(events.encode(fact) + b"\n" for fact in forged)
    store = before.open()
    run(store, introduce(before))
    added = ann(events.GroupMemberAdded, added_by="ann", **member)
    arrive(store, *map(ann.line, (ann.introduction(), ann(events.AgentRegistered, **bob), group, added)))
    for _ in range(2):
        found = store.view.group("core")
        assert found is not None and [each.member_value for each in found.members] == ["bob"]
        store.close()
        layout_at(tmp_path).database.unlink()
        store = before.open()
    store.close()
