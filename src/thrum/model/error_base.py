"""What an error of thrum's is: a kind, a message for people, and its fix. The kinds themselves are in `errors`."""

from __future__ import annotations

from shlex import quote
from typing import Any, ClassVar

KINDS: dict[str, type[ThrumError]] = {}
"""Every known kind and its class; filled as the classes below are made."""


class ThrumError(Exception):
    """A refusal that names its fix.

    `message` is one sentence for people; `remedy` the command or act that fixes it; `details` is JSON-able and only
    holds what programs test. The code that raises one has changed nothing.
    """

    kind: ClassVar[str] = "refused"
    code: ClassVar[int] = -32000
    status: ClassVar[int] = 1
    default_remedy: ClassVar[str] = ""

    def __init_subclass__(
        cls, *, kind: str = "", code: int | None = None, status: int | None = None, remedy: str | None = None
    ) -> None:
        """A row of the table; what is left out is that of the class above."""
        if kind:
            cls.kind = kind
            KINDS[kind] = cls
        if code is not None:
            cls.code = code
        if status is not None:
            cls.status = status
        if remedy is not None:
            cls.default_remedy = remedy

    def __init__(self, message: str, *, remedy: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = self.default_remedy if remedy is None else remedy
        self.details: dict[str, Any] = {key: value for key, value in details.items() if value is not None}


KINDS[ThrumError.kind] = ThrumError


class ForeignKind(ThrumError):
    """An error of a kind that this program does not know: a newer daemon's. Its kind is kept."""

    def __init__(self, kind: str, code: int, message: str, *, remedy: str = "", **details: Any) -> None:
        super().__init__(message, remedy=remedy, **details)
        self.kind = kind  # pyright: ignore[reportAttributeAccessIssue]
        self.code = code  # pyright: ignore[reportAttributeAccessIssue]


def in_shell(path: object) -> str:
    """A path, or another word, in a command that a remedy or an undo gives to be pasted."""
    return quote(str(path))
