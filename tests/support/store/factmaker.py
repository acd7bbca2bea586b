"""Facts for tests: a maker of stamped facts, journals held in memory, random histories over every type, and both
ways from facts to a projection: live (one by one) and rebuilt.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.support.here import DAEMON as HERE
from tests.support.here import START_MS
from thrum.model import clock, events, ids
from thrum.model.events import AnyFact, Body, Pair, UnknownEvent
from thrum.store import database
from thrum.store.projection.core import Applied, Projection
from thrum.store.projection.entry import Entry, entry_of
from thrum.store.queries import fts
from thrum.store.rebuild import Rebuilt, Source, rebuild

THERE = "d_01KGH87Y00CCCCCCCCCCCCCCCC"
OWN = frozenset({HERE})
EPOCH = "01KGHF3N80EEEEEEEEEEEEEEEE"

Dump = dict[str, list[tuple[Any, ...]]]


class Maker:
    """Makes facts with rising stamps; every id is deterministic."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms
        randomness = random.Random(7)
        self._ulids = ids.Ulids(randomness.randbytes)

    def id(self, prefix: str) -> str:
        return prefix + self._ulids.at(self.ms)

    def __call__(self, cls: type[Any], *, ms: int | None = None, step: int = 1, **fields: Any) -> Any:
        """A fact; `ms` sets the time, else it is `step` milliseconds after the last."""
        self.ms = self.ms + step if ms is None else ms
        fields.setdefault("origin_daemon", HERE)
        return cls(timestamp=clock.format_ms(self.ms), event_id=self.id("evt_"), v=1, **fields)

    def message(self, author: str = "furiosa", *to: str, text: str = "hi", reply: str = "", **fields: Any) -> Any:
        """A create whose id carries its own time."""
        self.ms += 1
        refs = tuple(Pair("mention", agent) for agent in to) + ((Pair("reply_to", reply),) if reply else ())
        fields.setdefault("message_id", self.id("msg_"))
        fields.setdefault("refs", refs)
        fields.setdefault("audiences", tuple(Pair("agent", agent) for agent in to))
        fields.setdefault("recipients", tuple(sorted(to)))
        return self(events.MessageCreated, step=0, agent_id=author, body=Body("markdown", text), **fields)


class Journals:
    """Journal files in memory: where each fact lies, and its bytes."""

    def __init__(self) -> None:
        self.lines: dict[str, list[Entry]] = defaultdict(list)
        self._ends: dict[str, int] = defaultdict(int)

    def add(self, fact: AnyFact | UnknownEvent, raw: bytes = b"", file: str = "") -> Entry:
        """Append a fact to its file, or to another; by the line `raw`, if it is given (a signed one)."""
        raw = raw or (fact.raw if isinstance(fact, UnknownEvent) else events.encode(fact))
        file = file or (events.EVENTS_FILE if isinstance(fact, UnknownEvent) else events.file_of(fact))
        entry = entry_of(fact, raw, file, self._ends[file], len(raw) + 1)
        self._ends[file] += entry.length
        self.lines[file].append(entry)
        return entry

    def read_line(self, file: str, offset: int, length: int) -> bytes:
        for entry in self.lines[file]:
            if entry.offset == offset:
                assert entry.length == length
                return entry.raw
        raise AssertionError(f"no line at {file}:{offset}")

    def sources(self) -> list[Source]:
        def reader(file: str) -> Callable[[Callable[[bytes], bool] | None], Iterator[Entry]]:
            return lambda wanted: iter([line for line in self.lines[file] if wanted is None or wanted(line.raw)])

        return [Source(file, reader(file)) for file in sorted(self.lines)]


def empty_projection(path: Path | str = ":memory:") -> sqlite3.Connection:
    """A projection without facts."""
    db = database.connect(path)
    database.create_tables(db, epoch=EPOCH, created_at=clock.format_ms(START_MS), program="test")
    database.create_indexes(db)
    database.create_search(db)
    return db


class Live:
    """A projection to which facts are applied one by one."""

    def __init__(self, own: frozenset[str] = OWN) -> None:
        self.db = empty_projection()
        self.journals = Journals()
        self.now_ms = START_MS
        self.projection = Projection(self.db, own, self.journals.read_line, lambda: self.now_ms)

    def apply(self, *facts: AnyFact | UnknownEvent) -> list[Applied]:
        return [self.projection.apply(self.journals.add(fact)) for fact in facts]

    def dump(self) -> Dump:
        return sound_dump(self.db)


def sound_dump(db: sqlite3.Connection) -> Dump:
    """The projection, whose index of words must fit it."""
    fts.check(db)
    return database.dump(db)


def live_dump(facts: Iterable[AnyFact | UnknownEvent]) -> Dump:
    """The projection of facts applied in this order."""
    live = Live()
    live.apply(*facts)
    try:
        return live.dump()
    finally:
        live.db.close()


def rebuild_journals(journals: Journals, target: Path, own: frozenset[str] = OWN) -> Rebuilt:
    return rebuild(
        target,
        journals.sources(),
        own,
        journals.read_line,
        epoch=EPOCH,
        now_ms=START_MS,
        program="test",
    )


