"""The bus inside one process: the same prefixes, marks and losses as ZeroMQ, without sockets.

For tests and the simulator; it passes the same contract suite as `bus.socket`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

import trio

from thrum.bus.topics import Frame
from thrum.model import limits


class MemoryBus:
    """The daemon's end. `open_inlet` gives a subscriber's."""

    def __init__(self, *, high_water_mark: int = limits.bus_high_water_mark) -> None:
        self._high_water_mark = high_water_mark
        self._inlets: list[MemoryInlet] = []
        self._sent: deque[bytes] = deque()
        self._subscribed: Counter[bytes] = Counter()
        self._arrived = trio.Event()

    def open_inlet(self) -> MemoryInlet:
        """A new subscriber, subscribed to nothing."""
        inlet = MemoryInlet(self, self._high_water_mark)
        self._inlets.append(inlet)
        return inlet

    def send_nowait(self, frame: Frame) -> None:
        """Give one frame to every matching subscriber that has room; the others lose it."""
        for inlet in self._inlets:
            inlet.offer(frame)

    def take_nowait(self) -> Iterator[bytes]:
        """What subscribers have sent, as XPUB shows it: every subscription, and the end of the last one of a prefix."""
        while self._sent:
            yield self._sent.popleft()

    async def wait(self) -> None:
        """Until subscribers may have sent something."""
        if not self._sent:
            self._arrived = trio.Event()
            await self._arrived.wait()

    def note(self, message: bytes) -> None:
        """Take anything that a subscriber sends."""
        sign, prefix = message[:1], message[1:]
        if sign == b"\x01":
            self._subscribed[prefix] += 1
        elif sign == b"\x00":
            self._subscribed[prefix] -= 1
            if self._subscribed[prefix] > 0:
                return
            del self._subscribed[prefix]
        self._sent.append(message)
        self._arrived.set()

    def forget(self, inlet: MemoryInlet) -> None:
        """A subscriber is gone."""
        self._inlets.remove(inlet)


class MemoryInlet:
    """A subscriber's end."""

    def __init__(self, bus: MemoryBus, high_water_mark: int) -> None:
        self._bus = bus
        self._high_water_mark = high_water_mark
        self._prefixes: Counter[bytes] = Counter()
        self._frames: deque[Frame] = deque()
        self._arrived = trio.Event()
        self._open = True

    def offer(self, frame: Frame) -> None:
        """Keep a frame if it is asked for and there is room."""
        if len(self._frames) < self._high_water_mark and any(frame.topic.startswith(p) for p in self._prefixes):
            self._frames.append(frame)
            self._arrived.set()

    def subscribe(self, prefix: bytes) -> None:
        """Ask for every topic that begins with these bytes."""
        self._prefixes[prefix] += 1
        if self._prefixes[prefix] == 1:
            self._bus.note(b"\x01" + prefix)

    def unsubscribe(self, prefix: bytes) -> None:
        """Take back one `subscribe` of the same bytes."""
        if self._prefixes[prefix] == 0:
            return
        self._prefixes[prefix] -= 1
        if self._prefixes[prefix] == 0:
            del self._prefixes[prefix]
            self._bus.note(b"\x00" + prefix)

    def receive_nowait(self) -> Frame | None:
        """The next frame, or None if there is none now."""
        return self._frames.popleft() if self._frames else None

    async def wait(self) -> None:
        """Until a frame may be there."""
        if not self._frames:
            self._arrived = trio.Event()
            await self._arrived.wait()

    def close(self) -> None:
        """Let go of it: the bus hears the end of its subscriptions."""
        if self._open:
            self._open = False
            self._bus.forget(self)
            for prefix in self._prefixes:
                self._bus.note(b"\x00" + prefix)
