"""Lines that arrived on the branch: what each of them is, and where it belongs. Pure (events.md §5, §7, §11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from thrum import events
from thrum.events import AnyFact, Sealed
from thrum.store.journal import bare, is_branch_file
from thrum.voids import branch_file_of

_PORTION_LINES: Final = 32
_PORTION_BYTES: Final = 256 * 1024
"""How much is decided without a turn for others on the loop: some milliseconds."""

Found = tuple[str, bytes]
"""The journal of the branch in which a line was found, and the line without its newline."""


class TakenIn(NamedTuple):
    """What became of lines that arrived. `set_aside` counts those that went to quarantine now, `ours` new facts that
    say that they are of this daemon, although it did not have them.
    """

    new: int
    set_aside: int
    ours: int = 0


class Judged(NamedTuple):
    """A usable `fact` and the journal that it belongs into; or None, the `reason` why it can't be used, and the
    journal in which the line stays all the same (`""`: in none).
    """

    fact: AnyFact | Sealed | None
    file: str
    reason: str = ""


def judge(file: str, raw: bytes) -> Judged:
    """What a line found in the journal `file` is. Raises ValueError if `file` is none of the branch."""
    if not is_branch_file(file):
        raise ValueError(f"not a journal of the branch: {file!r}")
    if b"\n" in raw:
        return Judged(None, "", "not_json")
    try:
        fact = events.decode(raw)
    except events.BadLine as bad:
        # What is only bad for this program stays: a newer one may know better.
        return Judged(None, file if bad.reason == "bad_field" else "", bad.reason)
    if events.never_travels(fact):
        return Judged(None, "", "local_type_on_branch")
    return Judged(fact, file if isinstance(fact, Sealed) else branch_file_of(fact, file))


def bared(arrived: Iterable[Found]) -> Iterator[Found]:
    """The lines without what is accepted silently and not written on, and without blank ones."""
    for file, raw in arrived:
        line = bare(raw)
        if line and not line.isspace():
            yield file, line


def portions(arrived: Iterable[Found]) -> Iterator[Sequence[Found]]:
    """The lines in portions that are soon decided."""
    some: list[Found] = []
    size = 0
    for line in bared(arrived):
        if some and (len(some) == _PORTION_LINES or size + len(line[1]) > _PORTION_BYTES):
            yield some
            some, size = [], 0
        some.append(line)
        size += len(line[1])
    if some:
        yield some
