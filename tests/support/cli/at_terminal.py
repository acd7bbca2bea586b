"""Executes a command on a terminal of its own, in the foreground of it; the standard streams stay what they are.

`python -m tests.support.cli.at_terminal CMD…`: as a person's shell would start it, but that nobody types there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import termios


def take_terminal() -> None:
    """Make a new terminal the controlling one of this process, which leads a session from here on."""
    with contextlib.suppress(PermissionError):  # it leads one already
        os.setsid()
    controller, terminal = os.openpty()
    for descriptor in (controller, terminal):
        # The terminal lives as long as this process, whatever it becomes.
        os.set_inheritable(descriptor, True)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


if __name__ == "__main__":
    take_terminal()
    os.execvp(sys.argv[1], sys.argv[1:])
