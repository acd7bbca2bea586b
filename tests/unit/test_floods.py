"""Whoever may push may push any amount of garbage: it costs little, once, and the good lines beside it arrive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tests.sim.git import Remote, commit_of
from tests.support.daemons import Daemon
from tests.support.factmaker import START_MS, Maker
from tests.support.store_journals import FakeClock
from tests.support.store_opened import layout_at, opened
from tests.support.sync_desk import SyncDesk
from tests.unit.test_rights import Town, live
from tests.unit.test_sync_round import tampered
from thrum.model import events, limits
from thrum.model.events import Body
from thrum.model.tombstones import Tombstones
from thrum.store.ingest import verified
from thrum.store.projection.core import Projection
from thrum.store.quarantine import Kept, Quarantine, Quarantined
from thrum.sync import merge
from thrum.sync.ports import Surplus

AUTHOR_JOURNAL = "messages/slit.jsonl"
MANY = 5 * limits.quarantined_each_max
GARBAGE: tuple[bytes, ...] = (
    b"x%d",
    b"[%d]",
    b'{"a":%d}',
    b"\xff%d",
    b'{"type":"message.create","timestamp":"2026-02-03T10:00:00.000Z","event_id":"","v":1,"x":%d}',
)


def flood(pattern: bytes, count: int = MANY) -> list[bytes]:
    return [pattern.replace(b"%d", b"%d" % number) for number in range(count)]


def pushed(remote: Remote, *lines: bytes) -> None:
    """Somebody appends lines to a journal of the remote's branch."""

    def append(files: dict[str, tuple[int, bytes]]) -> None:
        mode, before = files.get(AUTHOR_JOURNAL, (0o100644, b""))
        files[AUTHOR_JOURNAL] = (mode, before + b"".join(line + b"\n" for line in lines))

    tampered(remote, append)


# -- a round


@pytest.mark.parametrize("pattern", GARBAGE)
def test_of_a_flood_a_sample_is_looked_at_and_the_rest_counted_and_the_good_lines_arrive(pattern: bytes) -> None:
    remote, make = Remote(), Maker()
    desk = SyncDesk(remote)
    desk.journals.add(make.message("furiosa"))
    desk.sync()
    lines, good = flood(pattern), events.encode(make.message("slit", "nux", text="between the garbage"))
    pushed(remote, *lines[: MANY // 2], good, *lines[MANY // 2 :])
    outcome = desk.sync()
    assert (outcome.received, outcome.quarantined) == (1, MANY)
    assert good in desk.journals.files[AUTHOR_JOURNAL]
    assert len(desk.journals.arrived) == limits.quarantined_each_max + 1
    [left] = desk.journals.surplus
    left_out = lines[limits.quarantined_each_max :]
    assert (left.file, left.lines, left.bytes) == (AUTHOR_JOURNAL, len(left_out), sum(map(len, left_out)))


def test_what_was_looked_at_is_not_looked_at_again_when_more_is_pushed() -> None:
    remote = Remote()
    desk = SyncDesk(remote)
    make = Maker()
    desk.journals.add(make.message("furiosa"))
    desk.sync()
    pushed(remote, *flood(b"x%d"), *flood(b'{"a":%d}'))
    desk.sync()
    desk.journals.arrived.clear()
    desk.journals.surplus.clear()
    good = events.encode(make.message("slit", "nux"))
    pushed(remote, good, b"one more")
    outcome = desk.sync()
    assert [raw for _, raw in desk.journals.arrived] == [good, b"one more"]
    assert (outcome.received, outcome.quarantined, desk.journals.surplus) == (1, 1, [])


def test_garbage_does_not_come_back_with_what_a_clone_writes_into_the_same_journal() -> None:
    remote, make = Remote(), Maker()
    desk = SyncDesk(remote)
    desk.journals.add(make.message("slit"))
    desk.sync()
    pushed(remote, *flood(b"x%d"))
    desk.sync()
    desk.journals.add(make.message("slit"))
    desk.sync()
    [entry] = [each for each in commit_of(remote.objects, remote.tip).files if each.path == AUTHOR_JOURNAL.encode()]
    data = remote.objects[entry.object_id]
    assert isinstance(data, bytes) and data.count(b"\n") == 2 and b"x1" not in data


def test_of_lines_of_one_id_the_one_that_counts_comes_first_and_the_others_keep_their_places() -> None:
    make = Maker()
    fact = make.message("slit", text="x")
    lines = [
        events.encode(msgspec.structs.replace(fact, body=Body("markdown", f"{number:04}"))) for number in (3, 1, 2)
    ]
    others = [events.encode(make.message("slit")) for _ in range(2)]
    mixed = [lines[0], others[0], lines[1], others[1], lines[2]]
    found = [raw for _, raw in merge.wanted(AUTHOR_JOURNAL, mixed, Tombstones())]
    assert found == [lines[1], others[0], lines[2], others[1], lines[0]]


def test_lines_that_a_newer_program_may_use_are_all_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b'{"type":"message.create","timestamp":"2026-02-03T10:00:00.000Z","v":1,'
    bad_field = [head + b'"event_id":"evt_%d","message_id":7}' % number for number in range(MANY)]
    assert merge.sift(bad_field) == (bad_field, {})
    monkeypatch.setattr(limits, "line_bytes_max", 4)
    assert merge.sift(flood(b"x%d000")) == (flood(b"x%d000"), {})


# -- the store


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
    return [*Quarantine(layout_at(directory).quarantine, FakeClock()).entries()]


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


# -- the quarantine


def test_a_quarantine_grows_by_no_byte_however_many_more_lines_there_are(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    sizes: list[int] = []
    for turn in range(1, 4):
        quarantine = Quarantine(path, FakeClock())
        for number in range(MANY):
            assert quarantine.add(AUTHOR_JOURNAL, -1, b"x%d-%d" % (turn, number), "not_json")
        quarantine.flush()
        sizes.append(path.stat().st_size)
        assert len(quarantine) == len(Quarantine(path, FakeClock())) == turn * MANY
    assert len({*sizes}) == 1
    *lines, count = Quarantine(path, FakeClock()).entries()
    assert len(lines) == limits.quarantined_each_max and not any(each.more for each in lines)
    assert count.more == 3 * MANY - len(lines)


def test_a_truncated_last_line_is_kept_however_full_the_quarantine_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "quarantined_all_bytes_max", 200)
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", FakeClock())
    for number in range(MANY):
        assert quarantine.add("local.jsonl", number, b"truncated %d" % number, "torn_tail")
        assert quarantine.add(AUTHOR_JOURNAL, -1, b"x%d" % number, "not_json")
    quarantine.flush()
    kept = [*quarantine.entries()]
    assert sum(each.reason == "torn_tail" and not each.more for each in kept) == MANY
    assert sum(each.reason == "not_json" and not each.more for each in kept) < 3


def test_who_names_many_journals_fills_no_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "quarantined_all_bytes_max", 1000)
    monkeypatch.setattr(limits, "quarantined_counts_max", 10)
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, FakeClock())
    for number in range(MANY):
        quarantine.add(f"messages/a{number}.jsonl", -1, b"x", "not_json")
    quarantine.flush()
    assert path.stat().st_size < 6_000 and len(quarantine) == MANY
    assert Kept(quarantine.entries()).covers(f"messages/a{MANY}.jsonl", b"x", "not_json")


