"""What a command does that may open no socket: it leaves what it has to say in its session's outbox, and a hook of that
session hands it in (`thrum.runtimes.outbox`).
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from thrum.cli.parser import Command, split
from thrum.cli.run import Run
from thrum.cli.session import Session
from thrum.cli.text import line
from thrum.model.clock import SystemClock

if TYPE_CHECKING:
    from thrum.runtimes.outbox import Outbox, Request

SENDING: Final = frozenset({("send",), ("reply",)})
"""The commands whose effect may come later."""
_SESSION_VARIABLE: Final = "CODEX_THREAD_ID"
_SECONDS_MAX: Final = 20.0
"""For one request: a hook has its time limit."""
_LATER: Final = frozenset(
    {"busy", "shutting_down", "daemon_unavailable", "daemon_start_failed", "store_failed", "timeout"}
)
"""Refusals that say nothing of the request itself: it stays, for the next hook."""


def leave(command: Command, tokens: Sequence[str], argv: Sequence[str], session: Session) -> str | None:
    """Leave a command line in the outbox of its session; what to say of it. None: it is none of those, or no session is
    known, or no hook opened an outbox here. Raises UsageError, StoreFailed, BodyTooLarge, NotInitialized …"""
    from thrum.runtimes.outbox import outbox_of, session_of

    if command.path not in SENDING:
        return None
    flags = split(argv).flags
    outbox = outbox_of(Run(session, flags, command).layout(), session_of(session.env, _SESSION_VARIABLE))
    if outbox is None or not outbox.is_open():
        return None
    command.bind(tokens)
    key = outbox.put(argv, session.cwd, _stdin(argv), session.env.get("THRUM_NAME", ""), SystemClock().now_ms())
    if flags.json:
        return msgspec.json.encode({"queued": key}).decode()
    return "" if flags.quiet else "✓ Queued: it goes out with the next hook of this session (a sandbox forbids sockets)"


def _stdin(argv: Sequence[str]) -> str:
    """What is piped in: all of it where `-` asks for it, else what is there already."""
    if os.isatty(0):
        return ""
    try:
        if "-" not in argv and not select.select([0], [], [], 0.1)[0]:
            return ""
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


async def hand_in(run: Run, session: str) -> tuple[Outbox | None, str]:
    """In a hook, outside the sandbox: hand in what waits, in order. Returns the outbox, and what is to be told of
    refusals. Raises NeedsOwnProcess where there is something to hand in: each request is a process of its own below the
    runtime, so that the kernel shows whose it is."""
    from thrum.runtimes.outbox import outbox_of

    outbox = outbox_of(run.layout(), session)
    if outbox is None:
        return None, ""
    await trio.to_thread.run_sync(outbox.open)
    if outbox.is_empty():
        return outbox, ""
    run.require_own_process()
    with outbox.taken() as requests:
        for key, request in requests:
            said = await _run_one(key, request, session)
            if said is None:
                break  # in order: what comes after it waits too
            if said:
                outbox.refused(said)
            outbox.done(key)
    return outbox, outbox.untold()


async def _run_one(key: str, request: Request, session: str) -> str | None:
    """Run one request; what is to be told, empty where it was done. None: not now."""
    from thrum.cli.session import own_environment

    env = {name: value for name, value in own_environment().items() if name != "THRUM_NAME"}
    env |= {_SESSION_VARIABLE: session} | ({"THRUM_NAME": request.name} if request.name else {})
    program = "import sys; from thrum.cli.app import main; main(sys.argv[2:], client_key=sys.argv[1])"
    argv = [sys.executable, "-P", "-c", program, key, "--json", *request.argv]
    if not await trio.Path(request.cwd).is_dir():
        return f"{_shown(request)}: refused: {line(request.cwd)} is gone"
    with trio.move_on_after(_SECONDS_MAX):
        done = await trio.run_process(
            argv,
            stdin=request.stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=request.cwd,
            env=env,
        )
        if done.returncode == 0:
            return ""
        try:
            error: dict[str, Any] = msgspec.json.decode(done.stdout)["error"]
            kind, message, remedy = (str(error.get(name, "")) for name in ("kind", "message", "remedy"))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            kind, message, remedy = "", done.stderr.decode("utf-8", "replace").strip() or "it failed", ""
        if kind in _LATER:
            return None
        return f"{_shown(request)}: refused: {line(message)}" + (f"; {line(remedy)}" if remedy else "")
    return None


def _shown(request: Request) -> str:
    text = line(" ".join(["thrum", *request.argv]))
    return f"`{text if len(text) <= 120 else text[:119] + '…'}`"
