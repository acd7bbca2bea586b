"""One row a type of fact: the table is whole, fits the classes, and what follows from it is what happens."""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec
import pytest

from tests.support.places import ROOT
from tests.support.store import factmaker
from tests.support.store.factmaker import OWN, Live, Maker
from thrum.bus.topics import audiences_of
from thrum.cli.commands import wait
from thrum.daemon.event_feed import about
from thrum.model import events, signatures
from thrum.model.event_specs import EVENT_SPECS, LATER_LOCAL_TYPES, Entity, EventSpec
from thrum.model.events import SPECS, Body, Pair, UnknownEvent, Work, tag_of
from thrum.model.origins import BEFORE, OLD_REALM, OURS, SIGNED, Provenance
from thrum.model.tombstones import Tombstones, is_tombstoned, superseded_ids
from thrum.store._superseded import superseded_locally
from thrum.store.audit import decode
from thrum.store.ingest import classify_line
from thrum.store.queries.views import View

ROWS = [pytest.param(cls, spec, id=tag_of(cls)) for cls, spec in SPECS.items()]
CLASSES: dict[str, object] = {
    "message": events.MessageFact,
    "session": events.SessionFact,
    "group": events.GroupFact,
    "agent": events.AgentFact,
    "daemon": events.DaemonFact,
    "purge": events.PurgeExecuted,
    "journal": events.JournalFormat,
}
FIELDS: dict[str, Any] = {
    "body": Body("markdown", "hi"),
    "fields": events.GroupFields(description="new"),
    "work_contexts": (Work(session_id="ses_1", git_updated_at="2026-02-03T10:00:00.000Z"),),
    "member_type": "agent",
    "cutoff": "2026-02-03T09:00:00.000Z",
    "repo_ids": ("r_1",),
    "add_scopes": (Pair("module", "auth"),),
    "message_id": "msg_01KGHF3N80AAAAAAAAAAAAAAA2",
    "session_id": "ses_1",
    "group_id": "grp_1",
    "receipt_type": "read",
    "format": 1,
    "agent_pid": 7,
    "message_ids": ("msg_01KGHF3N80AAAAAAAAAAAAAAA2",),
}


@pytest.fixture
def make() -> Maker:
    return Maker()


def fact_of(make: Maker, cls: type[Any]) -> Any:
    """A fact with every field that it must have, and those that `FIELDS` names."""
    fields = msgspec.structs.fields(cls)
    wanted = [field.name for field in fields if field.required or field.name in FIELDS]
    stamped = ("timestamp", "event_id", "v")
    return make(cls, **{name: FIELDS.get(name, "ann") for name in wanted if name not in stamped})


# -- the table is whole


def test_each_type_has_one_row_and_each_row_one_class() -> None:
    assert sorted(map(tag_of, SPECS)) == sorted(EVENT_SPECS) != []
    assert not LATER_LOCAL_TYPES & EVENT_SPECS.keys()


@pytest.mark.parametrize("entity", get_args(Entity))
def test_the_classes_about_an_entity_are_those_whose_rows_say_so(entity: Entity) -> None:
    said = {cls for cls, spec in SPECS.items() if spec.entity == entity}
    assert said == (set(get_args(CLASSES[entity])) or {CLASSES[entity]})


@pytest.mark.parametrize(("cls", "spec"), ROWS)
def test_a_row_names_fields_that_the_type_has(cls: type[Any], spec: EventSpec) -> None:
    fields = set(cls.__struct_fields__)
    named = {spec.actor, spec.cleanup, *(who for who in spec.audiences if who in ("agent_id", "of"))} - {""}
    named |= {f"{spec.entity}_id"} if spec.begins or spec.purge == "message" else set()
    named |= {"agent_id"} if spec.copied else set()
    assert named <= fields
    assert spec.purge != "session" or fields & {"session_id", "work_contexts"}
    assert spec.actor or not fields & {"by", "agent_id"}, "somebody did it"
    assert spec.actor == "by" or "by" not in fields


def test_whatever_may_lie_on_the_branch_has_a_word_of_its_own_in_a_commit() -> None:
    words = [spec.word for spec in EVENT_SPECS.values() if spec.travels]
    assert "" not in words and len({*words}) == len(words)
    assert not any(spec.word for spec in EVENT_SPECS.values() if not spec.travels)


def test_a_fact_lies_where_its_row_says(make: Maker) -> None:
    files = {tag_of(cls): events.file_of(fact_of(make, cls)) for cls in SPECS}
    assert files["message.create"] == files["agent.update"] == files["agent.context"] == "messages/ann.jsonl"
    assert files["message.receipt"] == files["session.items"] == files["accept"] == "local.jsonl"
    assert files["agent.session.end"] == files["group.member.add"] == files["daemon.key"] == "events.jsonl"


def test_random_histories_are_made_of_every_type_but_those_about_daemons() -> None:
    assert {*factmaker.FIELDS} == {cls for cls, spec in SPECS.items() if spec.entity != "daemon"}


def test_what_begins_an_entity_has_an_id_that_certifies_its_daemon() -> None:
    assert {type_: (made.field, made.prefix) for type_, made in signatures.MADE.items()} == {
        "message.create": ("message_id", "msg_"),
        "agent.session.start": ("session_id", "ses_"),
        "group.create": ("group_id", "grp_"),
    }


