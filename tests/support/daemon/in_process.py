"""A whole daemon but for its sockets, in the test's own process: store, operations, waits and feed, on real files.

Who calls is said by the test (`as_agent`): the kernel's evidence has its own tests, and the end-to-end ones use it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from tests.support.here import DAEMON, HandClock
from tests.support.named import named
from tests.support.store.signers import daemon_id_of, signer_of
from tests.support.trusted import trust_here
from thrum.bus.memory import MemoryBus
from thrum.bus.publisher import Publisher
from thrum.daemon.build import authenticator_of
from thrum.daemon.event_feed import EventFeed
from thrum.daemon.maintenance import Care
from thrum.daemon.parts import DaemonParts
from thrum.daemon.presence import Presence, Registrar
from thrum.daemon.sync_service import Settings, SyncService
from thrum.daemon.sync_store import SyncStore
from thrum.git.worktree_status import LiveWork
from thrum.identity.caller import Caller, Evidence
from thrum.identity.daemon_id import DaemonIdentity
from thrum.identity.evidence import AgentPlace, Registry
from thrum.identity.guard_modes import LiveSettings
from thrum.identity.processes import OwnerState, Process, ProcessMap
from thrum.identity.runtimes import Link
from thrum.model import wire_types
from thrum.model.config import LiveConfig
from thrum.model.methods.method import Method, Params
from thrum.model.paths import Layout, counts
from thrum.ops.context import Context, LocalNode
from thrum.ops.waiting import WaitQueues
from thrum.rpc._peercred import Peer
from thrum.rpc.direct import DirectClient
from thrum.rpc.dispatch import Dispatcher, PeerConnection
from thrum.store.recovery import Store, open_store


class SaidEvidence:
    """What the kernel would say of a caller that stands in `root`."""

    def __init__(self, root: str | None, process: Process | None = None, state: OwnerState | None = None) -> None:
        self.root = root
        self.process = process
        self.state = state
        self.tty = ""

    def cwd(self) -> str:
        return self.root or ""

    def current_root(self, now: float) -> str | None:
        return self.root

    def terminal(self) -> str:
        return self.tty

    def chain(self) -> tuple[Process, ...]:
        return (self.process,) if self.process else ()

    def binding(self, identity: str, registry: Registry, now: float) -> Process | None:
        return self.process

    def links(self, now: float) -> tuple[Link, ...]:
        return (Link(self.process.pid, self.process.started, runtime="claude"),) if self.process else ()

    def state_of(self, agent: AgentPlace) -> OwnerState:
        if self.state is not None:
            return self.state
        if agent.agent_pid == 0:
            return "none"
        return "chain" if self.process is not None and self.process.pid == agent.agent_pid else "elsewhere"

    def gather(self, registry: Registry, claim: str | None, *, now: float) -> Evidence:
        here = {place.agent_id: self.state_of(place) for place in registry.by_root.get(self.root or "", ())}
        return Evidence(1, root=self.root, here=here)


@dataclass
class Agent:
    """A client in one agent's name (`""`: nobody's)."""

    client: DirectClient
    connection: PeerConnection

    async def __call__(self, method: str, **params: Any) -> Any:
        """Call, and take the answer as delivered."""
        result = await self.client.call(named(method), params)
        await self.client.delivered()
        return result

    async def undelivered(self, method: str, **params: Any) -> Any:
        """Call, and leave open whether the answer arrives."""
        return await self.client.call(named(method), params)


@dataclass
class Daemon:
    """The parts of it that tests look at."""

    ctx: Context
    store: Store
    bus: MemoryBus
    parts: DaemonParts
    dispatcher: Dispatcher
    clock: HandClock
    processes: ProcessMap = field(default_factory=ProcessMap)

    def as_agent(self, agent_id: str, root: str = "", process: Process | None = None) -> Agent:
        connection = PeerConnection(Peer(0, 0, 1))
        root = root or str(self.ctx.here.layout.root)
        connection.evidence = SaidEvidence(root, process)
        setattr(connection.evidence, "agent_id", agent_id)  # noqa: B010
        return Agent(DirectClient(self.dispatcher, connection), connection)

    def as_browser(self) -> Agent:
        """A connection of which the kernel says nothing: who calls over it is decided as in a running daemon."""
        connection = PeerConnection(Peer(-1, -1, 0), "W")
        return Agent(DirectClient(self.dispatcher, connection), connection)

    async def registered(self, name: str, role: str = "implementer", module: str = "", root: str = "") -> Agent:
        """A registered agent with a session, in a root of its own."""
        home = Path(root) if root else self.ctx.here.layout.root.parent / f"w-{name}"
        (home / ".thrum" / "identities").mkdir(parents=True, exist_ok=True)
        if not counts(home):
            trust_here(home)
        nobody = self.as_agent("", str(home))
        result = await nobody("agent.register", name=name, role=role, module=module or name)
        assert result.status == "registered", result
        return self.as_agent(name, str(home))


@asynccontextmanager
async def open_daemon(
    base: Path, clock: HandClock | None = None, *, key_number: int | None = None
) -> AsyncGenerator[Daemon]:
    """A daemon over `base/repo`; opened again on the same base it goes on where it was. With the number of a key it
    signs what it says.
    """
    daemon_id = DAEMON if key_number is None else daemon_id_of(key_number)
    signer = None if key_number is None else signer_of(key_number)
    clock = clock or HandClock()
    root = base / "repo"
    state = root / ".thrum"
    for path in (state / "var", state / "identities"):
        path.mkdir(parents=True, exist_ok=True)
    if not (state / "config.json").exists():
        (state / "config.json").write_text("{}")
    common = root / ".git"
    (common / "thrum-sync" / "a-sync" / "messages").mkdir(parents=True, exist_ok=True)
    trust_here(root)
    layout = Layout(root=root, state_dir=state, main_root=root, common_dir=common)
    identity = DaemonIdentity(
        daemon_id=daemon_id,
        init_at="2026-02-03T10:00:00.000Z",
        repo_id="r_TEST00000001",
        repo_name="repo",
        repo_path=str(root),
        hostname="testhost",
    )
    mirrored = wire_types.DaemonIdentity(
        daemon_id=daemon_id, repo_name="repo", hostname="testhost", repo_path=str(root), init_at=identity.init_at
    )
    own = frozenset({daemon_id, ""})
    opening = open_store(layout, mirrored, own, wall=clock, program="test", boot_id="boot", signer=signer)
    async with opening as store, trio.open_nursery() as writing:
        writing.start_soon(store.committer.serve_commits)
        async with trio.open_nursery() as services:
            daemon = _daemon(layout, identity, store, clock, services, own)
            services.start_soon(daemon.parts.wait_queues.serve)
            yield daemon
            services.cancel_scope.cancel()
        store.committer.drain()


def _daemon(
    layout: Layout,
    identity: DaemonIdentity,
    store: Store,
    clock: HandClock,
    services: trio.Nursery,
    own: frozenset[str],
) -> Daemon:
    bus = MemoryBus()
    publisher = Publisher(bus, epoch=store.epoch, head_seq=store.view.head_seq(), wall_clock=clock)
    registrar = Registrar(store.view)
    processes = ProcessMap()
    ctx = Context(
        here=LocalNode(layout, identity.daemon_id, identity.repo_id, identity.hostname, own),
        clock=clock,
        journal=store.committer,
        view=store.view,
        processes=processes,
        registry=registrar.current,
        body_bytes_max=1_048_576,
        branch_of=lambda root: "",
        branch_exists=lambda branch: True,
        work=LiveWork(layout, os.environ),
        modes=LiveSettings(layout).modes,
    )
    parts = DaemonParts(
        ctx=ctx,
        committer=store.committer,
        registrar=registrar,
        event_feed=EventFeed(store.view, store.journals, publisher),
        publisher=publisher,
        wait_queues=WaitQueues(),
        presence=Presence(ctx, services),
        care=Care(ctx, store.committer, store.journals, os.environ),
        identity=identity,
        bus_endpoint="ipc:///nowhere",
        authenticator=authenticator_of(ctx),
        sync_service=SyncService(
            ctx,
            SyncStore(store),
            Settings(layout, LiveConfig(layout.config_file), os.environ, local=True),
            lambda status: None,
        ),
        started_at=trio.current_time(),
    )
    store.committer.on_commit = parts.on_commit
    dispatcher: Dispatcher

    def identify(connection: PeerConnection, method: Method, params: Params) -> Caller:
        if connection.transport == "W":
            return parts.identify(connection, method, params)
        agent_id: str = connection.evidence.agent_id
        if not agent_id:
            here = connection.evidence.gather(registrar.current(), None, now=0.0).here
            candidates = frozenset(name for name, state in here.items() if state != "elsewhere")
            return Caller(None, "nobody", connection.evidence.root, candidates=candidates)
        return Caller(agent_id, "agent", connection.evidence.root, 1, proven=True)

    dispatcher = Dispatcher(parts.handlers(lambda: dispatcher.drain), identify)
    return Daemon(ctx, store, bus, parts, dispatcher, clock, processes)
