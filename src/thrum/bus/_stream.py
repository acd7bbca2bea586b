"""How a subscriber follows one audience: bus for the moment, store for the content, reconnecting in between.

Written once for the blocking and the trio form: the coroutines here only wait inside a `Link`, and a blocking link
never suspends. State changes only after an answer is there, so a call that is cancelled anywhere loses nothing.
Source: rpc.md §8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

from thrum.bus._cursor import Cursor, Do, Position
from thrum.bus.topics import Frame, Head, agent_audience, audience_of_topic, read_frame
from thrum.model import clock, ids, limits
from thrum.model.errors import DaemonUnavailable, IdentityMismatch, NoIdentity, ShuttingDown, StaleCursor
from thrum.model.methods.agents import AGENT_WHOAMI
from thrum.model.methods.daemon import BUS_INFO, EVENTS_SINCE, BusInfo, EventsSinceParams
from thrum.model.methods.messages import MESSAGE_LIST, MESSAGE_MARK_READ, MarkReadParams, MessageListParams
from thrum.model.methods.method import Empty, Method, P, R
from thrum.model.wire_types import Hint, Message

T = TypeVar("T")

RESET_MARGIN_MS: Final = 60_000
"""After a database was rebuilt, what is older than the last sound moment by more than this counts as known."""

KNOWN_MAX: Final = 100_000
"""Ids remembered for that case."""

_BACKOFF_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.5)


class Link(Protocol):
    """Both ways to one daemon: calls and frames."""

    async def connect(self) -> None:
        """Reach the daemon, dropping what was open. DaemonUnavailable if there is none."""
        ...

    async def listen(self, endpoint: str, audience: str) -> None:
        """Begin to receive an audience's frames."""
        ...

    async def call(self, method: Method[P, R], params: P) -> R:
        """One method; its result. DaemonUnavailable when the connection ended."""
        ...

    async def frame(self, deadline: float | None) -> Frame | None:
        """The next frame; None when `now()` has reached the deadline. DaemonUnavailable when the connection ended."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait."""
        ...

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...


