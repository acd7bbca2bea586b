"""The index of words, `messages_fts`: how it follows the messages, and how both are searched (events.md §10).

It follows some steps behind. To write down the words of one message costs as much as all its rows, and of many hardly
more; so triggers note in `unindexed` what was touched, and what gathered there is indexed at once when it is worth it.
A search looks through the index and, in memory, through what is not in it yet.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Final

from thrum.model import limits
from thrum.store.schema import TOKENS

_CHUNK: Final = 1_000

MATCHES: Final = """(m.seq IN (SELECT rowid FROM messages_fts WHERE messages_fts MATCH ?)
  AND m.seq NOT IN (SELECT seq FROM unindexed) OR m.seq IN (SELECT value FROM json_each(?)))"""
"""A condition on a message `m`; its values are those of `matching`."""


def follow(db: sqlite3.Connection) -> None:
    """Index all that was touched, in the open transaction."""
    while touched := db.execute(
        "SELECT unindexed.seq, indexed, body_content FROM unindexed"
        " LEFT JOIN messages ON messages.seq = unindexed.seq AND deleted = 0 ORDER BY unindexed.seq LIMIT ?",
        (_CHUNK,),
    ).fetchall():
        gone = [(seq, old) for seq, old, new in touched if old is not None and old != new]
        came = [(seq, new) for seq, old, new in touched if new is not None and old != new]
        db.executemany("INSERT INTO messages_fts (messages_fts, rowid, body_content) VALUES ('delete', ?, ?)", gone)
        db.executemany("INSERT INTO messages_fts (rowid, body_content) VALUES (?, ?)", came)
        db.execute("DELETE FROM unindexed WHERE seq <= ?", (touched[-1][0],))


def check(db: sqlite3.Connection) -> None:
    """Bring the index up and hold it against the messages, all of them. Raises sqlite3.DatabaseError if they differ."""
    follow(db)
    db.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")


def matching(db: sqlite3.Connection, expression: str) -> tuple[str, str]:
    """The values of `MATCHES` for an expression of `thrum.model.search`. Both statements must see the same commit."""
    rows = db.execute("SELECT seq, body_content FROM unindexed JOIN messages USING (seq) WHERE deleted = 0").fetchall()
    found: list[int] = []
    if rows:
        with closing(sqlite3.connect(":memory:")) as beside:
            beside.execute(f"CREATE VIRTUAL TABLE young USING fts5(body_content, content = '', {TOKENS})")
            beside.executemany("INSERT INTO young (rowid, body_content) VALUES (?, ?)", rows)
            found = [row[0] for row in beside.execute("SELECT rowid FROM young WHERE young MATCH ?", (expression,))]
    return expression, json.dumps(found)


class FullTextIndex:
    """When the one writer lets the index follow."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._facts, self._bytes = db.execute(
            "SELECT count(*), ifnull(sum(length(body_content)), 0) FROM unindexed LEFT JOIN messages USING (seq)"
        ).fetchone()

    def wrote(self, facts: int, bytes: int, *, swept: bool) -> None:
        """The open transaction wrote facts of so many bytes, or `swept` away whatever many messages: index what
        gathered, if it is much. Should the transaction fail, the next time comes later.
        """
        self._facts += facts
        self._bytes += bytes
        if swept or self._facts >= limits.unindexed_max or self._bytes >= limits.unindexed_bytes_max:
            follow(self._db)
            self._facts = self._bytes = 0
