"""Projections made of chosen facts in one go, to hold a clone's own one against.

- `of_all`: everything that anybody holds and this machine's own words. The projection is a function of that set.
- `of_honest`: without what strangers said. What honest clones made must be the same with and without them.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import nacl.bindings
import nacl.exceptions

from tests.sim.strangers import STRANGERS
from tests.support.store.factmaker import empty_projection
from thrum.model import events, signatures
from thrum.model.events import UnknownEvent
from thrum.model.origins import BEFORE, LOOSE
from thrum.store._rebuild_lookahead import INTRODUCTIONS
from thrum.store.projection.core import Entry, Projection, entry_of
from thrum.store.queries.views import View

if TYPE_CHECKING:
    from tests.sim.clone import Clone

Lines = Mapping[str, tuple[bytes, str]]
"""Of each event id the line that is the fact, and a journal in which it lies."""
Rows = dict[str, list[tuple[Any, ...]]]

decode = functools.lru_cache(8_192)(events.decode)


def rank(raw: bytes) -> tuple[signatures.Rank, int, bytes]:
    """Of several lines of one id that of least rank is the fact; of those that say the same it is the shortest."""
    try:
        origin = decode(raw).origin_daemon
    except events.BadLine:
        origin = ""
    return signatures.rank(raw, signatures.is_signed(raw, origin)), len(raw), raw


@functools.lru_cache(16_384)
def is_true(raw: bytes) -> bool:
    """Whether the signature of a line in a journal holds, and its id is of its origin's making; asked of the library
    itself, not of what is tested.
    """
    parts = signatures.split_signature(raw)
    if parts is None:
        return False
    base, key, signature = parts
    try:
        nacl.bindings.crypto_sign_open(signature + signatures.DOMAIN + base, key)
    except nacl.exceptions.BadSignatureError:
        return False
    fact = decode(raw)
    made = signatures.MADE.get(fact.type if isinstance(fact, UnknownEvent) else events.type_of(fact))
    entity = getattr(fact, made.field, "") if made else ""
    fits = not entity or entity.rpartition("_")[2] == fact.event_id.rpartition("_")[2]
    return fits and signatures.id_fits(fact.event_id, fact.origin_daemon)


def rebuild(clone: Clone, lines: Lines) -> sqlite3.Connection:
    """A projection in memory, as that clone would have it of these lines of the branch and its local journal."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.deserialize(_empty())
    layout: dict[tuple[str, int], bytes] = {}
    projection = Projection(
        db, clone.own, lambda file, offset, length: layout[file, offset], lambda: clone.wall.now_ms()
    )
    local = [(raw, events.LOCAL_FILE) for raw in clone.lines(events.LOCAL_FILE)]
    entries: list[Entry] = []
    for offset, (raw, file) in enumerate((*local, *sorted(lines.values()))):
        try:
            fact = decode(raw)
        except events.BadLine:
            continue
        layout[file, offset] = raw
        if not isinstance(fact, UnknownEvent):
            entries.append(entry_of(fact, raw, file, offset, len(raw) + 1))
    # What changes what others are comes first, as where a projection is rebuilt, and a receipt before its copy; the
    # rest in any order.
    clone.world.dice.shuffle(entries)
    entries.sort(key=lambda entry: (not isinstance(entry.fact, INTRODUCTIONS), entry.file != events.LOCAL_FILE))
    db.execute("BEGIN")
    for entry in entries:
        projection.apply(entry)
    db.execute("COMMIT")
    return db


def of_all(clone: Clone, lines: Lines) -> sqlite3.Connection:
    """What that clone's projection must be, if it has all of these."""
    return rebuild(clone, lines)


def of_honest(clone: Clone, lines: Lines, honest: Iterable[str], *, before: bool) -> sqlite3.Connection:
    """The same without strangers; with `before` unsigned lines that count here are believed, whoever wrote them."""
    honest = frozenset(honest)
    origins = clone.store.view.origins()
    kept: dict[str, tuple[bytes, str]] = {}
    for event_id, (raw, file) in lines.items():
        try:
            origin = decode(raw).origin_daemon
        except events.BadLine:
            continue
        if signatures.is_signed(raw, origin):
            if origin in honest:
                kept[event_id] = raw, file
        elif before and origins.judge(raw, origin, signed=False).trust in (BEFORE, LOOSE):
            kept[event_id] = raw, file
    return rebuild(clone, kept)


@functools.lru_cache(16_384)
def _is_of_strangers(id: object) -> bool:
    """Whether it is the id of a thing that is a stranger's: what he signed of it stands before what nobody signed."""
    is_entity = isinstance(id, str) and id.startswith(("msg_", "ses_", "grp_"))
    return is_entity and any(signatures.id_fits(id, origin) for origin in STRANGERS)


@functools.cache
def _empty() -> bytes:
    db = empty_projection()
    try:
        db.execute("VACUUM")
        return db.serialize()
    finally:
        db.close()


# -- what may not hang on strangers

