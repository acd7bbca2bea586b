"""What a person types to find messages, as words; and the words as an expression of SQLite's full-text search. Pure.

A user's text is never syntax: each word is quoted, all must match, and the last one may be a prefix, as it may
not be complete yet. What counts as a letter follows the rules of the index (`unicode61`, and `_`), which knows an
older Unicode.
"""

from __future__ import annotations

import functools
import re
import unicodedata


def words(text: str) -> list[str]:
    """The words of a search, in order; empty when there is nothing but spaces and punctuation."""
    return [word for word in text.replace("\0", " ").split() if any(map(_counts, word))]


def expression(text: str) -> str:
    """What FTS5 takes: `"auth" "tok"*`; `""` without words. A word with punctuation in it, `a.b`, is a phrase."""
    quoted = " ".join('"' + word.replace('"', '""') + '"' for word in words(text))
    return quoted + "*" if quoted else ""


def _counts(char: str) -> bool:
    """Whether the index keeps the character."""
    category = unicodedata.category(char)
    return category[0] in "LN" or category == "Co" or char == "_"


# -- files


def path_matches(path: str, wanted: str) -> bool:
    """Whether a path of the repository is the one wanted: the same, its end from a `/` on, or below a directory that is
    named with its trailing `/`. `*`, `**` and `?` are a pattern, as in git; brackets are not: names have them.
    """
    if is_pattern(wanted):
        return _pattern(wanted).fullmatch(path) is not None
    if wanted.endswith("/"):
        return path.startswith(wanted)
    return path == wanted or path.endswith(f"/{wanted}")


def is_pattern(wanted: str) -> bool:
    return "*" in wanted or "?" in wanted


@functools.lru_cache(maxsize=64)
def _pattern(wanted: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", wanted)
    inside = ".*" if wanted.endswith("/") else ""
    return re.compile("(?:.*/)?" + "".join(parts.get(each) or re.escape(each) for each in pieces) + inside, re.DOTALL)
