"""What a message may contain: the checks that need only its content. No I/O.

Source: cli.md 1.7, events.md §3 "Limits", rpc.md §5 `message.send`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from thrum.model import limits
from thrum.model.errors import BadEncoding, BadJson, BadRef, BadScope, BodyTooLarge, EmptyBody, InvalidParams
from thrum.model.events import Body, Pair

FORMATS = ("markdown", "plain", "json")
OWN_REFS = ("mention", "reply_to")
"""Ref types that only thrum sets."""

_PAIR_TYPE = re.compile(r"[a-z0-9_-]+", re.ASCII)
_sorted_encoder = msgspec.json.Encoder(order="sorted")


def check_body(content: str, body_format: str, structured: Mapping[str, Any] | None, body_bytes_max: int) -> Body:
    """The body of a message, or EmptyBody, BodyTooLarge, BadJson, BadEncoding, InvalidParams."""
    if body_format not in FORMATS:
        raise InvalidParams(f'unknown format "{body_format}"', remedy="use markdown, plain or json", field="format")
    if not content.strip():
        raise EmptyBody("the message is empty")
    size = _bytes(content, "the message")
    if size > body_bytes_max:
        raise BodyTooLarge(
            f"message body too large: {size} bytes, the limit is {body_bytes_max}",
            field="content",
            bytes=size,
            limit=body_bytes_max,
        )
    if body_format == "json":
        try:
            msgspec.json.decode(content.encode())
        except msgspec.MsgspecError as error:
            raise BadJson("--format json, but the body is not JSON", field="content") from error
    return Body(body_format, content, _structured_text(structured))


def _structured_text(structured: Mapping[str, Any] | None) -> str:
    if structured is None:
        return ""
    try:
        text = _sorted_encoder.encode(structured)
    except (TypeError, ValueError) as error:
        raise BadJson(f"structured is not valid JSON: {error}", field="structured") from error
    if len(text) > limits.structured_bytes_max:
        raise BodyTooLarge(
            f"structured data too large: {len(text)} bytes, the limit is {limits.structured_bytes_max}",
            field="structured",
            bytes=len(text),
            limit=limits.structured_bytes_max,
        )
    return text.decode()


def check_scopes(scopes: Sequence[Pair], tags: Sequence[str] = ()) -> tuple[Pair, ...]:
    """The sender's scopes, tags among them, without duplicates. BadScope names the first bad one."""
    return _pairs([*scopes, *(Pair("tag", tag) for tag in tags)], "scope", BadScope)


def check_refs(refs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The sender's refs without duplicates. BadRef names the first bad one, or one that only thrum sets."""
    for ref in refs:
        if ref.type in OWN_REFS:
            raise BadRef(f'ref type "{ref.type}" is set by thrum', remedy="leave it out; use --to, or thrum reply")
    return _pairs(refs, "ref", BadRef)


def _pairs(pairs: Sequence[Pair], word: str, error: type[BadScope] | type[BadRef]) -> tuple[Pair, ...]:
    if len(pairs) > limits.pairs_max:
        raise error(f"{len(pairs)} {word}s, the limit is {limits.pairs_max}", limit=limits.pairs_max)
    for pair in pairs:
        shown = f"{pair.type}:{pair.value}"
        if not _PAIR_TYPE.fullmatch(pair.type) or not pair.value:
            raise error(f'bad {word} "{shown}": expected type:value')
        if len(pair.type) > limits.pair_type_chars_max or len(pair.value) > limits.pair_value_chars_max:
            raise error(
                f"{word} too long: the limits are {limits.pair_type_chars_max} for the type "
                f"and {limits.pair_value_chars_max} for the value"
            )
        _bytes(pair.value, word)
    return tuple(dict.fromkeys(pairs))


def check_text(text: str, field: str, chars_max: int) -> str:
    """A short free text (intent, reason, display …): BodyTooLarge, BadEncoding."""
    if len(text) > chars_max:
        raise BodyTooLarge(
            f"{field} too large: {len(text)} characters, the limit is {chars_max}",
            remedy="shorten it",
            field=field,
            limit=chars_max,
        )
    _bytes(text, field)
    return text


def _bytes(text: str, what: str) -> int:
    """Size in UTF-8. A lone surrogate (a shell argument that was no UTF-8) cannot be kept."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise BadEncoding(f"{what} is not UTF-8 (character {error.start})") from error
