"""The table of runtimes, the user's own ones, and the default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from thrum.runtimes import hooks
from thrum.runtimes._json_edit import NotJson
from thrum.runtimes.hook_files import FORMATS
from thrum.runtimes.installer import PLUGIN
from thrum.runtimes.presets import BUILT_IN, FALLBACK, default_of, presets, with_default
from thrum.runtimes.settings_files import HOOKED
from thrum.runtimes.skills import SKILL


def test_what_can_be_installed_is_what_is_said_to_have_hooks() -> None:
    assert {name for name, each in BUILT_IN.items() if each.hooks_supported} == set(HOOKED)
    assert set(HOOKED) == {*FORMATS, PLUGIN}
    assert set(HOOKED) <= set(hooks.HOOKED)
    assert FALLBACK in BUILT_IN


def test_an_own_runtime_is_added_and_one_of_a_known_name_is_changed_field_by_field() -> None:
    own = {"custom_runtimes": {"mine": {"command": "mytool"}, "claude": {"command": "claude --verbose"}}}
    found = presets(own)
    assert [*found] == [*BUILT_IN, "mine"]
    assert (found["mine"].command, found["mine"].hooks_supported) == ("mytool", False)
    assert found["claude"].command == "claude --verbose"
    assert found["claude"].instructions_file == "CLAUDE.md"


@pytest.mark.parametrize(
    "own", [{}, {"custom_runtimes": 1}, {"custom_runtimes": {"x": 2, "": {}}}, {"custom_runtimes": []}]
)
def test_what_is_malformed_is_passed_over(own: dict[str, Any]) -> None:
    assert presets(own) == BUILT_IN
    wrong = {"custom_runtimes": {"x": {"command": 3, "hooks_supported": "yes", "name": "y"}}, "default_runtime": 1}
    assert presets(wrong)["x"].command == ""
    assert presets(wrong)["x"].name == "x"
    assert default_of(wrong) == ""


@pytest.mark.parametrize("text", ["", "{}", '{\n  "default_runtime": "codex", // mine\n  "a": 1\n}\n'])
def test_the_default_is_set_and_the_rest_of_the_file_stays(text: str) -> None:
    changed = with_default(text, "claude")
    assert '"claude"' in changed
    assert changed == with_default(changed, "claude")
    if "//" in text:
        assert changed == text.replace("codex", "claude")
    else:
        assert json.loads(changed) == {"default_runtime": "claude"}


@pytest.mark.parametrize("text", ["[]", "{", "1"])
def test_a_file_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(NotJson):
        with_default(text, "claude")


def test_the_skill_is_short_enough_to_be_loaded_without_a_thought() -> None:
    """At most 700 tokens; a token is never less than three characters of such a text on average."""
    assert len(SKILL) <= 2100
    head = SKILL.split("---\n")[1]
    assert head.startswith("name: thrum\ndescription: ") and len(head.splitlines()) == 2
