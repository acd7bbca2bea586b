"""An agent that waits for messages without end, over kills of the daemon: a line for each message it was told of.

`python -m tests.support.daemon.kill_waiter SOCKET AGENT`: ends when it was told one whose content is `end`.
"""

from __future__ import annotations

import json
import os
import sys
import time

from tests.support.daemon.kill_sender import Line, answered


def main(path: str, agent: str) -> None:
    line = Line(path)
    params = {"caller_agent_id": agent, "timeout_ms": 60_000, "mark": "seen", "limit": 100}
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message.wait", "params": params}).encode() + b"\n"
    while True:
        answer = answered(line, request)
        if answer is None:
            os.write(1, b"again\n")
            time.sleep(0.01)
            continue
        for message in answer["result"]["messages"]:
            content = message["body"]["content"]
            os.write(1, f"told {content} {message['message_id']}\n".encode())
            if content == "end":
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
