"""The journals as files: all or nothing, never into a file that someone touched, truncated last lines fixed."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.here import HandClock
from tests.support.store.journals import append, journals_at, line_of, message
from thrum.model import events, limits
from thrum.store.journal import JournalChanged, JournalFiles, recover_tail
from thrum.store.quarantine import Quarantine

AUTHOR_JOURNAL = "messages/furiosa.jsonl"


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[JournalFiles]:
    journals = journals_at(tmp_path)
    yield journals
    journals.close()


def texts(journals: JournalFiles, file: str) -> list[str]:
    facts = [events.decode(line.raw) for line in journals.iter_lines(file)]
    return [fact.body.content for fact in facts if isinstance(fact, events.MessageCreated)]


# -- appending


def test_files_and_directories_are_private(journals: JournalFiles) -> None:
    append(journals, AUTHOR_JOURNAL, [message()])
    assert journals.path(AUTHOR_JOURNAL).stat().st_mode & 0o777 == 0o600
    assert journals.branch_dir.stat().st_mode & 0o777 == 0o700
    assert (journals.branch_dir / "messages").stat().st_mode & 0o777 == 0o700


def test_an_unsettled_append_can_be_taken_back(journals: JournalFiles) -> None:
    append(journals, AUTHOR_JOURNAL, [message("kept")])
    kept = journals.path(AUTHOR_JOURNAL).read_bytes()
    journals.append({AUTHOR_JOURNAL: line_of(message("dropped")), events.EVENTS_FILE: b"{}\n"})
    journals.undo()
    assert journals.path(AUTHOR_JOURNAL).read_bytes() == kept
    assert journals.path(events.EVENTS_FILE).read_bytes() == b""
    append(journals, AUTHOR_JOURNAL, [message("next")])
    append(journals, events.EVENTS_FILE, [message("there")])
    assert texts(journals, AUTHOR_JOURNAL) == ["kept", "next"]
    assert texts(journals, events.EVENTS_FILE) == ["there"]


@pytest.mark.parametrize("touch", ["replaced", "extended", "cut", "gone", "a link"])
def test_nothing_is_written_into_a_file_that_someone_touched(
    journals: JournalFiles, tmp_path: Path, touch: str
) -> None:
    append(journals, AUTHOR_JOURNAL, [message("first")])
    path = journals.path(AUTHOR_JOURNAL)
    other = tmp_path / "other.jsonl"
    shutil.copyfile(path, other)
    if touch == "replaced":
        other.replace(path)
    elif touch == "extended":
        path.write_bytes(path.read_bytes() + b"rubbish\n")
    elif touch == "cut":
        os.truncate(path, 5)
    else:
        path.unlink()
        if touch == "a link":
            path.symlink_to(other)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(JournalChanged) as caught:
        journals.append({events.LOCAL_FILE: b"{}\n", AUTHOR_JOURNAL: line_of(message("second"))})
    assert caught.value.kind == "store_failed"
    assert caught.value.details == {"cause": "journal_changed"}
    assert (path.read_bytes() if path.exists() else None) == before
    assert journals.path(events.LOCAL_FILE).read_bytes() == b"", "what the same batch wrote elsewhere is taken back"


def test_a_file_that_appeared_by_itself_is_left_alone(journals: JournalFiles) -> None:
    journals.path(AUTHOR_JOURNAL).write_bytes(b"whose is this\n")
    with pytest.raises(JournalChanged):
        journals.append({AUTHOR_JOURNAL: line_of(message())})
    assert journals.path(AUTHOR_JOURNAL).read_bytes() == b"whose is this\n"


# -- failing


# -- reading


def test_blank_lines_carriage_returns_and_a_bom_are_accepted_silently(journals: JournalFiles) -> None:
    facts = [message(str(number)) for number in range(3)]
    lines = [line_of(fact) for fact in facts]
    path = journals.path(AUTHOR_JOURNAL)
    path.write_bytes(
        b"\xef\xbb\xbf" + lines[0].replace(b"\n", b"\r\n") + b"\n  \n\r\n" + lines[1] + lines[2] + b"{half"
    )
    read = list(journals.iter_lines(AUTHOR_JOURNAL))
    assert [events.decode(line.raw) for line in read] == facts
    assert [journals.read_line(AUTHOR_JOURNAL, line.offset, line.length) for line in read] == [
        line.raw for line in read
    ]
    assert [line.raw for line in journals.iter_lines(AUTHOR_JOURNAL, read[1].offset, read[2].offset)] == [read[1].raw]


def test_names_are_regular_files_only(journals: JournalFiles, tmp_path: Path) -> None:
    append(journals, AUTHOR_JOURNAL, [message()])
    folder = journals.branch_dir / "messages"
    (folder / "link.jsonl").symlink_to(journals.path(AUTHOR_JOURNAL))
    (folder / "folder.jsonl").mkdir()
    (folder / ".hidden.jsonl").touch()
    (folder / "notes.txt").touch()
    with contextlib.suppress(OSError):  # some file systems take text only
        (folder / os.fsdecode(b"\xff.jsonl")).touch()
    assert journals.names() == [AUTHOR_JOURNAL]


# -- truncated last lines


def recover(journals: JournalFiles, quarantine: Quarantine) -> None:
    def quarantine_line(file: str, offset: int, raw: bytes, reason: str) -> None:
        quarantine.add(file, offset, raw, reason)
        quarantine.flush()

    recover_tail(journals, AUTHOR_JOURNAL, quarantine_line)


def test_a_file_cut_at_any_byte_of_its_last_line_loses_only_what_was_not_whole(tmp_path: Path) -> None:
    journals = journals_at(tmp_path)
    whole, last = line_of(message("whole")), line_of(message("last ü 😀"))
    path = journals.path(AUTHOR_JOURNAL)
    for cut in range(len(last) + 1):
        quarantine = Quarantine(tmp_path / f"quarantine-{cut}.jsonl", HandClock())
        path.write_bytes(whole + last[:cut])
        recover(journals, quarantine)
        entries = list(quarantine.entries())
        if cut >= len(last) - 1:
            assert path.read_bytes() == whole + last
            assert entries == []
        else:
            assert path.read_bytes() == whole
            assert [entry.reason for entry in entries] == (["torn_tail"] if cut else [])
        append(journals, AUTHOR_JOURNAL, [message("after")])
        assert texts(journals, AUTHOR_JOURNAL)[0] == "whole"
        assert texts(journals, AUTHOR_JOURNAL)[-1] == "after"


@pytest.mark.parametrize("tail", [b"\0" * 5000, b"\xff\xfe", b"{", b"null", b"[1]", b'{"type":"x"}', b"x" * 100_000])
def test_a_tail_of_rubbish_is_kept_in_quarantine_and_cut(journals: JournalFiles, tmp_path: Path, tail: bytes) -> None:
    path = journals.path(AUTHOR_JOURNAL)
    for before in (b"", line_of(message("whole"))):
        path.write_bytes(before + tail)
        quarantine = Quarantine(tmp_path / f"quarantine-{len(before)}.jsonl", HandClock())
        recover(journals, quarantine)
        assert path.read_bytes() == before
        (entry,) = quarantine.entries()
        assert (entry.file, entry.offset, entry.length) == (AUTHOR_JOURNAL, len(before), len(tail))
        assert entry.text.encode() == tail or entry.base64


# -- quarantine


def test_the_quarantine_keeps_each_line_of_a_file_once_also_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, HandClock())
    assert quarantine.add(AUTHOR_JOURNAL, 0, b"rubbish", "not_json")
    assert not quarantine.add(AUTHOR_JOURNAL, 99, b"rubbish", "not_json")
    quarantine.flush()
    path.write_bytes(path.read_bytes() + b'{"torn')
    again = Quarantine(path, HandClock())
    assert not again.add(AUTHOR_JOURNAL, 0, b"rubbish", "not_json")
    assert again.add("events.jsonl", 0, b"rubbish", "not_json")
    assert again.add(AUTHOR_JOURNAL, 7, b"\xff", "not_utf8")
    again.flush()
    assert [(e.file, e.reason, e.text, e.base64) for e in again.entries()] == [
        (AUTHOR_JOURNAL, "not_json", "rubbish", ""),
        ("events.jsonl", "not_json", "rubbish", ""),
        (AUTHOR_JOURNAL, "not_utf8", "", "/w=="),
    ]
    assert len(Quarantine(path, HandClock())) == 3
    first = msgspec.json.decode(path.read_bytes().splitlines()[0])
    assert list(first) == ["at", "file", "offset", "length", "reason", "sha256", "text"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_a_huge_line_of_the_branch_the_quarantine_keeps_the_start(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", HandClock())
    huge = b"x" * (limits.line_bytes_max + 1)
    assert quarantine.add(AUTHOR_JOURNAL, -1, huge, "too_long")
    assert not quarantine.add(AUTHOR_JOURNAL, -1, huge, "too_long")
    (kept,) = quarantine.entries()
    assert (kept.length, len(kept.text)) == (len(huge), limits.quarantined_bytes_max)
    assert quarantine.path.stat().st_size < limits.line_bytes_max / 8


def test_the_open_file_limit_does_not_matter_for_a_batch_of_many_files(journals: JournalFiles) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 128), hard))
    try:
        journals.settle(journals.append({f"messages/a{number}.jsonl": b"{}\n" for number in range(300)}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(journals.names()) == 300
