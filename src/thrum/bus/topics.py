"""Which audiences a fact goes to, and what the hint says: topics, hints, heads. No I/O. Source: rpc.md §8.

An *audience* is what a subscriber subscribes to, with its slash: `agent/bob/`, `all/`. A topic is an audience and an
event: `agent/bob/message.create`. Live hints and `events.since` both come from here, so replay and live agree.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from thrum.model import ids, limits
from thrum.model.addressing import address_of
from thrum.model.event_specs import Audience
from thrum.model.events import (
    SPECS,
    AnyFact,
    GroupCreated,
    GroupFact,
    MessageCreated,
    MessageDeleted,
    MessageFact,
    MessageReceipt,
    Pair,
    UnknownEvent,
    actor_of,
    type_of,
)
from thrum.model.wire_types import Hint

ALL: Final = "all/"
TEAM: Final = "team/"
DAEMON: Final = "daemon/"
HEAD: Final = "head"
TOPICS: Final = ("agent/<id>/", "role/<role>/", "group/<name>/", ALL, TEAM, DAEMON)
"""The audiences there are, as `bus.info` names them."""

EVENT_BYTES_MAX: Final = 128
"""A longer event name (only a foreign, opaque fact has one) is cut in its topic."""

_AUDIENCE: Final = re.compile(r"(?:agent|role|group)/[A-Za-z0-9_.:%-]+/|all/|team/", re.ASCII)
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-:")
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class About(NamedTuple):
    """The row that a fact is about: what an edit, a delete, a receipt or a group change does not say itself.

    For message facts the message's author, thread, recipients, audiences and quietness; for group facts the group's
    name. None instead of an `About` = the thing is not there (yet): such a fact is announced on `all/` only.
    """

    agent_id: str = ""
    thread_id: str = ""
    recipients: tuple[str, ...] = ()
    audiences: tuple[Pair, ...] = ()
    quiet: bool = False
    group: str = ""


# -- names


@functools.lru_cache(maxsize=4096)
def agent_audience(agent_id: str) -> str:
    """The one stream that carries an agent's or user's inbox: `agent/bob/`, `agent/user:leon/`."""
    parsed = ids.parse_agent_id(agent_id)
    return f"agent/{_stem(parsed.canonical)}/"


@functools.lru_cache(maxsize=1024)
def role_audience(role: str) -> str:
    return f"role/{_stem(role)}/"


@functools.lru_cache(maxsize=1024)
def group_audience(name: str) -> str:
    return f"group/{_stem(name)}/"


def _stem(text: str) -> str:
    """A name inside a topic: as file stems (events.md §6), but `:` stays. No slash, no blank, at most 100 bytes."""
    encoded = text.encode("utf-8", "surrogatepass")
    stem = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in encoded) or "%"
    if len(stem) <= ids.STEM_BYTES_MAX:
        return stem
    return f"{stem[:83]}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def is_audience(subscription: str) -> bool:
    """Whether a subscription names exactly one stream: a head frame answers it, and its hints chain by `prev`.

    `daemon/` is none: its frames stand for themselves.
    """
    return len(subscription) <= limits.subscription_bytes_max and _AUDIENCE.fullmatch(subscription) is not None


def audience_of_topic(topic: str) -> str:
    """`agent/bob/` of `agent/bob/message.create`."""
    return topic[: topic.rfind("/") + 1]


def event_of(fact: AnyFact | UnknownEvent) -> str:
    """The last part of a topic and the `type` of a hint. Never `head`, whatever a foreign fact calls itself."""
    name = type_of(fact)
    if len(name) > EVENT_BYTES_MAX or not name.isascii() or "/" in name:
        name = _stem(name)
    return f"fact.{name}" if name == HEAD else name


# -- who hears of it


def audiences_of(fact: AnyFact | UnknownEvent, about: About | None = None, *, pending: bool = False) -> tuple[str, ...]:
    """Every audience of a fact, each once, in a stable order: agents, roles, groups, `team/`, `all/`.

    `pending`: the fact waits for its thing, so only `all/` hears of it; so it is with an edit, delete, receipt or group
    change without `about`.
    """
    if pending or isinstance(fact, UnknownEvent):
        return (ALL,)
    # Two spellings of one id, or two names with one stem, are one audience: a dict keeps each once, in order.
    heard: dict[str, None] = {}
    for who in SPECS[type(fact)].audiences:
        heard.update(dict.fromkeys(_audiences_for(who, fact, about)))
    return (*heard, ALL)


def _audiences_for(who: Audience, fact: AnyFact, about: About | None) -> Iterable[str]:
    """What a word in the column `audiences` of `EVENT_SPECS` means for a fact."""
    match who:
        case "recipients":
            message = fact if isinstance(fact, MessageCreated) else about
            return () if message is None else _message_audiences(message.recipients, message.audiences)
        case "author":
            return (agent_audience(about.agent_id),) if about is not None and about.agent_id else ()
        case "group":
            name = _group_name(fact, about)
            return (group_audience(name),) if name else ()
        case "team":
            return (TEAM,)
        case _:
            agent_id: str = getattr(fact, who)
            return (agent_audience(agent_id),) if agent_id else ()


def _group_name(fact: AnyFact, about: About | None) -> str:
    return fact.name if isinstance(fact, GroupCreated) else about.group if about is not None else ""


def _message_audiences(recipients: Iterable[str], audiences: Iterable[Pair]) -> Iterable[str]:
    yield from map(agent_audience, recipients)
    yield from (role_audience(pair.value) for pair in audiences if pair.type == "role")
    yield from (group_audience(pair.value) for pair in audiences if pair.type == "group")


def topics_of(fact: AnyFact | UnknownEvent, about: About | None = None, *, pending: bool = False) -> tuple[str, ...]:
    """The full topics of a fact, as `events.since` lists them."""
    event = event_of(fact)
    return tuple(audience + event for audience in audiences_of(fact, about, pending=pending))


# -- what is said


def hint_of(epoch: str, seq: int, fact: AnyFact | UnknownEvent, about: About | None = None) -> Hint:
    """The hint of a fact, without `prev` and `topics`.

    A foreign fact may carry ids of any length: those that could not have been made here are left out.
    """
    hint = Hint(
        epoch=epoch,
        seq=seq,
        event_id=_fitting(fact.event_id),
        type=event_of(fact),
        from_=_fitting(actor_of(fact)),
        at=_fitting(fact.timestamp),
    )
    if isinstance(fact, MessageFact):
        _say_message(hint, fact, about)
    elif isinstance(fact, GroupFact):
        name = _group_name(fact, about)
        hint.to = (_fitting("@" + name),) if name else ()
    return hint


def _say_message(hint: Hint, fact: MessageFact, about: About | None) -> None:
    hint.message_id = _fitting(fact.message_id)
    if isinstance(fact, MessageCreated):
        hint.thread_id, hint.quiet = _fitting(fact.thread_id), fact.quiet
        hint.to = _addresses(fact.audiences)
    elif about is not None:
        hint.thread_id, hint.quiet = _fitting(about.thread_id), about.quiet
        if not isinstance(fact, MessageReceipt):
            hint.to = _addresses(about.audiences)
    if isinstance(fact, MessageReceipt):
        hint.state = _fitting(fact.receipt_type)
    elif not isinstance(fact, MessageDeleted):
        hint.preview = preview_of(fact.body.content)


def preview_of(content: str) -> str:
    """The start of a content on one line: control characters and line ends as spaces, 120 code points, `…` if cut."""
    if len(content) > limits.preview_chars_max:
        content = content[: limits.preview_chars_max - 1] + "…"
    return _CONTROLS.sub(" ", content)


_ID_CHARS_MAX: Final = limits.id_chars_max


def _fitting(text: str) -> str:
    return text if len(text) <= _ID_CHARS_MAX and text.isascii() and text.isprintable() else ""


def _addresses(audiences: tuple[Pair, ...]) -> tuple[str, ...]:
    """Whom the sender addressed, as people write it; at most 16, then `+N`."""
    shown = tuple(_fitting(address_of(pair)) or "?" for pair in audiences[: limits.hint_addresses_max])
    more = len(audiences) - len(shown)
    return (*shown, f"+{more}") if more else shown


# -- frames


class Frame(NamedTuple):
    """What goes over the bus, three parts: topic, `seq` as 8 bytes big-endian, JSON."""

    topic: bytes
    seq: bytes
    body: bytes


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The frame that tells where an audience stands: `seq` its own last, `head` the last announced anywhere."""

    type: str = HEAD
    epoch: str
    seq: int
    head: int
    at: str


