"""What must hold, whatever happened: nothing lost, nothing twice, one picture, and quiet."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from tests.sim.faults import Violation
from tests.sim.git import commit_of
from tests.support.factmaker import empty_picture
from thrum import events, signatures
from thrum.events import AgentCleaned, AnyFact, PurgeExecuted, Sealed
from thrum.origins import OLD_REALM, Origins
from thrum.store import database
from thrum.store.horizons import purge_cutoff
from thrum.store.journal import bare
from thrum.store.projection import Projection, entry_of, horizon_of_the_clock
from thrum.store.schema import BOOKKEEPING_COLUMNS, BOOKKEEPING_TABLES, SEARCH_TABLE
from thrum.store.superseded import superseded_locally
from thrum.sync import merge
from thrum.sync.merge import JOURNAL_FILE, split_lines
from thrum.voids import Fact, Voids, branch_file_of, superseded_ids, void_ids

if TYPE_CHECKING:
    from tests.sim.clone import Clone
    from tests.sim.world import World

LOCAL_TABLES: Final = frozenset(
    {"agents", "client_keys", "daemon_identity", "daemons", "hidden_agents", "holders", "lines_before"}
)
"""What is one daemon's own, or as it sees others."""
LOCAL_COLUMNS: Final = frozenset(
    {
        ("sessions", "seen_at"),
        ("registrations", "home"),
        ("agent_contexts", "home"),
        *(("message_recipients", name) for name in ("delivered_at", "seen_at", "read_at", "hidden", "replied_at")),
        ("messages", "thread_id"),
    }
)
"""What facts that never travel feed (events.md §14.2), what an unsigned line may give to a signed one, and the times of
receipts: only the highest one travels."""
_OF_MESSAGES: Final = "message_id IN (SELECT message_id FROM messages WHERE trust = 0)"
_OF_SESSIONS: Final = "session_id IN (SELECT session_id FROM sessions WHERE trust = 0)"
SIGNED_ROWS: Final = {
    "messages": "trust = 0",
    "message_scopes": _OF_MESSAGES,
    "message_refs": _OF_MESSAGES,
    "message_audiences": _OF_MESSAGES,
    "message_recipients": _OF_MESSAGES,
    "message_edits": _OF_MESSAGES,
    "sessions": "trust = 0",
    "session_items": _OF_SESSIONS,
    "work_contexts": _OF_SESSIONS,
    "work_files": _OF_SESSIONS,
    "groups": "trust = 0",
    "group_members": "group_id IN (SELECT group_id FROM groups WHERE trust = 0)",
    "registrations": "signed = 1",
    "horizons": "realm <> 'before' AND substr(realm, 1, 2) <> 'u:'",
    "agent_contexts": "event_id IN (SELECT event_id FROM events WHERE trust = 0)",
}
"""What no unsigned line can change. Which of those count hangs on when a clone saw them first."""

Picture = dict[str, list[tuple[Any, ...]]]


decode = functools.lru_cache(4_096)(events.decode)


def line_of(fact: AnyFact | Sealed) -> bytes:
    return fact.raw if isinstance(fact, Sealed) else events.encode(fact)


# -- at the end


def all_agree(world: World) -> None:
    """Every check of a world that is at rest."""
    if any(clone.store.view.foreign_format() for clone in world.clones):
        return  # a hostile clone changed the rules of the branch: nobody pushes there any more
    one_branch(world)
    nothing_swept_is_there(world)
    nothing_lost(world)
    pictures = [shared_picture(clone.store.reader) for clone in world.clones]
    for clone, picture in zip(world.clones[1:], pictures[1:], strict=True):
        compare(pictures[0], picture, f"the pictures of clone 0 and clone {clone.number}")
    receipts_travelled(world)
    # What takes time is done in some of the seeds only.
    if world.dice.random() < 0.4 and not _contested_sweeps([Held(clone) for clone in world.clones]):
        compare(reference_picture(world), pictures[0], "the picture of all facts and that of clone 0")
    if world.dice.random() < (0.6 if world.compacted else 0.3):
        live_is_rebuilt(world.dice.choice(world.clones))


def compare(one: Picture, other: Picture, what: str) -> None:
    for table in one:
        if one[table] != other[table]:
            first = [row for row in one[table] if row not in other[table]]
            second = [row for row in other[table] if row not in one[table]]
            raise Violation(f"{what} differ in {table}:\n  {first}\n  {second}")


