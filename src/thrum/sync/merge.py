"""How two sets of lines become one, the same in every clone. Pure (events.md §11 "Union").

A journal as the branch has it is *canonical*: each fact once, in the order of facts, each line its own bytes, without
what is tombstoned, replaced or unusable. So equal sets of facts give equal blobs, and clones that agree stop pushing.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from thrum.identity import signing
from thrum.model import clock, events, limits, signatures
from thrum.model.event_specs import EVENT_SPECS
from thrum.model.events import (
    AgentUpdated,
    AnyFact,
    BadLine,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    UnknownEvent,
)
from thrum.model.ids import JOURNAL_NAME_PATTERN
from thrum.model.origins import Provenance
from thrum.model.tombstones import (
    Fact,
    Order,
    Tombstones,
    branch_file_of,
    is_tombstoned,
    superseded_ids,
    tombstoned_ids,
)

JOURNAL_FILE: Final = re.compile(rf"events\.jsonl|messages/{JOURNAL_NAME_PATTERN}")
"""The files of the branch that are journals. Whatever else a foreign tree holds travels on unread."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """A journal as it goes onto the branch."""

    data: bytes
    strays: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict[str, tuple[bytes, ...]])
    """Lines that lie in this journal and belong into another, by that one's name."""
    plain: bool = False
    """Whether each line spells its id and its type as they are, so that bytes can be searched for them."""


@dataclass(frozen=True, slots=True)
class Grown:
    """A journal as it goes onto the branch, and which of its lines are new."""

    data: bytes
    added: tuple[bytes, ...]


class _Envelope(msgspec.Struct, gc=False):
    type: str
    timestamp: str
    event_id: str
    origin_daemon: str = ""


_Line = tuple[Order, bytes, AnyFact | UnknownEvent | None]
"""A line of a journal with its order; without fact one that is kept for newer programs."""

_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode

_LATER: Final = ("bad_field", "too_long")
"""What is wrong with a line that a newer program may be able to use."""
_GROWTH_LINES_MAX: Final = 64
_GROWTH_STEPS_MAX: Final = 512
_UPDATE: Final = b"agent.update"
_OF_SESSIONS: Final = tuple(
    type_.encode() for type_, spec in EVENT_SPECS.items() if spec.shared and spec.purge == "session"
)
"""Types of the branch whose facts a purge may tombstone later, when a session's end arrives."""


def canonical(file: str, data: bytes, tombstones: Tombstones, extra: Iterable[bytes] = ()) -> Canonical:
    """What of a journal's lines, and of `extra` ones found elsewhere, goes onto the branch.

    Lines that a newer program may understand stay, though this one cannot use them: opaque facts, a known type with a
    bad field, and lines over the limit. Unusable is what is not JSON, not an object, or has no envelope, and a forged
    line. Those of the journal are known to be none; an `extra` one is checked if it would represent its id. One that
    is forged or tombstoned gets into no journal, so it represents nothing and excludes no other line with its id.
    """
    chosen: dict[str, _Line] = {}
    others: dict[str, list[_Line]] = {}
    strays: dict[str, list[bytes]] = {}
    plain = True
    for number, raw in enumerate(itertools.chain(lines := split_lines(data), extra)):
        found = _read(raw)
        if found is None:
            continue
        order, fact = found
        plain = plain and _is_plain(raw, order, fact)
        home = _home(file, fact)
        event_id = order[1]
        if home != file:
            if home:
                strays.setdefault(home, []).append(raw)
        elif number >= len(lines):
            others.setdefault(event_id, []).append((order, raw, fact))
        elif event_id not in chosen or _rank(raw) < _rank(chosen[event_id][1]):
            chosen[event_id] = (order, raw, fact)
    for event_id, some in others.items():
        known = chosen.get(event_id)
        best = _best_of_branch(some, known, tombstones)
        if best is not None:
            chosen[event_id] = best
            plain = plain and known is None  # without this line another one would be there
    for event_id in _droppable(_judged(chosen, tombstones), tombstones):
        del chosen[event_id]
    ordered = [raw for _, raw, _ in sorted(chosen.values(), key=lambda line: line[:2])]
    strayed = {home: tuple(found) for home, found in strays.items()}
    return Canonical(b"\n".join([*ordered, b""]), strayed, plain)


def _best_of_branch(some: list[_Line], known: _Line | None, tombstones: Tombstones) -> _Line | None:
    """Of lines of one id that are not here the one that is the fact instead of the `known` one; None without any."""
    if some[1:]:
        some.sort(key=lambda line: _rank(line[1]))
    for line in some:
        if known is not None and _rank(known[1]) <= _rank(line[1]):
            return None
        if not _is_tombstoned(line, tombstones) and not signing.flaw_of(line[1]):
            return line
    return None


