"""The marked block in a project's instructions: put in once, replaced only on demand, all else to the byte."""

from __future__ import annotations

import pytest

from thrum.model.errors import BlockExists, ConfigInvalid
from thrum.runtimes.instructions import BEGIN, BLOCK, END, with_block

FILES = ["", "# Mine\n", "# Mine", "# Mine\n\n", "a\r\nb\r\n"]


@pytest.mark.parametrize("text", FILES)
def test_what_was_there_stays_to_the_byte(text: str) -> None:
    found, action = with_block(text, "CLAUDE.md")
    assert action == "appended"
    assert found.startswith(text)
    assert found[len(text) :].strip().replace("\r\n", "\n") == BLOCK.strip()
    assert ("\r\n" in text) == ("\r\n" in found)


@pytest.mark.parametrize("text", FILES)
def test_a_block_is_replaced_only_on_demand_and_where_it_stood(text: str) -> None:
    found, _ = with_block(text, "CLAUDE.md")
    with pytest.raises(BlockExists):
        with_block(found, "CLAUDE.md")
    old = f"{text}\n{BEGIN}\nold\n{END}\nbehind"
    replaced, action = with_block(old, "CLAUDE.md", force=True)
    assert action == "replaced"
    assert replaced.startswith(f"{text}\n{BEGIN}") and replaced.endswith(f"{END}\nbehind")
    assert "old" not in replaced
    assert with_block(replaced, "CLAUDE.md", force=True) == (replaced, "replaced")


def test_no_file_becomes_the_block_alone() -> None:
    assert with_block(None, "AGENTS.md") == (BLOCK, "created")


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}\n{BEGIN}"])
def test_half_a_block_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        with_block(text, "CLAUDE.md", force=True)
