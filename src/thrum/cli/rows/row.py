"""How one row of the table of commands is written."""

from __future__ import annotations

from collections.abc import Mapping

from thrum.cli.parser import Command, Handler, Use


def row(
    name: str,
    handler: Handler,
    group: str,
    summary: str,
    notes: str = "",
    takes: str = "",
    *,
    completes: Mapping[str, str] | None = None,
    use: Use = "act",
    look_with: tuple[str, ...] = (),
    look_without: tuple[str, ...] = (),
    listed: bool = True,
    guessed: bool = True,
    error_status: int = 0,
    silent: bool = False,
) -> Command:
    """One command: its words, its handler, its heading in the help, and its help."""
    return Command(
        tuple(name.split()),
        handler,
        summary,
        group,
        notes,
        takes,
        completes or {},
        use=use,
        look_with=look_with,
        look_without=look_without,
        listed=listed,
        guessed=guessed,
        error_status=error_status,
        silent=silent,
    )
