"""One connected stream socket under trio: receive, send whole in order, and a peer that does not read (rpc.md §1)."""

from __future__ import annotations

import contextlib
import select
import socket
from types import TracebackType

import trio

from thrum.model import limits

_CHUNK = 64 * limits.KIB


class Gone(Exception):
    """The other end went away, or does not take what it is sent."""


class Wire:
    """Owns a connected stream socket. One task receives; any number send, each piece whole and in order of calls."""

    __slots__ = ("_lock", "_socket", "_stall_seconds")

    def __init__(self, connected: socket.socket, *, stall_seconds: float = limits.answer_stall_seconds_max) -> None:
        """`stall_seconds`: how long sending may make no progress."""
        connected.setblocking(False)
        self._socket = connected
        self._stall_seconds = stall_seconds
        self._lock = trio.Lock()

    async def receive(self) -> bytes:
        """Some bytes, `b""` at the end. A lost connection is an end."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._socket.recv(_CHUNK)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return b""

    async def send(self, data: bytes | memoryview) -> None:
        """Hand all of `data` to the kernel. Raises Gone. Without a checkpoint when the kernel takes it at once.

        A sender that is cancelled half-way has truncated the stream: then both ends see its end, and nothing more is
        sent.
        """
        if self._lock.locked():
            async with self._lock:
                await self._send_slowly(memoryview(data), begun=False)
            return
        sent = self.send_now(data)
        if sent < len(data):
            # No checkpoint has passed since the lock was seen free.
            self._lock.acquire_nowait()
            try:
                await self._send_slowly(memoryview(data)[sent:], begun=sent > 0)
            finally:
                self._lock.release()

    async def _send_slowly(self, rest: memoryview, *, begun: bool) -> None:
        while rest:
            with trio.move_on_after(self._stall_seconds) as stall:
                try:
                    await trio.lowlevel.wait_writable(self._socket)
                except (OSError, trio.ClosedResourceError) as error:
                    raise Gone(str(error)) from error
                except trio.Cancelled:
                    if begun:
                        self._end()
                    raise
            if stall.cancelled_caught:
                raise Gone(f"nothing was read for {self._stall_seconds:g} s")
            sent = self.send_now(rest)
            begun = begun or sent > 0
            rest = rest[sent:]

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send_now(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel takes at once, 0 if none. Raises Gone. Only while no other task sends."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Gone(str(error)) from error

    def is_hung_up(self) -> bool:
        """After the end was received: whether the peer is gone, and not merely done with sending."""
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
            return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))
        except (OSError, ValueError):
            return True

    async def close_kindly(self, seconds: float) -> None:
        """Say the end and read what the peer still sends: who is stopped in mid-sentence never reads our last line."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return
        with trio.move_on_after(seconds):
            while await self.receive():
                pass

    def close(self) -> None:
        """Close, and wake those that wait on this wire. Closing twice is harmless."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
