"""The typing door's act: one line typed into an idle, empty prompt, or nothing done (wake.md §3).

The last door: where a runtime has no other. It looks twice; pastes; looks whether exactly that stands in the prompt;
and presses Enter only if, by then, no one has touched the pane. Escape and Ctrl-C are never sent. `type_line` is the
act over any `PanePort`; `TmuxPane` is that of tmux.

How a key that somebody presses between the last look and Enter is kept out. A person's: tmux notes when a key was
pressed in a session, and the condition on which Enter is sent is judged by tmux itself, in one step with sending it. A
program's, such as another tool's `send-keys`: tmux notes none, so where no one looks at the pane, its input is off
from before the last look until Enter; what a person types is never swallowed. Another daemon's: the pane carries the
mark of the one that types, and tmux takes no second one.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import trio

from thrum.identity.processes import ProcessTable
from thrum.model.errors import ThrumError, TmuxFailed
from thrum.model.limits import wake_line_max
from thrum.terminal.foreground import Owner, foreground
from thrum.terminal.panes import RUNTIMES, Reading, read_pane
from thrum.terminal.tmux import Look, Tmux, watchers_format

LINE_CHARS_MAX: Final = wake_line_max
LOOKS_APART_SECONDS: Final = 1.0
"""Between the two equal looks: after Enter some runtimes show an empty prompt for a moment, and before their
questions."""
QUIET_SECONDS: Final = 2
"""For so long no one may have pressed a key where the pane is shown; tmux tells whole seconds."""
DRAWN_SECONDS_MAX: Final = 3.0
DRAWN_LOOK_SECONDS: Final = 0.05
SETTLE_SECONDS: Final = 0.25
"""From the first look that shows the line to the last one: what was typed before is drawn by then."""
INPUT_OFF_SECONDS_MAX: Final = 3
"""When tmux gives a pane its input back by itself, should thrum be killed meanwhile."""

ACT_SECONDS_MAX: Final = 8.0
"""From the paste to the end."""
MARK_SECONDS_MAX: Final = 15
"""For so long a pane is one daemon's to type into; one that was killed meanwhile left its mark."""

_COMMAND_SIGNS: Final = "/!#?&@$>:"
"""What begins a command, a mode or a completion in one runtime or another."""
_COMPLETES: Final = re.compile(r"@|^[/!#$]|\\$")
"""In the last word: Enter would choose from a popup, or, after a backslash, make a new line."""
_BLANKS: Final = re.compile(r"\s+")
_TYPING: Final = "@thrum-typing"

_OWNERS: Final[dict[Owner, str]] = {
    "child": "a program that the agent started is in front",
    "shell": "the shell is in front",
    "other": "another program is in front",
    "unknown": "who is in front can't be told",
}


@dataclass(frozen=True, slots=True)
class Offered:
    """The line was typed, alone, and Enter pressed. Whether a model saw it is another matter."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was typed."""

    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something was typed, and Enter was not pressed. `left`: whether it may still stand in the prompt."""

    why: str
    left: bool = True


Typed = Offered | Refused | Failed


class Sight(NamedTuple):
    """A look at a pane, and who is in front in it."""

    look: Look
    owner: Owner


class PanePort(Protocol):
    """A pane to type into. `TmuxPane` is the real one."""

    async def look(self) -> Sight:
        """What it shows now."""
        ...

    async def paste(self, seen: Look, text: str) -> bool:
        """Put a text into it, as pasted, if it is still as it was seen, in one step; whether it was."""
        ...

    async def hold(self) -> None:
        """Keep other programs' keys out of it, if no one looks at it, until `release`, or a key is pressed here."""
        ...

    async def release(self) -> None:
        """Undo `hold`."""
        ...

    async def press(self, seen: Look, key: str, times: int = 1) -> bool:
        """Press a key if the pane is still as it was seen, in one step; whether it was pressed."""
        ...

    async def wait(self, seconds: float) -> None:
        """Let time go by."""
        ...


def unfit(text: str) -> str:
    """Why a text can't be typed as a line; empty if it can."""
    if not text or text != text.strip():
        return "the line is empty, or begins or ends with a blank"
    if len(text) > LINE_CHARS_MAX:
        return f"the line has over {LINE_CHARS_MAX} characters"
    if not text.isprintable():
        return "it is more than one line, or has control characters"
    if text[0] in _COMMAND_SIGNS:
        return f"a line that begins with {text[0]!r} is a command"
    if _COMPLETES.search(text.rpartition(" ")[2]):
        return "its last word would open a completion"
    return ""


