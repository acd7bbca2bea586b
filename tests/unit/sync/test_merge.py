"""How lines become a journal of the branch: the same bytes for the same facts, whoever composes them."""

from __future__ import annotations

import random

import msgspec
import pytest

from tests.support.store.factmaker import Maker
from tests.support.store.old_tombstones import old_tombstones
from tests.support.store.signers import Daemon
from thrum.identity import signing
from thrum.model import clock, events, limits
from thrum.model.events import Work
from thrum.model.origins import OLD_REALM
from thrum.model.signatures import split_signature, with_signature
from thrum.model.tombstones import Tombstones
from thrum.sync.merge import canonical, grown, joined, missing, split_lines, subject, wanted

NOTHING = Tombstones()


@pytest.fixture
def make() -> Maker:
    return Maker()


def data_of(*facts: object) -> bytes:
    return b"".join((fact if isinstance(fact, bytes) else events.encode(fact)) + b"\n" for fact in facts)  # type: ignore[arg-type]


def file_of(fact: object) -> str:
    return events.file_of(fact)  # type: ignore[arg-type]


def test_equal_sets_of_lines_give_equal_bytes_in_the_order_of_facts(make) -> None:
    lines = [events.encode(make.message(text=str(number))) for number in range(9)]
    want = b"".join(line + b"\n" for line in lines)
    for seed in range(5):
        shuffled = lines + lines[:3]
        random.Random(seed).shuffle(shuffled)
        assert canonical("messages/furiosa.jsonl", data_of(*shuffled), NOTHING).data == want


def test_the_order_goes_by_the_normalised_time_and_the_bytes_stay(make) -> None:
    early, late = make.message(), make.message()
    odd = events.encode(early).replace(early.timestamp.encode(), early.timestamp.encode().replace(b"Z", b"+00:00"))
    assert canonical("messages/furiosa.jsonl", data_of(late, odd), NOTHING).data == data_of(odd, late)


def test_what_is_accepted_silently_is_not_written_on(make) -> None:
    line = events.encode(make.message())
    data = b"\xef\xbb\xbf" + line + b"\r\n\n  \n" + line + b"\n"
    assert canonical("messages/furiosa.jsonl", data, NOTHING).data == line + b"\n"


def test_a_line_without_its_newline_is_no_line_here_and_one_there(make) -> None:
    line = events.encode(make.message())
    assert canonical("messages/furiosa.jsonl", line, NOTHING).data == b""
    assert missing(b"", line) == [line]


def test_of_two_lines_of_one_id_the_smaller_one_stays(make) -> None:
    line = events.encode(make.message())
    smaller = line.replace(b'{"type"', b'{"aa":1,"type"')
    for lines in ((line, smaller), (smaller, line)):
        assert canonical("messages/furiosa.jsonl", data_of(*lines), NOTHING).data == smaller + b"\n"


@pytest.mark.parametrize("bad", [b"garbage", b"[]", b"\xff", b'{"type":"x"}', b"{", b"1"])
def test_what_nobody_can_use_is_left_out(make, bad) -> None:
    line = events.encode(make.message())
    assert canonical("messages/furiosa.jsonl", data_of(bad, line), NOTHING).data == line + b"\n"


def test_what_a_newer_program_may_know_better_stays(make, monkeypatch) -> None:
    line = events.encode(make.message())
    kept = [
        line.replace(b'"v":1', b'"v":2'),
        line.replace(b"message.create", b"message.sing"),
        line.replace(b'"markdown"', b"7"),
        line.replace(b"hi", b"h" * 5_000),
    ]
    monkeypatch.setattr(limits, "line_bytes_max", 2_000)
    for raw in kept:
        assert canonical("messages/furiosa.jsonl", data_of(raw), NOTHING).data == raw + b"\n"