def test_the_ways_to_add_something_name_files_that_are_there() -> None:
    root = ROOT
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## To add a method, ")[2].partition("\n## ")[0]
    files = re.findall(r"`(?:python )?((?:src|tests|docs|tools)/[\w./]+)`", section)
    assert len(files) >= 30 and [name for name in files if not (root / name).exists()] == []


# -- what follows from it


@pytest.mark.parametrize(("cls", "spec"), ROWS)
def test_a_later_line_takes_the_place_of_one_that_says_the_same_if_its_type_coalesces(
    make: Maker, cls: type[Any], spec: EventSpec
) -> None:
    first, last = fact_of(make, cls), fact_of(make, cls)
    if cls is events.AgentUpdated:
        gone = superseded_ids((events.order_of(fact), fact, True) for fact in (first, last))
    else:
        gone = superseded_locally((events.order_of(fact), fact) for fact in (first, last))
    if cls is events.MessageReceipt:
        assert gone == {last.event_id}, "of receipts the first stays"
    else:
        assert gone == ({first.event_id} if spec.coalesces else set())


@pytest.mark.parametrize(("cls", "spec"), ROWS)
def test_a_cleanup_takes_out_of_effect_what_names_the_agent_in_that_column(
    make: Maker, cls: type[Any], spec: EventSpec
) -> None:
    fact = fact_of(make, cls)
    who = Provenance(0, OURS, "d", ("d",))
    watermark = {"ann": {"d": ("2027-01-01T00:00:00.000Z", "")}}
    assert is_tombstoned(fact, events.order_of(fact), who, Tombstones(agents=watermark)) is bool(spec.cleanup)
    other = {"bob": watermark["ann"]}
    assert not is_tombstoned(fact, events.order_of(fact), who, Tombstones(agents=other))


@pytest.mark.parametrize(("cls", "spec"), ROWS)
def test_a_purge_takes_out_of_effect_what_goes_with_a_message_or_a_session(
    make: Maker, cls: type[Any], spec: EventSpec
) -> None:
    fact = fact_of(make, cls)
    old = Provenance(BEFORE, OURS, OLD_REALM, (OLD_REALM,))
    who = old if spec.shared else Provenance(SIGNED, OURS, "", (OLD_REALM,))
    tombstones = Tombstones(
        purges={OLD_REALM: "2027-01-01T00:00:00.000Z"}, ends=lambda _: [(old, "2026-02-03T11:00:00.000Z")]
    )
    assert is_tombstoned(fact, events.order_of(fact), who, tombstones) is bool(spec.purge)


@pytest.mark.parametrize(("cls", "spec"), ROWS)
def test_only_what_does_not_begin_it_has_the_projection_tell_of_its_message_or_group(
    make: Maker, cls: type[Any], spec: EventSpec
) -> None:
    live = Live()
    live.apply(fact_of(make, events.MessageCreated), fact_of(make, events.GroupCreated))
    told = about(View(live.db, OWN), fact_of(make, cls))
    live.db.close()
    assert (told is not None) is (spec.entity in ("message", "group") and not spec.begins)
    if told is not None:
        assert (told.group, told.agent_id) == (("ann", "") if spec.entity == "group" else ("", "ann"))


def test_a_watch_tells_of_all_that_is_no_bookkeeping() -> None:
    left_out = EVENT_SPECS.keys() - set(wait.WATCHED)
    shared = {type_ for type_ in left_out if EVENT_SPECS[type_].shared}
    assert shared == {"daemon.key", "daemon.succession", "journal.format"}
    assert "agent.alias" in wait.WATCHED and "message.receipt" not in wait.WATCHED
    assert wait.MINE == ("message.create", "message.edit", "message.delete")


# -- lists of types that had drifted apart


@pytest.mark.parametrize("type_", [*EVENT_SPECS, *sorted(LATER_LOCAL_TYPES), "mind.read"])
def test_a_fact_of_a_newer_version_travels_if_its_type_does(make: Maker, type_: str) -> None:
    """A receipt of `v` 2 was quarantined as a local type when it came, though `verify` found nothing wrong with it."""
    made = make(events.JournalFormat, format=1)
    raw = events.encode(made).replace(b'"journal.format"', b'"%b"' % type_.encode()).replace(b'"v":1', b'"v":2')
    travels = type_ not in LATER_LOCAL_TYPES and (type_ not in EVENT_SPECS or EVENT_SPECS[type_].travels)
    came = classify_line("messages/ann.jsonl", raw)
    assert (came.reason, isinstance(came.fact, UnknownEvent)) == (
        ("", True) if travels else ("local_type_on_branch", False)
    )
    if travels:
        assert isinstance(decode("messages/ann.jsonl", raw), UnknownEvent)
    else:
        with pytest.raises(events.BadLine, match="local_type_on_branch"):
            decode("messages/ann.jsonl", raw)
    assert isinstance(decode(events.LOCAL_FILE, raw), UnknownEvent)


def test_an_agent_hears_once_of_a_name_that_it_took_from_itself(make: Maker) -> None:
    """A stranger's rename from a name to the same one had two frames on one stream."""
    fact = make(events.AgentAliased, agent_id="ann", of="ann")
    assert audiences_of(fact) == ("agent/ann/", "team/", "all/")
    fact = make(events.AgentAliased, agent_id="ann", of="bob")
    assert audiences_of(fact) == ("agent/ann/", "agent/bob/", "team/", "all/")
