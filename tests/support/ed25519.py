"""Ed25519 by the book (RFC 8032), slow and on its own: an independent computation of what `identity.signing` does.

Run as a program it prints `tests/data/signatures.json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, P - 2, P) % P
_ROOT = pow(2, (P - 1) // 4, P)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Point = tuple[int, int, int, int]
NEUTRAL: Point = (0, 1, 1, 0)


def add(a: Point, b: Point) -> Point:
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * _D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(scalar: int, point: Point) -> Point:
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def _x_of(y: int, sign: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _ROOT % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def packed(point: Point) -> bytes:
    z = pow(point[2], P - 2, P)
    return (point[1] * z % P | (point[0] * z % P & 1) << 255).to_bytes(32, "little")


def unpacked(data: bytes) -> Point | None:
    y = int.from_bytes(data, "little")
    x = _x_of(y & (1 << 255) - 1, y >> 255)
    return None if x is None else (x, y & (1 << 255) - 1, 1, x * (y & (1 << 255) - 1) % P)


_base = unpacked((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
assert _base is not None
BASE: Point = _base


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def secret_of(seed: bytes) -> tuple[int, bytes]:
    """The scalar of a seed, and what nonces are made with."""
    digest = hashlib.sha512(seed).digest()
    return int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254, digest[32:]


def public_key(seed: bytes) -> bytes:
    return packed(times(secret_of(seed)[0], BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    scalar, prefix = secret_of(seed)
    r = _hash(prefix, message) % ORDER
    nonce = packed(times(r, BASE))
    s = (r + _hash(nonce, public_key(seed), message) * scalar) % ORDER
    return nonce + s.to_bytes(32, "little")


def torsion() -> Point:
    """A point of order 8."""
    for number in range(1000):
        point = unpacked(hashlib.sha256(b"%d" % number).digest())
        if point is not None and packed(times(4 * ORDER, point)) != packed(NEUTRAL):
            return times(ORDER, point)
    raise AssertionError


# -- thrum's texts, by the page


def _ulid(bits: int) -> str:
    return "".join(_ALPHABET[bits >> shift & 31] for shift in range(125, -1, -5))


def daemon_id(ms: int, key: bytes) -> str:
    digest = hashlib.sha256(b"thrum daemon" + b"\0" + ms.to_bytes(6, "big") + key).digest()
    return "d_" + _ulid(ms << 80 | int.from_bytes(digest, "big") >> 176)


def certified_id(prefix: str, origin: str, ms: int, count: int) -> str:
    head = ms.to_bytes(6, "big") + count.to_bytes(2, "big")
    digest = hashlib.sha256(b"thrum id" + b"\0" + origin.encode() + head).digest()
    return prefix + _ulid(int.from_bytes(head + digest[:8], "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed_line(base: str, key: bytes, signature: bytes) -> str:
    return f'{base[:-1]},"sig":"{_text(key)}{_text(signature)}"}}'


def _base_line(origin: str, ulid: str, made: str = "", **fields: str) -> str:
    fact = {
        "type": "message.create",
        "timestamp": "2026-02-03T10:00:00.000Z",
        "event_id": "evt_" + ulid,
        "v": 1,
        "origin_daemon": origin,
        "message_id": made or "msg_" + ulid,
        "agent_id": "furiosa",
        "body": {"format": "markdown", "content": "Grüße"},
        **fields,
    }
    return json.dumps(fact, ensure_ascii=False, separators=(",", ":"))


def vectors() -> dict[str, Any]:
    ms = 1770112800000
    seed, other = bytes(range(32)), bytes(range(32, 64))
    key, stranger = public_key(seed), public_key(other)
    me, them = daemon_id(ms - 5000, key), daemon_id(ms - 9000, stranger)
    ulid = certified_id("", me, ms, 7)
    base = _base_line(me, ulid)
    told = b"thrum fact 1\0" + base.encode()
    good = sign(seed, told)
    scalar = secret_of(seed)[0]

    def self_signed(line: str) -> str:
        return signed_line(line, key, sign(seed, b"thrum fact 1\0" + line.encode()))

    def by_key(odd: bytes, nonce: Point, r: int) -> str:
        """A line of an origin whose id certifies an odd key, with S made for what could be the scalar behind it."""
        origin = daemon_id(ms, odd)
        line = _base_line(origin, certified_id("", origin, ms, 7))
        k = _hash(packed(nonce), odd, b"thrum fact 1\0" + line.encode()) % ORDER
        return signed_line(line, odd, packed(nonce) + ((r + k * scalar) % ORDER).to_bytes(32, "little"))

    def forged(small: bytes) -> str:
        """R = S = 0 with a key of small order: 1 of 8 such lines holds where nobody looks for it."""
        origin = daemon_id(ms, small)
        line = _base_line(origin, certified_id("", origin, ms, 7))
        return signed_line(line, small, packed(NEUTRAL) + bytes(32))

    twisted = next(
        line
        for r in range(1, 200)
        if (odd := packed(add(unpacked(key) or NEUTRAL, torsion())))
        and _holds_by_the_equation(line := by_key(odd, times(r, BASE), r))
    )
    eight = torsion()
    small = [packed(times(n, eight)) for n in (8, 4, 2, 6, 1, 3, 5, 7)]
    k = _hash(packed(add(times(5, BASE), eight)), key, told) % ORDER
    off = packed(add(times(5, BASE), eight)) + ((5 + k * scalar) % ORDER).to_bytes(32, "little")
    above = good[:32] + (int.from_bytes(good[32:], "little") + ORDER).to_bytes(32, "little")
    cases = [
        ("a signed line", self_signed(base), "signed"),
        ("no signature", base, "unsigned"),
        ("another's key: its id does not certify it", signed_line(base, stranger, sign(other, told)), "unsigned"),
        ("an id from before there were keys", self_signed(_base_line("d_" + ulid, ulid)), "unsigned"),
        ("one letter of the message", self_signed(base).replace("Grüße", "Grüsse"), "bad_signature"),
        ("one bit of R", signed_line(base, key, bytes([good[0] ^ 1]) + good[1:]), "bad_signature"),
        ("S + L", signed_line(base, key, above), "bad_signature"),
        ("S is zero", signed_line(base, key, good[:32] + bytes(32)), "bad_signature"),
        ("signed without the word before it", signed_line(base, key, sign(seed, base.encode())), "bad_signature"),
        ("R off by a point of small order", signed_line(base, key, off), "bad_signature"),
        ("R of small order", signed_line(base, key, small[1] + good[32:]), "bad_signature"),
        ("R not canonical", signed_line(base, key, (P + 1).to_bytes(32, "little") + good[32:]), "bad_signature"),
        ("a key off by a point of small order", twisted, "bad_signature"),
        ("a key that is not canonical", forged((P + 1).to_bytes(32, "little")), "bad_signature"),
        ("a key that is no point", forged((2).to_bytes(32, "little")), "bad_signature"),
        *((f"a key of small order {n}", forged(point), "bad_signature") for n, point in enumerate(small)),
        ("the origin twice", self_signed(base.replace('"v":1', f'"origin_daemon":"{them}","v":1')), "bad_object"),
        ("a field twice, deep", self_signed(base.replace('"content"', '"format":"plain","content"')), "bad_object"),
        ("sig twice, each holds", self_signed(self_signed(base)), "bad_object"),
        ("sig not last", self_signed(base).replace(',"sig"', ',"x":1,"sig"')[:-1] + ',"y":2}', "unsigned"),
        ("a blank behind sig", self_signed(base)[:-1] + " }", "unsigned"),
        ("sig too short", self_signed(base)[:-3] + '"}', "unsigned"),
        ("sig too long", self_signed(base)[:-2] + 'A"}', "unsigned"),
        ("bits behind the key", _with(self_signed(base), 42, 1), "unsigned"),
        ("bits behind the signature", _with(self_signed(base), 128, 1), "unsigned"),
        ("the other base64", self_signed(base)[:-40] + "+/" + self_signed(base)[-38:], "unsigned"),
        ("an id of another daemon", self_signed(_base_line(me, certified_id("", them, ms, 7))), "bad_id"),
        ("an id of nobody", self_signed(_base_line(me, ulid[:-1] + ("0" if ulid[-1] != "0" else "1"))), "bad_id"),
        (
            "a message of another fact",
            self_signed(_base_line(me, ulid, "msg_" + certified_id("", me, ms, 8))),
            "bad_id",
        ),
        ("a newer fact", self_signed(base.replace('"v":1', '"v":2,"x":[{"y":1.5}]')), "signed"),
        ("a newer fact with a message of another", _newer(base, me, ms, self_signed), "bad_id"),
        ("an unknown type", self_signed(base.replace("message.create", "message.wonder")), "signed"),
        ("a field of a wrong kind", self_signed(base.replace('"furiosa"', "7")), "signed"),
        (
            "a field of a wrong kind, changed",
            self_signed(base.replace('"furiosa"', "7")).replace(":7,", ":8,"),
            "bad_signature",
        ),
        ("a blank in the line, signed so", self_signed(base.replace('"v":1', '"v": 1')), "signed"),
        ("no JSON", self_signed(base.replace('"v":1', '"v":')), "unsigned"),
    ]
    return {
        "about": "Made by tests/support/ed25519.py, which shares no code with thrum. Times in milliseconds.",
        "signatures": [{"about": about, "line": line, "expect": expect} for about, line, expect in cases],
        "daemon_ids": [
            {"ms": time, "key": each.hex(), "id": daemon_id(time, each)}
            for time, each in ((ms, key), (ms, stranger), (0, key), ((1 << 48) - 1, bytes(32)))
        ],
        "certified_ids": [
            {"origin": origin, "ms": time, "count": count, "id": certified_id("evt_", origin, time, count)}
            for origin, time, count in ((me, ms, 0), (me, ms, 7), (them, ms, 7), (me, ms, 65535), ("d_old", 0, 1))
        ],
    }


def _newer(base: str, me: str, ms: int, signed: Any) -> str:
    mine = json.loads(base)["message_id"]
    return signed(base.replace('"v":1', '"v":2').replace(mine, "msg_" + certified_id("", me, ms, 9)))


def _with(line: str, place: int, step: int) -> str:
    """The line with another character at a place of its `sig`, so that only bits change that mean nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = len(line) - 131 + place
    return line[:at] + letters[letters.index(line[at]) + step] + line[at + 1 :]


def _holds_by_the_equation(line: str) -> bool:
    """Whether a library that looks no closer would take it: S B = R + k A."""
    key, signature = (base64.urlsafe_b64decode(text) for text in (line[-131:-88] + "=", line[-88:-2] + "=="))
    k = _hash(signature[:32], key, b"thrum fact 1\0" + (line[:-139] + "}").encode()) % ORDER
    point, nonce = unpacked(key), unpacked(signature[:32])
    assert point is not None and nonce is not None
    return packed(times(int.from_bytes(signature[32:], "little"), BASE)) == packed(add(nonce, times(k, point)))


if __name__ == "__main__":
    print(json.dumps(vectors(), ensure_ascii=False, indent=1))
