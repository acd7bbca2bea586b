"""The parts of one running daemon, and which of them answers which method. Composition.

It connects, and decides two things: which calls count as a sign of life (`Presence`), and when to warn of agents of
other clones with the same name. `build` makes the parts, the task tree is in `app`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import trio

from thrum.bus.publisher import Publisher
from thrum.bus.topics import TOPICS
from thrum.daemon.event_feed import EventFeed
from thrum.daemon.handlers import OPERATIONS
from thrum.daemon.hook_service import HookService
from thrum.daemon.maintenance import Care
from thrum.daemon.presence import Presence, Registrar
from thrum.daemon.process_ends import ProcessEnds
from thrum.daemon.restart_requests import RestartRequests
from thrum.daemon.sync_service import SyncService
from thrum.daemon.terminal_service import TerminalService
from thrum.daemon.told_states import ToldStates
from thrum.daemon.wake_service import WakeService
from thrum.daemon.worktree_service import WorktreeService
from thrum.identity.authenticator import Authenticator
from thrum.identity.caller import Caller, CallerRequest, is_act
from thrum.identity.daemon_id import DaemonIdentity
from thrum.model import events, limits
from thrum.model.errors import StoreFailed
from thrum.model.events import SPECS
from thrum.model.methods.agents import (
    AGENT_LOOKUP,
    AGENT_REGISTER,
    AGENT_RENAME,
    TEAM_LIST,
    AgentRenameParams,
    AgentRenameResult,
    RegisterParams,
    RegisterResult,
)
from thrum.model.methods.daemon import (
    BUS_INFO,
    DAEMON_STOP,
    EVENTS_SINCE,
    HEALTH,
    PROTOCOL,
    BusInfo,
    EventsSince,
    EventsSinceParams,
    HealthResult,
    StopParams,
    StopResult,
)
from thrum.model.methods.messages import (
    MESSAGE_FIND,
    MESSAGE_GET,
    MESSAGE_OUTBOX,
    MESSAGE_PRINTED,
    MESSAGE_SEND,
    MESSAGE_WAIT,
    WaitParams,
    WaitResult,
)
from thrum.model.methods.method import AnyMethod, Empty, Params
from thrum.model.methods.notes import CONTEXT_SYNC
from thrum.model.methods.sync import (
    SYNC_ACCEPT,
    SYNC_CONFIGURE,
    SYNC_FORCE,
    SYNC_STATUS,
    SyncConfigureParams,
    SyncStatusResult,
)
from thrum.model.methods.users import USER_REGISTER
from thrum.model.methods.wake import RUNTIME_HOOK, WAKE_STATUS
from thrum.ops import agents, references, renaming, users, waiting
from thrum.ops.context import Context, Operation
from thrum.ops.introduction import introduce
from thrum.ops.names import registered_as
from thrum.ops.pid_binding import adopt
from thrum.rpc.dispatch import Call, Drain, Handler, PeerConnection, row
from thrum.store.committer import Committed, Committer
from thrum.store.database import is_damage
from thrum.version import VERSION

log = logging.getLogger("thrum.daemon")


@dataclass(slots=True)
class DaemonParts:
    """The parts of one running daemon that its methods need."""

    ctx: Context
    committer: Committer
    registrar: Registrar
    event_feed: EventFeed
    publisher: Publisher
    presence: Presence
    care: Care
    identity: DaemonIdentity
    bus_endpoint: str
    authenticator: Authenticator
    started_at: float
    """trio's clock, seconds."""
    sync_service: SyncService
    wait_queues: waiting.WaitQueues = field(default_factory=waiting.WaitQueues)
    printed: references.Printed = field(default_factory=references.Printed)
    tokens: users.Tokens = field(default_factory=users.Tokens)
    ends: ProcessEnds = field(default_factory=ProcessEnds)
    wake: WakeService = field(init=False)
    hooks: HookService = field(init=False)
    terminals: TerminalService = field(init=False)
    worktrees: WorktreeService = field(init=False)
    told: ToldStates = field(init=False)

    def __post_init__(self) -> None:
        environ, config = self.care.environ, self.sync_service.settings.live.current
        self.wake = WakeService(self.ctx, self.wait_queues, environ, config)
        self.hooks = HookService(self.ctx, self.wake, self.ends)
        self.terminals = TerminalService(self.ctx, environ, config, self.ends, RestartRequests(self.ctx, self.wake))
        self.worktrees = WorktreeService(self.ctx, environ, config, self.terminals)
        self.told = ToldStates(self.ctx, self.wake)

    def on_commit(self, committed: Sequence[Committed]) -> None:
        """Facts are on disk: notify all that wait for them."""
        self._tell_waiters(committed)
        self.event_feed.announce(committed)
        self.sync_service.on_commit(committed)
        self.care.compactor.note(committed)

    def on_release(self, committed: Sequence[Committed]) -> None:
        """Deferred facts count from now on. They were announced, by their numbers, when they came."""
        self._tell_waiters(committed)

    def _tell_waiters(self, committed: Sequence[Committed]) -> None:
        facts = [entry.fact for entry in committed]
        changed = {spec.presence for fact in facts if (spec := SPECS.get(type(fact)))}
        if "place" in changed:
            self.registrar.forget()
        if changed - {""}:
            self.registrar.announce()
        # First those that would sleep on: a hint that is not given is found by its number.
        self.wait_queues.announce([fact for fact in facts if not isinstance(fact, events.UnknownEvent)])
        self.wake.announce(facts)

    # -- callers

    def identify(self, connection: PeerConnection, method: AnyMethod, params: Params) -> Caller:
        """Who calls, for this very request (`identity.authenticator`). Raises the refusal."""
        caller = self.authenticator.identify(connection, request_of(method, params))
        if method is MESSAGE_WAIT and caller.agent_id is not None:
            return self._with_namesakes(caller, caller.agent_id)
        return caller

    def _with_namesakes(self, caller: Caller, agent_id: str) -> Caller:
        """Tell a waiting agent that an agent of another clone shares its messages."""
        hosts = self.ctx.view.namesakes_of(agent_id)
        if not hosts:
            return caller
        told = f"another @{agent_id}, of a clone on {' and '.join(hosts)}, shares this name: thrum agent rename NEW"
        return replace(caller, warnings=(*caller.warnings, told))

    # -- methods

    async def _configure_sync(self, call: Call, params: SyncConfigureParams) -> SyncStatusResult:
        if params.enabled:  # the remote may have come since the start
            await introduce(self.ctx, await self.sync_service.repo_ids())
        return await self.sync_service.configure(call, params)

    def handlers(self, drain: Callable[[], Drain]) -> dict[AnyMethod, Handler]:
        """Every method's handler. `drain` is called when the daemon is asked to stop."""
        own = dict(
            (
                row(HEALTH, self._health),
                row(BUS_INFO, self._bus_info),
                row(EVENTS_SINCE, self._events_since),
                row(MESSAGE_WAIT, self._wait),
                row(RUNTIME_HOOK, self.hooks.hook),
                row(MESSAGE_SEND, self.told.send),
                row(MESSAGE_GET, self.told.get),
                row(MESSAGE_OUTBOX, self.told.outbox),
                row(TEAM_LIST, self.told.team),
                row(AGENT_LOOKUP, self.told.lookup),
                row(WAKE_STATUS, self.told.wake_status),
                row(AGENT_REGISTER, self._register),
                row(AGENT_RENAME, self._rename),
                row(MESSAGE_FIND, functools.partial(references.find, self.ctx, self.printed)),
                row(MESSAGE_PRINTED, functools.partial(references.note, self.ctx, self.printed)),
                row(USER_REGISTER, functools.partial(users.register, self.ctx, self.tokens)),
                row(DAEMON_STOP, functools.partial(self._stop, drain)),
                row(SYNC_STATUS, self.sync_service.status),
                row(SYNC_FORCE, self.sync_service.force),
                row(SYNC_CONFIGURE, self._configure_sync),
                row(SYNC_ACCEPT, self.sync_service.accept),
                row(CONTEXT_SYNC, self.sync_service.sync_context),
            )
        )
        table = {method: self._operation(operation) for method, operation in OPERATIONS.items()}
        services = (
            self.care.handlers() | self.wake.codex.handlers() | self.terminals.handlers() | self.worktrees.handlers()
        )
        return {method: self._guarded(handler) for method, handler in (own | table | services).items()}

    def _operation(self, operation: Operation) -> Handler:
        return functools.partial(operation, self.ctx)

    def _guarded(self, handler: Handler) -> Handler:
        """What holds for every method here: before an act the caller's process is recorded, or refused
        (`ops.pid_binding`); afterwards a sign of life is noted; and a damaged database is rebuilt.
        """

        async def handle(call: Call, params: Any) -> Any:
            try:
                if is_act(call.method.name, call.method.access):
                    await adopt(self.ctx, call, call.method.name)
                result = await handler(call, params)
            except StoreFailed as error:
                if error.details.get("cause") == "database_damaged":
                    self.committer.request_reopen()
                raise
            except Exception as error:
                if not is_damage(error):
                    raise
                self.committer.request_reopen()
                raise StoreFailed(
                    "the database is damaged; it is rebuilt from the journals", remedy="repeat the command"
                ) from error
            agent_id = call.caller.agent_id
            wrote = call.method.mutating
            if agent_id is not None and call.caller.kind == "agent" and (wrote or not call.caller.visiting):
                self.presence.note(agent_id, wrote=wrote)
            return result

        return handle

    def _problems_of_the_store(self) -> Iterator[str]:
        if self.committer.degraded:
            yield self.committer.degraded
        if claimed := self.committer.statistics().claimed:
            yield (
                f"facts on the branch that say they are of this daemon, and were not here: {claimed}"
                " (was the repository copied with the daemon's id?)"
            )
        if held := self.ctx.view.deferred_count():
            yield f"facts of other daemons stamped more than a day ahead, which wait for their day: {held}"

    async def _health(self, _call: Call, _params: Empty) -> HealthResult:
        view = self.ctx.view
        mode, live = self.sync_service.settings.mode(), self.sync_service.settings.live
        found = (live.problem,) if live.problem else ()
        problems = (*found, *self._problems_of_the_store(), *self.publisher.problems())
        return HealthResult(
            status="degraded" if problems else "ok",
            problems=problems,
            uptime_ms=int((trio.current_time() - self.started_at) * 1000),
            version=VERSION,
            protocol=PROTOCOL,
            repo_id=self.ctx.here.repo_id,
            pid=os.getpid(),
            epoch=view.epoch,
            seq=view.head_seq(),
            sync_state=self.sync_service.state,
            local_only=mode.local_only,
            local_only_reason=mode.reason,
            last_sync_at=self.sync_service.last_sync_at,
            identity=self.identity.told,
        )

    async def _bus_info(self, _call: Call, _params: Empty) -> BusInfo:
        return BusInfo(
            endpoint=self.bus_endpoint,
            epoch=self.ctx.view.epoch,
            seq=self.ctx.view.head_seq(),
            protocol=PROTOCOL,
            tick_seconds=limits.tick_seconds,
            preview_max=limits.preview_chars_max,
            topics=TOPICS,
        )

    async def _events_since(self, _call: Call, params: EventsSinceParams) -> EventsSince:
        return await self.event_feed.since(params)

    async def _wait(self, call: Call, params: WaitParams) -> WaitResult:
        return await waiting.wait(self.ctx, self.wait_queues, call, params)

    async def _register(self, call: Call, params: RegisterParams) -> RegisterResult:
        unknown = await self._compare(registered_as(self.ctx, params)) if params.command != "prime" else ""
        result = await agents.register(self.ctx, call, params)
        told = (unknown,) if unknown and result.status != "conflict" else ()
        return msgspec.structs.replace(result, warnings=(*result.warnings, *told))

    async def _rename(self, call: Call, params: AgentRenameParams) -> AgentRenameResult:
        unknown = await self._compare(params.name.removeprefix("@"))
        result = await renaming.rename(self.ctx, self.wait_queues, call, params)
        return msgspec.structs.replace(result, warnings=(unknown,) if unknown else ())

    async def _compare(self, agent_id: str) -> str:
        """Look who has a name elsewhere, before it is taken here first; what to say if that is not known."""
        if not agent_id or self.ctx.view.is_live(agent_id):
            return ""
        why = await self.sync_service.compare()
        return f"@{agent_id} was not compared with other clones' names ({why}); later: thrum whoami" if why else ""

    async def _stop(self, drain: Callable[[], Drain], call: Call, params: StopParams) -> StopResult:
        """Answers first, then stops as house.md says."""

        def begin() -> None:
            drain().begin(params.drain_ms / 1000)

        call.when_delivered(begin, begin)
        return StopResult(stopping=True)


def request_of(method: AnyMethod, params: Params) -> CallerRequest:
    """What a call asks of the authenticator."""
    return CallerRequest(
        method.name,
        method.level(params),
        params.caller_agent_id or None,
        method.asks_own(params),
        f"{method.name} {getattr(params, 'key', '')}".rstrip(),
    )
