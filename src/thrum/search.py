"""What a person types to find messages, as words; and the words as an expression of SQLite's full-text search. Pure.

A user's text is never syntax: each word is quoted, all must be there, and of the last one the beginning is enough, for
it may not be typed to the end. What a letter is follows the rules of the index (`unicode61`, and `_`), which knows an
older Unicode.
"""

from __future__ import annotations

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
    named with its trailing `/`.
    """
    if wanted.endswith("/"):
        return path.startswith(wanted)
    return path == wanted or path.endswith(f"/{wanted}")
