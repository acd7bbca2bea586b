"""What the kernel says of the caller, for the guard `cross_worktree`: the same look at a launcher, whose command runs
in the daemon, as at the user's own process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

import trio

from thrum.identity.evidence import AgentPlace, Failed, PeerEvidence, Registry
from thrum.identity.processes import OwnerState


@contextlib.contextmanager
def _asked() -> Generator[None]:
    """What gave no answer, as the OSError that a `CallerProbe` raises."""
    try:
        yield
    except Failed as failed:
        raise OSError(str(failed)) from failed


class KernelProbe:
    """What a `CallerProbe` (`cli.session`) tells from evidence and records. `registry` is asked when it matters."""

    def __init__(self, evidence: PeerEvidence, registry: Callable[[], Registry]) -> None:
        self._evidence = evidence
        self._registry = registry

    @property
    def pid(self) -> int:
        try:
            chain = self._evidence.chain()
        except Failed:
            return self._evidence.pid
        return chain[1].pid if len(chain) > 1 else self._evidence.pid

    def owner(self) -> tuple[str, str] | None:
        with _asked():
            registry = self._registry()
            found = self._evidence.proven_owner(registry) or self._evidence.bound_agent(registry)
            return None if found is None else (found.agent_id, found.root)

    def has_runtime(self) -> bool:
        with _asked():
            return self._evidence.has_runtime(trio.current_time())

    def is_deliberate(self, agent_id: str) -> bool:
        with _asked():
            return self._evidence.is_deliberate(agent_id)

    def _state_of(self, place: AgentPlace | None) -> OwnerState:
        with _asked():
            return "none" if place is None else self._evidence.state_of(place)
