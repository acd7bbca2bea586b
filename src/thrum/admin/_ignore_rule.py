"""The rule that makes git ignore `.thrum` (cli.md 3.1)."""

from __future__ import annotations

from pathlib import Path

from thrum.git import ignore_rules

IGNORE_RULE = ".thrum/"
_SAME_RULES = {".thrum/", ".thrum", "/.thrum/", "/.thrum"}


def is_ignored(path: Path) -> bool:
    """Whether a file of ignore rules has ours. Raises StoreFailed if it can't be read."""
    return not _SAME_RULES.isdisjoint(ignore_rules.rules_in(path))


def add_ignore_rule(path: Path) -> None:
    """Append the rule to a file. Raises OSError, StoreFailed."""
    ignore_rules.add_rule(path, IGNORE_RULE)
