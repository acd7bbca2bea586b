"""A publisher in a process of its own: thrum's, or plain pyzmq with the same frames.

    mouth.py thrum|raw SOCKET_PATH LISTENERS FRAMES PAUSE_SECONDS

Subscribers get a head. Then it says `ready`, waits for a line on stdin, publishes, and prints a JSON object: sequence
number -> nanoseconds of the monotonic clock at which publishing began.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import trio
import zmq

from bench.place import TEXT
from thrum.bus.publisher import Publisher
from thrum.bus.socket import open_xpub_socket
from thrum.bus.topics import Frame
from thrum.model import clock, ids
from thrum.model.events import Body, MessageCreated, Pair

EPOCH = "01KGHF3N80EEEEEEEEEEEEEEEE"


def main() -> None:
    """Run as the module says."""
    kind, path, listeners, frames, pause = sys.argv[1:6]
    if kind == "thrum":
        begun = trio.run(publish, Path(path), int(frames), float(pause))
    else:
        begun = publish_raw(path, int(listeners), int(frames), float(pause))
    json.dump(begun, sys.stdout)


async def publish(path: Path, frames: int, pause: float) -> dict[int, int]:
    """With the daemon's publisher and its socket, on its event loop."""
    fact = a_message()
    begun: dict[int, int] = {}
    with open_xpub_socket(path) as outlet:
        publisher = Publisher(outlet, epoch=EPOCH, head_seq=0, wall_clock=clock.SystemClock())
        async with trio.open_nursery() as nursery:
            await nursery.start(publisher.serve_bus)
            await trio.to_thread.run_sync(_wait_for_go)
            for seq in range(1, frames + 1):
                await trio.sleep(pause)
                begun[seq] = time.perf_counter_ns()
                publisher.publish(seq, fact)
            await trio.to_thread.run_sync(sys.stdin.readline)
            nursery.cancel_scope.cancel()
    return begun


def publish_raw(path: str, listeners: int, frames: int, pause: float) -> dict[int, int]:
    """With nothing but pyzmq."""
    hint = frame_of(a_message())
    begun: dict[int, int] = {}
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    socket.bind(f"ipc://{path}")
    for _ in range(listeners):
        socket.recv()
    socket.send_multipart([b"all/head", (0).to_bytes(8, "big"), hint.body])
    _wait_for_go()
    for seq in range(1, frames + 1):
        time.sleep(pause)
        begun[seq] = time.perf_counter_ns()
        socket.send_multipart([hint.topic, seq.to_bytes(8, "big"), hint.body])
    sys.stdin.readline()
    context.destroy(linger=0)
    return begun


def _wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def a_message() -> MessageCreated:
    """A fact as `thrum send` makes it."""
    ulids, ms = ids.Ulids(), clock.SystemClock().now_ms()
    return MessageCreated(
        timestamp=clock.format_ms(ms),
        event_id="evt_" + ulids.at(ms),
        v=1,
        origin_daemon="d_" + ulids.at(ms),
        message_id="msg_" + ulids.at(ms),
        agent_id="agent0",
        body=Body("markdown", TEXT),
        refs=(Pair("mention", "agent1"),),
        audiences=(Pair("agent", "agent1"),),
        recipients=("agent1",),
    )


def frame_of(fact: MessageCreated) -> Frame:
    """What the publisher says of it on `all/`."""
    said: list[Frame] = []

    class Recorder:
        def __init__(self) -> None:
            self.asked = [b"\x01all/"]

        def send_nowait(self, frame: Frame) -> None:
            said.append(frame)

        def take_nowait(self) -> list[bytes]:
            asked, self.asked = self.asked, []
            return asked

        async def wait(self) -> None:
            pass

    publisher = Publisher(Recorder(), epoch=EPOCH, head_seq=0, wall_clock=clock.SystemClock())
    publisher.publish(1, fact)  # takes the subscription
    publisher.publish(2, fact)
    return said[-1]


if __name__ == "__main__":
    main()
