"""Rebuilding a projection from nothing: all journals into a fresh file, streaming (events.md §10, "No migrations").

Row for row the same projection as applying every fact by itself, only faster: the journals are merged in the order of
facts, the two kinds that come in masses (creates, receipts) are written in bulk, indexes are made afterwards, and what
is left (edits, sessions, anything odd) goes through the `Projection` at the end. Memory is bounded by a batch, not by
the history.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from thrum.model import clock, events, signatures
from thrum.model.events import (
    EVENTS_FILE,
    LOCAL_FILE,
    AnyFact,
    DaemonKeyed,
    MessageCreated,
    MessageReceipt,
    UnknownEvent,
    bare,
)
from thrum.model.origins import BEFORE, HIDDEN, OURS, SIGNED, STRANGE, Rank, rank
from thrum.store._rebuild_lookahead import INTRODUCTIONS, SAID_AHEAD, LookAhead, may_be_key, may_introduce
from thrum.store.database import connect, create_indexes, create_search, create_tables
from thrum.store.projection import merge_messages as merge
from thrum.store.projection.core import Projection, deferral_limit, is_rival, may_wait
from thrum.store.projection.entities import ReadLine
from thrum.store.projection.entry import Entry, client_key_row, entry_of, event_row
from thrum.store.projection.watermarks import Order
from thrum.store.schema import REGISTERED, SUPERSEDED

_BATCH: Final = 500
_SORT_FACTS_MAX: Final = 50_000
"""Up to this many facts of `events.jsonl` are sorted in memory: sync brings them in out of order."""
_WINDOW_FACTS_MAX: Final = 20_000
_WINDOW_FACTS_MIN: Final = 32
_WINDOW_BYTES: Final = 256 * 1024
"""How far a fact of another journal may be out of order, as copied receipts are, without costing more: so many facts of
all journals together, and so many bytes of each."""

_INSERT_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_RECEIPTS: Final = "CREATE TEMP TABLE receipts (message_id TEXT, agent_id TEXT, rank INTEGER, at TEXT, seq INTEGER)"
_MERGE_RECEIPTS: Final = """
UPDATE message_recipients SET
  delivered_at = min(ifnull(delivered_at, delivered), delivered),
  seen_at = CASE WHEN seen IS NULL THEN seen_at ELSE min(ifnull(seen_at, seen), seen) END,
  read_at = CASE WHEN read IS NULL THEN read_at ELSE min(ifnull(read_at, read), read) END
FROM (
  SELECT message_id AS id, agent_id AS agent, min(at) AS delivered,
    min(CASE WHEN rank >= 1 THEN at END) AS seen, min(CASE WHEN rank = 2 THEN at END) AS read
  FROM receipts GROUP BY message_id, agent_id
) WHERE message_id = id AND agent_id = agent"""
_MARK_WAITING_RECEIPTS: Final = """
UPDATE events SET state = 'pending' WHERE seq IN (SELECT seq FROM receipts WHERE NOT EXISTS (
  SELECT 1 FROM message_recipients AS r WHERE r.message_id = receipts.message_id AND r.agent_id = receipts.agent_id))"""
_ANSWERERS: Final = "CREATE TEMP TABLE answerers (agent_id TEXT, origin TEXT, PRIMARY KEY (agent_id, origin))"
_MERGE_REPLIES: Final = f"""
UPDATE message_recipients SET replied_at = at
FROM (SELECT reply.reply_to AS id, reply.agent_id AS agent, min(reply.created_at) AS at
      FROM messages AS reply JOIN messages AS root ON root.message_id = reply.reply_to
      WHERE reply.reply_to <> '' AND ((reply.trust = {BEFORE} AND root.trust = {BEFORE})
        OR (reply.agent_id, reply.origin_daemon) IN (SELECT agent_id, origin FROM answerers))
      GROUP BY reply.reply_to, reply.agent_id)
WHERE message_id = id AND agent_id = agent"""
_MERGE_THREADS: Final = f"""
UPDATE messages SET thread_id = thread
FROM (SELECT reply.reply_to AS id, min(reply.thread_id) AS thread
      FROM messages AS reply JOIN messages AS root ON root.message_id = reply.reply_to
      WHERE reply.reply_to <> '' AND reply.thread_own = 1 AND {merge.SAME_THREAD}
      GROUP BY reply.reply_to)
