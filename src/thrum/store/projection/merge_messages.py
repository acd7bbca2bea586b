"""Messages: how a create, its edits, deletes and receipts become rows, and what one message gives to its neighbours.

Every function is commutative, associative and idempotent over the facts it is given; `projection` decides which create
counts and what is tombstoned. Source: events.md §7 to §9.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from thrum.model import clock, ids
from thrum.model.events import (
    MESSAGES_DIR,
    AgentAliased,
    AnyFact,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    MessageReceipt,
    Pair,
)
from thrum.model.origins import BEFORE, Provenance
from thrum.model.tombstones import message_ms
from thrum.store.projection.entities import Winner
from thrum.store.projection.watermarks import AGENT, Order, Watermarks

MESSAGE_TABLES: Final = (
    "messages",
    "message_scopes",
    "message_refs",
    "message_audiences",
    "message_recipients",
    "message_edits",
)
INSERT_MESSAGE: Final = """
INSERT INTO messages (seq, message_id, agent_id, session_id, thread_id, thread_own, reply_to, created_at, body_format,
  body_content, body_structured, quiet, urgent, expires_at, supersedes, authored_by, disclosed, origin_daemon,
  create_event, trust)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_SCOPE: Final = "INSERT OR IGNORE INTO message_scopes VALUES (?, ?, ?, ?)"
INSERT_REF: Final = "INSERT OR IGNORE INTO message_refs VALUES (?, ?, ?, ?)"
INSERT_AUDIENCE: Final = "INSERT OR IGNORE INTO message_audiences VALUES (?, ?, ?, ?)"
INSERT_RECIPIENT: Final = """
INSERT OR IGNORE INTO message_recipients (message_id, agent_id, stored_at, delivered_at, seen_at, read_at, hidden)
VALUES (?, ?, ?, ?, ?, ?, ?)"""

DELETED: Final = 1
BELOW_WATERMARK: Final = 2
"""Why a recipient's row is `hidden`: bits, so that either may come first."""

_PARENT_OF_BEFORE: Final = f"EXISTS (SELECT 1 FROM messages WHERE message_id = ?1 AND trust = {BEFORE})"
_RECEIPT: Final = {
    "read": "delivered_at = min(ifnull(delivered_at, ?3), ?3), seen_at = min(ifnull(seen_at, ?3), ?3), "
    "read_at = min(ifnull(read_at, ?3), ?3)",
    "seen": "delivered_at = min(ifnull(delivered_at, ?3), ?3), seen_at = min(ifnull(seen_at, ?3), ?3)",
    "delivered": "delivered_at = min(ifnull(delivered_at, ?3), ?3)",
}
_UPDATE_RECIPIENT: Final = {
    word: f"UPDATE message_recipients SET {columns} WHERE message_id = ?1 AND agent_id = ?2"
    for word, columns in _RECEIPT.items()
}

SAME_THREAD: Final = (
    "(reply.thread_id = 'thr_' || iif(substr(root.message_id, 1, 4) = 'msg_', substr(root.message_id, 5),"
    f" root.message_id) OR (reply.trust = {BEFORE} AND root.trust = {BEFORE}))"
)
"""Whether the thread of a `reply` is that of its `root`: the one that follows from the root's id, on any machine. Only
older facts carry others (events.md §8); from any other author they would take the root out of its thread.
"""

Row = tuple[Any, ...]
MayAnswer = Callable[[str, str], bool]
"""`may_answer(agent, origin)`: whether a reply of that origin by the agent is the agent's answer."""
MayChange = Callable[[str, int, str, int], bool]
"""`may_change(origin, trust, of_origin, of_trust)`: whether lines of the first may change what one of the second
made."""


def receipt_rank(receipt_type: str) -> int:
    """0 delivered, 1 seen, 2 read; a word of a newer program proves at least the delivery."""
    return 2 if receipt_type == "read" else 1 if receipt_type == "seen" else 0


def reply_to_of(fact: MessageCreated) -> str:
    """The message it replies to, or `""`."""
    for ref in fact.refs:
        if ref.type == "reply_to":
            return ref.value
    return ""


def expiry_of(fact: MessageCreated) -> str:
    """When it expires, comparable; `""` for never, and for what is no time."""
    try:
        return clock.normalise(fact.expires_at)
    except ValueError:
        return ""


def recipients_of(fact: MessageCreated) -> Iterable[str]:
    """To whom it went, each once. Older facts without recipients: the values of their mentions, unexpanded."""
    if len(fact.recipients) == 1:
        return fact.recipients
    if fact.recipients:
        return dict.fromkeys(fact.recipients)
    return dict.fromkeys(ref.value for ref in fact.refs if ref.type == "mention")


