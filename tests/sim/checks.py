"""What must hold, whatever happened: nothing lost, nothing twice, one projection, and quiet."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from tests.sim import oracle
from tests.sim.faults import Violation
from tests.sim.git import commit_of
from tests.sim.oracle import Lines, decode, rank
from tests.sim.strangers import STRANGERS
from thrum.model import clock, events, ids, limits, signatures
from thrum.model.events import (
    AgentAliased,
    AgentCleaned,
    AnyFact,
    MessageCreated,
    MessageReceipt,
    PurgeExecuted,
    UnknownEvent,
    WakeAttempted,
)
from thrum.model.origins import BEFORE, HIDDEN, OLD_REALM, OURS, STRANGE, Origins
from thrum.model.tombstones import Fact, Tombstones, branch_file_of, superseded_ids, tombstoned_ids
from thrum.store import database
from thrum.store._superseded import superseded_locally
from thrum.store.journal import bare
from thrum.store.projection.core import deferral_limit
from thrum.store.projection.merge_agents import holders_of, may_speak, registrars_of
from thrum.store.projection.watermarks import purge_cutoff
from thrum.store.schema import BOOKKEEPING_COLUMNS, BOOKKEEPING_TABLES, SEARCH_TABLE
from thrum.sync import merge
from thrum.sync.merge import JOURNAL_FILE, split_lines

if TYPE_CHECKING:
    from tests.sim.clone import Clone
    from tests.sim.world import World

LOCAL_TABLES: Final = frozenset(
    {
        "agents",
        "client_keys",
        "daemon_identity",
        "daemons",
        "hidden_agents",
        "holders",
        "lines_before",
        "wake_attempts",
        "wake_messages",
    }
)
"""What is one daemon's own, or as it sees others."""
LOCAL_COLUMNS: Final = frozenset(
    {
        ("sessions", "seen_at"),
        ("registrations", "home"),
        ("agent_contexts", "home"),
        ("agent_aliases", "home"),
        *(("message_recipients", name) for name in ("delivered_at", "seen_at", "read_at", "hidden")),
    }
)
"""What facts that never travel feed (events.md §14.2), and the times of receipts: only the highest one travels."""
GIVEN_COLUMNS: Final = frozenset(
    {
        ("message_recipients", "replied_at"),
        ("messages", "thread_id"),
        ("messages", "superseded_by"),
        ("registrations", "registered_at"),
    }
)
"""What an unsigned line, or one of another origin, may give to a signed one."""
_SIGNED: Final = "(trust = 0 OR {all}) AND origin_daemon NOT IN ({out})"
_OF_MESSAGES: Final = f"message_id IN (SELECT message_id FROM messages WHERE {_SIGNED})"
_OF_SESSIONS: Final = f"session_id IN (SELECT session_id FROM sessions WHERE {_SIGNED})"
SIGNED_ROWS: Final = {
    "messages": _SIGNED,
    "message_scopes": _OF_MESSAGES,
    "message_refs": _OF_MESSAGES,
    "message_audiences": _OF_MESSAGES,
    "message_recipients": _OF_MESSAGES,
    "message_edits": _OF_MESSAGES,
    "sessions": _SIGNED,
    "session_items": _OF_SESSIONS,
    "work_contexts": _OF_SESSIONS,
    "work_files": _OF_SESSIONS,
    "groups": _SIGNED,
    # Who registered an agent may say where it joins and leaves.
    "group_members": f"group_id IN (SELECT group_id FROM groups WHERE {_SIGNED})"
    " AND (member_type <> 'agent' OR NOT EXISTS (SELECT 1 FROM daemons WHERE daemon_id IN ({out})))",
    "successions": "daemon_id NOT IN ({out})",
    "registrations": "(signed = 1 OR {all}) AND origin_daemon NOT IN ({out}) AND home NOT IN ({out})",
    "horizons": "(realm <> 'before' AND substr(realm, 1, 2) <> 'u:' OR {all}) AND realm NOT IN ({out})",
    "agent_contexts": f"event_id IN (SELECT event_id FROM events WHERE {_SIGNED})",
    "agent_aliases": f"event_id IN (SELECT event_id FROM events WHERE {_SIGNED})",
}
"""What no unsigned line can change, of all origins but those that are left `out`. Which of the unsigned ones count
hangs on when a clone saw them first. With `all` 1 the rows of unsigned lines too.
"""

Acknowledged = dict[str, tuple[bytes, str]]
Projection = dict[str, list[tuple[Any, ...]]]


