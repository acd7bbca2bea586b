"""When rounds run, and their status: on change, on a timer, on demand; never two at once (issue "The loop").

The loop knows neither git nor the store: a round is passed in as something to run in a thread. Source: cli.md 3.13,
3.19, rpc.md "Sync".
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

import trio

from thrum.model.errors import StoreFailed, ThrumError
from thrum.sync.ports import RemoteFailed
from thrum.sync.round import Outcome

log: Final = logging.getLogger("thrum.sync")

State = Literal["local-only", "stopped", "idle", "syncing", "synced", "offline", "error"]

SETTLE_SECONDS: Final = 0.03
"""What one command writes comes within so long."""
PEEK_SECONDS: Final = 0.5
"""How often the ref of a remote on this machine is looked at."""
BRISK_PEEK_SECONDS: Final = 0.1
"""The same while clones talk: an answer is likely."""
PEEK_SECONDS_MAX: Final = 5.0
"""A look that takes longer (a mount that is dead) tells nothing, and there is no other one until it has ended."""
BRISK_SECONDS: Final = 60.0
"""So long after something was sent or came."""
LOOK_SECONDS: Final = 5.0
"""How often the settings are looked at while nothing else happens, and a remote that cannot be peeked at is tried."""
BACKOFF_SECONDS_MIN: Final = 1.0
BACKOFF_SECONDS_MAX: Final = 300.0
BESIDE_MAX: Final = 20
"""How many rounds may leave something on the disk while it is cared for."""
STOP_SECONDS: Final = 2.0
"""How long a round may take when the daemon stops. The next one does the rest."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What the settings ask for, as of now."""

    local_only: bool
    reason: str = ""
    """Why nothing is fetched and pushed."""
    lacks_remote: bool = False
    """It is local only because there is no remote, as far as is known."""
    remote: str = "origin"
    """The name of the remote."""
    addresses: str = ""
    """Where that is, as far as is known: another address is another remote."""
    interval_seconds: float = 15.0
    debounce_seconds: float = 0.3


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What one round is to do."""

    fetch: bool
    push: bool


@dataclass(frozen=True, slots=True)
class Report:
    """How the last round went, for `sync.force` and `sync.status`."""

    result: Literal["synced", "error", "nothing_to_do"]
    received: int = 0
    sent: int = 0


@dataclass(slots=True)
class Status:
    """What is true of the sync. `trouble`: `offline`, `refused` … or `""`."""

    state: State = "idle"
    last_sync_at_ms: int = 0
    last_error: str = ""
    remedy: str = ""
    trouble: str = ""
    skipped: frozenset[str] = frozenset()


@dataclass(slots=True)
class Loop:
    """The one task that runs rounds.

    `mode()` is asked before each round. `run_round(request, outcome, is_stopping)` runs one, in a thread that may be
    abandoned. `peek()` gives a text that changes with the remote's ref, None where that can't be told cheaply, or, of
    what is local only, the commit that our own branch is at: a push from another clone may move it. `tidy()` cares for
    the disk, beside rounds; both block. `interrupt()` ends what a round waits for, from another thread.
    `on_status` hears of every change.
    """

    mode: Callable[[], Mode]
    run_round: Callable[[SyncRequest, Outcome, Callable[[], bool]], None]
    peek: Callable[[], str | None]
    tidy: Callable[[], None]
    interrupt: Callable[[], None]
    now_ms: Callable[[], int]
    on_status: Callable[[Status], None]
    status: Status = field(default_factory=Status)
    _wake: trio.Event = field(default_factory=trio.Event)
    _changed_at: float | None = None
    """When the first change came that no round has begun with."""
    _look: bool = False
    """Whether the next round must ask the remote, whatever the timer says."""
    _waiting: list[tuple[trio.Event, list[Report]]] = field(default_factory=list[tuple[trio.Event, list[Report]]])
    _failures: int = 0
    _ended_at: float = -inf
    """When the last round ended."""
    _brisk_until: float = -inf
    _tidying: trio.Event | None = None
    """Set when the disk maintenance under way has ended."""
    _beside: int = 0
    """Rounds since that began."""
    _seen: str | None = None
    """What `peek` gave when the remote was last asked."""
    _tip: str = ""
    """Where the last round left our branch."""
    _peeks: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    """A thread that was left keeps its place until it has ended."""
    _peek_hangs: bool = False
    _complaints: dict[str, str] = field(default_factory=dict[str, str])
    """What was last logged of what goes wrong again and again."""

    def note_change(self) -> None:
        """Something that travels was committed here."""
        if self._changed_at is None:
            self._changed_at = trio.current_time()
            self._wake.set()

    def poke(self) -> None:
        """Ask the remote now."""
        self._look = True
        self._wake.set()

    async def force(self, timeout_seconds: float) -> Report | None:
        """Start a round now and wait for its end, up to the timeout: None if it is still running, or for a timeout of
        0."""
        done, report = trio.Event(), list[Report]()
        self._waiting.append((done, report))
        self.poke()
        with trio.move_on_after(timeout_seconds):
            await done.wait()
        return report[0] if report else None

    async def serve_sync(self) -> None:
        """Run rounds until cancelled. Whatever a round raises is reported, never fatal."""
        last_look = -inf
        backoff_until = 0.0
        self._changed_at = trio.current_time()  # what an earlier life did not come to
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._peek_on)
            try:
                while True:
                    mode = self.mode()
                    await self._wait_for_work(mode, last_look, backoff_until)
                    mode = self.mode()
                    forced, waiting, self._waiting = self._look, self._waiting, []
                    due = trio.current_time() >= last_look + mode.interval_seconds
                    fetch = not mode.local_only and (forced or due or self._failures > 0)
                    self._look, self._changed_at = False, None
                    report = await self._run(SyncRequest(fetch, not mode.local_only), mode)
                    if fetch or mode.local_only:
                        last_look = trio.current_time()
                    self._ended_at = trio.current_time()
                    backoff_until = self._ended_at + self._backoff()
                    for done, answer in waiting:
                        answer.append(report)
                        done.set()
                    await self._tidy_beside(nursery)
            finally:
                self._set(state="stopped")

    async def _wait_for_work(self, mode: Mode, last_look: float, backoff_until: float) -> None:
        """Until a round is due: forced, a change that has settled, or the timer; after a failure not too soon."""
        while not self._look:
            self._wake = trio.Event()
            due = inf if mode.local_only else last_look + mode.interval_seconds
            if self._changed_at is not None:
                due = min(due, self._settled_at(mode, self._changed_at))
            if self._failures:
                due = backoff_until
            now = trio.current_time()
            if now >= due:
                return
            with trio.move_on_at(min(due, now + LOOK_SECONDS)):
                await self._wake.wait()
            fresh = self.mode()
            if fresh != mode:
                self._look = self._look or not fresh.local_only
                return

    def _settled_at(self, mode: Mode, changed_at: float) -> float:
        """When a change is to go: soon after quiet, else so long after the last round that it takes others along."""
        if mode.local_only:
            return changed_at + mode.interval_seconds  # a commit that stays here is not urgent
        return max(changed_at + min(SETTLE_SECONDS, mode.debounce_seconds), self._ended_at + mode.debounce_seconds)

    async def _run(self, request: SyncRequest, mode: Mode) -> Report:
        self._set(state="syncing")
        outcome = Outcome()
        if request.fetch:
            self._seen = await self._peek_in_time()
        try:
            await self._run_in_thread(request, outcome)
        except RemoteFailed as failed:
            self._failures += 1
            self._set(
                state="offline" if failed.trouble == "offline" else "error",
                last_error=failed.reason,
                remedy=failed.remedy,
                trouble=failed.trouble,
            )
            return Report("error", outcome.received)
        except ThrumError as error:
            self._failures += 1
            # What agents wrote is recorded all the same.
            plain = error.remedy == StoreFailed.default_remedy
            remedy = "free space, then: thrum sync force" if plain else error.remedy
            self._set(state="error", last_error=error.message, remedy=remedy, trouble="failed")
            return Report("error", outcome.received)
        except Exception as error:
            log.exception("a sync round failed")
            self._failures += 1
            self._set(state="error", last_error=f"{type(error).__name__}: {error}", remedy="", trouble="failed")
            return Report("error", outcome.received)
        self._failures, self._tip = 0, outcome.tip
        mode = self.mode()  # the round has looked for the remote
        self._set(
            state="local-only" if mode.local_only else "error" if outcome.unconfirmed else "synced",
            last_error="others can read the remote: nothing is pushed yet" if outcome.unconfirmed else "",
            remedy="thrum sync enable" if outcome.unconfirmed else "",
            trouble="unconfirmed" if outcome.unconfirmed else "",
            last_sync_at_ms=self.status.last_sync_at_ms if mode.local_only else self.now_ms(),
            skipped=frozenset(outcome.skipped),
        )
        text = await self._peek_in_time() if outcome.sent else None
        if text is not None and text.startswith(outcome.tip):
            self._seen = text  # our own push; another's in between would show another tip
        if outcome.received or outcome.sent:
            self._brisk_until = trio.current_time() + BRISK_SECONDS
        quiet = not outcome.received and not outcome.sent and not outcome.committed
        result = "error" if outcome.unconfirmed else "nothing_to_do" if quiet else "synced"
        return Report(result, outcome.received, outcome.sent)

    async def _run_in_thread(self, request: SyncRequest, outcome: Outcome) -> None:
        """The round, in a thread. When the daemon stops it is asked to end after its step, and left if it does not."""
        patience = trio.CancelScope(shield=True)
        stopping: list[bool] = []
        ended = False
        failure: Exception | None = None

        async def bound() -> None:
            try:
                await trio.sleep_forever()
            finally:
                stopping.append(True)
                if not ended:
                    self.interrupt()
                patience.deadline = trio.current_time() + STOP_SECONDS

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bound)
            with patience:
                try:
                    await trio.to_thread.run_sync(
                        self.run_round, request, outcome, lambda: bool(stopping), abandon_on_cancel=True
                    )
                except Exception as error:
                    failure = error
            ended = True
            nursery.cancel_scope.cancel()
        if outcome.quarantined:
            log.warning("%d lines of the branch cannot be used and were quarantined: thrum verify", outcome.quarantined)
        if failure is not None:
            raise failure

    def _backoff(self) -> float:
        if not self._failures:
            return 0.0
        seconds = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2 ** (self._failures - 1))
        return seconds * random.uniform(0.5, 1.0)

    # -- a remote on this machine

    def peek_seconds(self) -> float:
        """How long until the ref of a remote on this machine is looked at again."""
        return BRISK_PEEK_SECONDS if trio.current_time() < self._brisk_until else PEEK_SECONDS

    async def _peek_on(self) -> None:
        pause = PEEK_SECONDS
        while True:
            await trio.sleep(pause)
            mode = self.mode()
            pause = LOOK_SECONDS if mode.local_only else self.peek_seconds()
            if self.status.state == "syncing":
                continue
            text = await self._peek_in_time()
            if text is None or self._failures:
                pause = LOOK_SECONDS  # after a failure it notes another address, nothing else
            elif mode.local_only:
                if self._tip not in ("", text) and self.mode().local_only:
                    self.poke()  # a push from another clone
            elif text != self._seen and not self.mode().local_only:
                self._seen = text
                self.poke()

    async def _peek_in_time(self) -> str | None:
        """What `peek` gives; None too where it takes too long."""
        if self._peek_hangs and not self._peeks.available_tokens:
            return None
        self._peek_hangs = False
        with trio.move_on_after(PEEK_SECONDS_MAX):
            return await trio.to_thread.run_sync(self._peeked, abandon_on_cancel=True, limiter=self._peeks)
        self._peek_hangs = True
        return None

    async def _tidy_beside(self, nursery: trio.Nursery) -> None:
        """Run disk maintenance while rounds continue; they are only held up if it takes very long."""
        if self._tidying is None:
            self._tidying, self._beside = trio.Event(), 0
            nursery.start_soon(self._tidy_once, self._tidying)
            return
        self._beside += 1
        if self._beside >= BESIDE_MAX:
            await self._tidying.wait()

    async def _tidy_once(self, done: trio.Event) -> None:
        try:
            await trio.to_thread.run_sync(self._tidied, abandon_on_cancel=True)
        finally:
            self._tidying = None
            done.set()

    def _tidied(self) -> None:
        try:
            self.tidy()
            self._complaints.pop("packing the branch", None)
        except Exception as error:  # of a damaged repository anything may come, and rounds do without
            self._complain("packing the branch", error)

    def _peeked(self) -> str | None:
        try:
            text = self.peek()
            self._complaints.pop("looking at the remote", None)
        except Exception as error:
            self._complain("looking at the remote", error)
            return None
        return text

    def _complain(self, what: str, error: Exception) -> None:
        """Once, until it goes well again or something else goes wrong."""
        text = f"{type(error).__name__}: {error}"
        if self._complaints.get(what) != text:
            self._complaints[what] = text
            log.warning("%s: %s", what, text, exc_info=None if isinstance(error, (OSError, ThrumError)) else error)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            setattr(self.status, name, value)
        self.on_status(self.status)
