"""Lines that arrived on the branch: what each of them is, and where it belongs. Pure (events.md §5, §7, §11)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from thrum.identity import signing
from thrum.model import events, signatures
from thrum.model.events import AnyFact, UnknownEvent
from thrum.model.tombstones import branch_file_of
from thrum.store.journal import bare, is_branch_file

_PORTION_LINES: Final = 32
_PORTION_BYTES: Final = 256 * 1024
"""How much is decided without a turn for others on the loop: some milliseconds."""

_SAME_ID_MAX: Final = 8
"""Of more lines of one id all but the one that counts are quarantined without asking the projection."""

Found = tuple[str, bytes]
"""The journal of the branch in which a line was found, and the line without its newline."""


class Ingested(NamedTuple):
    """What became of lines that arrived. `quarantined` counts those that went to quarantine now, `ours` new facts that
    say that they are of this daemon, although it did not have them.
    """

    new: int
    quarantined: int
    ours: int = 0


class Classified(NamedTuple):
    """A usable `fact` and the journal that it belongs into; or None, the `reason` why it can't be used, and the
    journal in which the line stays all the same (`""`: in none).
    """

    fact: AnyFact | UnknownEvent | None
    file: str
    reason: str = ""


class Verified(NamedTuple):
    """A line that arrived, looked at: the journal in which it was found, its bytes, and what it is."""

    file: str
    raw: bytes
    classified: Classified

    @property
    def is_refused(self) -> bool:
        """Whether it comes into no journal."""
        return self.classified.fact is None and not self.classified.file


def classify_line(file: str, raw: bytes, reason: str = "") -> Classified:
    """What a line found in the journal `file` is; `reason`: that of `verified`. Raises ValueError if `file` is none of
    the branch.
    """
    if not is_branch_file(file):
        raise ValueError(f"not a journal of the branch: {file!r}")
    if reason or b"\n" in raw:
        return Classified(None, "", reason or "not_json")
    try:
        fact = events.decode(raw)
    except events.BadLine as bad:
        # What is only bad for this program stays: a newer one may know better.
        return Classified(None, file if bad.reason == "bad_field" else "", bad.reason)
    if events.never_travels(fact):
        return Classified(None, "", "local_type_on_branch")
    return Classified(fact, file if isinstance(fact, UnknownEvent) else branch_file_of(fact, file))


def verified(arrived: Iterable[Found]) -> list[Verified]:
    """The lines, looked at: without what is accepted silently and not written on, and without blank ones.

    All lines from elsewhere pass through here: what leaves it without a reason may be in a journal. A
    signature takes 0.1 ms: not for the loop. Of very many lines of one id the store is to look at few.
    """
    found = [(file, line) for file, raw in arrived if (line := bare(raw)) and not line.isspace()]
    flaws = signing.flaws_of([line for _, line in found])
    looked_at = [
        Verified(file, raw, classify_line(file, raw, flaw)) for (file, raw), flaw in zip(found, flaws, strict=True)
    ]
    ids = Counter(line.classified.fact.event_id for line in looked_at if line.classified.fact is not None)
    best: dict[str, signatures.Rank] = {}
    for line in looked_at if len(ids) < ids.total() else ():
        fact = line.classified.fact
        if fact is not None and ids[fact.event_id] > _SAME_ID_MAX:
            rank = _rank(line.raw, fact)
            best[fact.event_id] = min(rank, best.get(fact.event_id, rank))
    return [_against(line, best) for line in looked_at] if best else looked_at


def _against(line: Verified, best: Mapping[str, signatures.Rank]) -> Verified:
    """The line, refused if another one of its id is the fact. The same one, twice, is no conflict."""
    fact = line.classified.fact
    if fact is None or fact.event_id not in best or _rank(line.raw, fact)[1] == best[fact.event_id][1]:
        return line
    return line._replace(classified=Classified(None, "", "id_conflict"))


def _rank(raw: bytes, fact: AnyFact | UnknownEvent) -> signatures.Rank:
    return signatures.rank(raw, signatures.is_signed(raw, fact.origin_daemon))


def turns_of(arrived: Iterable[Verified]) -> Iterator[Sequence[Verified]]:
    """The lines in turns that are soon decided; those that come into no journal are one."""
    arrived = [*arrived]
    if refused := [line for line in arrived if line.is_refused]:
        yield refused
    some: list[Verified] = []
    size = 0
    for line in arrived:
        if line.is_refused:
            continue
        if some and (len(some) == _PORTION_LINES or size + len(line.raw) > _PORTION_BYTES):
            yield some
            some, size = [], 0
        some.append(line)
        size += len(line.raw)
    if some:
        yield some
