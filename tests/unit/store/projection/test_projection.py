"""What single facts do to the projection, and what watermarks take back."""

from __future__ import annotations

from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tests.support.here import START_MS
from tests.support.store.factmaker import (
    HERE,
    OWN,
    THERE,
    Journals,
    Live,
    Maker,
    empty_projection,
    live_dump,
    rebuild_journals,
)
from tests.support.store.signers import Daemon
from thrum.model import clock, events
from thrum.model.events import Body, Pair
from thrum.store import database
from thrum.store.projection.core import Projection
from thrum.store.projection.entry import entry_of
from thrum.store.queries.views import InboxQuery, View


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def live() -> Any:
    projection = Live()
    yield projection
    projection.db.close()


def view(live: Live) -> View:
    return View(live.db, OWN)


def states(live: Live, *facts: Any) -> list[str]:
    return [applied.state for applied in live.apply(*facts)]


def test_a_fact_that_comes_twice_is_known_by_its_old_number(live: Live, make: Maker) -> None:
    message = make.message("ann", "bob")
    first, second = live.apply(message, message)
    assert (first.state, second.state, second.seq) == ("applied", "known", first.seq)
    assert view(live).head_seq() == 1


def test_of_two_lines_with_one_id_the_smaller_is_the_fact(live: Live, make: Maker) -> None:
    message = make.message("ann", "bob", text="m")
    smaller = events.decode(events.encode(message).replace(b'"m"', b'"a"'))
    larger = events.decode(events.encode(message).replace(b'"m"', b'"z"'))
    _, lost, won = live.apply(message, larger, smaller)
    assert (lost.state, lost.wins) == ("conflict", False)
    assert (won.state, won.wins) == ("conflict", True)


def test_facts_of_a_newer_program_are_opaque(live: Live) -> None:
    line = b'{"type":"dance","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_1","v":1}'
    assert states(live, events.decode(line)) == ["sealed"]


def test_edits_deletes_and_receipts_wait_for_their_message(live: Live, make: Maker) -> None:
    message = make.message("ann", "bob", text="first")
    edit = make(events.MessageEdited, message_id=message.message_id, agent_id="ann", body=Body("plain", "second"))
    receipt = make(events.MessageReceipt, message_id=message.message_id, agent_id="bob", receipt_type="seen")
    assert states(live, edit, receipt, message) == ["pending", "pending", "applied"]
    row = view(live).message(message.message_id)
    assert row is not None
    assert (row.body_content, row.edit_count, row.updated_at) == ("second", 1, edit.timestamp)
    assert [event.state for event in view(live).events_after(0, 9)] == ["applied"] * 3
    recipient = view(live).is_recipient(message.message_id, "bob")
    assert recipient is not None
    assert (recipient.seen_at, recipient.delivered_at, recipient.read_at) == (receipt.timestamp, receipt.timestamp, "")


def test_only_the_author_edits_and_deletes(live: Live, make: Maker) -> None:
    message = make.message("ann", "bob", text="first")
    edit = make(events.MessageEdited, message_id=message.message_id, agent_id="bob", body=Body("plain", "no"))
    delete = make(events.MessageDeleted, message_id=message.message_id, agent_id="bob")
    live.apply(message, edit, delete)
    row = view(live).message(message.message_id)
    assert row is not None
    assert (row.body_content, row.edit_count, row.deleted) == ("first", 0, False)


def test_an_edit_that_names_nobody_is_that_of_the_owner_of_its_journal(make: Maker) -> None:
    message = make.message("ann", "bob", text="first")
    edit = make(events.MessageEdited, message_id=message.message_id, body=Body("plain", "second"))
    for file, content in (("messages/ann.jsonl", "second"), ("messages/bob.jsonl", "first")):
        live = Live()
        live.apply(message)
        raw = events.encode(edit)
        live.projection.apply(entry_of(edit, raw, file, 10_000, len(raw) + 1))
        row = view(live).message(message.message_id)
        live.db.close()
        assert row is not None
        assert row.body_content == content


