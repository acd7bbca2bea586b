"""Comparing journals and projection, without touching either (cli.md 3.16, events.md §11).

The projection on disk is copied as of one moment, a second one is rebuilt from the journals up to where the copy says
it stands, and the two are compared row by row. So a running daemon can keep writing.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from thrum.model import clock, events, ids, limits, signatures
from thrum.model.event_specs import LOCAL_FILE, quoted
from thrum.model.events import AnyFact, MessageDeleted, MessageEdited, MessageReceipt, UnknownEvent
from thrum.store import database
from thrum.store import rebuild as rebuilding
from thrum.store.journal import JournalFiles, bare
from thrum.store.projection.core import Projection
from thrum.store.projection.entry import Entry, entry_of
from thrum.store.projection.merge_daemons import load_origins
from thrum.store.projection.watermarks import AGENT, AUTHOR, PURGE, Watermarks
from thrum.store.quarantine import Kept
from thrum.store.queries import fts
from thrum.store.schema import BOOKKEEPING_COLUMNS, BOOKKEEPING_TABLES, SEARCH_TABLE

IDS_SHOWN: Final = 10
"""How many ids of one difference are reported."""

_WAITING_MS_MAX: Final = 3_600_000
_UNCOMPARED: Final = BOOKKEEPING_TABLES | {"daemon_identity"}
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {"messages": ("message_id",), "events": ("event_id",)}
"""Of the tables whose primary key is the local number."""
_EVENT_COLUMNS: Final = ("event_id", "type", "timestamp", "origin_daemon", "actor", "message_id")
"""What of a numbered fact follows from the fact alone."""

FlawKind = Literal["bad_line", "two_contents", "wrong_file", "waits", "future"]


class Flaw(NamedTuple):
    """One thing that is wrong with a journal. `detail` is a word of events.md §11, a file, an id or a time."""

    kind: FlawKind
    file: str
    offset: int
    detail: str
    event_id: str = ""


class Scan(NamedTuple):
    """What reading the journals found. `second_creates`: ids of things that were created twice."""

    facts: int
    flaws: tuple[Flaw, ...]
    opaque: Mapping[str, int]
    second_creates: tuple[str, ...]


class Difference(NamedTuple):
    """Rows of one table: `missing` are those that a rebuild has. `ids`: some of them."""

    table: str
    missing: int
    extra: int
    changed: int
    ids: tuple[str, ...]


class Copy(NamedTuple):
    """A copy of the projection, and its positions in the journals. `flaw`: why it can't be read, else `""`."""

    path: Path
    offsets: Mapping[str, database.JournalPosition]
    flaw: str = ""


class JournalStates(NamedTuple):
    """How far each journal counts, which file it is, and the bytes beyond that were not written by this daemon."""

    ends: Mapping[str, int]
    inodes: Mapping[str, int]
    beyond: Mapping[str, int]


def whole_ends(journals: JournalFiles) -> dict[str, int]:
    """The journals that are there, and where the last whole line of each ends."""
    ends: dict[str, int] = {}
    for file in journals.names():
        file_state = journals.accept_state(file)
        if file_state is None:
            continue
        tail = journals.last_line(file, file_state.size)
        ends[file] = tail.offset if tail.raw and not tail.raw.endswith(b"\n") else file_state.size
    return ends


def journal_states(journals: JournalFiles) -> JournalStates:
    """The state of the journals for their writer. Call it while nothing is being flushed."""
    ends: dict[str, int] = {}
    inodes: dict[str, int] = {}
    beyond: dict[str, int] = {}
    for file in journals.names():
        with suppress(FileNotFoundError):
            status = journals.path(file).stat()
            ends[file], inodes[file] = journals.end(file), status.st_ino
            if stray := status.st_size - ends[file]:
                beyond[file] = stray
    return JournalStates(ends, inodes, beyond)