WHERE message_id = id AND thread_own = 0"""
_NUMBER_AGAIN: Final = """
CREATE TEMP TABLE numbers (old INTEGER PRIMARY KEY, new INTEGER);
INSERT INTO numbers SELECT seq, row_number() OVER (ORDER BY timestamp, event_id) FROM events;
UPDATE messages SET seq = -(SELECT new FROM numbers WHERE old = seq);
UPDATE messages SET seq = -seq;
UPDATE events SET seq = -(SELECT new FROM numbers WHERE old = seq);
UPDATE events SET seq = -seq;
UPDATE hanging SET seq = -(SELECT new FROM numbers WHERE old = seq);
UPDATE hanging SET seq = -seq;
DROP TABLE numbers;
"""


class Source(NamedTuple):
    """A journal file: `entries(wanted)` starts again from its first line each time (rebuilding may read a file twice),
    and leaves out, undecoded, the lines that are not `wanted`.
    """

    file: str
    entries: Callable[[Callable[[bytes], bool] | None], Iterator[Entry]]


_Item = tuple[str, str, int, int, Entry]
"""Time, event id, number of the source, offset, entry: compared as a tuple, and never as far as the entry."""


class Lost(NamedTuple):
    """A line that lost against one of lesser rank of the same event id: for quarantine (`id_conflict`)."""

    file: str
    offset: int
    length: int
    raw: bytes


class Rebuilt(NamedTuple):
    epoch: str
    head_seq: int
    lost: tuple[Lost, ...]


def rebuild(
    target: Path,
    sources: Sequence[Source],
    own: frozenset[str],
    read_line: ReadLine,
    *,
    epoch: str,
    now_ms: int,
    program: str,
) -> Rebuilt:
    """Rebuild all facts of the sources into `target`, which is replaced. The caller flushes and renames it.

    `now_ms` is the clock: facts of elsewhere more than a day ahead of it wait for their day. Writes neither the
    daemon's identity nor journal offsets: the caller does, before it renames. `read_line` must know every line that the
    sources give. Raises OSError and sqlite3.Error; then `target` is rubbish.
    """
    chosen: dict[str, Rank] = {}
    passed_over: set[tuple[str, int]] = set()
    while True:
        target.unlink(missing_ok=True)
        db = connect(target)
        try:
            for pragma in (
                "page_size = 4096",
                "journal_mode = OFF",
                "synchronous = OFF",
                "locking_mode = EXCLUSIVE",
                "cache_size = -64000",
            ):
                db.execute(f"PRAGMA {pragma}")
            create_tables(db, epoch=epoch, created_at=clock.format_ms(now_ms), program=program)
            rebuilder = _Rebuilder(db, own, read_line, chosen, passed_over, now_ms)
            if rebuilder.rebuild(sources):
                head = db.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0]
                return Rebuilt(epoch, head, tuple(rebuilder.lost.values()))
        finally:
            db.close()


class _Rebuilder:
    """One pass over all journals, in batches."""

    def __init__(
        self,
        db: sqlite3.Connection,
        own: frozenset[str],
        read_line: ReadLine,
        chosen: dict[str, Rank],
        passed_over: set[tuple[str, int]],
        now_ms: int,
    ) -> None:
        """`chosen`: of each id that was found with different lines the least rank, which is the fact's.
        `passed_over`: the places of lines that say the same as another one, which counts more here.
        """
        self.lost: dict[tuple[str, int], Lost] = {}
        """The others, by their place."""
        self._rivals: set[str] = set()
        self._now_ms = now_ms
        self._ahead = deferral_limit(now_ms)
        self._db = db
        self._own = own
        self._read_line = read_line
        self._chosen = chosen
        self._passed_over = passed_over
        self._known = dict(chosen)
        """What was chosen before this pass: every line has been compared."""
        self._is_spoiled = False
        """Whether a line that is not the fact was stored, or tombstoned others, before that was known."""
        self._seq = 0
        self._sorted = True
        self._last_order: Order = ("", "")
        self._greatest_event = ""
        self._greatest_message = ""
        self._known_ahead = LookAhead(db, own, self._is_deferred)

    def rebuild(self, sources: Sequence[Source]) -> bool:
        """Rebuild everything; False if it has to be done once more, now that all of `chosen` is known."""
        db = self._db
        db.execute("BEGIN")
        db.execute(_RECEIPTS)
        db.execute("CREATE TEMP TABLE later (seq INTEGER PRIMARY KEY)")
        self._known_ahead.look(self._introducing(sources))
        entries = self._merged(sources)
        while batch := list(itertools.islice(entries, _BATCH)):
            self._write(self._new_ones(batch))
        db.execute("COMMIT")
        if self._is_spoiled:
            return False
        create_indexes(db)
        db.execute("BEGIN")
        db.execute(_MERGE_RECEIPTS)
        db.execute(_MARK_WAITING_RECEIPTS)
        self._find_answerers()
        db.execute(_MERGE_REPLIES)
        db.execute(_MERGE_THREADS)
        self._apply_later()
        # It is rebuilt: nothing asks for that any more.
        db.execute("DELETE FROM schema_meta WHERE key = ?", (SUPERSEDED,))
        db.executemany("INSERT INTO rivals VALUES (?)", [(event_id,) for event_id in self._rivals])
        db.execute("DROP TABLE receipts")
        db.execute("DROP TABLE answerers")
        db.execute("DROP TABLE later")
        if not self._sorted:
            for statement in _NUMBER_AGAIN.strip().split(";\n"):
                db.execute(statement)
        create_search(db)
        db.execute("COMMIT")
        return True

    # -- reading

    def _introducing(self, sources: Sequence[Source]) -> Iterator[Entry]:
        """The facts that others are judged by. Of those that lie in a wrong file the keys; the others come later."""
        wanted = {LOCAL_FILE: may_introduce, EVENTS_FILE: None}
        for source in sources:
            kinds = {LOCAL_FILE: INTRODUCTIONS, EVENTS_FILE: SAID_AHEAD}.get(source.file, DaemonKeyed)
            for entry in source.entries(wanted.get(source.file, may_be_key)):
                if isinstance(entry.fact, kinds) and self._is_chosen(entry):
                    yield entry

    def _merged(self, sources: Sequence[Source]) -> Iterator[_Item]:
        window = max(_WINDOW_FACTS_MIN, _WINDOW_FACTS_MAX // max(1, len(sources)))
        streams = [self._stream(number, source, window) for number, source in enumerate(sources)]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams)

    def _stream(self, number: int, source: Source, window: int) -> Iterator[_Item]:
        normalise, known = clock.normalise, self._known
        items = (
            (normalise(entry.fact.timestamp), entry.fact.event_id, number, entry.offset, entry)
            for entry in source.entries(None)
            if not known or self._is_chosen(entry)
        )
        if source.file != EVENTS_FILE:
            return _straightened(items, window)
        return itertools.chain(sorted(itertools.islice(items, _SORT_FACTS_MAX)), items)

    def _new_ones(self, batch: Iterable[_Item]) -> Iterator[tuple[str, Entry]]:
        """Leave out what is there already. In sorted journals an id greater than all before is new without a look."""
        here: dict[str, Entry] = {}
        last = self._last_order
        for at, event_id, _, _, entry in batch:
            if event_id > self._greatest_event:
                self._greatest_event = event_id
            elif (twin := here.get(event_id)) is not None:
                self._compare(self._rank(twin), (twin.file, twin.offset), entry)
                continue
            elif row := self._db.execute(
                "SELECT trust, file, offset, length FROM events WHERE event_id = ?", (event_id,)
            ).fetchone():
                self._compare(rank(bare(self._read_line(*row[1:])), row[0]), (row[1], row[2]), entry)
                continue
            here[event_id] = entry
            if (at, event_id) < last:
                self._sorted = False
            last = (at, event_id)
            yield at, entry
        self._last_order = last

    def _compare(self, stored: Rank, place: tuple[str, int], entry: Entry) -> None:
        """A second line of one id: the same again, or the one of lesser rank is the fact."""
        new = self._rank(entry)
        if is_rival(entry, place[0], is_same=new[1] == stored[1]):
            self._rivals.add(entry.fact.event_id)
        if new == stored:
            return
        least = self._chosen.setdefault(entry.fact.event_id, stored)
        if new[1] == stored[1]:
            # Only what they are to this machine differs (an unsigned line with a tail that is no signature): nothing is
            # lost, but the one that counts more stands.
            self._passed_over.add(place if new < stored else (entry.file, entry.offset))
            self._chosen[entry.fact.event_id] = min(new, least)
            self._is_spoiled = self._is_spoiled or new < stored or isinstance(entry.fact, SAID_AHEAD)
        elif new < least:
            self._chosen[entry.fact.event_id] = new
            self._is_spoiled = True
        elif new > least:
            self._lose(entry, least)
            self._is_spoiled = self._is_spoiled or isinstance(entry.fact, SAID_AHEAD)

    def _rank(self, entry: Entry) -> Rank:
        trust = SIGNED
        if not entry.signed:
            trust = self._known_ahead.origins.judge(entry.raw, entry.fact.origin_daemon, signed=False).trust
        return rank(bare(entry.raw), trust)

    def _is_chosen(self, entry: Entry) -> bool:
        """Whether no other line is known to be the fact; else this one is lost."""
        if (entry.file, entry.offset) in self._passed_over:
            return False
        chosen = self._known.get(entry.fact.event_id)
        # What else it is hangs on facts that this may be one of.
        if chosen is None or (chosen[0] != 0, chosen[1]) == signatures.rank(bare(entry.raw), entry.signed):
            return True
        self._lose(entry, chosen)
        return False

    def _lose(self, entry: Entry, fact: Rank) -> None:
        self._rivals.add(entry.fact.event_id)
        if signatures.unsigned(raw := bare(entry.raw)) != fact[1]:  # else it says the same, only unsigned
            self.lost[entry.file, entry.offset] = Lost(entry.file, entry.offset, entry.length, raw)

    # -- writing

    def _write(self, entries: Iterable[tuple[str, Entry]]) -> None:
        rows: list[tuple[str | int, ...]] = []
        creates: list[tuple[str, int, MessageCreated, int]] = []
        receipts: list[tuple[str, str, int, str, int]] = []
        later: list[tuple[int]] = []
        keys: list[tuple[str, str, str, str, str]] = []
        here: set[str] = set()
        dependents: list[tuple[str, int]] = []
        seq = self._seq
        ahead = self._known_ahead
        local, judge = ahead.local, ahead.origins.judge
        for at, entry in entries:
            fact = entry.fact
            seq += 1
            state = "applied"
            is_local = entry.file == LOCAL_FILE
            who = local if is_local else judge(entry.raw, fact.origin_daemon, signed=entry.signed)
            if isinstance(fact, UnknownEvent):
                state = "sealed"
            elif who.trust == HIDDEN:
                state = "hidden"
            elif who.trust == STRANGE or (at > self._ahead and self._is_deferred(fact, at)):
                later.append((seq,))
            elif isinstance(fact, MessageCreated):
                if ahead.watermarks and ahead.is_tombstoned(fact, at, who):
                    state = "void"
                elif self._is_new_message(fact.message_id, here):
                    creates.append((at, seq, fact, who.trust))
                    here.add(fact.message_id)
                else:
                    later.append((seq,))
            elif isinstance(fact, MessageReceipt) and (is_local or ahead.may_mark(fact.agent_id, who.home)):
                height = merge.receipt_rank(fact.receipt_type)
                receipts.append((fact.message_id, fact.agent_id, height, at, seq))
                if not is_local:
                    dependents.append((REGISTERED + fact.agent_id, seq))
            else:
                later.append((seq,))
            rows.append((seq, *event_row(entry, at), state, who.trust))
            if not isinstance(fact, UnknownEvent) and fact.client_key and who.home == OURS and who.trust < HIDDEN:
                keys.append(client_key_row(fact, (at, fact.event_id)))
        self._seq = seq
        db = self._db
        db.executemany(_INSERT_EVENT, rows)
        db.executemany("INSERT INTO later VALUES (?)", later)
        db.executemany("INSERT OR IGNORE INTO client_keys VALUES (?, ?, ?, ?, ?)", keys)
        if receipts:
            db.executemany("INSERT INTO receipts VALUES (?, ?, ?, ?, ?)", receipts)
            db.executemany("INSERT INTO hanging VALUES (?, ?)", [("m:" + row[0], row[4]) for row in receipts])
            db.executemany("INSERT INTO hanging VALUES (?, ?)", dependents)
        if creates:
            self._write_messages(creates)

    def _is_deferred(self, fact: AnyFact, at: str) -> bool:
        """Whether a fact waits for its day; the projection puts it by, with what is applied later."""
        return at > self._ahead and may_wait(fact, self._own)

    def _is_new_message(self, message_id: str, batch: set[str]) -> bool:
        if message_id > self._greatest_message:
            self._greatest_message = message_id
            return True
        if message_id in batch:
            return False
        row = self._db.execute("SELECT 1 FROM messages WHERE message_id = ?", (message_id,)).fetchone()
        return row is None

    def _write_messages(self, creates: Sequence[tuple[str, int, MessageCreated, int]]) -> None:
        messages: list[merge.Row] = []
        scopes: list[merge.Row] = []
        refs: list[merge.Row] = []
        audiences: list[merge.Row] = []
        recipients: list[merge.Row] = []
        cleaned = self._known_ahead.cleaned
        for at, seq, fact, trust in creates:
            message_id, author = fact.message_id, fact.agent_id
            messages.append(merge.message_row(fact, at, seq, merge.reply_to_of(fact) if fact.refs else "", trust))
            if fact.scopes:
                scopes += merge.pair_rows(message_id, fact.scopes)
            if fact.refs:
                refs += merge.pair_rows(message_id, fact.refs)
            if fact.audiences:
                audiences += merge.pair_rows(message_id, fact.audiences)
            for to in merge.recipients_of(fact):
                below = cleaned and (at, fact.event_id) <= cleaned.get(to, ("", ""))
                recipients.append(
                    merge.recipient_row(message_id, to, author, at, merge.BELOW_WATERMARK if below else 0)
                )
        db = self._db
        db.executemany(merge.INSERT_MESSAGE, messages)
        db.executemany(merge.INSERT_SCOPE, scopes)
        db.executemany(merge.INSERT_REF, refs)
        db.executemany(merge.INSERT_AUDIENCE, audiences)
        db.executemany(merge.INSERT_RECIPIENT, recipients)

    def _find_answerers(self) -> None:
        """Which replies are answers, by author and origin."""
        db, may_answer = self._db, self._known_ahead.may_answer
        db.execute(_ANSWERERS)
        found = db.execute("SELECT DISTINCT agent_id, origin_daemon FROM messages WHERE reply_to <> ''").fetchall()
        db.executemany("INSERT INTO answerers VALUES (?, ?)", [each for each in found if may_answer(*each)])

    def _apply_later(self) -> None:
        """What was put off: facts in small numbers, creates of one id, watermarks in a wrong file."""
        projection = Projection(self._db, self._own, self._read_line, lambda: self._now_ms)
        projection.messages.refresh_all_superseded()
        seq = 0
        while rows := self._db.execute(
            "SELECT seq, file, offset, length FROM later JOIN events USING (seq) WHERE seq > ? ORDER BY seq LIMIT ?",
            (seq, _BATCH),
        ).fetchall():
            for seq, file, offset, length in rows:
                raw = bare(self._read_line(file, offset, length))
                fact = events.decode(raw)
                entry = entry_of(fact, raw, file, offset, length)
                projection.project(seq, entry, events.order_of(fact))


def _straightened(items: Iterable[_Item], window: int) -> Iterator[_Item]:
    """The items in order, if none is further from its place than the window is wide; else nearly so."""
    source = iter(items)
    held: list[_Item] = []
    while fresh := _some(source, window):
        held = sorted(held + fresh)
        ready = len(held) - len(fresh)
        yield from held[:ready]
        held = held[ready:]
    yield from held


def _some(items: Iterator[_Item], count: int) -> list[_Item]:
    found: list[_Item] = []
    size = 0
    for item in items:
        found.append(item)
        size += item[4].length
        if len(found) == count or size >= _WINDOW_BYTES:
            break
    return found
