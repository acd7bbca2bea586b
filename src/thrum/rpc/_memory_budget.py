"""Memory that all connections of a server share, each bounded in sum (rpc.md §1). No I/O.

A bound per connection alone bounds nothing: 2,048 connections that are each allowed 16 MiB are 32 GiB.
"""

from __future__ import annotations

from typing import Protocol

from thrum.model import limits
from thrum.model.errors import Busy


class Holder(Protocol):
    """Who holds bytes that only the other end can make it let go of: by reading, or by ending its line."""

    @property
    def held_since(self) -> float:
        """When it began to hold the oldest of them, on the event loop's clock."""
        ...

    def give_up(self) -> None:
        """Let go of all of them at once, whatever is lost with them. It tells the `Shared` before it returns."""
        ...


class Shared:
    """So many bytes for all holders together. Beyond it, who has held for the longest time gives up first.

    Not who holds the most: that would be the one reader of a large answer among many that never read.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: dict[Holder, int] = {}
        self.total = 0

    def set(self, holder: Holder, size: int) -> None:
        """The holder holds `size` bytes now, 0 for nothing. It may have to give up before this returns."""
        self.total += size - self._held.get(holder, 0)
        if size:
            self._held[holder] = size
        else:
            self._held.pop(holder, None)
        while self.total > self._bytes_max:
            oldest = min(self._held, key=lambda other: other.held_since)
            oldest.give_up()


class Large:
    """So many bytes of large requests under way. Beyond it the next one is refused as busy.

    Those under way end by themselves, within 10 s; only who asked for a long run keeps its place.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.total = 0

    def take(self, size: int) -> int:
        """Room for a request of that many bytes: what is to be given back, 0 for one that is not large.

        Raises Busy.
        """
        return self.take_more(size) if size > limits.large_request_bytes else 0

    def take_more(self, size: int) -> int:
        """Room for so many bytes more of what is large already. Raises Busy."""
        if self.total + size > self._bytes_max:
            message = "too many large requests are under way"
            raise Busy(message, retry_after_ms=limits.retry_after_ms, limit=self._bytes_max)
        self.total += size
        return size

    def give_back(self, size: int) -> None:
        self.total -= size