def line_of(fact: AnyFact | UnknownEvent) -> bytes:
    return fact.raw if isinstance(fact, UnknownEvent) else events.encode(fact)


# -- at the end


def all_agree(world: World) -> None:
    """Every check of a world that is at rest."""
    held = [Held(clone) for clone in world.clones]
    # Somebody's newer program changed the rules of the branch: nobody here pushes there any more.
    is_open = not any(clone.store.view.foreign_format() for clone in world.clones)
    if is_open:
        one_branch(world)
        nothing_swept_is_there(world)
        canonical_branch(world)
        all_judge_alike(world, held)
        receipts_travelled(world)
    lets_go = nothing_lost(world, held, shared=is_open)
    # What takes time is done in one of the clones, and in some of the seeds only.
    clone, dice = world.dice.choice(world.clones), world.dice
    if world.profile.strangers or dice.random() < 0.4:
        lines = all_lines(world, held, clone, lets_go) if is_open else held[clone.number].best
        if is_open:
            it_follows_from_all_lines(clone, lines)
        if world.profile.strangers:
            nobody_interferes(world, clone, lines, before=dice.random() < 0.5)
    if dice.random() < (0.6 if world.compacted else 0.3):
        live_is_rebuilt(dice.choice(world.clones))


def compare(one: Projection, other: Projection, what: str) -> None:
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
        known = clone.store.view.head_seq()
        clone.forget_round()
        clone.begin_round(fetch=True, push=True)
        assert clone.steps is not None
        for _ in clone.steps:
            pass
        # What a sweep of before tombstoned as long as that time was open lies in no journal, and is hidden since. And
        # an edit that is tombstoned only together with its message comes again where only here that message is
        # tombstoned.
        again = "SELECT event_id FROM events WHERE seq > ? AND trust <> ? AND file <> ?"
        late = {row[0] for row in clone.store.reader.execute(again, (known, HIDDEN, events.LOCAL_FILE))}
        if late:
            late -= droppable(clone, [], [Held(clone)])
        # A line that lost its id may lie on the branch in its home, and here in the file that a stranger put it into.
        odd = clone.outcome.quarantined and not world.profile.foreign
        if {clone.repo.ref, world.remote.tip} != tips or late or odd:
            raise Violation(f"clone {clone.number} remembers nothing, and makes another branch: {clone.outcome}")


def nothing_swept_is_there(world: World) -> None:
    """What a cleanup or purge took is not on the branch, though nobody said anything new since; but for what only a
    user's reset, a stranger, or a clock that let the sweep wait for its day left there: that goes with the next word.
    """
    if world.profile.users or world.profile.foreign or world.profile.skew:
        return
    clone = world.dice.choice(world.clones)
    assert clone.door is not None
    tombstones = clone.door.tombstones()
    for path, entry in clone.repo.files(world.remote.tip).items() if tombstones else ():
        data = clone.repo.blob(entry.object_id)
        left = merge.canonical(path, data, tombstones).data if JOURNAL_FILE.fullmatch(path) else data
        # What nobody signed may be swept here and stand elsewhere. And where all of a journal was tombstoned when it
        # came it lies with its own daemon alone, and goes with that one's next word.
        holders = {each.daemon_id for each in world.clones if path in each.branch_journals()}
        there = [
            raw
            for raw in merge.missing(left, data)
            if (not world.profile.before or rank(raw)[0] < (True, b"")) and holders != {decode(raw).origin_daemon}
        ]
        if there:
            raise Violation(f"{path} of the branch holds what is tombstoned: {there}")


def nothing_lost(world: World, held: list[Held], *, shared: bool) -> list[set[str]]:
    """Each acknowledged fact is in every journal and every projection, once; or tombstoned, or replaced. Unless they
    are `shared`: in those of who wrote it. Returns what each clone may let go.
    """
    kept = {event_id: found for event_id, found in world.acknowledged.items() if event_id not in world.excused}
    found: dict[str, set[str]] = {}
    lets_go: list[set[str]] = []
    for clone in world.clones:
        # Those that judge alike let the same lines go.
        alike = repr((clone.store.view.tombstones().fingerprint(), view_of(clone)))
        if alike not in found:
            found[alike] = droppable(clone, [raw for raw, _ in kept.values() if not is_local(raw)], held)
        lets_go.append(found[alike])
    by_author = let_go_by_author(world, kept, lets_go)
    for clone, here, swept in zip(world.clones, held, lets_go, strict=True):
        own = [raw for raw, daemon_id in kept.values() if is_local(raw) and daemon_id in clone.own]
        gone = swept | by_author | droppable_locally(clone, own)
        for event_id, (raw, daemon_id) in kept.items():
            if daemon_id not in clone.own and (not shared or is_local(raw)):
                continue
            count = here.count[event_id]
            if count == 0 and event_id not in gone:
                raise Violation(f"clone {clone.number} lost {raw!r}")
            # A journal that began as a spoiled branch had it holds what that holds.
            spoiled = world.profile.foreign and here.files[event_id] & clone.filled
            if count > 1 and not here.conflicts[event_id] and not spoiled:
                raise Violation(f"clone {clone.number} holds {count} times {raw!r}")
            if count and event_id not in here.known:
                raise Violation(f"the projection of clone {clone.number} does not know {raw!r}")
        each_row_names_its_line(clone)
    return lets_go


