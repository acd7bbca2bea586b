"""Signatures and ids that certify, against vectors of an independent computation (events.md §11, identity.md §13)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import ed25519
from tests.support.places import DATA
from tests.support.store.signers import Daemon
from thrum.identity import signing
from thrum.model import events, ids, signatures
from thrum.model.events import BadLine

VECTORS: dict[str, Any] = json.loads((DATA / "signatures.json").read_text())
GOOD: bytes = VECTORS["signatures"][0]["line"].encode()


def about(case: dict[str, Any]) -> str:
    return str(case.get("about") or case["id"])


def judgement(raw: bytes) -> str:
    try:
        return signing.check(raw)
    except BadLine as bad:
        return bad.reason


@pytest.mark.parametrize("case", VECTORS["signatures"], ids=about)
def test_a_line_from_elsewhere_is_judged_by_its_bytes_alone(case: dict[str, Any]) -> None:
    assert judgement(case["line"].encode()) == case["expect"]


@pytest.mark.parametrize("case", VECTORS["daemon_ids"], ids=about)
def test_the_id_of_a_daemon_certifies_its_key(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key"])
    assert signatures.daemon_id_of(case["ms"], key) == case["id"]
    assert ids.is_id("d_", case["id"])
    assert ids.ulid_ms(case["id"]) == case["ms"]
    assert signatures.certifies(case["id"], key)
    assert not signatures.certifies(case["id"], bytes([key[0] ^ 1]) + key[1:])
    assert not signatures.certifies(case["id"].lower(), key)
    assert not signatures.certifies(case["id"][2:], key)


@pytest.mark.parametrize("case", VECTORS["certified_ids"], ids=about)
def test_an_id_says_which_daemon_made_it(case: dict[str, Any]) -> None:
    assert signatures.id_fits(case["id"], case["origin"])
    assert not signatures.id_fits(case["id"], case["origin"] + "X")
    other = case["id"][:-1] + ("0" if case["id"][-1] != "0" else "1")
    assert not signatures.id_fits(other, case["origin"])
    assert not signatures.id_fits("evt_", case["origin"])


def test_certified_ids_rise_within_the_millisecond_and_beyond_it() -> None:
    origin = VECTORS["daemon_ids"][0]["id"]
    source = signatures.CertifiedUlids(origin, lambda n: b"\xff" * n)
    made = [source.at(1000) for _ in range(40_000)]
    assert made == sorted(set(made))
    assert all(ids.is_id("evt", f"evt_{ulid}") and signatures.id_fits("evt_" + ulid, origin) for ulid in made)
    first, last = made[0], made[-1]
    assert ids.ulid_bits(first) is not None
    # A millisecond begins in the lower half: the upper one is room to rise in, then comes the next.
    assert (ids.ulid_bits(first) or 0) >> 64 & 0xFFFF == 0x7FFF
    assert (ids.ulid_ms(first), ids.ulid_ms(last)) == (1000, 1001)
    assert source.at(999) > last


def test_two_sources_of_one_daemon_seldom_begin_a_millisecond_alike() -> None:
    origin = VECTORS["daemon_ids"][0]["id"]
    assert len({signatures.CertifiedUlids(origin).at(1000) for _ in range(20)}) > 15


@given(st.binary(min_size=32, max_size=32), st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_what_is_signed_is_what_the_book_says(seed: bytes, text: str) -> None:
    signer = signing.Signer(seed)
    assert signer.public_key == ed25519.public_key(seed)
    base = json.dumps({"x": text}, ensure_ascii=False).encode()
    raw = signer.sign(base)
    assert len(raw) == len(base) + signatures.SIGNED_BYTES
    expected = ed25519.sign(seed, b"thrum fact 1\0" + base)
    assert signatures.split_signature(raw) == (base, signer.public_key, expected)
    assert signatures.unsigned(raw) == base
    assert signatures.unsigned(base) == base


def test_a_line_of_an_own_journal_is_signed_if_its_origins_key_stands_in_it() -> None:
    origin = json.loads(GOOD)["origin_daemon"]
    assert signatures.is_signed(GOOD, origin)
    assert not signatures.is_signed(GOOD, VECTORS["daemon_ids"][1]["id"])
    assert not signatures.is_signed(signatures.unsigned(GOOD), origin)
    assert not signatures.is_signed(GOOD + b" ", origin)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_byte_of_a_signed_line_can_be_changed_unnoticed(place: int, change: int) -> None:
    raw = bytearray(GOOD)
    raw[place] ^= change
    assert judgement(bytes(raw)) != "signed"


def test_a_library_that_compares_only_eightfold_takes_no_other_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not signing._compares_eightfold(), "the installed library is another one: see that R is looked at"
    monkeypatch.setattr(signing, "_compares_eightfold", lambda: True)
    for case in VECTORS["signatures"]:
        assert judgement(case["line"].encode()) == case["expect"]


def test_base64url_is_canonical() -> None:
    assert signatures.from_base64url(signatures.base64url(b"\xff\xfe" * 16)) == b"\xff\xfe" * 16
    for text in (b"AB", b"A", b"A+", b"AA==", b"AA\n"):
        with pytest.raises(ValueError):
            signatures.from_base64url(text)


def test_daemons_of_tests_write_lines_that_hold() -> None:
    one, two = Daemon(1), Daemon(2)
    assert one.daemon_id != two.daemon_id == Daemon(2).daemon_id
    session = one(events.SessionStarted, agent_id="furiosa")
    for fact in (one.message(), one.message(), session, one(events.GroupCreated, name="g", created_by="furiosa")):
        assert signing.check(one.line(fact)) == "signed"
        assert signing.check(two.line(fact)) == "unsigned"
    assert signing.check(one.line(b'{"type":"x"}')) == "unsigned"
