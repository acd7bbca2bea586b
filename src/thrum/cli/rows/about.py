"""The program itself."""

from __future__ import annotations

from thrum.cli.commands import (
    misc,
)
from thrum.cli.rows.row import row

GROUP = "About"

ROWS = (
    row("version", misc.version, GROUP, "print the version", use="unguarded"),
    row("help", misc.help, GROUP, "print the help of a command", use="unguarded"),
    row("completion", misc.completion, GROUP, "print a completion script: bash, zsh or fish", use="unguarded"),
)
