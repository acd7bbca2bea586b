"""Messages read by their ids: rows, pairs and recipients of one or of a page.

A message is read in parts, each with one statement for the whole page; the parts are joined here. Source: rpc.md §4.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final

from thrum.model import limits, wire_types
from thrum.model.errors import AnswerTooLarge
from thrum.model.events import Body, Pair
from thrum.model.origins import BEFORE
from thrum.model.wake_types import COUNTED
from thrum.store.projection.merge_daemons import load_origins
from thrum.store.queries.rows import MessageHead, MessageRow

_MESSAGE: Final = (
    "message_id, seq, agent_id, session_id, thread_id, reply_to, created_at, updated_at, body_format, body_content,"
    " body_structured, edit_count, quiet, deleted, deleted_at, delete_reason, authored_by, disclosed, origin_daemon,"
    " create_event, edit_event, delete_event, urgent, expires_at, supersedes, superseded_by"
)
_RECIPIENT: Final = (
    "r.message_id, r.agent_id, r.stored_at, r.delivered_at, r.seen_at, r.read_at, r.replied_at, a.origin_daemon"
    " FROM message_recipients AS r LEFT JOIN agents AS a ON a.agent_id = r.agent_id AND a.live = 1"
)
_OFFERED: Final = (
    "SELECT message_id, agent_id, min(iif(offered_at = '', ended_at, offered_at))"
    " FROM wake_messages JOIN wake_attempts USING (attempt_id) WHERE {among}"
    " AND outcome IN (" + ", ".join(f"'{outcome}'" for outcome in COUNTED) + ") GROUP BY message_id, agent_id"
)
_PAIR_TABLES: Final = ("message_scopes", "message_refs", "message_audiences")
_IDS_AT_ONCE: Final = 500
_STEP_IDS: Final = 2_000

Pairs = tuple[tuple[Pair, ...], tuple[Pair, ...], tuple[Pair, ...]]


class Filter:
    """Conditions on a message `m`, gathered with their values."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: Any) -> None:
        self.terms.append(term)
        self.values.extend(values)

    def pair(self, table: str, pair: Pair) -> None:
        self.add(
            f"EXISTS (SELECT 1 FROM {table} AS p WHERE p.message_id = m.message_id AND p.type = ? AND p.value = ?)",
            pair.type,
            pair.value,
        )

    def unread_by(self, agent_id: str) -> None:
        self.add(
            "EXISTS (SELECT 1 FROM message_recipients AS u WHERE u.message_id = m.message_id AND u.agent_id = ?"
            " AND u.hidden = 0 AND u.read_at IS NULL)",
            agent_id,
        )

    def narrow(self, scope: Pair | None, author_id: str) -> None:
        """What both `message.list` and `message.wait` can narrow by."""
        if scope is not None:
            self.pair("message_scopes", scope)
        if author_id:
            self.add("m.agent_id = ?", author_id)

    def addressed_to(self, word: str) -> None:
        """The sender named this agent, user (`user:NAME`), role, group, or everyone. Groups and everyone have no ref of
        type `mention`; older messages have only such refs.
        """
        self.add(
            "(EXISTS (SELECT 1 FROM message_audiences AS p WHERE p.message_id = m.message_id AND"
            " ? = CASE p.type WHEN 'user' THEN 'user:' || p.value ELSE p.value END)"
            " OR EXISTS (SELECT 1 FROM message_refs AS p WHERE p.message_id = m.message_id AND p.type = 'mention'"
            " AND p.value = ?))",
            word,
            word,
        )