def obstacle(runtime: str, sight: Sight) -> str:
    """Why nothing may be typed into a pane that looks so; empty if it may."""
    look, owner = sight
    if runtime not in RUNTIMES:
        return f"the prompt of {runtime} is not known"
    if look.dead:
        return "the pane's program has ended"
    if look.input_off:
        return "the pane takes no keys"
    if look.synchronized:
        return "its keys would go into other panes, too"
    if owner != "agent":
        return _OWNERS[owner]
    if _is_taken(look):
        return "another daemon types here"
    state = read_pane(runtime, look.screen).state
    if state != "idle_empty":
        return f"the pane shows {state}"
    if look.now - look.last_key < QUIET_SECONDS:
        return "somebody is typing"
    return ""


async def type_line(port: PanePort, runtime: str, text: str) -> Typed:
    """Type a line into a runtime's idle, empty prompt and press Enter, or say why not. Raises what the port raises."""
    if why := unfit(text):
        return Refused(why)
    first = await port.look()
    if why := obstacle(runtime, first):
        return Refused(why)
    await port.wait(LOOKS_APART_SECONDS)
    second = await port.look()
    if why := obstacle(runtime, second):
        return Refused(why)
    if not _alike(first.look, second.look) or first.look.screen != second.look.screen:
        return Refused("the screen is changing")
    result: Typed = Failed("it took too long")
    # Half of it is worse than all of it: a stop of the daemon waits for it.
    with trio.CancelScope(shield=True, deadline=trio.current_time() + ACT_SECONDS_MAX):
        if not await port.paste(second.look, text):
            return Refused("somebody touched the pane")
        result = await _submit(port, runtime, text, second)
    return result


async def _submit(port: PanePort, runtime: str, text: str, before: Sight) -> Typed:
    """Press Enter under a line that was pasted, if it stands there alone."""
    if not await _is_drawn(port, runtime, text):
        return await _withdraw(port, runtime, text, before, "the line did not appear, or not alone")
    try:
        await port.hold()
        await port.wait(SETTLE_SECONDS)
        last = await port.look()
        why = _hindrance(runtime, text, before, last)
        if not why and await port.press(last.look, "Enter"):
            return Offered()
    finally:
        with trio.CancelScope(shield=True):
            await port.release()
    return await _withdraw(port, runtime, text, before, why or "somebody touched the pane")


async def _is_drawn(port: PanePort, runtime: str, text: str) -> bool:
    """Wait until the prompt shows exactly the line."""
    for _ in range(int(DRAWN_SECONDS_MAX / DRAWN_LOOK_SECONDS)):
        reading = read_pane(runtime, (await port.look()).look.screen)
        if _is_ours(reading, text):
            return reading.state == "idle_draft"
        await port.wait(DRAWN_LOOK_SECONDS)
    return False


def _hindrance(runtime: str, text: str, before: Sight, now: Sight) -> str:
    """Why Enter may not be pressed; empty if it may."""
    reading = read_pane(runtime, now.look.screen)
    if now.owner != "agent":
        return _OWNERS[now.owner]
    if reading.state != "idle_draft":
        return f"the pane shows {reading.state}"
    if not _is_ours(reading, text):
        return "somebody else's text is in the prompt, too"
    return "" if _alike(before.look, now.look) else "somebody pressed a key"


async def _withdraw(port: PanePort, runtime: str, text: str, before: Sight, why: str) -> Failed:
    """Take the line back if nothing else stands in the prompt and no one is typing; else leave it."""
    now = await port.look()
    reading = read_pane(runtime, now.look.screen)
    is_alone = reading.state in ("idle_draft", "working") and _is_ours(reading, text)
    if now.owner != "agent" or not is_alone or not _alike(before.look, now.look):
        return Failed(why)
    if not await port.press(now.look, "BSpace", len(text)):
        return Failed(why)
    await port.wait(SETTLE_SECONDS)
    after = read_pane(runtime, (await port.look()).look.screen)
    return Failed(why, left=bool(after.draft))


def _is_taken(look: Look) -> bool:
    """Whether a pane has the mark of a daemon that may still be typing."""
    since = look.typing.rpartition(" ")[2]
    return since.isdecimal() and look.now - int(since) <= MARK_SECONDS_MAX


def _is_ours(reading: Reading, text: str) -> bool:
    """Whether a prompt holds the line and nothing else; blanks are not compared, as a prompt wraps where it likes."""
    return _BLANKS.sub("", reading.draft) == _BLANKS.sub("", text)


