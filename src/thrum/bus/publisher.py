"""Publishing: one hint for each audience of each committed fact, and heads for late subscribers.

It keeps only what can be lost: the epoch, the last number announced, and the last number of each audience that has
subscribers. A subscriber that lost a frame sees the gap and asks the store. Source: rpc.md §8.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec
import trio

from thrum.bus.topics import (
    DAEMON,
    HEAD,
    About,
    Frame,
    Head,
    HintTemplate,
    audiences_of,
    event_of,
    hint_of,
    is_audience,
)
from thrum.model import clock, limits
from thrum.model.events import AnyFact, UnknownEvent

_HEADS_AT_ONCE: Final = 64
"""Heads sent before other tasks get their turn: about 0.3 ms."""

_SUBSCRIPTIONS_AT_ONCE: Final = 128
"""Subscriptions taken, and answered with heads, before other tasks get their turn: about 3 ms."""

_SLICES_MAX: Final = 5
"""Wake-ups a tick may be spread over, one a second at most."""


class Outlet(Protocol):
    """What a publisher needs of a transport: `bus.socket.XpubSocket` or `bus.memory.MemoryBus`."""

    def send_nowait(self, frame: Frame) -> None:
        """Never waits; OSError when the transport itself fails."""
        ...

    def take_nowait(self) -> Iterable[bytes]:
        """Everything that subscribers have sent since."""
        ...

    async def wait(self) -> None:
        """Until subscribers may have sent something."""
        ...


class Statistics(msgspec.Struct, frozen=True):
    """`audiences`: exact ones with a subscriber; `filters`: coarser or finer subscriptions; the rest counts frames."""

    audiences: int
    filters: int
    frames_sent: int
    heads_sent: int
    send_errors: int


class Publisher:
    """Says what was committed. All calls from the event loop's thread; `serve_bus` runs beside them.

    `head_seq` is the store's last number at the start: whatever a late subscriber missed lies below it.
    """

    def __init__(self, outlet: Outlet, *, epoch: str, head_seq: int, wall_clock: clock.Clock) -> None:
        self._outlet = outlet
        self._clock = wall_clock
        self._last: dict[str, int] = {}
        """The last number of each exact audience that somebody subscribes to. For all others the rule "`prev` is at
        least the head when its first subscriber came" needs no memory."""
        self._filters: set[bytes] = set()
        self._listened = trio.Event()
        self._waiting = trio.CancelScope()
        """Around the wait of `serve_bus`; cancelled when there is more to take than was taken after a send."""
        self._behind = False
        """Whether it is."""
        self._frames_sent = self._heads_sent = self._send_errors = 0
        self.epoch = epoch
        self.head_seq = head_seq

    def publish(
        self, seq: int, fact: AnyFact | UnknownEvent, about: About | None = None, *, pending: bool = False
    ) -> None:
        """Announce one committed fact. Call it for every fact that is announced at all, in the order of `seq`.

        `about` is the row of edits, deletes, receipts and group changes; `pending` says that it waits for its row.
        Tombstoned facts are never announced. Costs 2 µs without listeners; never waits, never raises.
        """
        before, self.head_seq = self.head_seq, seq
        assert before < seq, "numbers rise: a hint that names a smaller one before it would hide what was lost since"
        if self.listened:
            self._announce(before, seq, fact, about, pending)
        # A send may swallow the sign that somebody has subscribed; and a fact that went unsent must be told by a head.
        self._take_subscriptions()

    def _announce(
        self, before: int, seq: int, fact: AnyFact | UnknownEvent, about: About | None, pending: bool
    ) -> None:
        last, to_all = self._last, bool(self._filters)
        template: HintTemplate | None = None
        event, number = b"", b""
        for audience in audiences_of(fact, about, pending=pending):
            prev = last.get(audience)
            if prev is not None:
                last[audience] = seq
            elif to_all:
                # No subscriber to this stream; a coarser subscription may want the frame all the same.
                prev = before
            else:
                continue
            if template is None:
                template = HintTemplate(hint_of(self.epoch, seq, fact, about))
                event, number = event_of(fact).encode(), seq.to_bytes(8, "big")
            self._send(Frame(audience.encode() + event, number, template.body(prev)))

    def publish_state(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        """Tell `daemon/` of a state that is no fact: `sync.status`, `stopping`. `fields` is JSON-able."""
        said = {"epoch": self.epoch, "seq": self.head_seq, "type": name, "at": self._now(), **(fields or {})}
        self._send(Frame(f"{DAEMON}{name}".encode(), self.head_seq.to_bytes(8, "big"), msgspec.json.encode(said)))
        self._take_subscriptions()

    @property
    def listened(self) -> bool:
        """Whether anybody listens now. If not, `publish` needs no `about`: nothing will be said."""
        return bool(self._last or self._filters)

    async def serve_bus(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer subscriptions with heads, and repeat the heads every `tick_seconds`. Sleeps while there are no
        listeners."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve_ticks)
            task_status.started()
            while True:
                self._behind = self._take_some()
                if self._behind:
                    await trio.lowlevel.checkpoint()
                    continue
                with trio.CancelScope() as self._waiting:
                    await self._outlet.wait()

    def statistics(self) -> Statistics:
        """What it did so far."""
        return Statistics(len(self._last), len(self._filters), self._frames_sent, self._heads_sent, self._send_errors)

    def problems(self) -> tuple[str, ...]:
        """For `health.problems`: frames that the transport refused. Subscribers find what they missed by themselves."""
        if not self._send_errors:
            return ()
        return (f"bus: {self._send_errors} frames could not be sent",)

    async def _serve_ticks(self) -> None:
        while True:
            if not self._last:
                self._listened = trio.Event()
                await self._listened.wait()
            audiences = list(self._last)
            # Spread, so that hundreds of audiences neither hold the daemon nor wake all their subscribers at once.
            slices = min(_SLICES_MAX, 1 + len(audiences) // 100)
            for start in range(slices):
                await trio.sleep(limits.tick_seconds / slices)
                await self._send_heads(audiences[start::slices])

    async def _send_heads(self, audiences: list[str]) -> None:
        for start in range(0, len(audiences), _HEADS_AT_ONCE):
            for audience in audiences[start : start + _HEADS_AT_ONCE]:
                if audience in self._last:
                    self._send_head(audience)
            self._take_subscriptions()
            await trio.lowlevel.checkpoint()

    def _take_subscriptions(self) -> None:
        """After a send: take some of what there is; if that is not all, `serve_bus` takes the rest."""
        if not self._behind and self._take_some():
            self._behind = True
            self._waiting.cancel()

    def _take_some(self) -> bool:
        """Take some subscriptions, and answer each with a head; whether there may be more.

        A send may hide the next ones, so: until there are none. One that is not taken yet misses nothing: a fact that
        is announced before has a number that its head then tells.
        """
        left = _SUBSCRIPTIONS_AT_ONCE
        while True:
            joined: dict[str, None] = {}
            for message in itertools.islice(self._outlet.take_nowait(), left):
                left -= 1
                self._note(message, joined)
            for audience in joined:
                if audience in self._last:
                    self._send_head(audience)
            if not left:
                return True
            if not joined:
                return False

    def _note(self, message: bytes, joined: dict[str, None]) -> None:
        """Remember one subscription, or the end of its last one. Anything else that subscribers send is dropped."""
        sign, prefix = message[:1], message[1:]
        if sign not in (b"\x00", b"\x01") or not _can_match(prefix):
            return
        audience = prefix.decode()
        if not is_audience(audience):
            (self._filters.add if sign == b"\x01" else self._filters.discard)(prefix)
        elif sign == b"\x01":
            self._last.setdefault(audience, self.head_seq)
            self._listened.set()
            joined[audience] = None
        else:
            self._last.pop(audience, None)

    def _send_head(self, audience: str) -> None:
        last = self._last[audience]
        head = Head(epoch=self.epoch, seq=last, head=self.head_seq, at=self._now())
        self._heads_sent += 1
        self._send(Frame(f"{audience}{HEAD}".encode(), last.to_bytes(8, "big"), msgspec.json.encode(head)))

    def _send(self, frame: Frame) -> None:
        try:
            self._outlet.send_nowait(frame)
        except OSError:
            self._send_errors += 1
        else:
            self._frames_sent += 1

    def _now(self) -> str:
        return clock.format_ms(self._clock.now_ms())


_ROOTS: Final = (b"agent/", b"role/", b"group/", b"all/", b"team/")


def _can_match(prefix: bytes) -> bool:
    """Whether a fact's topic may begin so. `daemon/` is always sent and needs no note."""
    if len(prefix) > limits.subscription_bytes_max or not prefix.isascii():
        return False
    return any(prefix.startswith(root) or root.startswith(prefix) for root in _ROOTS)
