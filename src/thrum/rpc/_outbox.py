"""What waits to be sent on one connection: in order, whole, bounded, and never blocking others (rpc.md §1).

Posting returns at once. So a request is over when its answer is made, and not when it is read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import trio

from thrum.model import limits
from thrum.rpc._memory_budget import Shared
from thrum.rpc.stream import Gone, Wire

_AT_ONCE = 64 * limits.KIB
"""Small pieces go out together, up to this; then others on the loop get their turn."""

_PIECE_BYTES = 512
"""What a piece costs besides its bytes."""

Fate = Callable[[bool], None]
"""Told once whether a piece was handed to the kernel, whole, or is lost."""


class _Piece(NamedTuple):
    rest: bytes | memoryview
    size: int
    since: float
    fate: Fate | None


class Outbox:
    """Owns the sending side of `wire`. Nothing is sent behind a piece that was lost: then all that follow are, too."""

    def __init__(self, wire: Wire, nursery: trio.Nursery, unsent: Shared, on_gone: Callable[[], None]) -> None:
        """`nursery`: where it sends what the kernel does not take at once; it outlives the connection. `on_gone` is
        called when the other end went, does not read for too long, or holds too much for too long.
        """
        self._wire = wire
        self._nursery = nursery
        self._unsent = unsent
        self._on_gone = on_gone
        self._queue: deque[_Piece] = deque()
        self._held = 0
        self._sending = False
        self._closed = False
        self._changed = trio.Event()

    @property
    def held_since(self) -> float:
        """When the oldest piece that waits was posted; infinity if none does."""
        return self._queue[0].since if self._queue else math.inf

    def post(self, data: bytes, fate: Fate | None = None) -> None:
        """Send `data` after all that was posted before. Never waits, never raises.

        `fate` may be told before this returns.
        """
        if self._closed:
            _tell(fate, False)
            return
        sent = 0
        if not self._sending:
            try:
                sent = self._wire.send_now(data)
            except Gone:
                _tell(fate, False)
                self.give_up()
                return
            if sent == len(data):
                _tell(fate, True)
                return
            self._sending = True
            self._nursery.start_soon(self._send_rest)
        self._queue.append(_Piece(memoryview(data)[sent:], len(data) + _PIECE_BYTES, trio.current_time(), fate))
        self._hold(len(data) + _PIECE_BYTES)

    async def send(self, data: bytes) -> None:
        """`post`, and return when it was handed to the kernel. Raises Gone. Without a checkpoint if it is so at once.

        If it is cancelled meanwhile, it is sent all the same.
        """
        fates: list[bool] = []
        told = trio.Event()

        def tell(delivered: bool) -> None:
            fates.append(delivered)
            told.set()

        self.post(data, tell)
        if not fates:
            await told.wait()
        if not fates[0]:
            raise Gone("the other end does not read what it is sent")

    async def wait_below(self, size: int) -> None:
        """Until less than `size` bytes wait, or nothing is sent any more. Without a checkpoint if it is so already."""
        while self._held >= size and not self._closed:
            self._changed = trio.Event()
            await self._changed.wait()

    def give_up(self) -> None:
        """Lose what waits, and have the connection ended."""
        if not self._closed:
            self.close()
            self._on_gone()

    def close(self) -> None:
        """Lose what waits; what is posted from now on is lost as well."""
        self._closed = True
        lost, self._queue = self._queue, deque()
        self._hold(-self._held)
        for piece in lost:
            _tell(piece.fate, False)

    def _hold(self, more: int) -> None:
        self._held += more
        if more < 0:
            self._changed.set()
        self._unsent.set(self, self._held)

    async def _send_rest(self) -> None:
        try:
            while self._queue:
                some = self._next()
                await self._wire.send(some[0].rest if len(some) == 1 else b"".join(piece.rest for piece in some))
                if self._closed:
                    return
                for _ in some:
                    self._queue.popleft()
                self._hold(-sum(piece.size for piece in some))
                for piece in some:
                    _tell(piece.fate, True)
                await trio.lowlevel.checkpoint()
        except Gone:
            self.give_up()
        finally:
            self._sending = False
            if self._queue:
                self.close()

    def _next(self) -> list[_Piece]:
        """The first piece, and as many small ones as go with it."""
        some: list[_Piece] = []
        size = 0
        for piece in self._queue:
            size += len(piece.rest)
            if some and size > _AT_ONCE:
                break
            some.append(piece)
        return some


def _tell(fate: Fate | None, delivered: bool) -> None:
    if fate is not None:
        fate(delivered)