def test_a_quarantine_that_was_edited_or_taken_away_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, FakeClock())
    for number in range(MANY):
        quarantine.add(AUTHOR_JOURNAL, -1, b"x%d" % number, "not_json")
    quarantine.flush()
    path.write_bytes(path.read_bytes()[500:])
    quarantine.add(AUTHOR_JOURNAL, -1, b"y", "not_json")
    quarantine.flush()
    more = MANY - limits.quarantined_each_max
    assert [each.more for each in quarantine.entries() if each.more] == [more, more + 1]
    path.unlink()
    quarantine.add(AUTHOR_JOURNAL, -1, b"z", "not_json")
    quarantine.flush()
    assert [each.more for each in quarantine.entries()] == [more + 2]


# -- sweeps by others


def steps_of_a_foreign_purge(messages: int) -> int:
    """What SQLite does, in its own steps, for the purge of somebody with one message, beside so many of another."""
    town = Town()
    town.register(town.ann, "ann")
    town.register(town.eve, "eve")
    town.say(town.eve, town.eve.message("eve", "nux"))
    for _ in range(messages):
        town.say(town.ann, town.ann.message("ann", "nux"))
    found = live(town.lines)
    purge = town.eve(events.PurgeExecuted, ms=START_MS + 60_000, cutoff="2099-01-01T00:00:00.000Z")
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    entry = found.journals.add(purge, town.eve.line(purge))
    found.db.set_progress_handler(step, 1)
    found.projection.apply(entry)
    found.db.set_progress_handler(None, 1)
    authors = [row[0] for row in found.db.execute("SELECT agent_id FROM messages")]
    assert authors == ["ann"] * messages
    found.db.close()
    return steps


def test_a_purge_by_another_daemon_looks_at_what_is_its_own_alone() -> None:
    assert steps_of_a_foreign_purge(1_000) < 1.5 * steps_of_a_foreign_purge(10)


def test_cleanups_of_an_agent_read_again_only_what_their_own_daemon_said_and_is_not_tombstoned() -> None:
    town = Town()
    registered = 30
    for _ in range(registered):
        town.register(town.ann, "ann")
    for _ in range(registered):
        town.register(town.eve, "ann")
    found = live(town.lines)
    read: list[int] = []
    honest = found.journals.read_line

    def reading(file: str, offset: int, length: int) -> bytes:
        read.append(offset)
        return honest(file, offset, length)

    projection = Projection(found.db, frozenset({town.me.daemon_id}), reading, lambda: found.now_ms)
    counts: list[int] = []
    for _ in range(3):
        read.clear()
        cleanup = town.eve(events.AgentCleaned, agent_id="ann")
        projection.apply(found.journals.add(cleanup, town.eve.line(cleanup)))
        counts.append(len(read))
    assert counts == [registered, 0, 0]
    homes = found.db.execute("SELECT home, live FROM registrations WHERE agent_id = 'ann' ORDER BY home").fetchall()
    assert dict(homes) == {town.ann.daemon_id: 1, town.eve.daemon_id: 0}
    found.db.close()