def one_branch(world: World) -> None:
    """All are at one commit, and whoever remembers nothing finds nothing to do."""
    tips = {clone.repo.ref for clone in world.clones} | {world.remote.tip}
    if len(tips) != 1:
        raise Violation(f"at rest, but not at one commit: {tips}")
    for clone in world.dice.sample(world.clones, 1):
        clone.forget_round()
        clone.begin_round(fetch=True, push=True)
        assert clone.steps is not None
        for _ in clone.steps:
            pass
        # A line that lost its id may lie on the branch in its home, and here in the file that a stranger put it into.
        odd = clone.outcome.set_aside and not world.profile.hostile
        if {clone.repo.ref, world.remote.tip} != tips or clone.outcome.received or odd:
            raise Violation(f"clone {clone.number} remembers nothing, and makes another branch: {clone.outcome}")


def nothing_swept_is_there(world: World) -> None:
    """What a cleanup or purge took is not on the branch, though nobody said anything new since; but for what only a
    user's reset, a stranger, or a clock that let the sweep wait for its day left there: that goes with the next word.
    """
    if world.profile.users or world.profile.hostile or world.profile.skew:
        return
    clone = world.dice.choice(world.clones)
    assert clone.door is not None
    voids = clone.door.voids()
    for path, entry in clone.repo.files(world.remote.tip).items() if voids else ():
        data = clone.repo.blob(entry.object_id)
        if JOURNAL_FILE.fullmatch(path) and (left := merge.canonical(path, data, voids).data) != data:
            raise Violation(f"{path} of the branch holds what is void: {merge.missing(left, data)}")


def nothing_lost(world: World) -> None:
    """Each acknowledged fact is in every journal and every picture, once; or void, or replaced."""
    canonical_branch(world)
    kept = {event_id: found for event_id, found in world.acknowledged.items() if event_id not in world.excused}
    held = [Held(clone) for clone in world.clones]
    for clone, here in zip(world.clones, held, strict=True):
        gone = droppable(clone, [raw for raw, _ in kept.values()], held)
        for event_id, (raw, daemon_id) in kept.items():
            if is_local(raw) and daemon_id != clone.daemon_id:
                continue
            count = here.count[event_id]
            if count == 0 and event_id not in gone:
                raise Violation(f"clone {clone.number} lost {raw!r}")
            # A journal that began as a spoiled branch had it holds what that holds.
            spoiled = world.profile.hostile and here.files[event_id] & clone.filled
            if count > 1 and not here.conflicts[event_id] and not spoiled:
                raise Violation(f"clone {clone.number} holds {count} times {raw!r}")
            if count and event_id not in here.known:
                raise Violation(f"the picture of clone {clone.number} does not know {raw!r}")
        each_row_names_its_line(clone)


def each_row_names_its_line(clone: Clone) -> None:
    """Where the picture says that a fact lies, it lies."""
    files: dict[str, bytes] = {}
    for event_id, file, offset, length in clone.store.reader.execute(
        "SELECT event_id, file, offset, length FROM events ORDER BY seq"
    ):
        if file not in files:
            files[file] = clone.store.journals.path(file).read_bytes()
        line = files[file][offset : offset + length]
        if not line.endswith(b"\n") or (offset and files[file][offset - 1 : offset] != b"\n"):
            raise Violation(f"clone {clone.number} has {event_id} at {file}:{offset}, where no line is")
        if event_id_of(bare(line)) != event_id:
            raise Violation(f"clone {clone.number} has {event_id} at {file}:{offset}, where lies {line!r}")


def canonical_branch(world: World) -> None:
    """Of every fact its smallest line is on the branch; and where no hostile clone was, that is all, in order."""
    clone = world.dice.choice(world.clones)
    here: dict[str, bytes] = {}
    for file in clone.branch_journals():
        for raw in split_lines(b"\n".join([*clone.lines(file), b""])):
            event_id = event_id_of(raw)
            if event_id and not events.never_travels(decode(raw)):
                here[event_id] = min(raw, here.get(event_id, raw), key=_rank)
    there: set[bytes] = set()
    for path, entry in clone.repo.files(clone.repo.ref).items():
        lines = split_lines(clone.repo.blob(entry.object_id)) if JOURNAL_FILE.fullmatch(path) else []
        there.update(lines)
        orders = [events.order_of(decode(raw)) for raw in lines] if not world.profile.hostile else []
        if any(one >= other for one, other in itertools.pairwise(orders)):
            raise Violation(f"{path} is not in order on the branch")
    missing = {event_id for event_id, raw in here.items() if raw not in there}
    if missing and (missing := missing - droppable(clone, [], [Held(clone)])):
        raise Violation(f"the branch has not the smallest lines: {[here[event_id] for event_id in sorted(missing)]}")


