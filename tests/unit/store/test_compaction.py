"""Compaction: which lines go, that numbers and cursors stay, and that readers never notice (events.md §11)."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.here import START_MS
from tests.support.store.arrivals import foreign, found, letter
from tests.support.store.compacting import FAR, compact, drafts_of
from tests.support.store.factmaker import Maker
from tests.support.store.opened import (
    OWN,
    editing,
    key_of,
    layout_at,
    open_here,
    projection_of,
    resent,
    sending,
)
from thrum.model import clock, events
from thrum.model.errors import StoreFailed
from thrum.model.events import AnyFact, Pair, Work
from thrum.model.tombstones import superseded_ids
from thrum.store import compaction
from thrum.store._superseded import superseded_locally
from thrum.store.api import Decision
from thrum.store.compaction import Drafter
from thrum.store.ingest import verified
from thrum.store.recovery import Opened
from thrum.store.writer import Call, Errand, Writer

AUTHOR_JOURNAL = "messages/furiosa.jsonl"
HOUR_MS = 3_600_000


def write(store: Opened, *facts: AnyFact) -> None:
    """Facts as they are, in one batch."""
    call = Call(lambda _view, _stamp: Decision(facts, lambda _view, _seqs: None))
    run(store, call)


def run(store: Opened, call: Call) -> Any:
    store.writer.begin()
    store.writer.execute(call)
    if call.error:
        raise call.error
    store.writer.flush()
    return call.answer


def ids_in(store: Opened, file: str) -> list[str]:
    return [events.decode(line.raw).event_id for line in store.journals.iter_lines(file)]


def message(make: Maker, ms: int, text: str, author: str = "furiosa") -> Any:
    """Sent at that time."""
    make.ms = ms
    return make.message(author, "nux", text=text)


def numbers(store: Opened) -> dict[str, int]:
    return dict(store.reader.execute("SELECT event_id, seq FROM events").fetchall())


def check_rows(store: Opened) -> None:
    """Every row names the line that it is about, and each journal stands where the projection says."""
    for event_id, file, offset, length in store.reader.execute("SELECT event_id, file, offset, length FROM events"):
        raw = store.journals.read_line(file, offset, length)
        assert events.decode(raw).event_id == event_id
    for file, provenance in store.journals.file_states().items():
        status = os.stat(store.journals.path(file))
        assert (status.st_ino, status.st_size) == provenance


# -- which lines go


def test_a_purge_takes_the_lines_away_and_spares_the_rest(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    old = [make.message("furiosa", "nux", text=f"old {number}") for number in range(3)]
    edit = make(events.MessageEdited, message_id=old[0].message_id, agent_id="furiosa", body=old[1].body)
    read = make(events.MessageReceipt, message_id=old[0].message_id, agent_id="nux", receipt_type="read")
    make.ms = START_MS
    young = make.message("furiosa", "nux", text="young", reply=old[0].message_id)
    store = open_here(tmp_path)
    write(store, old[0], old[1], young, old[2], edit, read)
    before = numbers(store)
    purge = make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1))
    write(store, purge)
    assert compact(store) > 0
    assert ids_in(store, AUTHOR_JOURNAL) == [young.event_id]
    assert ids_in(store, events.LOCAL_FILE) == []
    assert numbers(store) == {young.event_id: before[young.event_id], purge.event_id: 7}
    check_rows(store)
    assert b"old" not in store.journals.path(AUTHOR_JOURNAL).read_bytes()
    assert compact(store) == 0
    later = run(store, Call(sending("later")))
    assert later.seq == 8
    check_rows(store)
    store.close()
    live = projection_of(tmp_path)
    store = open_here(tmp_path)
    assert store.recovery.rebuilt == "" and store.recovery.applied == 0
    store.close()
    layout_at(tmp_path).database.unlink()
    open_here(tmp_path).close()
    assert projection_of(tmp_path) == live


def test_a_receipt_stays_until_its_copy_is_gone(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    old = make.message("furiosa", "nux", text="old")
    read = make(events.MessageReceipt, message_id=old.message_id, agent_id="nux", receipt_type="read")
    copies = "messages/nux.jsonl"
    store = open_here(tmp_path)
    write(store, old, read)
    run(store, Errand(partial(Writer.keep, values={"key": "value"}, copies=[(copies, events.encode(read))])))
    make.ms = START_MS
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1)))
    for left in ([read.event_id], []):
        with Drafter(store.path, store.journals, OWN, FAR) as drafter:
            files = [file for file, weight in drafter.weights().items() if weight.tombstoned]
        assert compact(store, *files) > 0
        assert (ids_in(store, copies), ids_in(store, events.LOCAL_FILE)) == ([], left)
        check_rows(store)
        store.close()
        live = projection_of(tmp_path)
        layout_at(tmp_path).database.unlink()
        store = open_here(tmp_path)
        assert projection_of(tmp_path) == live
    assert compact(store) == 0
    store.close()


def test_a_cleanup_with_messages_empties_the_journal(tmp_path: Path) -> None:
    make = Maker()
    store = open_here(tmp_path)
    write(
        store,
        make(events.AgentRegistered, agent_id="furiosa", kind="agent", role="r", module="m"),
        make.message("furiosa", "nux", text="secret"),
        make.message("nux", "furiosa", text="mine"),
        make(events.AgentCleaned, agent_id="furiosa", messages=True),
    )
    compact(store)
    assert store.journals.path(AUTHOR_JOURNAL).read_bytes() == b""
    # Who registered it once may go on saying what it has read: that line stays too.
    assert len(ids_in(store, events.EVENTS_FILE)) == 2
    assert len(ids_in(store, "messages/nux.jsonl")) == 1
    store.close()
    store = open_here(tmp_path)
    assert store.recovery.rebuilt == ""
    run(store, Call(sending("again")))
    check_rows(store)
    store.close()


def test_the_greatest_number_stays_so_that_none_is_given_twice(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    store = open_here(tmp_path)
    late = make.message("slit", "nux", text="late")
    purge = make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1), ms=START_MS)
    write(store, purge, late)
    assert store.view.head_seq() == 2
    compact(store)
    assert store.view.head_seq() == 2 and ids_in(store, "messages/slit.jsonl") == [late.event_id]
    assert run(store, Call(sending("next"))).seq == 3
    compact(store)
    assert ids_in(store, "messages/slit.jsonl") == []
    store.close()


def test_what_was_purged_does_not_come_back(tmp_path: Path) -> None:
    store = open_here(tmp_path)
    old = letter("old", ms=START_MS - HOUR_MS)
    purge = foreign(events.PurgeExecuted, ms=START_MS, cutoff=clock.format_ms(START_MS - 1))
    after = letter("after", ms=START_MS + 1)
    run(store, Errand(partial(Writer.ingest, arrived=verified(found(old)))))
    run(store, Errand(partial(Writer.ingest, arrived=verified(found(purge, after)))))
    compact(store)
    for _ in range(2):
        run(store, Errand(partial(Writer.ingest, arrived=verified(found(old, purge, after)))))
        assert ids_in(store, "messages/slit.jsonl") == [after.event_id]
        assert store.view.message(old.message_id) is None
    store.close()


def test_of_two_lines_of_one_id_none_goes_and_odd_lines_stay(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    old = make.message("furiosa", "nux", text="old")
    other = events.encode(old).replace(b'"old"', b'"pld"')
    garbage = b"no json\n"
    store = open_here(tmp_path)
    write(store, old, make(events.PurgeExecuted, ms=START_MS, cutoff=clock.format_ms(START_MS - 1)))
    store.close()
    with store.journals.path(AUTHOR_JOURNAL).open("ab") as file:
        file.write(other + b"\n" + garbage)
    store = open_here(tmp_path)
    size = store.journals.end(AUTHOR_JOURNAL)
    compact(store)
    assert store.journals.end(AUTHOR_JOURNAL) == size, "the smaller is the fact: which it is may not be forgotten"
    assert garbage in store.journals.path(AUTHOR_JOURNAL).read_bytes()
    store.close()


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_when_a_fact_goes_of_which_another_journal_holds_another_line_that_is_it_from_then_on(
    tmp_path: Path, is_rebuilt: bool
) -> None:
    make = Maker(START_MS - HOUR_MS)
    old = make.message("furiosa", "nux", text="old")
    make.ms = START_MS
    twin = msgspec.structs.replace(make.message("zed", "nux", text="young"), event_id=old.event_id)
    assert events.encode(old) < events.encode(twin)
    store = open_here(tmp_path)
    write(store, old)
    store.close()
    path = store.journals.path("messages/zed.jsonl")
    path.write_bytes(events.encode(twin) + b"\n")
    if is_rebuilt:
        store.path.unlink()
    store = open_here(tmp_path)
    assert [row[0] for row in store.reader.execute("SELECT agent_id FROM messages")] == ["furiosa"]
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1)))
    assert compact(store) > 0 and store.writer.superseded
    assert b"old" not in store.journals.path(AUTHOR_JOURNAL).read_bytes()
    store.close()
    store = open_here(tmp_path)
    assert [row[0] for row in store.reader.execute("SELECT agent_id FROM messages")] == ["zed"]
    check_rows(store)
    assert compact(store) == 0 and not store.writer.superseded
    store.close()


def test_client_keys_go_with_their_lines(tmp_path: Path) -> None:
    store = open_here(tmp_path)
    make = Maker(START_MS + 1)
    first = run(store, Call(sending("once"), key_of("k"), resent))
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS + 1), ms=START_MS + 1))
    compact(store)
    again = run(store, Call(sending("once"), key_of("k"), resent))
    assert not again.replayed and again.message_id != first.message_id
    store.close()


# -- what later lines replace


def test_of_places_seen_and_items_the_last_one_stays() -> None:
    make = Maker()
    facts = [
        make(events.AgentSeen, agent_id="ann"),
        make(events.AgentSeen, agent_id="ann", session_id="ses_1"),
        make(events.AgentSeen, agent_id="ann", session_id="ses_2"),
        make(events.AgentSeen, agent_id="ann"),
        make(events.AgentSeen, agent_id="bob"),
        make(events.AgentPlaced, agent_id="ann", worktree_path="/a"),
        make(events.AgentPlaced, agent_id="ann", worktree_path="/b"),
        make(events.AgentStatusSet, agent_id="ann", status="idle", by="ann", client_key="k", client_digest="0" * 16),
        make(events.AgentStatusSet, agent_id="ann", status="working", by="ann"),
        make(events.AgentStatusSet, agent_id="ann", status="idle", by="ann"),
        make(events.SessionItemsChanged, session_id="ses_1", add_scopes=(Pair("a", "x"), Pair("a", "y"))),
        make(events.SessionItemsChanged, session_id="ses_1", add_scopes=(Pair("a", "x"),)),
        make(events.SessionItemsChanged, session_id="ses_1", remove_scopes=(Pair("a", "x"),)),
        make(events.SessionItemsChanged, session_id="ses_1", add_scopes=(Pair("a", "x"),)),
    ]
    gone = superseded_locally((events.order_of(fact), fact) for fact in facts)
    assert [facts.index(fact) for fact in facts if fact.event_id in gone] == [0, 5, 8, 11]


def test_of_receipts_those_go_that_an_earlier_one_implies() -> None:
    make = Maker()
    message = make.id("msg_")

    def receipt(state: str, message_id: str = message) -> Any:
        return make(events.MessageReceipt, message_id=message_id, agent_id="bob", receipt_type=state)

    facts = [
        receipt("seen"),
        receipt("read"),
        receipt("seen"),
        receipt("read"),
        receipt("read", "odd"),
        receipt("read", "odd"),
    ]
    gone = superseded_locally((events.order_of(fact), fact) for fact in facts)
    assert [facts.index(fact) for fact in facts if fact.event_id in gone] == [2, 3]


def test_a_line_that_lies_in_a_journal_twice_does_not_replace_itself(tmp_path: Path) -> None:
    """As in one that was filled from a branch on which somebody doubled it."""
    make = Maker(START_MS - HOUR_MS)
    work = Work(session_id="ses_1", intent="x", intent_updated_at=clock.format_ms(make.ms))
    update = make(events.AgentUpdated, agent_id="furiosa", work_contexts=(work,))
    receipt = make(events.MessageReceipt, message_id=make.id("msg_"), agent_id="bob", receipt_type="read")
    seen = make(events.AgentSeen, agent_id="bob")
    assert superseded_ids((events.order_of(fact), fact, False) for fact in (update, update)) == set()
    for fact in (receipt, seen):
        assert superseded_locally((events.order_of(each), each) for each in (fact, fact)) == set()
    store = open_here(tmp_path)
    write(store, update, make(events.AgentSeen, agent_id="furiosa"))
    store.close()
    file = events.file_of(update)
    with store.journals.path(file).open("ab") as journal:
        journal.write(events.encode(update) + b"\n")
    store = open_here(tmp_path)
    compact(store)
    assert update.event_id in ids_in(store, file)
    store.close()


def test_an_update_goes_only_if_a_later_one_says_something_at_least_as_young() -> None:
    make = Maker()

    def update(at: int, ms: int) -> Any:
        work = Work(session_id="ses_1", intent="x", intent_updated_at=clock.format_ms(START_MS + at))
        return make(events.AgentUpdated, agent_id="ann", work_contexts=(work,), ms=START_MS + ms)

    stale, fresh, skewed, last = update(1, 1), update(2, 2), update(9, 3), update(5, 4)
    facts = [stale, fresh, skewed, last]
    gone = superseded_ids((events.order_of(fact), fact, False) for fact in facts)
    assert gone == {stale.event_id, fresh.event_id}, "a cleanup between the last two would leave the last one alone"


def test_what_waits_for_its_day_replaces_nothing(tmp_path: Path) -> None:
    make = Maker()
    store = open_here(tmp_path)
    first = make(events.AgentPlaced, agent_id="ann", worktree_path="/a")
    write(store, first, make(events.AgentPlaced, agent_id="ann", worktree_path="/b", ms=START_MS + HOUR_MS))
    run(store, Call(sending("last")))
    assert compact(store, ahead=clock.format_ms(START_MS + 1)) == 0
    assert compact(store, ahead=clock.format_ms(START_MS + HOUR_MS)) > 0
    assert first.event_id not in ids_in(store, events.LOCAL_FILE)
    store.close()


def test_a_journal_is_left_alone_where_too_little_goes(tmp_path: Path) -> None:
    make = Maker()
    store = open_here(tmp_path)
    write(store, *[make(events.AgentSeen, agent_id=f"a{number % 30}") for number in range(33)])
    run(store, Call(sending("last")))
    with compaction.Drafter(store.path, store.journals, OWN, clock.format_ms(START_MS + HOUR_MS)) as drafter:
        assert drafter.draft(events.LOCAL_FILE, share_min=0.25) is None
        draft = drafter.draft(events.LOCAL_FILE, share_min=0.05)
        assert draft is not None and draft.lines_gone == 3
        compaction.discard([draft])
    assert not list(tmp_path.rglob(".compact.*"))
    store.close()


# -- beside the writer


def test_what_was_written_since_the_draft_is_in_it(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    store = open_here(tmp_path)
    write(store, make.message("furiosa", "nux", text="old"))
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1), ms=START_MS))
    drafts = drafts_of(store)
    sent = run(store, Call(sending("since")))
    run(store, Call(editing(sent.message_id, "since!")))
    assert store.writer.compact(drafts) > 0
    assert len(ids_in(store, AUTHOR_JOURNAL)) == 2
    check_rows(store)
    stale = drafts_of(store)
    assert stale == []
    store.close()
    store = open_here(tmp_path)
    assert store.recovery.rebuilt == ""
    store.close()


def test_a_draft_of_a_journal_that_was_exchanged_meanwhile_is_not_used(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    store = open_here(tmp_path)
    write(store, make.message("furiosa", "nux", text="old"))
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1), ms=START_MS))
    first, second = drafts_of(store), drafts_of(store)
    assert store.writer.compact(first) > 0
    run(store, Call(sending("since")))
    assert store.writer.compact(second) == 0
    compaction.discard(second)
    assert len(ids_in(store, AUTHOR_JOURNAL)) == 1
    check_rows(store)
    store.close()


def test_a_journal_that_somebody_else_wrote_to_is_not_exchanged(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    store = open_here(tmp_path)
    write(store, make.message("furiosa", "nux", text="old"))
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1), ms=START_MS))
    drafts = drafts_of(store)
    with store.journals.path(AUTHOR_JOURNAL).open("ab") as file:
        file.write(events.encode(make.message("furiosa", "nux", ms=START_MS, text="by hand")) + b"\n")
    with pytest.raises(StoreFailed) as caught:
        store.writer.compact(drafts)
    assert caught.value.details["cause"] == "journal_changed"
    compaction.discard(drafts)
    store.close("journal_changed")
    store = open_here(tmp_path)
    assert (store.recovery.rebuilt, store.recovery.applied) == ("", 1)
    store.close()


def test_nothing_is_exchanged_when_the_database_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker(START_MS - HOUR_MS)
    store = open_here(tmp_path)
    write(store, make.message("furiosa", "nux", text="old"))
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1), ms=START_MS))

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    before = store.journals.path(AUTHOR_JOURNAL).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(compaction, "_rename", fail)
        with pytest.raises(StoreFailed):
            compact(store)
    assert store.journals.path(AUTHOR_JOURNAL).read_bytes() == before
    run(store, Call(sending("goes on")))
    assert compact(store) > 0
    check_rows(store)
    store.close()


def test_a_crash_between_the_renames_and_the_commit_is_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker(START_MS - HOUR_MS)
    store = open_here(tmp_path)
    write(store, make.message("furiosa", "nux", text="old"), message(make, START_MS, "young"))
    write(store, make(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1), ms=START_MS))
    expected = store.view.inbox_count("nux")

    def crash(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(compaction.files, "sync_directory", crash)
        with pytest.raises(StoreFailed) as caught:
            compact(store)
    assert caught.value.details["cause"] == "journal_changed"
    store.close("journal_changed")
    store = open_here(tmp_path)
    assert "was replaced" in store.recovery.rebuilt
    assert store.view.inbox_count("nux") == expected == (1, 1)
    store.close()


# -- readers
