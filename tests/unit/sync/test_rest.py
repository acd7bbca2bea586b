"""Whatever a stranger pushes, clones come to rest: nobody answers a commit for ever, and nothing that counts goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.here import START_MS
from tests.support.store.arrivals import letter
from tests.support.store.opened import sending
from tests.support.sync.calm_clones import CalmClones, Files
from thrum.model import events
from thrum.store.api import Decision

FURIOSA, NUX = "messages/furiosa.jsonl", "messages/nux.jsonl"
OPAQUE = (
    b'{"type":"future.thing","timestamp":"2026-02-03T10:00:00.000Z","event_id":"evt_x1","v":1,"origin_daemon":"d_z"}\n'
)
NAMELESS = OPAQUE.replace(b"future.thing", b"message.delete").replace(b"}", b',"message_id":"msg_q"}')


@pytest.fixture
def calm(tmp_path: Path) -> Iterator[CalmClones]:
    """Two clones that have each other's messages."""
    made = CalmClones(tmp_path)
    made.clones[0].commit(sending("hello"), sending("x", author="nux"))
    made.round(0)
    made.round(1)
    yield made
    made.close()


@pytest.mark.parametrize(
    "around", [b"%b ", b" %b", b"%b\t", b"%b\r\r", b"\xef\xbb\xbf%b", b"\xef\xbb\xbf %b", b"%b \r"]
)
def test_blanks_around_a_line(calm: CalmClones, around: bytes) -> None:
    calm.clones[0].commit(sending("again"))
    calm.round(0)
    calm.push(lambda files: files.update({FURIOSA: around % files[FURIOSA].rstrip(b"\n") + b"\n"}))
    calm.round(1)
    assert calm.come_to_rest()


def part(calm: CalmClones, one: bytes, other: bytes) -> None:
    """The first clone gets a line in furiosa's file, the second another one, or the same, in nux's."""
    calm.push(lambda files: files.update({FURIOSA: files[FURIOSA] + one}))
    calm.round(0, push=False)

    def move(files: Files) -> None:
        files[FURIOSA] = files[FURIOSA].replace(one, b"")
        files[NUX] += other

    calm.push(move)
    calm.round(1, push=False)


@pytest.mark.parametrize("line", [OPAQUE, NAMELESS])
def test_a_line_that_may_lie_anywhere_in_two_files(calm: CalmClones, line: bytes) -> None:
    part(calm, line, line)
    assert calm.come_to_rest()


def test_one_id_in_the_files_of_three_authors(calm: CalmClones) -> None:
    """Each clone holds another one of the lines that lost."""

    def line_of(author: str, ms: int) -> bytes:
        return events.encode(msgspec.structs.replace(letter("x", author=author, ms=ms), event_id="evt_shared")) + b"\n"

    winner, one, other = line_of("ace", START_MS), line_of("furiosa", START_MS + 1), line_of("nux", START_MS + 2)
    part(calm, one, other)

    def end(files: Files) -> None:
        files[NUX] = files[NUX].replace(other, b"")
        files["messages/ace.jsonl"] = winner

    calm.push(end)
    assert calm.come_to_rest()


def test_a_working_file_that_was_removed_is_not_taken_off_the_branch(calm: CalmClones) -> None:
    clone = calm.clones[0]
    (clone.layout.branch_dir / NUX).unlink()
    clone.commit(
        lambda _view, stamp: Decision(
            (stamp.make(events.PurgeExecuted, cutoff="2020-01-01T00:00:00.000Z"),), lambda _view, _seqs: None
        )
    )
    with pytest.raises(Exception, match="replaced or changed"):
        calm.round(0)
    clone.stop("journal_changed")
    clone.start()
    assert calm.come_to_rest()
    assert b"message.create" in calm.files()[NUX]
