"""The only place that runs tmux: one environment for all of it, targets by id alone, a time limit.

A name is looked up here, whole (`Tmux.session`): tmux itself takes the beginning of a name for the name, and so kills
strangers' sessions. A pane is looked at in one call, so that what its screen shows and what tmux knows of it belong
together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import trio

from thrum.identity.runtimes import MARKS
from thrum.model.errors import TmuxFailed, TmuxMissing, TmuxSessionNotFound
from thrum.terminal.screen import Screen

SECONDS_MAX: Final = 5.0
"""How long one call may take; a server that swaps answers within one."""

_NOT_INHERITED_PREFIXES: Final = ("THRUM_",)
_NOT_INHERITED: Final = frozenset((*MARKS, "CLAUDE_PROJECT_DIR", "TMUX", "TMUX_PANE"))
_GONE: Final = re.compile(r"can't find (?:pane|window|session)|no server running|error connecting to|no current")
_NO_SERVER: Final = re.compile(
    r"no server running|error connecting to .*\((?:No such file|Connection refused)|server exited|lost server"
)
_ID: Final = re.compile(r"[$@%]\d+")

_SEPARATOR: Final = "\x1f"
_PANE_FORMAT: Final = _SEPARATOR.join(
    (
        "%s",
        "#{window_id}",
        "#{pane_pid}",
        "#{pane_tty}",
        "#{pane_dead}",
        "#{pane_input_off}",
        "#{pane_synchronized}",
        "#{pane_width}",
        "#{pane_height}",
        "#{cursor_x}",
        "#{cursor_y}",
        "#{cursor_flag}",
        "#{alternate_on}",
        "#{pane_in_mode}",
        "#{pane_current_command}",
        "#{@thrum-typing}",
    )
)


def is_unwanted(name: str) -> bool:
    """Whether a variable has no place in a terminal that thrum makes: it would name another agent, or another
    runtime."""
    return name in _NOT_INHERITED or name.startswith(_NOT_INHERITED_PREFIXES)


def tmux_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of every tmux process; the server that it may start hands them on to its panes."""
    return {name: value for name, value in environ.items() if not is_unwanted(name)}


@dataclass(frozen=True, slots=True)
class Server:
    """Which tmux server: by the path of its socket or by its name; with neither, the user's usual one."""

    path: str = ""
    name: str = ""
    config: str = ""
    """A file that it reads at its start instead of the user's."""

    @property
    def flags(self) -> tuple[str, ...]:
        """What every call begins with."""
        which = ("-S", self.path) if self.path else ("-L", self.name) if self.name else ()
        return (*which, *(("-f", self.config) if self.config else ()))


@dataclass(frozen=True, slots=True)
class Look:
    """What tmux tells of a pane at one moment."""

    screen: Screen
    window: str
    """Its id (`@3`)."""
    pane_pid: int
    """The process that tmux started in it."""
    tty: str
    dead: bool
    input_off: bool
    """Whether tmux keeps keys from it."""
    synchronized: bool
    """Whether its keys go into other panes of its window, too."""
    watchers: tuple[tuple[int, int], ...]
    """For each session that shows this window: when a key was last pressed in it (seconds since 1970, by the server's
    clock), and how many clients look at it."""
    now: int
    """The server's clock, seconds since 1970."""
    typing: str = ""
    """Which thrum types into it, and since when by that clock: `MARK SECONDS`."""

    @property
    def last_key(self) -> int:
        """When a person last pressed a key in a window that shows this pane; 0 if no one shows it."""
        return max((pressed for pressed, _ in self.watchers), default=0)

    @property
    def watched(self) -> bool:
        """Whether a person has it on a screen."""
        return any(clients for _, clients in self.watchers)


