"""A machine for the loop that wakes: facts that survive, daemons that don't, runtimes with models that listen.

The store, the daemon's ports and the runtimes are the test's; the loop, the planner and the bookkeeping are the real
ones. Time is trio's, so a test sets a clock that jumps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio
import trio.testing

from tests.support.wake.fake_door import FakeDoor
from thrum.model.attempt_ids import tokens_in
from thrum.model.errors import StoreFailed
from thrum.model.ids import ulid_of
from thrum.model.wake_types import Reachable, State
from thrum.wake import proofs
from thrum.wake.attempts import Record, Wakeable
from thrum.wake.loop import Loop
from thrum.wake.text import Letter


class Gone(Exception):
    """The daemon was killed: whoever called it finds nobody."""


@dataclass(frozen=True)
class Message:
    message_id: str
    to: str
    author: str = "alice"
    urgent: bool = False
    answers_own: bool = False


@dataclass
class Runtime:
    """One agent's runtime: a model that is given texts, and a hook that sees what it was given."""

    world: World
    agent_id: str
    state: State = "idle"
    since: float = 0.0
    pid: int = 100
    session: str = "s1"
    turn_seconds: float = 20.0
    tool_seconds: float = 0.0
    """While it works, how long until it takes up what it was given."""
    has_hooks: bool = True
    """Whether a hook tells what the model was given."""
    turns_by_itself: bool = True
    """Whether it works once it was given something, and is idle after `turn_seconds`."""
    kept: list[str] = field(default_factory=list[str])
    """What it was given and holds, for a dialog is open."""
    heard: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """When the model was given what: the judge."""
    _turn: int = 0

    def become(self, state: State) -> None:
        self.state, self.since = state, trio.current_time()
        if state not in ("dialog", "gone"):
            kept, self.kept = self.kept, []
            for text in kept:
                self.hear(self.reachable(), text)
        self.world.look(self.agent_id)

    def restart(self, session: str = "") -> None:
        """A new process, or with `session` only a new conversation in the old one; what it held is lost."""
        self.kept.clear()
        self.pid += not session
        self.session = session or f"{self.session}'"
        self.become("idle")

    def reachable(self) -> Reachable:
        process = None if self.state == "gone" else (self.pid, "start")
        return Reachable(self.agent_id, self.state, self.since, process, "claude", self.session)

    def hear(self, agent: Reachable, text: str) -> None:
        """What a door says."""
        if self.state == "gone" or agent.process != (self.pid, "start") or agent.session != self.session:
            return
        if self.state == "dialog":
            self.kept.append(text)
        else:
            trio.lowlevel.spawn_system_task(self._take_up, text, self.session)

    async def _take_up(self, text: str, session: str) -> None:
        if self.state == "working":
            await trio.sleep(self.tool_seconds)
        if self.state in ("gone", "dialog") or self.session != session:
            if self.state == "dialog" and self.session == session:
                self.kept.append(text)
            return
        self.heard.append((trio.current_time(), text))
        if self.turns_by_itself:
            trio.lowlevel.spawn_system_task(self.work)
        if self.has_hooks:
            for token in tokens_in(text):
                await self.world.hook(token)

    async def work(self) -> None:
        """A turn, or more of one."""
        self._turn += 1
        turn = self._turn
        if self.state != "working":
            self.become("working")
        await trio.sleep(self.turn_seconds)
        if self._turn == turn and self.state == "working":
            self.become("idle")

    def told(self) -> Counter[str]:
        """How often the model was told each message."""
        told: Counter[str] = Counter()
        for _, text in self.heard:
            told.update(each for each in self.world.messages if f"\n{each[-6:]} @" in text)
        return told


