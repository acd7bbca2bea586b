"""Who calls: the one place where the kernel's evidence and a claim become a `Caller`, or a refusal (identity.md §11).

The judgement itself is pure (`identity.caller`, `identity.cross_worktree`, `identity.person`); what it needs to know is
passed in. Here the evidence about a connected process is gathered, each request is judged, a guard's mode may turn a
refusal into a warning, and the result is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from thrum.identity.caller import Caller, CallerRequest, Evidence, Refused, class_of, decide_request, decide_user
from thrum.identity.evidence import PeerEvidence, Registry, Roots, check_person
from thrum.identity.guard_modes import fire, record_fire
from thrum.identity.processes import ProcessTable
from thrum.identity.runtimes import RuntimeNames, Runtimes
from thrum.model.guards import Mode
from thrum.model.paths import Layout

log = logging.getLogger("thrum.daemon")

NO_EVIDENCE_TRANSPORT = "W"
"""A WebSocket: of who is at its other end the kernel says nothing."""
_BY_NAME = "claim_by_name"
"""The message of the record that a claim without a terminal leaves (identity.md §11, C11)."""


class Credentials(Protocol):
    """What the kernel says of a connection's other end (`SO_PEERCRED`)."""

    @property
    def pid(self) -> int: ...
    @property
    def uid(self) -> int: ...


class Connection(Protocol):
    """The other end of a connection."""

    @property
    def transport(self) -> str:
        """U Unix socket, W WebSocket, P peer link, I the daemon's own tasks."""
        ...

    @property
    def peer(self) -> Credentials: ...

    user_id: str | None
    """Who registered over a WebSocket."""
    evidence: Any
    """The `PeerEvidence` that `meet` made."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Judges every call that reaches a daemon."""

    table: ProcessTable
    layout: Layout
    registry: Callable[[], Registry]
    """The agents of this daemon and where they live, as of now."""
    runtime_names: Callable[[], RuntimeNames]
    modes: Callable[[], Mapping[str, Mode]]
    """What each guard does when it fires, as the files say now (identity.md §12)."""
    is_registered: Callable[[str], bool]
    """Whether an agent or user of that id is registered now."""
    runtime_of: Callable[[str], str]
    """The program that an agent is recorded to be; empty if none is."""
    now: Callable[[], float]
    """A monotonic clock, seconds."""
    roots: Roots
    runtimes: Runtimes = field(default_factory=Runtimes)

    def meet(self, connection: Connection) -> None:
        """Look at the peer before its first request: later its pid must still be the same process."""
        connection.evidence = PeerEvidence(
            self.table,
            self.layout,
            pid=connection.peer.pid,
            uid=connection.peer.uid,
            names=self.runtime_names,
            roots=self.roots,
            runtimes=self.runtimes,
        )

    def identify(self, connection: Connection, request: CallerRequest) -> Caller:
        """Who makes this request: from the kernel's evidence, or over a WebSocket from who registered there.

        Raises the refusal (`guards.refusal_error`), or NotAPerson.
        """
        if connection.transport == NO_EVIDENCE_TRANSPORT:
            return self._identify_user(connection, request)
        peer: PeerEvidence = connection.evidence
        evidence = peer.gather(self.registry(), request.claim, now=self.now())
        outcome = decide_request(evidence, request)
        if isinstance(outcome, Refused):
            return self._pass_or_refuse(outcome, request, peer.told, evidence.pid, evidence.cwd)
        if class_of(request.level) == "person":
            check_person(peer, self.registry(), request.level, request.act or request.method)
        _log(outcome, evidence, request, peer.told)
        return outcome

    def _identify_user(self, connection: Connection, request: CallerRequest) -> Caller:
        user_id = connection.user_id
        if user_id is not None and not self.is_registered(user_id):
            user_id = None
        outcome = decide_user(user_id, request.method, class_of(request.level), request.claim)
        return self._pass_or_refuse(outcome, request, set()) if isinstance(outcome, Refused) else outcome

    def _pass_or_refuse(
        self, refused: Refused, request: CallerRequest, told: set[str], pid: int = 0, cwd: str = ""
    ) -> Caller:
        """Raise the refusal, unless the guard's mode lets it pass: then the caller all the same, and a warning.

        `told`: as whom this peer was warned already. `pid` and `cwd` are the caller's.
        """
        expected = refused.refusal.expected
        refusal = replace(refused.refusal, runtime=self.runtime_of(expected) if expected else "")
        otherwise = refused.otherwise
        is_told = otherwise is not None and otherwise.agent_id in told
        warning = fire(
            refusal,
            self.modes(),
            caller_pid=pid,
            caller_cwd=cwd,
            method=request.method,
            record=_record_denied if is_told else None,
            passable=otherwise is not None,
        )
        # Only a refusal that a mode may let pass returns from there.
        assert otherwise is not None
        if not warning:
            return otherwise
        if otherwise.agent_id is not None:
            told.add(otherwise.agent_id)
        return replace(otherwise, warnings=(warning,))


def _log(caller: Caller, evidence: Evidence, request: CallerRequest, told: set[str]) -> None:
    """Leave a record of a claim by name, one for each peer, and of a look by a process that the kernel does not
    show."""
    fields: dict[str, Any] = {"caller_pid": evidence.pid, "method": request.method}
    if caller.by_name and (record := f"{_BY_NAME} {caller.agent_id}") not in told:
        told.add(record)
        log.info(_BY_NAME, extra={"fields": {"agent": caller.agent_id, **fields}})
    if evidence.failed is not None and caller.rule in ("C3", "C7"):
        log.warning(
            "introspection_failed: %s", evidence.failed_cause, extra={"fields": {"step": evidence.failed, **fields}}
        )


def _record_denied(outcome: str, fields: dict[str, Any]) -> None:
    """The record of a guard whose warning this peer was given already."""
    if outcome == "denied":
        record_fire(outcome, fields)
