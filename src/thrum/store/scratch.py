"""A projection of journals that are not the ones here, such as those of the branch. Rebuilt to be read once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from thrum.model import events, ids
from thrum.store import audit, database
from thrum.store import rebuild as rebuilding
from thrum.store.journal import bare
from thrum.store.projection.entry import Entry, entry_of
from thrum.store.queries.views import View


@contextmanager
def open_beside(journals: Mapping[str, bytes], own: frozenset[str], now_ms: int) -> Generator[View]:
    """The projection of these journals, by file name, in a temporary directory. Raises OSError."""

    def read_line(file: str, offset: int, length: int) -> bytes:
        return bare(journals[file][offset : offset + length])

    with tempfile.TemporaryDirectory(prefix="thrum-") as directory:
        path = Path(directory) / "beside.db"
        epoch = ids.Ulids().at(now_ms)
        sources = [rebuilding.Source(file, _reader(file, data)) for file, data in journals.items()]
        rebuilding.rebuild(path, sources, own, read_line, epoch=epoch, now_ms=now_ms, program="beside")
        with closing(database.open_reader(path)) as db:
            yield View(db, own)


def _reader(file: str, data: bytes) -> Callable[[Callable[[bytes], bool] | None], Iterator[Entry]]:
    return lambda wanted: _entries(file, data, wanted)


def _entries(file: str, data: bytes, wanted: Callable[[bytes], bool] | None) -> Iterator[Entry]:
    """The usable facts of a journal's bytes."""
    offset = 0
    for line in _lines(data):
        raw = bare(line)
        if raw and not raw.isspace() and (wanted is None or wanted(raw)):
            with suppress(events.BadLine):
                yield entry_of(audit.decode(file, raw), raw, file, offset, len(line))
        offset += len(line)


def _lines(data: bytes) -> Iterator[bytes]:
    """Each whole line. A carriage return alone ends none."""
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        yield data[start:end]
        start = end
