"""A signature gives a right to one's own things alone: what a stranger says of others' things shows nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.store import factmaker
from tests.support.store.signers import PROJECT, Daemon
from tests.support.store.town import HOUR_MS, OWN, Line, Town, live
from thrum.model import addressing, clock, events
from thrum.model.events import Body, GroupFields, Pair, Work
from thrum.model.origins import line_hash
from thrum.model.tombstones import branch_file_of
from thrum.ops.directory import ViewDirectory
from thrum.store import database
from thrum.store import rebuild as rebuilding
from thrum.store.queries.views import InboxQuery, View
from thrum.store.rebuild import rebuild


def rebuilt(lines: Sequence[Line], directory: Path) -> factmaker.Dump:
    journals = factmaker.Journals()
    for fact, raw in lines:
        journals.add(fact, raw, branch_file_of(fact) or events.LOCAL_FILE)
    target = directory / "rebuilt.db"
    rebuild(
        target,
        journals.sources(),
        OWN,
        journals.read_line,
        epoch=factmaker.EPOCH,
        now_ms=factmaker.START_MS + HOUR_MS,
        program="test",
    )
    db = database.connect(target)
    try:
        return factmaker.sound_dump(db)
    finally:
        db.close()


NOISE = {"daemons", "daemon_projects", "registrations", "horizons", "client_keys"}
"""Where a stranger's own doings may show."""


def check_nothing_changes(honest: Sequence[Line], hostile: Sequence[Line], tmp_path: Path) -> None:
    """Whatever order they come in, the rows are those of the honest lines alone."""
    expected = live(honest)
    wanted = {table: rows for table, rows in expected.dump().items() if table not in NOISE}
    expected.db.close()
    orders = [[*honest, *hostile], [*hostile, *honest], [*reversed([*honest, *hostile])]]
    for order in orders:
        rows = rebuilt(order, tmp_path)
        assert {table: found for table, found in rows.items() if table not in NOISE} == wanted
        found = live(order)
        # What was unsigned is another's by its key, or another line is the fact: then it is rebuilt.
        assert found.projection.outdated or found.dump() == rows
        found.db.close()


@pytest.fixture
def town() -> Iterator[Town]:
    yield Town()


def test_nobody_edits_deletes_or_takes_over_anothers_message(town: Town, tmp_path: Path) -> None:
    town.register(town.ann, "ann")
    sent = town.say(town.ann, town.ann.message("ann", "nux", text="true"))
    honest, town.lines = town.lines, []
    eve = town.eve
    of = {"message_id": sent.message_id, "agent_id": "ann"}
    town.say(eve, eve(events.MessageEdited, body=Body("plain", "false"), **of))
    town.say(eve, eve(events.MessageDeleted, **of))
    backdated = msgspec.structs.replace(sent, body=Body("plain", "false"), timestamp=clock.format_ms(1))
    town.lines.append((backdated, events.encode(backdated)))  # the id that he can't sign
    check_nothing_changes(honest, town.lines, tmp_path)


def test_a_smaller_line_without_a_signature_is_nothing_beside_the_signed_one(town: Town, tmp_path: Path) -> None:
    sent = town.say(town.ann, town.ann.message("ann", "nux", text="true"))
    forged = msgspec.structs.replace(sent, body=Body("markdown", "a lie"))
    lines = [*town.lines, (forged, events.encode(forged)), (sent, events.encode(sent))]
    for order in ([*lines], [*reversed(lines)]):
        text = [row for row in rebuilt(order, tmp_path)["messages"] if "true" in row]
        assert len(text) == 1 and len(rebuilt(order, tmp_path)["messages"]) == 1


def test_nobody_marks_anothers_mail_read(town: Town, tmp_path: Path) -> None:
    town.register(town.me, "nux")
    town.register(town.ann, "ann")
    both = town.say(town.ann, town.ann.message("ann", "ann2", "nux"))
    mine = town.say(town.me, town.me.message("nux", "ann"))
    honest, town.lines = town.lines, []
    eve, ann = town.eve, town.ann
    for message, agent in ((both, "nux"), (both, "ann2"), (mine, "ann")):
        receipt = eve(events.MessageReceipt, message_id=message.message_id, agent_id=agent, receipt_type="read")
        town.say(eve, receipt)
    # Nor does who takes the name of an agent that is registered here.
    town.say(ann, ann(events.MessageReceipt, message_id=both.message_id, agent_id="nux", receipt_type="read"))
    check_nothing_changes(honest, town.lines, tmp_path)


