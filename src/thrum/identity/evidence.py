"""What the kernel says about one connected process, gathered again for every request (identity.md §11).

Only the chain of ancestors is kept for a connection, as it can only lose members. Whether its members live, the
caller's directory and the records are checked each time.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thrum.identity.caller import Evidence, Step
from thrum.identity.guard_modes import fire
from thrum.identity.person import Ancestry, check_person_act, look_at_ancestry
from thrum.identity.processes import OwnerState, Process, ProcessTable, same_process
from thrum.identity.runtimes import (
    KNOWN_RUNTIMES,
    SESSION_VARIABLE,
    Link,
    RuntimeNames,
    Runtimes,
    binding_pid,
    is_shared_server,
    may_be_shared_server,
    runtime_of_process,
)
from thrum.model.dot_git import first_line, git_at, upwards
from thrum.model.files import is_same, lstat
from thrum.model.guards import DEFAULT_MODES, Refusal
from thrum.model.ids import file_stem, parse_agent_id
from thrum.model.methods.method import Access
from thrum.model.paths import Layout

log = logging.getLogger("thrum.identity")

_ROOTS_MAX = 4_096
_KEPT_SECONDS = 1.0
"""How long the root of a directory and the programs of the chain are believed before they are looked up again."""


@dataclass(frozen=True, slots=True)
class AgentPlace:
    """Where an agent of this daemon lives and which process it is."""

    agent_id: str
    root: str
    """Absolute, free of links."""
    agent_pid: int = 0
    agent_pid_started: str = ""
    recorded_at: float = 0.0
    """Seconds since 1970."""
    runtime_session: str = ""
    """The session of its runtime, where one process of that serves many."""


class Registry:
    """The agents with a record bound to a root, as of one moment. Make a new one when they change."""

    __slots__ = ("agents", "by_id", "by_pid", "by_root", "by_session", "files")

    def __init__(self, agents: Iterable[AgentPlace] = ()) -> None:
        self.agents = tuple(agents)
        self.by_id = {agent.agent_id: agent for agent in self.agents}
        self.by_pid: dict[int, list[AgentPlace]] = {}
        self.by_root: dict[str, list[AgentPlace]] = {}
        self.by_session = {agent.runtime_session: agent for agent in self.agents if agent.runtime_session}
        self.files: dict[str, str] = {}
        for agent in self.agents:
            if agent.agent_pid > 1:
                self.by_pid.setdefault(agent.agent_pid, []).append(agent)
            self.by_root.setdefault(agent.root, []).append(agent)
            self.files[agent.agent_id] = f"{agent.root}/.thrum/identities/{file_stem(agent.agent_id)}.json"
        for owners in self.by_pid.values():
            owners.sort(key=lambda agent: agent.recorded_at, reverse=True)


class Failed(Exception):
    """A step of the evidence gave no answer."""

    def __init__(self, step: Step, cause: str) -> None:
        super().__init__(f"{step}: {cause}")
        self.step: Step = step
        self.cause = cause


class Roots:
    """The root of this repository that a directory lies in. One that was found is believed for a second."""

    def __init__(self, layout: Layout) -> None:
        self._common_dir = None if layout.common_dir is None else str(layout.common_dir)
        self._main_root = str(layout.main_root)
        self._found: dict[str, tuple[str, float]] = {}

    def of(self, directory: str, now: float) -> str | None:
        """`directory` is free of links; `now` a monotonic time in seconds. None: it lies in none."""
        known = self._found.get(directory)
        if known is not None and now < known[1]:
            return known[0]
        root = current_root(directory, self._common_dir, self._main_root)
        if root is not None:
            if len(self._found) >= _ROOTS_MAX:
                self._found.clear()
            self._found[directory] = (root, now + _KEPT_SECONDS)
        return root


def current_root(directory: str, common_dir: str | None, main_root: str) -> str | None:
    """The root of this repository that a process in `directory` (a real path) is in; None: in none of them.

    Going up: the first directory whose `.git` has this repository's common directory, or that holds the state; foreign
    repositories on the way are passed (identity.md §11). A root that is mounted twice is called as git calls it.
    """
    for candidate in upwards(directory):
        if candidate == main_root:
            return candidate
        git = git_at(candidate) if common_dir is not None else None
        if git is not None and is_same(git.common_dir, common_dir or ""):
            listed = first_line(f"{git.git_dir}/gitdir") if git.linked else f"{main_root}/.git"
            known = os.path.dirname(os.path.join(git.git_dir, listed or ""))
            return known if is_same(known, candidate) else candidate
    return None


class PeerEvidence:
    """The process at the other end of one connection. Made when it connects, asked for each request."""

    __slots__ = (
        "_chain",
        "_failure",
        "_links",
        "_names",
        "_own_uid",
        "_roots",
        "_runtime_found",
        "_runtimes",
        "_shared",
        "_started",
        "_table",
        "pid",
        "runtime_session",
        "told",
        "uid",
    )

    def __init__(
        self,
        table: ProcessTable,
        layout: Layout,
        *,
        pid: int,
        uid: int,
        own_uid: int | None = None,
        names: Callable[[], RuntimeNames] = lambda: KNOWN_RUNTIMES,
        roots: Roots | None = None,
        runtimes: Runtimes | None = None,
    ) -> None:
        """`pid` and `uid` are the kernel's credentials of the peer; `pid` 0: it gave none. `names` is asked whenever it
        matters. `roots` and `runtimes` may be shared among the peers of one daemon. Never raises.

        The chain is read here, so make it as soon as the peer has connected: what is later found under the pid must be
        the same process, or the evidence fails.
        """
        self.pid = pid
        self.uid = uid
        self._table = table
        self._names = names
        self._own_uid = os.getuid() if own_uid is None else own_uid
        self._chain: tuple[Process, ...] = ()
        self._started = ""
        self._failure: tuple[Step, str] | None = None
        self.told: set[str] = set()
        """Guards' warnings that this peer was given already: each is one record, however many calls it makes."""
        self.runtime_session = ""
        """The session of its runtime that the peer says it is of; empty: as its first environment says."""
        self._shared = -1
        self._runtime_found = (False, -_KEPT_SECONDS)
        try:
            self._first_look()
        except Failed as failed:
            self._failure = (failed.step, failed.cause)
        self._links: tuple[tuple[Link, ...], float] = ((), -_KEPT_SECONDS)
        self._roots = Roots(layout) if roots is None else roots
        self._runtimes = Runtimes() if runtimes is None else runtimes

    def gather(self, registry: Registry | None, claim: str | None = None, *, now: float) -> Evidence:
        """The evidence for one request.

        `registry` None: the records can't be read. `claim` only spares work: when the caller's processes prove it,
        its directory is not looked up. `now` is a monotonic time in seconds.
        """
        if self.uid != self._own_uid:
            return Evidence(self.pid, uid_ok=False, daemon_uid=self._own_uid)
        owner: AgentPlace | None = None
        try:
            if registry is not None:
                owner = self.proven_owner(registry, claim)
            if owner is not None and claim in (None, "", owner.agent_id):
                self._still_there()
                return Evidence(self.pid, owner=owner.agent_id, owner_root=owner.root)
            evidence = self._evidence_of_place(registry, owner, claim or "", now)
            # After the look at its directory: that one was of the process that connected.
            self._still_there()
            return evidence
        except Failed as failed:
            return Evidence(self.pid, failed=failed.step, failed_cause=failed.cause)

    def proven_owner(self, registry: Registry, claim: str | None = None) -> AgentPlace | None:
        """The agent whose live owner is nearest among the caller's processes; of several with one process the claimed
        one, else the one recorded last. A shared server and the process that started it prove no identity. Raises
        Failed."""
        by_pid = registry.by_pid
        for index, process in enumerate(self.chain()):
            if process.pid in by_pid:
                owners = [agent for agent in by_pid[process.pid] if self._owns(agent, process)]
                if owners:
                    if index >= self._first_shared():
                        return None
                    return next((agent for agent in owners if agent.agent_id == claim), owners[0])
        return None

    def _first_shared(self) -> int:
        """Where in the chain the first process is that serves many sessions (C3a); its length where none does.

        Looked at once: what becomes such a server later is none of this peer's. Raises Failed.
        """
        if self._shared < 0:
            chain, names = self.chain(), self._names()
            self._shared = len(chain)
            for index, each in enumerate(chain):
                if may_be_shared_server(each.comm, names) and is_shared_server(self._table.program(each.pid), names):
                    self._shared = index
                    break
        return self._shared

    def bound_agent(self, registry: Registry) -> AgentPlace | None:
        """The agent that is bound to the peer's session of a shared server; None where there is none. Raises Failed."""
        if not registry.by_session or self._first_shared() == len(self.chain()):
            return None
        session = self.runtime_session or self._environ().get(SESSION_VARIABLE, "")
        return registry.by_session.get(session)

    def is_deliberate(self, agent_id: str) -> bool:
        """Whether a claim of an agent that runs elsewhere is made on purpose: by a process with a terminal, or by one
        whose first environment names that agent (identity.md §11, C11). Raises Failed."""
        return self._has_terminal() or self._is_named(agent_id)

    def _has_terminal(self) -> bool:
        return self.terminal() != ""

    def terminal(self) -> str:
        """The controlling terminal's device; empty without one. Raises Failed."""
        try:
            found = self._table.terminal(self.pid)
            return "" if found is None else found.name
        except OSError as error:
            raise Failed("process", _words(error)) from error

    def _is_named(self, agent_id: str) -> bool:
        name = self._environ().get("THRUM_NAME", "")
        return bool(name) and parse_agent_id(name).canonical == parse_agent_id(agent_id).canonical

    def _environ(self) -> Mapping[str, str]:
        try:
            return self._table.environ(self.pid)
        except OSError as error:
            raise Failed("process", _words(error)) from error

    def ancestry(self, registry: Registry) -> Ancestry:
        """What is to be known of the peer where a person is wanted (rpc.md §3, Pe and Na). Raises Failed."""

        def is_placed(pid: int) -> str:
            return next((each.agent_id for each in registry.by_pid[pid] if self.state_of(each) != "dead"), "")

        try:
            found = look_at_ancestry(self._table, self.chain(), self._names(), registry.by_pid, is_placed)
        except OSError as error:
            raise Failed("process", _words(error)) from error
        self._still_there()
        return found

    def chain(self) -> tuple[Process, ...]:
        """The processes from the peer upwards, as they were when it connected. Raises Failed."""
        if self._failure is not None:
            raise Failed(*self._failure)
        return self._chain

    def links(self, now: float) -> tuple[Link, ...]:
        """The chain with the runtime of each process. Raises Failed."""
        links, until = self._links
        if now >= until:
            links = self._runtimes.links(self._table, self.chain(), self._names(), now)
            self._links = (links, now + _KEPT_SECONDS)
        return links

    def has_runtime(self, now: float) -> bool:
        """Whether a runtime is among the peer's processes. Raises Failed."""
        found, until = self._runtime_found
        if now >= until:
            found = self._runtimes.any(self._table, self.chain(), self._names(), now)
            self._runtime_found = (found, now + _KEPT_SECONDS)
        return found

    def binding(self, identity: str, registry: Registry, now: float) -> Process | None:
        """The process to record for `identity`, or None (identity.md §5). Raises Failed."""
        chain = self.chain()
        owned: dict[int, str] = {}
        for process in chain:
            for agent in registry.by_pid.get(process.pid, ()):
                # Of several that have this process `identity` counts: it may keep it.
                if self._owns(agent, process) and owned.get(process.pid) != identity:
                    owned[process.pid] = agent.agent_id
        pid = binding_pid(self.links(now), owned, identity)
        return next((process for process in chain if process.pid == pid), None)

    def current_root(self, now: float) -> str | None:
        """The root of this repository that the peer is in, or None. Raises Failed."""
        try:
            return self._root_of(self._table.cwd(self.pid), now)
        except OSError as error:
            raise Failed("cwd", _words(error)) from error

    def cwd(self) -> str:
        """The peer's directory; empty if the kernel does not say."""
        try:
            return self._table.cwd(self.pid)
        except OSError:
            return ""

    def state_of(self, agent: AgentPlace) -> OwnerState:
        """The owner state of an agent, seen from this peer. Raises Failed."""
        if agent.agent_pid <= 1:
            return "none"
        seen = self._read(agent.agent_pid)
        if seen is None or not same_process(
            agent.agent_pid_started, agent.recorded_at, seen, lambda: self._is_runtime(agent.agent_pid)
        ):
            return "dead"
        names = self._names()
        if may_be_shared_server(seen.comm, names) and is_shared_server(self._table.program(seen.pid), names):
            return "none"  # recorded before such a one was known to be many agents'
        mine = any(each.pid == seen.pid and each.started == seen.started for each in self.chain())
        return "chain" if mine else "elsewhere"

    def _first_look(self) -> None:
        if self.pid <= 0:
            raise Failed("peer", "the kernel names no process")
        process = self._read(self.pid)
        if process is None:
            raise Failed("process", "no such process")
        try:
            chain = self._table.chain(self.pid)
        except OSError as error:
            raise Failed("chain", _words(error)) from error
        if chain and chain[0].started != process.started:
            raise Failed("process", "no such process")
        self._started, self._chain = process.started, chain

    def _still_there(self) -> None:
        seen = self._read(self.pid)
        if seen is None or seen.started != self._started or seen.state in ("Z", "X", "x"):
            raise Failed("process", "no such process")

    def _evidence_of_place(
        self, registry: Registry | None, owner: AgentPlace | None, claim: str, now: float
    ) -> Evidence:
        """The caller's directory, the agents there, and what its processes prove. Raises Failed."""
        if registry is None:
            self.chain()
            return Evidence(self.pid, failed="registry", failed_cause="the records can't be read")
        owner_id, owner_root = (None, None) if owner is None else (owner.agent_id, owner.root)
        try:
            cwd = self._table.cwd(self.pid)
        except OSError as error:
            # A proved owner needs no directory; whether one is needed is for the decision to say.
            cause = _words(error)
            return Evidence(self.pid, owner=owner_id, owner_root=owner_root, failed="cwd", failed_cause=cause)
        root = self._root_of(cwd, now)
        here: dict[str, OwnerState] = {}
        pids: dict[str, int] = {}
        for agent in registry.by_root.get(root, ()) if root is not None else ():
            # The record alone is not enough, nor is the file: one copied into another root proves nothing.
            if _is_file(registry.files[agent.agent_id]):
                here[agent.agent_id] = self.state_of(agent)
                pids[agent.agent_id] = agent.agent_pid
        # The programs of a whole chain take a while to read, and matter only to one who is not that owner.
        runtime = "elsewhere" in here.values() and self.has_runtime(now)
        doubtful = bool(claim) and "elsewhere" in here.values() and not runtime
        terminal = not doubtful or self._has_terminal()
        bound = self.bound_agent(registry)
        return Evidence(
            self.pid,
            owner=owner_id,
            owner_root=owner_root,
            shared_server=self._first_shared() < len(self._chain),
            session_agent=None if bound is None else bound.agent_id,
            runtime=runtime,
            terminal=terminal,
            named=not terminal and self._is_named(claim),
            root=root,
            cwd=cwd,
            here=here,
            pids=pids,
            unbound_file=not here and root is not None and _has_identity_file(root),
        )

    def _root_of(self, cwd: str, now: float) -> str | None:
        return self._roots.of(cwd, now)

    def _owns(self, agent: AgentPlace, process: Process) -> bool:
        """Whether an agent's owner is this process of the chain, alive; not a later one under its pid."""
        seen = self._read(process.pid)
        return (
            seen is not None
            and seen.started == process.started
            and same_process(agent.agent_pid_started, agent.recorded_at, seen, lambda: self._is_runtime(process.pid))
        )

    def _is_runtime(self, pid: int) -> bool:
        return runtime_of_process(self._table.program(pid), self._names()) is not None

    def _read(self, pid: int) -> Process | None:
        try:
            return self._table.read(pid)
        except OSError as error:
            raise Failed("process", _words(error)) from error


def check_person(peer: PeerEvidence, registry: Registry, level: Access, act: str) -> None:
    """Raise NotAPerson unless the peer may do a person's act, `act` in a word (rpc.md §3); the log has who does one.

    The dispatcher asks for every method of such a level; an operation, where that shows only when it looks at what is
    to be done. Raises CallerUnproved where the kernel says nothing.
    """
    try:
        ancestry = peer.ancestry(registry)
    except Failed as failed:
        refusal = Refusal("unauthenticated_rpc", "introspection_failed", step=failed.step, cause=failed.cause)
        fire(refusal, DEFAULT_MODES, caller_pid=peer.pid, method=act)
        return
    check_person_act(ancestry, level, act, _record)


def _record(level: str, message: str, fields: dict[str, Any]) -> None:
    log.log(logging.WARNING if level == "warning" else logging.INFO, message, extra={"fields": fields})


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(lstat(path).st_mode)
    except OSError:
        return False


def _has_identity_file(root: str) -> bool:
    try:
        names = os.listdir(f"{root}/.thrum/identities")
    except OSError:
        return False
    return any(name.endswith(".json") and not name.startswith(".") for name in names)
