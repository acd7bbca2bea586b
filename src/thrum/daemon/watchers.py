"""Who is alive: the daemon learns of the death of agents' processes, and ends the sessions that they left open.

Services of `daemon/app.py`. Source: identity.md §5 "Shown", §9.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import trio

from thrum.daemon.process_ends import ProcessEnds
from thrum.identity.processes import same_process
from thrum.identity.runtimes import runtime_of_process
from thrum.model import clock
from thrum.model.errors import ShuttingDown, ThrumError
from thrum.model.events import AgentExited, AnyFact, SessionEnded
from thrum.ops.context import Context
from thrum.ops.identity_file import note_in_file
from thrum.ops.liveness import owner_alive, seconds
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, SessionRow, View

log = logging.getLogger("thrum.daemon")

Changed = Callable[[], trio.Event]
"""An event that is set when whom to watch, or which sessions are open, changes after this call."""


# -- deaths


@dataclass(frozen=True, slots=True)
class _Owner:
    """One recorded process."""

    pid: int
    started: str
    recorded_at: float


class Owners:
    """Watches every process that a record of this machine names, and records its end."""

    def __init__(self, ctx: Context, changed: Changed, ends: ProcessEnds | None = None) -> None:
        self._ctx = ctx
        self._changed = changed
        self._watched: dict[_Owner, trio.CancelScope] = {}
        self._ends = ends or ProcessEnds()

    async def watch(self) -> None:
        """Forever. What ended while no daemon ran is found first."""
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._changed()
                self._follow(nursery)
                await changed.wait()

    def _follow(self, nursery: trio.Nursery) -> None:
        """Watch those that are recorded now, and no others."""
        wanted = set(self._recorded())
        for owner in self._watched.keys() - wanted:
            self._watched.pop(owner).cancel()
        for owner in wanted - self._watched.keys():
            scope = self._watched[owner] = trio.CancelScope()
            nursery.start_soon(self._watch_one, owner, scope)

    def _recorded(self) -> Iterator[_Owner]:
        for row in self._ctx.view.agents():
            # An end that is known already is not waited for again.
            if row.worktree_path and row.agent_pid > 1 and row.exited_at <= row.place_at:
                yield _Owner(row.agent_pid, row.agent_pid_started, seconds(row.place_at))

    async def _watch_one(self, owner: _Owner, scope: trio.CancelScope) -> None:
        with scope:
            await self._ends.wait(owner.pid, lambda: self._lives(owner))
        if not scope.cancelled_caught:
            log.info("an agent's process ended", extra={"fields": {"pid": owner.pid}})
            # Outside of the scope: once its end is recorded it is no longer to be watched.
            await persist(lambda: self._record_end(owner))

    def _lives(self, owner: _Owner) -> bool:
        table = self._ctx.processes
        try:
            seen = table.read(owner.pid)
        except OSError:
            return True  # a process that may not be looked at exists
        return same_process(
            owner.started,
            owner.recorded_at,
            seen,
            lambda: runtime_of_process(table.program(owner.pid), self._ctx.runtime_names()) is not None,
        )

    async def _record_end(self, owner: _Owner) -> None:
        """The fact `agent.exit` for each agent that was that process. The file's pid stays, and so does the session."""

        def decide(view: View, stamp: Stamp) -> Decision[list[str]]:
            gone = [
                row
                for row in view.agents()
                if (row.agent_pid, row.agent_pid_started) == (owner.pid, owner.started)
                and row.worktree_path
                and row.exited_at <= row.place_at
            ]
            facts: list[AnyFact] = [
                stamp.make(
                    AgentExited,
                    at=stamp.later_than(row.place_at),
                    agent_id=row.agent_id,
                    agent_pid=owner.pid,
                    agent_pid_started=owner.started,
                )
                for row in gone
            ]
            return Decision(facts, lambda _view, _seqs: [row.agent_id for row in gone])

        for agent_id in await self._ctx.journal.commit(decide):
            await note_in_file(self._ctx, agent_id, housekeeping=True, tmux_session="")