def test_who_registered_an_agent_marks_for_it_whatever_comes_first(town: Town, tmp_path: Path) -> None:
    sent = town.say(town.me, town.me.message("nux", "ann"))
    town.register(town.ann, "ann")
    ann = town.ann
    town.say(ann, ann(events.MessageReceipt, message_id=sent.message_id, agent_id="ann", receipt_type="read"))
    projections: list[factmaker.Dump] = []
    for order in permutations(town.lines[-3:]):
        lines = [*town.lines[:-3], *order]
        found = live(lines)
        row = View(found.db, OWN).is_recipient(sent.message_id, "ann")
        assert row is not None and row.read_at
        projections.append(found.dump())
        found.db.close()
        assert rebuilt(lines, tmp_path) == projections[0] == projections[-1]


def test_a_mark_counts_no_more_once_the_agent_is_registered_here(town: Town, tmp_path: Path) -> None:
    sent = town.say(town.eve, town.eve.message("eve", "nux"))
    town.register(town.ann, "nux")
    ann = town.ann
    town.say(ann, ann(events.MessageReceipt, message_id=sent.message_id, agent_id="nux", receipt_type="read"))
    here = town.register(town.me, "nux")
    for lines in (town.lines, [*reversed(town.lines)]):
        found = live(lines)
        row = View(found.db, OWN).is_recipient(sent.message_id, "nux")
        assert row is not None and not row.read_at
        agent = View(found.db, OWN).agent("nux")
        assert agent is not None and agent.is_own and agent.reg_event == here.event_id
        assert rebuilt(lines, tmp_path) == found.dump()
        found.db.close()


