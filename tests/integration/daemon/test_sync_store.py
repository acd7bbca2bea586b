"""The store as sync asks it: what counts of each journal, receipts that travel, what is tombstoned, what is
remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from tests.support.here import DAEMON, START_MS, HandClock
from tests.support.store.arrivals import foreign, found, letter
from tests.support.store.opened import layout_at, open_here, opened, projection_of, sending
from thrum.daemon.sync_store import SyncStore
from thrum.model import clock, events
from thrum.model.errors import StoreFailed
from thrum.model.events import AgentRegistered, MessageReceipt
from thrum.model.origins import OLD_REALM
from thrum.store.api import Decide, Decision, Stamp
from thrum.store.queries.views import View
from thrum.store.recovery import Store
from thrum.sync.ports import Arrived, FilePosition, Ingested, Journals

R = TypeVar("R")


async def ask(method: Callable[..., R], *arguments: Any) -> R:
    """Call it where sync does: in a worker thread."""
    return await trio.to_thread.run_sync(method, *arguments)


def registering(agent_id: str) -> Decide[None]:
    def decide(view: View, stamp: Stamp) -> Decision[None]:
        fact = stamp.make(AgentRegistered, agent_id=agent_id, kind="agent", role="r", module="m", hostname="here")
        return Decision((fact,), lambda view, seqs: None)

    return decide


def marking(message_id: str, agent_id: str, *states: str) -> Decide[None]:
    """Receipts of one message, in that order."""

    def decide(view: View, stamp: Stamp) -> Decision[None]:
        facts = [
            stamp.make(MessageReceipt, message_id=message_id, agent_id=agent_id, receipt_type=state) for state in states
        ]
        return Decision(facts, lambda view, seqs: None)

    return decide


def author_journal(directory: Path, name: str) -> list[bytes]:
    path = layout_at(directory).branch_dir / f"messages/{name}.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def local(directory: Path) -> list[bytes]:
    return layout_at(directory).local_journal.read_bytes().splitlines()


async def test_marks_tell_what_is_committed_and_read_gives_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        exchange: Journals = SyncStore(store)
        assert await ask(exchange.file_positions) == {}
        await store.committer.commit(sending("one"))
        await store.committer.commit(registering("furiosa"))
        await store.committer.commit(marking("msg_1", "nux", "read"))
        marks = await ask(exchange.file_positions)
        assert sorted(marks) == ["events.jsonl", "messages/furiosa.jsonl"]
        before = await ask(exchange.read, "messages/furiosa.jsonl", marks["messages/furiosa.jsonl"])
        await store.committer.commit(sending("two"))
        path = store.journals.path("messages/furiosa.jsonl")
        assert path.read_bytes().startswith(before)
        assert len(before.splitlines()) == 1
        assert await ask(exchange.read, "messages/furiosa.jsonl", marks["messages/furiosa.jsonl"]) == before
        assert await ask(exchange.read, "messages/nobody.jsonl", FilePosition(0, 0)) == b""


async def test_an_append_that_is_not_settled_does_not_count(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        exchange = SyncStore(store)
        await store.committer.commit(sending("one"))
        marks = await ask(exchange.file_positions)
        store.journals.append({"messages/furiosa.jsonl": b"{}\n"})
        assert await ask(exchange.file_positions) == marks
        store.journals.undo()


async def test_a_journal_that_was_replaced_is_told_and_the_store_is_opened_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        exchange = SyncStore(store)
        await store.committer.commit(sending("one"))
        mark = (await ask(exchange.file_positions))["messages/furiosa.jsonl"]
        path = store.journals.path("messages/furiosa.jsonl")
        data = path.read_bytes()
        path.rename(path.with_suffix(".old"))
        path.write_bytes(data)
        with pytest.raises(StoreFailed, match="another program"):
            await ask(exchange.read, "messages/furiosa.jsonl", mark)
        assert store.committer.cause == "journal_changed"


async def test_arrived_lines_are_ingested_and_values_remembered_until_a_rebuild(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        exchange = SyncStore(store)
        lines = [Arrived(*line) for line in found(letter())]
        assert await ask(exchange.ingest, lines) == Ingested(1, 0)
        assert await ask(exchange.ingest, lines) == Ingested(0, 0)
        await ask(exchange.remember, {"merged_commit": "a", "remote": "origin"})
        await ask(exchange.remember, {"merged_commit": "b"})
        assert await ask(exchange.recall) == {"merged_commit": "b", "remote": "origin"}
        assert store.view.head_seq() == 1
    async with opened(tmp_path) as store:
        assert await ask(SyncStore(store).recall) == {"merged_commit": "b", "remote": "origin"}
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path) as store:
        assert await ask(SyncStore(store).recall) == {}


async def test_tombstones_are_those_of_the_facts_however_they_came(tmp_path: Path) -> None:
    start = foreign(events.SessionStarted, session_id="ses_1", agent_id="slit")
    end = foreign(events.SessionEnded, ms=START_MS + 10, session_id="ses_1")
    later = foreign(events.SessionEnded, ms=START_MS + 99, session_id="ses_2")
    purge = foreign(events.PurgeExecuted, ms=START_MS + 50, cutoff=clock.format_ms(START_MS + 20))
    cleaned = foreign(events.AgentCleaned, ms=START_MS + 51, agent_id="nux", messages=True)
    for number, order in enumerate(([start, end, later, purge, cleaned], [cleaned, purge, later, end, start])):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with opened(directory) as store:
            exchange = SyncStore(store)
            assert not await ask(exchange.tombstones)
            for fact in order:
                await store.committer.ingest(found(fact))
            await _check_tombstones(exchange, cleaned)
        layout_at(directory).database.unlink()
        async with opened(directory) as store:
            await _check_tombstones(SyncStore(store), cleaned)
            assert store.view.session("ses_1") is None


async def _check_tombstones(exchange: SyncStore, cleaned: Any) -> None:
    tombstones = await ask(exchange.tombstones)
    assert tombstones.agents == tombstones.authors == {"nux": {OLD_REALM: (cleaned.timestamp, cleaned.event_id)}}
    assert tombstones.purges == {OLD_REALM: clock.format_ms(START_MS + 20)}
    assert [bool(tombstones.ends(name)) for name in ("ses_1", "ses_2", "ses_3")] == [True, True, False]


async def test_a_database_that_was_taken_away_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        layout_at(tmp_path).database.unlink()
        with pytest.raises(StoreFailed, match="removed"):
            await ask(SyncStore(store).tombstones)
        assert store.committer.cause == "database_damaged"
        assert not layout_at(tmp_path).database.exists()


# -- receipts that travel


async def _with_letters(store: Store, *texts: str) -> list[str]:
    """Another daemon's messages to nux, who lives here; their ids."""
    await store.committer.commit(registering("nux"))
    letters = [letter(text, ms=START_MS + number) for number, text in enumerate(texts)]
    await store.committer.ingest(found(*letters))
    return [fact.message_id for fact in letters]