def rebuilt_dump(facts: Sequence[AnyFact | UnknownEvent]) -> Dump:
    """The projection that is rebuilt from journals in which the facts lie in this order."""
    journals = Journals()
    for fact in facts:
        journals.add(fact)
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "messages.db"
        rebuild_journals(journals, target)
        db = database.connect(target)
        try:
            return sound_dump(db)
        finally:
            db.close()


# -- random histories: few names, so that everything collides

_AGENTS = ("ann", "bob", "user:leon")
_TICKS = 9
_MESSAGES = (*(f"msg_{ids.Ulids(bytes).at(START_MS + tick * 4)}" for tick in range(3)), "odd")
_SESSIONS = ("ses_1", "ses_2")
_GROUPS = ("grp_1", "grp_2")
_THREADS = ("", "thr_a", "thr_b")

_agents = st.sampled_from(_AGENTS)
_messages = st.sampled_from(_MESSAGES)
_sessions = st.sampled_from(_SESSIONS)
_groups = st.sampled_from(_GROUPS)
_texts = st.sampled_from(("", "one", "two", "three"))
_times = st.integers(0, _TICKS).map(lambda tick: clock.format_ms(START_MS + tick))
_pairs = st.lists(
    st.builds(Pair, st.sampled_from(("module", "group")), st.sampled_from(("x", "y"))), max_size=2, unique_by=repr
).map(tuple)
_paths = st.lists(st.sampled_from(("a.py", "src/b.py")), max_size=2, unique=True).map(tuple)
_refs = st.tuples(
    st.lists(st.builds(Pair, st.just("mention"), _agents), max_size=2).map(tuple),
    st.one_of(st.just(()), st.tuples(st.builds(Pair, st.just("reply_to"), _messages))),
).map(lambda both: both[0] + both[1])
_recipients = st.lists(_agents, min_size=1, max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
_bodies = st.builds(Body, st.just("markdown"), _texts)
_works = st.builds(
    events.Work,
    session_id=_sessions,
    branch=_texts,
    uncommitted_files=_paths,
    changed_files=_paths,
    git_updated_at=st.one_of(st.just(""), _times),
    current_task=_texts,
    task_updated_at=st.one_of(st.just(""), _times),
    intent=_texts,
    intent_updated_at=st.one_of(st.just(""), _times, st.just("yesterday")),
)
_some_messages = st.lists(_messages, max_size=2, unique=True).map(tuple)
_optional_text = st.one_of(st.none(), _texts)

FIELDS: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    events.MessageCreated: {
        "message_id": _messages,
        "thread_id": st.sampled_from(_THREADS),
        "agent_id": _agents,
        "body": _bodies,
        "scopes": _pairs,
        "refs": _refs,
        "audiences": _pairs,
        "recipients": _recipients,
        "quiet": st.booleans(),
        "urgent": st.booleans(),
        "expires_at": st.one_of(st.just(""), _times, st.just("tomorrow")),
        "supersedes": st.one_of(st.just(""), _messages),
    },
    events.MessageEdited: {
        "message_id": _messages,
        "agent_id": st.one_of(_agents, _agents, st.just("")),
        "body": _bodies,
    },
    events.MessageDeleted: {"message_id": _messages, "agent_id": _agents, "reason": _texts},
    events.MessageReceipt: {
        "message_id": _messages,
        "agent_id": _agents,
        "receipt_type": st.sampled_from(("delivered", "seen", "read", "smelled")),
    },
    events.AgentUpdated: {"agent_id": _agents, "work_contexts": st.lists(_works, min_size=1, max_size=2).map(tuple)},
    events.AgentContextSaved: {"agent_id": _agents, "content": _texts},
    events.AgentRegistered: {
        "agent_id": _agents,
        "kind": st.just("agent"),
        "role": st.sampled_from(("tester", "coder")),
        "module": _texts,
    },
    events.SessionStarted: {"session_id": _sessions, "agent_id": _agents, "scopes": _pairs, "refs": _pairs},
    events.SessionEnded: {"session_id": _sessions, "reason": _texts},
    events.AgentCleaned: {"agent_id": _agents, "messages": st.booleans()},
    events.AgentAliased: {
        "agent_id": _agents,
        "of": _agents,
        "stored": _some_messages,
        "seen": _some_messages,
        "read": _some_messages,
    },
    events.GroupCreated: {"group_id": _groups, "name": _texts, "description": _texts, "created_by": _agents},
    events.GroupMemberAdded: {
        "group_id": _groups,
        "member_type": st.sampled_from(("agent", "role")),
        "member_value": _agents,
        "added_by": _agents,
    },
    events.GroupMemberRemoved: {
        "group_id": _groups,
        "member_type": st.sampled_from(("agent", "role")),
        "member_value": _agents,
        "removed_by": _agents,
    },
    events.GroupUpdated: {
        "group_id": _groups,
        "updated_by": _agents,
        "fields": st.builds(events.GroupFields, _optional_text, _optional_text),
    },
    events.GroupDeleted: {"group_id": _groups, "deleted_by": _agents},
    events.PurgeExecuted: {"cutoff": st.one_of(_times, st.just("never"))},
    events.JournalFormat: {"format": st.integers(1, 3)},
    events.AgentPlaced: {
        "agent_id": _agents,
        "worktree_path": st.sampled_from(("/a", "/b")),
        "runtime_session": _texts,
        "pane": _texts,
        "hooks_seen_at": st.one_of(st.just(""), _times),
    },
    events.AgentExited: {"agent_id": _agents, "agent_pid": st.integers(1, 3)},
    events.AgentSeen: {"agent_id": _agents, "session_id": st.one_of(st.just(""), _sessions)},
    events.AgentStatusSet: {"agent_id": _agents, "status": _texts, "by": _agents},
    events.WakeAttempted: {
        "agent_id": _agents,
        "attempt_id": st.sampled_from(("wak_1", "wak_2")),
        "door": st.sampled_from(("claude", "typed")),
        "message_ids": st.lists(_messages, min_size=1, max_size=3).map(tuple),
        "outcome": st.sampled_from(("offered", "offered", "proved", "expired", "failed")),
        "detail": _texts,
        "process": _texts,
    },
    events.SessionItemsChanged: {
        "session_id": _sessions,
        "add_scopes": _pairs,
        "remove_scopes": _pairs,
        "add_refs": _pairs,
    },
}
_WATERMARKS = (events.AgentCleaned, events.PurgeExecuted)
_THEMES: tuple[tuple[type[Any], ...], ...] = (
    (events.MessageCreated,),
    (events.MessageCreated, events.MessageCreated, events.AgentCleaned),
    (events.MessageCreated, events.MessageCreated, events.MessageCreated, *_WATERMARKS),
    (events.MessageCreated, events.MessageEdited, events.MessageDeleted, events.MessageReceipt),
    (events.MessageCreated, events.MessageEdited, events.MessageDeleted, events.MessageReceipt, *_WATERMARKS),
    (
        events.AgentRegistered,
        events.AgentRegistered,
        events.MessageCreated,
        events.MessageReceipt,
        events.AgentAliased,
        events.AgentAliased,
    ),
    (
        events.AgentRegistered,
        events.AgentRegistered,
        events.MessageCreated,
        events.MessageDeleted,
        events.MessageReceipt,
        events.AgentAliased,
        events.AgentAliased,
        *_WATERMARKS,
    ),
    (events.SessionStarted, events.SessionEnded, events.SessionItemsChanged, events.AgentUpdated, events.AgentSeen),
    (events.SessionStarted, events.SessionEnded, events.AgentUpdated, events.AgentSeen, *_WATERMARKS),
    (events.SessionStarted, events.SessionEnded, events.PurgeExecuted),
    (events.SessionStarted, events.AgentUpdated, events.AgentSeen, events.AgentCleaned),
    (events.GroupCreated, events.GroupMemberAdded, events.AgentCleaned),
    (
        events.GroupCreated,
        events.GroupUpdated,
        events.GroupMemberAdded,
        events.GroupMemberRemoved,
        events.GroupDeleted,
        events.AgentCleaned,
    ),
    (
        events.AgentRegistered,
        events.AgentPlaced,
        events.AgentStatusSet,
        events.AgentExited,
        events.AgentSeen,
        events.AgentContextSaved,
        events.AgentCleaned,
    ),
    (events.WakeAttempted, events.MessageCreated, events.PurgeExecuted),
    tuple(sorted(FIELDS, key=repr)),
)
"""Which types a history is made of: few, so that their facts meet; the last theme is all of them."""