def _is_tombstoned(line: _Line, tombstones: Tombstones) -> bool:
    """Whether a line is tombstoned for what it says itself."""
    order, raw, fact = line
    if not tombstones or fact is None or isinstance(fact, UnknownEvent):
        return False
    return is_tombstoned(fact, order, tombstones.provenance(raw, fact), tombstones)


def grown(file: str, known: bytes, data: bytes, end: int, tombstones: Tombstones) -> Grown | None:
    """`canonical(file, data, voids).data`, made of `known`: that of the first `end` bytes, under the same tombstones.

    `known` must have been plain and without strays. So a line that was appended costs itself and a search for its id,
    not a look at all others. None where only `canonical` can tell.
    """
    if not 0 < end <= len(data) or data[end - 1] != ord("\n"):
        return None
    fresh: dict[str, _Line] = {}
    lines = split_lines(data[end:])
    if len(lines) > _GROWTH_LINES_MAX:
        return None
    for raw in lines:
        found = _read(raw)
        if found is None:
            continue
        order, fact = found
        event_id = order[1]
        if _home(file, fact) != file or not _is_plain(raw, order, fact):
            return None
        if event_id in fresh or data.find(event_id.encode(), 0, end) >= 0:
            return None
        fresh[event_id] = (order, raw, fact)
    if _depends_on_others(known, (fact for _, _, fact in fresh.values()), tombstones):
        return None
    for event_id in tombstoned_ids([line[:3] for line in _judged(fresh, tombstones)], tombstones):
        del fresh[event_id]
    if any(isinstance(fact, AgentUpdated) for _, _, fact in fresh.values()):
        known = _without_superseded(known, fresh)
    return _insert(known, sorted(line[:2] for line in fresh.values()))


def _depends_on_others(known: bytes, facts: Iterable[AnyFact | UnknownEvent | None], tombstones: Tombstones) -> bool:
    """Whether what is tombstoned hangs on more than each new line itself."""
    if tombstones.purges and any(word in known for word in _OF_SESSIONS):
        return True
    return any(
        isinstance(fact, MessageEdited | MessageDeleted) and fact.agent_id in tombstones.authors for fact in facts
    )


def _without_superseded(known: bytes, fresh: dict[str, _Line]) -> bytes:
    """Take what updates replaced out of `fresh`, and out of the known lines, which are returned."""
    spans: dict[str, tuple[int, int]] = {}
    updates = [(order, fact, _is_signed(raw, fact)) for order, raw, fact in fresh.values() if fact is not None]
    at = known.find(_UPDATE)
    while at >= 0:
        start, stop = known.rfind(b"\n", 0, at) + 1, known.index(b"\n", at) + 1
        found = _read(known[start : stop - 1])
        if found is not None and isinstance(found[1], AgentUpdated):
            updates.append((found[0], found[1], _is_signed(known[start : stop - 1], found[1])))
            spans[found[0][1]] = (start, stop)
        at = known.find(_UPDATE, stop)
    gone = superseded_ids(updates)
    for event_id in gone & fresh.keys():
        del fresh[event_id]
    begin, pieces = 0, list[bytes]()
    for start, stop in sorted(spans[event_id] for event_id in gone & spans.keys()):
        pieces.append(known[begin:start])
        begin = stop
    return b"".join([*pieces, known[begin:]]) if pieces else known


def _insert(known: bytes, fresh: Sequence[tuple[Order, bytes]]) -> Grown | None:
    """Put lines, in their order, among the known ones; None if that is far from the end."""
    stop, pieces, steps = len(known), list[bytes](), 0
    tail = stop
    for order, raw in reversed(fresh):
        while stop:
            start = known.rfind(b"\n", 0, stop - 1) + 1
            found = _read(known[start : stop - 1])
            steps += 1
            if found is None or steps > _GROWTH_STEPS_MAX:
                return None
            if found[0] < order:
                break
            stop = start
        pieces += [known[stop:tail], b"\n", raw]
        tail = stop
    return Grown(b"".join([known[:tail], *reversed(pieces)]), tuple(raw for _, raw in fresh))


def _rank(raw: bytes) -> tuple[signatures.Rank, int, bytes]:
    """Of several lines of one id that of least rank goes onto the branch, as it is the fact in every clone's
    projection; of lines that say the same the one of fewest bytes.
    """
    try:
        origin = _decode_envelope(raw).origin_daemon
    except (msgspec.MsgspecError, UnicodeDecodeError):
        origin = ""
    return signatures.rank(raw, signatures.is_signed(raw, origin)), len(raw), raw


