"""Why a message is not seen yet, in the words of wake.md §2. Pure; durations are seconds."""

from __future__ import annotations

from typing import Final

NO_WAITER: Final = "deaf: no waiter"
NO_THREAD: Final = "deaf: its thread is not known"
PLAIN_SHELL: Final = "plain shell: nobody polls"
SYNC_IS_OFF: Final = "sync is off: on this machine only"
NEXT_TOOL_CALL: Final = "working (next tool call)"
TURN_END: Final = "working (turn end)"
UNDER_WAY: Final = "offered: no proof yet"
THROWN_AWAY: Final = "thrown away with its turn"
TOLD: Final = "offered: this door has no proof"
PROBABLY_SEEN: Final = "probably seen: a turn began just after the offer"
_ANOTHER_MACHINE: Final = "on another machine"
USED_UP: Final = "offered without proof: goes with the next message"


def process_gone(seconds: float) -> str:
    return f"process gone {ago(seconds)}"


def dialog_open(seconds: float) -> str:
    return f"dialog open {ago(seconds)}"


def no_hooks(runtime: str) -> str:
    """`runtime`: its name in the preset table, never empty."""
    return f"no hooks: thrum hook install {runtime}"


def another_machine(heard_seconds: float) -> str:
    """`heard_seconds`: how long ago its daemon was last heard of."""
    return f"{_ANOTHER_MACHINE} (its daemon: last heard {ago(heard_seconds)} ago)"


def doors_rest(seconds: float) -> str:
    return f"doors failed: next try in {ago(seconds)}"


def is_soon(why: str) -> bool:
    """Whether a message will be seen at the next moment its runtime allows, as far as is known on this machine."""
    return why in ("", NEXT_TOOL_CALL, TURN_END, UNDER_WAY) or why.startswith(_ANOTHER_MACHINE)


def ago(seconds: float) -> str:
    """The largest whole unit: `40s`, `12m`, `3h`, `2d`."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"
