"""What the wake loop asks: which messages of an agent are a reason to wake it, and what was tried (wake.md §4, §5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from thrum.model import limits
from thrum.store.queries._wait_scan import WAKES, ToldViews
from thrum.store.queries.rows import AttemptRow, UnseenRow

_ATTEMPT: Final = "SELECT attempt_id, agent_id, door, process, offered_at, outcome, detail, ended_at FROM wake_attempts"
_UNSEEN: Final = f"""
SELECT m.message_id, m.created_at, m.agent_id, m.urgent,
  EXISTS (SELECT 1 FROM messages AS p WHERE p.message_id = m.reply_to AND m.reply_to <> '' AND p.agent_id = ?1)
FROM message_recipients AS x CROSS JOIN messages AS m USING (message_id)
WHERE x.agent_id = ?1 AND x.hidden = 0 AND x.read_at IS NULL AND x.seen_at IS NULL
  AND m.agent_id <> ?1 AND {WAKES.replace("?", "?2")}
ORDER BY x.stored_at DESC, x.message_id DESC LIMIT ?3"""


class WakeViews(ToldViews):
    """The part of `View` that knows of waking."""

    def wakeable(self, agent_id: str, at: str, limit: int = limits.wake_unseen_max) -> list[UnseenRow]:
        """The agent's messages that are a reason to wake it at a time: neither seen nor read, and what `message.wait`
        would tell. Oldest first; of more than the limit the newest, so that a long inbox silences nothing.
        """
        rows = self._db.execute(_UNSEEN, (agent_id, at, limit)).fetchall()
        return [
            UnseenRow(id, created_at, by, bool(urgent), bool(own)) for id, created_at, by, urgent, own in rows[::-1]
        ]

    def attempt(self, attempt_id: str) -> AttemptRow | None:
        """One attempt by its whole token; None for what was never one, or is forgotten."""
        rows = self._db.execute(f"{_ATTEMPT} WHERE attempt_id = ?", (attempt_id,)).fetchall()
        return next(iter(self._attempts(rows)), None)

    def attempts(self, agent_id: str, limit: int = limits.wake_attempts_shown) -> list[AttemptRow]:
        """The agent's last attempts, the newest first."""
        rows = self._db.execute(
            f"{_ATTEMPT} WHERE agent_id = ?"
            " ORDER BY iif(offered_at = '', ended_at, offered_at) DESC, max(offered_event, ended_event) DESC LIMIT ?",
            (agent_id, limit),
        ).fetchall()
        return self._attempts(rows)

    def _attempts(self, rows: Sequence[Sequence[Any]]) -> list[AttemptRow]:
        return [AttemptRow(*row, message_ids=self._offered_in(row[0])) for row in rows]

    def _offered_in(self, attempt_id: str) -> tuple[str, ...]:
        rows = self._db.execute(
            "SELECT message_id FROM wake_messages WHERE attempt_id = ? ORDER BY position", (attempt_id,)
        )
        return tuple(row[0] for row in rows)