def test_a_fact_in_the_wrong_file_is_named_with_its_own(make) -> None:
    stray, placed = make.message("nux"), make(events.AgentPlaced, agent_id="nux", worktree_path="/x")
    receipt = make(events.MessageReceipt, message_id="msg_1", agent_id="user:leon", receipt_type="read")
    found = canonical("events.jsonl", data_of(stray, placed, receipt), NOTHING)
    assert found.data == b""
    assert found.strays == {
        "messages/nux.jsonl": (events.encode(stray),),
        "messages/user.leon.jsonl": (events.encode(receipt),),
    }


def test_lines_found_elsewhere_join_their_journal(make) -> None:
    here, elsewhere = make.message(), make.message()
    found = canonical("messages/furiosa.jsonl", data_of(here), NOTHING, [events.encode(elsewhere)])
    assert found.data == data_of(here, elsewhere)


# -- what is tombstoned, and what was replaced


def test_a_cleanup_takes_what_lies_below_it_and_leaves_what_came_after(make) -> None:
    before = make(events.SessionStarted, session_id="ses_1", agent_id="nux")
    other = make(events.SessionStarted, session_id="ses_2", agent_id="furiosa")
    cleaned = make(events.AgentCleaned, agent_id="nux")
    after = make(events.SessionStarted, session_id="ses_3", agent_id="nux")
    tombstones = old_tombstones(agents={"nux": events.order_of(cleaned)})
    data = data_of(before, other, cleaned, after)
    assert canonical("events.jsonl", data, tombstones).data == data_of(other, cleaned, after)


def test_a_purge_takes_messages_with_what_was_done_to_them(make) -> None:
    old = make.message()
    edited = make(events.MessageEdited, message_id=old.message_id, agent_id="furiosa", body=events.Body("plain", "x"))
    receipt = make(events.MessageReceipt, message_id=old.message_id, agent_id="furiosa", receipt_type="read")
    young = make.message()
    tombstones = old_tombstones(purge=clock.format_ms(make.ms))
    data = data_of(old, edited, receipt, young)
    # Whose message it was, a receipt does not say, and without a signature the message's id doesn't either.
    assert canonical("messages/furiosa.jsonl", data, tombstones).data == data_of(receipt, young)


def test_an_update_goes_when_all_it_says_was_said_anew(make) -> None:
    def update(**fields: str) -> events.AgentUpdated:
        return make(events.AgentUpdated, agent_id="furiosa", work_contexts=(Work(session_id="ses_1", **fields),))

    def now() -> str:
        return clock.format_ms(make.ms)

    first = update(intent="a", intent_updated_at=now())
    both = update(intent="b", intent_updated_at=now(), current_task="t", task_updated_at=now())
    last = update(intent="c", intent_updated_at=now())
    data = data_of(first, both, last)
    assert canonical("messages/furiosa.jsonl", data, NOTHING).data == data_of(both, last)


# -- what was appended since

FILE = "messages/furiosa.jsonl"


def grow(before: bytes, more: bytes, tombstones: Tombstones = NOTHING) -> bytes | None:
    """By what was appended alone; None if that won't do. Never other than by a look at all."""
    known = canonical(FILE, before, tombstones)
    if not known.plain or known.strays:
        return None
    found = grown(FILE, known.data, before + more, len(before), tombstones)
    if found is None:
        return None
    assert found.data == canonical(FILE, before + more, tombstones).data
    assert list(found.added) == missing(known.data, found.data)
    return found.data


def test_what_was_appended_is_put_in_its_place_without_a_look_at_the_rest(make) -> None:
    one, two, three, four = (make.message() for _ in range(4))
    assert grow(data_of(one, two), data_of(three)) == data_of(one, two, three)
    assert grow(data_of(one, three), data_of(four, two)) == data_of(one, two, three, four)
    assert grow(data_of(two, three), data_of(b"garbage", one)) == data_of(one, two, three)
    assert grow(data_of(one), b"") == data_of(one)
    assert grow(data_of(one), data_of(two)[:-1]) == data_of(one)