def test_a_delete_is_final_and_the_first_one_tells_why(live: Live, make: Maker) -> None:
    message = make.message("ann", "bob")
    first = make(events.MessageDeleted, message_id=message.message_id, agent_id="ann", reason="typo")
    second = make(events.MessageDeleted, message_id=message.message_id, agent_id="ann", reason="again")
    edit = make(events.MessageEdited, message_id=message.message_id, agent_id="ann", body=Body("plain", "late"))
    live.apply(message, second, first, edit)
    row = view(live).message(message.message_id)
    assert row is not None
    assert (row.deleted, row.deleted_at, row.delete_reason) == (True, first.timestamp, "typo")
    assert view(live).inbox_count("bob") == (0, 0)


def test_a_message_to_oneself_is_read_at_once(live: Live, make: Maker) -> None:
    message = make.message("ann", "ann")
    live.apply(message)
    assert view(live).inbox_count("ann") == (1, 0)
    assert view(live).inbox(InboxQuery(reader="ann", for_agent="ann")).messages[0].is_read


def test_older_messages_without_recipients_go_to_those_they_mention(live: Live, make: Maker) -> None:
    live.apply(make.message("ann", "bob", recipients=()))
    assert view(live).inbox_count("bob") == (1, 1)


def test_a_recipient_of_this_daemon_has_a_message_as_soon_as_it_is_stored(live: Live, make: Maker) -> None:
    here = make(events.AgentRegistered, agent_id="bob", kind="agent", role="coder", module="m")
    there = make(events.AgentRegistered, agent_id="eve", kind="agent", role="coder", module="m", origin_daemon=THERE)
    message = make.message("ann", "bob", "eve")
    live.apply(here, there, message)
    delivered = {to.agent_id: to.delivered_at for to in view(live).recipients(message.message_id)}
    assert delivered == {"bob": message.timestamp, "eve": ""}


def test_two_first_replies_make_one_thread_that_the_root_joins(live: Live, make: Maker) -> None:
    root = make.message("ann", "bob", "eve")
    thread = "thr_" + root.message_id[4:]
    by_bob = make.message("bob", "ann", reply=root.message_id, thread_id=thread)
    by_eve = make.message("eve", "ann", reply=root.message_id, thread_id=thread)
    live.apply(by_eve, root, by_bob)
    assert view(live).thread_of(root.message_id) == thread
    replied = {to.agent_id: to.replied_at for to in view(live).recipients(root.message_id)}
    assert replied == {"bob": by_bob.timestamp, "eve": by_eve.timestamp}


def test_a_key_counts_in_whatever_journal_it_lies(tmp_path: Path) -> None:
    me, other = Daemon(1), Daemon(2)
    own = frozenset({me.daemon_id})
    claimed = other.message("bob", "ann")  # in its name, and nobody signed it
    journals = Journals()
    for fact, raw, file in (
        (me.introduction(), b"", ""),
        (claimed, events.encode(claimed), ""),
        (key := other.introduction(), other.line(key), "messages/bob.jsonl"),
    ):
        journals.add(fact, raw or me.line(fact), file)
    rebuild_journals(journals, tmp_path / "rebuilt", own)
    with closing(database.open_reader(tmp_path / "rebuilt")) as db:
        assert View(db, own).message(claimed.message_id) is None


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_nobody_moves_anothers_message_into_another_thread(order: tuple[int, ...], tmp_path: Path) -> None:
    me, other = Daemon(1), Daemon(2)
    own = frozenset({me.daemon_id})
    root = me.message("ann", "bob", "eve")
    mine = me.message("ann", "bob", reply=root.message_id, thread_id="thr_mine")
    moved = other.message("bob", "ann", reply=root.message_id, thread_id="thr_0")
    joined = other.message("eve", "ann", reply=root.message_id, thread_id="thr_" + root.message_id[4:])

    def thread(*facts: Any) -> str:
        journals = Journals()
        said = [(me, me.introduction()), (other, other.introduction()), *facts]
        entries = [journals.add(fact, by.line(fact)) for by, fact in said]
        with closing(empty_projection()) as db:
            projection = Projection(db, own, journals.read_line, lambda: START_MS)
            for entry in entries:
                projection.apply(entry)
            live = View(db, own).thread_of(root.message_id)
        rebuild_journals(journals, tmp_path / "rebuilt", own)
        with closing(database.open_reader(tmp_path / "rebuilt")) as db:
            assert View(db, own).thread_of(root.message_id) == live
        return live

    facts = [(me, root), (other, moved), (other, joined), (me, mine)]
    assert thread(*(facts[i] for i in order if i < 3)) == "thr_" + root.message_id[4:]
    assert thread(*(facts[i] for i in order)) == "thr_" + root.message_id[4:]


