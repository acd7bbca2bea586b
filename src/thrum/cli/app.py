"""The command line: how a command is executed.

`run` is the same in the daemon, for a launcher, and in the user's own process, which `main` begins and ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, cast

import trio

from thrum.cli import help, outbox, sandbox
from thrum.cli.body import decoded
from thrum.cli.parser import Globals, find, split, wants_json
from thrum.cli.registration_hints import name_that_ended
from thrum.cli.run import Answer, Run, error_document, error_text, json_line, unexpected
from thrum.cli.session import NeedsOwnProcess, OutputLost, OwnTerminal, Session, own_directory, own_environment
from thrum.cli.table import ALIASES, ALL, COMMANDS, GROUPS, HELP_GROUPS
from thrum.cli.text import clean
from thrum.model.errors import BadEncoding, BodyTooLarge, IdentityNotFound, StoreFailed, ThrumError, UsageError
from thrum.model.files import shortage

_NOT_REFUSALS = (NeedsOwnProcess, BrokenPipeError, OutputLost)
"""What ends the run without a word of the command's."""


async def run(argv: Sequence[str], session: Session) -> int:
    """Execute one command line and give its exit status. Raises NeedsOwnProcess before any output."""
    nothing = Run(session, Globals(json=wants_json(argv)), COMMANDS[("help",)])
    try:
        _check_encoding(argv)
        line = split(argv)
        if line.flags.version:
            return await _execute(Run(session, line.flags, COMMANDS[("version",)]), ())
        command, path, rest = find(line.tokens, COMMANDS, GROUPS)
        if command is None or line.flags.help:
            return await Run(session, line.flags, COMMANDS[("help",)]).finish(help_answer(path, session.terminal.width))
    except (UsageError, BadEncoding) as error:
        return await nothing.fail(error, error.status)
    return await _execute(Run(session, line.flags, command, tuple(argv)), rest)


def _check_encoding(argv: Sequence[str]) -> None:
    """Raise BadEncoding for what the shell handed over beyond UTF-8: it arrives as halves of characters."""
    for number, word in enumerate(argv, start=1):
        if not word.isascii():
            decoded(word.encode("utf-8", "surrogateescape"), f"argument {number}")


async def _execute(run: Run, tokens: Sequence[str]) -> int:
    """From the words to the exit status. The daemon is let go at the end, whatever happened."""
    try:
        try:
            bound = run.command.bind(tokens)
            run.begin(bound.arguments)
            answer = await run.command.handler(*bound.args, **bound.kwargs, run=run)
            return await run.finish(answer) if isinstance(answer, Answer) else answer
        except _NOT_REFUSALS:
            raise
        except Exception as error:
            refusal = _refusal(error, run.command.name)
            if run.command.silent:
                run.note_failure(refusal)
                return 0
            if isinstance(refusal, IdentityNotFound):
                refusal = await name_that_ended(run, refusal)
            return await run.fail(refusal, run.command.error_status or refusal.status)
    finally:
        await run.disconnect()


def _refusal(error: Exception, command: str) -> ThrumError:
    """What an error says to the user; of a group, its first one."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    if isinstance(error, _NOT_REFUSALS):
        raise error
    if (busy := shortage(error)) is not None:
        return busy
    return error if isinstance(error, ThrumError) else unexpected(error, command)


@functools.lru_cache(maxsize=256)
def help_answer(path: tuple[str, ...], width: int) -> Answer:
    """Help of a command, of a group, or of everything. Raises UsageError for what is neither."""
    command, _, rest = find(path, COMMANDS, GROUPS)
    if rest:
        raise UsageError(f'unknown command "{" ".join(path)}"', remedy="thrum help")
    if command is not None:
        aliases = [" ".join(alias) for alias, real in ALIASES.items() if real == command.path]
        text = help.command_help(command, aliases, width)
    elif path:
        text = help.group_help(path[0], GROUPS[path[0]], COMMANDS.values(), width)
    else:
        text = help.root_help((each for each in ALL if each.listed), HELP_GROUPS, width)
    return Answer({"command": " ".join(command.path if command else path), "help": text + "\n"}, data=text)


# -- the user's own process

INTERRUPTED = 130


def main(argv: Sequence[str], client_key: str = "") -> NoReturn:
    """Execute a command line here, and end the process.

    `client_key`: the key under which a daemon was asked to run this very command before, else empty.
    """
    from thrum.cli.connect import connector, own_links, own_probe

    env = own_environment()
    session = Session(
        terminal=OwnTerminal(env),
        env=env,
        cwd=own_directory(),
        local=True,
        connect=connector(env),
        key=client_key or secrets.token_hex(16),
        handed_over=bool(client_key),
        links=functools.partial(own_links, env),
        caller_probe=functools.partial(own_probe, env),
    )
    _end(_status(argv, session))


def _status(argv: Sequence[str], session: Session) -> int:
    try:
        return trio.run(run, argv, session)
    except PermissionError:
        # Not the command's own: those are refusals by now. The event loop could not begin.
        if not sandbox.forbids_sockets():
            raise
        return _refuse_in_sandbox(argv, session)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        return INTERRUPTED
    except BrokenPipeError:
        # End as any program whose reader has had enough: silently, and seen as such by the shell.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return 1
    except OutputLost as error:
        with contextlib.suppress(OSError):
            os.write(2, f"Error: cannot write the output: {error}\n".encode())
        return 1


def _refuse_in_sandbox(argv: Sequence[str], session: Session) -> int:
    path, command = None, None
    error: ThrumError | None = None
    try:
        line = split(argv)
        command, _, rest = find(line.tokens, COMMANDS, GROUPS)
        path = Run(session, line.flags, COMMANDS[("help",)]).layout().socket_path
        if command is not None and (said := outbox.leave(command, rest, argv, session)) is not None:
            os.write(1, f"{said}\n".encode() if said else b"")
            return 0
    except (UsageError, StoreFailed, BodyTooLarge) as failed:
        error = failed
    except ThrumError:
        pass
    error = error or sandbox.refusal(path, session.env)
    with contextlib.suppress(OSError):
        if wants_json(argv):
            os.write(1, json_line(error_document(error)))
        else:
            os.write(2, clean(f"{error_text(error)}\n").encode())
    return (command.error_status if command else 0) or error.status


def _end(status: int) -> NoReturn:
    """Everything was written with system calls; nothing is left in Python's buffers that could fail at the end."""
    sys.stdout = sys.stderr = None  # pyright: ignore[reportAttributeAccessIssue]
    os._exit(status)