def test_nobody_cleans_up_or_purges_what_is_anothers(town: Town, tmp_path: Path) -> None:
    town.register(town.me, "nux")
    town.register(town.ann, "ann")
    for who, agent in ((town.me, "nux"), (town.ann, "ann")):
        town.say(who, who.message(agent, "nux", "ann"))
        start = town.say(who, who(events.SessionStarted, agent_id=agent))
        work = Work(session_id=start.session_id, intent="x", intent_updated_at=clock.format_ms(who.ms))
        town.say(who, who(events.AgentUpdated, agent_id=agent, work_contexts=(work,)))
        town.say(who, who(events.SessionEnded, session_id=start.session_id, reason="normal"))
        group = town.say(who, who(events.GroupCreated, name=f"crew_{agent}", created_by=agent))
        member = {"member_type": "agent", "member_value": agent, "added_by": agent}
        town.say(who, who(events.GroupMemberAdded, group_id=group.group_id, **member))
    honest, town.lines = town.lines, []
    eve = town.eve
    for agent in ("nux", "ann"):
        town.say(eve, eve(events.AgentCleaned, agent_id=agent, messages=True, ms=eve.ms + HOUR_MS // 2))
    cutoff = clock.format_ms(eve.ms + HOUR_MS // 2)
    town.say(eve, eve(events.PurgeExecuted, cutoff=cutoff, ms=eve.ms + HOUR_MS // 2))
    check_nothing_changes(honest, town.lines, tmp_path)


def test_nobody_ends_sessions_or_changes_groups_that_are_anothers(town: Town, tmp_path: Path) -> None:
    town.register(town.ann, "ann")
    ann, eve = town.ann, town.eve
    start = town.say(ann, ann(events.SessionStarted, agent_id="ann"))
    group = town.say(ann, ann(events.GroupCreated, name="crew", created_by="ann"))
    member = {"group_id": group.group_id, "member_type": "agent", "member_value": "ann"}
    town.say(ann, ann(events.GroupMemberAdded, added_by="ann", **member))
    honest, town.lines = town.lines, []
    work = Work(session_id=start.session_id, intent="lies", intent_updated_at=clock.format_ms(eve.ms + 10))
    town.say(eve, eve(events.AgentUpdated, agent_id="ann", work_contexts=(work,)))
    town.say(eve, eve(events.SessionEnded, session_id=start.session_id, reason="crash"))
    town.say(eve, eve(events.GroupMemberRemoved, removed_by="ann", **member))
    town.say(eve, eve(events.GroupUpdated, group_id=group.group_id, updated_by="ann", fields=GroupFields(name="x")))
    town.say(eve, eve(events.GroupDeleted, group_id=group.group_id, deleted_by="ann"))
    stranger = {"group_id": group.group_id, "member_type": "role", "member_value": "coder"}
    town.say(eve, eve(events.GroupMemberAdded, added_by="eve", **stranger))
    check_nothing_changes(honest, town.lines, tmp_path)


def test_an_agent_joins_and_leaves_where_it_is_registered(town: Town, tmp_path: Path) -> None:
    town.register(town.ann, "ann")
    group = town.say(town.me, town.me(events.GroupCreated, name="crew", created_by="nux"))
    member = {"group_id": group.group_id, "member_type": "agent", "member_value": "ann"}
    town.say(town.ann, town.ann(events.GroupMemberAdded, added_by="ann", **member))
    for lines in (town.lines, [*reversed(town.lines)]):
        found = live(lines)
        assert [each.member_value for each in View(found.db, OWN).groups()["crew"]] == ["ann"]
        assert rebuilt(lines, tmp_path) == found.dump()
        found.db.close()


def test_a_name_stays_with_whom_it_is_pinned_to_and_bad_ones_show_nowhere(town: Town, tmp_path: Path) -> None:
    town.register(town.ann, "max")
    eve = town.eve
    early = town.say(
        eve,
        eve(
            events.AgentRegistered, agent_id="max", kind="agent", role="evil", module="all", ms=factmaker.START_MS - 999
        ),
    )
    for name in ("everyone", "coder", "--to"):
        registered = eve(events.AgentRegistered, agent_id=name, name=name, kind="agent", role="coder", module="all")
        town.say(eve, registered)
    pinned = town.me(events.Accepted, kind="holder", id="max", of=town.ann.daemon_id)
    for lines, role in ((town.lines, "evil"), ([*town.lines, (pinned, events.encode(pinned))], "coder")):
        for order in (lines, [*reversed(lines)]):
            found = live(order)
            view = View(found.db, OWN)
            agent = view.agent("max")
            assert agent is not None and (agent.role, agent.origin_daemon == eve.daemon_id) == (role, role == "evil")
            assert view.agent_ids() == {"max"}
            assert rebuilt(order, tmp_path) == found.dump()
            found.db.close()
    assert early.timestamp < pinned.timestamp


def test_lines_of_another_project_wait_until_it_is_said_that_it_is_this_one(town: Town, tmp_path: Path) -> None:
    bob = Daemon(4)
    other, own = bob.introduction("r_other"), bob.introduction("r_other", PROJECT)
    sent = bob.message("bob", "nux")
    replayed: list[Line] = [(fact, bob.line(fact)) for fact in (other, sent)]
    for lines, count in (([*town.lines, *replayed], 0), ([*town.lines, *replayed, (own, bob.line(own))], 1)):
        for order in (lines, [*reversed(lines)]):
            found = live(order)
            assert len(found.dump()["messages"]) == count
            assert rebuilt(order, tmp_path) == found.dump()
            found.db.close()


def test_format_99_of_another_daemon_stops_nobody_from_writing(town: Town) -> None:
    town.say(town.eve, town.eve(events.JournalFormat, format=99))
    found = live(town.lines)
    view = View(found.db, OWN)
    assert view.foreign_format() and not view.newer_format()
    found.db.close()


# -- what somebody says under another's name


def pin(town: Town, agent_id: str, of: Daemon) -> Line:
    """What this machine notes when it first sees who holds a name elsewhere."""
    fact = town.me(events.Accepted, kind="holder", id=agent_id, of=of.daemon_id)
    return fact, events.encode(fact)


def test_no_reply_moves_a_message_into_another_thread(town: Town, tmp_path: Path) -> None:
    town.register(town.me, "nux")
    root = town.say(town.me, town.me.message("nux", "ann"))
    thread = "thr_" + root.message_id.removeprefix("msg_")
    town.register(town.ann, "ann")
    town.say(town.ann, town.ann.message("ann", "nux", reply=root.message_id, thread_id=thread))
    eve = town.eve
    town.say(eve, eve.message("eve", "nux", reply=root.message_id, thread_id="thr_00000000000000000000000000"))
    for lines in (town.lines, [*reversed(town.lines)]):
        found = live(lines)
        assert View(found.db, OWN).thread_of(root.message_id) == thread
        assert rebuilt(lines, tmp_path) == found.dump()
        found.db.close()


def test_nobody_answers_for_an_agent_that_he_did_not_register(town: Town, tmp_path: Path) -> None:
    town.register(town.me, "nux")
    sent = town.say(town.me, town.me.message("nux", "nux", "ann", "bob"))
    town.register(town.ann, "ann")
    eve, ann = town.eve, town.ann
    for agent in ("nux", "ann", "bob"):
        town.say(eve, eve.message(agent, "nux", reply=sent.message_id))
    for agent, has_answered in (("ann", True), ("bob", False)):
        town.say(ann, ann.message(agent, "nux", reply=sent.message_id))
        for lines in (town.lines, [*reversed(town.lines)]):
            found = live(lines)
            view = View(found.db, OWN)
            rows = {each.agent_id: bool(each.replied_at) for each in view.recipients(sent.message_id)}
            assert rows == {"nux": False, "ann": True, "bob": False} and (rows[agent] == has_answered)
            assert rebuilt(lines, tmp_path) == found.dump()
            found.db.close()


def test_who_takes_a_name_too_marks_and_answers_nothing_for_whom_it_is_pinned_to(town: Town, tmp_path: Path) -> None:
    town.register(town.me, "nux")
    sent = town.say(town.me, town.me.message("nux", "ann"))
    other = town.say(town.me, town.me.message("nux", "ann"))
    town.register(town.ann, "ann")
    town.register(town.eve, "ann")
    eve, ann = town.eve, town.ann
    town.say(eve, eve(events.MessageReceipt, message_id=sent.message_id, agent_id="ann", receipt_type="read"))
    town.say(eve, eve.message("ann", "nux", reply=sent.message_id))
    town.say(ann, ann(events.MessageReceipt, message_id=other.message_id, agent_id="ann", receipt_type="read"))
    town.lines.append(pin(town, "ann", ann))
    for order in (town.lines, [*reversed(town.lines)], [town.lines[-1], *town.lines[:-1]]):
        found = live(order)
        view = View(found.db, OWN)
        forged, true = (view.is_recipient(each.message_id, "ann") for each in (sent, other))
        assert forged is not None and not forged.read_at and not forged.replied_at
        assert true is not None and true.read_at
        assert rebuilt(order, tmp_path) == found.dump()
        found.db.close()


def test_who_is_noted_as_a_second_holder_speaks_from_then_on_for_all_that_was_said_before(
    town: Town, tmp_path: Path
) -> None:
    town.register(town.me, "nux")
    sent = town.say(town.me, town.me.message("nux", "ann"))
    town.register(town.eve, "ann")
    town.lines.append(pin(town, "ann", town.eve))
    town.register(town.ann, "ann")
    ann = town.ann
    town.say(ann, ann.message("ann", "nux", reply=sent.message_id))
    town.say(ann, ann(events.MessageReceipt, message_id=sent.message_id, agent_id="ann", receipt_type="read"))
    town.lines.append(pin(town, "ann", ann))
    for order in (town.lines, [*reversed(town.lines)]):
        found = live(order)
        to = View(found.db, OWN).is_recipient(sent.message_id, "ann")
        assert to is not None and to.read_at and to.replied_at
        assert rebuilt(order, tmp_path) == found.dump()
        found.db.close()


def test_of_lines_that_say_the_same_the_one_of_before_stands_and_a_rebuild_comes_to_its_end(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def counted(*args: Any, **options: Any) -> None:
        passes.append(1)
        assert len(passes) < 20, "it begins again and again"
        database.create_tables(*args, **options)

    monkeypatch.setattr(rebuilding, "create_tables", counted)
    said = town.me(events.AgentCleaned, agent_id="ann", origin_daemon="")
    plain = events.encode(said)
    tailed = town.eve.signer.sign(plain)  # it says that nobody wrote it, so that is no signature
    known = town.me(events.Accepted, kind="before", lines=(line_hash(plain),))
    closed = town.me(events.Accepted, kind="before")
    local = [(fact, events.encode(fact)) for fact in (known, closed)]
    for twins in ([(said, plain), (said, tailed)], [(said, tailed), (said, plain)]):
        passes.clear()
        rows = rebuilt([*town.lines, *twins, *local], tmp_path)
        assert [row[1] for row in rows["horizons"]] == ["ann"]


def test_a_session_that_a_stranger_starts_for_an_agent_is_not_the_agents(town: Town) -> None:
    for who, agent in ((town.me, "nux"), (town.ann, "ann")):
        town.register(who, agent)
    true = {
        agent: town.say(who, who(events.SessionStarted, agent_id=agent))
        for who, agent in ((town.me, "nux"), (town.ann, "ann"))
    }
    eve = town.eve
    seen = {agent: live(town.lines) for agent in true}
    last = {agent: View(found.db, OWN).agent(agent) for agent, found in seen.items()}
    for agent in true:
        late = eve.ms + HOUR_MS // 2
        start = town.say(eve, eve(events.SessionStarted, agent_id=agent, ms=late))
        work = Work(session_id=start.session_id, intent="lies", intent_updated_at=clock.format_ms(late))
        town.say(eve, eve(events.AgentUpdated, agent_id=agent, work_contexts=(work,), ms=late))
        town.say(eve, eve.message(agent, "nux", ms=late))
    found = live(town.lines)
    view = View(found.db, OWN)
    for agent, start in true.items():
        assert view.open_session_id(agent) == start.session_id
        session = view.open_session(agent)
        assert session is not None and session.session_id == start.session_id
        assert [row.session_id for row in view.sessions(agent)] == [start.session_id]
        assert view.open_sessions()[agent].session_id == start.session_id
        assert view.contexts(agent) == [] and view.agent(agent) == last[agent]
    assert {row.session_id for row in view.sessions()} == {start.session_id for start in true.values()}
    assert view.contexts() == []
    for each in (found, *seen.values()):
        each.db.close()


def test_a_message_by_who_does_not_hold_its_authors_name_is_a_namesakes(town: Town) -> None:
    for who, agent in ((town.me, "nux"), (town.ann, "ann")):
        town.register(who, agent)
    said = [
        (town.say(who, who.message(agent, "nux", "ann")), is_namesake)
        for who, agent, is_namesake in (
            (town.me, "nux", False),
            (town.ann, "ann", False),
            (town.eve, "nux", True),
            (town.eve, "ann", True),
            (town.ann, "nux", True),
            (town.eve, "eve", False),
        )
    ]
    found = live(town.lines)
    view = View(found.db, OWN)
    page = view.inbox(InboxQuery(page_size=50)).messages
    shown = {each.message_id: each.is_namesake for each in page}
    for fact, is_namesake in said:
        detail = view.detail(fact.message_id)
        assert detail is not None and detail.is_namesake == shown[fact.message_id] == is_namesake
    found.db.close()


def test_notes_are_those_of_who_holds_the_agent(town: Town) -> None:
    town.register(town.ann, "ann")
    eve, ann = town.eve, town.ann
    town.say(eve, eve(events.AgentContextSaved, agent_id="ann", content="lies", ms=eve.ms + HOUR_MS // 2))
    found = live(town.lines)
    assert View(found.db, OWN).note("ann") is None
    found.db.close()
    town.say(ann, ann(events.AgentContextSaved, agent_id="ann", content="true"))
    found = live(town.lines)
    note = View(found.db, OWN).note("ann")
    assert note is not None and note[0] == "true"
    found.db.close()


def test_a_foreign_group_takes_no_word_and_adds_nobody_to_a_group_of_here(town: Town, tmp_path: Path) -> None:
    for who, agent in ((town.me, "nux"), (town.ann, "ann"), (town.eve, "eve")):
        town.register(who, agent)
    me, eve = town.me, town.eve
    group = town.say(me, me(events.GroupCreated, name="crew", description="ours", created_by="nux"))
    member = {"group_id": group.group_id, "member_type": "agent", "added_by": "nux"}
    town.say(me, me(events.GroupMemberAdded, member_value="nux", **member))
    for name in ("crew", "coder", "everyone", "--to", "nu x", "x" * 65):
        made = eve(events.GroupCreated, name=name, description="lies", created_by="nux", ms=factmaker.START_MS - 999)
        town.say(eve, made)
        for kind, value in (("agent", "ann"), ("agent", "eve"), ("role", "*")):
            named = {"member_type": kind, "member_value": value}
            town.say(eve, eve(events.GroupMemberAdded, group_id=made.group_id, added_by="nux", **named))
    fine = town.say(eve, eve(events.GroupCreated, name="others", created_by="eve"))
    town.say(eve, eve(events.GroupUpdated, group_id=fine.group_id, updated_by="eve", fields=GroupFields(name="../x")))
    for lines in (town.lines, [*reversed(town.lines)]):
        found = live(lines)
        view = View(found.db, OWN)
        assert view.groups().keys() == {"crew", "coder", "others"}
        ours = view.group("crew")
        assert ours is not None and ours.description == "ours"
        # Who is registered elsewhere may join there.
        assert [each.member_value for each in ours.members] == ["eve", "nux"]
        assert addressing.resolve(["@coder"], "user:leon", ViewDirectory(view)).audiences == (Pair("role", "coder"),)
        assert rebuilt(lines, tmp_path) == found.dump()
        found.db.close()