def message_row(fact: MessageCreated, created_at: str, seq: int, reply_to: str, trust: int) -> Row:
    """The values of INSERT_MESSAGE."""
    body = fact.body
    return (
        seq,
        fact.message_id,
        fact.agent_id,
        fact.session_id,
        fact.thread_id,
        1 if fact.thread_id else 0,
        reply_to,
        created_at,
        body.format,
        body.content,
        body.structured,
        1 if fact.quiet else 0,
        1 if fact.urgent else 0,
        expiry_of(fact) if fact.expires_at else "",
        fact.supersedes,
        fact.authored_by,
        1 if fact.disclosed else 0,
        fact.origin_daemon,
        fact.event_id,
        trust,
    )


def pair_rows(message_id: str, pairs: tuple[Pair, ...]) -> list[Row]:
    """The values of INSERT_SCOPE, INSERT_REF and INSERT_AUDIENCE."""
    return [(message_id, pair.type, pair.value, position) for position, pair in enumerate(pairs)]


def recipient_row(message_id: str, agent_id: str, author: str, stored_at: str, hidden: int) -> Row:
    """The values of INSERT_RECIPIENT. What one writes to oneself is delivered, seen and read at once."""
    at_once = stored_at if agent_id == author else None
    return (message_id, agent_id, stored_at, at_once, at_once, at_once, hidden)


