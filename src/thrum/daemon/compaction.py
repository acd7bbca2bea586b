"""When journals are rewritten without the lines that may go (events.md §11 "Compaction").

After a purge, and after a cleanup that removed messages: everything tombstoned, so that it is really gone.
Otherwise when much was written and no write is under way, and only where it pays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from thrum.model import clock, limits
from thrum.model.errors import ThrumError
from thrum.model.events import AgentCleaned, AnyFact, PurgeExecuted, UnknownEvent
from thrum.store.committer import Committed, Committer
from thrum.store.compaction import Draft, Drafter, Weight
from thrum.store.journal import JournalFiles
from thrum.store.projection.core import deferral_limit

log: Final = logging.getLogger("thrum.store")

SOON_SECONDS: Final = 0.5
"""How long after a purge: several in a row are one."""
QUIET_SECONDS: Final = 10.0
"""The store is idle when nothing was committed for this long."""
PATIENCE_SECONDS: Final = 600.0
"""How long that is waited for."""
FACTS_MIN: Final = 5_000
"""How much is written before it is looked at whether compaction pays."""
_BYTES_MIN: Final = 64 * limits.KIB
_SHARE_MIN: Final = 0.25
"""A journal is rewritten when this much of it goes."""


@dataclass(slots=True)
class Compactor:
    """`one`: held while all journals are read, by the reader."""

    committer: Committer
    journals: JournalFiles
    database: Path
    own: frozenset[str]
    wall: clock.Clock
    one: trio.Lock
    turned: trio.Event = field(default_factory=trio.Event)
    """Set when the next look of `serve` is over."""
    _facts: int = 0
    _swept: bool = False
    _changed_at: float = 0.0
    _due: trio.Event = field(default_factory=trio.Event)

    def note(self, committed: Sequence[Committed]) -> None:
        """Facts are on disk."""
        self._facts += len(committed)
        self._changed_at = trio.current_time()
        if any(entry.state == "applied" and _sweeps(entry.fact) for entry in committed):
            self.ask()
        elif self._facts >= FACTS_MIN:
            self._due.set()

    def ask(self) -> None:
        """Compact soon, whatever it takes."""
        self._swept = True
        self._due.set()

    async def serve(self) -> None:
        """Compact whenever it is due, until cancelled."""
        while True:
            await self._due.wait()
            if self._swept:
                await trio.sleep(SOON_SECONDS)
            else:
                await self._wait_quiet()
            swept, self._swept, self._facts, self._due = self._swept, False, 0, trio.Event()
            try:
                await self.compact(whatever_is_tombstoned=swept)
            except ThrumError as error:
                log.warning("the journals were not compacted: %s", error.message)
            turned, self.turned = self.turned, trio.Event()
            turned.set()

    async def compact(self, *, whatever_is_tombstoned: bool) -> int:
        """Compact now; how many bytes went. Raises StoreFailed, Busy, ShuttingDown."""
        total = 0
        while True:
            async with self.one:
                drafts = await trio.to_thread.run_sync(self._draft, whatever_is_tombstoned, abandon_on_cancel=True)
                size = await self.committer.compact(drafts) if drafts else 0
            if size:
                log.info("compacted %d journals: %d bytes less", len(drafts), size)
            total += size
            if not size or not whatever_is_tombstoned:
                return total  # else once more: what has copies goes when they are gone

    async def _wait_quiet(self) -> None:
        last = trio.current_time() + PATIENCE_SECONDS
        while not self._swept:
            quiet_at = min(self._changed_at + QUIET_SECONDS, last)
            if quiet_at <= trio.current_time():
                return
            await trio.sleep_until(quiet_at)

    def _draft(self, whatever_is_tombstoned: bool) -> list[Draft]:
        """In a thread."""
        now_ms = self.wall.now_ms()
        ahead, old = deferral_limit(now_ms), clock.format_ms(now_ms - limits.wake_attempt_kept_ms)
        with Drafter(self.database, self.journals, self.own, ahead, old) as drafter:
            drafts: list[Draft | None] = []
            for file, weight in drafter.weights().items():
                if whatever_is_tombstoned and weight.tombstoned:
                    drafts.append(drafter.draft(file))
                elif _may_pay(weight):
                    drafts.append(drafter.draft(file, _SHARE_MIN))
            return [draft for draft in drafts if draft is not None]


def _sweeps(fact: AnyFact | UnknownEvent) -> bool:
    return isinstance(fact, PurgeExecuted) or (isinstance(fact, AgentCleaned) and fact.messages)


def _may_pay(weight: Weight) -> bool:
    loose = weight.tombstoned + weight.replaceable
    return loose >= _BYTES_MIN and loose >= _SHARE_MIN * weight.total
