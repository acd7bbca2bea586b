"""Files that people edit: read strictly, with the line of every key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrum.model import limits
from thrum.model.json_text import NotJson, decode

_DEEP = limits.json_depth_max
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.booleans())
def test_what_any_program_writes_is_read_as_it_is_with_a_line_for_each_key(value: dict[str, Any], ascii: bool) -> None:
    document = decode(json.dumps(value, indent=1, ensure_ascii=ascii).encode())
    assert document.value == value

    def keys(found: Any, above: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
        items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        own = [(*above, name) for name, _ in items] if isinstance(found, dict) else []
        return own + [path for name, inner in items for path in keys(inner, (*above, name))]

    paths = keys(value, ())
    assert sorted(document.lines, key=repr) == sorted(paths, key=repr)
    for path, line in document.lines.items():
        text = json.dumps(value, indent=1, ensure_ascii=ascii).split("\n")[line - 1]
        assert text.lstrip().startswith(json.dumps(path[-1], ensure_ascii=ascii) + ":")


def test_a_key_is_found_where_it_stands_and_not_where_its_name_does() -> None:
    text = '{\n"project": "sync",\n"x": {"sync":\n{"interval": 1}},\n'
    text += '"sync": {"remote": "interval",\n"inter\\u0076al": 2}}'
    lines = decode(text.encode()).lines
    assert (lines["x", "sync", "interval"], lines["sync",], lines["sync", "interval"]) == (4, 5, 6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value at line 1"),
        ('{"a": 1,\n}', "Expecting property name enclosed in double quotes at line 2"),
        ("[]", "not an object at line 1"),
        ('{\n"a": NaN}', "NaN is not JSON at line 2"),
        ('{\n"a": [1,\n-Infinity]}', "-Infinity is not JSON at line 3"),
        ('{"a":\n1e999}', "a number too large at line 2"),
        (f'{{"a":\n{"9" * 400}}}', "a number too large at line 2"),
        (f'{{"a":\n{"9" * 9999}}}', "a number too large at line 2"),
        (f'{{"a": {2**63 - 1}, "b":\n{2**63}}}', "a number too large at line 2"),
        ('{"a": 1,\n"b": 2,\n"a": 1}', '"a" occurs twice at line 3'),
        ('{"a": 1, "a": 2}', '"a" occurs twice at line 1'),
        ('{"a": {"b": 1,\n"\\u0062": 2}}', '"\\u0062" occurs twice at line 2'),
        ('{"x": 1,\n"a": "\\ud800"}', "an incomplete surrogate pair at line 2"),
        ('{"\\udc00": 1}', "an incomplete surrogate pair at line 1"),
        ('{"a":\n' + '{"a":' * _DEEP + "1" + "}" * _DEEP + "}", "nested too deeply at line 2"),
        ('{"a":\n' + "[" * (_DEEP + 1) + "]" * (_DEEP + 1) + "}", "nested too deeply at line 2"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply at line 1"),
    ],
)  # fmt: skip
def test_what_could_not_be_written_again_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(NotJson) as caught:
        decode(text.encode())
    assert str(caught.value) == reason


def test_the_same_key_in_two_objects_is_no_key_twice() -> None:
    assert decode(b'{"a": {"x": 1}, "b": [{"x": 1}, {"x": 2}, [], {}, {"x": "\\ud83d\\ude00"}]}').value["a"] == {"x": 1}


def test_bytes_that_are_no_utf8_are_refused_with_their_line() -> None:
    with pytest.raises(NotJson, match=r"^not UTF-8 at line 2$"):
        decode(b'{\n"a": "\xff"}')
