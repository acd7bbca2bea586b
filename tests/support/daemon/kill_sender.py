"""An agent that sends without end, over kills of the daemon, until its stdin ends: a line for each answered message.

`python -m tests.support.daemon.kill_sender SOCKET AGENT TO CONNECTIONS`: each connection sends one message after
another, each under a client key of its own that it keeps until the message is answered.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from typing import Any

RETRIED = {"busy", "shutting_down", "timed_out"}


class Line:
    """A connection that comes back."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._answers: Any = None

    def ask(self, request: bytes) -> bytes:
        """The answer; empty when the daemon went away."""
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(self._path)
                self._answers = self._socket.makefile("rb")
            self._socket.sendall(request)
            answer: bytes = self._answers.readline()
        except OSError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.close()
            return b""
        return answer

    def close(self) -> None:
        if self._answers is not None:
            self._answers.close()
            self._answers = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def send_until(stop: threading.Event, path: str, agent: str, to: str, number: int) -> None:
    line = Line(path)
    for count in itertools.count():
        content = f"{agent}.{number}.{count}"
        params = {"content": content, "to": [f"@{to}"], "caller_agent_id": agent, "client_key": content}
        request = (
            json.dumps({"jsonrpc": "2.0", "id": count, "method": "message.send", "params": params}).encode() + b"\n"
        )
        tries = 1
        while not (answer := answered(line, request)):
            tries += 1
            time.sleep(0.01)
        result = answer.get("result")
        if result is None:
            os.write(1, f"refused {content} {json.dumps(answer)}\n".encode())
            return
        os.write(1, f"sent {content} {result['message_id']} {result['seq']} {tries}\n".encode())
        if stop.is_set():
            line.close()
            return


def answered(line: Line, request: bytes) -> dict[str, Any] | None:
    raw = line.ask(request)
    if not raw:
        return None
    answer: dict[str, Any] = json.loads(raw)
    return None if answer.get("error", {}).get("data", {}).get("kind") in RETRIED else answer


def main(path: str, agent: str, to: str, connections: str) -> None:
    stop = threading.Event()
    threads = [
        threading.Thread(target=send_until, args=(stop, path, agent, to, number)) for number in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