_MESSAGE_COLUMNS: Final = (
    "message_id, agent_id, session_id, thread_own, reply_to, created_at, updated_at, body_format, body_content,"
    " body_structured, edit_count, quiet, deleted, deleted_at, delete_reason, authored_by, disclosed, origin_daemon,"
    " create_event, edit_event, delete_event, trust, ifnull(nullif(thread_id, 'thr_' || substr(message_id, 5)), '')"
)
"""But for the number. That a root has the thread that every reply to it names tells only that there is one."""


def honest_rows(
    db: sqlite3.Connection,
    own: frozenset[str],
    honest: Iterable[str],
    names: Collection[str],
    groups: Collection[str],
    *,
    before: bool,
) -> Rows:
    """What honest clones made, row for row. `own`: the ids of whose projection it is; `names`: the agents for whom
    nobody else may speak; `groups`: the names whose marks are looked at.

    With `before`, what was here before there were signatures counts as made by them too.
    """
    ids, known = _list(honest), _list(names)
    trust = (
        f"(trust = {BEFORE} OR (trust = 0 AND origin_daemon IN ({ids})))"
        if before
        else (f"trust = 0 AND origin_daemon IN ({ids})")
    )
    messages = f"message_id IN (SELECT message_id FROM messages WHERE {trust})"
    sessions = f"session_id IN (SELECT session_id FROM sessions WHERE {trust})"
    groups = f"group_id IN (SELECT group_id FROM groups WHERE {trust})"
    nobody = ", ''" if before else ""
    queries = {
        "messages": f"SELECT {_MESSAGE_COLUMNS} FROM messages WHERE {trust}",
        "message_recipients": "SELECT message_id, agent_id, stored_at, hidden & 1 FROM message_recipients"
        f" WHERE {messages}",
        "marks": "SELECT message_id, agent_id, delivered_at, seen_at, read_at FROM message_recipients"
        f" WHERE {messages} AND agent_id IN ({known})",
        # Signs of life lie in the local journal, which stands under the cleanups of before too.
        "sessions": "SELECT session_id, agent_id, started_at, start_event, ended_at, end_reason, end_event,"
        f" origin_daemon, trust{', seen_at' if before else ''} FROM sessions WHERE {trust}",
        "groups": f"SELECT * FROM groups WHERE {trust}",
        "group_members": f"SELECT * FROM group_members WHERE {groups}"
        # What others say of an agent lies there too; that it does not count, its marks tell.
        f" AND (member_type <> 'agent' OR (member_value IN ({known}) AND origin IN ({ids}{nobody})))",
        "agent_aliases": f"SELECT * FROM agent_aliases WHERE home IN ({ids}, '')",
        "horizons": f"SELECT * FROM horizons WHERE realm IN ({ids}{', ' + repr('before') if before else ''})",
    }
    for table in ("message_scopes", "message_refs", "message_audiences", "message_edits"):
        queries[table] = f"SELECT * FROM {table} WHERE {messages}"
    for table in ("session_items", "work_contexts", "work_files"):
        queries[table] = f"SELECT * FROM {table} WHERE {sessions}"
    if before:
        queries["registrations"] = f"SELECT * FROM registrations WHERE home IN ({ids}, '')"
        queries["agent_contexts"] = f"SELECT * FROM agent_contexts WHERE home IN ({ids}, '')"
        here = "SELECT agent_id FROM registrations WHERE home = '' AND live = 1"
        queries["agents"] = f"SELECT * FROM agents WHERE agent_id IN ({here})"
    rows: Rows = {}
    for name, query in queries.items():
        found = db.execute(query).fetchall()
        rows[name] = sorted((row for row in found if not any(map(_is_of_strangers, row[:2]))), key=repr)
    shown = {row[0]: row[1] for row in rows["groups"] if row[1] in groups}
    rows["group marks"] = _group_marks(View(db, own), shown, names)
    return rows


def _group_marks(view: View, groups: Mapping[str, str], names: Iterable[str]) -> list[tuple[str, ...]]:
    """What counts of each agent in these groups; `groups`: names by id."""
    return sorted(
        (mark.group_id, agent_id, mark.added_at, mark.removed_at)
        for group in {*groups.values()}
        for agent_id in names
        for mark in view.group_marks(group, "agent", agent_id)
        if mark.group_id in groups
    )


def names_of_honest(live: sqlite3.Connection, honest_only: sqlite3.Connection) -> set[str]:
    """Agents of this machine, and those that nobody registered but who did among the honest."""
    one, other = _registrars(live), _registrars(honest_only)
    return {name for name, homes in other.items() if ("" in homes and "" in one[name]) or homes == one[name]}


def groups_led_alike(live: sqlite3.Connection, honest_only: sqlite3.Connection, own: frozenset[str]) -> set[str]:
    """Names of groups that this machine has in both projections, or in none: one that it made itself, and nobody
    signed, decides who counts in the others of its name.
    """
    one, other = View(live, own), View(honest_only, own)
    return {name for name in one.groups() if one.is_group_here(name) == other.is_group_here(name)}


def _registrars(db: sqlite3.Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for agent_id, home in db.execute("SELECT agent_id, home FROM registrations"):
        found.setdefault(agent_id, set()).add(home)
    return found


def _list(ids: Iterable[str]) -> str:
    return ", ".join("'" + id.replace("'", "''") + "'" for id in sorted(ids))