Drawn = tuple[type[Any], int, dict[str, Any]]


def _unstamped(cls: type[Any]) -> st.SearchStrategy[Drawn]:
    """A type, a tick and the fields of one fact."""
    optional = {"client_key": st.sampled_from(("k1", "k2")), "origin_daemon": st.sampled_from((HERE, THERE))}
    return st.tuples(st.just(cls), st.integers(0, _TICKS), st.fixed_dictionaries(FIELDS[cls], optional=optional))


def _stamp(drawn: Sequence[Drawn]) -> list[AnyFact]:
    """Facts of a drawn history. Event ids do not follow the ticks: ties are broken by them alone."""
    facts: list[AnyFact] = []
    for index, (cls, tick, fields) in enumerate(drawn):
        event_id = f"evt_{(index * 7919) % 9973:04d}"
        facts.append(cls(timestamp=clock.format_ms(START_MS + tick), event_id=event_id, v=1, **fields))
    return facts


def histories(max_size: int = 30) -> st.SearchStrategy[list[AnyFact]]:
    """Random sets of facts over every type, with colliding ids and times, in the order in which they were drawn."""
    of_themes = [
        st.lists(st.one_of([_unstamped(cls) for cls in theme]), min_size=6, max_size=max_size) for theme in _THEMES
    ]
    return st.one_of(of_themes).map(_stamp)
