"""An agent whose runtime asks its person for permission is `blocked` for as long as that dialog is open (wake.md §6).

A hook opens it. Its end fires none (Escape), so an agent that is blocked by a dialog is looked at each second; what
thrum did not set, it does not change. `thrum team` shows it, and what the dialog asks; those whom the setting
`permission_supervisors` names, and people, get one message for each dialog, in the step that records it. No one but a
person may answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from thrum.daemon.notices import BY, notice
from thrum.daemon.runtime_states import RuntimeStates
from thrum.model import settings
from thrum.model.config import Config
from thrum.model.events import AgentStatusSet, AnyFact
from thrum.ops.context import Context
from thrum.ops.identity_file import note_in_file
from thrum.runtimes.hooks import HookEvent
from thrum.store.api import Decision, Stamp
from thrum.store.queries.views import AgentRow, View

_BLOCKED: Final = "blocked"
_LOOKS: Final = 2
"""Looks in a row that must find no dialog: a program's registry may be a little behind its hook."""


def is_by_dialog(row: AgentRow) -> bool:
    """Whether the agent is blocked by a dialog, as its record says."""
    return (row.status, row.status_by) == (_BLOCKED, BY)


@dataclass(slots=True)
class _Blocked:
    """Of one agent: its status before, and how often in a row no dialog was found."""

    status: str = "idle"
    by: str = ""
    event: str = ""
    """The hook that told of it; another one says the same again, in other words. Empty after a restart."""
    asks: str = ""
    looks: int = 0


@dataclass(slots=True)
class Dialogs:
    """The dialogs that are open in the runtimes of this daemon's agents, as far as hooks told of them."""

    ctx: Context
    states: RuntimeStates
    config: Callable[[], Config]
    _blocked: dict[str, _Blocked] = field(default_factory=dict[str, _Blocked])

    def remember(self, agent_ids: Iterable[str]) -> None:
        """After a start: those that were blocked when the last daemon ended."""
        for agent_id in agent_ids:
            row = self.ctx.view.agent(agent_id)
            if row is not None and is_by_dialog(row):
                self._blocked[agent_id] = _Blocked(by=agent_id, asks=row.status_asks)

    def renamed(self, old: str, new: str) -> None:
        """An agent goes on under another name, and its dialog with it."""
        before = self._blocked.pop(old, None)
        if before is not None:
            self._blocked[new] = replace(before, by=new if before.by == old else before.by)

    @property
    def open_in(self) -> tuple[str, ...]:
        """The agents that are blocked."""
        return tuple(self._blocked)

    def asks(self, row: AgentRow) -> str:
        """What the dialog is about that blocks the agent; empty: none does, or its program did not say."""
        return row.status_asks if is_by_dialog(row) else ""

    async def opened(self, agent_id: str, event: HookEvent) -> None:
        """A hook told of a dialog. Raises ThrumError: that is not on disk."""
        blocked = self._blocked.get(agent_id)
        if blocked is not None:
            blocked.looks = 0
            if event.event == blocked.event and event.asks not in ("", blocked.asks):
                blocked.asks = event.asks  # the next dialog, before the end of the one before was seen
                await self._set(agent_id, _BLOCKED, BY, event.asks, replaces_own=True)
            return
        row = self.ctx.view.agent(agent_id)
        if row is None or not row.live:
            return
        self._blocked[agent_id] = _Blocked(row.status or "idle", row.status_by or agent_id, event.event, event.asks)
        await self._set(agent_id, _BLOCKED, BY, event.asks, replaces_own=False)

    async def event(self, agent_id: str) -> None:
        """Another hook fired: with it the dialog is over, unless the runtime itself says otherwise."""
        if agent_id in self._blocked and not self._is_open(agent_id):
            await self._ended(agent_id)

    async def look(self) -> None:
        """Look at all that are blocked."""
        for agent_id, blocked in tuple(self._blocked.items()):
            blocked.looks = 0 if self._is_open(agent_id) else blocked.looks + 1
            if blocked.looks >= _LOOKS:
                await self._ended(agent_id)

    def _is_open(self, agent_id: str) -> bool:
        return self.states.of(agent_id, self.ctx.view.agent(agent_id)).state == "dialog"

    async def _ended(self, agent_id: str) -> None:
        before = self._blocked.get(agent_id)
        if before is not None:
            await self._set(agent_id, before.status, before.by, "", replaces_own=True)
            self._blocked.pop(agent_id, None)

    async def _set(self, agent_id: str, status: str, by: str, asks: str, *, replaces_own: bool) -> None:
        """Record a status. With `replaces_own` only in the place of one that a dialog set, else only of another one."""

        def decide(view: View, stamp: Stamp) -> Decision[str]:
            row = view.agent(agent_id)
            if row is None or not row.live or is_by_dialog(row) != replaces_own:
                return Decision([], lambda _view, _seqs: "")
            moment = stamp.later_than(row.status_at)
            facts: list[AnyFact] = [
                stamp.make(AgentStatusSet, at=moment, agent_id=agent_id, status=status, by=by, asks=asks)
            ]
            if by == BY:
                facts += self._message(view, stamp, row, asks)
            return Decision(facts, lambda _view, _seqs: moment)

        moment = await self.ctx.journal.commit(decide)
        if moment:
            await note_in_file(self.ctx, agent_id, agent_status=status, agent_status_updated_at=moment)

    def _message(self, view: View, stamp: Stamp, row: AgentRow, asks: str) -> Iterable[AnyFact]:
        """What supervisors and people are told of a dialog; nothing where there is no one to tell."""
        named = {each.removeprefix("@") for each in self.config()[settings.PERMISSION_SUPERVISORS]}
        told = [
            each.agent_id
            for each in view.agents()
            if each.live and each.is_own and each.agent_id != row.agent_id and _is_told(each, named)
        ]
        if told:
            yield notice(view, stamp, told, said_of(row, asks))


def _is_told(row: AgentRow, named: Collection[str]) -> bool:
    return row.kind == "user" or row.role in named or row.agent_id in named


def said_of(row: AgentRow, asks: str) -> str:
    """What a message says of a dialog that opened."""
    where = f"thrum tmux connect {row.tmux_session}" if row.tmux_session else "in its terminal"
    what = asks or "it did not say for what"
    return f"@{row.agent_id} asks its person for permission: {what}\nOnly a person may answer: {where}"
