"""Random histories over restarts, crashes and deleted databases: the live projection is the one rebuilt, row for row.

What was acknowledged is in the journals exactly once; what was rolled back is nowhere. The facts are of every type, own
ones through the writer, foreign ones as lines that arrive in any order: ingested by the writer, or lying there when the
store is opened.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.here import START_MS, HandClock
from tests.support.store.opened import layout_at, open_here, projection_of, resent, sending
from thrum.model import clock, events, ids, limits, signatures
from thrum.model.events import AnyFact, Body, GroupFields, Pair, Work
from thrum.model.methods.method import ClientKey
from thrum.model.tombstones import branch_file_of
from thrum.store import database
from thrum.store.api import Decision, Stamp
from thrum.store.ingest import verified
from thrum.store.queries.views import View
from thrum.store.recovery import Opened
from thrum.store.writer import Call, Errand, Writer

AGENTS = ("furiosa", "nux", "user:max")
_ulids = ids.Ulids(lambda count: b"\x11" * count)
MESSAGES = tuple("msg_" + _ulids.at(START_MS + 1000 * number) for number in range(5))
SESSIONS = tuple("ses_" + _ulids.at(START_MS + 10_000 + number) for number in range(3))
GROUPS = tuple("grp_" + _ulids.at(START_MS + 20_000 + number) for number in range(2))
# Nothing here is about the disk, and there a sync costs nothing.
_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
FOREIGN = "d_01KGH87Y00FFFFFFFFFFFFFFFF"

Spec = tuple[int, int, int, int]


def _time(number: int) -> str:
    return clock.format_ms(START_MS + 700 * number)


def fields_of(spec: Spec) -> tuple[type[Any], dict[str, Any]]:
    """A kind of fact and its own fields, from small numbers."""
    kind, a, b, c = spec
    message, session, group = MESSAGES[a % 5], SESSIONS[a % 3], GROUPS[a % 2]
    agent, other = AGENTS[b % 3], AGENTS[c % 3]
    parent = MESSAGES[c % 5]
    pair = Pair("module", f"m{c % 3}")
    reply = {"refs": (Pair("reply_to", parent),), "thread_id": "thr_" + parent[4:]} if c % 2 else {}
    member = {"member_type": "agent", "member_value": other}
    work = Work(
        session_id=session,
        branch=f"branch{c}",
        changed_files=(f"src/{c}.py",),
        git_updated_at=_time(c),
        intent=f"intent {c}",
        intent_updated_at=_time(b),
    )
    kinds: list[tuple[type[Any], dict[str, Any]]] = [
        (
            events.MessageCreated,
            {"message_id": message, "agent_id": agent, "body": Body("plain", f"text {c}"), "scopes": (pair,)}
            | {"recipients": tuple(sorted({other, AGENTS[a % 3]})), "audiences": (Pair("agent", other),)}
            | {"supersedes": parent if b % 2 else "", "expires_at": _time(c) if a % 2 else ""}
            | reply,
        ),
        (events.MessageEdited, {"message_id": message, "agent_id": agent, "body": Body("plain", f"edit {c}")}),
        (events.MessageDeleted, {"message_id": message, "agent_id": agent, "reason": f"why {c}"}),
        (
            events.MessageReceipt,
            {"message_id": message, "agent_id": other, "receipt_type": ("delivered", "seen", "read")[b % 3]},
        ),
        (events.AgentRegistered, {"agent_id": agent, "kind": "agent", "role": f"role{c}", "module": "all"}),
        (events.SessionStarted, {"session_id": session, "agent_id": agent, "scopes": (pair,)}),
        (events.SessionEnded, {"session_id": session, "agent_id": agent, "reason": "normal"}),
        (events.AgentUpdated, {"agent_id": agent, "work_contexts": (work,)}),
        (events.AgentContextSaved, {"agent_id": agent, "content": f"notes {c}"}),
        (events.GroupCreated, {"group_id": group, "name": f"group{c % 2}", "created_by": agent}),
        (events.GroupMemberAdded, {"group_id": group, "added_by": agent} | member),
        (events.GroupMemberRemoved, {"group_id": group, "removed_by": agent} | member),
        (events.GroupUpdated, {"group_id": group, "updated_by": agent, "fields": GroupFields(name=f"new{c}")}),
        (events.AgentPlaced, {"agent_id": agent, "worktree_path": f"/work/{c}", "agent_pid": c + 1}),
        (events.AgentExited, {"agent_id": agent, "agent_pid": c + 1}),
        (events.AgentSeen, {"agent_id": agent, "session_id": session}),
        (events.AgentStatusSet, {"agent_id": agent, "status": f"status{c}", "by": other}),
        (events.SessionItemsChanged, {"session_id": session, "add_scopes": (pair,), "remove_refs": (pair,)}),
        (events.GroupDeleted, {"group_id": group, "deleted_by": agent}),
        (events.AgentCleaned, {"agent_id": agent, "by": other, "messages": c % 2 == 0}),
        (events.PurgeExecuted, {"cutoff": _time(c)}),
        (
            events.WakeAttempted,
            {
                "agent_id": agent,
                "attempt_id": f"wak_{a % 2}",
                "door": "claude",
                "message_ids": (message, parent),
                "outcome": ("offered", "proved", "expired")[c % 3],
            },
        ),
    ]
    return kinds[kind % len(kinds)]


# Creates come more often than what ends things, so that there is something to see.
KIND = st.sampled_from(
    [0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
)
SMALL = st.integers(0, 9)
SPECS = st.lists(st.tuples(KIND, SMALL, SMALL, SMALL), min_size=1, max_size=4)


ARRIVALS = st.lists(st.one_of(st.integers(0, 40), st.integers(1, 4).map(lambda half: -half)), min_size=4, max_size=4)


def stamped(spec: Spec, number: int) -> AnyFact:
    """A fact of elsewhere; below zero: so many days and a half ahead of the beginning."""
    ms = START_MS + (700 * number if number >= 0 else int((0.5 - number) * limits.future_stamp_ms_max))
    cls, fields = fields_of(spec)
    event_id = "evt_" + ids.Ulids().at(ms)
    return cls(timestamp=clock.format_ms(ms), event_id=event_id, v=1, origin_daemon=FOREIGN, **fields)


class StoreMachine(RuleBasedStateMachine):
    """`acknowledged` are the ids of facts that a caller was told of; `foreign` the lines that arrived by themselves."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="thrum-machine-", dir=_IN_MEMORY))
        self.boots = 1
        self.wall = HandClock()
        self.acknowledged: list[str] = []
        self.unanswered: set[str] = set()
        self.dropped: set[str] = set()
        self.foreign: list[AnyFact] = []
        self.taken: dict[str, AnyFact] = {}
        self.keys: dict[str, tuple[str, int]] = {}
        self.store: Opened = self.open()

    def open(self) -> Opened:
        return open_here(self.directory, wall=self.wall, boot_id=f"boot-{self.boots}")

    def decide(self, specs: list[Spec]) -> tuple[Call, list[str]]:
        made: list[str] = []

        def decide(view: View, stamp: Stamp) -> Decision[None]:
            facts: list[AnyFact] = []
            for spec in specs:
                cls, fields = fields_of(spec)
                made_entity = signatures.MADE.get(str(cls.__struct_config__.tag))
                if made_entity is None:
                    facts.append(stamp.make(cls, **fields))
                else:  # the same thing again and again, by facts that are not
                    fresh = {made_entity.field: stamp.new_id(made_entity.prefix)}
                    fact = stamp.make(cls, **fields | fresh)
                    facts.append(msgspec.structs.replace(fact, **{made_entity.field: fields[made_entity.field]}))
            made.extend(fact.event_id for fact in facts)
            return Decision(facts, lambda view, seqs: None)

        return Call(decide), made

    # -- what callers do

    @rule(calls=st.lists(SPECS, min_size=1, max_size=3), step_ms=st.integers(-500, 1500))
    def commit(self, calls: list[list[Spec]], step_ms: int) -> None:
        self.wall.ms += step_ms
        self.store.writer.begin()
        made: list[str] = []
        for specs in calls:
            call, ids_ = self.decide(specs)
            self.store.writer.execute(call)
            assert call.error is None
            made += ids_
        committed = self.store.writer.flush()
        assert [fact.event_id for _, fact, _ in committed] == made
        self.acknowledged += made

    @rule(specs=SPECS)
    def roll_back(self, specs: list[Spec]) -> None:
        call, made = self.decide(specs)
        self.store.writer.begin()
        self.store.writer.execute(call)
        self.store.writer.rollback()
        self.dropped.update(made)

    @rule(good=SPECS, bad=SPECS)
    def break_one_call_of_a_batch(self, good: list[Spec], bad: list[Spec]) -> None:
        kept, made = self.decide(good)
        broken, lost = self.decide([*bad, bad[0]])
        original = broken.decide

        def twice(view: View, stamp: Stamp) -> Decision[None]:
            facts = original(view, stamp).facts
            return Decision([*facts, facts[0]], lambda view, seqs: None)

        broken.decide = twice
        self.store.writer.begin()
        self.store.writer.execute(broken)
        self.store.writer.execute(kept)
        self.store.writer.flush()
        assert broken.error is not None
        assert kept.error is None
        self.acknowledged += made
        self.dropped.update(lost)

    @rule(number=st.integers(0, 3))
    def repeat_a_keyed_call(self, number: int) -> None:
        name = f"key{number}"
        call = Call(sending(name, author="keyed"), ClientKey("keyed", name, "0" * 16), resent)
        self.store.writer.begin()
        self.store.writer.execute(call)
        assert call.error is None
        committed = self.store.writer.flush()
        self.acknowledged += [fact.event_id for _, fact, _ in committed]
        if committed and any(isinstance(fact, events.PurgeExecuted) for fact in self.journals()):
            self.keys.pop(name, None)  # a purge forgets keys
        assert call.answer.message_id == self.keys.setdefault(name, call.answer.message_id)

    # -- what comes on the branch

    def taking_in(self, facts: list[AnyFact]) -> Errand:
        lines = [
            (branch_file_of(fact, events.file_of(fact)) or events.EVENTS_FILE, events.encode(fact)) for fact in facts
        ]
        self.taken |= {fact.event_id: fact for fact in facts if not events.never_travels(fact)}
        return Errand(partial(Writer.ingest, arrived=verified(lines)))

    @rule(specs=SPECS, at=ARRIVALS, again=st.booleans(), own=SPECS)
    def foreign_facts_are_taken_in(self, specs: list[Spec], at: list[int], again: bool, own: list[Spec]) -> None:
        facts = [stamped(spec, number) for spec, number in zip(specs, at, strict=False)]
        call, made = self.decide(own)
        calls = [self.taking_in(facts), call, *([self.taking_in(facts)] if again else [])]
        self.store.writer.begin()
        for each in calls:
            self.store.writer.execute(each)
            assert each.error is None
        self.store.writer.flush()
        self.acknowledged += made
        if again:
            assert (calls[-1].answer.new, calls[-1].answer.quarantined) == (0, 0)

    @rule(specs=SPECS, at=ARRIVALS)
    def taking_in_is_rolled_back(self, specs: list[Spec], at: list[int]) -> None:
        facts = [stamped(spec, number) for spec, number in zip(specs, at, strict=False)]
        self.store.writer.begin()
        self.store.writer.execute(self.taking_in(facts))
        self.store.writer.rollback()
        for fact in facts:
            self.taken.pop(fact.event_id, None)
        self.dropped.update(fact.event_id for fact in facts)

    @rule(specs=SPECS, at=ARRIVALS)
    def crash_between_append_and_commit_of_what_arrived(self, specs: list[Spec], at: list[int]) -> None:
        facts = [stamped(spec, number) for spec, number in zip(specs, at, strict=False)]
        self.store.writer.begin()
        self.store.writer.execute(self.taking_in(facts))
        self.store.journals.append(self.store.writer._buffers)  # pyright: ignore[reportPrivateUsage]
        self.leave()
        self.store = self.open()
        assert self.store.recovery.rebuilt == ""

    @precondition(lambda self: bool(self.taken))
    @rule(number=st.integers(0, 100), text=SMALL)
    def another_line_of_a_foreign_fact_arrives(self, number: int, text: int) -> None:
        fact = list(self.taken.values())[number % len(self.taken)]
        changed = msgspec.structs.replace(fact, origin_daemon=FOREIGN[:-1] + str(text))
        call = self.taking_in([changed])
        self.store.writer.begin()
        self.store.writer.execute(call)
        assert call.error is None
        self.store.writer.flush()
        if not call.answer.new:
            self.taken[fact.event_id] = fact
        if self.store.writer.superseded:
            self.store.close("database_damaged")
            self.store = self.open()
            assert self.store.recovery.rebuilt

    @rule()
    def a_day_passes(self) -> None:
        self.wall.ms += limits.future_stamp_ms_max
        call = Errand(Writer.release_due_facts)
        self.store.writer.begin()
        self.store.writer.execute(call)
        assert call.error is None
        self.store.writer.flush()

    # -- what happens to the store

    def leave(self) -> None:
        """As a kill does."""
        self.store.reader.close()
        self.store.journals.close()
        self.store.writer.db.close()

    @rule(reboot=st.booleans())
    def restart(self, reboot: bool) -> None:
        epoch = self.store.view.epoch
        self.store.close()
        self.boots += reboot
        self.store = self.open()
        assert self.store.recovery == ("", 0, self.store.recovery.quarantined)
        assert self.store.view.epoch == epoch

    @rule(reboot=st.booleans())
    def crash(self, reboot: bool) -> None:
        epoch = self.store.view.epoch
        self.leave()
        self.boots += reboot
        self.store = self.open()
        assert self.store.recovery.rebuilt == ""
        assert (self.store.view.epoch != epoch) is reboot

    @rule(specs=SPECS)
    def crash_between_append_and_commit(self, specs: list[Spec]) -> None:
        call, made = self.decide(specs)
        self.store.writer.begin()
        self.store.writer.execute(call)
        self.store.journals.append(self.store.writer._buffers)  # pyright: ignore[reportPrivateUsage]
        self.leave()
        self.unanswered.update(made)
        self.store = self.open()
        assert self.store.recovery.rebuilt == ""
        assert self.store.recovery.applied == len(made)

    @rule()
    def rebuild(self) -> None:
        self.store.close()
        live = projection_of(self.directory)
        layout_at(self.directory).database.unlink()
        self.store = self.open()
        assert self.store.recovery.rebuilt
        rebuilt = projection_of(self.directory)
        for table, rows in live.items():
            assert rebuilt[table] == rows, table

    @rule(specs=SPECS, at=ARRIVALS, delete=st.booleans())
    def foreign_lines_arrive(self, specs: list[Spec], at: list[int], delete: bool) -> None:
        self.store.close()
        for spec, number in zip(specs, at, strict=False):
            fact = stamped(spec, number)
            self.foreign.append(fact)
            self.append_by_hand(fact)
        if delete:
            layout_at(self.directory).database.unlink()
        self.store = self.open()

    @precondition(lambda self: bool(self.foreign))
    @rule(number=st.integers(0, 100))
    def a_foreign_line_arrives_again(self, number: int) -> None:
        self.store.close()
        self.append_by_hand(self.foreign[number % len(self.foreign)])
        self.store = self.open()
        assert self.store.recovery.rebuilt == ""

    @rule(tail=st.sampled_from([b"{", b'{"type":"message.create","time', b"\xff", b"\0\0"]))
    def a_line_is_torn(self, tail: bytes) -> None:
        self.leave()
        with self.path_of(events.EVENTS_FILE).open("ab") as file:
            file.write(tail)
        self.store = self.open()
        assert self.store.recovery.rebuilt == ""

    # -- what must hold

    @invariant()
    def every_acknowledged_fact_is_there_once_and_no_dropped_one(self) -> None:
        if not hasattr(self, "store"):
            return
        counts = Counter(fact.event_id for fact in self.journals())
        arrived = Counter(fact.event_id for fact in self.foreign)
        for event_id in self.acknowledged:
            assert counts[event_id] == 1
        assert not self.dropped & counts.keys()
        rows = self.store.reader.execute("SELECT seq, event_id FROM events ORDER BY seq").fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        needed, there = {*self.acknowledged, *self.unanswered, *arrived}, {row[1] for row in rows}
        assert needed <= there <= needed | self.taken.keys()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            try:
                self.rebuild()
                self.rebuild_with_what_was_not_stored()
                assert database.identity(self.store.reader) is not None
            finally:
                self.leave()
                shutil.rmtree(self.directory)

    def rebuild_with_what_was_not_stored(self) -> None:
        """What was tombstoned when it arrived may as well be in the journals."""
        there = {row[0] for row in self.store.reader.execute("SELECT event_id FROM events")}
        for event_id, fact in self.taken.items():
            if event_id not in there:
                self.append_by_hand(fact)
        self.rebuild()

    # -- files

    def path_of(self, file: str) -> Path:
        return self.store.journals.path(file)

    def append_by_hand(self, fact: AnyFact) -> None:
        with self.path_of(events.file_of(fact)).open("ab") as file:
            file.write(events.encode(fact) + b"\n")

    def journals(self) -> list[AnyFact | events.UnknownEvent]:
        journals = self.store.journals
        return [events.decode(line.raw) for file in journals.names() for line in journals.iter_lines(file)]


TestStoreMachine = StoreMachine.TestCase
_deep = settings().max_examples > 1_000
TestStoreMachine.settings = settings(
    settings(), max_examples=800 if _deep else 25, stateful_step_count=50 if _deep else 20
)