async def test_the_highest_receipt_of_each_foreign_message_is_copied_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        exchange = SyncStore(store)
        one, two, three = await _with_letters(store, "one", "two", "three")
        own = await store.committer.commit(sending("own"))
        for message_id in (one, two, own.message_id):
            await store.committer.commit(marking(message_id, "nux", "seen", "read", "read"))
        await store.committer.commit(marking(three, "nux", "delivered"))
        await store.committer.commit(marking(one, "stranger", "read"))
        assert await ask(exchange.copy_receipts) == 2
        assert await ask(exchange.copy_receipts) == 0
        copies = author_journal(tmp_path, "nux")
        assert copies == [local(tmp_path)[1], local(tmp_path)[4]]
        head = store.view.head_seq()
        await store.committer.commit(marking(three, "nux", "seen"))
        assert await ask(exchange.copy_receipts) == 1
        await store.committer.commit(marking(three, "nux", "read"))
        assert await ask(exchange.copy_receipts) == 1
        assert store.view.head_seq() == head + 2
        assert await ask(exchange.recall) == {}
    live = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path) as store:
        assert await ask(SyncStore(store).copy_receipts) == 0
    assert projection_of(tmp_path) == live
    assert len(author_journal(tmp_path, "nux")) == 4
    store_ = open_here(tmp_path)
    assert store_.recovery == ("", 0, 0)
    store_.close()


