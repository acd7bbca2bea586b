"""A process that stands somewhere and does as it is told: each line of stdin an order, each line of stdout its outcome.

`python -m tests.support.daemon.caller_child SOCKET`. Orders are JSON objects: `{"rpc": METHOD, "params": {…}}` over the
one connection that it opens with the first, `{"forked": …}` the same by a child over this connection, `{"run": [ARGV],
"env": {…}}`, `{"cd": PATH}`, `{"hang_up": true}`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any


class Desk:
    """One connection, made when it is first needed, so that the place of connecting can be chosen."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: socket.socket | None = None
        self._received = b""

    def obey(self, order: dict[str, Any]) -> Any:
        match order:
            case {"rpc": method}:
                return self.ask(method, order.get("params", {}))
            case {"forked": method}:
                return self.ask_forked(method, order.get("params", {}))
            case {"run": argv}:
                env = {**os.environ, **order.get("env", {})}
                done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
                return {"status": done.returncode, "out": done.stdout, "err": done.stderr}
            case {"cd": path}:
                os.chdir(path)
            case {"hang_up": _}:
                self.connection.close()
                self._connection = None
            case _:
                raise ValueError(order)
        return {}

    @property
    def connection(self) -> socket.socket:
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(self._address)
        return self._connection

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        self.connection.sendall(line.encode() + b"\n")
        while b"\n" not in self._received:
            data = self.connection.recv(65536)
            if not data:
                return {"gone": True}
            self._received += data
        answer, _, self._received = self._received.partition(b"\n")
        return json.loads(answer)

    def ask_forked(self, method: str, params: dict[str, Any]) -> Any:
        assert self.connection
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, json.dumps(self.ask(method, params)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            outcome = json.loads(answer.read())
        os.waitpid(child, 0)
        return outcome


if __name__ == "__main__":
    desk = Desk(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(desk.obey(json.loads(line))), flush=True)
