"""A load generator, run as a process of its own: many connections that each send one request at a time.

    load.py SOCKET CONNECTIONS SECONDS REQUEST_FILE

Standard library only and no framework, so that it costs a fraction of what it measures. It says `ready`, waits for a
line on stdin, and prints one JSON object: latencies in microseconds, the window in which they fell, its CPU time. In
the request `@KEY@`, if it is there, becomes something new each time.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run as the module says."""
    address, connections, seconds, request_file = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    request = Path(request_file).read_bytes()
    sockets: dict[int, socket.socket] = {}
    poll = select.epoll() if hasattr(select, "epoll") else select.poll()
    for _ in range(connections):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(address)
        sockets[connection.fileno()] = connection
        poll.register(connection.fileno(), select.POLLIN)
    print("ready", flush=True)
    sys.stdin.readline()
    latencies, window = drive(sockets, poll, request, seconds)
    used = time.process_time()
    json.dump({"latencies_us": latencies, "window": window, "cpu_seconds": used}, sys.stdout)


def drive(
    sockets: dict[int, socket.socket], poll: Any, request: bytes, seconds: float
) -> tuple[list[float], list[float]]:
    """Keep one request under way on each connection for that long: microseconds of each, begin and end."""
    now = time.perf_counter
    latencies = array.array("f")
    sent: dict[int, float] = {}
    partial: dict[int, bytes] = {}
    keyed = b"@KEY@" in request
    salt = os.urandom(6).hex()
    number = 0
    begin = now()
    end = begin + seconds
    for fd, connection in sockets.items():
        number += 1
        sent[fd] = now()
        connection.sendall(request.replace(b"@KEY@", b"%s.%d" % (salt.encode(), number)) if keyed else request)
    under_way = len(sockets)
    while under_way:
        for fd, _ in poll.poll():
            connection = sockets[fd]
            data = partial.pop(fd, b"") + connection.recv(65536)
            if not data.endswith(b"\n"):
                if not data:
                    raise SystemExit("load: the daemon hung up")
                partial[fd] = data
                continue
            arrived = now()
            if b'"error"' in data[:200]:
                raise SystemExit(f"load: refused: {data.decode()[:500]}")
            latencies.append((arrived - sent[fd]) * 1e6)
            if arrived < end:
                number += 1
                sent[fd] = now()
                connection.sendall(request.replace(b"@KEY@", b"%s.%d" % (salt.encode(), number)) if keyed else request)
            else:
                under_way -= 1
    return list(latencies), [begin, now()]


if __name__ == "__main__":
    main()
