"""Facts from before signing keep their validity: `accept` facts list each of those lines (events.md §11).

Done once, when a daemon that signs rebuilds a projection; after that only a person can accept lines. While there are
none yet, the period stays open: it is closed once the first branch that a fetch brings has been ingested.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from thrum.model import clock, events, limits, signatures
from thrum.model.events import KNOWN_V, Accepted, bare
from thrum.model.origins import line_hash
from thrum.store.journal import JournalFiles

_ACCEPTS: Final = b'{"type":"accept"'

AcceptArguments = tuple[str, str, str, tuple[str, ...]]
"""Kind, id, of and lines of an `accept`."""


def name_unsigned_lines(journals: JournalFiles, daemon_id: str, now_ms: int) -> int:
    """Name every unsigned line of the branch's journals, and close that time; how many there are.

    Nothing is written if there are none, or if it was closed before. Durable when it returns. Raises OSError.
    """
    if _is_closed(journals):
        return 0
    hashes: dict[str, None] = {}
    origins: set[str] = set()
    for file in journals.names():
        for line in journals.iter_lines(file) if file != events.LOCAL_FILE else ():
            try:
                origin = events.decode(line.raw).origin_daemon
            except events.BadLine:
                continue
            if not signatures.is_signed(line.raw, origin):
                hashes[line_hash(bare(line.raw))] = None
                origins.add(origin)
    if not hashes:
        return 0
    ulids = signatures.CertifiedUlids(daemon_id)
    facts = [
        Accepted(
            timestamp=clock.format_ms(now_ms),
            event_id="evt_" + ulids.at(now_ms),
            v=KNOWN_V,
            origin_daemon=daemon_id,
            kind=kind,
            id=id,
            of=of,
            lines=lines,
        )
        for kind, id, of, lines in accepts_of_before(hashes, origins)
    ]
    data = b"".join(events.encode(fact) + b"\n" for fact in facts)
    journals.settle(journals.append({events.LOCAL_FILE: data}))
    return len(hashes)


def accepts_of_before(hashes: Iterable[str], origins: Iterable[str]) -> Iterator[AcceptArguments]:
    """What is to be accepted so that these lines, and no others, count as from before signing; and later ones of their
    origins."""
    rest = iter(sorted(hashes))
    while some := tuple(islice(rest, limits.lines_before_max)):
        yield "before", "", "", some
    for origin in sorted(origins):
        if origin:
            yield "origin", origin, "", ()
    yield "before", "", "", ()


def _is_closed(journals: JournalFiles) -> bool:
    for line in journals.iter_lines(events.LOCAL_FILE):
        if line.raw.startswith(_ACCEPTS):
            try:
                fact = msgspec.json.decode(line.raw, type=_Word)
            except msgspec.MsgspecError:
                continue
            if fact.kind == "before" and not fact.lines:
                return True
    return False


class _Word(msgspec.Struct):
    kind: str
    lines: tuple[str, ...] = ()