def let_go_by_author(world: World, kept: Acknowledged, lets_go: list[set[str]]) -> set[str]:
    """Ids of facts that their own author let go before others had them: with a new key it sweeps what it said with the
    old one, which is another's to them. And what nobody signed, that somebody takes for swept; or, where the program of
    before ran, whoever pushed.
    """
    gone: set[str] = set()
    for event_id, (_, daemon_id) in kept.items():
        if world.signers[daemon_id] is None:
            if world.profile.foreign or any(event_id in swept for swept in lets_go):
                gone.add(event_id)
        elif any(
            daemon_id in clone.own and event_id in swept for clone, swept in zip(world.clones, lets_go, strict=True)
        ):
            gone.add(event_id)
    return gone


def each_row_names_its_line(clone: Clone) -> None:
    """Where the projection says that a fact lies, it lies."""
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
    """Of every fact its smallest line is on the branch, or one that is smaller still and takes the place of none of
    before; and where no hostile clone was, that is all, in order.
    """
    clone = world.dice.choice(world.clones)
    here: dict[str, bytes] = {}
    for file in clone.branch_journals():
        for raw in split_lines(b"\n".join([*clone.lines(file), b""])):
            event_id = event_id_of(raw)
            if event_id and not events.never_travels(decode(raw)):
                here[event_id] = min(raw, here.get(event_id, raw), key=rank)
    there: dict[str, set[signatures.Rank]] = defaultdict(set)
    for path, entry in clone.repo.files(clone.repo.ref).items():
        lines = split_lines(clone.repo.blob(entry.object_id)) if JOURNAL_FILE.fullmatch(path) else []
        for raw in lines:
            there[event_id_of(raw)].add(rank(raw)[0])
        orders = [events.order_of(decode(raw)) for raw in lines] if not world.profile.foreign else []
        if any(one >= other for one, other in itertools.pairwise(orders)):
            raise Violation(f"{path} is not in order on the branch")
    origins = clone.store.view.origins()

    def is_there(event_id: str, raw: bytes) -> bool:
        origin, (unsigned, _) = decode(raw).origin_daemon, (least := rank(raw)[0])
        if unsigned and origins.judge(raw, origin, signed=False).trust == BEFORE:
            return min(there[event_id], default=(True, b"~")) <= least
        return least in there[event_id]

    missing = {event_id for event_id, raw in here.items() if not is_there(event_id, raw)}
    if missing and (missing := missing - droppable(clone, [], [Held(clone)])):
        raise Violation(f"the branch has not the smallest lines: {[here[event_id] for event_id in sorted(missing)]}")


class Held:
    """What the journals of a clone hold. `best`: of each id the line of the branch's journals that is the fact there;
    `least`: the one that clones agree on.
    """

    def __init__(self, clone: Clone) -> None:
        self.count: Counter[str] = Counter()
        self.lines: dict[str, set[bytes]] = defaultdict(set)
        self.conflicts: dict[str, bool] = defaultdict(bool)
        self.files: dict[str, set[str]] = defaultdict(set)
        self.best: dict[str, tuple[bytes, str]] = {}
        self.least: dict[str, bytes] = {}
        origins = clone.store.view.origins()
        for file in (*clone.branch_journals(), events.LOCAL_FILE):
            seen: set[str] = set()
            for raw in split_lines(b"\n".join([*clone.lines(file), b""])):
                try:
                    event_id, origin = decode(raw).event_id, decode(raw).origin_daemon
                except events.BadLine:
                    continue
                if file != events.LOCAL_FILE and signatures.is_signed(raw, origin) and not oracle.is_true(raw):
                    raise Violation(f"{file} of clone {clone.number} holds a forged line: {raw!r}")
                self.lines[event_id].add(raw)
                self.files[event_id].add(file)
                # The copy of a receipt that travels lies in two journals.
                if file != events.LOCAL_FILE or event_id not in self.count:
                    self.count[event_id] += event_id in seen or event_id not in self.count
                self.conflicts[event_id] = len(self.lines[event_id]) > 1
                seen.add(event_id)
                if file == events.LOCAL_FILE or events.never_travels(decode(raw)):
                    continue
                self.least[event_id] = min(raw, self.least.get(event_id, raw), key=rank)
                known = self.best.get(event_id)
                if known is None or rank_here(raw, origins) < rank_here(known[0], origins):
                    self.best[event_id] = raw, file
        self.known = {row[0] for row in clone.store.reader.execute("SELECT event_id FROM events")}


