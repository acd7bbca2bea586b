"""Understanding what people and models type for a recipient (cli.md §3.3). Pure.

`send @nux "hi"`, `send nux "hi"`, `send "hi" @nux`, `send "@nux hi"`: all of them say `--to @nux`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from thrum.model.addressing import suggest

_NAME: Final = re.compile(r"(?<![\w@./])@((?:user:)?[A-Za-z0-9_-]+)", re.ASCII)
_BARE: Final = re.compile(r"(?:user:)?[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)
_BEHIND_A_NAME: Final = ",:;.!?"


class Typed(NamedTuple):
    """The words of `send`, told apart."""

    to: tuple[str, ...] = ()
    """Recipients: words of their own that begin with `@`."""
    bare: str = ""
    """The first of two words, which is a recipient if an agent has that name."""
    text: str | None = None
    rest: tuple[str, ...] = ()
    """Words too many: the text was not quoted."""


def tell_apart(words: Sequence[str], *, has_body: bool) -> Typed:
    """`has_body`: a flag gives the text, so that no word is one."""
    addressed = 0
    while addressed < len(words) and words[addressed].startswith("@") and not _has_blank(words[addressed]):
        addressed += 1
    to, others = tuple(words[:addressed]), words[addressed:]
    if others and not has_body:
        behind = len(others)
        while behind > 1 and others[behind - 1].startswith("@") and not _has_blank(others[behind - 1]):
            behind -= 1
        to, others = (*to, *others[behind:]), others[:behind]
        if len(words) == 2 and len(to) == 1 and not addressed and _BARE.fullmatch(others[0]):
            return Typed(to, others[0])  # `nux @furiosa`: who says whether the first is a name, too, is not here
    if has_body and len(others) == 1 and _BARE.fullmatch(others[0]):
        return Typed(to, others[0])
    if has_body:
        return Typed(to, "", *_text(others))
    if not others and to:
        # One word `@nux` may be all the text there is; whether it is a name is for others to say.
        return Typed((), "", to[0]) if len(to) == 1 else Typed(to[:-1], "", to[-1])
    if len(others) == 2 and not to and _BARE.fullmatch(others[0]):
        return Typed((), others[0], others[1])
    return Typed(to, "", *_text(others))


def _text(words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    return (words[0] if words else None), tuple(words[1:])


def _has_blank(word: str) -> bool:
    return not word or any(char.isspace() for char in word)


def named_first(text: str, agents: Collection[str]) -> list[str]:
    """The agents whose names the text begins with, `@nux @furiosa: …`; none if one of these words is no agent's."""
    names: list[str] = []
    for word in text.split():
        if not word.startswith("@"):
            break
        name = word[1:].rstrip(_BEHIND_A_NAME)
        if name not in agents:
            return []
        names.append(name)
    return names


def flag_inside(text: str, flags: Collection[str]) -> str:
    """The flag that a text of one line ends with, alone or with its value: it was quoted with the text. Empty: none."""
    words = [] if "\n" in text else text.split()
    return next((word for word in words[max(1, len(words) - 2) :] if word.partition("=")[0] in flags), "")


def is_bare(text: str) -> bool:
    """Whether the text is one word that may be a name."""
    return _BARE.fullmatch(text) is not None


def as_spelled(word: str, known: Iterable[str]) -> str:
    """The one of `known` that the word is, whatever its capitals; empty for none."""
    return next((each for each in known if each.casefold() == word.casefold()), "")


def is_one_name(text: str, agents: Collection[str]) -> bool:
    """Whether the text is `@nux` and nothing else: no message, but a recipient."""
    return text.startswith("@") and text[1:] in agents


def named_anywhere(text: str, words: Iterable[str]) -> str:
    """The first `@word` of the text that could be addressed, as it is spelled right; of the first word of all also what
    is close to one. Empty: there is none."""
    known = {word.casefold(): word for word in words}
    for match in _NAME.finditer(text):
        found = known.get(match[1].casefold())
        if found is None and not text[: match.start()].strip():
            found = next(iter(suggest(match[1], known.values())), None)
        if found is not None:
            return found
    return ""
