"""How two piles of lines become one, the same in every clone. Pure (events.md §11 "Union").

A journal as the branch has it is *canonical*: each fact once, in the order of facts, each line its own bytes, without
what is void, replaced or unusable. So equal sets of facts give equal blobs, and clones that agree stop pushing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from thrum import clock, events, limits
from thrum.events import AnyFact, BadLine, Sealed
from thrum.ids import JOURNAL_NAME_PATTERN
from thrum.voids import Order, Voids, branch_file_of, superseded_ids, void_ids

JOURNAL_FILE: Final = re.compile(rf"events\.jsonl|messages/{JOURNAL_NAME_PATTERN}")
"""The files of the branch that are journals. Whatever else a foreign tree holds travels on unread."""

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Canonical:
    """A journal as it goes onto the branch."""

    data: bytes
    strays: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict[str, tuple[bytes, ...]])
    """Lines that lie in this journal and belong into another, by that one's name."""


class _Envelope(msgspec.Struct, gc=False):
    type: str
    timestamp: str
    event_id: str


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode


def canonical(file: str, data: bytes, voids: Voids, extra: Iterable[bytes] = ()) -> Canonical:
    """What of a journal's lines, and of `extra` ones found elsewhere, goes onto the branch.

    Lines that a newer program may understand stay, though this one cannot use them: sealed facts, a known type with a
    bad field, and lines over the limit. Nobody can use what is no JSON, no object, or has no envelope.
    """
    chosen: dict[str, tuple[Order, bytes]] = {}
    facts: dict[str, tuple[Order, AnyFact]] = {}
    strays: dict[str, list[bytes]] = {}
    for raw in (*split_lines(data), *extra):
        found = _read(raw)
        if found is None:
            continue
        order, fact = found
        home = file if fact is None or isinstance(fact, Sealed) else branch_file_of(fact, file)
        if home != file:
            if home:
                strays.setdefault(home, []).append(raw)
            continue
        event_id = order[1]
        known = chosen.get(event_id)
        if known is not None and known[1] <= raw:
            continue
        chosen[event_id] = (order, raw)
        if fact is None or isinstance(fact, Sealed):
            facts.pop(event_id, None)
        else:
            facts[event_id] = (order, fact)
    for event_id in _droppable(facts, voids):
        del chosen[event_id]
    lines = [raw for _, raw in sorted(chosen.values())]
    return Canonical(b"\n".join([*lines, b""]), {home: tuple(found) for home, found in strays.items()})


def _droppable(facts: Mapping[str, tuple[Order, AnyFact]], voids: Voids) -> set[str]:
    """Event ids of what is void, and of what a later line that stays has replaced."""
    void = void_ids([*facts.values()], voids)
    return void | superseded_ids(entry for event_id, entry in facts.items() if event_id not in void)


def _read(raw: bytes) -> tuple[Order, AnyFact | Sealed | None] | None:
    """A line's order and its fact (None: kept for newer programs); None for what nobody can use."""
    try:
        fact = events.decode(raw)
        return events.order_of(fact), fact
    except BadLine as bad:
        if bad.reason not in ("bad_field", "too_long"):
            return None
    try:
        envelope = _decode_envelope(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return ((_comparable(envelope.timestamp), envelope.event_id), None) if envelope.event_id else None


def _comparable(time: str) -> str:
    try:
        return clock.normalise(time)
    except ValueError:
        return time


def split_lines(data: bytes) -> list[bytes]:
    """Every whole line, without what is accepted silently: carriage returns, blank lines, a BOM."""
    lines = data.removeprefix(_BOM).split(b"\n")
    lines.pop()  # what follows the last newline is no whole line
    if b"\r" in data:
        lines = [line.removesuffix(b"\r") for line in lines]
    return [line for line in lines if line and not line.isspace()]


def missing(here: bytes, there: bytes) -> list[bytes]:
    """The lines of a journal there that it has not here, in their order. A torn last line there counts too."""
    if there and not there.endswith(b"\n"):
        there += b"\n"
    known = set(split_lines(here))
    return [line for line in split_lines(there) if line not in known]


def oversize(data: bytes) -> list[bytes]:
    """Lines over the limit: they are never taken in, and travel on."""
    if len(data) <= limits.line_bytes_max:
        return []
    return [line for line in split_lines(data) if len(line) > limits.line_bytes_max]


def wanted(file: str, lines: Sequence[bytes], voids: Voids) -> list[tuple[str, bytes]]:
    """Of lines that are not in this journal here: each with the journal that it belongs into, void ones left out.

    What cannot be read is wanted too: the store sets it aside.
    """
    readable = [(raw, _read(raw)) for raw in lines]
    facts: list[tuple[Order, AnyFact]] = []
    for _, found in readable:
        if found and found[1] is not None and not isinstance(found[1], Sealed):
            facts.append((found[0], found[1]))
    void = void_ids(facts, voids)
    arrived: list[tuple[str, bytes]] = []
    for raw, found in readable:
        fact = found[1] if found else None
        if fact is None or isinstance(fact, Sealed):
            arrived.append((file, raw))
        elif fact.event_id not in void:
            arrived.append((branch_file_of(fact, file) or file, raw))
    return arrived


# -- what a commit says of itself

_WORDS: Final = {
    "message.create": "message",
    "message.edit": "edit",
    "message.delete": "deletion",
    "message.receipt": "receipt",
    "agent.register": "registration",
    "agent.session.start": "session start",
    "agent.session.end": "session end",
    "agent.cleanup": "cleanup",
    "agent.update": "update",
    "agent.context": "note",
    "purge.executed": "purge",
}
_ORDER: Final = {word: place for place, word in enumerate(_WORDS.values())}


def subject(added: Iterable[bytes], who: str) -> str:
    """`sync: 3 messages, 1 registration from alice@host`: the lines that a commit adds; `tidied` without any."""
    counts: Counter[str] = Counter()
    for raw in added:
        try:
            word = _WORDS.get(_decode_envelope(raw).type, "")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            word = ""
        counts[word or "other fact"] += 1
    parts = [_counted(count, word) for word, count in sorted(counts.items(), key=lambda item: _ORDER.get(item[0], 99))]
    return f"sync: {', '.join(parts) or 'tidied'} from {who}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
