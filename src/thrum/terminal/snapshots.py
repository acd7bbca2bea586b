"""The end of a conversation as text, from the record that a runtime keeps of it: JSON lines. Pure.

A record grows while it is read, and its lines differ by version: a line that can't be read, or says nothing, is left
out.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

TOOL_CHARS_MAX: Final = 200
"""Of what a tool was called with."""


def conversation(record: Iterable[str], runtime: str, lines_max: int) -> str:
    """The last lines of what was said, each turn under its speaker; empty for a runtime whose record is not known.

    What a tool answered is left out: it is long, and can be had again.
    """
    read = {"claude": _claude, "codex": _codex}.get(runtime)
    if read is None or lines_max <= 0:
        return ""
    lines: deque[str] = deque(maxlen=lines_max)
    speaker = ""
    for entry in _entries(record):
        for who, text in read(entry):
            if who != speaker:
                lines.append(f"[{who}]")
                speaker = who
            lines.extend(text.strip().splitlines())
    return "\n".join(lines)


def _entries(record: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in record:
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield cast("dict[str, Any]", entry)


def _claude(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`{"type": "user"|"assistant", "message": {"content": TEXT | [{"type": "text"|"tool_use"…}]}}`; sub-agents' lines
    have `isSidechain`, what Claude puts in for itself `isMeta`."""
    who = entry.get("type")
    if who not in ("user", "assistant") or entry.get("isSidechain") or entry.get("isMeta"):
        return
    content = _mapping(entry.get("message")).get("content")
    if isinstance(content, str):
        yield who, content
    for part in _mappings(content):
        if part.get("type") == "text":
            yield who, str(part.get("text", ""))
        elif part.get("type") == "tool_use":
            yield who, _tool(part.get("name"), part.get("input"))


def _codex(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`{"type": "response_item", "payload": {"type": "message", "role", "content": [{"text"}]} | {"type":
    "function_call"}}`; what its developer role says is Codex's own."""
    payload = _mapping(entry.get("payload"))
    if entry.get("type") != "response_item":
        return
    if payload.get("type") == "message" and payload.get("role") in ("user", "assistant"):
        for part in _mappings(payload.get("content")):
            yield str(payload["role"]), str(part.get("text", ""))
    elif payload.get("type") in ("function_call", "custom_tool_call"):
        yield "assistant", _tool(payload.get("name"), payload.get("arguments", payload.get("input")))


def _tool(name: Any, given: Any) -> str:
    words = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    words = " ".join(words.split())
    return f"({name}: {words if len(words) <= TOOL_CHARS_MAX else words[: TOOL_CHARS_MAX - 1] + '…'})"


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else []
    return [_mapping(item) for item in items]
