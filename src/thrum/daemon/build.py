"""How a daemon is put together: what it is started with, its sockets, and its parts, each of which is handed the others
that it needs. Composition: nothing here runs; the task tree is in `app`.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import trio

from thrum.bus.publisher import Publisher
from thrum.bus.socket import XpubSocket
from thrum.daemon.event_feed import EventFeed
from thrum.daemon.maintenance import Care
from thrum.daemon.parts import DaemonParts
from thrum.daemon.presence import Presence, Registrar
from thrum.daemon.sync_service import Settings as SyncSettings
from thrum.daemon.sync_service import SyncService
from thrum.daemon.sync_store import SyncStore
from thrum.git.branches import branch_exists, branch_of
from thrum.git.worktree_status import LiveWork
from thrum.identity.authenticator import Authenticator
from thrum.identity.daemon_id import DaemonIdentity
from thrum.identity.evidence import Roots
from thrum.identity.guard_modes import LiveSettings, runtimes_file
from thrum.identity.processes import open_process_table
from thrum.model import limits, settings
from thrum.model.clock import SystemClock
from thrum.model.config import LiveConfig
from thrum.model.paths import Layout
from thrum.ops.context import Context, LocalNode
from thrum.rpc.listener import bind_listener
from thrum.rpc.sockets import SocketPaths, prepare_socket_dir, socket_paths
from thrum.store.recovery import Store
from thrum.sync.loop import Status as SyncStatus

log = logging.getLogger("thrum.daemon")


@dataclass(frozen=True, slots=True)
class Start:
    """What one daemon is started with."""

    layout: Layout
    hostname: str
    environ: Mapping[str, str]
    local: bool = False
    lock: int | None = None
    """The descriptor that holds the daemon's lock; None where nothing else can run (tests)."""
    connections: int = limits.connections_max

    @property
    def is_locked(self) -> bool:
        """Whether the lock is still the one that others look at: a file that was removed locks out no one."""
        if self.lock is None:
            return True
        try:
            return os.path.samestat(os.fstat(self.lock), os.stat(self.layout.lock_file))
        except OSError:
            return False


def bind_sockets(layout: Layout) -> tuple[SocketPaths, socket.socket]:
    """The RPC socket, beside the state or, where the file system takes none, in a short private directory."""
    for short in (False, True):
        sockets = socket_paths(layout, short=short)
        prepare_socket_dir(layout, sockets)
        try:
            return sockets, bind_listener(sockets.rpc)
        except OSError as error:
            if sockets.private_dir is not None or error.errno in (errno.EACCES, errno.EROFS):
                raise
            log.warning("%s takes no sockets (%s): using a short path", sockets.rpc.parent, error.strerror)
    raise AssertionError("unreachable")


def build_parts(
    start: Start,
    live: LiveConfig,
    identity: DaemonIdentity,
    store: Store,
    publisher: Publisher,
    bus: XpubSocket,
    services: trio.Nursery,
) -> DaemonParts:
    """All of a daemon's parts, connected. They may put tasks into `services`."""
    registrar = Registrar(store.view)
    guards = LiveSettings(start.layout, runtimes_file(start.environ))
    here = LocalNode(
        layout=start.layout,
        daemon_id=identity.daemon_id,
        repo_id=identity.repo_id,
        hostname=identity.hostname,
        own=frozenset({*identity.own_ids, ""}),
    )
    sync_settings = SyncSettings(start.layout, live, start.environ, start.local)
    ctx = Context(
        here=here,
        clock=SystemClock(),
        journal=store.committer,
        view=store.view,
        processes=open_process_table(),
        registry=registrar.current,
        body_bytes_max=live.current()[settings.BODY_BYTES_MAX],
        branch_of=branch_of,
        branch_exists=partial(branch_exists, start.layout.common_dir),
        work=LiveWork(start.layout, start.environ),
        modes=guards.modes,
        runtime_names=guards.runtime_names,
        why_no_sync=lambda: sync_settings.mode().reason,
    )
    sync_service = SyncService(
        ctx=ctx,
        journals=SyncStore(store),
        settings=sync_settings,
        publish=partial(_publish_sync, publisher),
    )
    parts = DaemonParts(
        ctx=ctx,
        committer=store.committer,
        registrar=registrar,
        event_feed=EventFeed(store.view, store.journals, publisher),
        publisher=publisher,
        presence=Presence(ctx, services),
        care=Care(ctx, store.committer, store.journals, start.environ),
        identity=identity,
        bus_endpoint=bus.endpoint,
        sync_service=sync_service,
        authenticator=authenticator_of(ctx),
        started_at=trio.current_time(),
    )
    store.committer.on_commit = parts.on_commit
    store.committer.on_release = parts.on_release
    return parts


def authenticator_of(ctx: Context) -> Authenticator:
    """Who judges the callers of this daemon."""

    def runtime_of(agent_id: str) -> str:
        row = ctx.view.agent(agent_id)
        return row.runtime if row is not None else ""

    return Authenticator(
        table=ctx.processes,
        layout=ctx.here.layout,
        registry=ctx.registry,
        runtime_names=ctx.runtime_names,
        modes=ctx.modes,
        is_registered=ctx.view.is_live,
        runtime_of=runtime_of,
        now=trio.current_time,
        roots=Roots(ctx.here.layout),
    )


def _publish_sync(publisher: Publisher, status: SyncStatus) -> None:
    publisher.publish_state("sync.status", {"state": status.state, "last_error": status.last_error})
