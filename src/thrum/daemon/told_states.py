"""What operations answer, with what only the wake loop knows beside it: why a message is not seen yet, how an agent can
be woken, what a dialog asks (wake.md §2, §5, §6). Composition; it writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio
from msgspec.structs import replace

from thrum.daemon.wake_service import WakeService
from thrum.model import clock, limits
from thrum.model.methods.agents import LookupParams, LookupResult, TeamListParams, TeamListResult
from thrum.model.methods.messages import (
    MessageGetParams,
    MessageGetResult,
    OutboxParams,
    OutboxResult,
    SendParams,
    SendResult,
)
from thrum.model.methods.wake import AgentWake, DoorHealth, WakeStatusParams, WakeStatusResult
from thrum.model.wake_types import DoorState
from thrum.model.wire_types import Detail, OutMessage, Recipient, TeamMember, is_expired
from thrum.ops import messages, reading, team, wake_status
from thrum.ops.context import Call, Context
from thrum.store.queries.views import AgentRow
from thrum.wake import why
from thrum.wake.plan import AgentState, why_unseen

_LISTED_MAX: Final = 50
"""Agents that are looked at for one answer that lists messages."""


@dataclass(slots=True)
class ToldStates:
    """Answers for the methods that tell how far messages came, and how agents are."""

    ctx: Context
    wake: WakeService

    async def send(self, call: Call, params: SendParams) -> SendResult:
        sent = await messages.send(self.ctx, call, params)
        result = sent.result
        if result.quiet:
            return result
        rows: dict[str, AgentRow | None] = {row.agent_id: row for row in sent.rows}
        looks = _Looks(self.ctx, self.wake, limits.recipients_looked_at_max, just_sent=not result.replayed, _rows=rows)
        return replace(result, recipients=looks.told(result.message_id, result.recipients))

    async def get(self, call: Call, params: MessageGetParams) -> MessageGetResult:
        result = await reading.get(self.ctx, call, params)
        message = result.message
        if not self._wakes(message):
            return result
        looks = _Looks(self.ctx, self.wake, _LISTED_MAX)
        return MessageGetResult(replace(message, recipients=looks.told(message.message_id, message.recipients)))

    async def outbox(self, call: Call, params: OutboxParams) -> OutboxResult:
        result = await reading.outbox(self.ctx, call, params)
        looks = _Looks(self.ctx, self.wake, _LISTED_MAX)
        told = tuple(
            replace(each, recipients=looks.told(each.message_id, each.recipients)) if self._wakes(each) else each
            for each in result.messages
        )
        return replace(result, messages=told)

    async def team(self, call: Call, params: TeamListParams) -> TeamListResult:
        result = await team.list_team(self.ctx, call, params)
        hooks = params.include_hooks
        return replace(result, members=tuple(self._member(each, hooks=hooks) for each in result.members))

    async def lookup(self, call: Call, params: LookupParams) -> LookupResult:
        result = await team.lookup(self.ctx, call, params)
        return result if result.member is None else replace(result, member=self._member(result.member))

    async def wake_status(self, call: Call, params: WakeStatusParams) -> WakeStatusResult:
        result = await wake_status.wake_status(self.ctx, call, params)
        return WakeStatusResult(agents=tuple(self._agent(each) for each in result.agents))

    def _wakes(self, message: Detail | OutMessage) -> bool:
        """Whether it is still a reason to wake: of others no one asks why they are not seen."""
        over = message.deleted or bool(message.superseded_by)
        return not (over or message.quiet or is_expired(message.expires_at, clock.format_ms(self.ctx.clock.now_ms())))

    def _member(self, member: TeamMember, *, hooks: bool = False) -> TeamMember:
        if hooks and member.agent_pid and (row := self.ctx.view.agent(member.agent_id)) is not None and row.is_own:
            fired = self.wake.states.hooks_fired((row.agent_pid, row.agent_pid_started))
            member = replace(member, hooks_fired=fired)
        if member.agent_status != "blocked":
            return member
        row = self.ctx.view.agent(member.agent_id)
        return member if row is None else replace(member, asks=self.wake.dialogs.asks(row))

    def _agent(self, told: AgentWake) -> AgentWake:
        if not self.ctx.view.is_live(told.agent_id) or self.ctx.view.elsewhere([told.agent_id]):
            return told
        now, now_ms = trio.current_time(), self.ctx.clock.now_ms()
        agent = self.wake.loop.state_of(told.agent_id)
        known = agent.state != "unknown"
        return replace(
            told,
            state=agent.state,
            state_since=clock.format_ms(now_ms - round((now - agent.state_since) * 1000)) if known else "",
            doors=tuple(_health(door, agent, now, now_ms) for door in agent.doors),
        )


def _health(door: DoorState, agent: AgentState, now: float, now_ms: int) -> DoorHealth:
    """`open`, `closed`, `resting`; `held`: the runtime keeps what it was given; with what hinders it."""
    until = ""
    if door.resting_until > now:
        health, until = "resting", clock.format_ms(now_ms + round((door.resting_until - now) * 1000))
    elif door.held:
        health = "held"
    elif door.open:
        health = "open"
    else:
        health = "closed"
    return DoorHealth(door=door.name, health=health, resting_until=until)


@dataclass(slots=True)
class _Looks:
    """Looks at agents for one answer: each once, and not more than `at_most`, for each costs a look at its process."""

    ctx: Context
    wake: WakeService
    at_most: int
    just_sent: bool = False
    """Whether all of it was sent just now: then no more is asked for than that takes."""
    _rows: dict[str, AgentRow | None] = field(default_factory=dict[str, "AgentRow | None"])
    """Of each agent that was asked for."""
    _states: dict[str, AgentState] = field(default_factory=dict[str, AgentState])
    _no_sync: bool | None = None
    _heard: dict[str, str] | None = None

    def told(self, message_id: str, recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
        """The recipients of a message that wakes, each that has not seen it with the reason."""
        return tuple(self._told(message_id, each) for each in recipients)

    def _told(self, message_id: str, recipient: Recipient) -> Recipient:
        if recipient.seen_at or recipient.read_at or recipient.replied_at:
            return recipient
        said = self._why(message_id, recipient.agent_id)
        return replace(recipient, why=said) if said else recipient

    def _why(self, message_id: str, agent_id: str) -> str:
        row = self._row(agent_id)
        if row is None or not row.live:
            return ""
        if not row.is_own:
            return self._why_apart(row)
        if row.kind != "agent":
            return ""
        if self.just_sent:
            return self.wake.why_not_soon(row, message_id)
        if agent_id not in self._states:
            self._states[agent_id] = self.wake.loop.state_of(agent_id)
        return why_unseen(self._states[agent_id], message_id, trio.current_time())

    def _row(self, agent_id: str) -> AgentRow | None:
        if agent_id not in self._rows and len(self._rows) < self.at_most:
            self._rows[agent_id] = self.ctx.view.agent(agent_id)
        return self._rows.get(agent_id)

    def _why_apart(self, row: AgentRow) -> str:
        """Of an agent of another machine: its state is not known here."""
        if self._no_sync is None:
            self._no_sync = bool(self.ctx.why_no_sync())
        if self._no_sync:
            return why.SYNC_IS_OFF
        heard = self._last_heard().get(row.origin_daemon, "")
        ago_ms = self.ctx.clock.now_ms() - clock.parse_ms(heard) if heard else 0
        return why.another_machine(ago_ms / 1000)

    def _last_heard(self) -> dict[str, str]:
        """When each other daemon was last heard of: by the last sign of life of its agents."""
        if self._heard is None:
            self._heard = {}
            for row in self.ctx.view.agents():
                self._heard[row.origin_daemon] = max(row.last_seen_at, self._heard.get(row.origin_daemon, ""))
        return self._heard
