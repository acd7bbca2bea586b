"""What this daemon writes is signed; what comes from elsewhere is verified before it lies in a journal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.here import START_MS, HandClock
from tests.support.store.arrivals import letter
from tests.support.store.opened import layout_at, opened, projection_of, sending
from tests.support.store.signers import Daemon
from thrum.admin._signature_audit import check_signatures
from thrum.daemon.sync_store import SyncStore
from thrum.identity import signing
from thrum.model import events, ids, signatures
from thrum.model.errors import InternalError
from thrum.model.events import MessageReceipt
from thrum.model.tombstones import Tombstones
from thrum.store.api import Decision, Stamp
from thrum.store.committer import Committer
from thrum.store.queries.views import View
from thrum.sync import merge
from thrum.sync.ports import Arrived

FILE = "messages/furiosa.jsonl"


def lines_of(directory: Path, file: str = FILE) -> list[bytes]:
    path = layout_at(directory).branch_dir / file
    return path.read_bytes().splitlines() if path.exists() else []


async def test_every_line_that_travels_is_signed_and_lies_where_the_projection_says(tmp_path: Path) -> None:
    me = Daemon(1)
    async with opened(tmp_path, me=me) as store:
        async with trio.open_nursery() as nursery:  # several calls of one batch
            for number in range(5):
                nursery.start_soon(store.committer.commit, sending(f"hi {number}", author="abcde"[number % 2] + "x"))
                nursery.start_soon(failing, store.committer)
        await store.committer.commit(sending("last"))
        for row in store.view.events_after(0, 100):
            raw = store.journals.read_line(row.file, row.offset, row.length)
            assert signing.check(raw) == "signed"
            assert events.decode(raw).event_id == row.event_id
    before = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path, me=me) as store:
        assert store.recovery.rebuilt and not len(store.quarantine)
    assert projection_of(tmp_path) == before


async def failing(committer: Committer) -> None:
    """A call whose line is taken back out of the batch."""

    def fail(_view: View, _seqs: Sequence[int]) -> int:
        return 1 // 0

    with pytest.raises(InternalError):
        await committer.commit(lambda view, stamp: Decision(sending("void", author="ax")(view, stamp).facts, fail))


async def test_local_facts_are_not_signed_but_the_copy_that_travels_is(tmp_path: Path) -> None:
    me, there = Daemon(1), Daemon(2)
    key, sent = there.introduction(), there.message("slit", "nux")
    async with opened(tmp_path, me=me) as store:
        await store.committer.commit(me.introduce)
        await store.committer.ingest([("events.jsonl", there.line(key)), ("messages/slit.jsonl", there.line(sent))])

        def read(_view: View, stamp: Stamp) -> Decision[None]:
            receipt = stamp.make(MessageReceipt, message_id=sent.message_id, agent_id="nux", receipt_type="read")
            return Decision((receipt,), lambda _view, _seqs: None)

        await store.committer.commit(read)
        exchange = SyncStore(store)
        assert await trio.to_thread.run_sync(exchange.copy_receipts) == 1
        assert await trio.to_thread.run_sync(exchange.copy_receipts) == 0
        # After a restart the journals themselves say what they hold.
        assert await trio.to_thread.run_sync(SyncStore(store).copy_receipts) == 0
    [copy] = lines_of(tmp_path, "messages/nux.jsonl")
    [local] = layout_at(tmp_path).local_journal.read_bytes().splitlines()
    assert signing.check(copy) == "signed" and signing.check(local) == "unsigned"
    assert signatures.unsigned(copy) == local


def forgeries(there: Daemon) -> dict[str, bytes]:
    """Lines that nobody may believe, by reason."""
    fact = there.message("furiosa", "nux", text="true")
    signed = there.line(fact)
    other = events.msgspec.structs.replace(fact, event_id="evt_" + ids.Ulids().at(START_MS))
    twice = events.encode(fact).replace(b'"v":1', b'"v":2,"v":1')
    return {
        "bad_signature": signed.replace(b"true", b"fake"),
        "bad_id": there.line(other),
        "bad_object": there.line(twice),
    }


async def test_a_forged_line_goes_to_quarantine_and_into_no_journal(tmp_path: Path) -> None:
    there = Daemon(2)
    good = there.line(there.message("furiosa", "nux"))
    old = events.encode(letter(author="furiosa"))
    forged = forgeries(there)
    async with opened(tmp_path, me=Daemon(1)) as store:
        exchange = SyncStore(store)
        arrived = [Arrived(FILE, raw) for raw in (*forged.values(), good, old)]
        taken = await trio.to_thread.run_sync(partial(exchange.ingest, arrived))
        assert (taken.new, taken.quarantined) == (2, 3)
        taken = await trio.to_thread.run_sync(partial(exchange.ingest, arrived))
        assert (taken.new, taken.quarantined) == (0, 0)
        assert [entry.reason for entry in store.quarantine.entries()] == [*forged]
    assert sorted(lines_of(tmp_path)) == sorted([good, old])


def test_a_forged_line_of_the_branch_goes_into_no_blob_and_shadows_none() -> None:
    there = Daemon(2)
    fact = there.message("furiosa", "nux", text="true")
    good, bare = there.line(fact), events.encode(fact)
    forged = good.replace(b"true", b"aaaa")
    smaller = bare.replace(b"true", b"aaaa")
    blob = good + b"\n"
    for here, extra in (
        (blob, [forged, smaller, bare]),
        (b"", [forged, smaller, bare, good]),
        (smaller + b"\n", [bare, good, forged]),
        (bare + b"\n", [good]),
    ):
        assert merge.canonical(FILE, here, Tombstones(), extra).data == blob
    # An odd tail that nobody signed makes no other line of one that nobody signed.
    odd = Daemon(3).line(bare)
    assert merge.canonical(FILE, odd + b"\n", Tombstones(), [bare]).data == bare + b"\n"
    assert merge.sound(forged + b"\n" + blob + b"\xef\xbb\xbf" + forged + b"\r\n") == blob
    assert merge.sound(blob) is not None


async def test_lines_that_a_program_of_before_believed_are_looked_at(tmp_path: Path) -> None:
    """A clone that is upgraded, or was downgraded for a while, holds what it never verified."""
    me, there = Daemon(1), Daemon(2)
    async with opened(tmp_path, me=me) as store:
        await store.committer.commit(sending("mine"))
    path = layout_at(tmp_path).branch_dir / FILE
    [mine] = lines_of(tmp_path)
    good = there.line(there.message("furiosa", "nux"))
    for again in (False, True):
        forged = forgeries(Daemon(2 + again))
        with path.open("ab") as journal:
            journal.write(b"".join(raw + b"\n" for raw in (*forged.values(), good)))
        if again:
            for left in layout_at(tmp_path).database.parent.glob("messages.db*"):
                left.unlink()
        async with opened(tmp_path, me=me) as store:
            assert {entry.reason for entry in store.quarantine.entries()} == {*forged}
            assert len(store.quarantine) == 3 * (1 + again)
        assert lines_of(tmp_path) == [mine, good, good][: 2 + again]


async def test_what_was_looked_at_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = Daemon(1)
    async with opened(tmp_path, me=me) as store:
        await store.committer.commit(sending("mine"))
    looked: list[bytes] = []
    monkeypatch.setattr(signing, "flaw_of", lambda raw: looked.append(raw) or "")
    for left in layout_at(tmp_path).database.parent.glob("messages.db*"):
        left.unlink()
    async with opened(tmp_path, me=me, wall=HandClock()):
        pass
    assert looked == []
    record = layout_at(tmp_path).local_journal.with_name("verified.json")
    assert [*json.loads(record.read_bytes())] == ["events.jsonl", FILE] or [*json.loads(record.read_bytes())] == [FILE]
    record.unlink()
    async with opened(tmp_path, me=me):  # the projection knows it too
        pass
    assert looked == []


async def test_verify_counts_signed_lines_and_names_a_daemon_that_contradicts_itself(tmp_path: Path) -> None:
    me, there = Daemon(1), Daemon(2)
    fact = there.message("furiosa", "nux", text="yes")
    old = events.encode(letter(author="furiosa"))
    async with opened(tmp_path, me=me) as store:
        await store.committer.commit(sending("mine"))
        await store.committer.ingest([(FILE, there.line(fact)), (FILE, old)])
        ends = {FILE: store.journals.end(FILE)}
        sound = check_signatures(store.journals, ends, store.quarantine.entries())
        assert (sound.ok, sound.detail) == (True, "2 lines signed, 1 not")
        other = there.line(events.encode(fact).replace(b"yes", b"yet"))
        await store.committer.ingest([(FILE, other)])
        told = check_signatures(store.journals, {FILE: store.journals.end(FILE)}, store.quarantine.entries())
        assert not told.ok
        assert f"{there.daemon_id} contradicts itself" in told.detail
        assert told.differences[0].ids == (fact.event_id,)
        with store.journals.path(FILE).open("ab") as journal:
            journal.write(other.replace(b"yet", b"yep") + b"\n")
        provenance = store.journals.path(FILE).stat().st_size
        told = check_signatures(store.journals, {FILE: provenance}, ())
        assert (told.ok, told.detail) == (False, "2 lines signed, 1 not; 1 forged")