def test_of_two_creates_of_one_message_the_smaller_stands_until_it_is_tombstoned(live: Live, make: Maker) -> None:
    first = make.message("ann", "bob", text="first")
    second = make.message("eve", "bob", text="second", message_id=first.message_id)
    edit = make(events.MessageEdited, message_id=first.message_id, agent_id="eve", body=Body("plain", "edited"))
    cleanup = make(events.AgentCleaned, agent_id="ann", messages=True)
    assert states(live, second, edit, first) == ["applied", "applied", "applied"]
    row = view(live).message(first.message_id)
    assert row is not None
    assert (row.agent_id, row.body_content, row.edit_count) == ("ann", "first", 0)
    live.apply(cleanup)
    row = view(live).message(first.message_id)
    assert row is not None
    assert (row.agent_id, row.body_content, row.edit_count) == ("eve", "edited", 1)


def test_a_cleaned_agent_starts_afresh_above_its_watermark(live: Live, make: Maker) -> None:
    register = make(events.AgentRegistered, agent_id="ann", kind="agent", role="coder", module="m")
    session = make(events.SessionStarted, session_id="ses_1", agent_id="ann")
    before = make.message("bob", "ann")
    own = make.message("ann", "bob")
    cleanup = make(events.AgentCleaned, agent_id="ann")
    again = make(events.AgentRegistered, agent_id="ann", kind="agent", role="tester", module="m")
    after = make.message("bob", "ann")
    live.apply(register, session, before, own, cleanup)
    assert view(live).agent("ann") is None
    assert view(live).sessions("ann") == []
    live.apply(again, after)
    agent = view(live).agent("ann")
    assert agent is not None
    assert (agent.live, agent.role, agent.registered_at) == (True, "tester", again.timestamp)
    page = view(live).inbox(InboxQuery(reader="ann", for_agent="ann"))
    assert [message.message_id for message in page.messages] == [after.message_id]
    assert view(live).inbox_count("bob") == (1, 1), "what it said to others stays"


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_cleanup_tombstones_what_its_daemon_said_in_anothers_session(order: tuple[int, ...], tmp_path: Path) -> None:
    """A sign of life in a session of another daemon's agent of that name; and of before, when anybody went on with
    anybody's session, what this daemon said under its former id.
    """
    me, other, old = Daemon(1), Daemon(2), "d_01KGH87Y00DDDDDDDDDDDDDDDD"
    own = frozenset({me.daemon_id, old})
    theirs = other(events.SessionStarted, agent_id="ann")
    of_before = Maker()(events.SessionStarted, session_id="ses_before", agent_id="ann", origin_daemon=THERE)
    seen = me(events.AgentSeen, ms=START_MS + 9, agent_id="ann", session_id=theirs.session_id)
    work = events.Work(session_id="ses_before", intent="none", intent_updated_at=seen.timestamp)
    update = me(events.AgentUpdated, agent_id="ann", work_contexts=(work,), origin_daemon=old)
    cleanup = me(events.AgentCleaned, agent_id="ann")
    parts = [
        [(theirs, other.line(theirs)), (of_before, b"")],
        [(seen, b""), (update, b"")],
        [(cleanup, me.line(cleanup))],
    ]
    journals = Journals()
    entries = [journals.add(fact, by.line(fact)) for by in (me, other) for fact in [by.introduction()]]
    entries += [journals.add(*line) for i in order for line in parts[i]]
    with closing(empty_projection()) as db:
        projection = Projection(db, own, journals.read_line, lambda: START_MS)
        for entry in entries:
            projection.apply(entry)
        assert db.execute("SELECT seen_at FROM sessions").fetchall() == [("",), ("",)]
        assert db.execute("SELECT * FROM work_contexts").fetchall() == []
        rebuild_journals(journals, tmp_path / "rebuilt", own)
        with closing(database.open_reader(tmp_path / "rebuilt")) as rebuilt:
            there, here = database.dump(rebuilt), database.dump(db)
            assert {table for table in here if here[table] != there[table]} <= {"daemon_identity"}


