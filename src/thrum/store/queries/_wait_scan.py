"""Messages for a wait: searched in steps of bounded work, so that no other call waits for a long inbox (rpc.md §7).

Never delivered: own messages, quiet posts, deleted ones, those that were replaced or have expired.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

from thrum.model import limits, wire_types
from thrum.store.queries._message_rows import Filter, MessageRows, among, chunks
from thrum.store.queries.rows import Wanted

STEP_ROWS: Final = 1_000
"""Rows that one step looks at, whether they fit or not: about 2 ms."""

WAKES: Final = "m.quiet = 0 AND m.superseded_by = '' AND (m.expires_at = '' OR m.expires_at > ?)"
"""Whether a message `m` wakes at a time (one value), deleted ones aside."""

Found = tuple[int, str]
"""Number and id of a message."""


class ToldViews(MessageRows):
    """The part of `View` that `message.wait` asks."""

    def matching_steps(self, wanted: Wanted) -> Generator[list[Found]]:
        """Everything that fits, some at a time, in no particular order; between two steps facts may be committed.

        What is committed meanwhile may be among it or not, and what was found may have been marked since: ask
        `matching_among` about it.
        """
        if wanted.after_seq is not None:
            return self._by_number(wanted, wanted.after_seq)
        return self._by_inbox(wanted)

    def _by_inbox(self, wanted: Wanted) -> Generator[list[Found]]:
        unread = " AND x.read_at IS NULL" if wanted.unseen else ""
        new = "x.seen_at IS NULL" if wanted.unseen else "1"
        fits = _fits(wanted)
        # Of rows that the index alone rules out no message is looked at.
        statement = (
            f"SELECT x.stored_at, x.message_id, CASE WHEN {new} THEN (SELECT m.seq FROM messages AS m"
            f" WHERE m.message_id = x.message_id AND {' AND '.join(fits.terms)}) END"
            f" FROM message_recipients AS x WHERE x.agent_id = ? AND x.hidden = 0{unread}"
            " AND (x.stored_at, x.message_id) > (?, ?) ORDER BY x.stored_at, x.message_id LIMIT ?"
        )
        # Behind every id of that very moment: what came at it is not after it.
        at, last = wanted.created_after, "\U0010ffff" if wanted.created_after else ""
        while rows := self._db.execute(statement, (*fits.values, wanted.agent_id, at, last, STEP_ROWS)).fetchall():
            yield [(seq, message_id) for _, message_id, seq in rows if seq is not None]
            if len(rows) < STEP_ROWS:
                return
            at, last, _ = rows[-1]

    def _by_number(self, wanted: Wanted, after: int) -> Generator[list[Found]]:
        fits = _fits(wanted)
        statement = (
            "SELECT m.seq, m.message_id, EXISTS (SELECT 1 FROM message_recipients AS x WHERE x.message_id ="
            f" m.message_id AND x.agent_id = ? AND x.hidden = 0) AND {' AND '.join(fits.terms)}"
            " FROM messages AS m WHERE m.seq > ? ORDER BY m.seq LIMIT ?"
        )
        while rows := self._db.execute(statement, (wanted.agent_id, *fits.values, after, STEP_ROWS)).fetchall():
            yield [(seq, message_id) for seq, message_id, told in rows if told]
            if len(rows) < STEP_ROWS:
                return
            after = rows[-1][0]

    def matching_among(self, wanted: Wanted, ids: Sequence[str]) -> list[Found]:
        """Which of these messages fit now, by number."""
        fits = _fits(wanted)
        terms = ["x.agent_id = ?", "x.hidden = 0", *fits.terms]
        values: list[Any] = [wanted.agent_id, *fits.values]
        if wanted.unseen:
            terms.append("x.read_at IS NULL AND x.seen_at IS NULL")
        if wanted.created_after:
            terms.append("x.stored_at > ?")
            values.append(wanted.created_after)
        if wanted.after_seq is not None:
            terms.append("m.seq > ?")
            values.append(wanted.after_seq)
        found: list[Found] = []
        for some in chunks(ids):
            found += self._db.execute(
                "SELECT m.seq, m.message_id FROM message_recipients AS x CROSS JOIN messages AS m USING (message_id)"
                f" WHERE x.{among(some)} AND {' AND '.join(terms)}",
                (*some, *values),
            ).fetchall()
        return sorted(found)

    def messages_that_fit(self, agent_id: str, ids: Sequence[str]) -> list[wire_types.Message]:
        """These messages, in this order: the first ones whose bodies fit into one answer, at least one."""
        size = 0
        for number, message_id in enumerate(ids):
            size += self._db.execute(
                "SELECT length(CAST(body_content AS BLOB)) + length(CAST(body_structured AS BLOB)) FROM messages"
                " WHERE message_id = ?",
                (message_id,),
            ).fetchone()[0]
            if number and size > limits.answer_bodies_bytes_max:
                ids = ids[:number]
                break
        return self._load(ids, agent_id)


def _fits(wanted: Wanted) -> Filter:
    fits = Filter()
    fits.add(f"m.agent_id <> ? AND {WAKES}", wanted.agent_id, wanted.at)
    fits.narrow(wanted.scope, wanted.author_id)
    if wanted.addressed_to:
        fits.addressed_to(wanted.addressed_to)
    return fits
