"""What the app-server of one CODEX_HOME tells of its threads, kept by its pushes; and how a text is said to one.

A thread is a conversation: every terminal of that CODEX_HOME has one loaded. The server serves them all, and does not
tell which terminal has which. A steered text that Escape throws away is found out at the end of its turn: the turn's
items do not have it. Measured with 0.171.0 (docs/runtimes.md). Times are milliseconds since 1970.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import trio

from thrum.model.attempt_ids import tokens_in
from thrum.model.wake_types import Failed, Offered, Refused, State
from thrum.runtimes.codex.socket import Connection, NotAnswered, Refusal, ServerGone, serve_connection
from thrum.runtimes.hook_files import is_ours

log = logging.getLogger("thrum.wake")

THREADS_MAX: Final = 1_000
"""More threads than that of one server are passed over."""
_PAUSE_SECONDS: Final = 0.2
_PAUSE_SECONDS_MAX: Final = 5.0
"""Between two tries to connect; a hook of such a session calls for the next one at once."""
_ITEMS_READ: Final = 100
_LOST_KEPT: Final = 100
_WRITTEN_SECONDS: Final = 0.3
_MOMENTS: Final = 20
_MOMENT_SECONDS: Final = 0.05
_OVER: Final = ("completed", "interrupted", "failed")


@dataclass(frozen=True, slots=True)
class Thread:
    """A loaded thread. `hooks`: whether thrum's hook of a prompt is trusted there, so that a wake can be proved;
    `is_new`: whether it was seen to begin."""

    id: str
    cwd: str
    state: State
    since_ms: float
    created_ms: float
    hooks: bool = False
    is_new: bool = False


@dataclass(slots=True)
class _Said:
    """A text that a turn was given and whose taking up is not known yet. `began`: whether the thread was seen at work
    since; a turn that has just begun is listed as one that was interrupted."""

    thread: str
    turn: str
    client_id: str
    token: str
    began: bool


@dataclass(slots=True)
class CodexServer:
    """One app-server. `changed` is called with a thread's id when something about that thread is news; `home`: its
    CODEX_HOME, absolute."""

    home: str
    changed: Callable[[str], None]
    threads: dict[str, Thread] = field(default_factory=dict[str, Thread])
    problem: str = "not connected yet"
    """Why nothing is known of it; empty while it is connected."""
    _connection: Connection | None = None
    _passed_over: set[str] = field(default_factory=set[str])
    _said: dict[str, _Said] = field(default_factory=dict[str, _Said])
    """By thread: at most one wake is under way in each."""
    _lost: dict[str, None] = field(default_factory=dict[str, None])
    """Tokens of texts that were thrown away."""
    _poked: trio.Event = field(default_factory=trio.Event)
    _news: trio.Event = field(default_factory=trio.Event)

    async def serve(self) -> None:
        """Stay connected until cancelled. Whatever the server does is no error here."""
        pause = _PAUSE_SECONDS
        while True:
            self._poked = trio.Event()
            try:
                await serve_connection(self.home, self._note, self._begin)
            except ServerGone as error:
                if self._connection is not None:
                    pause = _PAUSE_SECONDS
                if str(error) != self.problem:
                    log.info("codex app-server: %s", error, extra={"fields": {"home": self.home}})
                self.problem = str(error)
            self._forget_all()
            with trio.move_on_after(pause):
                await self._poked.wait()
            pause = min(_PAUSE_SECONDS_MAX, pause * 2)

    def poke(self) -> None:
        """Something says that the server is there: connect now."""
        self._poked.set()

    async def wait_news(self) -> None:
        """Until a thread came, went or changed, or the connection did."""
        await self._news.wait()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def is_lost(self, token: str) -> bool:
        """Whether a text with that token was thrown away before a model was given it."""
        return token in self._lost

    def lost_of(self, thread_id: str) -> str:
        """The token of the text that was thrown away in that thread last; empty for none."""
        said = self._said.get(thread_id)
        return said.token if said is not None and said.token in self._lost else ""

    # -- saying

    async def say(self, thread_id: str, text: str) -> Offered:
        """Say `text` to a loaded thread: a turn of its own where it is idle, else into the running turn, if that is
        still the one that was seen. The rules of `wake.door.Door.offer` hold.
        """
        connection = self._connection
        if connection is None:
            return Failed(self.problem or "no app-server")
        try:
            status, turn = await _moment(connection, thread_id)
        except (Refusal, ServerGone) as error:
            return Failed(str(error))
        if status is None:
            return Failed("the thread is not loaded")
        if status == "dialog":
            return Refused("a dialog is open")
        if status == "working" and not turn:
            return Refused("between two turns")
        client_id = str(uuid.uuid4())
        params = {
            "threadId": thread_id,
            "input": [{"type": "text", "text": text}],
            "clientUserMessageId": client_id,
        }
        answer: dict[str, Any] = {}
        with trio.CancelScope(shield=True):
            try:
                if turn:
                    answer = await connection.call("turn/steer", {**params, "expectedTurnId": turn})
                else:
                    answer = await connection.call("turn/start", params)
            except Refusal as error:
                return Refused(str(error))
            except NotAnswered:
                return "offered"  # it may have been said: better unseen than told twice
            except ServerGone as error:
                return Failed(str(error))
        told = _text(answer, "turnId") or _text(_object(answer, "turn"), "id") or turn
        tokens = tokens_in(text)
        if told and tokens:
            self._said[thread_id] = _Said(thread_id, told, client_id, tokens[-1], began=bool(turn))
        return "offered"

    async def _settle(self, connection: Connection, thread_id: str) -> None:
        """A turn is over: was the text that it was given taken up? Asked twice, for it is written down in steps."""
        said = self._said.get(thread_id)
        if said is None or not said.began or said.token in self._lost:
            return
        try:
            for pause in (0.0, _WRITTEN_SECONDS):
                await trio.sleep(pause)
                if not await _has_ended(connection, said) or await _was_taken(connection, said):
                    return
            if self._said.get(thread_id) is said:
                self._lost[said.token] = None
                while len(self._lost) > _LOST_KEPT:
                    del self._lost[next(iter(self._lost))]
                log.info("a wake was thrown away with its turn", extra={"fields": {"thread": thread_id}})
                self._tell(thread_id)
        except (Refusal, ServerGone) as error:
            log.info("codex app-server: %s", error)

    # -- what it tells

    async def _begin(self, connection: Connection) -> None:
        """Learn of all threads that are loaded now, then of each that comes, one after the other."""
        self._connection, self.problem = connection, ""
        send, receive = trio.open_memory_channel[str](THREADS_MAX)
        self._learn = send
        cursor: str | None = None
        while True:
            page = await connection.call("thread/loaded/list", {"cursor": cursor} if cursor else {})
            for thread_id in cast("list[object]", page.get("data") or [])[:THREADS_MAX]:
                self._want(str(thread_id))
            cursor = _text(page, "nextCursor")
            if not cursor:
                break
        self._tell("")
        async for thread_id in receive:
            try:
                await self._look(connection, thread_id)
            except Refusal:
                self._drop(thread_id)

    _learn: trio.MemorySendChannel[str] | None = None

    def _want(self, thread_id: str) -> None:
        if self._learn is not None and thread_id not in self._passed_over:
            try:
                self._learn.send_nowait(thread_id)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                log.warning("codex app-server: too many threads")

    async def _look(self, connection: Connection, thread_id: str) -> None:
        """Ask how a thread is; when its turn is over, whether that had the last wake; and of a new one its hooks."""
        known = self.threads.get(thread_id)
        if known is None:
            self._note_thread(_object(await connection.call("thread/read", {"threadId": thread_id}), "thread"))
            known = self.threads.get(thread_id)
        if known is None:
            return
        if known.state == "idle":
            await self._settle(connection, thread_id)
        if not known.hooks:
            hooks = await connection.call("hooks/list", {"threadId": thread_id})
            if proves(hooks) and (known := self.threads.get(thread_id)) is not None:
                self.threads[thread_id] = replace(known, hooks=True)
        self._tell(thread_id)

    def _note(self, method: str, params: dict[str, Any]) -> None:
        """A push. What is not about threads is passed over."""
        if method == "thread/started":
            found = self._note_thread(_object(params, "thread"), is_new=True)
            if found:
                self._want(found)
                self._tell(found)
        elif method == "thread/status/changed":
            self._note_status(_text(params, "threadId"), _object(params, "status"))
        elif method in ("thread/closed", "thread/archived", "thread/deleted"):
            self._drop(_text(params, "threadId"))

    def _note_thread(self, thread: Mapping[str, Any], *, is_new: bool = False) -> str:
        """Remember it, if it is one that a person talks to in a terminal; its id, else empty."""
        thread_id = _text(thread, "id")
        state = _status_of(thread)
        if not thread_id or state is None:
            return ""
        if thread.get("ephemeral") is True or _text(thread, "parentThreadId"):
            if len(self._passed_over) >= THREADS_MAX:
                self._passed_over.clear()
            self._passed_over.add(thread_id)
            return ""
        created = created_ms(thread_id)
        since = max(created, _seconds(thread, "updatedAt") * 1000)
        self.threads[thread_id] = Thread(thread_id, _text(thread, "cwd"), state, since, created, is_new=is_new)
        return thread_id

    def _note_status(self, thread_id: str, status: Mapping[str, Any]) -> None:
        state = state_of(status)
        if state is None:
            self._drop(thread_id)
            return
        said, known = self._said.get(thread_id), self.threads.get(thread_id)
        if said is not None and state == "working":
            said.began = True
        if known is not None and known.state != state:
            # Since when: as it is told, for that is now; a clock of ours would say the same.
            self.threads[thread_id] = replace(known, state=state, since_ms=0.0)
            self._tell(thread_id)
        self._want(thread_id)

    def _drop(self, thread_id: str) -> None:
        self._said.pop(thread_id, None)
        if self.threads.pop(thread_id, None) is not None:
            self._tell(thread_id)

    def _forget_all(self) -> None:
        self._connection = self._learn = None
        gone = list(self.threads)
        self.threads.clear()
        self._passed_over.clear()
        for thread_id in gone:
            self._tell(thread_id)

    def _tell(self, thread_id: str) -> None:
        news, self._news = self._news, trio.Event()
        news.set()
        self.changed(thread_id)


# -- pure


def state_of(status: Mapping[str, Any]) -> State | None:
    """`ThreadStatus` of the protocol; None: the thread is not loaded."""
    match status.get("type"):
        case "idle" | "systemError":
            return "idle"
        case "active":
            # Either flag: a person is asked something.
            return "dialog" if status.get("activeFlags") else "working"
        case "notLoaded":
            return None
        case _:
            return "unknown"


def created_ms(thread_id: str) -> float:
    """When a thread was made: its id is a UUID of version 7. 0 where it is none."""
    try:
        found = uuid.UUID(thread_id)
    except ValueError:
        return 0.0
    return float(found.int >> 80) if found.version == 7 else 0.0


def proves(hooks: Mapping[str, Any]) -> bool:
    """Whether an answer to `hooks/list` has thrum's hook of a prompt, trusted: it will tell what a model is given."""
    return any(
        hook.get("eventName") == "userPromptSubmit"
        and hook.get("enabled") is True
        and hook.get("trustStatus") in ("trusted", "managed")
        and is_ours(hook.get("command"))
        for hook in hooks_in(hooks)
    )


