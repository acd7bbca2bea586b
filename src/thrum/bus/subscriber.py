"""Listen to thrum from any Python program: every message or fact once, in order, across restarts of the daemon.

    from thrum.bus.subscriber import open_inbox

    with open_inbox("furiosa") as inbox:
        for message in inbox:
            print(message.agent_id, message.body.content)

`open_inbox` gives the unread messages of one agent or user, then each new one, and marks each as read when the loop
comes back for the next. `open_stream` gives every fact of an audience (`all/`, `team/`, `agent/bob/`, `role/tester/`,
`group/reviewers/`), from now on or from a stored cursor. Each has a trio form, `…_async`, used with `async with` and
`async for`.

- The repository is that of the working directory, or `repo=`. A daemon is never started: `DaemonUnavailable` names the
  command that does; `wait_seconds=` waits for one.
- If the daemon goes away, the stream waits `reconnect_seconds` for it, then raises `DaemonUnavailable`; the next call
  waits again. Nothing is lost or repeated in between, even if the database was rebuilt.
- Every refusal is a `ThrumError`, exported here, with `kind`, `message` and `remedy`.
- One thread or task at a time per stream. After a fork the child must open its own: a parent's stream is refused there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import trio

from thrum.bus._cursor import Position, parse_position
from thrum.bus._links import BlockingLink, TrioLink
from thrum.bus._stream import EventFollower, Follower, InboxFollower
from thrum.bus.topics import agent_audience, group_audience, is_audience, role_audience
from thrum.model import limits, paths
from thrum.model.errors import BadCursor, InvalidParams, ThrumError
from thrum.model.wire_types import Hint, Message
from thrum.rpc import client

__all__ = [
    "AsyncInbox",
    "AsyncStream",
    "Hint",
    "Inbox",
    "Message",
    "Position",
    "Stream",
    "ThrumError",
    "agent_audience",
    "group_audience",
    "open_inbox",
    "open_inbox_async",
    "open_stream",
    "open_stream_async",
    "role_audience",
]

T = TypeVar("T")

RECONNECT_SECONDS = limits.watch_reconnect_seconds


# -- blocking


class _Blocking(Generic[T]):
    def __init__(self, follower: Follower[T]) -> None:
        self._follower = follower
        self._pid = os.getpid()

    @property
    def audience(self) -> str:
        """What it is subscribed to, e.g. `agent/bob/`."""
        return self._follower.audience

    @property
    def reconnects(self) -> int:
        """How often the daemon was lost and found again. What comes after has lost nothing."""
        return self._follower.reconnects

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self.next()
        assert item is not None, "without a timeout there is always an item"
        return item

    def next(self, timeout_seconds: float | None = None) -> T | None:
        """The next item; None when `timeout_seconds` went by. 0: only what is there now; None: as long as it takes.

        Raises DaemonUnavailable when the daemon was gone for `reconnect_seconds`; calling again waits again.
        """
        if os.getpid() != self._pid:
            raise InvalidParams("this stream was opened by another process", remedy="open it after the fork")
        return run_blocking(self._follower.next(timeout_seconds))


class Inbox(_Blocking[Message]):
    """Unread messages to one agent or user, then each new one. Iterate it, or call `next`."""

    def __init__(self, follower: InboxFollower) -> None:
        super().__init__(follower)
        self._inbox = follower

    @property
    def agent_id(self) -> str:
        """Whose inbox it is."""
        return self._inbox.agent_id


class Stream(_Blocking[Hint]):
    """The facts of one audience, in order of `seq`. Iterate it, or call `next`."""

    def __init__(self, follower: EventFollower) -> None:
        super().__init__(follower)
        self._events = follower

    @property
    def cursor(self) -> Position:
        """Up to where items were handed out. Store `str(stream.cursor)` together with what you made of the item, and
        give it to `open_stream(cursor=…)` later: no item is lost or repeated.
        """
        return self._events.position


@contextlib.contextmanager
def open_inbox(
    name: str = "",
    *,
    repo: str | os.PathLike[str] | None = None,
    mark: bool = True,
    quiet: bool = False,
    wait_seconds: float = 0.0,
    reconnect_seconds: float = RECONNECT_SECONDS,
) -> Generator[Inbox]:
    """The inbox of the agent or user that this process is; `name` says which, where its worktree has several.

    Gives what is unread, then each new message, each once, in the order of arrival; not one's own, nor deleted ones,
    nor posts to the team without recipients (unless `quiet`). With `mark` a message is marked as read when the loop
    comes back for the next one, or ends without an error: one that a crash interrupted comes again.

    Raises DaemonUnavailable, NotARepository, NotInitialized, NoIdentity, IdentityMismatch and kin.
    """
    with contextlib.closing(_blocking_link(repo)) as link:
        follower = InboxFollower(link, name, mark=mark, quiet=quiet, reconnect_seconds=reconnect_seconds)
        run_blocking(follower.open(wait_seconds))
        yield Inbox(follower)
        run_blocking(follower.finish())


@contextlib.contextmanager
def open_stream(
    audience: str = "all/",
    *,
    cursor: Position | str | int | None = None,
    types: tuple[str, ...] = (),
    full: bool = False,
    repo: str | os.PathLike[str] | None = None,
    wait_seconds: float = 0.0,
    reconnect_seconds: float = RECONNECT_SECONDS,
) -> Generator[Stream]:
    """Every fact that an audience hears of, each once, in order of `seq`.

    `cursor`: None begins now, 0 with the first fact, else a stored `stream.cursor`. `types` keeps only these, e.g.
    `("message.create",)`. With `full` each hint carries its `fact`, the JSON as it is on disk.

    Raises BadCursor; StaleCursor when the database was rebuilt since the cursor was stored (begin with 0 and skip
    the `event_id`s you know); InvalidParams for what is no audience; DaemonUnavailable, NotARepository, NotInitialized.
    """
    start = _start(audience, cursor)
    with contextlib.closing(_blocking_link(repo)) as link:
        follower = EventFollower(
            link, audience, start=start, types=types, full=full, reconnect_seconds=reconnect_seconds
        )
        run_blocking(follower.open(wait_seconds))
        yield Stream(follower)


# -- trio


class _Async(Generic[T]):
    def __init__(self, follower: Follower[T]) -> None:
        self._follower = follower

    @property
    def audience(self) -> str:
        """What it is subscribed to, e.g. `agent/bob/`."""
        return self._follower.audience

    @property
    def reconnects(self) -> int:
        """How often the daemon was lost and found again. What comes after has lost nothing."""
        return self._follower.reconnects

    @property
    def is_lost(self) -> bool:
        """Whether the daemon is gone, and looked for."""
        return self._follower.is_lost

    def __aiter__(self) -> _Async[T]:
        return self

    async def __anext__(self) -> T:
        item = await self.next()
        assert item is not None, "without a timeout there is always an item"
        return item

    async def next(self, timeout_seconds: float | None = None) -> T | None:
        """As the blocking `next`. May be cancelled anywhere: no item is lost by it."""
        await trio.lowlevel.checkpoint()
        return await self._follower.next(timeout_seconds)


class AsyncInbox(_Async[Message]):
    """`Inbox` for trio."""

    def __init__(self, follower: InboxFollower) -> None:
        super().__init__(follower)
        self._inbox = follower

    @property
    def agent_id(self) -> str:
        """Whose inbox it is."""
        return self._inbox.agent_id


class AsyncStream(_Async[Hint]):
    """`Stream` for trio."""

    def __init__(self, follower: EventFollower) -> None:
        super().__init__(follower)
        self._events = follower

    @property
    def cursor(self) -> Position:
        """As `Stream.cursor`."""
        return self._events.position


@contextlib.asynccontextmanager
async def open_inbox_async(
    name: str = "",
    *,
    repo: str | os.PathLike[str] | None = None,
    mark: bool = True,
    quiet: bool = False,
    wait_seconds: float = 0.0,
    reconnect_seconds: float = RECONNECT_SECONDS,
) -> AsyncGenerator[AsyncInbox]:
    """`open_inbox` for trio."""
    async with _open_trio_link(repo) as link:
        follower = InboxFollower(link, name, mark=mark, quiet=quiet, reconnect_seconds=reconnect_seconds)
        await follower.open(wait_seconds)
        yield AsyncInbox(follower)
        await follower.finish()


@contextlib.asynccontextmanager
async def open_stream_async(
    audience: str = "all/",
    *,
    cursor: Position | str | int | None = None,
    types: tuple[str, ...] = (),
    full: bool = False,
    repo: str | os.PathLike[str] | None = None,
    wait_seconds: float = 0.0,
    reconnect_seconds: float = RECONNECT_SECONDS,
) -> AsyncGenerator[AsyncStream]:
    """`open_stream` for trio."""
    start = _start(audience, cursor)
    async with _open_trio_link(repo) as link:
        follower = EventFollower(
            link, audience, start=start, types=types, full=full, reconnect_seconds=reconnect_seconds
        )
        await follower.open(wait_seconds)
        yield AsyncStream(follower)


# -- shared


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over a blocking link: it never suspends, so one step is all of it."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise RuntimeError("a blocking stream does not suspend")


def _start(audience: str, cursor: Position | str | int | None) -> Position | int | None:
    if not is_audience(audience):
        raise InvalidParams(
            f'not an audience: "{audience[:80]}"',
            remedy="use all/, team/, agent/ID/, role/ROLE/ or group/NAME/, with the trailing slash",
            field="audience",
        )
    if cursor is None or isinstance(cursor, Position):
        return cursor
    if cursor in (0, "0"):
        return 0
    if isinstance(cursor, int):
        raise BadCursor(f"not a cursor: {cursor}", remedy="use 0, or a value of str(stream.cursor)")
    return parse_position(cursor)


def _socket(repo: str | os.PathLike[str] | None) -> Path:
    return paths.find_layout(Path.cwd() if repo is None else Path(repo)).socket_path


def _blocking_link(repo: str | os.PathLike[str] | None) -> BlockingLink:
    path = _socket(repo)
    return BlockingLink(lambda: client.BlockingClient(path))


@contextlib.asynccontextmanager
async def _open_trio_link(repo: str | os.PathLike[str] | None) -> AsyncGenerator[TrioLink]:
    path = _socket(repo)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        link = TrioLink(nursery, lambda: client.open_client(path))
        try:
            yield link
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as error:
            failure = error  # past the nursery, which would wrap it in a group
        finally:
            link.close()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