def rank_here(raw: bytes, origins: Origins) -> tuple[bool, bool, bytes, int, bytes]:
    """The rank of a line to a clone: there an unsigned one that came later takes the place of none of before."""
    (is_unsigned, said), length, _ = rank(raw)
    is_late = is_unsigned and origins.judge(raw, decode(raw).origin_daemon, signed=False).trust != BEFORE
    return is_unsigned, is_late, said, length, raw


def droppable(clone: Clone, kept: Iterable[bytes], held: Iterable[Held], *, surely: bool = False) -> set[str]:
    """Ids of the facts of the branch that need not be there any more, by all facts that there are. `surely`: without
    those that are gone only if they came at the wrong time.
    """
    held, kept = [*held], set(kept)  # as they were before they were signed
    tombstones = clone.store.view.tombstones()
    best: dict[str, bytes] = {}
    least: dict[str, bytes] = {}
    for raw in (*kept, *(raw for here in held for raw in here.least.values())):
        event_id = decode(raw).event_id
        least[event_id] = min(raw, least.get(event_id, raw), key=rank)
    for raw in (*kept, *(raw for here in held for raw, _ in here.best.values())):
        event_id = decode(raw).event_id
        best[event_id] = min(raw, best.get(event_id, raw), key=lambda line: rank_here(line, tombstones.origins))
    facts: list[Fact] = []
    signed: dict[str, bool] = {}
    # The branch has the one, the projection the other.
    for event_id, raw in dict.fromkeys((*best.items(), *(() if surely else least.items()))):
        fact = decode(raw)
        if not isinstance(fact, UnknownEvent):
            said = raw in kept and clone.world.signers[fact.origin_daemon] is not None
            signed[event_id] = said or signatures.is_signed(raw, fact.origin_daemon)
            judged = tombstones.origins.judge(raw, fact.origin_daemon, signed=signed[event_id])
            facts.append((events.order_of(fact), fact, judged))
            if raw in kept and not signed[event_id] and not surely:
                # What went before that time was closed is not named as of before.
                facts.append((events.order_of(fact), fact, tombstones.origins.provenance(fact.origin_daemon, BEFORE)))
    tombstoned = tombstoned_ids(facts, tombstones)
    if clone.world.profile.foreign and not surely:
        # A sweep whose line lost against another of its id may have swept before that came.
        tombstoned |= tombstoned_ids(facts, _tombstones_of(_contested_sweeps(held)))
        # What a stranger did in his own journal to others' messages is judged there.
        for _, some in itertools.groupby(sorted(facts, key=_home), key=_home):
            tombstoned |= tombstoned_ids([*some], tombstones)
    provenance = [(order, fact) for order, fact, _ in facts if fact.event_id not in tombstoned]
    return tombstoned | superseded_ids((order, fact, signed[fact.event_id]) for order, fact in provenance)


def droppable_locally(clone: Clone, kept: Iterable[bytes]) -> set[str]:
    """The same of a clone's own journal."""
    tombstones = clone.store.view.tombstones()
    facts: list[Fact] = []
    # What nobody was told of counts too.
    for raw in {*kept, *clone.lines(events.LOCAL_FILE)}:
        fact = decode(raw)
        assert not isinstance(fact, UnknownEvent)
        facts.append((events.order_of(fact), fact, tombstones.origins.local()))
    tombstoned = tombstoned_ids(facts, tombstones)
    # What was read of what it said under another id went with that.
    cutoff_ms = clock.parse_ms(tombstones.cutoff(clone.own) or "1970-01-01T00:00:00.000Z")
    said = (decode(raw) for raw, daemon_id in clone.world.acknowledged.values() if daemon_id in clone.own)
    mine = {fact.message_id for fact in said if isinstance(fact, MessageCreated)}
    for _, fact, _ in facts:
        if isinstance(fact, MessageReceipt) and (ids.ulid_ms(fact.message_id) or cutoff_ms) < cutoff_ms:
            is_mine = any(signatures.id_fits(fact.message_id, origin) for origin in clone.own)
            tombstoned |= {fact.event_id} if is_mine or fact.message_id in mine else set()
    old = clock.format_ms(clone.wall.now_ms() - limits.wake_attempt_kept_ms)
    tombstoned |= {fact.event_id for order, fact, _ in facts if isinstance(fact, WakeAttempted) and order[0] < old}
    return tombstoned | superseded_locally(
        [(order, fact) for order, fact, _ in facts if fact.event_id not in tombstoned]
    )