class Daemon:
    """One life of a daemon: the ports of its loop. It can be killed at any touch of the store, before or after it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop = Loop(self, world.proofs_dir)
        self.scope = trio.CancelScope()
        self.alive = True

    def agents(self) -> Iterable[str]:
        return self.world.runtimes

    def reachable(self, agent_id: str) -> Reachable:
        return self.world.runtimes[agent_id].reachable()

    def doors(self, agent_id: str) -> Sequence[FakeDoor]:
        return self.world.doors[agent_id]

    def wakeable(self, agent_id: str) -> Sequence[Wakeable]:
        world = self.world
        return [
            Wakeable(each.message_id, each.author, each.urgent, each.answers_own)
            for each in world.mail[agent_id].values()
        ]

    def letters(self, message_ids: Sequence[str]) -> Sequence[Letter]:
        known = (self.world.messages.get(each) for each in message_ids)
        return [Letter(each.message_id, each.author, f"body of {each.message_id}") for each in known if each]

    def records(self, agent_id: str) -> Sequence[Record]:
        return [each for each in self.world.attempts.values() if each.agent_id == agent_id]

    def attempt(self, attempt_id: str) -> Record | None:
        return self.world.attempts.get(attempt_id)

    async def record(self, record: Record) -> None:
        await self.touch(lambda: self.world.commit(record))

    async def prove(self, record: Record) -> None:
        def commit() -> None:
            self.world.commit(replace(record, outcome="proved"))
            for message_id in record.message_ids:
                self.world.take(message_id)

        await self.touch(commit)

    async def touch(self, write: Callable[[], None]) -> None:
        """A commit: it takes a moment, may fail, and the daemon may die just before it or just after."""
        self.step()
        await trio.sleep(self.world.commit_seconds)
        if self.world.failures:
            self.world.failures -= 1
            raise StoreFailed("the disk is full")
        if not self.alive:
            raise Gone
        write()
        self.step()

    def step(self) -> None:
        self.world.steps += 1
        if self.world.steps == self.world.killed_at:
            self.kill()
        if not self.alive:
            raise Gone

    def kill(self) -> None:
        self.alive = False
        self.scope.cancel()


@dataclass
class World:
    proofs_dir: Path
    runtimes: dict[str, Runtime] = field(default_factory=dict[str, Runtime])
    doors: dict[str, list[FakeDoor]] = field(default_factory=dict[str, list[FakeDoor]])
    messages: dict[str, Message] = field(default_factory=dict[str, Message])
    mail: dict[str, dict[str, Message]] = field(default_factory=dict[str, dict[str, Message]])
    """What each agent has not seen."""
    seen: list[str] = field(default_factory=list[str])
    """Receipts, in the order in which they were written."""
    facts: list[Record] = field(default_factory=list[Record])
    attempts: dict[str, Record] = field(default_factory=dict[str, Record])
    """Of each attempt its first final outcome."""
    daemon: Daemon | None = None
    commit_seconds: float = 0.0
    failures: int = 0
    """How many of the next commits fail."""
    steps: int = 0
    killed_at: int = -1

    def add(self, agent_id: str, *doors: FakeDoor) -> Runtime:
        """An agent; without `doors` it has a waiter, and a typed line behind it."""
        runtime = self.runtimes[agent_id] = Runtime(self, agent_id)
        self.mail[agent_id] = {}
        typed = FakeDoor(runtime.hear, name="typed", takes=frozenset({"idle"}))
        self.doors[agent_id] = list(doors) or [FakeDoor(runtime.hear), typed]
        return runtime

    def send(self, to: str, count: int = 1, **fields: object) -> list[str]:
        """Messages that are committed together; their ids."""
        made: list[str] = []
        for _ in range(count):
            number = len(self.messages) + 1
            message = Message(f"msg_{ulid_of(number << 80 | number)}", to)
            message = replace(message, **fields)  # pyright: ignore[reportArgumentType]
            self.messages[message.message_id] = self.mail[to][message.message_id] = message
            made.append(message.message_id)
        self.look(to)
        return made

    def take(self, message_id: str) -> None:
        """A receipt `seen`, once; the message wakes nobody any more."""
        message = self.messages[message_id]
        if self.mail[message.to].pop(message_id, None):
            self.seen.append(message_id)
            self.look(message.to)

    def commit(self, record: Record) -> None:
        self.facts.append(record)
        known = self.attempts.get(record.attempt_id)
        if known is None or known.outcome == "offered":
            self.attempts[record.attempt_id] = record
        open_ones = Counter(each.agent_id for each in self.attempts.values() if each.is_open)
        assert max(open_ones.values(), default=0) <= 1, "two open attempts"

    def look(self, agent_id: str) -> None:
        if self.daemon is not None and self.daemon.alive:
            self.daemon.loop.look(agent_id)

    async def hook(self, token: str) -> None:
        """What a hook does with a token that it saw: tell the daemon, or leave it where the next one finds it."""
        try:
            if self.daemon is None or not self.daemon.alive:
                raise Gone
            await self.daemon.loop.prove(token)
        except (Gone, StoreFailed):
            proofs.leave(self.proofs_dir, token)

    async def serve(self) -> None:
        """One life of a daemon, until it is killed."""
        self.daemon = Daemon(self)
        with self.daemon.scope:
            await self.daemon.loop.serve()

    async def serve_again_and_again(self) -> None:
        """A daemon that comes back a moment after it was killed."""
        while True:
            await self.serve()
            await trio.sleep(1)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve_again_and_again)
            await trio.testing.wait_all_tasks_blocked()
            yield
            nursery.cancel_scope.cancel()

    def outcomes(self, agent_id: str = "bob") -> list[tuple[str, str]]:
        """Door and outcome of each attempt."""
        return [(each.door, each.outcome) for each in self.attempts.values() if each.agent_id == agent_id]
