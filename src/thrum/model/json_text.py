"""JSON objects that people may have edited: read strictly, each key with its line. Pure.

What is accepted can be written again and read by any program: no `NaN`, no numbers beyond 64 bits, no duplicate keys,
no incomplete surrogate pairs, no unbounded nesting.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from thrum.model import limits

Path = tuple[str | int, ...]
"""The keys, and indexes in lists, that lead to a value."""

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_INTEGER: Final = re.compile(r"-?[0-9]+")
_DIGITS_MAX: Final = 20


class NotJson(ValueError):
    """Why it is none, and on which line, from 1."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(f"{reason} at line {line}")


class Document(NamedTuple):
    """An object, and the line of every key in it, from 1."""

    value: dict[str, Any]
    lines: dict[Path, int]


def decode(data: bytes) -> Document:
    """Read an object. Raises NotJson."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson("not UTF-8", data.count(b"\n", 0, error.start) + 1) from error
    try:
        # Python refuses numbers of thousands of digits without a word of where; `_lines` does it with the line.
        value: Any = json.loads(text, parse_int=lambda digits: int(digits[: _DIGITS_MAX + 1]))
    except json.JSONDecodeError as error:
        raise NotJson(error.msg, error.lineno) from error
    except RecursionError as error:
        raise NotJson("nested too deeply", 1) from error
    if not isinstance(value, dict):
        raise NotJson("not an object", 1)
    return Document(cast("dict[str, Any]", value), _lines(text))


def _lines(text: str) -> dict[Path, int]:
    """The line of every key of a valid document. Raises NotJson for what JSON's grammar lets pass."""
    found: dict[Path, int] = {}
    line, seen = 1, 0
    for path, at, token, is_key in _tokens(text):
        line, seen = line + text.count("\n", seen, at), at
        if reason := _flaw(token):
            raise NotJson(reason, line)
        if len(path) > limits.json_depth_max:
            raise NotJson("nested too deeply", line)
        if is_key and path in found:
            raise NotJson(f"{token} occurs twice", line)
        if is_key:
            found[path] = line
    return found


def _tokens(text: str) -> Iterator[tuple[Path, int, str, bool]]:
    """Every key and value of a valid document: where it belongs, where it stands, its text, and whether it is a key.

    Of an object or a list its first character.
    """
    path: list[str | int] = []
    wants_key = False
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("{", "["):
            yield tuple(path), match.start(), token, False
            path.append("" if token == "{" else 0)
            wants_key = token == "{"
        elif token in ("}", "]"):
            path.pop()
            wants_key = False
        elif token == ",":
            last = path[-1]
            wants_key = isinstance(last, str)
            if isinstance(last, int):
                path[-1] = last + 1
        elif token != ":":
            if wants_key:
                path[-1] = json.loads(token)
            yield tuple(path), match.start(), token, wants_key
            wants_key = False


def _flaw(token: str) -> str:
    """What keeps a key or value from being written again as it is; empty if nothing does."""
    if token[0] == '"':
        return "an incomplete surrogate pair" if "\\u" in token and not _is_text(json.loads(token)) else ""
    if token in ("true", "false", "null", "{", "["):
        return ""
    if _INTEGER.fullmatch(token):
        fits = len(token) <= _DIGITS_MAX and -(2**63) <= int(token) < 2**63
    elif token in ("NaN", "Infinity", "-Infinity"):
        return f"{token} is not JSON"
    else:
        fits = math.isfinite(float(token))
    return "" if fits else "a number too large"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
