"""A daemon's real start and composition (`app.serve_once`) in this process, with work in place of its sockets."""

from __future__ import annotations

import functools
import os
import random
import socket
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import trio

from tests.support.daemon.in_process import Agent, SaidEvidence
from tests.support.trusted import trust_here
from thrum.admin.exclusive import hold_lock, owner_of
from thrum.admin.verify import Point, verify
from thrum.daemon import app
from thrum.daemon.parts import DaemonParts
from thrum.identity.caller import Caller
from thrum.identity.daemon_key import load_key
from thrum.model import config_acceptance, events, files, paths
from thrum.model.clock import SystemClock
from thrum.model.config import LiveConfig
from thrum.model.events import MessageCreated
from thrum.model.methods.method import Method, Params
from thrum.model.paths import Layout, counts
from thrum.ops.introduction import introduce
from thrum.rpc._peercred import Peer
from thrum.rpc.direct import DirectClient
from thrum.rpc.dispatch import Dispatcher, PeerConnection
from thrum.rpc.sockets import SocketPaths
from thrum.store import audit, database
from thrum.store.journal import JournalFiles
from thrum.store.queries import fts
from thrum.sync.loop import SyncRequest
from thrum.sync.round import Outcome

HOST = "host"
msgspec.structs.fields = functools.cache(msgspec.structs.fields)  # looked up anew by each start


class Life:
    """One life of a daemon: calls in anybody's name, and rounds."""

    def __init__(self, parts: DaemonParts) -> None:
        self.parts = parts
        self._dispatcher = Dispatcher(parts.handlers(lambda: self._dispatcher.drain), self._identify)

    def as_agent(self, name: str) -> Agent:
        """A client in an agent's name; `""`: a person's."""
        connection = PeerConnection(Peer(0, 0, 1))
        connection.evidence = SaidEvidence(str(self.parts.ctx.here.layout.root))
        connection.evidence.agent_id = name  # type: ignore[attr-defined]
        return Agent(DirectClient(self._dispatcher, connection), connection)

    def _identify(self, connection: PeerConnection, _method: Method, _params: Params) -> Caller:
        name: str = connection.evidence.agent_id  # type: ignore[attr-defined]
        root = connection.evidence.root
        return Caller(name, "agent", root, 1, proven=True) if name else Caller(None, "nobody", root, proven=True)

    async def register(self, name: str) -> None:
        root = self.parts.ctx.here.layout.root.parent / f"w-{name}"
        (root / ".thrum/identities").mkdir(parents=True, exist_ok=True)
        if not counts(root):
            trust_here(root)
        nobody = self.as_agent("")
        nobody.connection.evidence.root = str(root)  # type: ignore[attr-defined]
        result = await nobody("agent.register", name=name, role="worker", module=name)
        assert result.status == "registered", result

    async def round(self) -> Outcome:
        """A sync round, as the loop runs it. Raises what it raises."""
        outcome = Outcome()
        work = self.parts.sync_service._round
        await trio.to_thread.run_sync(work, SyncRequest(fetch=True, push=True), outcome, lambda: False)
        return outcome

    def messages(self) -> dict[str, str]:
        """Id and text of every message in the projection."""
        with closing(sqlite3.connect(self.parts.ctx.here.layout.database)) as db:
            return dict(db.execute("SELECT message_id, body_content FROM messages"))

    def provenance(self) -> list[list[Any]]:
        """Mail, marks and agents, as JSON would give them back."""
        with closing(sqlite3.connect(self.parts.ctx.here.layout.database)) as db:
            return [
                [list(row) for row in db.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2")]
                for table, columns in (
                    ("messages", "message_id, agent_id, created_at, body_content, edit_count, deleted"),
                    ("message_recipients", "message_id, agent_id, delivered_at, seen_at, read_at, replied_at, hidden"),
                    ("agents", "agent_id, kind, name, role, module, live, worktree_path"),
                )
            ]

    def watermarks(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.parts.ctx.here.layout.database)) as db:
            return db.execute("SELECT * FROM horizons WHERE kind = 'purge' ORDER BY at").fetchall()


def live(root: Path, work: Callable[[Life], Awaitable[None]]) -> None:
    """Start in `root`, do `work`, and stop cleanly. Raises what either raises."""

    async def serve(
        _start: app.Start,
        parts: DaemonParts,
        _sockets: SocketPaths,
        _listener: socket.socket,
        services: trio.Nursery,
        _report: app.Report,
    ) -> bool:
        await introduce(parts.ctx)
        services.start_soon(parts.wait_queues.serve)
        await work(Life(parts))
        return False

    app._serve = serve
    layout = paths.find_layout(root)
    files.ensure_private_dir(layout.thrum_sync_dir)
    with files.locked(layout.lock_file):  # as a daemon holds it for its life
        live = LiveConfig(layout.config_file)
        trio.run(app.serve_once, app.Start(layout, HOST, os.environ), live, lambda _report: None)


