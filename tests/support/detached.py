"""Runs a command out of sight of this process's ancestors: its own chain of parents ends at once.

An agent that runs the tests would else be found by them: whatever they start would descend from its runtime. The
command keeps the terminal, the process group and the standard streams, and ends when who asked for it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from thrum.identity.processes import open_process_table
from thrum.identity.runtimes import MARKS, links_of

DETACHED = "TESTS_DETACHED"
"""Set for the command: where a runtime adopts orphans, one try is enough."""


def runtimes_above() -> list[str]:
    """Names of the runtimes among the ancestors of this process, nearest first."""
    table = open_process_table()
    return [link.runtime for link in links_of(table, table.chain(os.getppid())) if link.runtime]


def marks_above() -> list[str]:
    """Runtimes' variables in the first environment of this process: as an ancestor it would make agents of the rest."""
    return [name for name in MARKS if name in open_process_table().environ(os.getpid())]


def call_detached(argv: Sequence[str]) -> int:
    """Run it and wait for it; its exit status, negative after a signal."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        # The one that goes on is nobody's child: its parent ends right here.
        if os.fork() == 0:
            ours.close()
            os.set_inheritable(theirs.fileno(), True)
            os.execve(
                sys.executable,
                [sys.executable, __file__, str(theirs.fileno()), *argv],
                {name: value for name, value in os.environ.items() if name not in MARKS} | {DETACHED: "1"},
            )
        os._exit(0)
    os.waitpid(child, 0)
    theirs.close()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command as well
    try:
        answer = ours.recv(64)
    finally:
        signal.signal(signal.SIGINT, before)
        ours.close()
    return int(answer or b"1")


def _broker(descriptor: int, argv: Sequence[str]) -> None:
    asker = socket.socket(fileno=descriptor)
    command = subprocess.Popen(argv)

    def follow() -> None:
        asker.recv(1)
        command.terminate()

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asker.sendall(str(command.wait()).encode())


if __name__ == "__main__":
    _broker(int(sys.argv[1]), sys.argv[2:])