_PREV_DIGITS: Final = 20


class HintTemplate:
    """One hint for many audiences: encoded once, only `prev` differs. A frame is at most 2 KiB."""

    __slots__ = ("_end", "_start")

    def __init__(self, hint: Hint) -> None:
        encoded = msgspec.json.encode(hint)
        if len(encoded) > limits.hint_bytes_max - _PREV_DIGITS:
            # Only long foreign ids come here. What the hint is for stays: which fact, of what type, about what.
            hint = Hint(
                epoch=hint.epoch,
                seq=hint.seq,
                event_id=hint.event_id,
                type=hint.type,
                message_id=hint.message_id,
                from_=hint.from_,
                quiet=hint.quiet,
                at=hint.at,
            )
            encoded = msgspec.json.encode(hint)
        # `prev` is 0 and so absent: it goes between the seq and the next field, which is always there.
        self._start = b'{"epoch":%b,"seq":%d,"prev":' % (msgspec.json.encode(hint.epoch), hint.seq)
        self._end = encoded[len(self._start) - len(b',"prev":') :]

    def body(self, prev: int) -> bytes:
        """The third part of the frame for an audience whose fact before has the number `prev`."""
        return b"%b%d%b" % (self._start, prev, self._end)


_hint_decoder = msgspec.json.Decoder(Hint)
_head_decoder = msgspec.json.Decoder(Head)


def read_frame(frame: Frame) -> Hint | Head | None:
    """What a received frame says; None for an unusable one. Unknown fields are ignored."""
    try:
        if frame.topic.endswith(b"/head"):
            return _head_decoder.decode(frame.body)
        return _hint_decoder.decode(frame.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
