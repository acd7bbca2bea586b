"""Subscribers, each a process of its own, that note when each frame arrives.

    listener.py ENDPOINT TOPIC FRAMES PROCESSES DIRECTORY
    listener.py --api REPOSITORY FRAMES DIRECTORY

Plain pyzmq, as a program in any language would do it; with `--api` one process with `thrum.bus.subscriber`. It says
`ready` once every process has had its first frame (a head: so its subscription stands), and ends when each has got
FRAMES more. `DIRECTORY/N` then holds a JSON object: sequence number -> nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import zmq

TIMEOUT_MS = 60_000


def main() -> None:
    """Run as the module says."""
    if sys.argv[1] == "--api":
        listen_by_api(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4], "0"))
        return
    endpoint, topic, frames, processes = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
    reader, writer = os.pipe()
    children: list[int] = []
    for number in range(processes):
        pid = os.fork()  # no context is open yet: zmq's threads would not survive this
        if pid == 0:
            status = 1
            try:
                listen(endpoint, topic, frames, writer, Path(sys.argv[5], str(number)))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    os.close(writer)
    ready = 0
    while ready < processes:
        said = os.read(reader, 4096)
        if not said:
            raise SystemExit("listener: a subscriber ended")
        ready += len(said)
    print("ready", flush=True)
    if any(os.waitpid(pid, 0)[1] for pid in children):
        raise SystemExit("listener: a subscriber failed")


def listen(endpoint: str, topic: bytes, frames: int, ready: int, target: Path) -> None:
    """One subscriber's life."""
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
    socket.setsockopt(zmq.SUBSCRIBE, topic)
    socket.connect(endpoint)
    socket.recv_multipart()
    os.write(ready, b".")
    arrived: dict[int, int] = {}
    now = time.perf_counter_ns
    while len(arrived) < frames:
        name, number, _ = socket.recv_multipart()
        at = now()
        if not name.endswith(b"/head"):
            arrived[int.from_bytes(number, "big")] = at
    target.write_text(json.dumps(arrived))
    context.destroy(linger=0)


def listen_by_api(repository: str, frames: int, target: Path) -> None:
    """The same with the public API: in order, nothing lost."""
    from thrum.bus.subscriber import open_stream

    arrived: dict[int, int] = {}
    with open_stream("all/", repo=repository) as stream:
        stream.next(timeout_seconds=0)
        print("ready", flush=True)
        while len(arrived) < frames:
            hint = stream.next(timeout_seconds=TIMEOUT_MS / 1000)
            assert hint is not None
            arrived[hint.seq] = time.perf_counter_ns()
    target.write_text(json.dumps(arrived))


if __name__ == "__main__":
    main()