def _home(entry: Fact) -> str:
    return branch_file_of(entry[1])


def _contested_sweeps(held: Iterable[Held]) -> list[AgentCleaned | PurgeExecuted]:
    """Cleanups and purges of which there are several lines: they may have swept before the smallest one came."""
    lines = [raw for here in held for found in here.lines.values() if len(found) > 1 for raw in found]
    return [fact for fact in map(decode, lines) if isinstance(fact, AgentCleaned | PurgeExecuted)]


def _tombstones_of(facts: Iterable[AgentCleaned | PurgeExecuted]) -> Tombstones:
    """What these cleanups and purges tombstone, were all of them to count."""
    agents: dict[str, tuple[str, str]] = {}
    authors: dict[str, tuple[str, str]] = {}
    purge = ""
    realms = {OLD_REALM, *(fact.origin_daemon for fact in facts), *(f"u:{fact.origin_daemon}" for fact in facts)}
    for fact in facts:
        order = events.order_of(fact)
        if isinstance(fact, AgentCleaned):
            for watermarks in (agents, authors) if fact.messages else (agents,):
                watermarks[fact.agent_id] = max(order, watermarks.get(fact.agent_id, ("", "")))
        else:
            purge = max(purge, purge_cutoff(fact, order[0]))
    return Tombstones(
        Origins(),
        {id: dict.fromkeys(realms, order) for id, order in agents.items()},
        {id: dict.fromkeys(realms, order) for id, order in authors.items()},
        dict.fromkeys(realms, purge) if purge else {},
    )


def is_local(raw: bytes) -> bool:
    fact = decode(raw)
    return not isinstance(fact, UnknownEvent) and events.file_of(fact) == events.LOCAL_FILE


# -- projections


def shown_by_old_program(clone: Clone) -> Projection | None:
    """What the program of before shows, if that is all that its journals hold, and it understands all of it."""
    if clone.finds_more_at_start():
        return None
    # What counted while the clock ran ahead waits for its day in a projection that is rebuilt after it was set back.
    early = (
        "SELECT 1 FROM events WHERE timestamp > ? AND state <> 'pending'"
        " AND (origin_daemon <> ? OR type IN ('agent.cleanup', 'purge.executed'))"
    )
    watermark = deferral_limit(clone.wall.now_ms())
    if clone.store.reader.execute(early, (watermark, clone.daemon_id)).fetchone():
        return None
    known = database.offsets(clone.store.reader)
    for file in (*clone.branch_journals(), events.LOCAL_FILE):
        path = clone.store.journals.path(file)
        data = path.read_bytes() if path.exists() else b""
        # A write that failed may have left what nobody was told of.
        if len(data) != (known[file].applied_offset if file in known else 0) or b',"sig":"' in data:
            return None
    return None if clone.must_reopen else database.dump(clone.store.reader)


def goes_on(clone: Clone, shown: Projection) -> None:
    """An installation of before goes on as it was: but for who says so, all rows are the same."""
    now = database.dump(clone.store.reader)
    own = LOCAL_TABLES | {"daemon_projects", "daemon_roots", "successions", "registrations"}
    kept = {table: rows for table, rows in shown.items() if table not in own}
    compare(kept, {table: now[table] for table in kept}, f"clone {clone.number} before and after it was upgraded")


View = tuple[frozenset[tuple[str, int]], frozenset[tuple[str, ...]]]


def view_of(clone: Clone) -> View:
    """What hangs on this machine's own words: who is who, and which lines count that nobody of this project signed."""
    db, origins = clone.store.reader, clone.store.view.origins()
    unsigned = db.execute("SELECT event_id, trust FROM events WHERE trust > 0").fetchall()
    homes = {*map(origins.home, origins.successors), OURS}
    return frozenset(unsigned), frozenset(family for home in homes if len(family := origins.family(home)) > 1)


