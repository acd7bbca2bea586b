"""Where store and bus meet: what is said of a committed fact, live and later.

Live hints go to the bus publisher, replayed ones to `events.since`; both are made here from the same rows, so replay
and live agree. Source: rpc.md §5 `events.since`, §8.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from thrum.bus.publisher import Publisher
from thrum.bus.topics import About, hint_of, topics_of
from thrum.model import attempt_ids, events, limits
from thrum.model.errors import InvalidParams, StaleCursor, StoreFailed
from thrum.model.events import SPECS, AnyFact, GroupFact, MessageFact, UnknownEvent
from thrum.model.methods.daemon import EventsSince, EventsSinceParams
from thrum.model.wire_types import Hint
from thrum.store.journal import JournalFiles
from thrum.store.projection.core import UNANNOUNCED
from thrum.store.queries.rows import EventRow
from thrum.store.queries.views import View
from thrum.store.writer import Committed

_SLICE_SECONDS = 0.005
"""How long one look may take before other tasks get a turn."""


def about(view: View, fact: AnyFact | UnknownEvent) -> About | None:
    """The row that an edit, delete, receipt or group change is about; None if the fact says all itself."""
    if isinstance(fact, UnknownEvent) or SPECS[type(fact)].begins:
        return None
    if isinstance(fact, MessageFact):
        head = view.message_head(fact.message_id)
        if head is None:
            return None
        return About(head.agent_id, head.thread_id, head.recipients, head.audiences, head.quiet)
    if isinstance(fact, GroupFact):
        return About(group=view.group_name(fact.group_id))
    return None


class Pulse:
    """The heartbeat of the journal: those that wait for the next fact sleep here."""

    def __init__(self) -> None:
        self.next = trio.Event()
        """Set when the next facts are committed. To look first and then wait, take it before the look."""

    def notify(self) -> None:
        """Facts were committed."""
        self.next.set()
        self.next = trio.Event()


class EventFeed:
    """Announces facts, and reads announced ones again."""

    def __init__(self, view: View, journals: JournalFiles, publisher: Publisher) -> None:
        self._view = view
        self._journals = journals
        self._publisher = publisher
        self.pulse = Pulse()

    def announce(self, committed: Sequence[Committed]) -> None:
        """Say on the bus what was committed, in the order of `seq`; what changed nothing is never announced.

        Nor is what kept the number of another line of its id, which did not count (`Projection.apply`): a follower
        has passed that number.
        """
        for entry in committed:
            if entry.state not in UNANNOUNCED and entry.seq > self._publisher.head_seq:
                subject = about(self._view, entry.fact) if self._publisher.listened else None
                self._publisher.publish(entry.seq, entry.fact, subject, pending=entry.state == "pending")
        self.pulse.notify()

    async def since(self, params: EventsSinceParams) -> EventsSince:
        """The facts after a number, as hints; with `wait_ms` sleeps until one comes (rpc.md §5)."""
        self._check(params)
        committed = self.pulse.next
        answer = await self._look(params)
        if not answer.events and not answer.more and params.wait_ms:
            with trio.move_on_after(params.wait_ms / 1000):
                while not answer.events and not answer.more:
                    await committed.wait()
                    committed = self.pulse.next
                    answer = await self._look(msgspec.structs.replace(params, after_seq=answer.next_seq))
        return answer

    def _check(self, params: EventsSinceParams) -> None:
        epoch = self._view.epoch
        if params.epoch and params.epoch != epoch:
            raise StaleCursor("the database was rebuilt since that cursor", epoch=epoch)
        if params.after_seq > self._view.head_seq():
            raise StaleCursor("that number is ahead of this database", epoch=epoch)
        if params.after_seq < 0:
            raise InvalidParams("after_seq must be 0 or more", remedy="begin with 0", field="after_seq")
        if not 1 <= params.limit <= limits.since_limit_max:
            raise InvalidParams(f"limit must be 1 to {limits.since_limit_max}", remedy="ask for fewer", field="limit")
        if not 0 <= params.wait_ms <= limits.since_wait_max_ms:
            raise InvalidParams(
                f"wait_ms must be 0 to {limits.since_wait_max_ms}", remedy="wait again", field="wait_ms"
            )

    async def _look(self, params: EventsSinceParams) -> EventsSince:
        """One bounded look: at most `limit` hints, at most `since_scan_max` facts, at most 8 MiB of facts.

        Others on the loop get their turn meanwhile; what is committed then has higher numbers.
        """
        head_seq = self._view.head_seq()
        hints: list[Hint] = []
        after = params.after_seq
        scanned = size = 0
        pause_at = trio.current_time() + _SLICE_SECONDS
        while after < head_seq and len(hints) < params.limit and scanned < limits.since_scan_max:
            rows = self._view.events_after(after, min(limits.since_limit_max, limits.since_scan_max - scanned))
            if not rows:
                after = head_seq
                break
            for row in rows:
                scanned += 1
                if trio.current_time() >= pause_at:
                    await trio.lowlevel.checkpoint()
                    pause_at = trio.current_time() + _SLICE_SECONDS
                hint = self._hint(row, params)
                if hint is not None:
                    size += row.length
                    if hints and params.full and size > limits.answer_bodies_bytes_max:
                        return self._answer(hints, after, head_seq)
                    hints.append(hint)
                after = row.seq
                if len(hints) == params.limit:
                    break
        return self._answer(hints, after, head_seq)

    def _answer(self, hints: Sequence[Hint], after: int, head_seq: int) -> EventsSince:
        return EventsSince(
            epoch=self._view.epoch, events=tuple(hints), next_seq=after, head_seq=head_seq, more=after < head_seq
        )

    def _hint(self, row: EventRow, params: EventsSinceParams) -> Hint | None:
        """The hint of a row if it passes the filters; None too for what changed nothing or is no longer readable."""
        if row.state in UNANNOUNCED or (params.types and row.type not in params.types):
            return None
        if not params.local and row.file == events.LOCAL_FILE:
            return None
        found = self._read(row)
        if found is None:
            return None
        raw, fact = found
        subject = about(self._view, fact)
        topics = topics_of(fact, subject, pending=row.state == "pending")
        if params.topics and not any(topic.startswith(params.topics) for topic in topics):
            return None
        hint = hint_of(self._view.epoch, row.seq, fact, subject)
        hint.topics = topics
        if params.full:
            hint.fact = msgspec.Raw(attempt_ids.line_shown(raw, fact))
        return hint

    def _read(self, row: EventRow) -> tuple[bytes, AnyFact | UnknownEvent] | None:
        """The line and the fact of a row; None if the line went since the row was read (compaction).

        StoreFailed; with the cause `database_damaged` when another program changed the journal under the projection,
        which has to be rebuilt then.
        """
        try:
            return self._read_at(row)
        except StoreFailed:
            with self._journals.still:  # what is being exchanged is soon done
                now = self._view.event_at(row.seq)
            if now == row:
                raise
        return None if now is None else self._read_at(now)

    def _read_at(self, row: EventRow) -> tuple[bytes, AnyFact | UnknownEvent]:
        try:
            raw = self._journals.read_line(row.file, row.offset, row.length)
            fact = events.decode(raw)
        except FileNotFoundError as error:
            raise _foreign(row) from error
        except OSError as error:
            raise StoreFailed(f"could not read {row.file}: {error}", remedy="thrum daemon restart") from error
        except events.BadLine as error:
            raise _foreign(row) from error
        if fact.event_id != row.event_id:
            raise _foreign(row)
        return raw, fact


def _foreign(row: EventRow) -> StoreFailed:
    return StoreFailed(
        f"{row.file} was changed by another program; the database is rebuilt from it",
        remedy="repeat the command",
        cause="database_damaged",
    )
