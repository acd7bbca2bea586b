"""Help: all commands in groups, or one with its flags. Made from the table of commands; pure. Source: cli.md §1.1."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from thrum.cli.parser import GLOBAL_FLAGS, Command

WIDTH_MAX = 100
"""Beyond it lines are hard to read."""


def root_help(commands: Iterable[Command], groups: Mapping[str, str], width: int) -> str:
    """What `thrum` alone prints: a line a command."""
    by_group: dict[str, list[Command]] = {group: [] for group in groups}
    for command in dict.fromkeys(commands):
        by_group[command.group].append(command)
    shown = [command for some in by_group.values() for command in some]
    pad = max(len(command.name) for command in shown) + 2
    parts = [
        "thrum: messages between AI coding agents and the developer who directs them.",
        "",
        "Usage: thrum [GLOBAL FLAGS] COMMAND [ARGS] [FLAGS]",
    ]
    for group, some in by_group.items():
        if some:
            parts += ["", f"{group}:"]
            parts += [_entry(command.name, command.summary, pad, width) for command in some]
    parts += ["", "Global flags:", global_flags(width), "", "Help for one command: thrum help COMMAND"]
    return "\n".join(parts)


def group_help(name: str, summary: str, commands: Iterable[Command], width: int) -> str:
    """What a group's name alone prints."""
    all_of_it = [command for command in dict.fromkeys(commands) if command.path[0] == name]
    some = [command for command in all_of_it if len(command.path) > 1]
    pad = max(len(command.name) for command in some) + 2
    lines = [_entry(command.name, command.summary, pad, width) for command in some]
    lines += [
        "\n" + _filled(f"{command.usage}: {command.summary}", width, 2) for command in all_of_it if not command.listed
    ]
    return "\n".join([f"thrum {name}: {summary}", "", *lines, "", f"Help for one of them: thrum help {name} COMMAND"])


def command_help(command: Command, aliases: Iterable[str], width: int) -> str:
    """One command: usage, what it does, its words and flags."""
    does = f"{command.summary[0].upper()}{command.summary[1:]}."
    parts = [_filled(f"Usage: {command.usage}", width, 14), "", _filled(does, width, 0)]
    also = ", ".join(f"thrum {alias}" for alias in aliases)
    if also:
        parts += [f"Also: {also}"]
    if command.notes:
        parts += ["", *(_filled(note, width, 0) for note in command.notes.split("\n"))]
    shown = [(_names(flag.names, flag.metavar), flag.help) for flag in command.flags if flag.help]
    if shown:
        pad = max(len(name) for name, _ in shown) + 2
        parts += ["", "Arguments and flags:", *(_entry(name, help, pad, width) for name, help in shown)]
    parts += ["", _filled(f"Global flags: {', '.join(GLOBAL_FLAGS)} (thrum help)", width, 14)]
    return "\n".join(parts)


def global_flags(width: int) -> str:
    pad = max(len(name) for name in GLOBAL_FLAGS) + 2
    return "\n".join(_entry(name, help, pad, width) for name, help in GLOBAL_FLAGS.items())


def _names(names: tuple[str, ...], metavar: str) -> str:
    if not names:
        return metavar
    return ", ".join(names) + (f" {metavar}" if metavar else "")


def _entry(name: str, text: str, pad: int, width: int) -> str:
    return _filled(f"  {name:<{pad}}{text}", width, pad + 2)


def _filled(text: str, width: int, indent: int) -> str:
    """Wrapped at words; blanks inside are kept. A width of 0: not at all."""
    limit = min(width, WIDTH_MAX) if width else 0
    if not limit or len(text) <= limit or limit < indent + 20:
        return text
    return textwrap.fill(
        text,
        limit,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