def all_judge_alike(world: World, held: list[Held]) -> None:
    """Clones to which all lines are the same have the same projection, row for row; others that of the signed ones of
    whoever is the same to both.
    """
    views = [view_of(clone) for clone in world.clones]
    for clone, view, here in zip(world.clones[1:], views[1:], held[1:], strict=True):
        alike = view == views[0]
        out = self_contradictors(world.clones[0], held[0], clone, here)
        if not alike:
            out |= {origin for each in (view, views[0]) for family in each[1] for origin in family}
            for each in (world.clones[0], clone):
                sql = "SELECT DISTINCT origin_daemon FROM events WHERE trust = ?"
                out |= {row[0] for row in each.store.reader.execute(sql, (STRANGE,))}
        one, other = (shared_projection(each.store.reader, alike, frozenset(out)) for each in (world.clones[0], clone))
        doubted, disputed = doubted_mail(world.clones[0], clone), disputed_agents(world.clones[0], clone)
        for projection in (one, other) if doubted or disputed else ():
            rows = projection["message_recipients"]
            # Of those the time of an answer, the last column, is in doubt.
            projection["message_recipients"] = [
                row[:3] if row[1] in disputed else row for row in rows if row[:2] not in doubted
            ]
        compare(one, other, f"the projections of clone 0 and clone {clone.number}")


def aliases_of(clone: Clone) -> dict[str, tuple[AgentAliased, bool]]:
    """What a clone was told of who goes on as whom, by event id, and whether it believes it."""
    found: dict[str, tuple[AgentAliased, bool]] = {}
    sql = "SELECT event_id, file, offset, length, state FROM events WHERE type = 'agent.alias'"
    for event_id, file, offset, length, state in clone.store.reader.execute(sql):
        fact = decode(clone.store.journals.read_line(file, offset, length))
        if isinstance(fact, AgentAliased):
            found[event_id] = fact, state == "applied"
    return found


def doubted_mail(one: Clone, other: Clone) -> set[tuple[str, str]]:
    """Messages and the agents to whom they were handed on by a word that counts in one of two clones alone: who has an
    agent of that name takes nobody else's word for it. What was handed on from there on is in doubt with it.
    """
    first, second = aliases_of(one), aliases_of(other)
    all_of_them = [*first.items(), *second.items()]
    believed = [{event_id for event_id, (_, counts) in each.items() if counts} for each in (first, second)]
    contested = believed[0] ^ believed[1]
    in_doubt = {id for event_id, (fact, _) in all_of_them if event_id in contested for id in fact.message_ids}
    return {(id, fact.agent_id) for _, (fact, _) in all_of_them for id in in_doubt.intersection(fact.message_ids)}


def speakers_of(clone: Clone) -> dict[str, set[str]]:
    """Which origins' answers count as an agent's, by its id: that hangs on whom this machine saw first too."""
    db, origins = clone.store.reader, clone.store.view.origins()
    found: dict[str, set[str]] = {}
    for (agent_id,) in db.execute("SELECT DISTINCT agent_id FROM registrations").fetchall():
        registrars, held_by = registrars_of(db, agent_id), holders_of(db, agent_id, origins)
        speaking = {home or clone.daemon_id for home in registrars if may_speak(home, registrars, held_by)}
        found[agent_id] = speaking
    return found


def disputed_agents(one: Clone, other: Clone) -> set[str]:
    """The agents for whom not the same speak to two clones."""
    first, second = speakers_of(one), speakers_of(other)
    return {agent_id for agent_id in first | second if first.get(agent_id) != second.get(agent_id)}


def self_contradictors(one: Clone, held: Held, other: Clone, there: Held) -> set[str]:
    """Origins that signed two lines of one fact, of which one is tombstoned by their own sweep: who had that one before
    the sweep keeps it, and it is the fact; to who heard of the sweep first nobody hands it any more, so the other line
    is. Both are the same origin's, so it lies about what is its own alone.
    """
    found: set[str] = set()
    tombstoned: dict[Clone, set[str]] = {}
    for clone in (one, other):
        rows = clone.store.reader.execute("SELECT event_id FROM events WHERE state = 'void' AND trust = 0")
        tombstoned[clone] = {row[0] for row in rows}
    for event_id in tombstoned[one] ^ tombstoned[other]:
        if event_id in held.best and event_id in there.best:
            first, second = held.best[event_id][0], there.best[event_id][0]
            if oracle.is_true(first) and oracle.is_true(second) and rank(first)[0] != rank(second)[0]:
                found.add(decode(first).origin_daemon)
    return found


