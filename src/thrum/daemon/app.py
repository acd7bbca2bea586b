"""The daemon of one repository: its whole task tree on one page (house.md "Start", "Stop").

Start: lock (process.py) -> a restore that was cut off is finished -> settings -> branch -> leftovers -> identity ->
store (journals recovered, projection opened or rebuilt) -> sockets -> accept. Stop: no new requests -> a deadline for
those under way -> the committer drains -> bus, then database close. A kill instead of a stop loses no answered request.

    run_daemon
    └─ serve_once ── again if the store had to be reopened
       ├─ store: serve_commits            the one writer
       └─ services
          ├─ serve_rpc                    acceptor, a task per connection, a task per request
          ├─ publisher.serve_bus          subscriptions, heads
          ├─ wait_queues.serve            what comes, for those who wait
       ├─ wake.serve                   what comes, for those who sleep in a runtime
          ├─ sync_service.serve           rounds with the other clones, one at a time
          ├─ care.serve                   journals are kept short
          ├─ Owners, StaleSessions        who is alive (watchers.py)
          └─ watch_*                      signals, state directory, idleness (shutdown.py), store, warm-up
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import trio

from thrum.admin import init, leftovers, restore
from thrum.bus.publisher import Publisher
from thrum.bus.socket import open_xpub_socket
from thrum.daemon import launch
from thrum.daemon.build import Start, bind_sockets, build_parts
from thrum.daemon.caller_memory import KnownRepositories, Told
from thrum.daemon.parts import DaemonParts
from thrum.daemon.shutdown import Ending, Idleness, is_needed, note_stop, watch_place, watch_signals
from thrum.daemon.watchers import Owners, StaleSessions
from thrum.model import config_acceptance, files, settings
from thrum.model.clock import SystemClock, boot_id
from thrum.model.config import Config, LiveConfig
from thrum.model.methods.daemon import CLI_RUN, CliRunParams
from thrum.ops.introduction import introduce
from thrum.ops.relocation import Moves
from thrum.rpc.dispatch import Dispatcher, PeerConnection
from thrum.rpc.framed_run import RunIO, collected_run_handler
from thrum.rpc.server import Bounds, serve_rpc
from thrum.rpc.sockets import Bound, SocketPaths, remove_private_dir
from thrum.store.database import is_damage
from thrum.store.recovery import open_store
from thrum.sync import branch
from thrum.version import VERSION

log = logging.getLogger("thrum.daemon")

Report = Callable[[launch.Report], None]


async def run_daemon(start: Start, live: LiveConfig, report: Report) -> None:
    """Serve until stopped by a signal, `daemon.stop`, or the loss of the state directory. The caller holds the lock.

    Raises what keeps it from starting. A store whose files were changed by others is reopened: its
    clients see a closed connection, come back, and find everything that was answered.
    """
    while await serve_once(start, live, report):
        if not start.is_locked:
            log.warning("the lock is gone: another daemon may be running, this one stops")
            return
        log.warning("reopening the store")


async def serve_once(start: Start, live: LiveConfig, report: Report) -> bool:
    """One life of the task tree; True if another is wanted."""
    layout = start.layout
    clock = SystemClock()
    await trio.to_thread.run_sync(restore.finish_at_start, layout, start.environ)
    config = live.current()
    # First of all: it refuses a repository of another user before anything is written.
    remote = config[settings.SYNC_REMOTE]
    await trio.to_thread.run_sync(partial(branch.ensure_branch, layout, start.environ, remote=remote))
    await trio.to_thread.run_sync(leftovers.remove_leftovers, layout, clock.now_ms())
    bootstrapped = init.bootstrap_identity(layout, start.hostname, start.environ, clock)
    identity, signer = bootstrapped.identity, bootstrapped.signer
    for note in bootstrapped.notes:
        log.warning("%s", note)
    async with contextlib.AsyncExitStack() as stack:
        opening = open_store(
            layout, identity.told, identity.own_origins, wall=clock, program=VERSION, boot_id=boot_id(), signer=signer
        )
        async with trio.open_nursery() as patience:
            patience.start_soon(_tell_progress, report)
            store = await stack.enter_async_context(opening)
            patience.cancel_scope.cancel()
        store.committer.note_restore(restore.restored_at(layout))
        sockets, listener = bind_sockets(layout)
        stack.callback(remove_private_dir, sockets)
        stack.callback(listener.close)
        bus = stack.enter_context(open_xpub_socket(sockets.bus))
        publisher = Publisher(bus, epoch=store.epoch, head_seq=store.view.head_seq(), wall_clock=clock)
        async with trio.open_nursery() as writing:
            writing.start_soon(store.committer.serve_commits)
            async with trio.open_nursery() as services:
                parts = build_parts(start, live, identity, store, publisher, bus, services)
                _watch_lives(parts, config, services)
                again = await _serve(start, parts, sockets, listener, services, report)
                services.cancel_scope.cancel()
            store.committer.drain()
        return again


async def _serve(
    start: Start,
    parts: DaemonParts,
    sockets: SocketPaths,
    listener: socket.socket,
    services: trio.Nursery,
    report: Report,
) -> bool:
    """From the first accepted connection to the last answer; True if the store must be reopened."""
    layout, publisher = start.layout, parts.publisher
    notices, told = config_acceptance.Notices(layout, trio.current_time).take, Told()
    known_repositories = KnownRepositories(trio.current_time)
    dispatcher: Dispatcher

    async def run_command(streams: RunIO, params: CliRunParams, connection: PeerConnection) -> int | None:
        from thrum.daemon.cli_host import run_inside  # warmed up below: the first command pays, not the start

        return await run_inside(
            streams, params, connection, dispatcher, layout, parts.ctx.registry, known_repositories.find, notices, told
        )

    handlers = parts.handlers(lambda: dispatcher.drain)
    dispatcher = Dispatcher(handlers | {CLI_RUN: collected_run_handler(run_command)}, parts.identify)
    ending = Ending(dispatcher.drain)
    mine = Bound(sockets)
    files.remove(layout.stopped_mark)
    moves = Moves(parts.ctx, trio.current_time)
    await moves.follow()
    await introduce(parts.ctx, await parts.sync_service.repo_ids())
    for service in (publisher.serve_bus, parts.wait_queues.serve, parts.sync_service.serve, parts.care.serve, _warm_up):
        services.start_soon(service)
    services.start_soon(_watch_while_sound, parts, parts.wake.serve)
    services.start_soon(watch_signals, ending.stop)
    services.start_soon(watch_place, layout, mine, lambda: start.is_locked, ending.leave)
    idleness = Idleness(partial(is_needed, parts), trio.current_time)
    services.start_soon(_watch_while_sound, parts, partial(idleness.watch, ending.end_idle))
    services.start_soon(_watch_store, parts, ending.reopen)

    def on_connect(connection: PeerConnection) -> None:
        idleness.touch()
        if not start.is_locked:
            ending.leave()  # it was moved while it served: the next command on the new path starts another one
        parts.authenticator.meet(connection)

    log.info("serving", extra={"fields": {"pid": os.getpid(), "epoch": parts.ctx.view.epoch, "version": VERSION}})
    report(launch.Report("ready", os.getpid()))
    async with trio.open_nursery() as serving:
        serving.start_soon(
            partial(
                serve_rpc,
                [listener],
                dispatcher,
                run_command=run_command,
                program=VERSION,
                on_connect=on_connect,
                on_arrival=lambda connection: moves.arrive(connection.evidence),
                bounds=Bounds(connections=start.connections),
            )
        )
        await dispatcher.drain.wait_begun()
        note_stop(layout, ending)
        publisher.publish_state("stopping")
        parts.wait_queues.close()
        parts.wake.close()
    note_stop(layout, ending)
    mine.remove_rpc()
    log.info("stopped", extra={"fields": {"pid": os.getpid()}})
    return ending.again


def _watch_lives(parts: DaemonParts, config: Config, services: trio.Nursery) -> None:
    """Learn of agents' deaths, and end the sessions they left open."""
    ctx, changed = parts.ctx, parts.registrar.changed
    stale = StaleSessions(ctx, changed, config[settings.STALE_SESSION_END])
    for watch in (Owners(ctx, changed, parts.ends).watch, stale.watch):
        services.start_soon(_watch_while_sound, parts, watch)


async def _watch_while_sound(parts: DaemonParts, watch: Callable[[], Awaitable[None]]) -> None:
    """A watcher that comes upon a damaged database has it rebuilt, as a call would."""
    try:
        await watch()
    except Exception as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
        if not (isinstance(first, Exception) and is_damage(first)):
            raise
        parts.committer.request_reopen()


# -- services


async def _watch_store(parts: DaemonParts, reopen: Callable[[], None]) -> None:
    cause = await parts.committer.wait_broken()
    log.error("the store must be reopened: %s", cause)
    reopen()


async def _warm_up() -> None:
    """Import the command line now, in another thread, so that the first command does not pay for it."""
    from importlib import import_module

    await trio.to_thread.run_sync(import_module, "thrum.daemon.cli_host", abandon_on_cancel=True)


async def _tell_progress(report: Report) -> None:
    """Keep the process that started us patient while a large store is opened or rebuilt."""
    while True:
        await trio.sleep(2)
        report(launch.Report("rebuilding"))
