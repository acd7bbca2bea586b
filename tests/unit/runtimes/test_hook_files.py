"""Thrum's hooks in other people's files: put in beside theirs, taken out again to the byte."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from thrum.runtimes import _json_edit as json_edit
from thrum.runtimes import hook_files
from thrum.runtimes._json_edit import NotJson

PROGRAM = "/opt/my tools/bin/thrum"

FILES = [
    "{}",
    "{}\n",
    '{"env": {"A": "1"}}',
    '{\n  "permissions": {\n    "allow": ["Bash(ls:*)"]\n  }\n}\n',
    '{\n\t"hooks": {\n\t\t"Stop": [\n\t\t\t{"hooks": [{"type": "command", "command": "s"}]}\n\t\t]\n\t},\n\t"m": 1\n}',
    '// mine\n{\n  "a": 1, /* two */\n  "b": [1, 2,],\n}\n',
    '{"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "check"}]}]}}',
    '{\r\n  "a": "x",\r\n  "b": {}\r\n}\r\n',
    '{\n    "deep": {"er": [[], {}, ""]},\n    "text": "a \\" quote, a { brace"\n}\n',
]


def _plain(text: str) -> Any:
    return json_edit.parse(text).to_value()


@pytest.mark.parametrize("runtime", sorted(hook_files.FORMATS))
@pytest.mark.parametrize("before", FILES)
def test_what_is_put_in_comes_out_again_to_the_byte(runtime: str, before: str) -> None:
    with_hooks = hook_files.installed(before, runtime, PROGRAM)
    assert hook_files.removed(with_hooks) == before


@pytest.mark.parametrize("runtime", sorted(hook_files.FORMATS))
@pytest.mark.parametrize("before", FILES)
def test_all_else_in_the_file_stays_as_it_is_read(runtime: str, before: str) -> None:
    after = _plain(hook_files.installed(before, runtime, PROGRAM))
    known = _plain(before)
    assert {key: value for key, value in after.items() if key != "hooks"} == {
        key: value for key, value in known.items() if key != "hooks"
    }
    for event, groups in known.get("hooks", {}).items():
        assert after["hooks"][event][: len(groups)] == groups


@pytest.mark.parametrize("runtime", sorted(hook_files.FORMATS))
@pytest.mark.parametrize("before", ["", *FILES])
def test_put_in_twice_is_put_in_once(runtime: str, before: str) -> None:
    once = hook_files.installed(before, runtime, PROGRAM)
    assert hook_files.installed(once, runtime, PROGRAM) == once
    moved = hook_files.installed(once, runtime, "/elsewhere/thrum")
    assert {text.count("/elsewhere/thrum") for text in hook_files.commands_in(moved)} == {2}
    assert len(hook_files.commands_in(moved)) == len(hook_files.FORMATS[runtime].lines)


def test_a_new_file_of_claude_has_each_event_and_a_waiter_in_the_background() -> None:
    made = json.loads(hook_files.installed("", "claude", PROGRAM))
    assert set(made) == {"hooks"}
    told, waits = made["hooks"]["Stop"][0]["hooks"]
    assert told == {
        "type": "command",
        "command": "[ -x '/opt/my tools/bin/thrum' ] || exit 0; exec '/opt/my tools/bin/thrum' hook claude Stop",
        "timeout": 60,
    }
    assert waits["command"].endswith(" hook claude wait")
    assert waits["asyncRewake"] is True
    assert waits["timeout"] == 1_000_000
    assert "PostToolUse" not in made["hooks"]  # each costs a call at every tool


def test_the_others_have_their_own_forms() -> None:
    gemini = json.loads(hook_files.installed("", "gemini", PROGRAM))
    assert gemini["hooks"]["BeforeAgent"][0]["hooks"][0]["timeout"] == 60_000
    cursor = json.loads(hook_files.installed("", "cursor", PROGRAM))
    assert cursor["version"] == 1
    assert set(cursor["hooks"]["stop"][0]) == {"command"}
    codex = json.loads(hook_files.installed("", "codex", PROGRAM))
    assert "matcher" not in codex["hooks"]["Stop"][0]


def test_only_what_thrum_wrote_is_taken_out() -> None:
    theirs = '{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "thrum hook claude Stop"}]}]}}'
    assert hook_files.removed(theirs) == theirs
    mixed = hook_files.installed(theirs, "claude", PROGRAM)
    group = _plain(mixed)["hooks"]["Stop"]
    assert group[0]["hooks"][0]["command"] == "thrum hook claude Stop"
    assert hook_files.removed(mixed) == theirs


def test_beside_ours_in_one_group_theirs_stays() -> None:
    text = hook_files.installed("", "claude", PROGRAM)
    group = json_edit.parse(text).get("hooks").get("Stop").items[0].get("hooks")  # type: ignore[union-attr]
    text = json_edit.append(text, group, {"type": "command", "command": "mine"})  # type: ignore[arg-type]
    left = json.loads(hook_files.removed(text))
    assert left == {"hooks": {"Stop": [{"matcher": "", "hooks": [{"type": "command", "command": "mine"}]}]}}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"x"',
        "{",
        '{"a" 1}',
        '{"a": 1} x',
        '{"hooks": []}',
        '{"hooks": {"Stop": 3}}',
        '{"a": nul}',
        "[" * 200,
        "{'a': 1}",
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_left_alone(text: str) -> None:
    with pytest.raises(NotJson):
        hook_files.installed(text, "claude", PROGRAM)


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@hypothesis.given(st.dictionaries(st.text(max_size=4), _json_values, max_size=4), st.sampled_from([None, 1, 2, "\t"]))
def test_any_file_comes_back_to_the_byte(value: dict[str, Any], indent: int | str | None) -> None:
    hypothesis.assume("hooks" not in value)
    before = json.dumps(value, indent=indent)
    after = hook_files.installed(before, "claude", PROGRAM)
    assert {key: each for key, each in json.loads(after).items() if key != "hooks"} == value
    assert hook_files.removed(after) == before