def shared_projection(db: sqlite3.Connection, alike: bool, out: frozenset[str]) -> Projection:
    """Every row of what all clones must have alike, or those that judge `alike`. `out`: origins that are somebody else
    to one of two, or told them different things.
    """
    return {table: db.execute(query).fetchall() for table, query in _shared_queries(db, alike, out).items()}


_queries: dict[tuple[bool, frozenset[str]], dict[str, str]] = {}


def _shared_queries(db: sqlite3.Connection, alike: bool, out: frozenset[str]) -> dict[str, str]:
    """What is asked of each table; tables and columns of tomorrow are asked for too."""
    found = _queries.get((alike, out))
    if found is None:
        found = _queries[alike, out] = dict(_make_queries(db, alike, out))
    return found


def _make_queries(db: sqlite3.Connection, alike: bool, out: frozenset[str]) -> Iterator[tuple[str, str]]:
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    whole = alike and not out
    rows = {"daemon_projects": "daemon_id <> ''"} | ({} if whole else SIGNED_ROWS)
    names = ", ".join(f"'{origin}'" for origin in sorted(out))
    for table in tables:
        if table in BOOKKEEPING_TABLES | LOCAL_TABLES or table.startswith(("sqlite_", SEARCH_TABLE)):
            continue
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        left_out = BOOKKEEPING_COLUMNS | LOCAL_COLUMNS | (frozenset() if whole else GIVEN_COLUMNS)
        kept = ", ".join(name for name in columns if (table, name) not in left_out)
        where = rows.get(table, "1").format(out=names, all=int(alike))
        yield table, f"SELECT {kept} FROM {table} WHERE {where} ORDER BY {kept}"


def all_lines(world: World, held: list[Held], clone: Clone, lets_go: list[set[str]]) -> Lines:
    """Every fact of the branch that this clone holds, or another one that does not let it go; and those that were
    acknowledged and that this one may let go.
    """
    found, gone = dict(held[clone.number].best), lets_go[clone.number]
    said = [raw for raw, _ in world.acknowledged.values() if not is_local(raw)]
    tombstoned = droppable(clone, said, held, surely=True)
    origins = clone.store.view.origins()
    for here, theirs in zip(held, lets_go, strict=True):
        for event_id, (raw, file) in here.best.items():
            if event_id not in found and event_id in theirs and event_id not in tombstoned:
                continue
            # A better line that is tombstoned is not ingested any more (see `self_contradictors`). Of lines that say
            # the same its own one: what it named as of before it named by its bytes.
            if event_id not in found or (
                event_id not in gone and rank_here(raw, origins)[:-2] < rank_here(found[event_id][0], origins)[:-2]
            ):
                found[event_id] = raw, file
    for event_id, (raw, daemon_id) in world.acknowledged.items():
        if event_id in tombstoned and event_id not in found and event_id not in world.excused and not is_local(raw):
            fact = decode(raw)
            signer = world.signers[daemon_id]
            file = events.EVENTS_FILE if isinstance(fact, UnknownEvent) else branch_file_of(fact)
            found[event_id] = raw if signer is None else signer.sign(raw), file
    return found


def it_follows_from_all_lines(clone: Clone, lines: Lines) -> None:
    """The projection is a function of the set of facts and of this machine's own, whatever came when."""
    with closing(oracle.of_all(clone, lines)) as db:
        theirs, here = database.dump(db), database.dump(clone.store.reader)
    del theirs["daemon_identity"], here["daemon_identity"]
    compare(theirs, here, f"the projection of all lines and that of clone {clone.number}")


def nobody_interferes(world: World, clone: Clone, lines: Lines, *, before: bool) -> None:
    """What honest clones wrote stands as they wrote it: nothing of it is other, read, deleted or purged by a stranger's
    word.
    """
    with closing(oracle.of_honest(clone, lines, world.signers, before=before)) as db:
        live = clone.store.reader
        names = oracle.names_of_honest(live, db)
        groups = oracle.groups_led_alike(live, db, clone.own)
        honest = [daemon_id for daemon_id, signer in world.signers.items() if before or signer is not None]
        theirs, here = (
            oracle.honest_rows(each, clone.own, honest, names, groups, before=before) for each in (db, live)
        )
        # Where a stranger was the first to have an agent of that name, it is his to rename; where he said in time that
        # it is somebody else's, nobody's who renamed it.
        his = [
            fact
            for fact, counts in aliases_of(clone).values()
            if (
                fact.agent_id not in names and fact.origin_daemon in STRANGERS
                if counts
                else not names >= {fact.agent_id, fact.of}
            )
        ]
        taken = {(id, fact.agent_id) for fact in his for id in fact.message_ids}
        for rows in (theirs, here):
            for table in ("message_recipients", "marks"):
                rows[table] = [row for row in rows[table] if row[:2] not in taken]
    compare(theirs, here, f"without strangers, and with them, what honest clones wrote is in clone {clone.number}")