class MessageRows:
    """The part of `View` that reads messages whose ids are known."""

    def __init__(self, db: sqlite3.Connection, own: frozenset[str]) -> None:
        self._db = db
        self._own = own

    # -- one message

    def message(self, message_id: str) -> MessageRow | None:
        """A message in its present state, also if deleted."""
        row = self._db.execute(f"SELECT {_MESSAGE} FROM messages WHERE message_id = ?", (message_id,)).fetchone()
        return None if row is None else _message_row(row)

    def ids_in_steps(self) -> Generator[list[str]]:
        """Every message's id, the newest first, some at a time: about 1 ms each."""
        last = "\U0010ffff"
        statement = "SELECT message_id FROM messages WHERE message_id < ? ORDER BY message_id DESC LIMIT ?"
        while rows := self._db.execute(statement, (last, _STEP_IDS)).fetchall():
            yield [row[0] for row in rows]
            last = rows[-1][0]

    def newest_from(self, author_id: str, reader_id: str, but: Sequence[str] = ()) -> tuple[str, str]:
        """Id and origin of the author's newest message in the reader's inbox, but those of some origins; both empty if
        there is none.
        """
        row = self._db.execute(
            "SELECT m.message_id, m.origin_daemon FROM messages AS m WHERE m.agent_id = ? AND m.deleted = 0"
            f" AND m.origin_daemon NOT IN ({', '.join('?' * len(but))}) AND EXISTS (SELECT 1"
            " FROM message_recipients AS x WHERE x.message_id = m.message_id AND x.agent_id = ? AND x.hidden = 0)"
            " ORDER BY m.created_at DESC, m.message_id DESC LIMIT 1",
            (author_id, *but, reader_id),
        ).fetchone()
        return ("", "") if row is None else (row[0], row[1])

    def recipients(self, message_id: str) -> list[wire_types.Recipient]:
        """To whom it went and how far it came with each, by id."""
        return self._recipients_of([message_id]).get(message_id, [])

    def is_recipient(self, message_id: str, agent_id: str) -> wire_types.Recipient | None:
        """How far the message came with one agent; None if it was not addressed to it."""
        row = self._db.execute(
            f"SELECT {_RECIPIENT} WHERE r.message_id = ? AND r.agent_id = ?", (message_id, agent_id)
        ).fetchone()
        return None if row is None else self._recipient(row)

    def pairs(self, message_id: str) -> Pairs:
        """Scopes, refs and audiences, each in the sender's order."""
        return self._pairs_of([message_id]).get(message_id, ((), (), ()))

    def detail(self, message_id: str) -> wire_types.Detail | None:
        """One message in full, a deleted one too."""
        row = self.message(message_id)
        if row is None:
            return None
        scopes, refs, audiences = self.pairs(message_id)
        return wire_types.Detail(
            message_id=message_id,
            seq=row.seq,
            version=row.edit_count,
            quiet=row.quiet,
            urgent=row.urgent,
            expires_at=row.expires_at,
            supersedes=row.supersedes,
            superseded_by=row.superseded_by,
            thread_id=row.thread_id,
            reply_to=row.reply_to,
            author=wire_types.Author(row.agent_id, row.session_id),
            body=Body(row.body_format, row.body_content, row.body_structured),
            scopes=scopes,
            refs=refs,
            metadata=wire_types.Metadata(row.deleted_at, row.delete_reason),
            created_at=row.created_at,
            updated_at=row.updated_at,
            deleted=row.deleted,
            audiences=audiences,
            recipients=tuple(self.recipients(message_id)),
            origin_daemon=self._foreign(row.origin_daemon),
            is_namesake=row.message_id in self._namesakes([row]),
        )

    def message_head(self, message_id: str) -> MessageHead | None:
        """What the topics and hints of a fact about a message need to know of it."""
        row = self.message(message_id)
        if row is None:
            return None
        recipients = self._db.execute(
            "SELECT agent_id FROM message_recipients WHERE message_id = ? ORDER BY agent_id", (message_id,)
        )
        return MessageHead(
            message_id=message_id,
            agent_id=row.agent_id,
            thread_id=row.thread_id,
            recipients=tuple(to[0] for to in recipients),
            audiences=self.pairs(message_id)[2],
            quiet=row.quiet,
            content=row.body_content,
            deleted=row.deleted,
        )

    def thread_of(self, message_id: str) -> str:
        """The effective thread of a message: its own, or for a root that of its replies; `""` without one."""
        row = self._db.execute("SELECT thread_id FROM messages WHERE message_id = ?", (message_id,)).fetchone()
        return row[0] if row else ""

    # -- loading

    def _load(self, ids: Sequence[str], reader: str) -> list[wire_types.Message]:
        pairs = self._pairs_of(ids)
        read = self._read_by(ids, reader)
        messages: list[wire_types.Message] = []
        rows = self._rows(ids)
        namesakes = self._namesakes(rows)
        for row in rows:
            scopes, refs, audiences = pairs.get(row.message_id, ((), (), ()))
            messages.append(
                wire_types.Message(
                    message_id=row.message_id,
                    seq=row.seq,
                    thread_id=row.thread_id,
                    reply_to=row.reply_to,
                    agent_id=row.agent_id,
                    body=Body(row.body_format, row.body_content, row.body_structured),
                    created_at=row.created_at,
                    updated_at=row.updated_at,
                    deleted=row.deleted,
                    is_read=row.message_id in read
                    or (reader != "" and row.agent_id == reader and row.message_id not in namesakes),
                    quiet=row.quiet,
                    urgent=row.urgent,
                    expires_at=row.expires_at,
                    supersedes=row.supersedes,
                    superseded_by=row.superseded_by,
                    scopes=scopes,
                    refs=refs,
                    audiences=audiences,
                    origin_daemon=self._foreign(row.origin_daemon),
                    is_namesake=row.message_id in namesakes,
                )
            )
        return messages

    def _namesakes(self, rows: Iterable[MessageRow]) -> set[str]:
        """Those of these messages that another daemon wrote than the one that holds the author's name. Before there
        were signatures it could not be known.
        """
        foreign = [row for row in rows if self._foreign(row.origin_daemon)]
        if not foreign:
            return set()
        home = load_origins(self._db, self._own).home
        marks = ", ".join("?" * len(foreign))
        found = self._db.execute(
            "SELECT message_id, m.origin_daemon, a.origin_daemon FROM messages AS m JOIN agents AS a USING (agent_id)"
            f" WHERE message_id IN ({marks}) AND a.live = 1 AND m.trust <> {BEFORE}",
            [row.message_id for row in foreign],
        )
        return {message_id for message_id, origin, holder in found if home(origin) != home(holder)}

    def _check_size(self, ids: Sequence[str]) -> None:
        """Raises AnswerTooLarge before bodies are loaded that no answer could hold: a page may be 1,000 × 1 MiB."""
        limit = limits.answer_line_bytes_max
        size = 0
        for some in chunks(ids):
            rows = self._db.execute(
                "SELECT length(CAST(body_content AS BLOB)) + length(CAST(body_structured AS BLOB)) FROM messages"
                f" WHERE {among(some)}",
                some,
            )
            for (length,) in rows:
                size += length
                if size > limit:
                    raise AnswerTooLarge(f"the bodies of the page have more than {limit} bytes", limit=limit)

    def _rows(self, ids: Sequence[str]) -> list[MessageRow]:
        rows: dict[str, MessageRow] = {}
        for some in chunks(ids):
            for row in self._db.execute(f"SELECT {_MESSAGE} FROM messages WHERE {among(some)}", some):
                rows[row[0]] = _message_row(row)
        return [rows[id] for id in ids if id in rows]

    def _read_by(self, ids: Sequence[str], reader: str) -> set[str]:
        read: set[str] = set()
        for some in chunks(ids) if reader else ():
            rows = self._db.execute(
                "SELECT message_id FROM message_recipients"
                f" WHERE {among(some)} AND agent_id = ? AND read_at IS NOT NULL",
                (*some, reader),
            )
            read.update(row[0] for row in rows)
        return read

    def _pairs_of(self, ids: Sequence[str]) -> dict[str, Pairs]:
        found: dict[str, tuple[list[Pair], list[Pair], list[Pair]]] = {}
        for some in chunks(ids):
            for index, table in enumerate(_PAIR_TABLES):
                for message_id, type_, value in self._db.execute(
                    f"SELECT message_id, type, value FROM {table} WHERE {among(some)} ORDER BY message_id, position",
                    some,
                ):
                    found.setdefault(message_id, ([], [], []))[index].append(Pair(type_, value))
        return {id: (tuple(scopes), tuple(refs), tuple(audiences)) for id, (scopes, refs, audiences) in found.items()}

    def _recipients_of(self, ids: Sequence[str]) -> dict[str, list[wire_types.Recipient]]:
        found: dict[str, list[wire_types.Recipient]] = {}
        for some in chunks(ids):
            offered: dict[tuple[str, str], str] = {
                (row[0], row[1]): row[2] for row in self._db.execute(_OFFERED.format(among=among(some)), some)
            }
            for row in self._db.execute(
                f"SELECT {_RECIPIENT} WHERE r.{among(some)} ORDER BY r.message_id, r.agent_id", some
            ):
                found.setdefault(row[0], []).append(self._recipient(row, offered.get((row[0], row[1]), "")))
        return found

    def _recipient(self, row: Sequence[Any], offered_at: str = "") -> wire_types.Recipient:
        """A recipient registered at this daemon has a message as soon as it is stored (events.md §8)."""
        _, agent_id, stored_at, delivered_at, seen_at, read_at, replied_at, origin = row
        here = origin is not None and origin in self._own
        delivered = stored_at if here else delivered_at
        return wire_types.Recipient(
            agent_id,
            stored_at,
            delivered_at=delivered or "",
            offered_at=offered_at,
            seen_at=seen_at or "",
            read_at=read_at or "",
            replied_at=replied_at or "",
        )

    def _foreign(self, origin_daemon: str) -> str:
        """The daemon that a message came from, when it is another one."""
        return "" if origin_daemon in self._own else origin_daemon


def among(ids: Sequence[str]) -> str:
    return f"message_id IN ({', '.join('?' * len(ids))})"


def chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE))


def _message_row(row: Sequence[Any]) -> MessageRow:
    values = list(row)
    for index in (12, 13, 17, 22):
        values[index] = bool(values[index])
    return MessageRow(*values)


def conditions(terms: Iterable[str]) -> str:
    joined = " AND ".join(terms)
    return f" WHERE {joined}" if joined else ""
