"""Whose a line is, and what it may change: the judgement that everything else rests on. Pure."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.support.store.factmaker import Maker
from tests.support.store.signers import PROJECT, Daemon
from thrum.model import events
from thrum.model.origins import (
    BEFORE,
    HIDDEN,
    LOOSE,
    OLD_REALM,
    OURS,
    SIGNED,
    STRANGE,
    Origins,
    Provenance,
    is_well_named,
    line_hash,
    may_change,
    may_say_of_session,
)
from thrum.model.tombstones import Tombstones, tombstoned_ids

ME, ANN, BOB = "d_me", "d_ann", "d_bob"
KINDS = {"signed": SIGNED, "before": BEFORE, "loose": LOOSE}


def origins(**fields: Any) -> Origins:
    return Origins(own={ME, "d_my_former", OURS}, ours={PROJECT}, **fields)


def provenance(whose: str, kind: str) -> Provenance:
    return origins().provenance(whose, KINDS[kind])


MAY = {
    # (kind of the fact, kind of the thing): of the same daemon, of another one
    ("signed", "signed"): (True, False),
    ("signed", "before"): (True, False),
    ("signed", "loose"): (True, False),
    ("before", "signed"): (False, False),
    ("before", "before"): (True, True),  # the rules of old
    ("before", "loose"): (False, False),
    ("loose", "signed"): (False, False),
    ("loose", "before"): (False, False),
    ("loose", "loose"): (True, False),
}


@pytest.mark.parametrize(("kinds", "allowed"), MAY.items(), ids=lambda each: " ".join(map(str, each)))
def test_a_fact_changes_what_is_its_own_daemons_and_nothing_else(
    kinds: tuple[str, str], allowed: tuple[bool, bool]
) -> None:
    fact, entity = kinds
    assert may_change(provenance(ANN, fact), provenance(ANN, entity)) is allowed[0]
    assert may_change(provenance(BOB, fact), provenance(ANN, entity)) is allowed[1]
    assert may_change(provenance(ME, fact), provenance("d_my_former", entity)) is allowed[0]


def test_a_daemon_of_before_goes_on_with_the_sessions_that_it_had() -> None:
    assert may_say_of_session(provenance(ANN, "loose"), provenance(ANN, "before"))
    assert not may_say_of_session(provenance(BOB, "loose"), provenance(ANN, "before"))
    assert may_say_of_session(provenance(BOB, "before"), provenance(ANN, "loose"))  # it ended, whenever its start comes
    for fact, entity in product(KINDS, KINDS):
        if {fact, entity} != {"loose", "before"}:
            assert may_say_of_session(provenance(ANN, fact), provenance(ANN, entity)) is MAY[fact, entity][0]


@pytest.mark.parametrize(
    ("origin", "fields", "trust"),
    [
        (ANN, {}, BEFORE),  # nobody has closed that time
        (ANN, {"closed": True}, HIDDEN),
        (ANN, {"closed": True, "accepted": {ANN}}, LOOSE),
        (ANN, {"closed": True, "is_before": lambda hash: hash == line_hash(b"{}")}, BEFORE),
        (ANN, {"projects": {ANN: {PROJECT}}}, HIDDEN),  # it signs
        (ANN, {"projects": {ANN: set()}, "is_before": lambda hash: True, "closed": True}, HIDDEN),
        (ANN, {"closed": True, "accepted": {ANN}, "successors": {ANN: BOB}}, HIDDEN),
        (ME, {"closed": True, "accepted": {ME}}, HIDDEN),  # nobody speaks for this daemon
        ("", {"closed": True, "accepted": {""}}, HIDDEN),
        ("d_my_former", {"closed": True, "is_before": lambda hash: True}, BEFORE),
    ],
)
def test_an_unsigned_line_counts_as_of_before_or_by_a_persons_word(
    origin: str, fields: dict[str, Any], trust: int
) -> None:
    assert origins(**fields).judge(b" {}\r\n", origin, signed=False).trust == trust


@pytest.mark.parametrize(
    ("origin", "projects", "trust"),
    [
        (ME, {}, SIGNED),
        (ANN, {}, STRANGE),
        (ANN, {ANN: {"r_other"}}, STRANGE),
        (ANN, {ANN: {"r_other", PROJECT}}, SIGNED),
    ],
)
def test_a_signed_line_of_another_project_waits(origin: str, projects: dict[str, Any], trust: int) -> None:
    assert origins(projects=projects).judge(b"", origin, signed=True).trust == trust


def test_a_sweep_reaches_its_own_realm_and_those_of_its_former_ids() -> None:
    def swept(sweep: Provenance, line: Provenance) -> bool:
        return sweep.acts in line.under

    assert swept(provenance(ANN, "signed"), provenance(ANN, "signed"))
    assert not swept(provenance(ANN, "signed"), provenance(BOB, "signed"))
    assert swept(provenance(ANN, "signed"), provenance(ANN, "before")) and swept(
        provenance(ANN, "signed"), provenance(ANN, "loose")
    )
    assert not swept(provenance(ANN, "loose"), provenance(ANN, "signed"))
    assert not swept(provenance(ANN, "loose"), provenance(ANN, "before"))
    assert swept(provenance(BOB, "before"), provenance(ANN, "before"))
    assert not swept(provenance(BOB, "before"), provenance(ANN, "signed"))
    assert swept(provenance(ME, "signed"), provenance("d_my_former", "before"))
    assert swept(provenance(ME, "signed"), origins().local()) and swept(provenance(BOB, "before"), origins().local())
    assert not swept(provenance(BOB, "signed"), origins().local())
    taken_over = origins(successors={ANN: BOB})
    assert swept(taken_over.provenance(BOB, SIGNED), taken_over.provenance(ANN, BEFORE))
    # On the branch everybody judges alike, whatever a person here said.
    exact = origins(successors={ANN: BOB}, exact=True)
    assert not swept(exact.provenance(BOB, SIGNED), exact.provenance(ANN, BEFORE))


@pytest.mark.parametrize("kind", [BEFORE, LOOSE, HIDDEN])
@pytest.mark.parametrize("exact", [False, True])
def test_what_a_sweep_of_before_swept_stays_swept_whatever_the_line_is_when_it_comes_late(
    kind: int, exact: bool
) -> None:
    late = origins(exact=exact).provenance(ANN, kind)
    tombstones = Tombstones(
        purges={OLD_REALM: "2026-02-03T10:30:00.000Z"}, authors={"nux": {OLD_REALM: ("2026-02-03T11:00:00.000Z", "")}}
    )
    maker = Maker()
    message = maker.message("nux", "furiosa")
    edit = maker(events.MessageEdited, message_id=message.message_id, agent_id="nux", body=events.Body("plain", "x"))
    facts = [(events.order_of(fact), fact, late) for fact in (message, edit)]
    assert tombstoned_ids(facts, tombstones) == {message.event_id, edit.event_id}
    assert tombstoned_ids(facts[1:], tombstones) == {edit.event_id}
    # Who registered an agent once may speak for it, for ever.
    agent = maker(events.AgentRegistered, agent_id="nux", kind="agent", role="tester", module="all")
    swept = Tombstones(agents={"nux": {OLD_REALM: ("2026-02-03T11:00:00.000Z", "")}})
    assert not tombstoned_ids([(events.order_of(agent), agent, late)], swept)


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"agent_id": "nux", "name": "nux"}, True),
        ({"agent_id": "nux"}, True),
        ({"agent_id": "tester_1B9K33T6RK"}, True),
        ({"agent_id": "user:leon", "kind": "user"}, True),
        ({"agent_id": "everyone", "name": "everyone"}, False),
        ({"agent_id": "tester", "name": "tester"}, False),
        ({"agent_id": "--to", "name": "--to"}, False),
        ({"agent_id": "../../x", "name": "nux"}, False),
        ({"agent_id": "nux", "name": "furiosa"}, False),
        ({"agent_id": "system"}, False),
        ({"agent_id": "monitor:ci"}, False),
        ({"agent_id": "coder_1B9K33T6RK"}, False),
        ({"agent_id": "nux", "role": "all"}, False),
        ({"agent_id": "nux", "module": "a b"}, False),
        ({"agent_id": "nux", "display": "\x1b[2J"}, False),
        ({"agent_id": "leon", "kind": "user"}, False),
    ],
)
def test_what_another_daemon_registers_obeys_the_name_rules(fields: dict[str, Any], good: bool) -> None:
    make = Maker()
    fact = make(events.AgentRegistered, **{"kind": "agent", "role": "tester", "module": "all", **fields})
    assert is_well_named(fact) is good


def test_the_numbers_of_daemons_differ() -> None:
    assert len({Daemon(number).daemon_id for number in range(4)}) == 4