class Messages:
    """The thing `m:`; see `entities.Entity` for the contract."""

    prefix = "m:"
    create_type = "message.create"

    def __init__(
        self,
        db: sqlite3.Connection,
        watermarks: Watermarks,
        local: Provenance,
        may_answer: MayAnswer,
        may_change: MayChange,
    ) -> None:
        """`local` is what facts of this machine are: a cleanup among them begins an inbox afresh."""
        self._may_answer = may_answer
        self._may_change = may_change
        self._db = db
        self._watermarks = watermarks
        self._local = local

    def winner(self, message_id: str) -> Winner | None:
        """The create that counts."""
        row = self._db.execute(
            "SELECT trust, created_at, create_event, origin_daemon FROM messages WHERE message_id = ?", (message_id,)
        ).fetchone()
        return None if row is None else Winner(*row)

    def is_tombstoned(self, create: AnyFact, order: Order, who: Provenance) -> bool:
        assert isinstance(create, MessageCreated)
        author, purge = self._watermarks.of_message(create.agent_id, who.under)
        if author is not None and order <= author:
            return True
        return purge is not None and message_ms(create.message_id, order[0]) < clock.parse_ms(purge)

    def insert(self, create: AnyFact, order: Order, seq: int, who: Provenance) -> None:
        """All rows of a create, and what it and its neighbours give each other."""
        assert isinstance(create, MessageCreated)
        db = self._db
        message_id, author, created_at = create.message_id, create.agent_id, order[0]
        reply_to = reply_to_of(create) if create.refs else ""
        db.execute(INSERT_MESSAGE, message_row(create, created_at, seq, reply_to, who.trust))
        for insert, pairs in (
            (INSERT_SCOPE, create.scopes),
            (INSERT_REF, create.refs),
            (INSERT_AUDIENCE, create.audiences),
        ):
            if pairs:
                self._insert_rows(insert, pair_rows(message_id, pairs))
        recipients = list(recipients_of(create))
        below = self._watermarks.of_agents(recipients, self._local.under)
        rows = [
            recipient_row(
                message_id, to, author, created_at, BELOW_WATERMARK if below and order <= below.get(to, ("", "")) else 0
            )
            for to in recipients
        ]
        self._insert_rows(INSERT_RECIPIENT, rows)
        if db.execute("SELECT 1 FROM messages WHERE reply_to = ? AND reply_to <> '' LIMIT 1", (message_id,)).fetchone():
            self.refresh_parent(message_id)
        if reply_to:
            self._tell_parent(create, created_at, reply_to, who.trust)
        if create.supersedes:
            self.refresh_superseded(create.supersedes)
        if db.execute(
            "SELECT 1 FROM messages WHERE supersedes = ? AND supersedes <> '' LIMIT 1", (message_id,)
        ).fetchone():
            self.refresh_superseded(message_id)

    def _insert_rows(self, insert: str, rows: Sequence[Row]) -> None:
        """`executemany` costs three times as much as the one `execute` that most messages need."""
        if len(rows) == 1:
            self._db.execute(insert, rows[0])
        elif rows:
            self._db.executemany(insert, rows)

    def _tell_parent(self, reply: MessageCreated, at: str, parent: str, trust: int) -> None:
        self._answered(parent, reply.agent_id, reply.origin_daemon, at, trust)
        if reply.thread_id:
            self._db.execute(
                "UPDATE messages AS root SET thread_id = reply.thread_id"
                " FROM (SELECT ?2 AS thread_id, ?3 AS trust) AS reply"
                " WHERE message_id = ?1 AND thread_own = 0 AND (root.thread_id = '' OR root.thread_id > ?2)"
                f" AND {SAME_THREAD}",
                (parent, reply.thread_id, trust),
            )

    def _answered(self, parent: str, author: str, origin: str, at: str, trust: int) -> None:
        rule = "" if self._may_answer(author, origin) else f" AND {trust} = {BEFORE} AND {_PARENT_OF_BEFORE}"
        self._db.execute(
            "UPDATE message_recipients SET replied_at = min(ifnull(replied_at, ?3), ?3)"
            f" WHERE message_id = ?1 AND agent_id = ?2{rule}",
            (parent, author, at),
        )

    def refresh_parent(self, message_id: str) -> None:
        """What the replies that are here give to a message, from nothing: `replied_at` and a root's thread."""
        db = self._db
        db.execute("UPDATE message_recipients SET replied_at = NULL WHERE message_id = ?", (message_id,))
        for reply in db.execute(
            "SELECT reply_to, agent_id, origin_daemon, min(created_at), trust FROM messages"
            " WHERE reply_to = ? AND reply_to <> '' GROUP BY agent_id, origin_daemon, trust",
            (message_id,),
        ).fetchall():
            self._answered(*reply)
        db.execute(
            "UPDATE messages AS root SET thread_id = (SELECT ifnull(min(reply.thread_id), '') FROM messages AS reply"
            f" WHERE reply.reply_to = ?1 AND reply.reply_to <> '' AND reply.thread_own = 1 AND {SAME_THREAD})"
            " WHERE message_id = ?1 AND thread_own = 0",
            (message_id,),
        )

    def refresh_superseded(self, message_id: str) -> None:
        """By which message this one is replaced, from nothing: the last one of its author's and origin's that says so.
        A deleted one replaced it all the same.
        """
        rivals = self._db.execute(
            "SELECT by.message_id, by.origin_daemon, by.trust, of.origin_daemon, of.trust"
            " FROM messages AS by JOIN messages AS of ON of.message_id = by.supersedes AND of.agent_id = by.agent_id"
            " WHERE by.supersedes = ?1 AND by.supersedes <> '' AND by.message_id <> ?1"
            " ORDER BY by.created_at DESC, by.create_event DESC",
            (message_id,),
        ).fetchall()
        last = next((rival[0] for rival in rivals if self._may_change(*rival[1:])), "")
        self._db.execute(
            "UPDATE messages SET superseded_by = ?2 WHERE message_id = ?1 AND superseded_by <> ?2", (message_id, last)
        )

    def refresh_all_superseded(self) -> None:
        """The same of every message that another one names, as `rebuild` has to."""
        for (message_id,) in self._db.execute(
            "SELECT DISTINCT supersedes FROM messages WHERE supersedes <> ''"
        ).fetchall():
            self.refresh_superseded(message_id)

    def answered_by(self, agent_id: str) -> list[tuple[str, str]]:
        """The messages that replies in the agent's name are to, each with the reply's origin."""
        sql = "SELECT DISTINCT reply_to, origin_daemon FROM messages WHERE agent_id = ? AND reply_to <> ''"
        return self._db.execute(sql, (agent_id,)).fetchall()

    def erase(self, message_id: str) -> None:
        row = self._db.execute(
            "SELECT reply_to, supersedes FROM messages WHERE message_id = ?", (message_id,)
        ).fetchone()
        for table in MESSAGE_TABLES:
            self._db.execute(f"DELETE FROM {table} WHERE message_id = ?", (message_id,))
        if row is not None and row[0]:
            self.refresh_parent(row[0])
        if row is not None and row[1]:
            self.refresh_superseded(row[1])

    def merge(self, message_id: str, fact: AnyFact, order: Order, file: str, who: Provenance) -> bool:
        if isinstance(fact, MessageReceipt):
            return self._merge_receipt(fact, order)
        if isinstance(fact, MessageEdited):
            return self._merge_edit(fact, order, file)
        if isinstance(fact, AgentAliased):
            return self._merge_alias(message_id, fact, order)
        assert isinstance(fact, MessageDeleted)
        return self._merge_delete(fact, order, file)

    def is_doomed(self, message_id: str, who: Provenance) -> bool:
        """Whether what was merged tombstoned it: never for messages."""
        return False

    def _merge_receipt(self, fact: MessageReceipt, order: Order) -> bool:
        sql = _UPDATE_RECIPIENT.get(fact.receipt_type, _UPDATE_RECIPIENT["delivered"])
        return self._db.execute(sql, (fact.message_id, fact.agent_id, order[0])).rowcount > 0

    def has_recipient(self, message_id: str, agent_id: str) -> bool:
        """Whether it went to that one, or was handed on to it."""
        sql = "SELECT 1 FROM message_recipients WHERE message_id = ? AND agent_id = ?"
        return self._db.execute(sql, (message_id, agent_id)).fetchone() is not None

    def _merge_alias(self, message_id: str, fact: AgentAliased, order: Order) -> bool:
        """The agent has the message under its new id as if it had come at that moment, and been marked as it was. False
        when it did not have it.
        """
        db, key = self._db, (message_id, fact.agent_id)
        if not self.has_recipient(message_id, fact.of):
            return False
        created, deleted, stored_at = db.execute(
            "SELECT create_event, deleted, stored_at FROM messages LEFT JOIN message_recipients AS r"
            " ON r.message_id = messages.message_id AND r.agent_id = ?2 WHERE messages.message_id = ?1",
            key,
        ).fetchone()
        at = max(order[0], stored_at or "")
        watermark = self._watermarks.get(AGENT, fact.agent_id, self._local.under)
        below = watermark is not None and (at, created) <= watermark
        db.execute(
            "INSERT INTO message_recipients (message_id, agent_id, stored_at, hidden) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET stored_at = excluded.stored_at, hidden = excluded.hidden",
            (*key, at, (DELETED if deleted else 0) | (BELOW_WATERMARK if below else 0)),
        )
        state = "read" if message_id in fact.read else "seen" if message_id in fact.seen else ""
        if state:
            db.execute(_UPDATE_RECIPIENT[state], (*key, order[0]))
        if db.execute("SELECT 1 FROM messages WHERE reply_to = ? AND reply_to <> '' LIMIT 1", (message_id,)).fetchone():
            self.refresh_parent(message_id)
        return True

    def _merge_edit(self, fact: MessageEdited, order: Order, file: str) -> bool:
        row = self._db.execute(
            "SELECT agent_id, created_at, create_event, updated_at, edit_event FROM messages WHERE message_id = ?",
            (fact.message_id,),
        ).fetchone()
        if not _is_by(fact.agent_id, row[0], file):
            return False
        body = fact.body
        self._db.execute(
            "INSERT OR IGNORE INTO message_edits VALUES (?, ?, ?, ?, ?, ?, ?)",
            (fact.event_id, fact.message_id, order[0], row[0], body.format, body.content, body.structured),
        )
        self._db.execute(
            "UPDATE messages SET edit_count = (SELECT count(*) FROM message_edits WHERE message_id = ?1)"
            " WHERE message_id = ?1",
            (fact.message_id,),
        )
        if order > ((row[3], row[4]) if row[4] else (row[1], row[2])):
            self._db.execute(
                "UPDATE messages SET updated_at = ?, edit_event = ?, body_format = ?, body_content = ?,"
                " body_structured = ? WHERE message_id = ?",
                (*order, body.format, body.content, body.structured, fact.message_id),
            )
        return True

    def _merge_delete(self, fact: MessageDeleted, order: Order, file: str) -> bool:
        row = self._db.execute(
            "SELECT agent_id, deleted_at, delete_event FROM messages WHERE message_id = ?", (fact.message_id,)
        ).fetchone()
        if not _is_by(fact.agent_id, row[0], file):
            return False
        if not row[2] or order < (row[1], row[2]):
            self._db.execute(
                "UPDATE messages SET deleted = 1, deleted_at = ?, delete_event = ?, delete_reason = ?"
                " WHERE message_id = ?",
                (*order, fact.reason, fact.message_id),
            )
            self._db.execute(
                "UPDATE message_recipients SET hidden = hidden | ? WHERE message_id = ?", (DELETED, fact.message_id)
            )
        return True


def _is_by(claimed: str, author: str, file: str) -> bool:
    """Whether an edit or delete is the author's. Older facts name no author: then the owner of the journal counts."""
    return claimed == author if claimed else file == f"{MESSAGES_DIR}/{ids.file_stem(author)}.jsonl"