def _home(file: str, fact: AnyFact | UnknownEvent | None) -> str:
    return file if fact is None or isinstance(fact, UnknownEvent) else branch_file_of(fact, file)


def _is_plain(raw: bytes, order: Order, fact: AnyFact | UnknownEvent | None) -> bool:
    if fact is not None and events.type_of(fact).encode() not in raw:
        return False
    return order[1].encode() in raw


_Judged = tuple[Order, AnyFact, Provenance, bool]
"""Order, fact, what its line is to all clones, and whether it is signed."""


def _judged(lines: Mapping[str, _Line], tombstones: Tombstones) -> list[_Judged]:
    return [
        (order, fact, tombstones.provenance(raw, fact), _is_signed(raw, fact))
        for order, raw, fact in lines.values()
        if fact is not None and not isinstance(fact, UnknownEvent)
    ]


def _is_signed(raw: bytes, fact: AnyFact | UnknownEvent) -> bool:
    """Only checked for updates; it does not matter for others."""
    return isinstance(fact, AgentUpdated) and signatures.is_signed(raw, fact.origin_daemon)


def _droppable(judged: Sequence[_Judged], tombstones: Tombstones) -> set[str]:
    """Event ids of what is tombstoned, and of what a later line that stays has replaced."""
    tombstoned = tombstoned_ids([line[:3] for line in judged], tombstones)
    return tombstoned | superseded_ids(
        (order, fact, signed) for order, fact, _, signed in judged if fact.event_id not in tombstoned
    )


def _read(raw: bytes) -> tuple[Order, AnyFact | UnknownEvent | None] | None:
    """A line's order and its fact (None: kept for newer programs); None for an unusable line."""
    if raw[:1] != b"{":
        return None
    try:
        fact = events.decode(raw)
        return events.order_of(fact), fact
    except BadLine as bad:
        if bad.reason not in _LATER:
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
    """Every whole line, without what is accepted silently: blanks around it, carriage returns, a BOM, blank lines."""
    lines = data.split(b"\n")
    lines.pop()  # what follows the last newline is no whole line
    return [line for raw in lines if (line := raw if raw[:1] == b"{" and raw[-1:] == b"}" else events.bare(raw))]


def sound(data: bytes) -> bytes:
    """A journal of the branch without forged lines: for what goes into a file that is believed."""
    lines = data.split(b"\n")
    kept = [line for line in lines if not signing.flaw_of(events.bare(line))]
    return data if len(kept) == len(lines) else b"\n".join(kept)


def missing(here: bytes, there: bytes) -> list[bytes]:
    """The lines of a journal there that it has not here, in their order, each once; a truncated last line
    counts too.
    """
    if there and not there.endswith(b"\n"):
        there += b"\n"
    known = set(split_lines(here))
    return [line for line in dict.fromkeys(split_lines(there)) if line not in known]


class Sifted(NamedTuple):
    """Lines to look at, and `surplus`: by reason, how many were left out, and their bytes."""

    lines: list[bytes]
    surplus: dict[str, tuple[int, int]]


def sift(lines: Iterable[bytes]) -> Sifted:
    """Drop unusable lines, but for the first of each kind: any clone with push access may push any number of
    them, and of so many the store keeps no more.
    """
    left: list[bytes] = []
    found: dict[str, tuple[int, int]] = {}
    for raw in lines:
        reason = _unusable_reason(raw)
        if reason:
            count, size = found.get(reason, (0, 0))
            found[reason] = (count + 1, size + len(raw))
            if count >= limits.quarantined_each_max:
                continue
            found[reason] = (count + 1, 0)
        left.append(raw)
    more = {reason: (count - limits.quarantined_each_max, size) for reason, (count, size) in found.items()}
    return Sifted(left, {reason: each for reason, each in more.items() if each[0] > 0})


def _unusable_reason(raw: bytes) -> str:
    """Roughly why a line is unusable, now and later; `""` for one that may be used, and for one too large to tell.
    Quick for what is not even like a fact: an error with its reason takes ten times as long.
    """
    if len(raw) > limits.line_bytes_max:
        return ""
    try:
        _decode_envelope(raw)
        events.decode(raw)
    except msgspec.ValidationError:
        return "missing_field"
    except BadLine as bad:
        return "" if bad.reason in _LATER else bad.reason
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "not_json"
    return ""


