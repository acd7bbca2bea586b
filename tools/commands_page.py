"""Writes docs/commands.md from the table of commands: `python tools/commands_page.py`. A test holds the page to it."""

from __future__ import annotations

from pathlib import Path

from thrum.cli.parser import GLOBAL_FLAGS
from thrum.cli.table import ALIASES, COMMANDS, HELP_GROUPS

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
HEAD = """\
# Commands

Every command, its flags, and what it does; made from the program by `tools/commands_page.py`. More of one command:
`thrum help COMMAND`. Every command takes the global flags, before or after its words, and `--json` prints one document.
"""


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    for group in HELP_GROUPS:
        parts.append(f"\n## {group}\n")
        for path, command in COMMANDS.items():
            if command.group == group and path == command.path:
                also = [f"`thrum {' '.join(alias)}`" for alias, target in ALIASES.items() if target == path]
                same = f" The same: {', '.join(also)}." if also else ""
                notes = f" {command.notes}" if command.notes else ""
                parts.append(f"- `{command.usage}`\n  {command.summary}.{notes}{same}\n")
    parts.append("\n## Global flags\n")
    parts += [f"- `{flag}`: {meaning}\n" for flag, meaning in GLOBAL_FLAGS.items()]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
