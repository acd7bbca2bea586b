"""A store in a temporary directory, served, and the few operations that its tests commit."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trio

from tests.support.here import DAEMON, HandClock
from tests.support.store.signers import Daemon
from thrum.model import clock
from thrum.model.events import AnyFact, Body, MessageCreated, MessageEdited
from thrum.model.methods.method import ClientKey
from thrum.model.paths import Layout
from thrum.model.wire_types import DaemonIdentity
from thrum.store import database
from thrum.store.api import Decide, Decision, Stamp
from thrum.store.queries import fts
from thrum.store.queries.views import View
from thrum.store.recovery import Opened, Store, open_blocking, open_store
from thrum.store.writer import Committed

OWN = frozenset({DAEMON})
IDENTITY = DaemonIdentity(
    daemon_id=DAEMON, repo_name="repo", hostname="host", repo_path="/repo", init_at="2026-02-03T00:00:00.000Z"
)


def layout_at(directory: Path) -> Layout:
    return Layout(root=directory, state_dir=directory / ".thrum", main_root=directory, common_dir=directory / ".git")


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    wall: clock.Clock | None = None,
    boot_id: str = "boot-1",
    on_commit: Callable[[Sequence[Committed]], None] | None = None,
    me: Daemon | None = None,
) -> AsyncGenerator[Store]:
    """An open store with its committer running; everything that waits is written before it closes. `me`: a daemon with
    a key, whose store it is.
    """
    opening = open_store(
        layout_at(directory),
        msgspec.structs.replace(IDENTITY, daemon_id=me.daemon_id) if me else IDENTITY,
        frozenset({me.daemon_id}) if me else OWN,
        wall=wall or HandClock(),
        program="test",
        boot_id=boot_id,
        signer=me.signer if me else None,
        on_commit=on_commit,
    )
    async with opening as store, trio.open_nursery() as nursery:
        await nursery.start(store.committer.serve_commits)
        try:
            yield store
        finally:
            store.committer.drain()


def open_here(directory: Path, *, wall: clock.Clock | None = None, boot_id: str = "boot-1") -> Opened:
    """The same without an event loop."""
    return open_blocking(layout_at(directory), IDENTITY, OWN, wall=wall or HandClock(), program="test", boot_id=boot_id)


def projection_of(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the database on disk, without bookkeeping."""
    with closing(sqlite3.connect(layout_at(directory).database)) as db:
        fts.check(db)
        return database.dump(db)


class Sent(NamedTuple):
    message_id: str
    seq: int
    replayed: bool = False


def sending(text: str, *, author: str = "furiosa", to: str = "nux") -> Decide[Sent]:
    """Decides one create."""

    def decide(view: View, stamp: Stamp) -> Decision[Sent]:
        message_id = stamp.new_id("msg_")
        fact = stamp.make(
            MessageCreated, message_id=message_id, agent_id=author, body=Body("markdown", text), recipients=(to,)
        )
        return Decision((fact,), lambda view, seqs: Sent(message_id, seqs[0]))

    return decide


def resent(view: View, fact: AnyFact, seq: int) -> Sent:
    """The answer of a create that was executed before."""
    assert isinstance(fact, MessageCreated)
    return Sent(fact.message_id, seq, replayed=True)


def key_of(name: str, digest: str = "0123456789abcdef", author: str = "furiosa") -> ClientKey:
    return ClientKey(author, name, digest)


def editing(message_id: str, text: str, author: str = "furiosa") -> Decide[str]:
    """Decides one edit."""

    def decide(view: View, stamp: Stamp) -> Decision[str]:
        row = view.message(message_id)
        assert row is not None
        fact = stamp.make(
            MessageEdited,
            at=stamp.later_than(row.updated_at or row.created_at),
            message_id=message_id,
            agent_id=author,
            body=Body("markdown", text),
        )
        return Decision((fact,), lambda view, seqs: text)

    return decide
