"""Opening the store: gone on with when it may be, rebuilt when it must be, and no whole fact is ever lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.here import START_MS, HandClock
from tests.support.store.journals import line_of, message
from tests.support.store.opened import (
    IDENTITY,
    editing,
    layout_at,
    open_here,
    opened,
    projection_of,
    sending,
)
from thrum.model import clock, events
from thrum.model.errors import StoreFailed
from thrum.model.events import MessageCreated
from thrum.store import database
from thrum.store.api import Decide
from thrum.store.recovery import Opened, open_blocking
from thrum.store.writer import Call

AUTHOR_JOURNAL = "messages/furiosa.jsonl"


def commit(store: Opened, *decides: Decide[Any]) -> None:
    """One batch, without an event loop."""
    calls = [Call(decide) for decide in decides]
    store.writer.begin()
    for call in calls:
        store.writer.execute(call)
        assert call.error is None
    store.writer.flush()


def crash(store: Opened) -> None:
    """Leave a store as a kill does: nothing is noted."""
    store.reader.close()
    store.journals.close()
    store.writer.db.close()


def filled(directory: Path) -> Path:
    """A closed store with a few facts; its journal."""
    store = open_here(directory)
    for text in ("one", "two", "three"):
        commit(store, sending(text), sending(f"{text} of slit", author="slit"))
    store.close()
    return layout_at(directory).branch_dir / AUTHOR_JOURNAL


def reasons(directory: Path) -> list[tuple[str, str]]:
    lines = layout_at(directory).quarantine.read_bytes().splitlines()
    return [(entry["file"], entry["reason"]) for entry in map(msgspec.json.decode, lines)]


def contents(store: Opened) -> list[str]:
    with closing(sqlite3.connect(store.path)) as db:
        return [row[0] for row in db.execute("SELECT body_content FROM messages ORDER BY seq")]


# -- going on


def test_a_clean_stop_and_start_goes_on_with_epoch_numbers_and_projection(tmp_path: Path) -> None:
    filled(tmp_path)
    before = projection_of(tmp_path)
    store = open_here(tmp_path)
    epoch = store.view.epoch
    assert store.recovery == ("", 0, 0)
    commit(store, sending("four"))
    assert store.view.head_seq() == 7
    store.close()
    again = open_here(tmp_path)
    assert (again.view.epoch, again.recovery.rebuilt) == (epoch, "")
    again.close()
    assert projection_of(tmp_path) != before


def test_lines_behind_the_projection_are_applied_once(tmp_path: Path) -> None:
    author_journal = filled(tmp_path)
    late = [message("four"), message("five")]
    with author_journal.open("ab") as file:
        file.writelines(line_of(fact) for fact in late)
        file.write(line_of(late[0]))
    newcomer = layout_at(tmp_path).branch_dir / "messages/new.jsonl"
    newcomer.write_bytes(line_of(message("of new", author="new")))
    store = open_here(tmp_path)
    assert (store.recovery.rebuilt, store.recovery.applied) == ("", 3)
    assert contents(store)[-3:] == ["four", "five", "of new"]
    commit(store, sending("six"), sending("more of new", author="new"))
    store.close()
    again = open_here(tmp_path)
    assert again.recovery == ("", 0, 0)
    again.close()
    live = projection_of(tmp_path)
    again.path.unlink()
    open_here(tmp_path).close()
    assert projection_of(tmp_path) == live


def test_an_append_whose_commit_was_lost_is_applied_at_the_next_start(tmp_path: Path) -> None:
    store = open_here(tmp_path)
    commit(store, sending("one"))
    call = Call(sending("two"))
    store.writer.begin()
    store.writer.execute(call)
    store.journals.append(store.writer._buffers)  # pyright: ignore[reportPrivateUsage]
    crash(store)
    again = open_here(tmp_path)
    assert (again.recovery.rebuilt, again.recovery.applied) == ("", 1)
    assert contents(again) == ["one", "two"]
    again.close()


# -- the epoch


def test_the_epoch_changes_when_numbers_may_have_been_lost_with_the_machine(tmp_path: Path) -> None:
    store = open_here(tmp_path, boot_id="boot-1")
    epoch = store.view.epoch
    crash(store)
    store = open_here(tmp_path, boot_id="boot-1")
    assert store.view.epoch == epoch
    crash(store)
    store = open_here(tmp_path, boot_id="boot-2")
    assert store.view.epoch != epoch
    epoch = store.view.epoch
    store.close()
    store = open_here(tmp_path, boot_id="boot-3")
    assert store.view.epoch == epoch
    crash(store)
    store = open_here(tmp_path, boot_id="")
    assert store.view.epoch != epoch
    store.close()


# -- rebuilding


def _delete(directory: Path) -> None:
    layout_at(directory).database.unlink()


def _leave_a_stale_log(directory: Path) -> None:
    path = layout_at(directory).database
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE messages SET body_content = 'stale'")
        log = path.with_name(path.name + "-wal").read_bytes()
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(log)


def _spoil_the_head(directory: Path) -> None:
    with layout_at(directory).database.open("r+b") as file:
        file.write(b"rubbish" * 100)


def _spoil_the_middle(directory: Path) -> None:
    path = layout_at(directory).database
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (size - 4096))


def _empty(directory: Path) -> None:
    layout_at(directory).database.write_bytes(b"")


def _of_another_version(directory: Path) -> None:
    with closing(sqlite3.connect(layout_at(directory).database, isolation_level=None)) as db:
        database.set_meta(db, "facts_version", "0")


def _of_another_daemon(directory: Path) -> None:
    with closing(sqlite3.connect(layout_at(directory).database, isolation_level=None)) as db:
        database.set_identity(db, msgspec.structs.replace(IDENTITY, daemon_id="d_other"), IDENTITY.init_at)


def _leave_half_a_projection(directory: Path) -> None:
    _delete(directory)
    path = layout_at(directory).database
    path.with_name("messages.db.new").write_bytes(b"half")
    path.with_name("messages.db.new-wal").write_bytes(b"half")


@pytest.mark.parametrize(
    "damage",
    [
        _delete,
        _leave_a_stale_log,
        _spoil_the_head,
        _spoil_the_middle,
        _empty,
        _of_another_version,
        _of_another_daemon,
        _leave_half_a_projection,
    ],
)
def test_without_a_usable_database_the_same_projection_is_rebuilt(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path)
    store = open_here(tmp_path)
    epoch, before = store.view.epoch, projection_of(tmp_path)
    store.close()
    damage(tmp_path)
    again = open_here(tmp_path)
    assert again.recovery.rebuilt
    assert again.view.epoch != epoch
    commit(again, sending("next"))
    again.close()
    messages = [row for row in projection_of(tmp_path)["messages"] if "next" not in row]
    assert messages == before["messages"]
    names = {path.name for path in again.path.parent.iterdir()}
    assert names == {"messages.db"}


def _replace(author_journal: Path) -> None:
    copy = author_journal.with_suffix(".copy")
    shutil.copyfile(author_journal, copy)
    copy.replace(author_journal)


def _restore_an_older_one(author_journal: Path) -> None:
    os.truncate(author_journal, author_journal.read_bytes().index(b"\n") + 1)


def _swap_the_last_line(author_journal: Path) -> None:
    lines = author_journal.read_bytes().splitlines(keepends=True)
    fact = events.decode(lines[-1])
    assert isinstance(fact, MessageCreated)
    other = msgspec.structs.replace(fact, event_id=message().event_id, message_id=message().message_id)
    with author_journal.open("r+b") as file:
        file.write(b"".join([*lines[:-1], line_of(other)]))


@pytest.mark.parametrize(
    ("touch", "why", "left"),
    [
        (_replace, "was replaced", 6),
        (_restore_an_older_one, "is shorter than before", 4),
        (_swap_the_last_line, "holds other lines than before", 6),
        (Path.unlink, "is gone", 3),
    ],
)
def test_a_journal_that_is_another_one_is_believed_before_the_projection(
    tmp_path: Path, touch: Callable[[Path], None], why: str, left: int
) -> None:
    touch(filled(tmp_path))
    store = open_here(tmp_path)
    assert store.recovery.rebuilt == f"{AUTHOR_JOURNAL} {why}"
    assert store.view.head_seq() == left
    commit(store, sending("next"))
    store.close()
    again = open_here(tmp_path)
    assert again.recovery.rebuilt == ""
    again.close()


def test_a_copy_of_the_repository_rebuilds_the_same_projection(tmp_path: Path) -> None:
    filled(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    open_here(tmp_path / "there").close()
    assert projection_of(tmp_path / "there") == projection_of(tmp_path / "here")


async def test_a_projection_found_damaged_while_running_is_rebuilt_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("one"))
        store.committer.request_reopen()
        assert await store.committer.wait_broken() == "database_damaged"
    assert not layout_at(tmp_path).database.exists()
    async with opened(tmp_path) as store:
        assert store.view.head_seq() == 1


async def test_a_database_deleted_while_running_costs_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("one"))
        layout_at(tmp_path).database.unlink()
        await store.committer.commit(sending("two"))
        assert store.view.head_seq() == 2
    async with opened(tmp_path) as store:
        assert store.view.head_seq() == 2


# -- bad lines


BAD_LINES = [
    (b"\xff\xfe{}", "not_utf8"),
    (b"rubbish", "not_json"),
    (b'{"type":"message.create"', "not_json"),
    (b"[1,2]", "not_object"),
    (b"null", "not_object"),
    (b'{"type":"x","event_id":"evt_1"}', "missing_field"),
    (b'{"type":"x","timestamp":"yesterday","event_id":"evt_1"}', "missing_field"),
    (b'{"type":"message.delete","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_1","v":1}', "bad_field"),
    (b'{"type":"x","timestamp":"2026-02-03T10:00:00.000Z","event_id":"e","a":"' + b"x" * (8 << 20) + b'"}', "too_long"),
    (
        b'{"type":"agent.seen","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_2","v":1,"agent_id":"nux"}',
        "local_type_on_branch",
    ),
    (
        b'{"type":"monitor.set","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_3","v":1}',
        "local_type_on_branch",
    ),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("when", ["behind", "rebuilt"])
def test_a_bad_line_is_quarantined_and_the_whole_facts_around_it_survive(
    tmp_path: Path, bad: bytes, reason: str, when: str
) -> None:
    author_journal = filled(tmp_path)
    with author_journal.open("ab") as file:
        file.write(bad + b"\n" + line_of(message("after")) + bad + b"\n")
    held = author_journal.read_bytes()
    if when == "rebuilt":
        _delete(tmp_path)
    store = open_here(tmp_path)
    assert bool(store.recovery.rebuilt) is (when == "rebuilt")
    assert contents(store).count("after") == 1
    assert reasons(tmp_path) == [(AUTHOR_JOURNAL, reason)]
    assert store.recovery.quarantined == 1
    assert author_journal.read_bytes() == held, "a working file is not rewritten"
    commit(store, sending("next"))
    store.close()
    again = open_here(tmp_path)
    assert again.recovery == ("", 0, 1)
    again.close()


def test_a_truncated_last_line_is_cut_and_a_whole_one_counts(tmp_path: Path) -> None:
    author_journal = filled(tmp_path)
    with author_journal.open("ab") as file:
        file.write(line_of(message("whole")).removesuffix(b"\n"))
    store = open_here(tmp_path)
    assert contents(store)[-1] == "whole"
    store.close()
    with author_journal.open("ab") as file:
        file.write(line_of(message("torn"))[:50])
    store = open_here(tmp_path)
    assert store.recovery == ("", 0, 1)
    assert reasons(tmp_path) == [(AUTHOR_JOURNAL, "torn_tail")]
    commit(store, sending("next"))
    assert contents(store)[-2:] == ["whole", "next"]
    store.close()


def test_facts_of_a_newer_program_are_numbered_and_kept(tmp_path: Path) -> None:
    author_journal = filled(tmp_path)
    with author_journal.open("ab") as file:
        file.write(b'{"type":"poll.open","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_9","v":1,"x":1.5}\n')
    store = open_here(tmp_path)
    assert (store.recovery.applied, store.recovery.quarantined, store.view.head_seq()) == (1, 0, 7)
    store.close()


@pytest.mark.parametrize("smaller_last", [True, False])
@pytest.mark.parametrize("when", ["behind", "rebuilt"])
def test_of_two_lines_with_one_id_the_smaller_is_the_fact(tmp_path: Path, smaller_last: bool, when: str) -> None:
    author_journal = filled(tmp_path)
    fact = message("bbb")
    smaller, larger = (line_of(msgspec.structs.replace(fact, agent_id=name)) for name in ("furiosa", "max"))
    first, second = (larger, smaller) if smaller_last else (smaller, larger)
    with author_journal.open("ab") as file:
        file.write(first)
    open_here(tmp_path).close()
    with (layout_at(tmp_path).branch_dir / "messages/max.jsonl").open("ab") as file:
        file.write(second)
    if when == "rebuilt":
        _delete(tmp_path)
    store = open_here(tmp_path)
    row = store.view.message(fact.message_id)
    assert row is not None and row.agent_id == "furiosa"
    assert bool(store.recovery.rebuilt) is (smaller_last or when == "rebuilt")
    (entry,) = [msgspec.json.decode(line) for line in layout_at(tmp_path).quarantine.read_bytes().splitlines()]
    assert (entry["reason"], entry["text"].encode() + b"\n") == ("id_conflict", larger)
    store.close()
    again = open_here(tmp_path)
    assert again.recovery.rebuilt == ""
    again.close()


# -- places


def test_the_projection_mirrors_the_daemons_record(tmp_path: Path) -> None:
    filled(tmp_path)
    moved = msgspec.structs.replace(IDENTITY, repo_path="/elsewhere")
    store = open_blocking(
        layout_at(tmp_path), moved, frozenset({moved.daemon_id}), wall=HandClock(), program="test", boot_id="b"
    )
    assert store.recovery.rebuilt == ""
    assert database.identity(store.reader) == moved
    store.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("in the way")
    with pytest.raises(StoreFailed, match="could not write"):
        open_here(tmp_path)


def test_an_edit_after_a_start_is_later_than_what_it_edits(tmp_path: Path) -> None:
    wall = HandClock(START_MS)
    store = open_here(tmp_path, wall=wall)
    commit(store, sending("one"))
    message_id = store.reader.execute("SELECT message_id FROM messages").fetchone()[0]
    store.close()
    wall.ms -= 1000
    store = open_here(tmp_path, wall=wall)
    commit(store, editing(message_id, "edited"))
    row = store.view.message(message_id)
    assert row is not None and row.body_content == "edited"
    assert clock.parse_ms(row.updated_at) > START_MS
    store.close()


async def test_readings_share_a_connection_one_after_the_other_and_each_sees_its_moment(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with store.reading() as before:
            await store.committer.commit(sending("one"))
            with store.reading() as beside:
                assert (before.head_seq(), beside.head_seq()) == (0, 1)
            assert before.head_seq() == 0
        [idle] = store.idle
        with store.reading() as after:
            assert after.head_seq() == 1 and not store.idle
        assert store.idle == [idle]
        with pytest.raises(KeyError), store.reading():
            raise KeyError
        assert not store.idle, "nobody knows in what state it is"
    assert not store.idle


async def test_a_database_that_was_replaced_is_read_anew_and_one_that_is_gone_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.committer.commit(sending("one"))
        with store.reading():
            pass
        copy = tmp_path / "copy"
        with closing(sqlite3.connect(store.path)) as db, closing(sqlite3.connect(copy)) as other:
            db.backup(other)
            other.execute("DELETE FROM events")
            other.commit()
        os.rename(copy, store.path)
        for suffix in ("-wal", "-shm"):
            os.unlink(f"{store.path}{suffix}")
        with store.reading() as view:
            assert view.head_seq() == 0
        store.path.unlink()
        with pytest.raises(StoreFailed, match="removed"), store.reading():
            pass
