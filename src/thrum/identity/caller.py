"""Who calls: the decision from the kernel's evidence and the caller's claim (identity.md §11). Pure.

`evidence.py` gathers what is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from thrum.identity.cross_worktree import cross_worktree
from thrum.identity.processes import OwnerState
from thrum.model.guards import Refusal
from thrum.model.ids import parse_agent_id
from thrum.model.methods.method import Access

AccessClass = Literal["read", "bootstrap", "operator", "person", "agent"]
Step = Literal["peer", "process", "chain", "cwd", "root", "registry"]
CallerKind = Literal["agent", "user", "system", "nobody"]

CLASS_OF: Final[Mapping[Access, AccessClass]] = {
    Access.ANONYMOUS: "read",
    Access.BOOTSTRAP: "bootstrap",
    Access.OPERATOR: "operator",
    Access.PERSON: "person",
    Access.NOT_AN_AGENT: "person",
}
"""The class of an access level; every other one is `agent`."""

BEFORE_REGISTERING: Final = frozenset({"user.identify", "user.register", "health"})
"""What a connection without the kernel's evidence may call before `user.register`."""

_NO_EVIDENCE: Final = "W"
_REGISTERS: Final = frozenset({"agent.register", "user.register"})
"""What is not done in an agent's name: it makes one."""


def class_of(level: Access) -> AccessClass:
    """Whom a level lets call: the class of identity.md §11."""
    return CLASS_OF.get(level, "agent")


def is_act(method: str, level: Access) -> bool:
    """Whether a call writes in an agent's name or changes its state. Registration records the process by itself."""
    access = class_of(level)
    return access == "agent" or (access == "bootstrap" and method not in _REGISTERS)


@dataclass(frozen=True, slots=True)
class CallerRequest:
    """What a call asks for, as far as it matters for who may make it."""

    method: str
    level: Access
    """Who may make this very call."""
    claim: str | None = None
    """Whom it says that it is from."""
    own: bool = False
    """Whether it reads the inbox, the marks or the record of the caller."""
    act: str = ""
    """A person's act in a word or two, for the log; empty: the method's name."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the kernel and the records say about one call."""

    pid: int = 0
    uid_ok: bool = True
    owner: str | None = None
    """The agent that the caller's processes prove."""
    owner_root: str | None = None
    shared_server: bool = False
    """Whether the caller's processes lead to one that serves many sessions: then `owner` is not asked."""
    session_agent: str | None = None
    """The agent that is bound to the caller's session of that server."""
    terminal: bool = True
    """Whether the caller has a controlling terminal; asked only when a claim for one that lives elsewhere needs it."""
    named: bool = False
    """Whether the claimed agent was named in the first environment of the caller; likewise."""
    runtime: bool = False
    """Whether a runtime is among the caller's processes; asked only when an agent of `here` lives elsewhere."""
    root: str | None = None
    """The root that contains the caller's directory."""
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
    """Who a call is from. `agent_id` None: an anonymous caller, who may read and leaves no marks."""

    agent_id: str | None
    kind: CallerKind = "nobody"
    root: str | None = None
    """Where the agent lives; for an anonymous caller, its working directory."""
    pid: int = 0
    proven: bool = False
    """Proved by its processes; otherwise by its directory and its claim."""
    rule: str = ""
    warnings: tuple[str, ...] = ()
    visiting: bool = False
    """A person's shell where that agent lives, while the agent runs elsewhere: its looks are no sign of life."""
    by_name: bool = False
    """It visits without a terminal, because its first environment names the agent. Worth a line in the log."""
    candidates: frozenset[str] = frozenset()
    """Of an unknown caller: the agents that live where it stands and that no process elsewhere runs. It may be any."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A call refused: row of the table, the guard's refusal, and who it is when the guard's mode lets it pass; without
    `otherwise` no mode does."""

    refusal: Refusal
    rule: str
    otherwise: Caller | None = None


