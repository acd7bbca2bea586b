"""The hooks that thrum writes into a runtime's settings: put in beside what is others', and taken out again. Pure.

Each is `[ -x P ] || exit 0; exec P hook RUNTIME EVENT`: an environment that was removed is silent. What thrum wrote is
told from what is others' by that very form.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from thrum.runtimes import _json_edit as json_edit
from thrum.runtimes._json_edit import Node, NotJson
from thrum.runtimes.hooks import WAIT

_OURS: Final = re.compile(r"^\[ -x (.+) \] \|\| exit 0; exec \1 hook [a-z-]+ \w[\w.]*$")
_WAIT_SECONDS: Final = 1_000_000
"""Accepted by Claude 2.1.332; a day would leave an agent deaf after a weekend."""
_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class HookLine:
    """One command that a runtime calls at one of its events. `told`: what it is told happened, the event or `wait`."""

    event: str
    told: str
    background: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """How a runtime's file has its hooks."""

    lines: tuple[HookLine, ...]
    per_second: int = 1
    """What a second is in its `timeout`."""
    matcher: bool = True
    """Whether a group of hooks has a `matcher`."""
    grouped: bool = True
    """Whether an event has groups, each with a list of hooks; else its list has the commands themselves."""
    first: tuple[tuple[str, Any], ...] = ()
    """What a file has that is made for this alone."""


def _each(*events: str) -> tuple[HookLine, ...]:
    return tuple(HookLine(event, event) for event in events)


def _waits(*events: str) -> tuple[HookLine, ...]:
    return tuple(HookLine(event, WAIT, background=True) for event in events)


FORMATS: Final[dict[str, Format]] = {
    "claude": Format(
        (
            *_each("SessionStart", "UserPromptSubmit", "PermissionRequest", "Stop"),
            *_waits("SessionStart", "UserPromptSubmit", "Stop"),
        )
    ),
    "codex": Format(
        _each("SessionStart", "UserPromptSubmit", "PostToolUse", "PermissionRequest", "Stop", "SessionEnd"),
        matcher=False,
    ),
    "gemini": Format(_each("SessionStart", "BeforeAgent", "AfterTool", "AfterAgent", "Notification"), per_second=1000),
    "cursor": Format(
        _each("sessionStart", "beforeSubmitPrompt", "afterShellExecution", "stop"),
        grouped=False,
        first=(("version", 1),),
    ),
}
"""By runtime. OpenCode's is a plugin, a file of its own."""


def command(program: str, runtime: str, told: str) -> str:
    """What the runtime's shell executes. `program`: the absolute path of `thrum`."""
    path = shlex.quote(program)
    return f"[ -x {path} ] || exit 0; exec {path} hook {runtime} {told}"


def is_ours(text: object) -> bool:
    """Whether a command in such a file was written by thrum."""
    return isinstance(text, str) and _OURS.match(text) is not None


def program_of(text: str) -> str:
    """The path that a command of thrum's calls."""
    found = _OURS.match(text)
    return shlex.split(found[1])[0] if found is not None else ""


def installed(text: str, runtime: str, program: str) -> str:
    """The file with thrum's hooks in it, what was there before taken out first; `text` empty: there was none.

    Raises NotJson, also for a file whose hooks have another form.
    """
    form = FORMATS[runtime]
    if not text.strip():
        text = "{\n" + "".join(f'  "{key}": {value},\n' for key, value in form.first) + '  "hooks": {}\n}\n'
    text = removed(text, keep_empty=True)
    root = _root(text)
    if root.get("hooks") is None:
        text = json_edit.set_member(text, root, "hooks", {})
    for event in dict.fromkeys(line.event for line in form.lines):
        hooks = _hooks(text)
        if hooks.get(event) is None:
            text = json_edit.set_member(text, hooks, event, [])
        found = _hooks(text).get(event)
        assert found is not None
        if found.kind != "array":
            raise NotJson(f'"hooks": "{event}" is no list')
        entries = [_entry(form, line, program, runtime) for line in form.lines if line.event == event]
        for value in [_group(form, entries)] if form.grouped else entries:
            found = _hooks(text).get(event)
            assert found is not None
            text = json_edit.append(text, found, value)
    return text


def removed(text: str, *, keep_empty: bool = False) -> str:
    """The file without thrum's hooks. With `keep_empty` lists stay that become empty. Raises NotJson."""
    while (found := _first_of_ours(_root(text))) is not None:
        text = _without(text, found, keep_empty)
    return text


def is_bare(text: str, runtime: str) -> bool:
    """Whether a file that was made for hooks alone has nothing else in it. Raises NotJson."""
    value = {key: inner for key, inner in _root(text).to_value().items() if key != "hooks" or inner}
    return value in ({}, dict(FORMATS[runtime].first))


def commands_in(text: str) -> Sequence[str]:
    """Thrum's commands in a file. Raises NotJson."""
    hooks = _root(text).get("hooks")
    return [str(entry) for _, entry in _all(hooks) if is_ours(entry)] if hooks is not None else []


def _entry(form: Format, line: HookLine, program: str, runtime: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "command"} if form.grouped else {}
    made["command"] = command(program, runtime, line.told)
    if line.background:
        made |= {"asyncRewake": True, "timeout": _WAIT_SECONDS}
    elif form.grouped:
        made["timeout"] = _SECONDS * form.per_second
    return made


def _group(form: Format, entries: list[dict[str, Any]]) -> dict[str, Any]:
    return ({"matcher": ""} if form.matcher else {}) | {"hooks": entries}


def _root(text: str) -> Node:
    root = json_edit.parse(text)
    if root.kind != "object":
        raise NotJson("line 1: no object")
    return root


def _hooks(text: str) -> Node:
    hooks = _root(text).get("hooks")
    if hooks is None or hooks.kind != "object":
        raise NotJson('"hooks" is no object')
    return hooks


_Way = tuple[tuple[Node, int], ...]
"""From the file's value down: each object or list, and which entry of it is next."""


def _first_of_ours(root: Node) -> _Way | None:
    for index, member in enumerate(root.members):
        if member.key == "hooks":
            for way, text in _all(member.node):
                if is_ours(text):
                    return ((root, index), *way)
    return None


def _all(hooks: Node) -> list[tuple[_Way, Any]]:
    """Every command below `hooks`, and the way to the entry that has it."""
    found: list[tuple[_Way, Any]] = []
    for number, event in enumerate(hooks.members):
        for place, group in enumerate(event.node.items):
            if (text := group.get("command")) is not None:
                found.append((((hooks, number), (event.node, place)), text.value))
            if (inner := group.get("hooks")) is None:
                continue
            slot = next(i for i, member in enumerate(group.members) if member.node is inner)
            for position, entry in enumerate(inner.items):
                if (text := entry.get("command")) is not None:
                    way = ((hooks, number), (event.node, place), (group, slot), (inner, position))
                    found.append((way, text.value))
    return found


def _without(text: str, way: _Way, keep_empty: bool) -> str:
    """Take the entry out, and with it what it leaves empty: its group, the event's list, `hooks`."""
    root, event, group = 0, 2, 3
    for depth in range(len(way) - 1, -1, -1):
        node, index = way[depth]
        is_last = len(node.members) + len(node.items) == 1
        if depth != group and (not is_last or depth == root or (keep_empty and depth == event)):
            return json_edit.cut(text, node, index)
    return text