class Held:
    """What the journals of a clone hold."""

    def __init__(self, clone: Clone) -> None:
        self.count: Counter[str] = Counter()
        self.lines: dict[str, set[bytes]] = defaultdict(set)
        self.conflicts: dict[str, bool] = defaultdict(bool)
        self.files: dict[str, set[str]] = defaultdict(set)
        for file in (*clone.branch_journals(), events.LOCAL_FILE):
            seen: set[str] = set()
            for raw in split_lines(b"\n".join([*clone.lines(file), b""])):
                try:
                    event_id = decode(raw).event_id
                except events.BadLine:
                    continue
                self.lines[event_id].add(raw)
                self.files[event_id].add(file)
                # The copy of a receipt that travels lies in two journals.
                if file != events.LOCAL_FILE or event_id not in self.count:
                    self.count[event_id] += event_id in seen or event_id not in self.count
                self.conflicts[event_id] = len(self.lines[event_id]) > 1
                seen.add(event_id)
        self.known = {row[0] for row in clone.store.reader.execute("SELECT event_id FROM events")}


def droppable(clone: Clone, kept: Iterable[bytes], held: Iterable[Held]) -> set[str]:
    """Ids of the facts that need not be there any more, by all facts that there are."""
    lines: dict[str, bytes] = {}
    kept = set(kept)  # as they were before they were signed
    for raw in (*kept, *(raw for here in held for found in here.lines.values() for raw in found)):
        event_id = decode(raw).event_id
        lines[event_id] = min(raw, lines.get(event_id, raw), key=_rank)
    facts: list[Fact] = []
    voids = clone.store.view.voids()
    signed: dict[str, bool] = {}
    for event_id, raw in lines.items():
        fact = decode(raw)
        if not isinstance(fact, Sealed):
            local = events.file_of(fact) == events.LOCAL_FILE
            signed[event_id] = raw in kept or signatures.is_signed(raw, fact.origin_daemon)
            judged = voids.origins.judge(raw, fact.origin_daemon, signed=signed[event_id])
            facts.append((events.order_of(fact), fact, voids.origins.local() if local else judged))
    void = void_ids(facts, voids)
    if clone.world.profile.hostile:
        # A sweep whose line lost against another of its id may have swept before that came.
        void |= void_ids(facts, _voids_of(_contested_sweeps(held)))
        # What a stranger did in his own journal to others' messages is judged there.
        for _, some in itertools.groupby(sorted(facts, key=_home), key=_home):
            void |= void_ids([*some], voids)
    standing = [(order, fact) for order, fact, _ in facts if fact.event_id not in void]
    local = [(order, fact) for order, fact in standing if events.file_of(fact) == events.LOCAL_FILE]
    replaced = superseded_ids((order, fact, signed[fact.event_id]) for order, fact in standing)
    return void | replaced | superseded_locally(local)


def _rank(raw: bytes) -> tuple[signatures.Rank, bytes]:
    try:
        origin = decode(raw).origin_daemon
    except events.BadLine:
        origin = ""
    return signatures.rank(raw, signatures.is_signed(raw, origin)), raw


def _home(entry: Fact) -> str:
    return branch_file_of(entry[1])


def _contested_sweeps(held: Iterable[Held]) -> list[AgentCleaned | PurgeExecuted]:
    """Cleanups and purges of which there are several lines: they may have swept before the smallest one came."""
    lines = [raw for here in held for found in here.lines.values() if len(found) > 1 for raw in found]
    return [fact for fact in map(decode, lines) if isinstance(fact, AgentCleaned | PurgeExecuted)]