class Follower(ABC, Generic[T]):
    """One audience, followed. `open` once, then `next` again and again; not for two tasks at once."""

    def __init__(self, link: Link, *, claim: str, reconnect_seconds: float, wall_clock: clock.Clock) -> None:
        self._link = link
        self._claim = claim
        self._reconnect_seconds = reconnect_seconds
        self._clock = wall_clock
        self._cursor = Cursor("", 0)
        self._ready: deque[T] = deque()
        self._owed = True
        """The store has to be asked before the next frame means anything."""
        self._lost_since: float | None = None
        self._tries = 0
        self.audience = ""
        self.reconnects = 0
        """How often the daemon was lost and found again."""

    @property
    def is_lost(self) -> bool:
        """Whether the daemon is gone, and looked for."""
        return self._lost_since is not None

    async def open(self, wait_seconds: float) -> None:
        """Reach the daemon, for so long at most, and find the place to begin. DaemonUnavailable, StaleCursor."""
        give_up = self._link.now() + wait_seconds
        while True:
            try:
                await self._link.connect()
                await self._begin()
                info = await self._info()
                await self._settle(info)
                await self._link.listen(info.endpoint, self.audience)
                return
            except (DaemonUnavailable, ShuttingDown):
                if self._link.now() >= give_up:
                    raise
                await self._link.pause(self._backoff())

    async def next(self, timeout_seconds: float | None) -> T | None:
        """The next item; None when the time is over. DaemonUnavailable when the daemon stays away too long."""
        deadline = None if timeout_seconds is None else self._link.now() + timeout_seconds
        while True:
            try:
                if self._lost_since is None:
                    await self._before_next()
                if self._ready:
                    return self._take(self._ready.popleft())
                if self._lost_since is not None:
                    if not await self._reconnect(deadline):
                        return None
                elif self._owed:
                    await self._fetch()
                    self._tries = 0
                else:
                    frame = await self._link.frame(deadline)
                    if frame is None:
                        return None
                    self._tries = 0
                    await self._look(frame)
            except (DaemonUnavailable, ShuttingDown):
                if self._lost_since is not None:
                    raise
                self._lost_since = self._link.now()
                await self._link.pause(self._backoff())

    async def _reconnect(self, deadline: float | None) -> bool:
        """One try to reach the daemon again. False when the caller's time is over, DaemonUnavailable after too long."""
        assert self._lost_since is not None
        try:
            await self._link.connect()
            info = await self._info()
            if info.epoch != self._cursor.epoch:
                self._reset(info)
            await self._link.listen(info.endpoint, self.audience)
        except (DaemonUnavailable, ShuttingDown) as error:
            now = self._link.now()
            if deadline is not None and now >= deadline:
                return False
            if now - self._lost_since >= self._reconnect_seconds:
                self._lost_since = now  # the next call waits again
                raise DaemonUnavailable(
                    f"the daemon is gone and did not come back within {self._reconnect_seconds:g} s"
                ) from error
            pause = self._backoff()
            await self._link.pause(pause if deadline is None else min(pause, deadline - now))
            return True
        self._owed, self._lost_since = True, None
        self.reconnects += 1
        return True

    def _backoff(self) -> float:
        self._tries += 1
        return _BACKOFF_SECONDS[min(self._tries, len(_BACKOFF_SECONDS)) - 1]

    async def _look(self, frame: Frame) -> None:
        """One frame, by the table of rpc.md §8."""
        said = read_frame(frame)
        if said is None or audience_of_topic(frame.topic.decode("utf-8", "replace")) != self.audience:
            return
        do = self._cursor.see(said) if isinstance(said, Head) else self._see_hint(said)
        if do is Do.FETCH:
            self._owed = True
            self._hinted(said.seq)
        elif do is Do.RESET:
            await self._start_over()
        elif isinstance(said, Head):
            self._caught_up(said.at)

    async def _start_over(self) -> None:
        info = await self._info()
        if info.epoch != self._cursor.epoch:  # else it was a frame from before
            self._reset(info)

    async def _info(self) -> BusInfo:
        return await self._link.call(BUS_INFO, Empty())

    async def _before_next(self) -> None:
        """What is to be done for the item before, once its handler has come back."""

    async def _begin(self) -> None:
        """Set `audience`, asking the daemon if need be."""

    @abstractmethod
    async def _settle(self, info: BusInfo) -> None:
        """Set the cursor to where the stream begins."""

    @abstractmethod
    def _see_hint(self, hint: Hint) -> Do:
        """Judge a hint with the cursor, and take it if it is the next one."""

    @abstractmethod
    async def _fetch(self) -> None:
        """Read one batch from the store; `_owed` goes when nothing is left."""

    @abstractmethod
    def _reset(self, info: BusInfo) -> None:
        """The database was rebuilt: start over, skipping what is known."""

    @abstractmethod
    def _take(self, item: T) -> T:
        """An item goes out."""

    def _hinted(self, seq: int) -> None:
        """The bus says that there is something up to `seq`."""

    def _caught_up(self, at: str) -> None:
        """Everything up to the time `at` was read."""


