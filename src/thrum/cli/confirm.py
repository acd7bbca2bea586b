"""A question before something is deleted for good. Only a person at a terminal is asked (cli.md §1.3, §6); for others,
and in advance, `--yes` answers every command that asks (decision 0054).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from thrum.cli.run import Run
from thrum.cli.session import TTY_ERR, TTY_IN
from thrum.cli.text import line
from thrum.model.errors import Cancelled, ConfirmationRequired


async def confirm(run: Run, question: str, *, what: str = "deletion", about: Sequence[str] = ()) -> None:
    """Ask `QUESTION [y/N]` on stderr, after what it is `about`; return after a yes, raise Cancelled after all else.

    Without a terminal, and under `--json`, nothing is asked: raises ConfirmationRequired, which says the same and how
    to write the command with its yes. Raises NeedsOwnProcess.
    """
    at_terminal = run.session.terminal.tty & TTY_IN and run.session.terminal.tty & TTY_ERR
    if run.flags.json or not at_terminal:
        why = f": {'; '.join(about)}" if about else ""
        raise ConfirmationRequired(f"use --yes to confirm {what}{why}", remedy=run.again("--yes"))
    run.require_own_process()
    lines = "".join(f"{line(each)}\n" for each in about)
    await run.session.terminal.write_err(f"{lines}{line(question)} [y/N] ".encode())
    answer = await trio.to_thread.run_sync(_read_line, abandon_on_cancel=True)
    if answer.strip().lower() not in ("y", "yes"):
        raise Cancelled("cancelled, nothing changed")


def _read_line() -> str:
    """What was typed up to Enter or the end of input."""
    typed = b""
    while not typed.endswith(b"\n") and (piece := os.read(0, 4096)):
        typed += piece
    return typed.decode("utf-8", "replace")