def start_only(root: Path) -> None:
    async def nothing(_life: Life) -> None:
        pass

    live(root, nothing)


# -- what must be true whenever a daemon has started and stopped again


def facts_of(layout: Layout) -> list[Any]:
    """Every fact of every journal, whose lines are whole and none of them there twice."""
    found: list[Any] = []
    messages = sorted((layout.branch_dir / "messages").glob("*.jsonl"))
    for path in (layout.branch_dir / "events.jsonl", *messages, layout.local_journal):
        data = path.read_bytes() if path.exists() else b""
        assert not data or data.endswith(b"\n"), f"{path} ends within a line"
        facts = [events.decode(line) for line in data.splitlines()]
        twice = [each for each, count in Counter(fact.event_id for fact in facts).items() if count > 1]
        assert not twice, f"{path} holds facts twice: {twice}"
        found += facts
    return found


def creates_of(layout: Layout) -> Counter[str]:
    """How many creates say a text: each text is said once in a test."""
    return Counter(fact.body.content for fact in facts_of(layout) if isinstance(fact, MessageCreated))


def check_sound(layout: Layout, chance: random.Random) -> None:
    """The projection is as rebuilt, the key fits, nothing is left over; often too all that `thrum verify` asks."""
    facts_of(layout)
    check_projection(layout)
    if chance.random() < 0.3:
        with hold_lock(layout):
            found = verify(Point(layout, os.environ, owner_of(layout)))
        bad = [msgspec.to_builtins(each) for each in found.checks if not each.ok and each.name != "identities"]
        assert not bad, bad
    key = load_key(layout.daemon_key)
    assert key is not None
    assert key.daemon_id == owner_of(layout).daemon_id
    assert not config_acceptance.look(layout), "the settings that people edit say other things than those that count"
    copied, counting = (msgspec.json.decode(path.read_bytes()) for path in (layout.config_copy, layout.config_file))
    assert copied == counting
    assert not layout.quarantine.exists() or truncated_only(layout.quarantine), layout.quarantine.read_text()
    if old := [path for path in leftovers(layout) if path.name.endswith(".tmp")]:
        age(old)
        start_only(layout.root)
    left = [str(path) for path in leftovers(layout)]
    assert not left, f"left over: {left}"


def check_projection(layout: Layout) -> None:
    """Live = rebuilt, row for row."""
    journals = JournalFiles(layout.branch_dir, layout.local_journal)
    rebuilt = layout.var_dir / "rebuilt.db"
    own = owner_of(layout).own
    lost = audit.rebuild(rebuilt, journals, audit.whole_ends(journals), own, SystemClock().now_ms())
    assert not lost, lost
    projections: list[dict[str, list[tuple[Any, ...]]]] = []
    for path in (layout.database, rebuilt):
        with closing(sqlite3.connect(path)) as db:
            fts.check(db)
            projections.append(database.dump(db))
    for table in (projections[0].keys() | projections[1].keys()) - {"daemon_identity"}:
        assert projections[0].get(table) == projections[1].get(table), f"{table} is not as rebuilt"
    rebuilt.unlink()


def age(paths: Iterable[Path]) -> None:
    """Hours pass."""
    hours_ago = SystemClock().now_ms() // 1000 - 7200
    for path in paths:
        os.utime(path, (hours_ago, hours_ago), follow_symlinks=False)


def truncated_only(quarantine: Path) -> bool:
    lines = [msgspec.json.decode(line) for line in quarantine.read_bytes().splitlines()]
    return all(line["reason"] == "torn_tail" for line in lines)


def leftovers(layout: Layout) -> list[Path]:
    """Files that a killed process was about to put in place."""
    assert layout.common_dir is not None
    found = [
        path
        for top in (layout.state_dir, layout.thrum_sync_dir)
        for pattern in ("*.new*", ".compact.*", "restore*", "restore-*", "verify-*", ".safety-*", ".new-*")
        for path in top.rglob(pattern)
        if path != layout.thrum_sync_dir / "restored"
    ]
    found += [path for top in (layout.state_dir, layout.common_dir) for path in top.rglob(".*.tmp")]
    return found + [path for path in layout.common_dir.rglob("*.lock") if path.parent != layout.thrum_sync_dir]
