"""OpenCode's plugin as a text: it names its thrum, and is told from other people's files."""

from __future__ import annotations

import json

import pytest

from thrum.runtimes import hooks, opencode_plugin
from thrum.runtimes._json_edit import NotJson


@pytest.mark.parametrize("program", ["/opt/thrum", '/opt/my "tools"/thrum', "/opt/grüße\\/thrum", "/a/@PROGRAM@/$1"])
def test_it_names_the_program_that_it_calls_whatever_that_is_called(program: str) -> None:
    text = opencode_plugin.installed("", program)
    assert opencode_plugin.program_in(text) == program
    assert f"const PROGRAM = {json.dumps(program)}\n" in text
    assert opencode_plugin.installed(text, program) == text


def test_every_event_that_it_tells_is_known() -> None:
    text = opencode_plugin.installed("", "/opt/thrum")
    for event in opencode_plugin.EVENTS:
        assert hooks.read("opencode", event, {}).kind != "other"
        assert f'"{event}"' in text


@pytest.mark.parametrize("theirs", ["export const A = 1\n", " " + opencode_plugin.HEAD, "{}"])
def test_a_file_that_is_not_thrums_is_left_alone(theirs: str) -> None:
    assert not opencode_plugin.is_ours(theirs)
    assert opencode_plugin.program_in(theirs) == ""
    assert opencode_plugin.events_in(theirs) == ()
    with pytest.raises(NotJson):
        opencode_plugin.installed(theirs, "/opt/thrum")