def joined(there: bytes, lines: Iterable[bytes]) -> bytes:
    """A journal there with these lines as well, in the order of facts. Nothing goes but what later lines replace."""
    ordered: list[tuple[Order, bytes]] = []
    updates: dict[str, tuple[Order, AnyFact | UnknownEvent, bool]] = {}
    for raw in sorted({*split_lines(there), *lines}, key=_rank, reverse=True):  # of one id the fact comes last
        order, fact = _read(raw) or (("", ""), None)
        ordered.append((order, raw))
        if isinstance(fact, AgentUpdated) and not signing.flaw_of(raw):
            updates[order[1]] = order, fact, _is_signed(raw, fact)
    gone = superseded_ids(updates.values())
    return b"\n".join([*(raw for order, raw in sorted(ordered) if order[1] not in gone), b""])


def wanted(file: str, lines: Sequence[bytes], tombstones: Tombstones, here: bytes = b"") -> list[tuple[str, bytes]]:
    """Of lines that are not in this journal here: each with the journal that it belongs into, tombstoned ones left out.

    `here` is what the journal holds: facts about a message that it holds are not tombstoned. What cannot be
    read is wanted too: the store quarantines it. Of lines of one id that which is likely to be the fact comes first:
    each that beats one before it costs a new projection.
    """
    readable = _best_first([(raw, _read(raw)) for raw in lines])
    if tombstones:
        # Each by itself: a tombstoned line keeps no other of its id out.
        readable = [
            (raw, found)
            for raw, found in readable
            if not found or not _is_tombstoned((found[0], raw, found[1]), tombstones)
        ]
    # Of several lines of one id one is the fact, here the last, and none that is forged: it alone tells what is
    # tombstoned.
    facts: dict[str, Fact] = {}
    times = Counter(found[0][1] for _, found in readable if found) if tombstones else Counter[str]()
    for raw, found in reversed(readable) if tombstones else ():
        if found is None or found[1] is None or isinstance(found[1], UnknownEvent):
            continue
        if times[found[0][1]] == 1 or not signing.flaw_of(raw):
            facts[found[0][1]] = found[0], found[1], tombstones.provenance(raw, found[1])
    tombstoned = tombstoned_ids([*facts.values()], tombstones)
    for _, fact, _ in facts.values():
        is_mark = isinstance(fact, MessageEdited | MessageDeleted)
        if is_mark and fact.event_id in tombstoned and _has_live_create(fact.message_id, here, tombstones):
            tombstoned.discard(fact.event_id)
    arrived: list[tuple[str, bytes]] = []
    for raw, found in readable:
        fact = found[1] if found else None
        if fact is None or isinstance(fact, UnknownEvent):
            arrived.append((file, raw))
        elif fact.event_id not in tombstoned:
            arrived.append((branch_file_of(fact, file) or file, raw))
    return arrived


_Readable = tuple[bytes, tuple[Order, AnyFact | UnknownEvent | None] | None]


def _best_first(readable: Sequence[_Readable]) -> list[_Readable]:
    """The lines, those of one id among each other in the order of their ranks."""
    layout: dict[str, list[int]] = {}
    for place, (_, found) in enumerate(readable):
        if found is not None:
            layout.setdefault(found[0][1], []).append(place)
    ordered = [*readable]
    for some in layout.values():
        if some[1:]:
            best = sorted((readable[place] for place in some), key=lambda line: _rank(line[0]))
            for place, line in zip(some, best, strict=True):
                ordered[place] = line
    return ordered


def _has_live_create(message_id: str, here: bytes, tombstones: Tombstones) -> bool:
    """Whether a journal holds a create of this message that is not tombstoned."""
    name = message_id.encode()
    for raw in split_lines(here) if name in here else ():
        found = _read(raw) if name in raw else None
        if found is None or not isinstance(found[1], MessageCreated) or found[1].message_id != message_id:
            continue
        if not is_tombstoned(found[1], found[0], tombstones.provenance(raw, found[1]), tombstones):
            return True
    return False


# -- what a commit says of itself

_WORDS: Final = {type_: spec.word for type_, spec in EVENT_SPECS.items() if spec.travels}
_PLACES: Final = {word: place for place, word in enumerate(_WORDS.values())}


def subject(added: Iterable[bytes], who: str) -> str:
    """`sync: 3 messages, 1 registration from alice@host`: the lines that a commit adds; `tidied` without any."""
    counts: Counter[str] = Counter()
    for raw in added:
        try:
            word = _WORDS.get(_decode_envelope(raw).type, "")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            word = ""
        counts[word or "other fact"] += 1
    parts = [_counted(count, word) for word, count in sorted(counts.items(), key=lambda item: _PLACES.get(item[0], 99))]
    return f"sync: {', '.join(parts) or 'tidied'} from {who}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
