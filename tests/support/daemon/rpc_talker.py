"""Raw JSON-RPC from a process that stands somewhere: each line of stdin to the socket, each answer to stdout.

`python -m tests.support.daemon.rpc_talker SOCKET`
"""

from __future__ import annotations

import os
import socket
import sys

if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        with connection.makefile("rb") as answers:
            for line in sys.stdin.buffer:
                connection.sendall(line)
                os.write(1, answers.readline() or b'{"gone":true}\n')