def live_is_rebuilt(clone: Clone) -> None:
    """The projection as it grew, and one rebuilt of the journals as they are now: row for row, everything."""
    live = database.dump(clone.store.reader)
    clone.check_words()
    # A line that is tombstoned is not ingested; the next start writes it out with its journal, and it may be the fact.
    if starts_with_others(clone):
        return
    clone.stop()
    clone.layout.database.unlink()
    clone.start()
    compare(live, database.dump(clone.store.reader), f"the live projection and the rebuilt one of clone {clone.number}")


def starts_with_others(clone: Clone) -> bool:
    """Whether the next start writes out a journal with a line that says something else than the one of its id here."""
    journals = clone.store.journals
    sql = "SELECT file, offset, length FROM events WHERE event_id = ?"
    for _, object_id in clone.missing_journals():
        for raw in split_lines(clone.repo.blob(object_id)):
            row = clone.store.reader.execute(sql, (event_id_of(raw),)).fetchone()
            if row is not None and signatures.unsigned(bare(journals.read_line(*row))) != signatures.unsigned(
                bare(raw)
            ):
                return True
    return False


def receipts_travelled(world: World) -> None:
    """Who wrote a message knows whether it was read elsewhere; but for one that a stranger took over later, and mail
    that went on to its reader by a word that does not count there.
    """
    for clone in world.clones:
        read = clone.store.reader.execute(
            "SELECT r.message_id, r.agent_id, r.seen_at IS NOT NULL, r.read_at IS NOT NULL FROM message_recipients AS r"
            " JOIN messages AS m USING (message_id) WHERE m.origin_daemon NOT IN (SELECT value FROM json_each(?))"
            # What it said before it had this key others may take for another's, or for nobody's.
            " AND (SELECT min(e.origin_daemon = ?) FROM events AS e"
            " WHERE e.message_id = m.message_id AND type = 'message.receipt' AND file = ? AND actor = r.agent_id) = 1"
            " AND (SELECT count(*) FROM events AS e WHERE e.message_id = m.message_id AND type = 'message.create') = 1"
            " AND EXISTS (SELECT 1 FROM registrations AS g WHERE g.agent_id = r.agent_id AND g.home = '')",
            (json.dumps(sorted(clone.own)), clone.daemon_id, events.LOCAL_FILE),
        ).fetchall()
        for other in world.clones if read else ():
            doubted = doubted_mail(clone, other)
            for message_id, agent_id, seen, was_read in read if other is not clone else ():
                if (message_id, agent_id) in doubted:
                    continue
                row = other.store.reader.execute(
                    "SELECT seen_at IS NOT NULL, read_at IS NOT NULL FROM message_recipients"
                    " WHERE message_id = ? AND agent_id = ?",
                    (message_id, agent_id),
                ).fetchone()
                sql = "SELECT 1 FROM messages WHERE message_id = ?"
                shown = other.store.reader.execute(sql, (message_id,)).fetchone()
                if shown is None or not _believes(other, clone, agent_id):
                    continue  # the message is one that nobody signed, and counts here alone
                if row is None or row < (seen, was_read):
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
        "SELECT event_id FROM events WHERE state IN ('applied', 'void') AND timestamp > ? AND origin_daemon <> ?"
        " AND type <> 'daemon.key'",
        (deferral_limit(clone.wall.now_ms()), clone.daemon_id),
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


def _believes(clone: Clone, other: Clone, agent_id: str) -> bool:
    """Whether a clone takes another's word for an agent: who has an agent of that name itself, or noted another as its
    holder, does not; and a new key speaks for whom it registered.
    """
    db, view = clone.store.reader, clone.store.view
    registrars = {row[0] for row in db.execute("SELECT home FROM registrations WHERE agent_id = ?", (agent_id,))}
    if OURS in registrars or other.daemon_id not in registrars:
        return False
    holders = {row[0] for row in db.execute("SELECT origin FROM holders WHERE agent_id = ?", (agent_id,))}
    home = view.origins().home
    return not holders or home(other.daemon_id) in set(map(home, holders))


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
