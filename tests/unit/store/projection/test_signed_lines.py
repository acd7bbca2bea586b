"""Which of two lines of one id is the fact, live and rebuilt: a signed one before any other (events.md §11)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from tests.support.store import factmaker
from tests.support.store.signers import Daemon
from thrum.model import events
from thrum.model.events import AnyFact, Body, MessageReceipt
from thrum.model.origins import SIGNED
from thrum.store import database
from thrum.store.rebuild import rebuild

OWN = frozenset({Daemon(1).daemon_id})
Line = tuple[AnyFact, bytes, str]


def rebuilt_texts(tmp_path: Path, lines: Sequence[Line]) -> tuple[list[str], list[bytes]]:
    """What the messages say in a projection rebuilt of these lines, and what was quarantined. The one fact is
    signed.
    """
    journals = factmaker.Journals()
    for line in lines:
        journals.add(*line)
    target = tmp_path / "rebuilt.db"
    rebuilt = rebuild(
        target,
        journals.sources(),
        OWN,
        journals.read_line,
        epoch=factmaker.EPOCH,
        now_ms=factmaker.START_MS + 3_600_000,
        program="test",
    )
    db = database.connect(target)
    try:
        texts = [row[0] for row in db.execute("SELECT body_content FROM messages")]
        assert db.execute("SELECT trust FROM events").fetchall() == [(SIGNED,)]
    finally:
        db.close()
    return texts, [lost.raw for lost in rebuilt.lost]


def test_a_signed_line_is_the_fact_although_another_is_smaller(tmp_path: Path) -> None:
    ann, bob = Daemon(1), Daemon(2)
    fact = ann.message(text="what ann said")
    forged = msgspec.structs.replace(fact, body=Body("markdown", "Aaa"))
    file = f"messages/{fact.agent_id}.jsonl"
    unsigned, other = events.encode(forged), bob.line(forged)
    lines = [(fact, ann.line(fact), file), (forged, unsigned, file), (forged, other, file)]
    for order in permutations(lines):
        texts, lost = rebuilt_texts(tmp_path, order)
        assert texts == ["what ann said"]
        assert {*lost} <= {unsigned, other}
        live = factmaker.Live(OWN)
        results = [live.projection.apply(live.journals.add(*line)) for line in order]
        hers, is_first = results[order.index(lines[0])], order[0] is lines[0]
        assert (hers.state, hers.wins) == (("applied", False) if is_first else ("conflict", True))


@pytest.mark.parametrize("signed_first", [True, False])
def test_the_same_line_without_its_signature_is_no_other_fact(tmp_path: Path, signed_first: bool) -> None:
    ann = Daemon(1)
    fact = ann.message(text="hi")
    file = f"messages/{fact.agent_id}.jsonl"
    lines = [(fact, ann.line(fact), file), (fact, events.encode(fact), file)]
    if not signed_first:
        lines.reverse()
    assert rebuilt_texts(tmp_path, lines) == (["hi"], [])
    live = factmaker.Live(OWN)
    first, second = [live.projection.apply(live.journals.add(*line)) for line in lines]
    assert first.state == "applied"
    # What was taken for unsigned has rights that it had not: the projection is rebuilt.
    assert (second.state, second.wins) == (("known", False) if signed_first else ("conflict", True))


@pytest.mark.parametrize("copy_is_signed", [True, False])
@pytest.mark.parametrize("copy_first", [True, False])
def test_a_receipt_and_its_copy_are_one_fact(tmp_path: Path, copy_is_signed: bool, copy_first: bool) -> None:
    me = Daemon(1)
    receipt = me(MessageReceipt, message_id="msg_1", agent_id="nux", receipt_type="read")
    raw = events.encode(receipt)
    lines = [(receipt, raw, "local.jsonl"), (receipt, me.line(raw) if copy_is_signed else raw, "messages/nux.jsonl")]
    if copy_first:
        lines.reverse()
    assert rebuilt_texts(tmp_path, lines) == ([], [])