def test_what_hangs_on_other_lines_has_all_of_them_looked_at(make) -> None:
    one, two, stray = make.message(), make.message(), make.message("nux")
    line = events.encode(one)
    odd = line.replace(b'"event_id":"evt', b'"event_id":"\\u0065vt')
    assert grow(data_of(one), data_of(line.replace(b'"hi"', b'"ho"'))) is None
    assert grow(data_of(odd), data_of(line)) is None
    assert grow(data_of(two), data_of(odd)) is None
    assert grow(data_of(one), data_of(stray)) is None
    assert grow(data_of(one)[:-1], b"\n" + data_of(two)) is None
    edited = make(events.MessageEdited, message_id=one.message_id, agent_id="furiosa", body=events.Body("plain", "x"))
    watermark = events.order_of(make(events.AgentCleaned, agent_id="furiosa"))
    assert grow(data_of(make.message()), data_of(edited), old_tombstones(authors={"furiosa": watermark})) is None


def test_an_appended_update_replaces_the_one_before(make) -> None:
    def update(text: str) -> events.AgentUpdated:
        work = Work(session_id="ses_1", intent=text, intent_updated_at=clock.format_ms(make.ms))
        return make(events.AgentUpdated, agent_id="furiosa", work_contexts=(work,))

    first, message, second, third = update("a"), make.message(), update("b"), update("c")
    assert grow(data_of(first, message), data_of(second)) == data_of(message, second)
    assert grow(data_of(first, second, message), data_of(third)) == data_of(message, third)
    assert grow(data_of(third, message), data_of(first)) == data_of(message, third)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_appended_the_bytes_are_those_of_a_look_at_all(make, seed) -> None:
    chance = random.Random(seed)
    messages = [make.message() for _ in range(4)]
    lines = [events.encode(message) for message in messages]
    for _ in range(14):
        message = chance.choice(messages)
        stamp = clock.format_ms(make.ms + chance.choice([-50, 0]))
        work = Work(session_id=f"ses_{chance.randrange(2)}", intent="x", intent_updated_at=stamp)
        fact = chance.choice(
            [
                lambda m=message: make(events.MessageDeleted, message_id=m.message_id, agent_id="furiosa", reason="x"),
                lambda w=work: make(events.AgentUpdated, agent_id="furiosa", work_contexts=(w,)),
                lambda: make.message("nux") if chance.random() < 0.1 else make.message(),
            ]
        )()
        raw = events.encode(fact)
        if chance.random() < 0.1:
            raw = raw.replace(b'"v":1', b'"v":2')
        if chance.random() < 0.05:
            raw = raw.replace(b'"event_id":"e', b'"event_id":"\\u0065')
        if chance.random() < 0.1:
            lines.append(raw.replace(b'"x"', b'"y"'))
        lines.append(raw)
    chance.shuffle(lines)
    watermark = (clock.format_ms(make.ms - chance.randrange(30)), "evt_zzz")
    tombstones = chance.choice(
        [
            NOTHING,
            old_tombstones(agents={"furiosa": watermark}),
            old_tombstones(authors={"furiosa": watermark}),
            old_tombstones(purge=watermark[0]),
        ]
    )
    for cut in range(1, len(lines)):
        grow(data_of(*lines[:cut]), data_of(*lines[cut : cut + 3]), tombstones)


# -- what arrives


def test_missing_lines_are_those_of_there_in_their_order(make) -> None:
    one, two, three = (events.encode(make.message()) for _ in range(3))
    assert missing(data_of(two), data_of(three, two, one)) == [three, one]


