"""Where a message body comes from: the TEXT argument, stdin, or a file (cli.md §1.7)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, cast

import trio

from thrum.cli.parser import option, switch
from thrum.cli.run import Run
from thrum.cli.session import TTY_IN
from thrum.model import limits
from thrum.model.errors import (
    AmbiguousBody,
    BadEncoding,
    BadJson,
    BodyTooLarge,
    FileNotFound,
    FileTooLarge,
    FileUnreadable,
)

Stdin = Annotated[bool, switch("read the body from stdin, like TEXT -")]
MessageFlag = Annotated[str, option("TEXT", "the body, instead of TEXT", "-m", "--message", "--text")]
BodyFile = Annotated[str, option("P", "read the body from this file", "--body-file", "--file")]


async def read_body(run: Run, text: str | None, message: str, stdin: bool, body_file: str, advice: str = "") -> str:
    """The body of a command that takes one; where nothing is said, stdin if it has something to say. `advice`: how to
    write the command with a text, where that is known.

    Raises UsageError, AmbiguousBody, BadEncoding and the errors of files.
    """
    from_stdin = stdin or text == "-"
    given = [
        name
        for name, there in (
            ("TEXT", text is not None and text != "-"),
            ("--message", bool(message)),
            ("--stdin", from_stdin),
            ("--body-file", bool(body_file)),
        )
        if there
    ]
    if len(given) > 1:
        raise AmbiguousBody(f"more than one body: {', '.join(given)}")
    if body_file:
        return await read_text_file(run, body_file)
    if message:
        return message
    if from_stdin:
        return await whole_stdin(run)
    if text is None:
        return await text_from_stdin(run, advice or "give TEXT, - for stdin, or --body-file P")
    return text


async def text_from_stdin(run: Run, advice: str) -> str:
    """What stdin says to a command that got its text from no word or flag, less one final newline (cli.md §3.3).

    Only a file counts, a pipe that a command writes to, and what says something in time: anything else is a
    UsageError, `TEXT is missing` with `advice`, where a read would hang for good. Raises BodyTooLarge, BadEncoding,
    NeedsOwnProcess.
    """
    terminal = run.session.terminal
    is_offered = not terminal.tty & TTY_IN and await terminal.offers_stdin()
    text = await whole_stdin(run) if is_offered else ""
    if not text:
        raise run.command.error("TEXT is missing", advice)
    return text


async def whole_stdin(run: Run) -> str:
    """All that stdin says, less one final newline. Raises BodyTooLarge, BadEncoding."""
    data = await run.session.terminal.read_stdin()
    if len(data) > limits.request_line_bytes_max:
        message = f"message body too large: {len(data)} bytes, the limit is {limits.body_bytes_max}"
        raise BodyTooLarge(message, field="content", bytes=len(data), limit=limits.body_bytes_max)
    return decoded(data, "stdin").removesuffix("\n")


async def read_text_file(run: Run, name: str) -> str:
    """A file that the command line names, less one final newline; only in the user's own process."""
    run.require_own_process()
    path = Path(run.session.cwd, name)
    try:
        data, size = await trio.to_thread.run_sync(_read_limited, path)
    except FileNotFoundError:
        raise FileNotFound(f"no such file: {name}") from None
    except OSError as error:
        raise FileUnreadable(f"cannot read {name}: {error.strerror or error}") from error
    if len(data) > limits.body_bytes_max + 1:
        message = f"{name} is {size} bytes, the limit is {limits.body_bytes_max}"
        raise FileTooLarge(message, bytes=size, limit=limits.body_bytes_max)
    return decoded(data, name).removesuffix("\n")


def _read_limited(path: Path) -> tuple[bytes, int]:
    """The file, or a little more of it than may be sent (it may be endless), and its size."""
    with path.open("rb") as file:
        data = file.read(limits.body_bytes_max + 2)
        return data, max(len(data), os.fstat(file.fileno()).st_size)


def decoded(data: bytes, source: str) -> str:
    """UTF-8 text. Raises BadEncoding, naming the first bad byte, counted from 1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadEncoding(f"{source} is not UTF-8 (byte {error.start + 1})") from None


def parse_structured(text: str) -> dict[str, Any] | None:
    """The JSON object of `--structured`; None for an empty text. Raises BadJson."""
    if not text:
        return None
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadJson(f"--structured is not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise BadJson("--structured is not valid JSON: nested too deeply at column 1") from None
    if not isinstance(value, dict):
        raise BadJson("--structured must be a JSON object")
    return cast("dict[str, Any]", value)