def _alike(one: Look, other: Look) -> bool:
    """Whether it is the same pane, and no key was pressed meanwhile where it is shown."""
    return (one.window, one.pane_pid, one.watchers, one.dead) == (
        other.window,
        other.pane_pid,
        other.watchers,
        other.dead,
    )


@dataclass(slots=True)
class TmuxPane:
    """A pane of a tmux server, in which an agent's runtime should be."""

    tmux: Tmux
    pane: str
    """Its id (`%3`)."""
    agent_pid: int
    table: ProcessTable
    mark: str = field(default_factory=lambda: f"thrum-{secrets.token_hex(6)}")
    """What tells this act from those of others: the pane carries it, and the buffer that the line is pasted from."""
    sleep: Callable[[float], Awaitable[object]] = trio.sleep
    entered: bool = False
    """Whether Enter was pressed, or may have been: tmux did not say."""
    _held: bool = False

    async def look(self) -> Sight:
        look = await self.tmux.look(self.pane)
        return Sight(look, (await foreground(look.pane_pid, self.agent_pid, self.table)).owner)

    async def paste(self, seen: Look, text: str) -> bool:
        await self.tmux.run(("load-buffer", "-b", self.mark, "-"), stdin=text.encode())
        mark = f"set-option -p -t '{self.pane}' {_TYPING} '{self.mark} {seen.now}'"
        paste = f"paste-buffer -p -d -b '{self.mark}' -t '{self.pane}'"
        return await self._if_untouched(seen, f"{mark} ; {paste}", f"delete-buffer -b '{self.mark}'")

    async def unmark(self) -> None:
        """The act is over: take its mark away, if the pane has it. Never raises."""
        ours = f"#{{m:{self.mark} *,#{{{_TYPING}}}}}"
        unset = f"set-option -p -u -t '{self.pane}' {_TYPING}"
        with contextlib.suppress(ThrumError):
            await self.tmux.run(("if-shell", "-F", "-t", self.pane, ours, unset))

    async def hold(self) -> None:
        if (await self.tmux.look(self.pane)).watched:
            return
        give_back = f"select-pane -e -t '{self.pane}'"
        try:
            await self.tmux.run(
                ("run-shell", "-b", "-d", str(INPUT_OFF_SECONDS_MAX), "-C", give_back),
                ("select-pane", "-d", "-t", self.pane),
            )
        except TmuxFailed:
            # Before tmux 3.2 it could not give the input back by itself; nothing was done then.
            return
        self._held = True

    async def release(self) -> None:
        if not self._held:
            return
        self._held = False
        try:
            await self.tmux.run(("select-pane", "-e", "-t", self.pane))
        except ThrumError:
            # The pane is gone, or tmux is: then there is nothing to undo, or tmux does it.
            return

    async def press(self, seen: Look, key: str, times: int = 1) -> bool:
        give_back = [f"select-pane -e -t '{self.pane}'"] if self._held else []
        press = f"send-keys -N {times} -t '{self.pane}' {key}"
        self._held = False
        self.entered = key == "Enter"
        pressed = await self._if_untouched(seen, " ; ".join((*give_back, press)), *give_back)
        self.entered = self.entered and pressed
        return pressed

    async def _if_untouched(self, seen: Look, command: str, otherwise: str = "") -> bool:
        """Have tmux do a command if the pane is as it was seen, judged and done in one step; whether it did."""
        condition = f"#{{==:{_touched_format(seen.window)},{_untouched(seen)}}}"
        said = await self.tmux.run(
            ("if-shell", "-F", "-t", self.pane, condition, f"{command} ; display-message -p done", otherwise)
        )
        return said.strip() == "done"

    async def wait(self, seconds: float) -> None:
        await self.sleep(seconds)


def _touched_format(window: str) -> str:
    """A format of tmux's that changes when a pane is touched in any way."""
    names = ("window_id", "pane_pid", "pane_dead", "pane_in_mode", "pane_input_off", "cursor_x", "cursor_y", _TYPING)
    return " ".join(f"#{{{name}}}" for name in names) + " " + watchers_format(window)


def _untouched(seen: Look) -> str:
    """What that format gives while the pane is as it was seen."""
    column, row = seen.screen.cursor
    watchers = "".join(f"{pressed}/{clients} " for pressed, clients in seen.watchers)
    flags = f"{seen.dead:d} {seen.screen.pane_in_mode:d} {seen.input_off:d}"
    return f"{seen.window} {seen.pane_pid} {flags} {column} {row} {seen.typing} {watchers}"