def test_what_arrives_goes_where_it_belongs_and_what_is_tombstoned_stays_out(make) -> None:
    stray = make.message("nux")
    placed = make(events.AgentPlaced, agent_id="nux", worktree_path="/x")
    gone = make(events.SessionStarted, session_id="ses_1", agent_id="nux")
    opaque = events.encode(stray).replace(b'"v":1', b'"v":9')
    lines = [events.encode(stray), b"garbage", events.encode(placed), events.encode(gone), opaque]
    tombstones = old_tombstones(agents={"nux": events.order_of(gone)})
    assert wanted("events.jsonl", lines, tombstones) == [
        ("messages/nux.jsonl", events.encode(stray)),
        ("events.jsonl", b"garbage"),
        ("events.jsonl", opaque),
    ]
    assert wanted("events.jsonl", lines, NOTHING)[2:4] == [
        ("events.jsonl", events.encode(placed)),
        ("events.jsonl", events.encode(gone)),
    ]


def test_what_was_done_to_a_message_that_stands_here_arrives_whatever_its_id_says(make) -> None:
    """Of the same millisecond as a cleanup, and in an id that tells an earlier time than its create."""
    for made_ms in (make.ms, make.ms - 9_000):
        message_id = "msg_" + Maker(made_ms).id("")
        cleaned = make(events.AgentCleaned, agent_id="furiosa", messages=True, step=0)
        created = (
            make.message(message_id=message_id)
            if made_ms < make.ms
            else make(
                events.MessageCreated, step=0, message_id=message_id, agent_id="furiosa", body=events.Body("plain", "x")
            )
        )
        deleted = make(events.MessageDeleted, message_id=message_id, agent_id="furiosa")
        order = events.order_of(cleaned)
        tombstones = old_tombstones(agents={"furiosa": order}, authors={"furiosa": order})
        file, raw = "messages/furiosa.jsonl", events.encode(deleted)
        assert wanted(file, [raw], tombstones, data_of(created)) == [(file, raw)]
        assert canonical(file, data_of(created, deleted), tombstones).data == data_of(created, deleted)


def test_what_was_done_to_a_message_that_a_cleanup_took_stays_away(make) -> None:
    created = make.message()
    deleted = make(events.MessageDeleted, message_id=created.message_id, agent_id="furiosa")
    cleaned = make(events.AgentCleaned, agent_id="furiosa", messages=True)
    tombstones = old_tombstones(authors={"furiosa": events.order_of(cleaned)})
    assert wanted("messages/furiosa.jsonl", [events.encode(deleted)], tombstones, data_of(created)) == []


def pasted(signed: bytes, old: bytes, new: bytes) -> bytes:
    """Another line with the signature of that one."""
    base, key, signature = split_signature(signed) or (b"", b"", b"")
    assert old in base
    return with_signature(base.replace(old, new), key, signature)


@pytest.mark.parametrize("first", [0, 1])
def test_a_tombstoned_line_keeps_no_other_line_of_its_id_out(first: int) -> None:
    ann = Daemon(1)
    cleaned = ann(events.AgentCleaned, agent_id="furiosa", messages=True)
    message = ann.message()
    signed, order = ann.line(message), events.order_of(cleaned)
    earlier = clock.format_ms(ann.ms - 99_000)
    forged = pasted(signed, message.timestamp.encode(), earlier.encode())
    unsigned = events.encode(msgspec.structs.replace(message, timestamp=earlier))
    tombstones = Tombstones(authors={"furiosa": {ann.daemon_id: order, OLD_REALM: order}})
    twin = ann.line(msgspec.structs.replace(message, timestamp=earlier))
    assert unsigned < events.encode(message)
    for other in (forged, unsigned, twin):
        lines = [signed, other] if first else [other, signed]
        file = "messages/furiosa.jsonl"
        assert wanted(file, lines, tombstones) == [(file, signed)]
        assert wanted(file, [other], tombstones) == []
        made = canonical(file, data_of(signed), tombstones, [other])
        assert made.data == data_of(signed)
        assert made.plain
        assert canonical(file, b"", tombstones, lines).data == data_of(signed)


def test_what_grows_was_made_of_the_journal_alone() -> None:
    """Where a line of the branch took the place of one of the journal, the next look at that is a whole one."""
    ann = Daemon(1)
    message = ann.message()
    better = ann.line(msgspec.structs.replace(message, timestamp=clock.format_ms(ann.ms - 99_000)))
    made = canonical("messages/furiosa.jsonl", data_of(ann.line(message)), Tombstones(), [better])
    assert made.data == data_of(better)
    assert not made.plain