async def test_a_receipt_travels_whoever_registered_its_reader_last(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        (one,) = await _with_letters(store, "one")
        there = foreign(AgentRegistered, ms=START_MS + 9_000, agent_id="nux", kind="agent", role="r", module="m")
        await store.committer.ingest(found(there))
        await store.committer.commit(marking(one, "nux", "read"))
        assert await ask(SyncStore(store).copy_receipts) == 1


async def test_a_kill_between_append_and_commit_does_not_copy_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        one, two = await _with_letters(store, "one", "two")
        await store.committer.commit(marking(one, "nux", "read"))
        await store.committer.commit(marking(two, "nux", "read"))
    copied = local(tmp_path)[0]
    store_ = open_here(tmp_path)
    store_.journals.append({"messages/nux.jsonl": copied + b"\n"})
    store_.reader.close()
    store_.journals.close()
    store_.writer.db.close()
    async with opened(tmp_path) as store:
        assert store.recovery.rebuilt == ""
        assert await ask(SyncStore(store).copy_receipts) == 1
    assert author_journal(tmp_path, "nux") == local(tmp_path)


async def test_what_could_not_be_copied_is_copied_the_next_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        exchange = SyncStore(store)
        (one,) = await _with_letters(store, "one")
        await store.committer.commit(marking(one, "nux", "read"))
        blocked = store.journals.path("messages/nux.jsonl")
        blocked.mkdir()
        with pytest.raises(StoreFailed):
            await ask(exchange.copy_receipts)
        blocked.rmdir()
        assert await ask(exchange.copy_receipts) == 1
        assert await ask(exchange.copy_receipts) == 0


async def test_the_sender_learns_from_a_receipt_that_travelled(tmp_path: Path) -> None:
    wall = HandClock()
    async with opened(tmp_path, wall=wall) as store:
        sent = await store.committer.commit(sending("hi", to="slit"))
        read, seen = (
            foreign(MessageReceipt, ms=START_MS + ms, message_id=sent.message_id, agent_id="slit", receipt_type=state)
            for ms, state in ((20, "read"), (10, "seen"))
        )
        for receipt in (read, seen, read):
            await store.committer.ingest(found(receipt))
        (recipient,) = store.view.recipients(sent.message_id)
        assert (recipient.delivered_at, recipient.seen_at, recipient.read_at) == (
            seen.timestamp,
            seen.timestamp,
            read.timestamp,
        )
        assert await ask(SyncStore(store).copy_receipts) == 0
    assert len(author_journal(tmp_path, "slit")) == 2
    live = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    open_here(tmp_path).close()
    assert projection_of(tmp_path) == live


@pytest.mark.parametrize("first", ["local", "branch"])
async def test_a_receipt_in_both_journals_is_one_fact(tmp_path: Path, first: str) -> None:
    receipt = foreign(MessageReceipt, origin=DAEMON, message_id="msg_1", agent_id="nux", receipt_type="read")
    paths = [layout_at(tmp_path).local_journal, layout_at(tmp_path).branch_dir / "messages/nux.jsonl"]
    open_here(tmp_path).close()
    for path in paths if first == "local" else reversed(paths):
        with path.open("ab") as file:
            file.write(events.encode(receipt) + b"\n")
        store = open_here(tmp_path)
        assert store.view.head_seq() == 1
        store.close()
    layout_at(tmp_path).database.unlink()
    store = open_here(tmp_path)
    assert (store.view.head_seq(), store.recovery.quarantined) == (1, 0)
    store.close()


# -- for status


async def test_unpushed_counts_own_facts_of_the_branch(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        (one,) = await _with_letters(store, "one")
        await store.committer.commit(sending("mine"))
        await store.committer.commit(marking(one, "nux", "read"))
        assert (store.view.unpushed(0), store.view.unpushed(1), store.view.unpushed(3)) == (2, 1, 0)