def hooks_in(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All hooks in an answer to `hooks/list`."""
    return [hook for entry in _objects(answer, "data") for hook in _objects(entry, "hooks")]


async def _moment(connection: Connection, thread_id: str) -> tuple[State | None, str]:
    """The state of a thread, and its running turn. What works without a turn is between two states: asked again."""
    for _ in range(_MOMENTS):
        status = _status_of((await connection.call("thread/read", {"threadId": thread_id})).get("thread"))
        turn = await _active_turn(connection, thread_id) if status == "working" else ""
        if status != "working" or turn:
            return status, turn
        await trio.sleep(_MOMENT_SECONDS)
    return "working", ""


async def _active_turn(connection: Connection, thread_id: str) -> str:
    """The turn that runs; empty for none."""
    answer = await connection.call("thread/turns/list", {"threadId": thread_id, "limit": 1})
    return next((_text(turn, "id") for turn in _objects(answer, "data") if turn.get("status") == "inProgress"), "")


async def _has_ended(connection: Connection, said: _Said) -> bool:
    """Whether the turn that was given it is listed as over."""
    answer = await connection.call("thread/turns/list", {"threadId": said.thread, "limit": 5})
    return any(_text(turn, "id") == said.turn and turn.get("status") in _OVER for turn in _objects(answer, "data"))


async def _was_taken(connection: Connection, said: _Said) -> bool:
    """Whether it stands among the items of its turn."""
    cursor = ""
    while True:
        params = {"threadId": said.thread, "turnId": said.turn, "limit": _ITEMS_READ, "sortDirection": "desc"}
        answer = await connection.call("thread/items/list", {**params, "cursor": cursor} if cursor else params)
        if any(_text(_object(entry, "item"), "clientId") == said.client_id for entry in _objects(answer, "data")):
            return True
        cursor = _text(answer, "nextCursor")
        if not cursor:
            return False


def _status_of(thread: object) -> State | None:
    return state_of(_object(cast("Mapping[str, Any]", thread), "status")) if isinstance(thread, dict) else None


def _object(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _objects(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = found.get(name)
    listed = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", each) for each in listed if isinstance(each, dict)]


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _seconds(found: Mapping[str, Any], name: str) -> float:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
