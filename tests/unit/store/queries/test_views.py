"""What the typed queries answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.store.factmaker import OWN, Live, Maker
from thrum.model import clock, events
from thrum.model.addressing import Audience
from thrum.model.errors import AnswerTooLarge
from thrum.model.events import Body, Pair
from thrum.store.queries.views import InboxPage, InboxQuery, View, Wanted


class Desk:
    """A live projection, its maker and its view."""

    def __init__(self) -> None:
        self.live = Live()
        self.make = Maker()
        self.view = View(self.live.db, OWN)

    def tell(self, *facts: Any) -> None:
        self.live.apply(*facts)

    def message(self, author: str, *to: str, **fields: Any) -> str:
        fact = self.make.message(author, *to, **fields)
        self.tell(fact)
        return fact.message_id

    def register(self, agent_id: str, role: str = "coder", **fields: Any) -> Any:
        fact = self.make(events.AgentRegistered, agent_id=agent_id, kind="agent", role=role, module="m", **fields)
        self.tell(fact)
        return fact

    def receipt(self, message_id: str, agent_id: str, state: str) -> None:
        self.tell(self.make(events.MessageReceipt, message_id=message_id, agent_id=agent_id, receipt_type=state))

    def list(self, **query: Any) -> InboxPage:
        return self.view.inbox(InboxQuery(**query))

    def ids(self, **query: Any) -> list[str]:
        return [message.message_id for message in self.list(**query).messages]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.live.db.close()


def test_an_inbox_page_counts_and_reads_for_its_reader(desk: Desk) -> None:
    ids = [desk.message("ann", "bob") for _ in range(5)]
    desk.message("ann", "eve")
    desk.receipt(ids[0], "bob", "read")
    page = desk.list(reader="bob", for_agent="bob", page_size=2)
    assert [message.message_id for message in page.messages] == ids[:-3:-1]
    assert (page.total, page.unread, page.hidden_by_filter) == (5, 4, 0)
    last = desk.list(reader="bob", for_agent="bob", page=3, page_size=2)
    assert [(message.message_id, message.is_read) for message in last.messages] == [(ids[0], True)]
    assert desk.ids(reader="bob", for_agent="bob", unread=True, sort_order="asc") == ids[1:]
    assert desk.ids(reader="bob", unread_for_agent="bob") == ids[:0:-1]
    assert desk.list(for_agent="bob").unread == 0, "nobody reads"


def test_filters_are_joined_and_the_rest_of_the_unread_is_told(desk: Desk) -> None:
    desk.register("bob", role="tester")
    named = desk.message("ann", "bob", scopes=(Pair("module", "x"),))
    by_role = desk.message(
        "eve", recipients=("bob",), refs=(Pair("mention", "tester"),), audiences=(Pair("role", "tester"),)
    )
    to_all = desk.message("ann", recipients=("bob",), audiences=(Pair("broadcast", "everyone"),))
    linked = desk.message("bob", "bob", refs=(Pair("issue", "7"),))
    bob = {"reader": "bob", "for_agent": "bob"}
    assert desk.ids(**bob, mentions=True) == [linked, by_role, named]
    assert desk.ids(**bob, mention_role="tester") == [by_role]
    assert desk.ids(**bob, author_id="ann") == [to_all, named]
    assert desk.ids(**bob, exclude_self=True) == [to_all, by_role, named]
    assert desk.ids(**bob, scope=Pair("module", "x")) == [named]
    assert desk.ids(ref=Pair("issue", "7")) == [linked]
    page = desk.list(**bob, scope=Pair("module", "x"))
    assert (page.total, page.unread, page.hidden_by_filter) == (1, 1, 2)
    at = desk.view.message(by_role)
    assert at is not None
    assert desk.ids(**bob, created_after=at.created_at) == [linked, to_all]
    assert desk.view.broadcast_total() == 1


def test_a_look_at_everything_leaves_out_only_what_was_deleted(desk: Desk) -> None:
    first, second = desk.message("ann", "bob"), desk.message("ann")
    desk.tell(desk.make(events.MessageDeleted, message_id=first, agent_id="ann"))
    assert (desk.ids(), desk.list().total) == ([second], 1)
    assert (desk.ids(include_deleted=True), desk.list(include_deleted=True).total) == ([second, first], 2)
    assert desk.ids(for_agent="bob") == []
    assert desk.ids(for_agent="bob", include_deleted=True) == [first]


def test_chronological_puts_replies_below_their_root(desk: Desk) -> None:
    root = desk.message("ann", "bob")
    other = desk.message("eve", "bob")
    reply = desk.message("ann", "bob", reply=root, thread_id="thr_" + root[4:])
    assert desk.ids(for_agent="bob", chronological=True) == [root, reply, other]


def test_a_thread_is_found_by_its_id_and_by_any_of_its_messages(desk: Desk) -> None:
    root = desk.message("ann", "bob")
    lonely = desk.message("ann", "bob")
    thread = "thr_" + root[4:]
    reply = desk.message("bob", "ann", reply=root, thread_id=thread)
    for key in (thread, root, reply):
        assert desk.ids(thread_id=key, sort_order="asc") == [root, reply]
    assert desk.ids(thread_id=lonely) == [lonely]
    assert desk.ids(thread_id="thr_none") == []


def test_edited_messages_can_be_sorted_by_their_last_change(desk: Desk) -> None:
    first, second = desk.message("ann", "bob"), desk.message("ann", "bob")
    desk.tell(desk.make(events.MessageEdited, message_id=first, agent_id="ann", body=Body("plain", "x")))
    assert desk.ids(for_agent="bob", sort_by="updated_at") == [first, second]


def test_a_cursor_goes_up_by_number_and_says_whether_there_is_more(desk: Desk) -> None:
    ids = [desk.message("ann", "bob") for _ in range(3)]
    desk.message("ann", "eve")
    page = desk.list(reader="bob", for_agent="bob", after_seq=0, limit=2)
    assert [message.message_id for message in page.messages] == ids[:2]
    assert (page.more, page.next_seq) == (True, 2)
    rest = desk.list(reader="bob", for_agent="bob", after_seq=page.next_seq, limit=2)
    assert [message.message_id for message in rest.messages] == ids[2:]
    assert (rest.more, rest.next_seq) == (False, 4), "looked at everything, also what did not match"


def test_a_cursor_batch_is_cut_by_the_sum_of_its_bodies(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrum.model.limits.answer_bodies_bytes_max", 10)
    ids = [desk.message("ann", "bob", text="x" * 6) for _ in range(3)]
    page = desk.list(for_agent="bob", after_seq=0)
    assert [message.message_id for message in page.messages] == ids[:1]
    assert (page.more, page.next_seq) == (True, 1)


def test_the_outbox_tells_who_has_read(desk: Desk) -> None:
    first = desk.message("ann", "bob", "eve")
    second = desk.message("ann", "eve")
    desk.message("bob", "ann")
    desk.receipt(second, "eve", "read")
    messages, total = desk.view.outbox("ann")
    assert [(message.message_id, message.read_count) for message in messages] == [(second, 1), (first, 0)]
    assert total == 2
    assert [message.message_id for message in desk.view.outbox("ann", unread=True)[0]] == [first]
    assert [message.message_id for message in desk.view.outbox("ann", to="bob")[0]] == [first]


def test_what_a_wait_tells(desk: Desk) -> None:
    told = [desk.message("ann", "bob") for _ in range(3)]
    desk.message("ann", recipients=("bob",), quiet=True)
    desk.message("bob", "bob")
    desk.receipt(desk.message("ann", "bob"), "bob", "read")
    seen = desk.message("ann", "bob")
    desk.receipt(seen, "bob", "seen")
    unseen = Wanted(agent_id="bob", unseen=True)
    assert told_to(desk, unseen) == told
    assert told_to(desk, Wanted(agent_id="bob", unseen=True, author_id="eve")) == []
    row = desk.view.message(told[2])
    assert row is not None
    later = told_to(desk, Wanted(agent_id="bob", after_seq=row.seq))
    assert (len(later), later[-1]) == (2, seen)
    assert told_to(desk, Wanted(agent_id="bob", created_after=row.created_at)) == later
    # Asked about some, all say the same as when they are asked for everything.
    for wanted in (
        unseen,
        Wanted(agent_id="bob", after_seq=row.seq),
        Wanted(agent_id="bob", created_after=row.created_at),
    ):
        everything = [*told, *later, "msg_unknown"]
        assert [message_id for _, message_id in desk.view.matching_among(wanted, everything)] == told_to(desk, wanted)
    assert [message.message_id for message in desk.view.messages_that_fit("bob", told)] == told


@pytest.mark.parametrize(
    ("audience", "word"),
    [
        (Pair("agent", "bob"), "bob"),
        (Pair("user", "bob"), "user:bob"),
        (Pair("role", "tester"), "tester"),
        (Pair("group", "reviewers"), "reviewers"),
        (Pair("broadcast", "everyone"), "everyone"),
    ],
)
def test_a_wait_for_an_audience_is_told_what_names_it(desk: Desk, audience: Pair, word: str) -> None:
    refs = Audience((), (audience,)).refs
    named = desk.message("ann", recipients=("bob",), audiences=(audience,), refs=refs)
    desk.message("ann", recipients=("bob",), audiences=(Pair("group", "others"),))
    assert told_to(desk, Wanted(agent_id="bob", unseen=True, addressed_to=word)) == [named]
    assert told_to(desk, Wanted(agent_id="bob", unseen=True, addressed_to="nobody")) == []


def test_a_wait_for_a_name_is_told_what_has_only_a_ref_of_before(desk: Desk) -> None:
    named = desk.message("ann", recipients=("bob",), audiences=(), refs=(Pair("mention", "bob"),))
    assert told_to(desk, Wanted(agent_id="bob", unseen=True, addressed_to="bob")) == [named]


def told_to(desk: Desk, wanted: Wanted) -> list[str]:
    return [
        message_id for _, message_id in sorted(entry for step in desk.view.matching_steps(wanted) for entry in step)
    ]


@pytest.mark.parametrize("after_seq", [None, 0])
def test_what_a_wait_tells_is_looked_for_in_bounded_steps(
    desk: Desk, after_seq: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thrum.store.queries._wait_scan.STEP_ROWS", 7)
    told = [desk.message("ann", "bob") for _ in range(40)]
    for message_id in told[5:25]:
        desk.receipt(message_id, "bob", "seen")
    wanted = Wanted(agent_id="bob", unseen=after_seq is None, after_seq=after_seq)
    steps = list(desk.view.matching_steps(wanted))
    assert max(map(len, steps)) <= 7 and len(steps) == 6
    unseen = told[:5] + told[25:]
    assert [entry[1] for step in steps for entry in step] == (unseen if after_seq is None else told)


def test_messages_of_an_answer_are_no_more_than_fit_into_one(desk: Desk) -> None:
    large = [desk.message("ann", "bob", text="x" * 1_000_000) for _ in range(12)]
    assert [message.message_id for message in desk.view.messages_that_fit("bob", large)] == large[:8]
    for _ in range(6):
        desk.message("ann", "bob", text="x" * 1_000_000)
    with pytest.raises(AnswerTooLarge):
        desk.view.inbox(InboxQuery(reader="bob", for_agent="bob", page_size=1000))
    with pytest.raises(AnswerTooLarge):
        desk.view.outbox("ann", page_size=1000)
    assert len(desk.view.inbox(InboxQuery(reader="bob", for_agent="bob", page_size=10)).messages) == 10


def test_only_what_is_new_can_be_marked(desk: Desk) -> None:
    first, second, third = (desk.message("ann", "bob") for _ in range(3))
    foreign = desk.message("ann", "eve")
    desk.receipt(first, "bob", "read")
    desk.receipt(second, "bob", "seen")
    assert desk.view.markable("bob", None, "read") == [second, third]
    assert desk.view.markable("bob", [third, foreign, first, second], "read") == [second, third]
    assert desk.view.markable("bob", None, "seen") == [third]
    row = desk.view.message(second)
    assert row is not None
    assert desk.view.markable("bob", None, "read", before=row.created_at) == [second]


def test_counts_of_all_inboxes(desk: Desk) -> None:
    desk.receipt(desk.message("ann", "bob"), "bob", "read")
    desk.message("ann", "bob", "eve")
    assert desk.view.inbox_counts() == {"bob": (2, 1), "eve": (1, 1)}
    desk.message("ann", audiences=(Pair("group", "team"),))
    assert desk.view.group_totals() == [("team", 1)]


def test_detail_and_head_of_a_message(desk: Desk) -> None:
    message_id = desk.message("ann", "bob", text="hello", session_id="ses_1")
    detail, head = desk.view.detail(message_id), desk.view.message_head(message_id)
    assert detail is not None
    assert head is not None
    assert (detail.author.agent_id, detail.author.session_id, detail.version) == ("ann", "ses_1", 0)
    assert [recipient.agent_id for recipient in detail.recipients] == ["bob"]
    assert (head.content, head.recipients, head.audiences) == ("hello", ("bob",), (Pair("agent", "bob"),))
    assert desk.view.detail("msg_none") is None


def test_agents_are_listed_newest_first_with_their_last_sign_of_life(desk: Desk) -> None:
    first, second = desk.register("ann", role="tester"), desk.register("bob")
    message = desk.message("ann", "bob")
    desk.tell(desk.make(events.AgentStatusSet, agent_id="ghost", status="idle", by="ann"))
    agents = desk.view.agents()
    assert [agent.agent_id for agent in agents] == ["bob", "ann"]
    row = desk.view.message(message)
    assert row is not None
    assert (agents[1].last_seen_at, agents[0].last_seen_at) == (row.created_at, second.timestamp)
    assert agents[0].is_own
    assert [agent.agent_id for agent in desk.view.agents(role="tester")] == ["ann"]
    assert len(desk.view.agents(live=False)) == 3
    assert desk.view.agent_ids() == {"ann", "bob"}
    assert desk.view.roles() == {"coder": ["bob"], "tester": ["ann"]}
    assert first.timestamp < second.timestamp


def test_ids_that_differ_only_in_case_are_found(desk: Desk) -> None:
    desk.register("coder_1B9K33T6RK")
    assert desk.view.id_differing_in_case("coder_1b9k33t6rk") == "coder_1B9K33T6RK"
    assert desk.view.id_differing_in_case("coder_1B9K33T6RK") is None


def test_places_are_those_of_registered_agents(desk: Desk) -> None:
    desk.register("ann")
    for agent_id in ("ann", "ghost"):
        desk.tell(desk.make(events.AgentPlaced, agent_id=agent_id, worktree_path="/a", agent_pid=7))
    assert [(place.agent_id, place.worktree_path, place.agent_pid) for place in desk.view.agent_places()] == [
        ("ann", "/a", 7)
    ]


def test_the_open_session_is_the_newest_that_has_not_ended(desk: Desk) -> None:
    for number in range(3):
        desk.tell(desk.make(events.SessionStarted, session_id=f"ses_{number}", agent_id="ann"))
    desk.tell(desk.make(events.SessionEnded, session_id="ses_2", reason="crash"))
    session = desk.view.open_session("ann")
    assert session is not None
    assert session.session_id == "ses_1"
    assert desk.view.open_sessions() == {"ann": session}
    assert [row.session_id for row in desk.view.sessions("ann")] == ["ses_2", "ses_1", "ses_0"]
    assert [row.session_id for row in desk.view.sessions(active_only=True)] == ["ses_1", "ses_0"]
    ended = desk.view.session("ses_2")
    assert ended is not None
    assert ended.end_reason == "crash"


def test_watermarks_and_events_can_be_asked_for(desk: Desk) -> None:
    cleanup = desk.make(events.AgentCleaned, agent_id="ann")
    desk.tell(cleanup)
    assert desk.view.watermark("agent", "ann") == (cleanup.timestamp, cleanup.event_id)
    assert desk.view.watermark("agent", "bob") is None
    event = desk.view.event(cleanup.event_id)
    assert event is not None
    assert (event.type, event.actor, event.file) == ("agent.cleanup", "system", "events.jsonl")
    assert clock.parse_ms(event.timestamp) == desk.make.ms