def _voids_of(facts: Iterable[AgentCleaned | PurgeExecuted]) -> Voids:
    """What these cleanups and purges make void, were all of them to count."""
    agents: dict[str, tuple[str, str]] = {}
    authors: dict[str, tuple[str, str]] = {}
    purge = ""
    realms = {OLD_REALM, *(fact.origin_daemon for fact in facts), *(f"u:{fact.origin_daemon}" for fact in facts)}
    for fact in facts:
        order = events.order_of(fact)
        if isinstance(fact, AgentCleaned):
            for horizons in (agents, authors) if fact.messages else (agents,):
                horizons[fact.agent_id] = max(order, horizons.get(fact.agent_id, ("", "")))
        else:
            purge = max(purge, purge_cutoff(fact, order[0]))
    return Voids(
        Origins(),
        {id: dict.fromkeys(realms, order) for id, order in agents.items()},
        {id: dict.fromkeys(realms, order) for id, order in authors.items()},
        dict.fromkeys(realms, purge) if purge else {},
    )


def is_local(raw: bytes) -> bool:
    fact = decode(raw)
    return not isinstance(fact, Sealed) and events.file_of(fact) == events.LOCAL_FILE


# -- pictures


def shared_picture(db: sqlite3.Connection) -> Picture:
    """Every row of what all clones must have alike."""
    if not _queries:
        _queries.update(_shared_queries(db))
    return {table: db.execute(query).fetchall() for table, query in _queries.items()}


_queries: dict[str, str] = {}


