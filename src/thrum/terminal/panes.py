"""What state the runtime in a pane is in, by what the pane shows (wake.md §3, "Reading a pane"). Pure.

The rules of a runtime are in a module of its own; they go by features that held in recorded screens of the real
programs (`tests/data/screens`). A feature that is missing makes `unknown`, never `idle_empty`: a line is typed on that
word alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from thrum.terminal import _claude, _codex, _gemini, _opencode, _shell
from thrum.terminal._reading import PaneState, Reading
from thrum.terminal.screen import Screen

__all__ = ["RUNTIMES", "PaneState", "Reading", "classify", "read_pane"]

_RULES: Final[Mapping[str, Callable[[Screen], Reading]]] = {
    "claude": _claude.read,
    "codex": _codex.read,
    "gemini": _gemini.read,
    "opencode": _opencode.read,
}
RUNTIMES: Final = frozenset(_RULES)
"""Those whose prompt can be told empty; of any other a pane is never `idle_empty`."""


def read_pane(runtime: str, screen: Screen) -> Reading:
    """The state of a pane in which that runtime should be, and what stands in its prompt."""
    if screen.pane_in_mode:
        return Reading("copy_mode")
    if not screen.is_whole:
        return Reading("unknown")
    if _shell.is_password(screen):
        return Reading("unknown")
    if _shell.is_shell(screen):
        return Reading("exited_to_shell")
    rules = _RULES.get(runtime)
    return rules(screen) if rules else Reading("unknown")


def classify(runtime: str, screen: Screen) -> PaneState:
    """The state of a pane in which that runtime should be; `unknown` for what no rule tells.

    The screen alone can't tell a program that draws like the runtime: who owns the terminal's foreground is asked apart
    (`terminal.foreground`).
    """
    return read_pane(runtime, screen).state
