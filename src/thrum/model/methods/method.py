"""What a method is: one constant with its name, parameters, result, who may call it and over which transport.

The same constant names the method to the handler table, the clients, the command line and the tests. Source: rpc.md §3
to §7. In a parameter or result an optional field that is empty is absent, never null. Times are 24-character text.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec


class ClientKey(NamedTuple):
    """One call's name for itself (events.md §12). `actor` is `""` for an anonymous caller; `digest`: of method and
    parameters."""

    actor: str
    key: str
    digest: str


class Access(enum.Enum):
    """Who may call (rpc.md §3): what is enforced before the operation begins, and no more. The class decides what an
    unproved caller gets (identity.md §11). Whether a message, a session or a note is the caller's own to change, the
    operation judges: only the store knows the owner.
    """

    ANONYMOUS = "A"
    BOOTSTRAP = "B"
    REGISTERED = "R"
    OPERATOR = "Op"
    PERSON = "Pe"
    NOT_AN_AGENT = "Na"
    INTERNAL = "I"


class Params(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every method takes. A claim may only agree with the kernel's evidence (rpc.md §3)."""

    caller_agent_id: str = ""


class Mutating(Params, kw_only=True):
    """What every method takes that writes a fact: a retried call with the same key gets the first answer."""

    client_key: str = ""


class Empty(Params, kw_only=True):
    pass


P = TypeVar("P", bound=Params)
R = TypeVar("R")


class Method(msgspec.Struct, Generic[P, R], frozen=True, eq=False, kw_only=True):
    """One method: `call(MESSAGE_SEND, SendParams(...))` gives a `SendResult`. A constant is equal to itself alone.

    `transports`: U Unix socket, W WebSocket, P peer link. Today the daemon opens U alone: W is for the web view,
    P for peers.
    """

    name: str
    params: type[P]
    result: type[R]
    access: Access = Access.REGISTERED
    transports: str = "UW"
    long_poll: bool = False
    level_of: Callable[[P], Access] | None = None
    """Who may call it with these parameters, where that depends on them; `access` else."""
    own: bool = False
    """A read of the caller's record."""
    own_with: tuple[str, ...] = ()
    """Parameters with any of which a read is one of the caller's own inbox or marks."""
    own_without: str = ""
    """The parameter without which it is a read of what the caller wrote."""

    def level(self, params: P) -> Access:
        """Who may make this very call."""
        return self.access if self.level_of is None else self.level_of(params)

    def asks_own(self, params: P) -> bool:
        """Whether this very call reads what is the caller's own (identity.md §11, C8a)."""
        return (
            self.own
            or any(getattr(params, name) for name in self.own_with)
            or bool(self.own_without and not getattr(params, self.own_without))
        )

    @property
    def mutating(self) -> bool:
        """Whether it writes a fact in an agent's name, and so takes a `client_key`."""
        return issubclass(self.params, Mutating)


AnyMethod: TypeAlias = Method[Any, Any]
