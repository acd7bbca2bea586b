"""Where a line is from: the signature at its end, and ids that certify the key and the daemon.

Source: events.md §11 "Signatures" and "Ids certify their origin", identity.md §13. Bytes and hashes only, no
cryptography: `identity.signing` makes signatures and judges them.

A signed line is the unsigned line with one more field at its very end: `"sig":"` + 43 characters of public key + 86
of an ed25519 signature + `"`.
"""

from __future__ import annotations

import functools
import os
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from thrum.model import ids
from thrum.model.event_specs import EVENT_SPECS


class _Hash(Protocol):
    """What of `hashlib`'s objects is used; the launcher's part of this must not import it."""

    def copy(self) -> _Hash: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


DOMAIN: Final = b"thrum fact 1\0"
"""The prefix of the signed bytes: so no other text signed with the key can pass for a fact."""

SIGNED_BYTES: Final = 138
"""How much longer a line gets by its signature."""

_LENGTH: Final = SIGNED_BYTES + 1
# The last character of each carries 2 or 4 bits that mean nothing: only zeros are canonical.
_TAIL: Final = re.compile(rb',"sig":"([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])([A-Za-z0-9_-]{85}[AQgw])"\}')
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_PLAIN: Final = bytes.maketrans(b"-_", b"+/")

_COUNT_MAX: Final = (1 << 16) - 1
_PROOF_MASK: Final = (1 << 64) - 1


class Made(NamedTuple):
    """What entity a fact begins: the field with its id, and how that id begins."""

    field: str
    prefix: str


MADE: Final = {type_: Made(f"{spec.entity}_id", spec.begins) for type_, spec in EVENT_SPECS.items() if spec.begins}
"""By type. The entity has the ULID of the fact (events.md §2)."""


# -- lines


def base64url(data: bytes) -> bytes:
    """The canonical text: no padding."""
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_URL_SAFE)


def from_base64url(text: bytes) -> bytes:
    """What a text of that alphabet says. ValueError if it is not as `base64url` writes it."""
    data = a2b_base64(text.translate(_PLAIN) + b"=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def split_signature(raw: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The line without its signature, the public key (32 bytes) and the signature (64 bytes); None if there is no
    `sig` of exactly the canonical form at the line's end. Nothing is said about whether it holds.
    """
    found = _tail(raw)
    if found is None:
        return None
    return raw[:-_LENGTH] + b"}", _plain(found[1]), _plain(found[2])


def unsigned(raw: bytes) -> bytes:
    """The line without its signature. Two lines are the same fact when these are equal."""
    return raw if _tail(raw) is None else raw[:-_LENGTH] + b"}"


def with_signature(base: bytes, key: bytes, signature: bytes) -> bytes:
    """The signed line."""
    return b'%b,"sig":"%b%b"}' % (base[:-1], base64url(key), base64url(signature))


def is_signed(raw: bytes, origin_daemon: str) -> bool:
    """Whether a line of an own journal is signed by its origin. Journals hold only what was verified, so the form and
    the key tell it; a line from elsewhere is judged by `identity.signing.check`.
    """
    found = _tail(raw)
    return found is not None and certifies(origin_daemon, _plain(found[1]))


Rank = tuple[bool, bytes]
"""Of two lines of one event id the one of lesser rank is the fact: a signed one before any that is not, then the
smaller one without signature. Of equal rank they are the same fact.
"""


def rank(raw: bytes, is_signed: bool) -> Rank:
    """The rank of a line, given whether it is signed by its origin."""
    return (not is_signed, unsigned(raw))


def _tail(raw: bytes) -> re.Match[bytes] | None:
    return _TAIL.fullmatch(raw, max(len(raw) - _LENGTH, 0))


def _plain(text: bytes) -> bytes:
    return a2b_base64(text.translate(_PLAIN) + b"=" * (-len(text) % 4))


# -- ids


def daemon_id_of(ms: int, key: bytes) -> str:
    """The id of a daemon whose public key (32 bytes) was made at that time: a ULID that certifies the key."""
    import hashlib

    digest = hashlib.sha256(b"thrum daemon\0" + ms.to_bytes(6, "big") + key).digest()
    return "d_" + ids.ulid_of(ms << 80 | int.from_bytes(digest[:10], "big"))


@functools.lru_cache(4096)
def certifies(daemon_id: str, key: bytes) -> bool:
    """Whether the id was made of that key. An id from before there were keys certifies none."""
    ms = ids.ulid_ms(daemon_id)
    return ms is not None and daemon_id == daemon_id_of(ms, key)


def id_fits(event_id: str, origin_daemon: str) -> bool:
    """Whether the ULID of a prefixed id is one that only `origin_daemon` makes."""
    bits = ids.ulid_bits(event_id)
    return bits is not None and _proof(origin_daemon, bits >> 64) == bits & _PROOF_MASK


class CertifiedUlids(ids.Ulids):
    """A source of ULIDs of which every one says which daemon made it.

    The 80 bits behind the time are 16 that rise within the millisecond, and 64 that follow from the daemon's id and the
    rest. A millisecond begins at random in the lower half of the 16, so that a clock set back over a restart hardly
    makes an id twice.
    """

    __slots__ = ("_begun",)

    def __init__(self, origin_daemon: str, randomness: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__(randomness)
        self._begun = _begin_proof(origin_daemon)

    def at(self, ms: int) -> str:
        with self._lock:
            if ms > self._ms:
                self._start(ms)
            elif self._random < _COUNT_MAX:
                self._random += 1
            else:
                self._start(self._ms + 1)
            told = self._ms << 16 | self._random
        return ids.ulid_of(told << 64 | _end_proof(self._begun, told))

    def _start(self, ms: int) -> None:
        super()._start(ms)
        self._random >>= 65


def _proof(origin_daemon: str, told: int) -> int:
    """The last 64 bits of a ULID of `origin_daemon` whose first 64 are `told`."""
    return _end_proof(_begin_proof(origin_daemon), told)


def _begin_proof(origin_daemon: str) -> _Hash:
    import hashlib

    return hashlib.sha256(b"thrum id\0" + origin_daemon.encode("utf-8", "surrogatepass"))


def _end_proof(begun: _Hash, told: int) -> int:
    digest = begun.copy()
    digest.update(told.to_bytes(8, "big"))
    return int.from_bytes(digest.digest()[:8], "big")
