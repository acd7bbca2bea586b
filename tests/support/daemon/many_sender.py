"""`python -m tests.support.daemon.many_sender SOCKET COUNT TEXT TO…`: sends that many messages from where it stands."""

from __future__ import annotations

import sys

from thrum.model.methods.messages import MESSAGE_SEND, SendParams
from thrum.rpc.client import BlockingClient


def main() -> None:
    """Run as the module says."""
    socket, count, text, *to = sys.argv[1:]
    with BlockingClient(socket) as client:
        for number in range(int(count)):
            client.call(MESSAGE_SEND, SendParams(content=f"{text} {number}", to=to or ()))
    print("sent", flush=True)


if __name__ == "__main__":
    main()
