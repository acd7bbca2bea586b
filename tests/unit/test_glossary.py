"""The words of docs/glossary.md: none of those that they replaced comes back, in code, docs, help or errors.

Exceptions: what stands on disk and on the wire keeps its name (`ON_DISK`: tables, values of `events.state`, reasons in
quarantine, states in reports); SQL, code in backticks and headings of the specification are not prose; the decision
records tell how things were. Nor do the mannerisms come back (`MANNERED`), except in `PLAIN`: a refusal whose words
cli.md fixes, a state of wake.md, and two results that say it shortest. The changelog keeps the words of its time.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])

BANNED = re.compile(
    r"\b(shards?|pictures?|(re)?paint(s|ed|ing|er)?|voids?|voided|horizons?|sealed|hanging|readership|eye|witness(es)?"
    r"|condemn(s|ed)?|wiring|guarding|torn (end|tail)s?|mend(s|ed|ing)?|mendable|rungs?|tak(e|es|ing) in|took in"
    r"|taken in(?! \w+ (turn|slice|portion|step))|(set|sets|setting) (\w+ )?aside|carr(y|ies|ied|ying) out)\b",
    re.IGNORECASE,
)
MANNERED = re.compile(r"\b(anew|nobody|whoever|(is|are) meant(?! to)|of before)\b", re.IGNORECASE)
PLAIN = re.compile(r"nobody but you is @|nobody woken|or 'nobody'|nobody polls")
ON_DISK = {"void", "sealed", "hanging", "horizons", "torn_tail", "picture.json"}
NAMES = {"offset", "here", "places", "held", "due", "mark", "words", "thing", "things", "feed", "talk", "house"}
"""Plain English, but no names of modules and classes."""
PARTS = re.compile(
    r"(^|_)(shards?|pictures?|(re)?paint(s|ed|ing|er)?|voids?|voided|horizons?|sealed|hanging|readership|eye|witness"
    r"|condemn|wiring|guarding|mend(s|ed|ing)?|desks?|standings?|house|syncing)(_|$)"
)
SQL = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|FROM|CREATE|JOIN|CASE|VALUES|PRAGMA|ATTACH|EXISTS|AND|OR|NULL)\b"
)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _mannered(text: str) -> Iterator[re.Match[str]]:
    return MANNERED.finditer(PLAIN.sub("", text))


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and strings that are no SQL, without what stands in backticks."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_text = token.type == tokenize.STRING and " " in token.string and not SQL.search(token.string)
        if token.type == tokenize.COMMENT or is_text:
            yield token.start[0], re.sub(r'`[^`]*`|events\.md §\d+, "\w+"', "", token.string)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_the_code_says_what_the_glossary_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = [name for name in _names(ast.parse(text)) if PARTS.search(_snake(name))]
    defined = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)}
    found = [f"line {line}: {match[0]}" for line, said in _prose(text) for match in BANNED.finditer(said)]
    manners = [f"line {line}: {found[0]}" for line, said in _prose(text) for found in _mannered(said)]
    assert not names and not found and not manners
    assert not {_snake(name).strip("_") for name in {*defined, path.stem}} & NAMES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_docs_say_what_the_glossary_says(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    assert not [match[0] for match in BANNED.finditer(text) if match[0].lower() not in ON_DISK]
    assert path.name == "CHANGELOG.md" or not [match[0] for match in _mannered(text)]
