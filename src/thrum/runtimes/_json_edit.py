"""JSON text changed where it must be, every other byte left as it is: comments, blanks, order, line ends. Pure.

Files of settings are people's: they are read by where each value stands, and text is put in or cut out there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

_BLANK: Final = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR: Final = re.compile(r"-?\d[\d.eE+-]*|true|false|null")
_DEPTH_MAX: Final = 100


class NotJson(ValueError):
    """`str`: what is wrong, with the line."""


@dataclass(frozen=True, slots=True)
class Member:
    """A key of an object with its value, from `start` (the key's quote) to the value's end."""

    key: str
    start: int
    node: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A value, and where it stands in the text."""

    kind: Literal["object", "array", "scalar"]
    start: int
    end: int
    value: Any = None
    """Of a scalar."""
    members: tuple[Member, ...] = field(default=())
    items: tuple[Node, ...] = field(default=())

    def get(self, key: str) -> Node | None:
        """The value of a key; of one that is there twice the last, as programs read it."""
        return next((member.node for member in reversed(self.members) if member.key == key), None)

    def to_value(self) -> Any:
        """As `json.loads` gives it."""
        match self.kind:
            case "object":
                return {member.key: member.node.to_value() for member in self.members}
            case "array":
                return [item.to_value() for item in self.items]
            case _:
                return self.value


def parse(text: str) -> Node:
    """The only value of a text. Comments are passed over, as are commas behind a last entry. Raises NotJson."""
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    node = _value(text, at, 0)
    if _skip(text, node.end) != len(text):
        raise _wrong(text, _skip(text, node.end), "more behind the end")
    return node


def set_member(text: str, at: Node, key: str, value: Any) -> str:
    """Add a member behind the last one of an object."""
    written = f"{json.dumps(key)}: {{}}"
    return _add(
        text, at, [member.node.end for member in at.members], [member.start for member in at.members], written, value
    )


def append(text: str, at: Node, value: Any) -> str:
    """Add an item behind the last one of an array."""
    return _add(text, at, [item.end for item in at.items], [item.start for item in at.items], "{}", value)


def cut(text: str, at: Node, index: int) -> str:
    """Take out a member or an item, with the comma and the blanks that belong to it."""
    spans = [(m.start, m.node.end) for m in at.members] if at.kind == "object" else [(i.start, i.end) for i in at.items]
    start, end = spans[index]
    if index + 1 < len(spans):
        return text[:start] + text[spans[index + 1][0] :]
    if index > 0:
        before = spans[index - 1][1]
        behind = _skip(text, end)
        if text[behind] == ",":  # one behind the last entry stays the last one's
            return text[: _skip(text, before) + 1] + text[behind + 1 :]
        return text[:before] + text[end:]
    inside = text[at.start + 1 : start] + text[end : at.end - 1].replace(",", "", 1)
    return text[: at.start + 1] + ("" if not inside.strip() else inside) + text[at.end - 1 :]


def _add(text: str, at: Node, ends: list[int], starts: list[int], written: str, value: Any) -> str:
    line_end = "\r\n" if "\r\n" in text else "\n"
    outer = _indent_of(text, at.start)
    many = "\n" in text[at.start : at.end] or not ends
    if starts:
        inner = _indent_of(text, starts[0]) if "\n" in text[at.start : starts[0]] else ""
        many = "\n" in text[at.start : starts[0]]
    else:
        inner = outer + _unit(text)
    shown = json.dumps(value, indent=_unit(text), ensure_ascii=False) if many else json.dumps(value, ensure_ascii=False)
    new = written.replace("{}", shown.replace("\n", line_end + inner), 1)
    if not ends:
        return f"{text[: at.start + 1]}{line_end}{inner}{new}{line_end}{outer}{text[at.end - 1 :]}"
    between = f",{line_end}{inner}" if many else ", "
    behind = _skip(text, ends[-1])
    if text[behind] == ",":  # one behind the last entry stays the last one's
        return f"{text[: behind + 1]}{between[1:]}{new},{text[behind + 1 :]}"
    return f"{text[: ends[-1]]}{between}{new}{text[ends[-1] :]}"


def _indent_of(text: str, at: int) -> str:
    start = text.rfind("\n", 0, at) + 1
    line = text[start:at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    found = re.search(r"\n([ \t]+)\S", text)
    return found[1] if found else "  "


# -- reading


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, depth: int) -> Node:
    if depth > _DEPTH_MAX:
        raise _wrong(text, at, "too many levels")
    sign = text[at : at + 1]
    if sign == "{":
        return _object(text, at, depth)
    if sign == "[":
        return _array(text, at, depth)
    found = _STRING.match(text, at) or _SCALAR.match(text, at)
    if found is None:
        raise _wrong(text, at, "no value")
    try:
        return Node("scalar", at, found.end(), json.loads(found[0]))
    except ValueError:
        raise _wrong(text, at, "no value") from None


def _object(text: str, start: int, depth: int) -> Node:
    members: list[Member] = []
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        found = _STRING.match(text, at)
        if found is None:
            raise _wrong(text, at, "no key")
        colon = _skip(text, found.end())
        if text[colon : colon + 1] != ":":
            raise _wrong(text, colon, "no colon")
        node = _value(text, _skip(text, colon + 1), depth + 1)
        members.append(Member(json.loads(found[0]), at, node))
        at = _next(text, node.end, "}")
    return Node("object", start, at + 1, members=tuple(members))


def _array(text: str, start: int, depth: int) -> Node:
    items: list[Node] = []
    at = _skip(text, start + 1)
    while text[at : at + 1] != "]":
        node = _value(text, at, depth + 1)
        items.append(node)
        at = _next(text, node.end, "]")
    return Node("array", start, at + 1, items=tuple(items))


def _next(text: str, at: int, end: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != end:
        raise _wrong(text, at, f"no comma or {end}")
    return at


def _wrong(text: str, at: int, what: str) -> NotJson:
    line = text.count("\n", 0, at) + 1
    return NotJson(f"line {line}: {what}")
