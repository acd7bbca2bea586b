"""Opening the projection, and its metadata: versions, epoch, positions in the journals, owner.

SQLite is only a projection (house.md, rule 1): WAL with `synchronous=NORMAL` may lose its last commits with the
machine, never its integrity, and replay brings them back. One connection writes, others read; transactions are the
caller's.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from thrum.model.events import FACTS_VERSION
from thrum.model.files import open_following, sync_directory
from thrum.model.wire_types import DaemonIdentity
from thrum.store.schema import (
    BOOKKEEPING_COLUMNS,
    BOOKKEEPING_TABLES,
    INDEXES,
    SCHEMA_VERSION,
    SEARCH,
    SEARCH_TABLE,
    SUPERSEDED,
    TABLES,
)

_BUSY_MS: Final = 5_000
_CACHED_STATEMENTS: Final = 512
_CHECKPOINT_PAGES: Final = 4_000
"""Pages of the write-ahead log before they move into the database and are synced: seldom, for a commit waits for it."""


class JournalPosition(NamedTuple):
    """The projection's position in one journal: bytes and lines applied, and the event id of the line ending
    there.
    """

    file: str
    inode: int
    applied_offset: int
    applied_lines: int
    last_event_id: str


def connect(path: Path | str) -> sqlite3.Connection:
    """A connection without implicit transactions, usable from any thread (one at a time). No pragma is set."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=_CACHED_STATEMENTS)


def open_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection; makes the file if it is missing, its tables not. The caller closes it.

    Raises sqlite3.DatabaseError when the file is no database.
    """
    db = connect(path)
    try:
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        db.execute("PRAGMA cache_size = -16000")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that sees committed data only and cannot write. The caller closes it."""
    db = connect(path)
    try:
        db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        db.execute("PRAGMA query_only = ON")
        db.execute("PRAGMA cache_size = -16000")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def is_damage(error: BaseException) -> bool:
    """Whether a query failed because the database file is broken: then the projection has to be rebuilt."""
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.DatabaseError) and code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def create_tables(db: sqlite3.Connection, *, epoch: str, created_at: str, program: str) -> None:
    """An empty projection, without its indexes: `create_indexes` and `create_search` follow a bulk load."""
    db.executescript(TABLES)
    meta = {
        "schema_version": str(SCHEMA_VERSION),
        "facts_version": str(FACTS_VERSION),
        "epoch": epoch,
        "created_at": created_at,
        "program": program,
    }
    db.executemany("INSERT INTO schema_meta VALUES (?, ?)", meta.items())


def create_indexes(db: sqlite3.Connection) -> None:
    """The indexes of every query; part of no transaction of the caller's."""
    db.executescript(INDEXES)


def create_search(db: sqlite3.Connection) -> None:
    """The index of words, over the messages that are there; from then on `words` lets it follow."""
    for statement in SEARCH:
        db.execute(statement)


def get_meta(db: sqlite3.Connection, key: str) -> str:
    """A value of `schema_meta`: schema_version, facts_version, epoch, created_at, program, and what the caller set."""
    row = db.execute("SELECT value FROM schema_meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else ""


def set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO schema_meta VALUES (?, ?)", (key, value))


def is_current(db: sqlite3.Connection, daemon_id: str) -> bool:
    """Whether this program can use the projection: its versions fit, it is that daemon's, it shows the lines
    that count, and it is not damaged.
    """
    try:
        versions = (get_meta(db, "schema_version"), get_meta(db, "facts_version"))
        superseded = get_meta(db, SUPERSEDED)
        row = db.execute("SELECT daemon_id FROM daemon_identity").fetchone()
    except sqlite3.DatabaseError:
        return False
    if superseded or versions != (str(SCHEMA_VERSION), str(FACTS_VERSION)):
        return False
    return row is not None and row[0] == daemon_id


def offsets(db: sqlite3.Connection) -> dict[str, JournalPosition]:
    """By relative file name."""
    return {row[0]: JournalPosition(*row) for row in db.execute("SELECT * FROM journal_offsets")}


def set_offset(db: sqlite3.Connection, offset: JournalPosition) -> None:
    db.execute("INSERT OR REPLACE INTO journal_offsets VALUES (?, ?, ?, ?, ?)", offset)


def set_sync_state(db: sqlite3.Connection, values: Mapping[str, str]) -> None:
    """Keep values of the sync; others stay."""
    db.executemany("INSERT OR REPLACE INTO sync_state VALUES (?, ?)", values.items())


def identity(db: sqlite3.Connection) -> DaemonIdentity | None:
    """The one row that mirrors the daemon's own record (identity.md §13)."""
    row = db.execute(
        "SELECT daemon_id, repo_name, hostname, repo_path, git_origin_url, init_at FROM daemon_identity"
    ).fetchone()
    if row is None:
        return None
    return DaemonIdentity(
        daemon_id=row[0], repo_name=row[1], hostname=row[2], repo_path=row[3], git_origin_url=row[4], init_at=row[5]
    )


def set_identity(db: sqlite3.Connection, identity: DaemonIdentity, updated_at: str) -> None:
    """Replaces the row, whosever it was."""
    db.execute("DELETE FROM daemon_identity")
    db.execute(
        "INSERT INTO daemon_identity VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            identity.daemon_id,
            identity.repo_name,
            identity.hostname,
            identity.repo_path,
            identity.git_origin_url,
            identity.init_at,
            updated_at,
        ),
    )


def dump(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted, without bookkeeping (events.md §10, ◦): the same for the same set of facts.

    Without the index of words too: `fts.check` holds it against `messages`.
    """
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    projection: dict[str, list[tuple[Any, ...]]] = {}
    for table in tables:
        if table in BOOKKEEPING_TABLES or table.startswith(("sqlite_", SEARCH_TABLE)):
            continue
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        kept = ", ".join(name for name in names if (table, name) not in BOOKKEEPING_COLUMNS)
        projection[table] = db.execute(f"SELECT {kept} FROM {table} ORDER BY {kept}").fetchall()
    return projection


# -- the database as a file


def set_durably(db: sqlite3.Connection, values: dict[str, str]) -> None:
    """Set meta values so that they survive a loss of power, with all that was committed before."""
    db.execute("PRAGMA synchronous = FULL")
    try:
        db.execute("BEGIN IMMEDIATE")
        for key, value in values.items():
            set_meta(db, key, value)
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute("PRAGMA synchronous = NORMAL")


def remove(path: Path) -> None:
    """Take away a database and its logs; the database first, since without its log it would be out of date."""
    found = [name for suffix in ("", "-wal", "-shm", "-journal") if (name := Path(f"{path}{suffix}")).exists()]
    for name in found:
        name.unlink()
    if found:
        sync_directory(path.parent)


def sync(path: Path) -> None:
    """Have what was written into a closed database on disk."""
    descriptor = open_following(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