def test_a_late_cleanup_keeps_what_lies_above_it(live: Live, make: Maker) -> None:
    first = make(events.AgentRegistered, agent_id="ann", kind="agent", role="coder", module="m")
    cleanup = make(events.AgentCleaned, agent_id="ann")
    second = make(events.AgentRegistered, agent_id="ann", kind="agent", role="coder", module="n")
    third = make(events.AgentRegistered, agent_id="ann", kind="agent", role="coder", module="o")
    live.apply(first, third, second, cleanup)
    agent = view(live).agent("ann")
    assert agent is not None
    assert (agent.registered_at, agent.module) == (second.timestamp, "o")


def test_a_purge_tombstones_old_messages_and_ended_sessions_and_their_late_facts(live: Live, make: Maker) -> None:
    old = make.message("ann", "bob")
    start = make(events.SessionStarted, session_id="ses_1", agent_id="ann")
    end = make(events.SessionEnded, session_id="ses_1", agent_id="ann")
    cutoff = clock.format_ms(make.ms + 1)
    new = make.message("ann", "bob", reply=old.message_id, thread_id="thr_x")
    purge = make(events.PurgeExecuted, cutoff=cutoff)
    late = make(events.MessageEdited, message_id=old.message_id, agent_id="ann", body=Body("plain", "late"))
    live.apply(old, start, new, purge)
    assert view(live).message(old.message_id) is None
    assert states(live, end, late) == ["void", "pending"]
    assert view(live).session("ses_1") is None
    assert view(live).message(new.message_id) is not None


def test_a_purge_never_reaches_into_the_future(live: Live, make: Maker) -> None:
    purge = make(events.PurgeExecuted, cutoff="2999-01-01T00:00:00.000Z")
    live.apply(purge, make.message("ann", "bob"))
    assert view(live).inbox_count("bob") == (1, 1)


def test_membership_is_add_wins_and_groups_of_one_name_are_one(live: Live, make: Maker) -> None:
    def member(cls: type[Any], group: str, value: str, **fields: Any) -> Any:
        return make(cls, group_id=group, member_type="agent", member_value=value, **fields)

    add, remove = events.GroupMemberAdded, events.GroupMemberRemoved
    live.apply(
        member(add, "grp_2", "eve", added_by="ann"),
        make(events.GroupCreated, group_id="grp_1", name="team", created_by="ann"),
        member(add, "grp_1", "ann", added_by="ann"),
        member(add, "grp_1", "bob", added_by="ann"),
        member(remove, "grp_1", "bob", removed_by="ann"),
        make(events.GroupCreated, group_id="grp_2", name="team", created_by="bob"),
    )
    group = view(live).group("team")
    assert group is not None
    assert (group.group_id, [member.member_value for member in group.members]) == ("grp_1", ["ann", "eve"])
    tie = make.ms + 1
    live.apply(
        member(remove, "grp_1", "bob", removed_by="ann", ms=tie), member(add, "grp_1", "bob", added_by="ann", ms=tie)
    )
    assert [member.member_value for member in view(live).groups()["team"]] == ["ann", "bob", "eve"]
    live.apply(make(events.GroupDeleted, group_id="grp_1", deleted_by="ann"))
    assert [member.member_value for member in view(live).groups()["team"]] == ["eve"]


def test_the_registers_of_a_work_context_go_by_their_own_times(live: Live, make: Maker) -> None:
    def work(**fields: Any) -> Any:
        return make(events.AgentUpdated, agent_id="ann", work_contexts=(events.Work(session_id="ses_1", **fields),))

    at = [clock.format_ms(make.ms + 10 * step) for step in range(3)]
    live.apply(
        make(events.SessionStarted, session_id="ses_1", agent_id="ann"),
        work(intent="new", intent_updated_at=at[2]),
        work(intent="old", intent_updated_at=at[1], branch="main", changed_files=("src/a.py",), git_updated_at=at[0]),
        make(
            events.AgentUpdated,
            agent_id="eve",
            work_contexts=(events.Work(session_id="ses_1", intent="not hers", intent_updated_at=at[2] + "9"),),
        ),
    )
    (context,) = view(live).contexts(file="a.py")
    assert (context.intent, context.branch, context.changed_files) == ("new", "main", ("src/a.py",))
    assert view(live).contexts(file="src/") == [context]
    assert view(live).contexts(file=".py") == []


