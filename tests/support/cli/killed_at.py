"""A `thrum` command that is killed as it is about to touch the file system for the N-th time.

`python -m tests.support.cli.killed_at N LOG ARGV…`. `LOG` gets the name of each touch; with N = 0 it runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

TOUCHES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "subprocess.Popen"}
"""Python tells of these, and of files that are opened to be written, before they happen."""


def main() -> None:
    at, log = int(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    count = 0

    def touched(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if not writes and event not in TOUCHES:
            return
        count += 1
        os.write(log, f"{event} {args[0]}\n".encode())
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    from thrum.cli.app import main as thrum

    sys.addaudithook(touched)
    thrum(sys.argv[3:])


if __name__ == "__main__":
    main()
