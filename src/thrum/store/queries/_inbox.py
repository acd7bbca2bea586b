"""Queries about messages: inbox, outbox, what waits for whom, one message in full.

An inbox is exactly the rows of `message_recipients` that are not hidden (events.md §8). Pages are found on the narrow
indexes first; the wide rows of `messages` are read for what is shown only. Source: rpc.md §5, §7.
"""

from __future__ import annotations

from collections.abc import Collection

from thrum.model import limits, wire_types
from thrum.model.events import Body, Pair
from thrum.store.queries import fts
from thrum.store.queries._message_rows import Filter, Pairs, among, chunks, conditions
from thrum.store.queries._wake_views import WakeViews
from thrum.store.queries.rows import InboxPage, InboxQuery, Mail, MessageRow


class MessageViews(WakeViews):
    """The part of `View` that finds messages."""

    # -- inbox

    def inbox(self, q: InboxQuery) -> InboxPage:
        """`message.list`: a page, or with `after_seq` what follows a cursor."""
        if not q.search or self._db.in_transaction:
            return self._inbox(q)
        self._db.execute("BEGIN")  # what is in the index and what is not must be of one commit
        try:
            return self._inbox(q)
        finally:
            self._db.execute("COMMIT")

    def _inbox(self, q: InboxQuery) -> InboxPage:
        filter = self._inbox_filter(q)
        owner = q.for_agent or q.unread_for_agent or (q.reader if q.unread else "")
        ownerless = q.unread and not owner
        unread_only = q.unread or bool(q.unread_for_agent and q.unread_for_agent == owner)
        source = _source(owner, unread_only, q.include_deleted)
        unread = self._count_unread(q, filter)
        hidden = self._unread_of(q.reader) - unread if q.reader else 0
        if q.after_seq is not None:
            messages, next_seq, more = (
                ([], q.after_seq, False) if ownerless else self._follow(q, owner, unread_only, filter)
            )
            return InboxPage(messages, 0, unread, hidden, more, next_seq)
        total = 0 if ownerless else self._count(source, owner, filter, q.include_deleted)
        if total == 0:
            return InboxPage([], 0, unread, hidden)
        ids = self._page(q, source, owner, filter)
        self._check_size(ids)
        return InboxPage(self._load(ids, q.reader), total, unread, hidden)

    def _inbox_filter(self, q: InboxQuery) -> Filter:
        filter = Filter()
        filter.narrow(q.scope, q.author_id)
        if q.mention_role:
            filter.pair("message_refs", Pair("mention", q.mention_role))
        if q.for_agent and q.unread_for_agent and q.unread_for_agent != q.for_agent:
            filter.unread_by(q.unread_for_agent)
        if q.mentions:
            self._mentions(filter, q.for_agent or q.reader)
        if q.exclude_self and (q.reader or q.for_agent):
            filter.add("m.agent_id <> ?", q.reader or q.for_agent)
        if q.ref is not None:
            filter.pair("message_refs", q.ref)
        if q.created_after:
            filter.add("m.created_at > ?", q.created_after)
        if q.search:
            filter.add(fts.MATCHES, *fts.matching(self._db, q.search))
        if q.thread_id:
            thread = self.thread_of(q.thread_id)
            if thread or self.message(q.thread_id) is None:
                filter.add("m.thread_id = ? AND m.thread_id <> ''", thread or q.thread_id)
            else:
                filter.add("m.message_id = ?", q.thread_id)
        return filter

    def _mentions(self, filter: Filter, agent_id: str) -> None:
        """Addressed by name or by its role; a broadcast does not count."""
        row = self._db.execute("SELECT role FROM agents WHERE agent_id = ?", (agent_id,)).fetchone()
        role = row[0] if row else ""
        filter.add(
            "(EXISTS (SELECT 1 FROM message_audiences AS p WHERE p.message_id = m.message_id AND"
            " ((p.type IN ('agent', 'user', 'peer') AND p.value = ?) OR (p.type = 'role' AND p.value = ?)))"
            " OR EXISTS (SELECT 1 FROM message_refs AS p WHERE p.message_id = m.message_id AND p.type = 'mention'"
            " AND p.value IN (?, ?)))",
            agent_id,
            role,
            agent_id,
            role or agent_id,
        )

    def _count(self, source: str, owner: str, filter: Filter, include_deleted: bool) -> int:
        if not owner and not filter.terms:
            # Over all messages: two narrow indexes instead of every row.
            everything = self._db.execute("SELECT count(*) FROM messages").fetchone()[0]
            deleted = self._db.execute("SELECT count(*) FROM messages WHERE deleted = 1").fetchone()[0]
            return everything if include_deleted else everything - deleted
        join = f"{source} CROSS JOIN messages AS m USING (message_id)" if owner and filter.terms else source
        where = conditions(filter.terms)
        values = ([owner] if owner else []) + filter.values
        return self._db.execute(f"SELECT count(*) FROM {join}{where}", values).fetchone()[0]

    def _count_unread(self, q: InboxQuery, filter: Filter) -> int:
        """The reader's unread messages among those that match."""
        if not q.reader:
            return 0
        joined = Filter()
        joined.terms, joined.values = list(filter.terms), list(filter.values)
        others = {q.for_agent, q.unread_for_agent} - {"", q.reader}
        for other in sorted(others):
            joined.add(
                "EXISTS (SELECT 1 FROM message_recipients AS o WHERE o.message_id = m.message_id AND o.agent_id = ?"
                " AND o.hidden = 0)",
                other,
            )
        return self._count(_source(q.reader, True, False), q.reader, joined, False)

    def _unread_of(self, agent_id: str) -> int:
        return self._db.execute(
            "SELECT count(*) FROM message_recipients WHERE agent_id = ? AND hidden = 0 AND read_at IS NULL", (agent_id,)
        ).fetchone()[0]

    def _page(self, q: InboxQuery, source: str, owner: str, filter: Filter) -> list[str]:
        """The ids of a page, in its order."""
        way = "ASC" if q.sort_order == "asc" or q.chronological else "DESC"
        by_creation = f"x.stored_at {way}, x.message_id {way}" if owner else f"m.created_at {way}, m.message_id {way}"
        needs_rows = bool(filter.terms) or q.chronological or q.sort_by == "updated_at"
        if q.chronological:
            # A thread is sorted by its first message.
            key = (
                "CASE WHEN m.thread_id = '' THEN m.created_at || m.message_id ELSE (SELECT min(t.created_at ||"
                " t.message_id) FROM messages AS t WHERE t.thread_id = m.thread_id AND t.thread_id <> '') END"
            )
            order = f"{key}, m.created_at, m.message_id"
        elif q.sort_by == "updated_at":
            order = f"CASE m.updated_at WHEN '' THEN m.created_at ELSE m.updated_at END {way}, m.message_id {way}"
        else:
            order = by_creation
        join = f"{source} CROSS JOIN messages AS m USING (message_id)" if owner and needs_rows else source
        column = "x.message_id" if owner else "m.message_id"
        values = ([owner] if owner else []) + filter.values
        rows = self._db.execute(
            f"SELECT {column} FROM {join}{conditions(filter.terms)} ORDER BY {order} LIMIT ? OFFSET ?",
            (*values, q.page_size, (q.page - 1) * q.page_size),
        )
        return [row[0] for row in rows.fetchall()]

    def _follow(
        self, q: InboxQuery, owner: str, unread_only: bool, filter: Filter
    ) -> tuple[list[wire_types.Message], int, bool]:
        """What matches above a number, ascending; how far it was looked; whether there is more."""
        head = self._db.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0]
        followed = Filter()
        followed.terms, followed.values = list(filter.terms), list(filter.values)
        followed.add("m.seq > ?", q.after_seq)
        if owner:
            shown = "u.hidden < 2" if q.include_deleted else "u.hidden = 0"
            unread = " AND u.read_at IS NULL" if unread_only else ""
            followed.add(
                "EXISTS (SELECT 1 FROM message_recipients AS u WHERE u.message_id = m.message_id AND u.agent_id = ?"
                f" AND {shown}{unread})",
                owner,
            )
        if not q.include_deleted:
            followed.add("m.deleted = 0")
        rows = self._db.execute(
            "SELECT m.message_id, m.seq, length(CAST(m.body_content AS BLOB)) + length(CAST(m.body_structured AS BLOB))"
            f" FROM messages AS m{conditions(followed.terms)} ORDER BY m.seq LIMIT ?",
            (*followed.values, q.limit + 1),
        ).fetchall()
        kept: list[str] = []
        size = 0
        next_seq = q.after_seq or 0
        for message_id, seq, length in rows[: q.limit]:
            size += length
            if kept and size > limits.answer_bodies_bytes_max:
                break
            kept.append(message_id)
            next_seq = seq
        more = len(kept) < len(rows)
        return self._load(kept, q.reader), next_seq if more else max(head, next_seq), more

    # -- outbox

    def outbox(
        self, author_id: str, to: str = "", unread: bool = False, page: int = 1, page_size: int = 10
    ) -> tuple[list[wire_types.OutMessage], int]:
        """What an author sent, newest first, and how many. `to`: an agent id among the recipients, or an audience's
        value. `unread`: only messages with recipients that have not read them and still can.
        """
        filter = Filter()
        filter.add("m.agent_id = ?", author_id)
        filter.add("m.deleted = 0")
        if to:
            filter.add(
                "(EXISTS (SELECT 1 FROM message_recipients AS r WHERE r.message_id = m.message_id AND r.agent_id = ?)"
                " OR EXISTS (SELECT 1 FROM message_audiences AS p WHERE p.message_id = m.message_id AND p.value = ?))",
                to,
                to,
            )
        if unread:
            filter.add(
                "EXISTS (SELECT 1 FROM message_recipients AS r WHERE r.message_id = m.message_id AND r.read_at IS NULL"
                " AND r.hidden = 0)"
            )
        where = conditions(filter.terms)
        total = self._db.execute(f"SELECT count(*) FROM messages AS m{where}", filter.values).fetchone()[0]
        rows = self._db.execute(
            f"SELECT m.message_id FROM messages AS m{where} ORDER BY m.created_at DESC, m.message_id DESC"
            " LIMIT ? OFFSET ?",
            (*filter.values, page_size, (page - 1) * page_size),
        )
        ids = [row[0] for row in rows.fetchall()]
        self._check_size(ids)
        recipients, pairs = self._recipients_of(ids), self._pairs_of(ids)
        return [
            self._out_message(row, recipients.get(row.message_id, []), pairs.get(row.message_id, ((), (), ())))
            for row in self._rows(ids)
        ], total

    def _out_message(
        self, row: MessageRow, recipients: list[wire_types.Recipient], pairs: Pairs
    ) -> wire_types.OutMessage:
        return wire_types.OutMessage(
            message_id=row.message_id,
            seq=row.seq,
            thread_id=row.thread_id,
            reply_to=row.reply_to,
            agent_id=row.agent_id,
            body=Body(row.body_format, row.body_content, row.body_structured),
            created_at=row.created_at,
            updated_at=row.updated_at,
            deleted=row.deleted,
            quiet=row.quiet,
            urgent=row.urgent,
            expires_at=row.expires_at,
            supersedes=row.supersedes,
            superseded_by=row.superseded_by,
            scopes=pairs[0],
            refs=pairs[1],
            audiences=pairs[2],
            recipients=tuple(recipients),
            read_count=sum(1 for recipient in recipients if recipient.read_at),
            origin_daemon=self._foreign(row.origin_daemon),
        )

    # -- marking

    def markable(self, agent_id: str, message_ids: Collection[str] | None, state: str, before: str = "") -> list[str]:
        """Ids of what is addressed to the agent and not yet `read` (or `seen`), oldest first; of these, or all (None).
        `before` leaves out what is newer than it.
        """
        filter = Filter()
        filter.add("agent_id = ? AND hidden = 0 AND read_at IS NULL", agent_id)
        if state == "seen":
            filter.add("seen_at IS NULL")
        if before:
            filter.add("stored_at <= ?", before)
        if message_ids is None:
            rows = self._db.execute(
                f"SELECT message_id FROM message_recipients{conditions(filter.terms)} ORDER BY stored_at, message_id",
                filter.values,
            )
            return [row[0] for row in rows.fetchall()]
        found: list[tuple[str, str]] = []
        for some in chunks(list(dict.fromkeys(message_ids))):
            found += self._db.execute(
                f"SELECT stored_at, message_id FROM message_recipients{conditions([*filter.terms, among(some)])}",
                (*filter.values, *some),
            ).fetchall()
        return [row[1] for row in sorted(found)]

    def mail(self, agent_id: str, *, read_max: int) -> Mail:
        """What is in an inbox, oldest first; of what was read the newest `read_max`."""
        rows = self._db.execute(
            "SELECT message_id, CASE WHEN seen_at IS NULL THEN 'stored' ELSE 'seen' END FROM message_recipients"
            " WHERE agent_id = ? AND hidden = 0 AND read_at IS NULL ORDER BY stored_at, message_id",
            (agent_id,),
        ).fetchall()
        read = self._db.execute(
            "SELECT message_id FROM message_recipients WHERE agent_id = ? AND hidden = 0 AND read_at IS NOT NULL"
            " ORDER BY stored_at DESC, message_id DESC LIMIT ?",
            (agent_id, read_max),
        ).fetchall()
        return Mail(
            stored=[message_id for message_id, state in rows if state == "stored"],
            seen=[message_id for message_id, state in rows if state == "seen"],
            read=[row[0] for row in reversed(read)],
        )

    # -- counts

    def inbox_counts(self) -> dict[str, tuple[int, int]]:
        """Total and unread of every inbox."""
        unread = dict[str, int](
            self._db.execute(
                "SELECT agent_id, count(*) FROM message_recipients"
                " WHERE hidden = 0 AND read_at IS NULL GROUP BY agent_id"
            ).fetchall()
        )
        totals = self._db.execute(
            "SELECT agent_id, count(*) FROM message_recipients WHERE hidden = 0 GROUP BY agent_id"
        )
        return {agent_id: (total, unread.get(agent_id, 0)) for agent_id, total in totals.fetchall()}

    def inbox_count(self, agent_id: str) -> tuple[int, int]:
        """Total and unread of one inbox."""
        total = self._db.execute(
            "SELECT count(*) FROM message_recipients WHERE agent_id = ? AND hidden = 0", (agent_id,)
        ).fetchone()[0]
        return total, self._unread_of(agent_id)

    def broadcast_total(self) -> int:
        """Messages to everyone."""
        # The second term is that of the partial index.
        shared = "FROM message_audiences AS p WHERE p.type = 'broadcast' AND p.type <> 'agent'"
        everything = self._db.execute(f"SELECT count(*) {shared}").fetchone()[0]
        deleted = self._db.execute(
            f"SELECT count(*) {shared} AND p.message_id IN (SELECT message_id FROM messages WHERE deleted = 1)"
        ).fetchone()[0]
        return everything - deleted

    def group_totals(self) -> list[tuple[str, int]]:
        """Messages to each group, by name."""
        return self._db.execute(
            "SELECT p.value, count(*) FROM message_audiences AS p WHERE p.type = 'group' AND p.type <> 'agent'"
            " AND p.message_id NOT IN (SELECT message_id FROM messages WHERE deleted = 1)"
            " GROUP BY p.value ORDER BY p.value"
        ).fetchall()


def _source(owner: str, unread: bool, include_deleted: bool) -> str:
    """Where the ids of a page come from: the owner's rows as `x` (one value: the owner), or all messages as `m`."""
    if not owner:
        return "messages AS m" if include_deleted else "(SELECT * FROM messages WHERE deleted = 0) AS m"
    unread_term = " AND read_at IS NULL" if unread else ""
    shown = f"SELECT message_id, stored_at FROM message_recipients WHERE agent_id = ?1 AND hidden = 0{unread_term}"
    if not include_deleted:
        return f"({shown}) AS x"
    gone = shown.replace("hidden = 0", "hidden <> 0 AND hidden < 2")
    return f"({shown} UNION ALL {gone}) AS x"
