"""Compaction in a store that is served: readers, rounds and calls never notice (events.md §11)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.support.daemon.in_process import Daemon, open_daemon
from tests.support.here import START_MS
from tests.support.store.arrivals import foreign, found, letter
from tests.support.store.factmaker import Maker
from tests.support.store.opened import (
    OWN,
    open_here,
    opened,
    sending,
)
from thrum.daemon import compaction as compacting
from thrum.daemon.sync_store import SyncStore
from thrum.model import clock, events
from thrum.store import compaction
from thrum.store.api import Decision
from thrum.store.recovery import Opened
from thrum.sync.ports import JournalMoved

AUTHOR_JOURNAL = "messages/furiosa.jsonl"


HOUR_MS = 3_600_000


def ids_in(store: Opened, file: str) -> list[str]:
    return [events.decode(line.raw).event_id for line in store.journals.iter_lines(file)]


def check_rows(store: Opened) -> None:
    """Every row names the line that it is about, and each journal stands where the projection says."""
    for event_id, file, offset, length in store.reader.execute("SELECT event_id, file, offset, length FROM events"):
        raw = store.journals.read_line(file, offset, length)
        assert events.decode(raw).event_id == event_id
    for file, provenance in store.journals.file_states().items():
        status = os.stat(store.journals.path(file))
        assert (status.st_ino, status.st_size) == provenance


async def test_calls_and_compactions_take_turns(tmp_path: Path) -> None:
    make = Maker(START_MS - HOUR_MS)
    async with opened(tmp_path) as store:
        facts = [make.message("furiosa", "nux", text=f"old {number}") for number in range(200)]
        await store.committer.ingest(found(*facts))
        await store.committer.ingest(found(foreign(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1))))
        answers: list[int] = []

        async def send(number: int) -> None:
            answers.append((await store.committer.commit(sending(str(number)))).seq)

        ahead = clock.format_ms(START_MS + HOUR_MS)
        with compaction.Drafter(store.path, store.journals, OWN, ahead) as drafter:
            drafts = [draft for file in store.journals.names() if (draft := drafter.draft(file)) is not None]
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(send, number)
                if number == 25:
                    nursery.start_soon(store.committer.compact, drafts)
        assert sorted(answers) == list(range(202, 252))
        assert store.view.inbox_count("nux") == (50, 50)
    store_ = open_here(tmp_path)
    assert store_.recovery.rebuilt == "" and len(ids_in(store_, AUTHOR_JOURNAL)) == 50
    check_rows(store_)
    store_.close()


async def test_a_round_that_reads_while_a_journal_is_exchanged_begins_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        old = letter("old", ms=START_MS - HOUR_MS)
        await store.committer.ingest(found(old))
        await store.committer.ingest(found(foreign(events.PurgeExecuted, cutoff=clock.format_ms(START_MS - 1))))
        exchange = SyncStore(store)
        marks = exchange.file_positions()
        with compaction.Drafter(store.path, store.journals, OWN, clock.format_ms(START_MS)) as drafter:
            draft = drafter.draft("messages/slit.jsonl")
        assert draft is not None
        await store.committer.compact([draft])
        with pytest.raises(JournalMoved):
            await trio.to_thread.run_sync(exchange.read, "messages/slit.jsonl", marks["messages/slit.jsonl"])
        again = exchange.file_positions()["messages/slit.jsonl"]
        assert await trio.to_thread.run_sync(exchange.read, "messages/slit.jsonl", again) == b""
        assert store.committer.cause == ""


async def purged(daemon: Daemon) -> tuple[int, int]:
    """Three messages, one read mark; the first two are purged. Head before and after the purge."""
    furiosa = await daemon.registered("furiosa")
    await furiosa("message.send", content="one", to=["furiosa"])
    await furiosa("message.send", content="two")
    daemon.clock.ms += HOUR_MS
    await furiosa("message.send", content="three")
    before = daemon.store.view.head_seq()
    await furiosa("purge.execute", before=clock.format_ms(daemon.clock.ms - 1), dry_run=False, confirm=True)
    return before, daemon.store.view.head_seq()


async def test_events_since_copes_with_gaps_and_cursors_stay(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        before, head = await purged(daemon)
        nobody = daemon.as_agent("")
        epoch = daemon.store.view.epoch
        assert await daemon.parts.care.compactor.compact(whatever_is_tombstoned=True) > 0
        for after in range(head + 1):
            found_ = await nobody("events.since", after_seq=after, epoch=epoch)
            assert all(hint.seq > after for hint in found_.events)
            assert (found_.next_seq, found_.head_seq, found_.more) == (head, head, False)
        texts = [hint.type for hint in (await nobody("events.since", after_seq=0, full=True)).events]
        assert texts.count("message.create") == 1 and "purge.executed" in texts
        assert daemon.store.committer.cause == ""
        assert before < head


async def test_a_look_that_began_before_the_exchange_finds_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_daemon(tmp_path) as daemon:
        _, head = await purged(daemon)
        view = daemon.store.view
        # As they were before the purge, too: some of their lines go, others move.
        rows = [msgspec.structs.replace(row, state="applied") for row in view.events_after(0, 100)]
        await daemon.parts.care.compactor.compact(whatever_is_tombstoned=True)
        monkeypatch.setattr(
            type(view), "events_after", lambda _self, seq, _limit: [row for row in rows if row.seq > seq]
        )
        stale = await daemon.as_agent("")("events.since", after_seq=0)
        assert [hint.seq for hint in stale.events] == [row.seq for row in rows if view.event_at(row.seq)]
        assert len(stale.events) == len(rows) - 2
        assert daemon.store.committer.cause == ""
        assert stale.next_seq == head


async def test_after_a_purge_the_journals_are_compacted_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "SOON_SECONDS", 0.01)
    async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        nursery.start_soon(daemon.parts.care.serve)
        turned = daemon.parts.care.compactor.turned
        await purged(daemon)
        with trio.fail_after(30):
            await turned.wait()
        author_journal = (daemon.ctx.here.layout.branch_dir / AUTHOR_JOURNAL).read_bytes()
        assert b'"two"' not in author_journal and b'"three"' in author_journal
        nursery.cancel_scope.cancel()


async def test_what_an_earlier_run_did_not_come_to_is_done_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "SOON_SECONDS", 0.01)
    async with open_daemon(tmp_path) as daemon:
        await purged(daemon)
        author_journal = daemon.ctx.here.layout.branch_dir / AUTHOR_JOURNAL
        assert b'"two"' in author_journal.read_bytes()
    async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        turned = daemon.parts.care.compactor.turned
        nursery.start_soon(daemon.parts.care.serve)
        with trio.fail_after(30):
            await turned.wait()
        assert b'"two"' not in author_journal.read_bytes()
        nursery.cancel_scope.cancel()


async def test_an_idle_store_is_compacted_when_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "FACTS_MIN", 600)
    monkeypatch.setattr(compacting, "QUIET_SECONDS", 0.05)
    async with open_daemon(tmp_path) as daemon, trio.open_nursery() as nursery:
        await daemon.registered("furiosa")
        local = daemon.ctx.here.layout.local_journal

        def seen(_view: Any, stamp: Any) -> Decision[None]:
            facts = [stamp.make(events.AgentSeen, agent_id="furiosa") for _ in range(100)]
            return Decision(facts, lambda _view, _seqs: None)

        for _ in range(7):
            await daemon.ctx.journal.commit(seen)
        assert local.stat().st_size > 64_000
        turned = daemon.parts.care.compactor.turned
        nursery.start_soon(daemon.parts.care.serve)
        with trio.fail_after(30):
            await turned.wait()
        assert local.stat().st_size < 2_000
        nursery.cancel_scope.cancel()