def copy_projection(source: Path, target: Path, daemon_id: str) -> Copy:
    """Copy the projection as it is at one moment. One that is missing, broken or of another kind has a `flaw`."""
    remove_projection(target)
    if not source.exists():
        return Copy(target, {}, "missing")
    try:
        with closing(database.open_reader(source)) as db, closing(database.connect(target)) as copy:
            db.backup(copy)
        with closing(database.connect(target)) as copy:
            if not database.is_current(copy, daemon_id):
                return Copy(target, {}, "another")
            [*found] = copy.execute(f"PRAGMA integrity_check({IDS_SHOWN})")
            if found != [("ok",)]:
                return Copy(target, {}, f"damaged: {found[0][0]}")
            return Copy(target, database.offsets(copy))
    except sqlite3.DatabaseError as error:
        return Copy(target, {}, f"damaged: {error}")


def remove_projection(path: Path) -> None:
    """Take a copy away, and what SQLite laid beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def fits(journals: JournalFiles, copy: Copy) -> bool:
    """Whether every journal is still the file that the projection was made from, up to its position."""
    for offset in copy.offsets.values():
        file_state = journals.accept_state(offset.file)
        if file_state is None or file_state.inode != offset.inode or file_state.size < offset.applied_offset:
            return False
    return True


def entries(
    journals: JournalFiles, file: str, end: int, wanted: Callable[[bytes], bool] | None = None
) -> Iterator[Entry]:
    """The usable facts of a journal up to `end`, as rebuilding takes them (see `rebuild.Source`)."""
    for raw, offset, length in journals.iter_lines(file, 0, end):
        if wanted is None or wanted(raw):
            with suppress(events.BadLine):
                yield entry_of(decode(file, raw), raw, file, offset, length)


def decode(file: str, raw: bytes) -> AnyFact | UnknownEvent:
    """The fact of a line of that journal. Raises BadLine, also for a local type on the branch."""
    fact = events.decode(raw)
    if file != events.LOCAL_FILE and events.never_travels(fact):
        raise events.BadLine("local_type_on_branch")
    return fact


def rebuild(
    target: Path, journals: JournalFiles, ends: Mapping[str, int], own: frozenset[str], now_ms: int
) -> tuple[rebuilding.Lost, ...]:
    """Rebuild the facts up to `ends` into `target`; gives the lines that lost against a smaller one of the same id."""
    remove_projection(target)
    sources = [rebuilding.Source(file, _reader(journals, file, end)) for file, end in ends.items()]
    epoch = ids.Ulids().at(now_ms)
    rebuilt = rebuilding.rebuild(target, sources, own, journals.read_line, epoch=epoch, now_ms=now_ms, program="verify")
    return rebuilt.lost


def release_due_facts(copy: Path, journals: JournalFiles, own: frozenset[str], now_ms: int) -> None:
    """Apply to a copied projection that fits the journals what waited for a day that has come, as rebuilding does."""
    with closing(database.connect(copy)) as db:
        db.execute("BEGIN")
        Projection(db, own, journals.read_line, lambda: now_ms).release_due_facts()
        db.execute("COMMIT")


def _reader(journals: JournalFiles, file: str, end: int) -> Callable[[Callable[[bytes], bool] | None], Iterator[Entry]]:
    return lambda wanted: entries(journals, file, end, wanted)


# -- journals


def scan(
    journals: JournalFiles,
    ends: Mapping[str, int],
    rebuilt: Path,
    lost: Collection[rebuilding.Lost],
    kept: Kept,
    own: frozenset[str],
    now_ms: int,
) -> Scan:
    """What is wrong with the journals. Lines that were quarantined (`kept`) are no fault any more; `own`: this daemon's
    ids.

    `rebuilt` and `lost` are what `rebuild` made of the same lines.
    """
    flaws: list[Flaw] = []
    opaque: Counter[str] = Counter()
    for file, end in ends.items():
        for raw, offset, _ in journals.iter_lines(file, 0, end):
            try:
                fact = decode(file, raw)
            except events.BadLine as bad:
                if not kept.covers(file, raw, bad.reason):
                    flaws.append(Flaw("bad_line", file, offset, bad.reason))
                continue
            if isinstance(fact, UnknownEvent):
                opaque[fact.type] += 1
            elif home := _other_home(fact, file):
                flaws.append(Flaw("wrong_file", file, offset, home, fact.event_id))
            if clock.parse_ms(fact.timestamp) > now_ms + limits.future_stamp_ms_max:
                flaws.append(Flaw("future", file, offset, fact.timestamp, fact.event_id))
    for line in lost:
        if not kept.covers(line.file, line.raw, "id_conflict"):
            event_id = events.decode(line.raw).event_id
            flaws.append(Flaw("two_contents", line.file, line.offset, event_id, event_id))
    with closing(database.connect(rebuilt)) as db:
        facts = db.execute("SELECT count(*) FROM events").fetchone()[0]
        flaws += _waiting(db, own, clock.format_ms(now_ms - _WAITING_MS_MAX))
        second = tuple(
            row[0][2:]
            for row in db.execute(
                "SELECT DISTINCT thing FROM hanging JOIN events USING (seq) WHERE state <> 'void' AND"
                f" type IN {quoted(signatures.MADE)} AND state = 'pending'"
                " AND substr(thing, 1, 2) IN ('m:', 's:', 'g:')"  # another one waits for its day
            )
        )
    return Scan(facts, tuple(flaws), dict(opaque), second)


def _other_home(fact: AnyFact, file: str) -> str:
    """The journal that a fact belongs into, if it is another one."""
    home = events.file_of(fact)
    if file == home:
        return ""
    if isinstance(fact, MessageReceipt):
        # It travels in its recipient's journal (events.md §5).
        return "" if file == f"{events.MESSAGES_DIR}/{ids.file_stem(fact.agent_id)}.jsonl" else home
    if isinstance(fact, MessageEdited | MessageDeleted) and not fact.agent_id:
        # An older program's: the owner of the journal counts.
        return "" if file.startswith(f"{events.MESSAGES_DIR}/") else home
    return home


def _waiting(db: sqlite3.Connection, own: frozenset[str], before: str) -> list[Flaw]:
    """Facts stamped before that time whose entity is missing, and was not removed by a purge or a cleanup."""
    rows = db.execute(
        "SELECT file, offset, thing, event_id, type, timestamp, actor, origin_daemon, trust FROM hanging JOIN events"
        " USING (seq) WHERE state = 'pending' AND timestamp < ? AND CASE substr(thing, 1, 2)"
        " WHEN 'm:' THEN NOT EXISTS (SELECT 1 FROM messages WHERE message_id = substr(thing, 3))"
        " WHEN 's:' THEN NOT EXISTS (SELECT 1 FROM sessions WHERE session_id = substr(thing, 3))"
        " WHEN 'g:' THEN NOT EXISTS (SELECT 1 FROM groups WHERE group_id = substr(thing, 3))"
        " ELSE 0 END ORDER BY file, offset",
        (before,),
    ).fetchall()
    origins, watermarks = load_origins(db, own), Watermarks(db)
    flaws: list[Flaw] = []
    for file, offset, entity, event_id, type, at, actor, origin, trust in rows:
        who = origins.local() if file == LOCAL_FILE else origins.provenance(origin, trust)
        is_swept = (
            _may_be_swept(watermarks, entity)
            if type == events.tag_of(MessageReceipt)
            else _is_swept(watermarks, entity, at, actor, who.under)
        )
        if not is_swept:
            flaws.append(Flaw("waits", file, offset, entity[2:], event_id))
    return flaws


def _is_swept(watermarks: Watermarks, entity: str, at: str, actor: str, under: Collection[str]) -> bool:
    """Whether what a fact of that time and actor is about was purged or cleaned up, and its line may be gone: of a
    session only the end is left then. When a thing was made stands in its id.
    """
    if watermarks.none:
        return False
    is_session = entity.startswith("s:")
    made_ms = ids.ulid_ms(entity[2:])
    purge = watermarks.get(PURGE, "", under)
    cleanup = watermarks.get(AGENT if is_session else AUTHOR, actor, under)
    purged_ms = clock.parse_ms(at) if is_session else made_ms  # a session goes when it had ended
    return (purge is not None and purged_ms is not None and purged_ms < clock.parse_ms(purge[0])) or (
        cleanup is not None and made_ms is not None and made_ms <= clock.parse_ms(cleanup[0])
    )


def _may_be_swept(watermarks: Watermarks, entity: str) -> bool:
    """The same of what a receipt is about: that was made by another agent, often in another clone, and a receipt does
    not say by whom. So the purges and cleanups of all count.
    """
    made_ms = ids.ulid_ms(entity[2:])
    latest = watermarks.latest(PURGE, AUTHOR)
    return made_ms is not None and latest != "" and made_ms <= clock.parse_ms(latest)


def event_id_of(raw: bytes) -> str:
    """The event id of a line; `""` if it has none."""
    try:
        return events.decode(raw).event_id
    except events.BadLine:
        return ""


# -- the projection


def compare(copy: Path, rebuilt: Path, journals: JournalFiles) -> list[Difference]:
    """Every table of a copied projection against a rebuild, row by row, without bookkeeping but the numbered facts."""
    with closing(database.connect(copy)) as db:
        db.execute("ATTACH ? AS rebuilt", (str(rebuilt),))
        found = [_compare_table(db, table) for table in _tables(db)]
        found.append(_compare_events(db, journals))
        found.append(_check_words(db))
        return [each for each in found if each.missing or each.extra or each.changed]


def _tables(db: sqlite3.Connection) -> list[str]:
    tables = db.execute("SELECT name FROM rebuilt.sqlite_master WHERE type = 'table' ORDER BY name")
    names = [row[0] for row in tables]
    return [name for name in names if name not in _UNCOMPARED and not name.startswith(("sqlite_", SEARCH_TABLE))]


def _compare_table(db: sqlite3.Connection, table: str) -> Difference:
    info = db.execute(f"PRAGMA rebuilt.table_info({table})").fetchall()
    columns = tuple(row[1] for row in info if (table, row[1]) not in BOOKKEEPING_COLUMNS)
    key = _KEYS.get(table) or tuple(row[1] for row in sorted(info, key=lambda row: row[5]) if row[5])
    return _differ(db, table, key, columns)


def _differ(db: sqlite3.Connection, table: str, key: tuple[str, ...], columns: tuple[str, ...]) -> Difference:
    same_key = " AND ".join(f"here.{name} = there.{name}" for name in key)
    lacking = f"FROM {{}}.{table} AS here WHERE NOT EXISTS (SELECT 1 FROM {{}}.{table} AS there WHERE {same_key})"
    others = " OR ".join(f"here.{name} IS NOT there.{name}" for name in columns if name not in key) or "0"
    sources = (
        lacking.format("rebuilt", "main"),
        lacking.format("main", "rebuilt"),
        f"FROM main.{table} AS here JOIN rebuilt.{table} AS there ON {same_key} WHERE {others}",
    )
    counts = [db.execute(f"SELECT count(*) {source}").fetchone()[0] for source in sources]
    shown: list[str] = []
    for source, count in zip(sources, counts, strict=True):
        if count and len(shown) < IDS_SHOWN:
            rows = db.execute(f"SELECT here.{key[0]} {source} LIMIT {IDS_SHOWN - len(shown)}")
            shown += [str(row[0]) for row in rows]
    missing, extra, changed = counts
    return Difference(table, missing, extra, changed, tuple(dict.fromkeys(shown)))


def _compare_events(db: sqlite3.Connection, journals: JournalFiles) -> Difference:
    """The numbered facts, and that each lies where the projection says."""
    found = _differ(db, "events", ("event_id",), _EVENT_COLUMNS)
    misplaced = [
        event_id
        for event_id, file, offset, length in db.execute(
            "SELECT here.event_id, here.file, here.offset, here.length FROM main.events AS here"
            " JOIN rebuilt.events AS there ON here.event_id = there.event_id"
            " WHERE (here.file, here.offset, here.length) <> (there.file, there.offset, there.length)"
        )
        if _event_at(journals, file, offset, length) != event_id
    ]
    shown = tuple(dict.fromkeys((*found.ids, *misplaced)))[:IDS_SHOWN]
    return found._replace(changed=found.changed + len(misplaced), ids=shown)


def _check_words(db: sqlite3.Connection) -> Difference:
    """The index of words against the messages. SQLite says that they differ, not where."""
    try:
        fts.check(db)
    except sqlite3.DatabaseError:
        return Difference(SEARCH_TABLE, 0, 0, 1, ())
    return Difference(SEARCH_TABLE, 0, 0, 0, ())


def _event_at(journals: JournalFiles, file: str, offset: int, length: int) -> str:
    """The event id of a line; `""` if there is no such line. A fact may occur twice, in either place."""
    try:
        return event_id_of(bare(journals.read_line(file, offset, length)))
    except OSError:
        return ""
