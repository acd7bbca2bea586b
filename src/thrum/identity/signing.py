"""Signing facts, and judging signed lines that come from elsewhere; the one home of libsodium (events.md §11).

A judgement is a function of the line alone, and the same whatever version of the library is installed: all clones have
to agree on what travels.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, NamedTuple, cast

import nacl.bindings as sodium
from nacl.exceptions import BadSignatureError

from thrum.model import events, signatures
from thrum.model.events import BadLine, UnknownEvent
from thrum.model.ids import is_id
from thrum.model.signatures import MADE

SEED_BYTES: Final = 32

SignatureState = Literal["signed", "unsigned"]

_SHARED_MIN: Final = 8
"""With fewer lines another thread is not worth waking."""

_NO_OBJECT: Final = frozenset({"not_json", "not_utf8", "not_object", "too_long"})


class Signer:
    """A daemon's key pair, made of its 32 secret bytes."""

    __slots__ = ("_secret", "public_key", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.public_key, self._secret = sodium.crypto_sign_seed_keypair(seed)

    @classmethod
    def make(cls) -> Signer:
        """A new key pair."""
        return cls(os.urandom(SEED_BYTES))

    def sign(self, base: bytes) -> bytes:
        """The signed line of a line, `signatures.SIGNED_BYTES` longer. Other threads run meanwhile."""
        signed = sodium.crypto_sign(signatures.DOMAIN + base, self._secret)
        return signatures.with_signature(base, self.public_key, signed[: sodium.crypto_sign_BYTES])


def flaws_of(lines: Sequence[bytes]) -> list[str]:
    """`flaw_of` of many lines, by two threads: the library lets go of the interpreter for most of its time."""
    if len(lines) < _SHARED_MIN:
        return [*map(flaw_of, lines)]
    half = len(lines) // 2
    later = _judging().submit(lambda: [*map(flaw_of, lines[half:])])
    return [*map(flaw_of, lines[:half]), *later.result()]


@functools.cache
def _judging() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "thrum-judging")


def check(raw: bytes) -> SignatureState:
    """What a line from elsewhere is. `unsigned`: it has no signature, one of an unknown form, or one by a key that the
    id of its origin does not certify.

    Raises BadLine for a line by the key of its origin that this key did not sign (`bad_signature`), or did although a
    key occurs twice in it (`bad_object`) or its ids were not made by its origin (`bad_id`).
    """
    parts = signatures.split_signature(raw)
    if parts is None:
        return "unsigned"
    base, key, signature = parts
    told = _read(base)
    if told is None or not signatures.certifies(told.origin, key):
        return "unsigned"
    if not _holds(base, key, signature):
        raise BadLine("bad_signature", f"not signed by {told.origin}")
    if told.twice:
        raise BadLine("bad_object", "a key stands in it twice")
    if not _ids_fit(told):
        raise BadLine("bad_id", f"{told.event_id} was not made by {told.origin}")
    return "signed"


def flaw_of(raw: bytes) -> str:
    """Why a line from elsewhere is unusable, as quarantine records it; `""` if nothing is wrong with its signature.

    What was judged once is remembered: a round looks at the lines that it leaves out again and again.
    """
    if signatures.unsigned(raw) is raw:
        return ""
    digest = hashlib.blake2b(raw, digest_size=16).digest()
    flaw = _judged.get(digest)
    if flaw is None:
        try:
            check(raw)
            flaw = ""
        except BadLine as bad:
            flaw = bad.reason
        if len(_judged) >= _JUDGED_MAX:
            _judged.clear()
        _judged[digest] = flaw
    return flaw


_JUDGED_MAX: Final = 100_000
_judged: dict[bytes, str] = {}


class _Told(NamedTuple):
    """What a judgement needs of a line. `made` is the id of the thing that it makes, if its type makes one."""

    type: str
    event_id: str
    origin: str
    made: str
    twice: bool = False


def _read(base: bytes) -> _Told | None:
    """None for what is not an object, or names no origin, now and to all later programs."""
    try:
        fact = events.decode(base)
    except BadLine as bad:
        return None if bad.reason in _NO_OBJECT else _read_slowly(base)
    # Decoding hides a duplicate key: encoding then gives another line.
    if isinstance(fact, UnknownEvent) or events.encode(fact) != base:
        return _read_slowly(base)
    kind = events.type_of(fact)
    made = getattr(fact, MADE[kind].field) if kind in MADE else ""
    return _Told(kind, fact.event_id, fact.origin_daemon, made)


def _read_slowly(base: bytes) -> _Told | None:
    twice = False

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        members = dict(pairs)
        twice = twice or len(members) < len(pairs)
        return members

    try:
        # Numbers are not looked at: Python refuses to read those of thousands of digits.
        told: Any = json.loads(base.decode(), object_pairs_hook=note, parse_int=str, parse_float=str)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    members = cast("dict[str, Any]", told)
    kind, event_id, origin = (_text(members, name) for name in ("type", "event_id", "origin_daemon"))
    made = _text(members, MADE[kind].field) if kind in MADE else ""
    return _Told(kind, event_id, origin, made, twice or "sig" in members)


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _ids_fit(told: _Told) -> bool:
    if not is_id("evt_", told.event_id) or not signatures.id_fits(told.event_id, told.origin):
        return False
    return told.type not in MADE or told.made == MADE[told.type].prefix + told.event_id.removeprefix("evt_")


# -- signatures


def _holds(base: bytes, key: bytes, signature: bytes) -> bool:
    if not _is_key(key) or not _is_proper(signature):
        return False
    try:
        sodium.crypto_sign_open(signature + signatures.DOMAIN + base, key)
    except BadSignatureError:
        return False
    return True


@functools.lru_cache(4096)
def _is_key(key: bytes) -> bool:
    """Whether it is a canonical point of the prime-order group: of others two libraries may judge differently."""
    return sodium.crypto_core_ed25519_is_valid_point(key)


def _is_proper(signature: bytes) -> bool:
    """Whether its R is such a point. A library that compares R itself, not eight times R, sees to that by itself."""
    return not _compares_eightfold() or sodium.crypto_core_ed25519_is_valid_point(signature[:32])


_EIGHTFOLD_KEY: Final = bytes.fromhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
_EIGHTFOLD_ONLY: Final = bytes.fromhex(
    "e01993a204f479496737e081a4ccc7529841ddd520dd04559206f0f183c6cebc"
    "a494186f13991a99ed8a6211e821c69f04e1a2e796ca2ac413699ead29a5760168656c6c6f"
)
"""Of "hello": R is off by a point of order 8, so the equation holds only after multiplying by 8."""


@functools.cache
def _compares_eightfold() -> bool:
    try:
        sodium.crypto_sign_open(_EIGHTFOLD_ONLY, _EIGHTFOLD_KEY)
    except BadSignatureError:
        return False
    return True
