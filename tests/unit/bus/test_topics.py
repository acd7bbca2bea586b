"""Who hears of a fact, and what the hint says (rpc.md §8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from thrum.bus import topics
from thrum.bus.topics import About, Frame, Head, HintTemplate, audiences_of, hint_of, read_frame, topics_of
from thrum.model import events, limits
from thrum.model.addressing import address_of
from thrum.model.events import Pair
from thrum.model.wire_types import Hint

AT = "2026-02-03T10:00:00.000Z"
STAMP: dict[str, Any] = {"timestamp": AT, "event_id": "evt_1", "v": 1}


def created(**fields: Any) -> events.MessageCreated:
    fields = {"message_id": "msg_1", "agent_id": "alice", "body": events.Body("markdown", "hi"), **STAMP, **fields}
    return events.MessageCreated(**fields)


def test_a_message_goes_to_each_recipient_role_group_and_all_once() -> None:
    fact = created(
        recipients=("bob", "carol"),
        audiences=(Pair("group", "core"), Pair("role", "tester"), Pair("agent", "bob"), Pair("broadcast", "everyone")),
    )
    assert audiences_of(fact) == ("agent/bob/", "agent/carol/", "role/tester/", "group/core/", "all/")
    assert topics_of(fact)[0] == "agent/bob/message.create"


def test_an_edit_follows_the_row_it_is_about_and_without_row_is_told_to_all_only() -> None:
    fact = events.MessageEdited(message_id="msg_1", agent_id="alice", body=events.Body("markdown", "new"), **STAMP)
    about = About(agent_id="alice", thread_id="thr_1", recipients=("bob",), audiences=(Pair("role", "tester"),))
    assert audiences_of(fact, about) == ("agent/bob/", "role/tester/", "all/")
    assert audiences_of(fact, None) == ("all/",)
    assert audiences_of(fact, about, pending=True) == ("all/",)
    hint = hint_of("e", 7, fact, about)
    assert (hint.thread_id, hint.preview, hint.to) == ("thr_1", "new", ("@tester",))


def test_a_receipt_goes_to_the_author() -> None:
    fact = events.MessageReceipt(message_id="msg_1", agent_id="bob", receipt_type="read", **STAMP)
    about = About(agent_id="alice", recipients=("bob",))
    assert audiences_of(fact, about) == ("agent/alice/", "all/")
    hint = hint_of("e", 7, fact, about)
    assert (hint.from_, hint.state, hint.preview, hint.to) == ("bob", "read", "", ())


def test_presence_goes_to_the_team_and_sessions_to_their_agent_too() -> None:
    start = events.SessionStarted(session_id="ses_1", agent_id="user:leon", **STAMP)
    registered = events.AgentRegistered(agent_id="bob", kind="agent", role="tester", module="m", **STAMP)
    assert audiences_of(start) == ("agent/user:leon/", "team/", "all/")
    assert audiences_of(registered) == ("team/", "all/")
    assert audiences_of(events.AgentSeen(agent_id="bob", **STAMP)) == ("all/",)


def test_group_changes_go_to_the_group_by_its_name() -> None:
    fact = events.GroupMemberAdded(group_id="grp_1", member_type="agent", member_value="b", added_by="a", **STAMP)
    assert audiences_of(fact, About(group="core")) == ("group/core/", "all/")
    assert audiences_of(fact) == ("all/",)
    made = events.GroupCreated(group_id="grp_1", name="core", created_by="a", **STAMP)
    assert audiences_of(made) == ("group/core/", "all/")


def test_an_opaque_fact_is_told_to_all_and_never_passes_for_a_head() -> None:
    opaque = events.UnknownEvent(type="head", timestamp=AT, event_id="evt_1", v=2, origin_daemon="", raw=b"{}")
    assert topics_of(opaque) == ("all/fact.head",)
    odd = events.UnknownEvent(type="a/b é" * 100, timestamp=AT, event_id="evt_1", v=2, origin_daemon="", raw=b"{}")
    (topic,) = topics_of(odd)
    assert topic.isascii() and topic.count("/") == 1 and len(topic) < 120


@pytest.mark.parametrize(
    ("agent_id", "audience"),
    [
        ("bob", "agent/bob/"),
        ("user:leon", "agent/user:leon/"),
        ("sf:bob", "agent/sf:bob/"),
        ("agent:tester:9F2K3M1Q8Z", "agent/tester_9F2K3M1Q8Z/"),
        ("a/b c", "agent/a%2Fb%20c/"),
        ("", "agent/%/"),
    ],
)
def test_ids_are_written_as_file_stems_with_their_colon(agent_id: str, audience: str) -> None:
    assert topics.agent_audience(agent_id) == audience
    assert topics.is_audience(audience)


def test_long_foreign_ids_stay_apart_and_short() -> None:
    one, two = topics.agent_audience("é" * 500), topics.agent_audience("é" * 501)
    assert one != two and len(one) < 120 and topics.is_audience(one)


@pytest.mark.parametrize("text", ["", "agent", "agent/", "agent/bob", "agent/bob/x", "all", "daemon/", "role//", "é/"])
def test_what_is_no_exact_audience(text: str) -> None:
    assert not topics.is_audience(text)


def test_a_preview_is_one_line_of_at_most_120_code_points() -> None:
    assert topics.preview_of("a\nb\tc\x00d\u2028e") == "a b c d e"
    assert topics.preview_of("x" * 120) == "x" * 120
    cut = topics.preview_of("é" * 121)
    assert len(cut) == 120 and cut.endswith("…")


def test_a_delete_has_no_preview() -> None:
    fact = events.MessageDeleted(message_id="msg_1", agent_id="alice", **STAMP)
    assert hint_of("e", 1, fact, About(recipients=("bob",))).preview == ""


def test_at_most_16_addresses_are_told() -> None:
    fact = created(audiences=tuple(Pair("agent", f"a{n}") for n in range(20)))
    to = hint_of("e", 1, fact).to
    assert to[0] == "@a0" and len(to) == 17 and to[-1] == "+4"


def test_addresses_are_what_people_write() -> None:
    pairs = [("agent", "bob"), ("role", "tester"), ("group", "core"), ("broadcast", "everyone"), ("user", "leon")]
    told = [address_of(Pair(*pair)) for pair in pairs]
    assert told == ["@bob", "@tester", "@core", "@everyone", "user:leon"]


def test_a_frame_differs_only_in_prev_and_decodes_to_the_hint() -> None:
    hint = hint_of("one", 12, created(audiences=(Pair("agent", "bob"),)))
    body = HintTemplate(hint).body(7)
    decoded = read_frame(Frame(b"agent/bob/message.create", b"", body))
    assert isinstance(decoded, Hint) and decoded.prev == 7
    decoded.prev = 0
    assert decoded == hint
    assert list(msgspec.json.decode(body))[:3] == ["epoch", "seq", "prev"]


def test_a_frame_is_at_most_2_kib_whatever_a_foreign_fact_holds() -> None:
    worst = created(
        message_id="\\" * 128,
        thread_id='"' * 128,
        agent_id="\\" * 128,
        event_id="\\" * 128,
        body=events.Body("markdown", "\U0001f600" * 500),
        audiences=tuple(Pair("agent", f"{n:0128}") for n in range(30)),
    )
    body = HintTemplate(hint_of("e" * 26, 10**17, worst)).body(10**17)
    assert len(body) <= limits.hint_bytes_max
    told = read_frame(Frame(b"all/message.create", b"", body))
    assert isinstance(told, Hint) and told.message_id == worst.message_id
    huge = created(message_id="m" * 100_000, event_id="\x01" * 128)
    assert len(HintTemplate(hint_of("e", 1, huge)).body(0)) <= limits.hint_bytes_max


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"type":"head"}', b'{"epoch":1}'])
def test_a_frame_that_nobody_can_use_is_none(body: bytes) -> None:
    assert read_frame(Frame(b"all/head", b"", body)) is None
    assert read_frame(Frame(b"all/x", b"", body)) is None


def test_unknown_fields_of_a_newer_daemon_are_ignored() -> None:
    body = b'{"type":"head","epoch":"e","seq":1,"head":2,"at":"","mood":"fine"}'
    assert read_frame(Frame(b"all/head", b"", body)) == Head(epoch="e", seq=1, head=2, at="")
