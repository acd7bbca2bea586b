"""A shell in front, instead of a runtime. Pure."""

from __future__ import annotations

import re
from typing import Final

from thrum.terminal.screen import Screen

SHELLS: Final = frozenset(
    ("sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "ash", "tcsh", "csh", "pwsh", "nu", "elvish")
)
_PASSWORD = re.compile(r"(?i)(?:password|passphrase|passcode|\bpin)\b[^:]*:\s*$")


def is_shell(screen: Screen) -> bool:
    """Whether it looks like a shell: it is the command in front, has a cursor of its own, and no screen of its own.

    A shell that wraps a runtime in `bash -c` is the command in front, too; but runtimes hide the cursor or take the
    alternate screen.
    """
    return _named_shell(screen) and screen.cursor_visible and not screen.alternate_on


def is_password(screen: Screen) -> bool:
    """Whether something that looks like a shell asks for a secret."""
    column, row = screen.cursor
    return is_shell(screen) and bool(_PASSWORD.search(screen.texts[row][:column]))


def _named_shell(screen: Screen) -> bool:
    return screen.pane_current_command.removeprefix("-") in SHELLS
