"""Facts of other daemons: ingested through the same committer, byte for byte, in any order, as often as they come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.here import DAEMON, START_MS, HandClock
from tests.support.store.arrivals import THERE, foreign, found, letter
from tests.support.store.disk import mounted
from tests.support.store.opened import editing, layout_at, open_here, opened, projection_of, sending
from thrum.model import clock, events, limits
from thrum.model.errors import InternalError, StoreFailed
from thrum.model.events import Body, MessageEdited
from thrum.store.ingest import Found, verified
from thrum.store.recovery import Store
from thrum.store.writer import Committed, Errand, Writer


def line(type_: str, rest: str) -> bytes:
    """A line of a type, with an envelope and more."""
    return f'{{"type":"{type_}","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_9","v":1{rest}}}'.encode()


BAD_FIELD = line("message.delete", "")
FAR = b"9999-12-31T23:59:59-23:00"
AUTHOR_JOURNAL = "messages/slit.jsonl"


def journal(directory: Path, file: str = AUTHOR_JOURNAL) -> bytes:
    path = layout_at(directory).branch_dir / file
    return path.read_bytes() if path.exists() else b""


def quarantined(directory: Path) -> list[tuple[str, str]]:
    path = layout_at(directory).quarantine
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [(entry["file"], entry["reason"]) for entry in map(msgspec.json.decode, lines)]


def rebuilt(directory: Path, wall: HandClock | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """The projection made anew from the journals of a closed store."""
    layout_at(directory).database.unlink()
    open_here(directory, wall=wall).close()
    return projection_of(directory)


async def test_what_arrives_is_numbered_kept_as_it_came_and_announced(tmp_path: Path) -> None:
    heard: list[Committed] = []
    fact = letter("one")
    raw = b'{"x_of_a_newer_one":[1],' + events.encode(fact)[1:]
    async with opened(tmp_path, on_commit=heard.extend) as store:
        taken = await store.committer.ingest([(AUTHOR_JOURNAL, raw)])
        assert (taken.new, taken.quarantined, taken.ours) == (1, 0, 0)
        assert journal(tmp_path) == raw + b"\n"
        row = store.view.message(fact.message_id)
        assert row is not None and (row.body_content, row.origin_daemon, row.seq) == ("one", THERE, 1)
        assert [(entry.seq, entry.fact, entry.state) for entry in heard] == [(1, fact, "applied")]
        await store.committer.ingest([(AUTHOR_JOURNAL, raw), (AUTHOR_JOURNAL, raw)])
        assert len(heard) == 1
        assert journal(tmp_path) == raw + b"\n"
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path) == live


async def test_own_and_foreign_facts_share_the_numbers_and_a_fact_goes_where_it_belongs(tmp_path: Path) -> None:
    fact = letter("there", author="slit")
    async with opened(tmp_path) as store:
        own = await store.committer.commit(sending("here"))
        await store.committer.ingest([("messages/nux.jsonl", events.encode(fact))])
        assert (own.seq, store.view.head_seq()) == (1, 2)
        await store.committer.commit(sending("again"))
    assert journal(tmp_path, AUTHOR_JOURNAL) == events.encode(fact) + b"\n"
    assert not journal(tmp_path, "messages/nux.jsonl")
    store = open_here(tmp_path)
    assert store.recovery == ("", 0, 0)
    store.close()


async def test_an_edit_of_elsewhere_waits_for_its_message(tmp_path: Path) -> None:
    create = letter("one")
    edit = foreign(
        MessageEdited, ms=START_MS + 5, message_id=create.message_id, agent_id="slit", body=Body("plain", "two")
    )
    async with opened(tmp_path) as store:
        await store.committer.ingest(found(edit))
        await store.committer.ingest(found(create))
        row = store.view.message(create.message_id)
        assert row is not None and row.body_content == "two"
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path) == live


async def test_an_older_edit_that_names_nobody_stays_in_the_journal_of_its_author(tmp_path: Path) -> None:
    create = letter("one")
    edit = foreign(MessageEdited, ms=START_MS + 5, message_id=create.message_id, body=Body("plain", "two"))
    async with opened(tmp_path) as store:
        await store.committer.ingest([(AUTHOR_JOURNAL, events.encode(edit)), *found(create)])
        assert texts(store) == ["two"]
    assert len(journal(tmp_path).splitlines()) == 2


async def test_many_lines_are_a_few_batches_and_own_calls_come_between(tmp_path: Path) -> None:
    facts = [letter(str(number), ms=START_MS + number) for number in range(500)]
    async with opened(tmp_path) as store:
        taken = await store.committer.ingest(found(*facts))
        assert taken.new == 500
        assert store.committer.statistics().batches <= 2
        assert store.view.head_seq() == 500


@pytest.mark.parametrize(
    ("bad", "reason", "stays"),
    [
        (b"\xff\xfe{}", "not_utf8", False),
        (b"rubbish", "not_json", False),
        (b"[" * 100_000, "not_json", False),
        (b'{"type":"x",\n"v":1}', "not_json", False),
        (b"[1]", "not_object", False),
        (b'{"type":"x","event_id":"evt_1"}', "missing_field", False),
        (line("x", ',"a":"' + "x" * limits.line_bytes_max + '"'), "too_long", False),
        (line("agent.seen", ',"agent_id":"nux"'), "local_type_on_branch", False),
        (line("monitor.set", ""), "local_type_on_branch", False),
        (BAD_FIELD, "bad_field", True),
        (line("message.delete", ',"message_id":"m"').replace(b"2026-02-03T10:00:00.000Z", FAR), "bad_field", True),
        (line("journal.format", f',"format":{2**63}'), "bad_field", True),
        (line("weather", "").replace(b'"v":1', b'"v":%d' % 2**64), "missing_field", False),
        (line("message.delete", ',"message_id":"msg_1","x":' + "[" * 300 + "]" * 300), "not_json", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_used_is_quarantined_once(tmp_path: Path, bad: bytes, reason: str, stays: bool) -> None:
    good = letter()
    async with opened(tmp_path) as store:
        taken = await store.committer.ingest([(AUTHOR_JOURNAL, bad), *found(good), (AUTHOR_JOURNAL, bad)])
        assert (taken.new, taken.quarantined) == (1, 1)
        assert quarantined(tmp_path) == [(AUTHOR_JOURNAL, reason)]
        taken = await store.committer.ingest([(AUTHOR_JOURNAL, bad)])
        assert (taken.new, taken.quarantined) == (0, 0)
        await store.committer.commit(sending("own"))
    lines = journal(tmp_path).splitlines()
    assert lines == ([bad, events.encode(good)] if stays else [events.encode(good)])
    store = open_here(tmp_path)
    assert store.recovery == ("", 0, 1)
    store.close()
    async with opened(tmp_path) as again:
        taken = await again.committer.ingest([(AUTHOR_JOURNAL, bad)])
        assert (taken.new, taken.quarantined) == (0, 0)
    assert journal(tmp_path).splitlines() == lines
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path) == live
    assert quarantined(tmp_path) == [(AUTHOR_JOURNAL, reason)]


async def test_a_bad_line_alone_at_the_end_is_remembered_as_where_the_projection_stands(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.ingest([(AUTHOR_JOURNAL, BAD_FIELD)])
    store = open_here(tmp_path)
    assert store.recovery == ("", 0, 1)
    store.close()


async def test_facts_of_a_newer_program_stay_where_they_were_found(tmp_path: Path) -> None:
    raw = line("poll.open", ',"x":1.5')
    async with opened(tmp_path) as store:
        taken = await store.committer.ingest([(AUTHOR_JOURNAL, raw)])
        assert taken.new == 1
        event = store.view.event("evt_9")
        assert event is not None and (event.state, event.file) == ("sealed", AUTHOR_JOURNAL)
    assert journal(tmp_path) == raw + b"\n"


@pytest.mark.parametrize("file", ["local.jsonl", "messages/../x.jsonl", "messages/.x.jsonl", "a/b.jsonl", "messages/x"])
async def test_a_line_that_lies_in_no_journal_of_the_branch_is_a_bug_of_the_caller(tmp_path: Path, file: str) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(InternalError):
            await store.committer.ingest([(file, events.encode(letter()))])
        assert store.view.head_seq() == 0
    assert not journal(tmp_path)


async def test_reading_goes_on_under_a_newer_format(tmp_path: Path) -> None:
    newer = foreign(events.JournalFormat, format=99)
    async with opened(tmp_path) as store:
        await store.committer.ingest(found(newer))
        assert store.view.foreign_format() and not store.view.newer_format()
        taken = await store.committer.ingest(found(letter()))
        assert taken.new == 1


# -- one id, two lines


def two_lines(event_id: str = "evt_01KGHF3N80AAAAAAAAAAAAAAAA") -> tuple[bytes, bytes]:
    """The smaller and the larger one of one event id."""
    fact = msgspec.structs.replace(letter("aaa"), event_id=event_id)
    other = msgspec.structs.replace(fact, body=Body("markdown", "bbb"))
    return events.encode(fact), events.encode(other)


async def test_a_larger_line_of_a_known_id_goes_to_quarantine(tmp_path: Path) -> None:
    smaller, larger = two_lines()
    async with opened(tmp_path) as store:
        await store.committer.ingest([(AUTHOR_JOURNAL, smaller)])
        taken = await store.committer.ingest([(AUTHOR_JOURNAL, larger)])
        assert (taken.new, taken.quarantined) == (0, 1)
        assert store.committer.cause == ""
    assert journal(tmp_path) == smaller + b"\n"
    assert quarantined(tmp_path) == [(AUTHOR_JOURNAL, "id_conflict")]


def texts(store: Store) -> list[str]:
    return [row[0] for row in store.view._db.execute("SELECT body_content FROM messages")]  # pyright: ignore[reportPrivateUsage]


async def test_a_smaller_line_of_a_known_id_becomes_the_fact_and_nothing_is_lost(tmp_path: Path) -> None:
    smaller, larger = two_lines()
    async with opened(tmp_path) as store:
        await store.committer.ingest([(AUTHOR_JOURNAL, larger)])
        taken = await store.committer.ingest([(AUTHOR_JOURNAL, smaller)])
        assert (taken.new, taken.quarantined) == (1, 0)
        assert store.committer.cause == "database_damaged"
        # Until the projection is rebuilt it may come again, and so may the other one.
        again = await store.committer.ingest([(AUTHOR_JOURNAL, smaller), (AUTHOR_JOURNAL, larger)])
        assert (again.new, again.quarantined) == (0, 0)
    assert journal(tmp_path) == larger + b"\n" + smaller + b"\n"
    for _ in range(2):
        async with opened(tmp_path) as store:
            assert texts(store) == ["aaa"]
            again = await store.committer.ingest([(AUTHOR_JOURNAL, smaller), (AUTHOR_JOURNAL, larger)])
            assert (again.new, again.quarantined) == (0, 0)
            assert store.committer.cause == ""
    assert journal(tmp_path) == larger + b"\n" + smaller + b"\n"
    assert quarantined(tmp_path) == [(AUTHOR_JOURNAL, "id_conflict")]


def test_a_smaller_line_counts_also_when_the_daemon_dies_before_it_is_rebuilt(tmp_path: Path) -> None:
    smaller, larger = two_lines()
    store = open_here(tmp_path)
    for raw in (larger, smaller):
        store.writer.begin()
        store.writer.execute(Errand(partial(Writer.ingest, arrived=verified([(AUTHOR_JOURNAL, raw)]))))
        store.writer.flush()
    store.reader.close()
    store.journals.close()
    store.writer.db.close()
    store = open_here(tmp_path)
    assert store.recovery.rebuilt
    assert store.reader.execute("SELECT body_content FROM messages").fetchall() == [("aaa",)]
    store.close()
    store = open_here(tmp_path)
    assert store.recovery.rebuilt == ""
    store.close()


# -- what is tombstoned, what is ours, what lies ahead


async def test_a_cleanup_that_arrives_moves_own_stamps_past_it_and_what_is_tombstoned_is_not_stored(
    tmp_path: Path,
) -> None:
    started = foreign(events.SessionStarted, session_id="ses_1", agent_id="slit")
    cleaned = foreign(events.AgentCleaned, ms=START_MS + 60_000, agent_id="slit", messages=True)
    early = letter("void", ms=START_MS + 5)
    async with opened(tmp_path) as store:
        await store.committer.ingest(found(cleaned))
        taken = await store.committer.ingest(found(started, early))
        assert (taken.new, taken.quarantined) == (0, 0)
        assert store.view.head_seq() == 1
        own = await store.committer.commit(sending("mine", author="slit"))
        row = store.view.message(own.message_id)
        assert row is not None and row.created_at > cleaned.timestamp
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path) == live


async def test_facts_that_say_they_are_ours_and_were_not_here_are_counted(tmp_path: Path) -> None:
    fact = letter(origin=DAEMON)
    async with opened(tmp_path) as store:
        assert (await store.committer.ingest(found(fact))).ours == 1
        assert (await store.committer.ingest(found(fact, letter(origin="")))).ours == 0
        assert store.committer.statistics().claimed == 1
        smaller = events.encode(fact).replace(b'"hi"', b'"by"')
        assert (await store.committer.ingest([(AUTHOR_JOURNAL, smaller)])).ours == 1, "ours in other words"


async def test_after_a_restore_own_facts_of_before_come_back_uncounted(tmp_path: Path) -> None:
    before, after = letter(origin=DAEMON), letter("later", origin=DAEMON, ms=START_MS + 60_000)
    async with opened(tmp_path) as store:
        store.committer.note_restore(clock.format_ms(START_MS + 30_000))
        assert (await store.committer.ingest(found(before))).ours == 0
        assert (await store.committer.ingest(found(after))).ours == 1


DAY_MS = limits.future_stamp_ms_max


async def test_a_foreign_fact_of_the_future_waits_for_its_day(tmp_path: Path) -> None:
    wall = HandClock()
    early = letter("now")
    purge = foreign(events.PurgeExecuted, ms=START_MS + 3 * DAY_MS, cutoff="2027-01-01T00:00:00.000Z")
    late = letter("late", ms=START_MS + 2 * DAY_MS)
    edge = letter("edge", ms=START_MS + DAY_MS)
    heard: list[Committed] = []
    async with opened(tmp_path, wall=wall, on_commit=heard.extend) as store:
        store.committer.on_release = heard.extend
        taken = await store.committer.ingest(found(early, purge, late, edge))
        assert taken.new == 4
        assert [entry.state for entry in heard] == ["applied", "pending", "pending", "applied"]
        assert texts(store) == ["now", "edge"]
        assert store.view.deferred_count() == 2
        own = await store.committer.commit(sending("own"))
        row = store.view.message(own.message_id)
        assert row is not None and row.created_at == clock.format_ms(START_MS)
        assert await store.committer.release_due_facts() == 0
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path, wall) == live
    wall.ms += DAY_MS
    heard.clear()
    async with opened(tmp_path, wall=wall, on_commit=heard.extend) as store:
        assert sorted(texts(store)) == ["edge", "late", "now", "own"]
        assert store.view.deferred_count() == 1
        wall.ms += DAY_MS
        store.committer.on_release = heard.extend
        assert await store.committer.release_due_facts() == 1
        assert [(entry.fact, entry.state) for entry in heard] == [(purge, "applied")]
        assert texts(store) == []
        assert store.view.deferred_count() == 0
        own = await store.committer.commit(sending("after"))
        assert texts(store) == ["after"]
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path, wall) == live


async def test_own_facts_are_never_held(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.ingest(found(letter("mine", ms=START_MS + 9 * DAY_MS, origin=DAEMON)))
        assert texts(store) == ["mine"]


async def test_own_edits_take_effect_on_foreign_text_and_restarts_keep_it(tmp_path: Path) -> None:
    ahead = letter("theirs", ms=START_MS + 60_000, author="nux")
    async with opened(tmp_path) as store:
        await store.committer.ingest(found(ahead))
        await store.committer.commit(editing(ahead.message_id, "mine", "nux"))
        assert texts(store) == ["mine"]
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path) == live


# -- failures


async def test_when_nothing_can_be_written_nothing_of_what_arrived_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: Sequence[Found] = [*found(letter("one"), letter("two")), (AUTHOR_JOURNAL, BAD_FIELD)]
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("own"))
        author_journal = layout_at(tmp_path).branch_dir / AUTHOR_JOURNAL
        author_journal.mkdir()
        with pytest.raises(StoreFailed):
            await store.committer.ingest(arrived)
        assert store.view.head_seq() == 1
        author_journal.rmdir()
        taken = await store.committer.ingest(arrived)
        # The line was in quarantine already: that is done first.
        assert (taken.new, taken.quarantined) == (2, 0)
    assert len(journal(tmp_path).splitlines()) == 3
    live = projection_of(tmp_path)
    assert rebuilt(tmp_path) == live


async def test_on_a_full_disk_what_arrived_is_ingested_whole_the_next_time(tmp_path: Path) -> None:
    bad = BAD_FIELD[:-1] + b',"a":"' + b"x" * 50_000 + b'"}'
    arrived = [
        *found(*(letter(f"{number} " + "x" * 50_000, ms=START_MS + number) for number in range(8))),
        (AUTHOR_JOURNAL, bad),
    ]
    with mounted(tmp_path / "small", "4m") as directory:
        async with opened(directory) as store:
            await store.committer.commit(sending("kept"))
            filler = directory / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"\0" * 4096)
            with pytest.raises(StoreFailed):
                await store.committer.ingest(arrived)
            filler.unlink()
            await store.committer.ingest(arrived)
            assert store.view.head_seq() == 9
        assert sorted(journal(directory).splitlines()) == sorted(raw for _, raw in arrived)
        live = projection_of(directory)
        assert rebuilt(directory) == live


@pytest.mark.parametrize("origin", [DAEMON, THERE])
async def test_nobody_tombstones_the_future_also_not_in_this_daemons_name(tmp_path: Path, origin: str) -> None:
    async with opened(tmp_path) as store:
        far = "9999-01-01T00:00:00.000Z"
        purge = events.PurgeExecuted(timestamp=far, event_id="evt_far", v=1, origin_daemon=origin, cutoff=far)
        cleanup = events.AgentCleaned(
            timestamp=far, event_id="evt_farther", v=1, origin_daemon=origin, agent_id="furiosa", messages=True
        )
        await store.committer.ingest(found(purge, cleanup))
        sent = await store.committer.commit(sending("hello"))
        assert store.view.message(sent.message_id) is not None
    live = projection_of(tmp_path)
    layout_at(tmp_path).database.unlink()
    open_here(tmp_path).close()
    assert projection_of(tmp_path) == live
