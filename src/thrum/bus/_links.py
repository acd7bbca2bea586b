"""The two ways from a subscriber to a daemon: blocking, and on trio. Each is calls over RPC plus frames over ZeroMQ.

The RPC connection stays open for as long as the stream: its end is the earliest sign that the daemon died, for ZeroMQ
itself reconnects silently.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import trio

from thrum.bus.socket import SubSocket
from thrum.bus.topics import Frame
from thrum.model.errors import DaemonUnavailable
from thrum.model.methods.method import Method, P, R

_GONE = "the daemon ended the connection"


class BlockingRpc(Protocol):
    """What a blocking link needs of `rpc.client.BlockingClient`."""

    def call(self, method: Method[P, R], params: P | None = None) -> R: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class TrioRpc(Protocol):
    """What a trio link needs of `rpc.client.Client`."""

    async def call(self, method: Method[P, R], params: P | None = None) -> R: ...

    async def wait_closed(self) -> None: ...


class BlockingLink:
    """For plain threads. Its coroutines block instead of suspending: drive them with `run_blocking`."""

    def __init__(self, open_rpc: Callable[[], BlockingRpc]) -> None:
        self._open_rpc = open_rpc
        self._rpc: BlockingRpc | None = None
        self._sub: SubSocket | None = None

    async def connect(self) -> None:
        self.close()
        self._rpc = self._open_rpc()

    async def listen(self, endpoint: str, audience: str) -> None:
        if self._sub is not None:
            self._sub.close()
        self._sub = SubSocket()
        self._sub.subscribe(audience.encode())
        self._sub.connect(endpoint)

    async def call(self, method: Method[P, R], params: P) -> R:
        if self._rpc is None:
            raise DaemonUnavailable(_GONE)
        return self._rpc.call(method, params)

    async def frame(self, deadline: float | None) -> Frame | None:
        sub, rpc = self._sub, self._rpc
        if sub is None or rpc is None:
            raise DaemonUnavailable(_GONE)
        frame = sub.receive_nowait()
        while frame is None:
            left = None if deadline is None else deadline - self.now()
            if left is not None and left <= 0:
                return None
            # Nothing was asked, so whatever comes over RPC is its end.
            if sub.wait_blocking(left, rpc.fileno()):
                raise DaemonUnavailable(_GONE)
            frame = sub.receive_nowait()
        return frame

    async def pause(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))  # noqa: ASYNC251 - it blocks, that is its point

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        """Drop both connections. Calls and frames then raise DaemonUnavailable until `connect`."""
        if self._sub is not None:
            self._sub.close()
            self._sub = None
        if self._rpc is not None:
            self._rpc.close()
            self._rpc = None


class TrioLink:
    """For trio tasks. The RPC connection lives in a task of `nursery`, which ends with the link."""

    def __init__(
        self, nursery: trio.Nursery, open_rpc: Callable[[], contextlib.AbstractAsyncContextManager[TrioRpc]]
    ) -> None:
        self._nursery = nursery
        self._open_rpc = open_rpc
        self._held: _Holding | None = None
        self._sub: SubSocket | None = None

    async def connect(self) -> None:
        self.close()
        held = _Holding()
        await self._nursery.start(held.hold, self._open_rpc)
        self._held = held

    async def listen(self, endpoint: str, audience: str) -> None:
        if self._sub is not None:
            self._sub.close()
        self._sub = SubSocket()
        self._sub.subscribe(audience.encode())
        self._sub.connect(endpoint)

    async def call(self, method: Method[P, R], params: P) -> R:
        if self._held is None or self._held.rpc is None:
            raise DaemonUnavailable(_GONE)
        return await self._held.rpc.call(method, params)

    async def frame(self, deadline: float | None) -> Frame | None:
        sub, held = self._sub, self._held
        if sub is None or held is None or held.rpc is None:
            raise DaemonUnavailable(_GONE)
        with trio.CancelScope() as scope:
            if deadline is not None:
                scope.deadline = deadline
            held.waiting = scope
            try:
                while (frame := sub.receive_nowait()) is None:
                    await sub.wait()
                return frame
            finally:
                held.waiting = None
        if held.rpc is None:  # pyright: ignore[reportUnnecessaryComparison]  # changed while we waited
            raise DaemonUnavailable(_GONE)
        return None

    async def pause(self, seconds: float) -> None:
        await trio.sleep(max(0.0, seconds))

    def now(self) -> float:
        return trio.current_time()

    def close(self) -> None:
        """Drop both connections. Calls and frames then raise DaemonUnavailable until `connect`."""
        if self._sub is not None:
            self._sub.close()
            self._sub = None
        if self._held is not None:
            self._held.scope.cancel()
            self._held = None


class _Holding:
    """One RPC connection, held open by a task of its own; `rpc` is None again once it ended."""

    def __init__(self) -> None:
        self.rpc: TrioRpc | None = None
        self.scope = trio.CancelScope()
        self.waiting: trio.CancelScope | None = None

    async def hold(
        self,
        open_rpc: Callable[[], contextlib.AbstractAsyncContextManager[TrioRpc]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            with self.scope:
                async with open_rpc() as self.rpc:
                    task_status.started()
                    await self.rpc.wait_closed()
        finally:
            self.rpc = None
            if self.waiting is not None:
                self.waiting.cancel()