async def persist(write: Callable[[], Awaitable[object]]) -> None:
    """Repeat what the store refuses at the moment: a second later, then ever more slowly. A daemon that stops ends it;
    the next one finds the same."""
    pause = 1.0
    while True:
        try:
            await write()
            return
        except ShuttingDown:
            return
        except ThrumError as error:
            log.warning("not written, retrying in %g s: %s", pause, error)
        await trio.sleep(pause)
        pause = min(60.0, pause * 2)


# -- abandoned sessions

_LOOK_SECONDS_MAX: Final = 600.0
"""A wall clock that is set, or a machine that slept, is noticed after that long."""


@dataclass(frozen=True, slots=True)
class Ripe:
    """A session that will be ended, when, and how."""

    session: SessionRow
    at_ms: int
    reason: str


class StaleSessions:
    """Ends the sessions of crashed owners as `crash`, and those without an owner that were unseen for that long as
    `normal`."""

    def __init__(self, ctx: Context, changed: Changed, after_seconds: float) -> None:
        self._ctx = ctx
        self._changed = changed
        self._after_ms = int(after_seconds * 1000)

    async def watch(self) -> None:
        """Forever. The projection says when the next one is due; nothing is asked before."""
        while True:
            changed = self._changed()
            with trio.move_on_after(await self._end_ready()):
                await changed.wait()

    async def _end_ready(self) -> float:
        """End what is due; the seconds until something may be due again."""
        now_ms = self._ctx.clock.now_ms()
        ripe = list(self.ripe(self._ctx.view))
        for each in ripe:
            if each.at_ms <= now_ms:
                await persist(lambda each=each: self._end(each))
        later = [each.at_ms - now_ms for each in ripe if each.at_ms > now_ms]
        return min(_LOOK_SECONDS_MAX, max(0.001, min(later) / 1000)) if later else _LOOK_SECONDS_MAX

    def ripe(self, view: View) -> Iterator[Ripe]:
        """Every open session of this machine that ends by itself, and when."""
        for agent_id, session in view.open_sessions().items():
            row = view.agent(agent_id)
            if row is not None and (found := self._judge(row, session)) is not None:
                yield found

    def _judge(self, row: AgentRow, session: SessionRow) -> Ripe | None:
        if not row.live or not row.worktree_path or row.kind != "agent":
            return None
        if not row.agent_pid:
            seen = max(row.last_seen_at, session.seen_at, session.started_at)
            return Ripe(session, clock.parse_ms(seen) + self._after_ms, "normal")
        if row.exited_at <= row.place_at or owner_alive(row, self._ctx.processes, self._ctx.runtime_names()):
            return None
        # A shell may have continued under its name: that counts as alive.
        seen = max(row.exited_at, row.last_seen_at, session.started_at)
        return Ripe(session, clock.parse_ms(seen) + self._after_ms, "crash")

    async def _end(self, due: Ripe) -> None:
        session = due.session

        def decide(view: View, stamp: Stamp) -> Decision[bool]:
            known, row = view.session(session.session_id), view.agent(session.agent_id)
            still = self._judge(row, known) if known is not None and row is not None else None
            if known is None or known.ended_at or still is None or still.at_ms > stamp.ms:
                return Decision([], lambda _view, _seqs: False)
            fact = stamp.make(
                SessionEnded, session_id=session.session_id, agent_id=session.agent_id, reason=still.reason
            )
            return Decision([fact], lambda _view, _seqs: True)

        if await self._ctx.journal.commit(decide):
            log.info("session ended", extra={"fields": {"session_id": session.session_id, "reason": due.reason}})
            if self._ctx.view.open_session(session.agent_id) is None:
                await note_in_file(self._ctx, session.agent_id, housekeeping=True, session_id="")
