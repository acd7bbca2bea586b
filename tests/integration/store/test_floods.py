"""What garbage of any amount costs a store: it is looked at once, sampled once, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.support.here import HandClock
from tests.support.store.factmaker import Maker
from tests.support.store.opened import layout_at, opened
from tests.support.store.signers import Daemon
from thrum.model import events, limits
from thrum.model.events import Body
from thrum.store.ingest import verified
from thrum.store.quarantine import Quarantine, Quarantined
from thrum.sync.ports import Surplus

AUTHOR_JOURNAL = "messages/slit.jsonl"


MANY = 5 * limits.quarantined_each_max


def flood(pattern: bytes, count: int = MANY) -> list[bytes]:
    return [pattern.replace(b"%d", b"%d" % number) for number in range(count)]


def conflicting(count: int) -> list[bytes]:
    """So many lines of one id, the smallest last."""
    fact = Maker().message("slit", text="x")
    return [
        events.encode(msgspec.structs.replace(fact, body=Body("markdown", f"{count - number:06}")))
        for number in range(count)
    ]


def test_of_very_many_lines_of_one_id_the_store_looks_at_the_one_that_counts() -> None:
    lines = conflicting(MANY)
    looked_at = verified((AUTHOR_JOURNAL, raw) for raw in [*lines, lines[-1]])
    assert [line.raw for line in looked_at if not line.is_refused] == [lines[-1]] * 2
    assert {line.classified.reason for line in looked_at if line.is_refused} == {"id_conflict"}
    few = verified((AUTHOR_JOURNAL, raw) for raw in lines[:2])
    assert not any(line.is_refused for line in few)


def test_a_forged_line_does_not_push_out_the_one_that_its_daemon_signed() -> None:
    daemon = Daemon(5)
    fact = daemon(events.MessageCreated, agent_id="slit", body=Body("plain", "the truth"), recipients=("nux",))
    true = daemon.line(fact)
    lies = [true.replace(b"the truth", b"a lie %03d" % number) for number in range(MANY)]
    looked_at = verified((AUTHOR_JOURNAL, raw) for raw in [*lies, true])
    assert [line.raw for line in looked_at if not line.is_refused] == [true]
    assert {line.classified.reason for line in looked_at if line.is_refused} == {"bad_signature"}


def kept_by(directory: Path) -> list[Quarantined]:
    return [*Quarantine(layout_at(directory).quarantine, HandClock()).entries()]


async def test_the_store_keeps_a_sample_of_each_kind_and_the_number_of_the_others(tmp_path: Path) -> None:
    daemon = Daemon(5)
    facts = [daemon(events.MessageCreated, agent_id="slit", body=Body("plain", "abc")) for _ in range(MANY)]
    forged = [daemon.line(fact).replace(b"abc", b"abd") for fact in facts]
    async with opened(tmp_path) as store:
        for lines in (forged, flood(b"x%d"), conflicting(MANY)[:-1]):
            for some in batched(lines, limits.quarantined_each_max + 7):
                await store.committer.ingest([(AUTHOR_JOURNAL, raw) for raw in some])
        await store.committer.count_quarantined([Surplus(AUTHOR_JOURNAL, "not_json", 1_000, 5_000)])
        assert store.committer.cause in ("", "database_damaged")
        kept = kept_by(tmp_path)
    for reason, more in (("bad_signature", 0), ("not_json", 1_000)):
        lines = [each for each in kept if each.reason == reason and not each.more]
        assert len(lines) == limits.quarantined_each_max
        [count] = [each for each in kept if each.reason == reason and each.more]
        assert (count.file, count.more) == (AUTHOR_JOURNAL, MANY - limits.quarantined_each_max + more)
    assert sum(each.reason == "id_conflict" and not each.more for each in kept) == limits.quarantined_each_max


async def test_a_flood_of_bad_fields_stays_in_the_journal_once_and_is_counted_once(tmp_path: Path) -> None:
    head = b'{"type":"message.create","timestamp":"2026-02-03T10:00:00.000Z","v":1,'
    lines = [head + b'"event_id":"evt_%d","message_id":7}' % number for number in range(MANY)]
    async with opened(tmp_path) as store:
        await store.committer.ingest([(AUTHOR_JOURNAL, raw) for raw in lines])
    journal = layout_at(tmp_path).branch_dir / AUTHOR_JOURNAL
    assert journal.read_bytes().splitlines() == lines
    before = kept_by(tmp_path)
    layout_at(tmp_path).database.unlink()
    async with opened(tmp_path) as store:
        assert store.recovery.quarantined == MANY
    assert kept_by(tmp_path) == before and journal.read_bytes().splitlines() == lines


def batched(lines: Sequence[bytes], size: int) -> list[Sequence[bytes]]:
    return [lines[start : start + size] for start in range(0, len(lines), size)]
