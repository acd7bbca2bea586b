"""Journals on disks that are full, read-only or slow: all or nothing, and then on it goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.store.disk import mounted, remount
from tests.support.store.journals import append, journals_at, line_of, message
from thrum.model import events
from thrum.model.errors import StoreFailed
from thrum.store.journal import JournalFiles

AUTHOR_JOURNAL = "messages/furiosa.jsonl"


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[JournalFiles]:
    journals = journals_at(tmp_path)
    yield journals
    journals.close()


def texts(journals: JournalFiles, file: str) -> list[str]:
    facts = [events.decode(line.raw) for line in journals.iter_lines(file)]
    return [fact.body.content for fact in facts if isinstance(fact, events.MessageCreated)]


def test_an_append_to_many_files_is_read_back_line_by_line(journals: JournalFiles) -> None:
    files = [f"messages/a{number}.jsonl" for number in range(20)]
    for round_ in range(3):
        buffers = {file: line_of(message(f"{file} {round_}")) for file in files}
        buffers[events.LOCAL_FILE] = buffers[events.EVENTS_FILE] = b"{}\n"
        journals.settle(journals.append(buffers))
    for file in files:
        assert texts(journals, file) == [f"{file} {number}" for number in range(3)]
        assert journals.end(file) == journals.path(file).stat().st_size
    assert journals.names() == [events.LOCAL_FILE, events.EVENTS_FILE, *sorted(files)]


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from tests.support.store.journals import journals_at, line_of, message
from thrum.model.errors import StoreFailed

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journals = journals_at(Path(sys.argv[1]))
files = [f"messages/a{number}.jsonl" for number in range(6)]
journals.settle(journals.append({file: line_of(message("kept", author=file)) for file in files}))
sizes = {file: journals.path(file).stat().st_size for file in files}
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
buffers = {file: line_of(message("short")) for file in files} | {files[3]: line_of(message("x" * 5000))}
try:
    journals.append(buffers | {"local.jsonl": b"{}\\n"})
except StoreFailed as error:
    print(error.message, "|", error.remedy)
assert {file: journals.path(file).stat().st_size for file in files} == sizes
assert journals.path("local.jsonl").stat().st_size == 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journals.settle(journals.append(buffers))
print(sum(1 for file in files for _ in journals.iter_lines(file)))
journals.close()
"""


def test_a_write_that_fails_half_way_leaves_no_part_of_any_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    refusal, lines = done.stdout.splitlines()
    assert refusal == (
        f"could not write {tmp_path}/a-sync/messages/a3.jsonl: file too large"
        " | free space, then repeat the command; nothing was recorded"
    )
    assert lines == "12"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "1m") as directory:
        yield directory


def test_on_a_full_disk_nothing_stays_and_writing_goes_on_when_there_is_room(small_disk: Path) -> None:
    journals = journals_at(small_disk)
    append(journals, AUTHOR_JOURNAL, [message("kept")])
    kept = journals.path(AUTHOR_JOURNAL).read_bytes()
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 900_000)
    for _ in range(3):
        with pytest.raises(StoreFailed, match="no space left on device"):
            journals.append({events.EVENTS_FILE: b"{}\n", AUTHOR_JOURNAL: line_of(message("x" * 500_000))})
        assert journals.path(AUTHOR_JOURNAL).read_bytes() == kept
    filler.unlink()
    append(journals, AUTHOR_JOURNAL, [message("x" * 500_000)])
    assert len(texts(journals, AUTHOR_JOURNAL)) == 2


def test_a_read_only_file_system_is_named_with_its_fix(small_disk: Path) -> None:
    journals = journals_at(small_disk)
    append(journals, AUTHOR_JOURNAL, [message("kept")])
    remount(small_disk, "ro")
    with pytest.raises(StoreFailed, match="read-only file system") as caught:
        journals.append({AUTHOR_JOURNAL: line_of(message("lost"))})
    assert "permissions" in caught.value.remedy
    remount(small_disk, "rw")
    append(journals, AUTHOR_JOURNAL, [message("next")])
    assert texts(journals, AUTHOR_JOURNAL) == ["kept", "next"]


def test_what_could_not_be_cut_back_is_cut_before_the_next_append(small_disk: Path) -> None:
    journals = journals_at(small_disk)
    append(journals, AUTHOR_JOURNAL, [message("kept")])
    journals.append({AUTHOR_JOURNAL: line_of(message("unwanted"))})
    remount(small_disk, "ro")
    journals.undo()
    with pytest.raises(StoreFailed):
        journals.append({events.EVENTS_FILE: b"{}\n"})
    assert texts(journals, AUTHOR_JOURNAL) == ["kept", "unwanted"]
    remount(small_disk, "rw")
    append(journals, events.EVENTS_FILE, [message("next")])
    assert texts(journals, AUTHOR_JOURNAL) == ["kept"]