class PaneRow(NamedTuple):
    """A pane, in a list of all of a server's. Options that are not set are empty."""

    session: str
    session_name: str
    window: str
    pane: str
    pane_pid: int
    tty: str
    dead: bool
    command: str
    last_output: int
    """When its window last printed something; seconds since 1970, by the server's clock."""
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Tmux:
    """A tmux server, spoken to by its command line. All methods raise TmuxMissing, TmuxFailed, TmuxSessionNotFound."""

    environ: Mapping[str, str]
    server: Server = field(default_factory=Server)
    seconds_max: float = SECONDS_MAX

    async def run(self, *commands: Sequence[str], stdin: bytes = b"") -> str:
        """Run commands of tmux in a row, as one: nothing else happens in the server in between. Returns what they
        print."""
        words: list[str] = []
        for command in commands:
            words += [*([";"] if words else []), *(_word(word) for word in command)]
        argv = ("tmux", "-u", *self.server.flags, *words)
        try:
            with trio.fail_after(self.seconds_max):
                done = await trio.run_process(
                    argv,
                    stdin=stdin,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    env=tmux_environ(self.environ),
                    cwd="/",
                )
        except trio.TooSlowError:
            raise TmuxFailed(
                f"tmux {commands[0][0]} gave no answer within {self.seconds_max:g} s", remedy="look at it: tmux ls"
            ) from None
        except FileNotFoundError:
            raise TmuxMissing("tmux is not installed, or not on the PATH") from None
        if done.returncode != 0:
            raise _failure(commands[0], done.stderr.decode("utf-8", "replace").strip())
        return done.stdout.decode("utf-8", "replace")

    async def look(self, pane: str) -> Look:
        """A pane's screen, and what tmux knows of it, at one moment."""
        _checked(pane)
        window = (await self.run(("display-message", "-p", "-t", pane, "#{window_id}"))).strip()
        if not window:
            raise TmuxSessionNotFound(f"there is no pane {pane}")
        seen = await self.run(
            ("display-message", "-p", "-t", pane, f"{_PANE_FORMAT}{_SEPARATOR}{watchers_format(window)}"),
            ("display-message", "-p", "-t", pane, "#{pane_title}"),
            ("capture-pane", "-p", "-e", "-t", pane),
        )
        return _look(seen)

    async def capture(self, pane: str, lines: int = 50) -> str:
        """The last lines of a pane, what has scrolled out of it too, as text without colours."""
        _checked(pane)
        text = await self.run(("capture-pane", "-p", "-J", "-S", f"-{lines}", "-t", pane))
        kept = [line.rstrip() for line in text.rstrip().split("\n")][-lines:]
        return "\n".join(kept)

    async def paste(self, pane: str, text: str, buffer: str) -> None:
        """Put a text into a pane as if it were pasted, from a buffer of its own that is gone afterwards.

        A program that asked for it learns that it is pasted, so that no character of it is a command.
        """
        _checked(pane)
        await self.run(
            ("load-buffer", "-b", buffer, "-"),
            ("paste-buffer", "-p", "-d", "-b", buffer, "-t", pane),
            stdin=text.encode(),
        )

    async def keys(self, pane: str, *names: str) -> None:
        """Press keys, by the names that tmux has for them."""
        _checked(pane)
        await self.run(("send-keys", "-t", pane, *names))

    async def socket_path(self) -> str:
        """Where the server that runs listens: for a client that is started elsewhere."""
        return (await self.run(("display-message", "-p", "#{socket_path}"))).strip()

    async def panes(self, *options: str) -> tuple[PaneRow, ...]:
        """Every pane of the server, with the named options of its session; none if no server runs."""
        columns = (
            "session_id",
            "session_name",
            "window_id",
            "pane_id",
            "pane_pid",
            "pane_tty",
            "pane_dead",
            "pane_current_command",
            "window_activity",
            *options,
        )
        try:
            text = await self.run(("list-panes", "-a", "-F", _SEPARATOR.join(f"#{{{name}}}" for name in columns)))
        except TmuxSessionNotFound:
            return ()
        return tuple(_pane_row(line, options) for line in _clear(text).splitlines())


def attach_command(socket: str, session: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What shows the session of exactly that name in this terminal: a client of its own, or, inside a client of that
    server, that one. Raises TmuxFailed inside a client of another server."""
    within = environ.get("TMUX", "").partition(",")[0]
    if within and within != socket:
        raise TmuxFailed("this is inside another tmux", remedy=f"in a terminal outside of it: tmux -S {socket} attach")
    return ("tmux", "-u", "-S", socket, "switch-client" if within else "attach-session", "-t", f"={session}")


def watchers_format(window: str) -> str:
    """A format that tells, for each session that has this window in front, its last key and its clients."""
    return f"#{{S:#{{?#{{==:#{{window_id}},{window}}},#{{session_activity}}/#{{session_attached}} ,}}}}"


def _look(seen: str) -> Look:
    head, title, *lines = seen.removesuffix("\n").split("\n")
    *told, typing, watchers = _clear(head).split(_SEPARATOR)
    now, window, pid, tty, dead, off, synchronized, width, height, x, y, visible, alternate, mode, command = told
    screen = Screen(
        lines=tuple(lines),
        size=(int(width), int(height)),
        title=title,
        cursor=(int(x), int(y)),
        cursor_visible=visible == "1",
        alternate_on=alternate == "1",
        pane_in_mode=mode not in ("", "0"),
        pane_current_command=command,
    )
    pressed = tuple((int(at), int(clients)) for at, _, clients in (each.partition("/") for each in watchers.split()))
    flags = (dead == "1", off == "1", synchronized == "1")
    return Look(screen, window, int(pid or 0), tty, *flags, pressed, int(now), typing)


def _pane_row(line: str, options: Sequence[str]) -> PaneRow:
    session, name, window, pane, pid, tty, dead, command, activity, *values = line.split(_SEPARATOR)
    return PaneRow(
        session,
        name,
        window,
        pane,
        int(pid or 0),
        tty,
        dead == "1",
        command,
        int(activity or 0),
        dict(zip(options, values, strict=True)),
    )


def _clear(text: str) -> str:
    """Newer versions of tmux print the separator as `\\037`."""
    return text.replace("\\037", _SEPARATOR)


def _word(word: str) -> str:
    """A word of a command; one that ends with a semicolon would end the command."""
    return f"{word[:-1]}\\;" if word.endswith(";") else word


def _checked(target: str) -> None:
    if not _ID.fullmatch(target):
        raise TmuxFailed(f"{target!r} is no id of tmux's", remedy="thrum tmux status")


def _failure(command: Sequence[str], said: str) -> TmuxFailed | TmuxSessionNotFound:
    if _NO_SERVER.search(said):
        return TmuxSessionNotFound("no tmux server runs")
    if _GONE.search(said):
        return TmuxSessionNotFound(f"tmux: {said}")
    return TmuxFailed(f"tmux {command[0]}: {said or 'failed without a word'}")