def decide_request(evidence: Evidence, request: CallerRequest) -> Caller | Refused:
    """Who makes a request, or its refusal: `decide`, and what identity.md §12 adds for the calls of a session.

    Registration leaves claims out of account, and with it the class `bootstrap`. But who may act as an agent that lives
    here and runs elsewhere, a person's shell with THRUM_NAME set, may also start its session and say what it works on.
    """
    access, claim = class_of(request.level), request.claim
    outcome = decide(evidence, access, claim, own=request.own)
    anonymous = isinstance(outcome, Caller) and outcome.agent_id is None
    of_session = access == "bootstrap" and is_act(request.method, request.level)
    if anonymous and of_session and claim and evidence.here.get(claim) == "elsewhere":
        return decide(evidence, "agent", claim)
    return outcome


def decide(evidence: Evidence, access: AccessClass, claim: str | None = None, *, own: bool = False) -> Caller | Refused:
    """The caller of one request, or its refusal: the first row of identity.md §11 that applies.

    `own`: it reads the inbox, the marks or the record of the caller. Of the class `person` only the other user is
    told off here; the rest is `identity.person`'s to judge.
    """
    if not evidence.uid_ok:
        refusal = Refusal("unauthenticated_rpc", "foreign_uid", owner_uid=evidence.daemon_uid)
        return Refused(refusal, "C1")
    if access in ("operator", "person"):
        return _nobody(evidence, "C2")
    claim = None if access == "bootstrap" or not claim else _spelled(claim, evidence)
    if evidence.failed in ("peer", "process", "chain"):
        return _unproved(evidence, access, "C3", claim, own)
    bound = evidence.session_agent
    if evidence.shared_server and evidence.failed is None and bound is not None and bound in evidence.here:
        return _by_session(evidence, bound, claim)
    if evidence.owner is not None and not evidence.shared_server:
        return _by_owner(evidence, evidence.owner, claim)
    if evidence.failed is not None:
        return _unproved(evidence, access, "C7", claim, own)
    return _by_place(evidence, access, claim, own)


def decide_user(user_id: str | None, method: str, access: AccessClass, claim: str | None = None) -> Caller | Refused:
    """The caller over a transport of which the kernel says nothing, a WebSocket (identity.md §11).

    `user_id`: the user registered on the connection (`user.register`), or None. Agents can't be claimed there.
    """
    if claim and claim != user_id:
        refusal = Refusal("unauthenticated_rpc", "identity_mismatch", "user", claim, user_id or "")
        return Refused(refusal, _NO_EVIDENCE)
    if user_id is not None:
        return Caller(user_id, "user", proven=True, rule=_NO_EVIDENCE)
    anonymous = Caller(None, rule=_NO_EVIDENCE)
    if method in BEFORE_REGISTERING:
        return anonymous
    refusal = Refusal("unauthenticated_rpc", "no_caller_agent_id")
    # A laxer mode lets reading pass, never more.
    return Refused(refusal, _NO_EVIDENCE, anonymous if access == "read" else None)


def _spelled(claim: str, evidence: Evidence) -> str:
    """The claim in its one spelling; a record's own spelling comes first."""
    if claim == evidence.owner or claim in evidence.here:
        return claim
    return parse_agent_id(claim).canonical


def _by_session(evidence: Evidence, bound: str, claim: str | None) -> Caller | Refused:
    """Below a shared server: its environment comes from the process that started it, so another claim is most likely
    stale."""
    if claim in (None, bound):
        return Caller(bound, "agent", evidence.root, evidence.pid, rule="C3a")
    refusal = Refusal(
        "unauthenticated_rpc", "identity_mismatch", "chain", claim or "", bound, evidence.pids.get(claim or "", 0)
    )
    return Refused(refusal, "C3a")