def _shared_queries(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """What is asked of each table; tables and columns of tomorrow are asked for too."""
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    for table in tables:
        if table in BOOKKEEPING_TABLES | LOCAL_TABLES or table.startswith(("sqlite_", SEARCH_TABLE)):
            continue
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        left_out = BOOKKEEPING_COLUMNS | LOCAL_COLUMNS
        kept = ", ".join(name for name in names if (table, name) not in left_out)
        yield table, f"SELECT {kept} FROM {table} WHERE {SIGNED_ROWS.get(table, '1')} ORDER BY {kept}"


def reference_picture(world: World) -> Picture:
    """The picture of everything that was acknowledged or is in any journal, projected in one go."""
    lines: dict[str, tuple[bytes, str]] = {}
    found: list[tuple[bytes, str]] = [
        (raw, events.file_of(fact))
        for event_id, (raw, _) in world.acknowledged.items()
        if event_id not in world.excused and not isinstance(fact := decode(raw), Sealed)
    ]
    for clone in world.clones:
        for file in clone.branch_journals():
            found += [(raw, file) for raw in split_lines(b"\n".join([*clone.lines(file), b""]))]
    for raw, file in found:
        try:
            fact = decode(raw)
        except events.BadLine:
            continue
        if file != events.LOCAL_FILE and not events.never_travels(fact):
            lines[fact.event_id] = min((raw, file), lines.get(fact.event_id, (raw, file)))
    db = database.connect(":memory:")
    db.deserialize(_empty())
    try:
        places: dict[tuple[str, int], bytes] = {}
        projection = Projection(
            db, world.clones[0].own, lambda file, offset, length: places[file, offset], lambda: world.ms
        )
        for offset, (raw, file) in enumerate(sorted(lines.values())):
            places[file, offset] = raw
            projection.apply(entry_of(decode(raw), raw, file, offset, len(raw) + 1))
        return shared_picture(db)
    finally:
        db.close()


@functools.cache
def _empty() -> bytes:
    db = empty_picture()
    try:
        db.execute("VACUUM")
        return db.serialize()
    finally:
        db.close()


def live_is_rebuilt(clone: Clone) -> None:
    """The picture as it grew, and one painted of the journals as they are now: row for row, everything."""
    live = database.dump(clone.store.reader)
    clone.check_words()
    clone.stop()
    clone.places.database.unlink()
    clone.start()
    compare(live, database.dump(clone.store.reader), f"the live picture and the rebuilt one of clone {clone.number}")


def receipts_travelled(world: World) -> None:
    """Who wrote a message knows whether it was read elsewhere; but for one that a stranger took over later."""
    for clone in world.clones:
        read = clone.store.reader.execute(
            "SELECT r.message_id, r.agent_id, r.seen_at IS NOT NULL, r.read_at IS NOT NULL FROM message_recipients AS r"
            " JOIN messages AS m USING (message_id) WHERE m.origin_daemon <> ? AND EXISTS (SELECT 1 FROM events AS e"
            " WHERE e.message_id = m.message_id AND type = 'message.receipt' AND file = ? AND actor = r.agent_id)"
            " AND (SELECT count(*) FROM events AS e WHERE e.message_id = m.message_id AND type = 'message.create') = 1"
            " AND EXISTS (SELECT 1 FROM registrations AS g WHERE g.agent_id = r.agent_id AND g.home = '')",
            (clone.daemon_id, events.LOCAL_FILE),
        ).fetchall()
        for other in world.clones:
            for message_id, agent_id, seen, was_read in read if other is not clone else ():
                row = other.store.reader.execute(
                    "SELECT seen_at IS NOT NULL, read_at IS NOT NULL FROM message_recipients"
                    " WHERE message_id = ? AND agent_id = ?",
                    (message_id, agent_id),
                ).fetchone()
                here = "SELECT 1 FROM registrations WHERE agent_id = ? AND home = ''"
                if other.store.reader.execute(here, (agent_id,)).fetchone():
                    continue  # whose own agent has that name believes nobody else
                if row < (seen, was_read):
                    raise Violation(
                        f"clone {other.number} does not know that {agent_id} has seen {message_id} in {clone.number}"
                    )


# -- on the way


def numbers_stand(clone: Clone) -> None:
    """A number once given is that fact's as long as the epoch lasts: cursors rest on it."""
    epoch = clone.store.view.epoch
    if clone.epoch != epoch:
        clone.epoch, clone.numbers = epoch, {}
    for seq, event_id in clone.store.reader.execute("SELECT seq, event_id FROM events"):
        before = clone.numbers.setdefault(seq, event_id)
        if before != event_id:
            raise Violation(f"clone {clone.number} gave the number {seq} to {before}, and then to {event_id}")


def future_waits(clone: Clone) -> None:
    """No fact of elsewhere counts that is stamped more than a day ahead of a clock that was always right."""
    rows = clone.store.reader.execute(
        "SELECT event_id FROM events WHERE state IN ('applied', 'void') AND timestamp > ? AND origin_daemon <> ?",
        (horizon_of_the_clock(clone.wall.now_ms()), clone.daemon_id),
    ).fetchall()
    if rows and not clone.world.profile.skew:
        raise Violation(f"clone {clone.number} let facts count before their day: {rows}")


def pushed_what_it_says(clone: Clone) -> None:
    """All facts up to the number that a round calls pushed are in the commit that it pushed."""
    outcome = clone.outcome
    seq = outcome.pushed_seq
    if seq is None or clone.world.dice.random() > 0.3:
        return
    if outcome.tip not in clone.world.remote.seen:
        raise Violation(f"clone {clone.number} calls {outcome.tip} pushed, and the remote never had it")
    rows = clone.store.reader.execute(
        "SELECT event_id FROM events WHERE seq <= ? AND file <> ? AND origin_daemon = ?",
        (seq, events.LOCAL_FILE, clone.daemon_id),
    ).fetchall()
    there: set[str] = set()
    for path, entry in clone.repo.files(outcome.tip).items():
        if JOURNAL_FILE.fullmatch(path):
            there |= {event_id_of(raw) for raw in split_lines(clone.repo.blob(entry.object_id))}
    missing = {row[0] for row in rows} - there
    if missing and (missing := missing - droppable(clone, [], [Held(clone)])):
        raise Violation(f"clone {clone.number} calls {missing} pushed, and the commit has not got it")


def event_id_of(raw: bytes) -> str:
    try:
        return decode(raw).event_id
    except events.BadLine:
        return ""


def lost_to_all(world: World) -> set[str]:
    """Acknowledged facts that lie in no journal and on no branch."""
    there: set[str] = set()
    for clone in world.clones:
        for file in (*clone.branch_journals(), events.LOCAL_FILE):
            there |= {event_id_of(raw) for raw in clone.lines(file)}
    branches = [(clone.repo.objects, clone.repo.ref) for clone in world.clones]
    for objects, tip in ((world.remote.objects, world.remote.tip), *branches):
        for entry in commit_of(objects, tip).files if tip else ():
            data: Any = objects[entry.object_id]
            there |= {event_id_of(raw) for raw in split_lines(data)}
    return world.acknowledged.keys() - there