def test_of_a_flood_of_forged_lines_of_one_id_each_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ann = Daemon(1)
    signed = ann.line(ann.message(text="zz"))
    forged = [pasted(signed, b'"zz"', b'"a%d"' % number) for number in range(1_000)]
    looked_at: list[bytes] = []
    flaw_of = signing.flaw_of
    monkeypatch.setattr(signing, "flaw_of", lambda raw: looked_at.append(raw) or flaw_of(raw))
    assert canonical("messages/furiosa.jsonl", data_of(signed), Tombstones(), forged).data == data_of(signed)
    assert sorted(looked_at) == sorted(forged)


def test_a_forged_update_replaces_nothing() -> None:
    ann = Daemon(1)
    work = Work(session_id="ses_1", intent="x", intent_updated_at="2026-02-03T10:00:00.000Z")
    update = ann.line(ann(events.AgentUpdated, agent_id="furiosa", work_contexts=(work,)))
    later = ann.line(ann(events.AgentUpdated, agent_id="furiosa", work_contexts=(work,)))
    forged = pasted(later, b'"x"', b'"z"')
    assert update in split_lines(joined(data_of(forged), [update]))
    assert update not in split_lines(joined(data_of(later), [update]))


def test_lines_of_one_id_do_not_replace_each_other(make) -> None:
    work = Work(session_id="ses_1", intent="x", intent_updated_at="2026-02-03T10:00:00.000Z")
    update = events.encode(make(events.AgentUpdated, agent_id="furiosa", work_contexts=(work,)))
    other = update.replace(b'"x"', b'"!x"')
    assert split_lines(joined(data_of(update), [other])) == [other, update]


def test_blank_lines_and_carriage_returns_make_no_lines() -> None:
    assert split_lines(b"\xef\xbb\xbfa\r\n\n \t\nb\nc") == [b"a", b"b"]


def test_lines_are_put_among_others_in_order_and_none_of_those_goes(make) -> None:
    first, second, third = (events.encode(make.message()) for _ in range(3))
    there = b"\n".join([b"no fact", third, first, b""])
    assert joined(there, [second, first]) == b"\n".join([b"no fact", first, second, third, b""])
    assert joined(b"", [second]) == second + b"\n"


def test_the_subject_counts_what_is_new_by_kind(make) -> None:
    lines = [
        events.encode(fact)
        for fact in (
            make(events.AgentRegistered, agent_id="nux", kind="agent", role="r", module="m"),
            make.message(),
            make.message(),
            make(events.GroupDeleted, group_id="grp_1", deleted_by="nux"),
            make(events.GroupMemberAdded, group_id="grp_1", member_type="agent", member_value="ann", added_by="nux"),
            make(events.GroupMemberAdded, group_id="grp_1", member_type="role", member_value="ops", added_by="nux"),
        )
    ]
    assert subject([*lines, b'{"type":"mind.read","timestamp":"","event_id":"evt_1"}', b"garbage"], "alice@host") == (
        "sync: 2 messages, 1 registration, 1 group deletion, 2 group members, 2 other facts from alice@host"
    )
    assert subject([], "alice@host") == "sync: tidied from alice@host"


def test_an_older_edit_that_names_nobody_stays_in_the_journal_of_its_author(make: Maker) -> None:
    message = make.message()
    edit = events.encode(make(events.MessageEdited, message_id=message.message_id, body=message.body))
    data = data_of(message, edit)
    assert canonical("messages/furiosa.jsonl", data, NOTHING).data == data
    assert canonical("messages/furiosa.jsonl", data, NOTHING).strays == {}
    assert wanted("messages/furiosa.jsonl", [edit], NOTHING) == [("messages/furiosa.jsonl", edit)]