def test_client_keys_are_remembered_for_own_facts_only(live: Live, make: Maker) -> None:
    own = make.message("ann", "bob", client_key="k", client_digest="0" * 16)
    foreign = make.message("ann", "bob", client_key="f", client_digest="0" * 16, origin_daemon=THERE)
    live.apply(own, foreign)
    found = view(live).client_key("ann", "k")
    assert found is not None
    assert (found.event_id, found.method_digest) == (own.event_id, "0" * 16)
    assert view(live).client_key("ann", "f") is None


def test_a_rolled_back_fact_leaves_nothing_and_can_come_again(live: Live, make: Maker) -> None:
    message = make.message("ann", "bob")
    live.db.execute("BEGIN IMMEDIATE")
    live.apply(message)
    live.db.execute("ROLLBACK")
    assert view(live).head_seq() == 0
    assert states(live, message) == ["applied"]
    assert live.dump() == live_dump([message])


def test_a_journal_of_a_newer_format_is_told(live: Live, make: Maker) -> None:
    live.apply(make(events.JournalFormat, format=1))
    assert not view(live).newer_format()
    live.apply(make(events.JournalFormat, format=2))
    assert view(live).newer_format()


def test_rebuilding_numbers_in_the_order_of_facts_however_they_lie(tmp_path: Any, make: Maker) -> None:
    messages = [make.message(author, "bob") for author in ("ann", "eve", "ann", "eve")]
    journals = Journals()
    for message in reversed(messages):
        journals.add(message)
    rebuilt = rebuild_journals(journals, tmp_path / "p.db")
    db = database.connect(tmp_path / "p.db")
    numbered = [row.message_id for row in View(db, OWN).events_after(0, 10)]
    by_seq = [row[0] for row in db.execute("SELECT message_id FROM messages ORDER BY seq")]
    db.close()
    assert rebuilt.head_seq == 4
    assert numbered == by_seq == [message.message_id for message in messages]


def test_rebuilding_takes_the_smaller_of_two_lines_with_one_id_wherever_it_lies(tmp_path: Any, make: Maker) -> None:
    small = make.message("ann", "bob", text="a")
    large = events.decode(events.encode(small).replace(b'"a"', b'"z"'))
    assert isinstance(large, events.MessageCreated)
    for order in ((small, large), (large, small)):
        journals = Journals()
        entries = [journals.add(fact) for fact in order]
        rebuilt = rebuild_journals(journals, tmp_path / "p.db")
        db = database.connect(tmp_path / "p.db")
        row = View(db, OWN).message(small.message_id)
        db.close()
        assert row is not None
        assert row.body_content == "a"
        lost = entries[order.index(large)]
        assert [(line.file, line.offset, line.raw) for line in rebuilt.lost] == [(lost.file, lost.offset, lost.raw)]


def test_a_rebuilt_projection_can_be_gone_on_with(tmp_path: Any, make: Maker) -> None:
    facts = [make.message("ann", "bob") for _ in range(3)]
    facts.append(make(events.MessageReceipt, message_id=facts[0].message_id, agent_id="bob", receipt_type="read"))
    edit = make(events.MessageEdited, message_id=facts[0].message_id, agent_id="ann", body=Body("plain", "x"))
    journals = Journals()
    for fact in facts:
        journals.add(fact)
    rebuild_journals(journals, tmp_path / "p.db")
    db = database.open_writer(tmp_path / "p.db")
    applied = Projection(db, OWN, journals.read_line, lambda: START_MS).apply(journals.add(edit))
    dumped = database.dump(db)
    db.close()
    assert applied.seq == 5
    assert dumped == live_dump([*facts, edit])


def test_scopes_keep_the_senders_order(live: Live, make: Maker) -> None:
    scopes = (Pair("module", "z"), Pair("file", "a"))
    message = make.message("ann", "bob", scopes=scopes, origin_daemon=HERE)
    live.apply(message)
    assert view(live).pairs(message.message_id)[0] == scopes
