"""One run of a command: what it may ask, what it answers, and how that is printed. Source: cli.md §1.2 to §1.5."""

from __future__ import annotations

import re
import shlex
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from thrum.cli import guard_check, values
from thrum.cli.acting import Chosen, choose
from thrum.cli.parser import Command, Globals, Use
from thrum.cli.session import NeedsOwnProcess, Session
from thrum.cli.text import clean, indent, json_clean, line, one_line
from thrum.model.errors import (
    Busy,
    DaemonUnavailable,
    InternalError,
    NotARepository,
    NotInitialized,
    ShuttingDown,
    ThrumError,
    in_shell,
)
from thrum.model.guards import CANNOT_TELL
from thrum.model.methods.messages import MarkReadParams
from thrum.model.methods.method import Method, Mutating, P, R
from thrum.model.paths import Layout
from thrum.rpc.client import Client

RETRY_SECONDS = (0.05, 0.2, 0.5, 1.0)
"""Pauses before a busy daemon is asked again, unless it says how long."""

SHOWN_DETAILS = (
    "expected_agent",
    "detected_agent",
    "expected_pid",
    "caller_pid",
    "caller_cwd",
    "existing_agent_id",
    "registered_at",
    "last_seen_at",
    "conflict_pid",
    "log",
)
"""Details that people see, between an error's message and its fix."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A suggestion that goes with a result. Codes are never renamed (cli.md §1.3)."""

    code: str
    message: str
    severity: str = "info"
    options: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say: one document for programs, the same as text for people."""

    document: Any
    said: str | Sequence[str] = ""
    """A success line or header, or several; not with `--quiet`. What is foreign in one of them makes no second line."""
    data: str = ""
    """Any text. What is foreign in it went through `line`, or `indent` where it has many lines."""
    notice: str | Sequence[str] = ""
    """A line on stderr that is neither warning nor hint, or several."""
    status: int = 0
    hint: Advice | None = None
    warnings: tuple[str, ...] = ()
    then: Callable[[], Awaitable[Any]] | None = None
    """To be done once the output has reached the user, such as marking it read."""


@dataclass(slots=True)
class Run:
    """One command line being executed."""

    session: Session
    flags: Globals
    command: Command
    argv: tuple[str, ...] = ()
    """The command line as it was typed."""
    warnings: list[str] = field(default_factory=list[str])
    printed: bool = False
    """Whether something went out: from then on it can't be repeated elsewhere."""
    _connection: AsyncExitStack | None = None
    _client: Client | None = None
    _layout: Layout | None = None
    _seen: Chosen | None = None
    """The identity found when the command began, before anything asked for it."""
    _chosen: Chosen | None = None
    _use: Use = "act"
    _judged: guard_check.Judged | None = None
    _changes: int = 0
    _debugged: list[str] = field(default_factory=list[str])

    # -- what a command may ask

    @property
    def now_ms(self) -> int:
        return self.session.clock.now_ms()

    @property
    def quiet(self) -> bool:
        return self.flags.quiet

    def again(self, flag: str, word: str = "", instead: str = "") -> str:
        """The command as it was typed, and `flag`, for a shell; in the place of `word` there stands `instead`."""
        words = [instead if word and each == word else each for each in self.argv]
        end = words.index("--") if "--" in words else len(words)
        return shlex.join(["thrum", *words[:end], flag, *words[end:]])

    def require_own_process(self) -> None:
        """Raise NeedsOwnProcess in the daemon: from here on it needs the user's terminal, its life or its files."""
        if not self.session.local:
            raise NeedsOwnProcess

    def start(self) -> Path:
        """Where the search for the repository begins: `--repo`, `THRUM_HOME`, the working directory."""
        return Path(self.session.cwd, self.flags.repo or self.session.env.get("THRUM_HOME", "") or ".")

    def layout(self) -> Layout:
        """The repository's places. Raises NotInitialized, NotARepository, BadRedirect."""
        if self._layout is None:
            try:
                self._layout = self.session.find_layout(self.start())
            except (NotInitialized, NotARepository) as error:
                if self.flags.repo and error.remedy == NotInitialized.default_remedy:
                    remedy = f"thrum init --repo {in_shell(self.flags.repo)}"
                    raise NotInitialized(error.message, remedy=remedy, **error.details) from error
                if self.flags.repo or not self.session.env.get("THRUM_HOME"):
                    raise
                there = ", or there: thrum init" if isinstance(error, NotInitialized) else ""
                remedy = f"correct or unset THRUM_HOME{there}"
                raise type(error)(f"{error.message} (THRUM_HOME)", remedy=remedy, **error.details) from error
        return self._layout

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Before the command: what it does in an agent's name. Looks are judged here, whether they need one or not."""
        self.warnings += self.session.notices(self.layout)
        self._use = self.command.used(arguments)
        if self._use == "look":
            with suppress(ThrumError, OSError):
                self._seen = choose(self.layout(), self.session, self.flags)
                self._judge(self._seen)

    def identity(self) -> Chosen:
        """Who would act: the claim of every call from here on. Raises the errors of identity.md §6, and CrossWorktree
        when that one is not the caller's to act as (§12)."""
        if self._chosen is None:
            chosen = self._seen or choose(self.layout(), self.session, self.flags)
            if self._judged is None:
                self._judge(chosen)
            self._chosen = chosen
            self.warnings += chosen.warnings
            self.debug(f"identity {chosen.agent_id} by {chosen.selected_by}")
        return self._chosen

    def reader_id(self) -> str:
        """Whose messages a look shows: the identity's, or, where that is another's, those of the agent one is."""
        chosen = self.identity()
        return (self._judged.reader if self._judged else "") or chosen.agent_id

    def _judge(self, chosen: Chosen) -> None:
        self._judged = guard_check.may_use(self.session, self.layout(), chosen, self._use, self.command.name)
        if self._judged.warning:
            self.warnings.append(self._judged.warning)

    @property
    def leaves_no_mark(self) -> bool:
        """Whether this only looks, at another's desk: then nothing is marked."""
        return self._use == "look" and self._judged is not None and self._judged.fired

    @property
    def autostart(self) -> bool:
        """Whether a daemon that is not there may be started."""
        return not values.true(self.session.env.get("THRUM_NO_AUTOSTART"))

    async def connect(self, autostart: bool) -> Client:
        """The daemon; the connection stays until `disconnect`. Not inside a cancel scope that ends before it."""
        if self._client is None:
            async with AsyncExitStack() as stack:
                self._client = await stack.enter_async_context(self.session.connect(self.layout(), autostart))
                self._connection = stack.pop_all()
            self.debug(f"socket {self.session.env.get('THRUM_SOCKET') or self.layout().socket_path}")
        return self._client

    async def client_if_running(self) -> Client | None:
        """The daemon if it runs; this never starts one."""
        try:
            return await self.connect(False)
        except DaemonUnavailable:
            return None

    async def disconnect(self) -> None:
        """Disconnect from the daemon; the next call looks for it again."""
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            await connection.aclose()

    async def delivered(self) -> None:
        """The output reached the user: the daemon may do what waited for that."""
        if self._client is not None:
            await self._client.delivered()

    async def call(self, method: Method[P, R], params: P) -> R:
        """Call the daemon in this identity's name; a busy one, or one that just went away, is asked again.

        A changing call keeps its client key over all of that, so nothing is done twice.
        """
        # Marking twice is marking once, and another process that tries again would name another moment.
        momentary = isinstance(params, MarkReadParams) and params.marked_before
        if isinstance(params, Mutating) and not momentary and self.session.key:
            self._changes += 1
            params.client_key = f"{self.session.key}.{self._changes}"
        for wait_seconds in RETRY_SECONDS:
            try:
                return await self.call_once(method, params)
            except (Busy, ShuttingDown, DaemonUnavailable) as error:
                if isinstance(error, DaemonUnavailable) and error.details.get("reason") != "closed":
                    raise
                if not isinstance(error, Busy):
                    await self.disconnect()
                self.go_elsewhere(error)
                self.debug(f"{method.name}: {error.message}, again")
                await trio.sleep(error.details.get("retry_after_ms", wait_seconds * 1000) / 1000)
        return await self.call_once(method, params)

    async def call_once(self, method: Method[P, R], params: P) -> R:
        """One try. After ShuttingDown or DaemonUnavailable the caller has to `disconnect`."""
        client = await self.connect(self.autostart)
        claimed = self._judged is None or self._judged.claimed
        if self._chosen is not None and claimed and not params.caller_agent_id:
            params.caller_agent_id = self._chosen.agent_id
        began = time.perf_counter()
        try:
            return await client.call(method, params)
        finally:
            self.warnings += client.warnings
            client.warnings.clear()
            self.debug(f"{method.name} {(time.perf_counter() - began) * 1000:.1f} ms")

    def go_elsewhere(self, error: ThrumError) -> None:
        """Raise NeedsOwnProcess for what printed nothing: a daemon that goes away takes its commands with it, and they
        go on in the user's process.
        """
        if not isinstance(error, Busy) and not self.session.local and not self.printed:
            raise NeedsOwnProcess

    # -- what is printed

    def debug(self, text: str) -> None:
        if self.flags.verbose:
            self._debugged.append(text)

    async def write(self, text: str) -> None:
        """Text for people on stdout, harmless, with its newline."""
        self.printed = True
        await self.session.terminal.write_out(_encoded(clean(text) + "\n"))

    async def complain(self, text: str) -> None:
        """A line on stderr."""
        self.printed = True
        await self.session.terminal.write_err(_encoded(clean(text) + "\n"))

    async def write_json(self, document: Any) -> None:
        """One JSON document, and its newline."""
        self.printed = True
        await self.session.terminal.write_out(json_line(document))

    async def finish(self, answer: Answer) -> int:
        """Print an answer, and do what waits for that."""
        warnings = tuple(dict.fromkeys((*self.warnings, *answer.warnings)))
        hint = None if self.quiet or values.true(self.session.env.get("THRUM_NO_HINTS")) else answer.hint
        if self.flags.json:
            await self.write_json(_with(answer.document, hint, warnings))
        else:
            said = "" if self.quiet else _lines(answer.said)
            text = "\n".join(part for part in (said, answer.data) if part)
            if text:
                await self.write(text)
            if answer.notice:
                await self.complain(_lines(answer.notice))
        await self._print_notes(warnings, hint)
        if answer.then is not None and not self.leaves_no_mark:
            await self.session.terminal.flush()
            try:
                await answer.then()
            except ThrumError as error:
                await self.complain(
                    f"warning: shown, but not marked as read: {line(error.message.partition(chr(10))[0])}"
                )
        return answer.status

    def note_failure(self, error: ThrumError) -> None:
        """A line in thrum's own log, of a command whose caller may not be told."""
        from thrum.model.log import append_line

        with suppress(ThrumError, OSError):
            append_line(
                self.layout().log_file, "warning", f"{self.command.name}: {error.message}", {"kind": error.kind}
            )

    async def fail(self, error: ThrumError, status: int) -> int:
        """Print a refusal: two lines for people, one document for programs."""
        if self.flags.json:
            await self.write_json(error_document(error))
        else:
            await self.complain(error_text(error))
        await self._print_notes((), None)
        if self.flags.verbose:
            told = "".join(traceback.format_exception(error)).rstrip("\n")
            await self.complain(indent(told, "debug: "))
        return status

    async def _print_notes(self, warnings: tuple[str, ...], hint: Advice | None) -> None:
        lines = [f"debug: {line(text)}" for text in self._debugged]
        if not self.flags.json:
            lines += [f"warning: {one_line(text)}" for text in warnings]
            if hint is not None:
                lines.append(f"hint: {line(hint.message)}")
        self._debugged.clear()
        if lines:
            await self.complain("\n".join(lines))


