"""Who calls: the decision from the kernel's evidence and the caller's claim (identity.md §11). Pure.

`evidence.py` gathers what is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from thrum.api import Access
from thrum.identity.guards import Refusal
from thrum.identity.process import OwnerState
from thrum.ids import parse_agent_id

AccessClass = Literal["read", "bootstrap", "operator", "agent"]
Step = Literal["peer", "process", "chain", "cwd", "root", "registry"]
CallerKind = Literal["agent", "user", "system", "nobody"]

CLASS_OF: Final[Mapping[Access, AccessClass]] = {
    Access.ANONYMOUS: "read",
    Access.BOOTSTRAP: "bootstrap",
    Access.OPERATOR: "operator",
}
"""The class of an access level; every other one is `agent`."""


BEFORE_REGISTERING: Final = frozenset({"user.identify", "user.register", "health"})
"""What a connection without the kernel's evidence may call before `user.register`."""

_NO_EVIDENCE: Final = "W"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the kernel and the records say about one call."""

    pid: int = 0
    uid_ok: bool = True
    owner: str | None = None
    """The agent that the caller's processes prove."""
    owner_root: str | None = None
    runtime: bool = False
    """Whether a runtime is among the caller's processes; asked only when an agent of `here` lives elsewhere."""
    root: str | None = None
    """The root that the caller stands in."""
    cwd: str = ""
    here: Mapping[str, OwnerState] = field(default_factory=dict[str, OwnerState])
    """The agents of that root, with their owner states seen from the caller."""
    pids: Mapping[str, int] = field(default_factory=dict[str, int])
    """Their recorded pids."""
    failed: Step | None = None
    failed_cause: str = ""
    daemon_uid: int = -1
    unbound_file: bool = False
    """The root holds an identity file without record."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is from. `agent_id` None: nobody, who may read and leaves no mark."""

    agent_id: str | None
    kind: CallerKind = "nobody"
    root: str | None = None
    """Where the agent lives; for nobody, where the caller stands."""
    pid: int = 0
    proven: bool = False
    """By its processes; otherwise by where it stands and what it says."""
    rule: str = ""
    warnings: tuple[str, ...] = ()
    visiting: bool = False
    """A person's shell where that agent lives, while the agent runs elsewhere: its looks are no sign of life."""


SYSTEM: Final = Caller("system", "system", proven=True)
"""The daemon's own tasks."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A call refused: row of the table, the guard's refusal, and who it is when the guard's mode lets it pass; without
    `otherwise` no mode does."""

    refusal: Refusal
    rule: str
    otherwise: Caller | None = None


def decide(evidence: Evidence, access: AccessClass, claim: str | None = None) -> Caller | Refused:
    """The caller of one request, or its refusal: the first row of identity.md §11 that applies."""
    if not evidence.uid_ok:
        refusal = Refusal("unauthenticated_rpc", "foreign_uid", owner_uid=evidence.daemon_uid)
        return Refused(refusal, "C1")
    if access == "operator":
        return _nobody(evidence, "C2")
    if evidence.failed in ("peer", "process", "chain"):
        return _unproved(evidence, access, "C3")
    claim = None if access == "bootstrap" or not claim else _spelled(claim, evidence)
    if evidence.owner is not None:
        return _by_owner(evidence, evidence.owner, claim)
    if evidence.failed is not None:
        return _unproved(evidence, access, "C7")
    return _by_place(evidence, access, claim)


def decide_user(user_id: str | None, method: str, access: AccessClass, claim: str | None = None) -> Caller | Refused:
    """The caller over a transport of which the kernel says nothing, a WebSocket (identity.md §11).

    `user_id`: who registered on the connection (`user.register`), None for nobody. Agents can't be claimed there.
    """
    if claim and claim != user_id:
        refusal = Refusal("unauthenticated_rpc", "identity_mismatch", "user", claim, user_id or "")
        return Refused(refusal, _NO_EVIDENCE)
    if user_id is not None:
        return Caller(user_id, "user", proven=True, rule=_NO_EVIDENCE)
    nobody = Caller(None, rule=_NO_EVIDENCE)
    if method in BEFORE_REGISTERING:
        return nobody
    refusal = Refusal("unauthenticated_rpc", "no_caller_agent_id")
    # A laxer mode lets reading pass, never more.
    return Refused(refusal, _NO_EVIDENCE, nobody if access == "read" else None)


def _spelled(claim: str, evidence: Evidence) -> str:
    """The claim in its one spelling; a record's own spelling comes first."""
    if claim == evidence.owner or claim in evidence.here:
        return claim
    return parse_agent_id(claim).canonical


def _by_owner(evidence: Evidence, owner: str, claim: str | None) -> Caller | Refused:
    if claim is None or claim == owner:
        return Caller(owner, "agent", evidence.owner_root, evidence.pid, proven=True, rule="C4")
    here = evidence.here
    # With no readable place nobody is here.
    if evidence.failed is None and owner in here and claim in here and here[claim] != "elsewhere":
        return Caller(claim, "agent", evidence.root, evidence.pid, rule="C5")
    refusal = Refusal("unauthenticated_rpc", "identity_mismatch", "chain", claim, owner, evidence.pids.get(claim, 0))
    return Refused(refusal, "C6")


def _by_place(evidence: Evidence, access: AccessClass, claim: str | None) -> Caller | Refused:
    here = evidence.here
    if not here:
        if access != "agent":
            return _nobody(evidence, "C8")
        refusal = Refusal("unauthenticated_rpc", "anonymous_mutating_rpc", quickstart_helps=evidence.unbound_file)
        return Refused(refusal, "C8")
    if claim is not None:
        if claim not in here:
            detected = ", ".join(sorted(here))
            return Refused(Refusal("unauthenticated_rpc", "identity_mismatch", "worktree", claim, detected), "C9")
        if evidence.runtime and here[claim] == "elsewhere":
            return _live_elsewhere(evidence, claim, "C10")
        visiting = here[claim] == "elsewhere"
        return Caller(claim, "agent", evidence.root, evidence.pid, rule="C11", visiting=visiting)
    if len(here) > 1:
        if access != "agent":
            return _nobody(evidence, "C12")
        refusal = Refusal("unauthenticated_rpc", "ambiguous_worktree", candidates=tuple(sorted(here)))
        return Refused(refusal, "C12")
    (only,) = here
    if here[only] == "elsewhere":
        return _live_elsewhere(evidence, only, "C13") if access == "agent" else _nobody(evidence, "C13")
    return Caller(only, "agent", evidence.root, evidence.pid, rule="C14")


def _live_elsewhere(evidence: Evidence, agent_id: str, rule: str) -> Refused:
    variant = "runtime" if evidence.runtime else "shell"
    refusal = Refusal("cross_worktree", "pid_mismatch", variant, agent_id, "", evidence.pids.get(agent_id, 0))
    return Refused(refusal, rule, Caller(agent_id, "agent", evidence.root, evidence.pid, rule=rule))


def _nobody(evidence: Evidence, rule: str) -> Caller:
    return Caller(None, "nobody", evidence.root, evidence.pid, rule=rule)


def _unproved(evidence: Evidence, access: AccessClass, rule: str) -> Caller | Refused:
    if access == "read":
        return _nobody(evidence, rule)
    step, cause = evidence.failed or "", evidence.failed_cause
    refusal = Refusal("unauthenticated_rpc", "introspection_failed", step=step, cause=cause)
    return Refused(refusal, rule)