def _by_owner(evidence: Evidence, owner: str, claim: str | None) -> Caller | Refused:
    if claim is None or claim == owner:
        return Caller(owner, "agent", evidence.owner_root, evidence.pid, proven=True, rule="C4")
    here = evidence.here
    # Without a readable directory there are no agents here.
    if evidence.failed is None and owner in here and claim in here and here[claim] != "elsewhere":
        return Caller(claim, "agent", evidence.root, evidence.pid, rule="C5")
    refusal = Refusal("unauthenticated_rpc", "identity_mismatch", "chain", claim, owner, evidence.pids.get(claim, 0))
    return Refused(refusal, "C6")


def _by_place(evidence: Evidence, access: AccessClass, claim: str | None, own: bool) -> Caller | Refused:
    here = evidence.here
    if not here:
        if access == "read" and claim is not None:
            return _unconfirmed(evidence, claim, own, "C8a")
        if access != "agent":
            return _nobody(evidence, "C8")
        refusal = Refusal("unauthenticated_rpc", "anonymous_mutating_rpc", quickstart_helps=evidence.unbound_file)
        return Refused(refusal, "C8")
    if claim is not None:
        if claim not in here:
            detected = ", ".join(sorted(here))
            return Refused(Refusal("unauthenticated_rpc", "identity_mismatch", "worktree", claim, detected), "C9")
        refused = _used_elsewhere(
            evidence, claim, "C10" if evidence.runtime else "C11", explicit=evidence.terminal or evidence.named
        )
        if refused is not None:
            return refused
        visiting = here[claim] == "elsewhere"
        by_name = visiting and not evidence.terminal
        return Caller(claim, "agent", evidence.root, evidence.pid, rule="C11", visiting=visiting, by_name=by_name)
    if len(here) > 1:
        if access != "agent":
            return _nobody(evidence, "C12")
        refusal = Refusal("unauthenticated_rpc", "ambiguous_worktree", candidates=tuple(sorted(here)))
        return Refused(refusal, "C12")
    (only,) = here
    refused = _used_elsewhere(evidence, only, "C13", explicit=False)
    if refused is not None:
        return refused if access == "agent" else _nobody(evidence, "C13")
    return Caller(only, "agent", evidence.root, evidence.pid, rule="C14")


def _used_elsewhere(evidence: Evidence, agent_id: str, rule: str, *, explicit: bool) -> Refused | None:
    """The refusal of `cross_worktree` for an agent of this root that lives in another process; the mode decides."""
    judged = cross_worktree(
        agent_id,
        explicit=explicit,
        owner=None,
        state=evidence.here[agent_id],
        runtime=evidence.runtime,
        same_root=True,
        expected_pid=evidence.pids.get(agent_id, 0),
    )
    if not isinstance(judged, Refusal):
        return None
    return Refused(judged, rule, Caller(agent_id, "agent", evidence.root, evidence.pid, rule=rule))


def _nobody(evidence: Evidence, rule: str) -> Caller:
    candidates = frozenset(agent_id for agent_id, state in evidence.here.items() if state != "elsewhere")
    return Caller(None, "nobody", evidence.root, evidence.pid, rule=rule, candidates=candidates)


def _unconfirmed(evidence: Evidence, claim: str, own: bool, rule: str) -> Caller | Refused:
    """A read with a claim that nothing confirms: anonymous, and refused for what is that agent's own."""
    if own:
        return Refused(Refusal("unauthenticated_rpc", "identity_mismatch", "nobody", claim), rule)
    return replace(_nobody(evidence, rule), warnings=(claim_not_used(claim),))


def claim_not_used(claim: str) -> str:
    """The warning for a read that continues anonymously."""
    return f'you are not seen as "{claim}" here: nothing confirms it; read without an identity'


def _unproved(evidence: Evidence, access: AccessClass, rule: str, claim: str | None, own: bool) -> Caller | Refused:
    if access == "read":
        return _nobody(evidence, rule) if claim is None else _unconfirmed(evidence, claim, own, rule)
    step, cause = evidence.failed or "", evidence.failed_cause
    refusal = Refusal("unauthenticated_rpc", "introspection_failed", step=step, cause=cause)
    return Refused(refusal, rule)
