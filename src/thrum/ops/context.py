"""What every operation is given: the projection, the journal, the caller, and the layout.

Built once by the daemon, never changed. An operation is `async def op(ctx, call, params) -> result`: it looks at
`ctx.view` (what is committed) or hands `ctx.journal.commit` a decision. It writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from thrum.identity.caller import Caller
from thrum.identity.evidence import Failed, PeerEvidence, Registry
from thrum.identity.processes import ProcessTable
from thrum.identity.runtimes import KNOWN_RUNTIMES, RuntimeNames
from thrum.model.clock import Clock
from thrum.model.errors import NoIdentity
from thrum.model.guards import DEFAULT_MODES, Mode
from thrum.model.methods.method import AnyMethod, Method, P, R
from thrum.model.paths import Layout
from thrum.model.wire_types import GitState, GitUser
from thrum.store.api import ClientKey, Journal
from thrum.store.queries.views import View


class Connection(Protocol):
    """What an operation sees of the connection that it is called over."""

    registered: set[str]
    """Ids that `agent.register` gave out here (identity.md §11, `bootstrap`)."""
    user_id: str | None
    """The user that registered over this WebSocket (identity.md §14)."""
    evidence: PeerEvidence | None
    """What the kernel says about the process at the other end; None over a WebSocket: ask `evidence_of`."""


class Call(Protocol):
    """One request, as the dispatcher made it."""

    @property
    def caller(self) -> Caller:
        """Who calls, proved (identity.md §11)."""
        ...

    @property
    def connection(self) -> Connection:
        """The other end, as long as it lasts."""
        ...

    @property
    def key(self) -> ClientKey | None:
        """The call's name for itself, if it gave one (events.md §12)."""
        ...

    def when_delivered(
        self, ok: Callable[[], Awaitable[None] | None], lost: Callable[[], Awaitable[None] | None] | None = None
    ) -> None:
        """Run `ok` once the answer was handed over, `lost` if it could not be."""
        ...


@dataclass(frozen=True, slots=True)
class LocalNode:
    """This daemon's own place and ids."""

    layout: Layout
    daemon_id: str
    repo_id: str
    hostname: str
    own: frozenset[str]
    """Its id, the ids it had before, and `""`: facts of these count as its own."""


class ReadWork(Protocol):
    """Asks git for the state of worktrees, now and side by side. What one cannot tell is its `problem`."""

    async def __call__(
        self, roots: Collection[str], *, wanted: Sequence[str] = (), files: bool = True
    ) -> Mapping[str, GitState]:
        """`wanted` narrows all paths to what `search.path_matches` one of them; without `files`: branch and commits."""
        ...

    async def unseen(self, roots: Collection[str], wanted: Sequence[str]) -> tuple[str, ...]:
        """Which of the paths wanted git knows in none of these worktrees."""
        ...

    async def user(self) -> GitUser:
        """Whom git would name as the author here, as configured now. Raises ThrumError when git does not say."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """The shared parts. `view` reads what is committed."""

    here: LocalNode
    clock: Clock
    journal: Journal
    view: View
    processes: ProcessTable
    registry: Callable[[], Registry]
    """The agents of this daemon and where they live, as of now."""
    body_bytes_max: int
    branch_of: Callable[[str], str]
    """The branch that a worktree is on, by its path; empty when there is none."""
    branch_exists: Callable[[str], bool]
    """Whether the repository has a branch of that name."""
    work: ReadWork
    modes: Callable[[], Mapping[str, Mode]] = lambda: DEFAULT_MODES
    """What each guard does when it fires, as the files say now (identity.md §12)."""
    runtime_names: Callable[[], RuntimeNames] = lambda: KNOWN_RUNTIMES
    """Which programs are agent runtimes, likewise."""
    why_no_sync: Callable[[], str] = lambda: ""
    """Why nothing goes to other machines now, in a few words and with what to do; empty: it does."""
    registering: set[str] = field(default_factory=set[str])
    """Agents that were just recorded and whose identity files are still to be written: they count as written."""


def evidence_of(call: Call) -> PeerEvidence:
    """What the kernel says about the caller's process. Raises Failed over a WebSocket, of which it says nothing."""
    evidence = call.connection.evidence
    if evidence is None:
        raise Failed("peer", "nothing is known of the other end of a WebSocket")
    return evidence


def caller_id(call: Call) -> str:
    """The caller's agent id; NoIdentity if none is proved (for methods that an anonymous caller may reach)."""
    if not call.caller.agent_id:
        raise NoIdentity("no agent identity: the caller is not known")
    return call.caller.agent_id


Operation = Callable[[Context, Any, Any], Awaitable[Any]]


def operation(method: Method[P, R], execute: Callable[[Context, Call, P], Awaitable[R]]) -> tuple[AnyMethod, Operation]:
    """A row of the table of operations: the type checker compares it with the method's parameters and result."""
    return method, execute
