"""Facts of several daemons, signed and not, of this project and another, accepted and not: one projection in
any order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.store import factmaker as maker
from tests.support.store.signers import Daemon
from thrum.model import clock, events
from thrum.model.events import AnyFact
from thrum.model.origins import line_hash
from thrum.model.tombstones import branch_file_of
from thrum.store import database
from thrum.store.rebuild import rebuild

ME, ANN, EVE, FAR = (Daemon(number) for number in range(1, 5))
OLD = "d_01KGH87Y00FFFFFFFFFFFFFFFF"
OWN = frozenset({ME.daemon_id})
NOW_MS = maker.START_MS + 3_600_000

Line = tuple[AnyFact, bytes]


def lines_of(facts: Sequence[AnyFact], chance: random.Random) -> list[Line]:
    """The facts as lines of daemons, with what these say of themselves, and what a person here said of them."""
    found: list[Line] = []
    for fact in facts:
        if not events.SPECS[type(fact)].shared and chance.random() < 0.5 and not events.never_travels(fact):
            pass  # a receipt from elsewhere
        elif not events.SPECS[type(fact)].shared:
            own = msgspec.structs.replace(fact, origin_daemon=ME.daemon_id)
            found.append((own, events.encode(own)))
            continue
        who = chance.choice((ME, ANN, ANN, EVE, FAR, None))
        fact = msgspec.structs.replace(fact, origin_daemon=OLD if who is None else who.daemon_id)
        if isinstance(fact, events.AgentRegistered) and chance.random() < 0.7:
            fact = msgspec.structs.replace(fact, module="all", kind="user" if ":" in fact.agent_id else "agent")
        raw = events.encode(fact)
        found.append((fact, raw if who is None or chance.random() < 0.1 else who.line(raw)))
        if chance.random() < 0.1:
            found.append((fact, raw))
    keys = [daemon.introduction() for daemon in (ME, ANN, EVE)] + [FAR.introduction("r_other")]
    found += [(key, daemon.line(key)) for key, daemon in zip(keys, (ME, ANN, EVE, FAR), strict=True)]
    words: list[dict[str, object]] = []
    if chance.random() < 0.5:
        hashes = tuple(line_hash(raw) for fact, raw in found if chance.random() < 0.5 and b'"sig"' not in raw)
        words += [{"kind": "before", "lines": hashes}] if hashes else []
        words += [{"kind": "before"}]
    if chance.random() < 0.5:
        words.append({"kind": "origin", "id": OLD})
    if chance.random() < 0.2:
        words.append({"kind": "origin", "id": EVE.daemon_id, "of": OLD})
    if chance.random() < 0.3:
        words.append({"kind": "holder", "id": "ann", "of": chance.choice((ANN, EVE)).daemon_id})
    if chance.random() < 0.2:
        words.append({"kind": "gone", "id": ANN.daemon_id})
    if chance.random() < 0.2:
        words.append({"kind": "project", "id": "r_other"})
    for number, word in enumerate(words):
        fact = events.Accepted(
            timestamp=clock.format_ms(maker.START_MS + number), event_id=f"evt_word{number}", v=1, **word
        )
        found.append((fact, events.encode(fact)))
    return found


def live(lines: Sequence[Line]) -> maker.Dump | None:
    """None if it has to be rebuilt."""
    found = maker.Live(OWN)
    found.now_ms = NOW_MS
    conflicts = [found.projection.apply(found.journals.add(fact, raw, file_of(fact, raw))).wins for fact, raw in lines]
    dump = None if found.projection.outdated or any(conflicts) else found.dump()
    found.db.close()
    return dump


def file_of(fact: AnyFact, raw: bytes) -> str:
    local = events.never_travels(fact) or (isinstance(fact, events.MessageReceipt) and _is_own(fact, raw))
    return events.LOCAL_FILE if local else branch_file_of(fact)


def _is_own(fact: AnyFact, raw: bytes) -> bool:
    return fact.origin_daemon == ME.daemon_id and b'"sig"' not in raw


def rebuilt(lines: Sequence[Line], directory: Path) -> maker.Dump:
    journals = maker.Journals()
    for fact, raw in lines:
        journals.add(fact, raw, file_of(fact, raw))
    target = directory / "rebuilt.db"
    rebuild(target, journals.sources(), OWN, journals.read_line, epoch=maker.EPOCH, now_ms=NOW_MS, program="test")
    db = database.connect(target)
    try:
        return maker.sound_dump(db)
    finally:
        db.close()


def check(facts: Sequence[AnyFact], seed: int, directory: Path) -> None:
    chance = random.Random(seed)
    lines = lines_of(facts, chance)
    expected = rebuilt(lines, directory)
    for _ in range(3):
        chance.shuffle(lines)
        assert rebuilt(lines, directory) == expected
        found = live(lines)
        assert found is None or found == expected


@given(maker.histories(), st.integers(0, 2**32))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_order_of_what_several_daemons_say_gives_one_projection(
    tmp_path: Path, facts: list[AnyFact], seed: int
) -> None:
    check(facts, seed, tmp_path)


@pytest.mark.long
@given(maker.histories(60), st.integers(0, 2**32))
@settings(max_examples=3_000, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_order_of_long_histories_of_several_daemons_gives_one_projection(
    tmp_path: Path, facts: list[AnyFact], seed: int
) -> None:
    check(facts, seed, tmp_path)
