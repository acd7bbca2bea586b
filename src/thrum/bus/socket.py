"""The two ZeroMQ sockets of the bus, and the only import of zmq: XPUB for the daemon, SUB for subscribers.

zmq's file descriptor is edge-triggered: it reports changes, not states. So each socket has one owner, which receives
everything available before it waits, and looks again after it sent (stack.md, "trio + ZeroMQ"). zmq's errors leave as
OSError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path

import trio
import zmq

from thrum.bus.topics import Frame
from thrum.model import limits


@contextlib.contextmanager
def _as_os_error() -> Generator[None]:
    try:
        yield
    except zmq.ZMQError as error:
        raise OSError(error.errno, f"bus: {error.strerror}") from error


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & int(zmq.POLLIN))


class XpubSocket:
    """The daemon's end. Sending never blocks and never waits for a slow subscriber: it loses frames instead.

    Use `open_xpub_socket`. One task owns it; all calls from the event loop's thread.
    """

    def __init__(self, path: Path, *, high_water_mark: int = limits.bus_high_water_mark) -> None:
        self.endpoint = f"ipc://{path}"
        self._path = path
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        try:
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
            self._socket.setsockopt(zmq.MAXMSGSIZE, limits.subscription_bytes_max * 4)
            with _as_os_error():
                self._socket.bind(self.endpoint)
            path.chmod(0o600)
            self._inode = path.stat().st_ino
            self._fd = int(self._socket.getsockopt(zmq.FD))
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def send_nowait(self, frame: Frame) -> None:
        """Give one frame to every matching subscriber that has room. OSError if zmq itself fails."""
        send = self._socket.send
        try:
            send(frame.topic, zmq.SNDMORE | zmq.NOBLOCK)
            send(frame.seq, zmq.SNDMORE | zmq.NOBLOCK)
            send(frame.body, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"bus: {error.strerror}") from error

    def take_nowait(self) -> Iterator[bytes]:
        """What subscribers have sent: `\\x01` or `\\x00` and a subscription, or anything else. Take all of it."""
        while _readable(self._socket):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                continue
            # Who takes a bounded number is told of rubbish as well.
            yield parts[0] if len(parts) == 1 else b""

    async def wait(self) -> None:
        """Until subscribers may have sent something. Only after `take_nowait` was exhausted, with no send between."""
        await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Close it and remove the socket file, if it is still ours. Waiters get trio.ClosedResourceError."""
        if self._socket.closed:
            return
        with contextlib.suppress(RuntimeError):  # no event loop any more
            trio.lowlevel.notify_closing(self._fd)
        self._context.destroy(linger=0)
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


@contextlib.contextmanager
def open_xpub_socket(path: Path, *, high_water_mark: int = limits.bus_high_water_mark) -> Generator[XpubSocket]:
    """Bind the bus at `path`, in a private directory and under the daemon's lock: zmq takes over what lies there.

    Only after daemonising: zmq's threads do not survive a fork. Raises OSError.
    """
    socket = XpubSocket(path, high_water_mark=high_water_mark)
    try:
        yield socket
    finally:
        socket.close()


class SubSocket:
    """A subscriber's end: connects by itself, again and again, and subscribes again each time.

    Not for two threads at once; dead, without an error, in a forked child.
    """

    def __init__(self, *, high_water_mark: int = limits.bus_high_water_mark) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, high_water_mark)
        # Subscriptions are messages too: with a mark, zmq drops those beyond it without a word.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._fd = int(self._socket.getsockopt(zmq.FD))

    def connect(self, endpoint: str) -> None:
        """Begin to connect. An endpoint without a listener is no error: it is retried until there is one."""
        with _as_os_error():
            self._socket.connect(endpoint)

    def subscribe(self, prefix: bytes) -> None:
        """Ask for every topic that begins with these bytes."""
        self._socket.setsockopt(zmq.SUBSCRIBE, prefix)

    def unsubscribe(self, prefix: bytes) -> None:
        """Take back one `subscribe` of the same bytes."""
        with _as_os_error():
            self._socket.setsockopt(zmq.UNSUBSCRIBE, prefix)

    def receive_nowait(self) -> Frame | None:
        """The next frame, or None if there is none now. What is not three parts is passed over."""
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            if len(parts) == 3:
                return Frame(*parts)

    def wait_blocking(self, timeout_seconds: float | None, also_fd: int | None = None) -> bool:
        """Block until a frame is there, or the time is over; True if `also_fd` became readable meanwhile."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        if also_fd is not None:
            poller.register(also_fd, zmq.POLLIN)
        # Rounded up: a wait that ends a bit early would make its caller spin.
        ready = poller.poll(None if timeout_seconds is None else max(0, int(timeout_seconds * 1000) + 1))
        return any(key == also_fd for key, _ in ready)

    async def wait(self) -> None:
        """Until a frame may be there. Only after `receive_nowait` gave None."""
        # Asking for the events settles what the descriptor told before; then it wakes for what is new.
        if not _readable(self._socket):
            await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Let go of it at once. In a forked child only the parent's socket is left alone."""
        if self._socket.closed:
            return
        with contextlib.suppress(RuntimeError):
            trio.lowlevel.notify_closing(self._fd)
        self._context.destroy(linger=0)
