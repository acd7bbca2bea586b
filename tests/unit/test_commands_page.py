"""docs/commands.md says what the program does."""

from __future__ import annotations

from tools.commands_page import PAGE, page


def test_the_page_of_commands_is_the_programs_own() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tools/commands_page.py"