def _lines(some: str | Sequence[str]) -> str:
    return line(some) if isinstance(some, str) else "\n".join(line(each) for each in some)


def json_line(document: Any) -> bytes:
    """One document on a line, hiding nothing. Halves of characters, which JSON can't hold, are shown as in text."""
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_whole(msgspec.to_builtins(document)))
    return json_clean(encoded) + b"\n"


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_whole(key): _whole(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return [_whole(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _with(document: Any, hint: Advice | None, warnings: tuple[str, ...]) -> Any:
    """The document and what rides along with it."""
    if hint is None and not warnings:
        return document
    whole: dict[str, Any] = msgspec.to_builtins(document)
    if warnings:
        whole["warnings"] = list(warnings)
    if hint is not None:
        shown = {"code": hint.code, "severity": hint.severity, "message": hint.message, "options": list(hint.options)}
        whole["hints"] = [shown]
    return whole


def error_document(error: ThrumError) -> dict[str, Any]:
    """`{"error": {kind, message, remedy, details?}}`, and beside it what the error carries as a result."""
    body: dict[str, Any] = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
    if error.details:
        body["details"] = error.details
    return {"error": body}


def error_text(error: ThrumError) -> str:
    """`Error: …`, indented details, `  fix: …`. What is foreign in them begins no line."""
    # A guard's message has its details in it already, a line each (identity.md §12).
    is_guards = "guard" in error.details
    first, *rest = error.message.split("\n") if is_guards else (error.message,)
    lines = [f"Error: {one_line(first)}"]
    for name in SHOWN_DETAILS:
        if error.details.get(name) and not (is_guards and _is_said(name, error)):
            lines.append(f"  {name.replace('_', ' ')}: {line(str(error.details[name]))}")
    lines += [line(each) for each in rest if each.startswith(CANNOT_TELL)]
    if error.remedy:
        lines.append(f"  fix: {one_line(error.remedy)}")
    return "\n".join(lines)


def _is_said(name: str, error: ThrumError) -> bool:
    """Whether a person learns nothing from a guard's field that its remedy does not say; programs have them all."""
    if name in ("expected_pid", "caller_pid"):
        return True  # the remedy names the process that matters
    if name == "caller_cwd":
        return "cd " not in error.remedy
    return re.search(rf"\b{re.escape(str(error.details[name]))}\b", error.remedy) is not None


def unexpected(error: Exception, command: str) -> InternalError:
    """An unexpected error, as one that can be printed."""
    refusal = InternalError(f"unexpected error in {command}: {type(error).__name__}: {error}")
    refusal.__cause__ = error
    return refusal