class Known:
    """Ids of what went out, so that nothing goes out again after the numbers were reassigned."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._ids

    def add(self, item_id: str, at: str) -> None:
        """Remember one; beyond `KNOWN_MAX` the oldest go."""
        self._ids[item_id] = at
        if len(self._ids) > KNOWN_MAX:
            del self._ids[next(iter(self._ids))]

    def forget_before(self, at: str) -> None:
        """Drop the ids of things older than `at`, if it is worth the walk."""
        if len(self._ids) > 1_000:
            self._ids = {item_id: when for item_id, when in self._ids.items() if when >= at}


class EventFollower(Follower[Hint]):
    """Every fact of one audience, once and in order of `seq`.

    `start`: None = from now, 0 = from the first fact, else a position. With `full`, each comes with its fact as stored.
    """

    def __init__(
        self,
        link: Link,
        audience: str,
        *,
        start: Position | int | None,
        types: tuple[str, ...] = (),
        full: bool = False,
        claim: str = "",
        reconnect_seconds: float = limits.watch_reconnect_seconds,
        wall_clock: clock.Clock | None = None,
    ) -> None:
        super().__init__(
            link, claim=claim, reconnect_seconds=reconnect_seconds, wall_clock=wall_clock or clock.SystemClock()
        )
        self.audience = audience
        self._start = start
        self._types = frozenset(types)
        self._full = full
        self._known = Known()
        self._begun_at = ""
        self._sound_at = ""
        self._replayed_up_to = 0
        self._out = Position("", 0)

    @property
    def position(self) -> Position:
        """Up to where items went out: what to store, and to give as `start` later."""
        return self._out if self._ready or self._lost_since is not None else self._cursor.position

    async def _begin(self) -> None:
        if self._start is None:
            self._begun_at = self._sound_at = clock.format_ms(self._clock.now_ms())
        elif self._start == 0:
            self._begun_at = self._sound_at = clock.format_ms(0)

    async def _settle(self, info: BusInfo) -> None:
        start = self._start
        if isinstance(start, Position):
            if start.epoch != info.epoch:
                raise StaleCursor("the database was rebuilt since that cursor", epoch=info.epoch)
            if start.seq > info.seq:
                raise StaleCursor("that cursor is ahead of this daemon", epoch=info.epoch)
            seq = start.seq
        else:
            seq = info.seq if start is None else start
        self._owed = start is not None
        self._cursor.reset(info.epoch, seq)
        self._out = self._cursor.position

    def _see_hint(self, hint: Hint) -> Do:
        if self._full and hint.epoch == self._cursor.epoch and hint.seq > self._cursor.seq:
            return Do.FETCH
        do = self._cursor.see(hint)
        if do is Do.HANDLE:
            self._accept(hint)
        return do

    def _accept(self, hint: Hint) -> None:
        if self._types and hint.type not in self._types:
            return
        if hint.seq <= self._replayed_up_to and (hint.event_id in self._known or hint.at < self._floor()):
            return
        # Behind a stored cursor the first fact tells the time up to which an earlier run saw to all.
        self._begun_at = self._begun_at or hint.at
        self._known.add(hint.event_id, hint.at)
        self._ready.append(hint)

    async def _fetch(self) -> None:
        began = clock.format_ms(self._clock.now_ms())
        cursor = self._cursor
        try:
            found = await self._link.call(
                EVENTS_SINCE,
                EventsSinceParams(
                    after_seq=cursor.seq,
                    epoch=cursor.epoch,
                    topics=(self.audience,),
                    types=tuple(sorted(self._types)),
                    full=self._full,
                    caller_agent_id=self._claim,
                ),
            )
        except StaleCursor:
            await self._start_over()
            return
        for hint in found.events:
            if hint.seq > cursor.seq:
                self._accept(hint)
        cursor.fetched(found.next_seq)
        if not found.more:
            self._owed = False
            self._caught_up(began)

    def _reset(self, info: BusInfo) -> None:
        if not self._sound_at:
            # Resumed from a stored cursor and never caught up: what came before it is not known here.
            raise StaleCursor("the database was rebuilt since that cursor", epoch=info.epoch)
        self._replayed_up_to = info.seq
        self._cursor.reset(info.epoch, 0)
        self._owed = True

    def _caught_up(self, at: str) -> None:
        self._sound_at = max(self._sound_at, at)
        self._begun_at = self._begun_at or at
        self._known.forget_before(self._floor())

    def _floor(self) -> str:
        """Facts from before this time were sent, or existed before the stream began."""
        return max(self._begun_at, clock.format_ms(max(0, clock.parse_ms(self._sound_at) - RESET_MARGIN_MS)))

    def _take(self, item: Hint) -> Hint:
        self._out = Position(item.epoch, item.seq)
        return item


class InboxFollower(Follower[Message]):
    """Every unread message to one agent or user: those that are there, then each as it comes; each once. Not those that
    were replaced or have expired.

    The bus only rings; the messages come from `message.list`, in order of `seq`. With `mark`, a message is marked as
    read when its handler comes back for the next one.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        *,
        mark: bool = True,
        quiet: bool = False,
        reconnect_seconds: float = limits.watch_reconnect_seconds,
        wall_clock: clock.Clock | None = None,
    ) -> None:
        super().__init__(
            link, claim=name, reconnect_seconds=reconnect_seconds, wall_clock=wall_clock or clock.SystemClock()
        )
        self._mark = mark
        self._quiet = quiet
        self._known = Known()
        self._listed_up_to = 0
        self._hinted_up_to = 0
        self._handled: list[str] = []
        self._in_hand = ""
        self.agent_id = ""

    async def finish(self) -> None:
        """Mark the last message as read: its handler came to its end. DaemonUnavailable: then it stays unread."""
        await self._before_next()

    async def _before_next(self) -> None:
        if self._in_hand:
            self._handled.append(self._in_hand)
            self._in_hand = ""
        if self._handled:
            handled = tuple(self._handled)
            params = MarkReadParams(message_ids=handled, caller_agent_id=self._claim)
            await self._link.call(MESSAGE_MARK_READ, params)
            del self._handled[: len(handled)]

    async def _begin(self) -> None:
        me = await self._link.call(AGENT_WHOAMI, Empty(caller_agent_id=self._claim))
        if not me.agent_id:
            raise NoIdentity("no identity here")
        if self._claim and me.agent_id != ids.parse_agent_id(self._claim).canonical:
            raise IdentityMismatch(f"this process is {me.agent_id}, not {self._claim}")
        self.agent_id = self._claim = me.agent_id
        self.audience = agent_audience(me.agent_id)

    async def _settle(self, info: BusInfo) -> None:
        self._cursor.reset(info.epoch, info.seq)
        self._hinted_up_to = info.seq

    def _see_hint(self, hint: Hint) -> Do:
        do = self._cursor.see(hint)
        # Of what comes on this stream only a new message fills an inbox.
        return Do.FETCH if do is Do.HANDLE and hint.type == "message.create" else do

    def _hinted(self, seq: int) -> None:
        self._hinted_up_to = max(self._hinted_up_to, seq)

    async def _fetch(self) -> None:
        try:
            found = await self._link.call(
                MESSAGE_LIST,
                MessageListParams(
                    unread_for_agent=self.agent_id,
                    after_seq=self._listed_up_to,
                    epoch=self._cursor.epoch,
                    caller_agent_id=self._claim,
                ),
            )
        except StaleCursor:
            await self._start_over()
            return
        for message in found.messages:
            self._accept(message)
        self._listed_up_to = max(self._listed_up_to, found.next_seq or 0)
        if not found.more:
            self._owed = False
            self._cursor.fetched(self._hinted_up_to)

    def _accept(self, message: Message) -> None:
        unwanted = message.deleted or message.agent_id == self.agent_id or (message.quiet and not self._quiet)
        unwanted = unwanted or message.is_over(clock.format_ms(self._clock.now_ms()))
        if unwanted or message.seq <= self._listed_up_to or message.message_id in self._known:
            return
        self._known.add(message.message_id, message.created_at)
        self._ready.append(message)

    def _reset(self, info: BusInfo) -> None:
        self._cursor.reset(info.epoch, info.seq)
        self._listed_up_to, self._hinted_up_to = 0, info.seq
        self._owed = True

    def _take(self, item: Message) -> Message:
        if self._mark:
            self._in_hand = item.message_id
        return item
