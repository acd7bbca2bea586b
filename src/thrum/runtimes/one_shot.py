"""Which runs of a runtime answer once and end: no person is at them, and nothing is offered to them. Pure.

Source: wake.md §3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from thrum.runtimes.doors import claude

_FLAGS: Final[Mapping[str, frozenset[str]]] = {
    "gemini": frozenset({"-p", "--prompt"}),
    "cursor": frozenset({"-p", "--print"}),
}
_WORDS: Final[Mapping[str, frozenset[str]]] = {"opencode": frozenset({"run"})}
"""The first word behind the program that says so."""


def is_one_shot(runtime: str, argv: Sequence[str]) -> bool:
    """Whether a runtime with this command line answers once."""
    if runtime == "claude":
        return not claude.is_interactive(tuple(argv))
    if any(word in _FLAGS.get(runtime, ()) or word.partition("=")[0] in _FLAGS.get(runtime, ()) for word in argv[1:]):
        return True
    words = [word for word in argv[1:] if not word.startswith("-") and "/" not in word]
    return bool(words) and words[0] in _WORDS.get(runtime, ())
