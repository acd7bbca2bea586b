"""docs/commands.md says what the program does."""

from __future__ import annotations

import re

from thrum.cli.table import COMMANDS
from tools import settings_page
from tools.commands_page import PAGE, page


def test_the_page_of_commands_is_the_programs_own() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tools/commands_page.py"


def test_the_page_of_settings_is_the_programs_own() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page(), "run: python tools/settings_page.py"


def test_all_commands_of_the_quickstart_are_all_there_are() -> None:
    text = (PAGE.parent / "quickstart.md").read_text(encoding="utf-8")
    table = text[text.index("## All commands") :].split("```")[0]
    named = {" ".join(words.split()) for words in re.findall(r"`thrum ([a-z -]+)`", table)}
    shells = {f"completion {shell}" for shell in ("bash", "zsh", "fish")}
    assert named - shells == {" ".join(path) for path in COMMANDS} - {"completion"}
    assert shells <= named
