"""What is known of each agent's runtime now: its process, what it is doing, and since when.

A program's own registry counts most, for it is right at every moment; else what its hooks told last, or what its pane
showed after that. What is known only from hooks sticks: after Escape none fires. Composition of `identity.processes`,
`runtimes.doors` and `terminal`; blocking for some ten microseconds an agent. Times are trio's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from thrum.identity.processes import ProcessTable
from thrum.identity.runtimes import RuntimeNames
from thrum.model import clock
from thrum.model.wake_types import Process, Reachable, State
from thrum.model.wire_types import HookFired
from thrum.ops.liveness import owner_alive
from thrum.runtimes.doors import claude
from thrum.runtimes.hooks import HookEvent, Kind
from thrum.store.queries.views import AgentRow
from thrum.terminal.pane_looks import PaneLooks

_AFTER: Final[Mapping[Kind, State]] = {
    "session_start": "idle",
    "prompt": "working",
    "tool_done": "working",
    "turn_end": "idle",
    "dialog": "dialog",
}
"""What a runtime does once it has told of that."""


_EVENTS_MAX: Final = 64
"""Names of events that are remembered of one process: what calls a hook may call it anything."""


def thread_key(session: str) -> Process:
    """By what the hooks of a thread are kept that a server of many runs: its process tells nothing of them."""
    return (0, session)


class Thread(Protocol):
    """What a server of many sessions says of one of them."""

    @property
    def state(self) -> State: ...
    @property
    def since_ms(self) -> float: ...
    @property
    def hooks(self) -> bool: ...


class Threads(Protocol):
    """Asks such servers (`codex_service`)."""

    def thread(self, session: str) -> Thread | None:
        """The session, if a server has it loaded."""
        ...

    def has_terminal(self, worktree: str) -> bool:
        """Whether a terminal of it is open there, no matter whose."""
        ...


class NoThreads:
    """No such server."""

    def thread(self, session: str) -> Thread | None:
        return None

    def has_terminal(self, worktree: str) -> bool:
        return False


@dataclass(slots=True)
class _Told:
    """What the hooks of one process told."""

    session: str = ""
    kind: Kind = "other"
    at: float = 0.0
    """When it told of that."""
    fired: dict[str, HookFired] = field(default_factory=dict[str, HookFired])
    """By the program's own names of its events."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """An agent's runtime at the last look. `since_ms`: by its registry; 0: not told."""

    process: Process | None
    state: State
    since_ms: float
    since: float

    def is_same(self, process: Process | None, state: State, since_ms: float) -> bool:
        return (self.process, self.state, self.since_ms) == (process, state, since_ms)


@dataclass(slots=True)
class RuntimeStates:
    """Asked for an agent's runtime, told of what its hooks say."""

    processes: ProcessTable
    runtime_names: Callable[[], RuntimeNames]
    now: Callable[[], float]
    now_ms: Callable[[], int]
    panes: PaneLooks
    threads: Threads = field(default_factory=NoThreads)
    _told: dict[Process, _Told] = field(default_factory=dict[Process, _Told])
    _homes: dict[Process, str] = field(default_factory=dict[Process, str])
    _seen: dict[str, _Seen] = field(default_factory=dict[str, _Seen])

    def note(self, process: Process, event: HookEvent) -> None:
        """A hook of a runtime's process fired."""
        told = self._told.setdefault(process, _Told())
        count = told.fired[event.event].count if event.event in told.fired else 0
        if count or len(told.fired) < _EVENTS_MAX:
            told.fired[event.event] = HookFired(count + 1, clock.format_ms(self.now_ms()))
        if event.session:
            told.session = event.session
        if event.kind in _AFTER:
            told.kind, told.at = event.kind, self.now()

    def forget(self, process: Process) -> None:
        """The process has ended."""
        self._told.pop(process, None)
        self._homes.pop(process, None)
        self.panes.forget(process)

    def fired(self, process: Process | None) -> bool:
        """Whether any hook of thrum's fired in that process while this daemon ran."""
        return process in self._told

    def _have_hooks_fired(self, process: Process | None, row: AgentRow | None) -> bool:
        """In the agent's process or thread, as far as is known: this daemon may be younger than its session."""
        if self.fired(process) or row is None:
            return self.fired(process)
        return self.fired(thread_key(row.runtime_session)) or (process is not None and bool(row.hooks_seen_at))

    def hooks_fired(self, row: AgentRow) -> dict[str, HookFired]:
        """The events that hooks of an agent's runtime told of while this daemon ran."""
        told = self._told.get((row.agent_pid, row.agent_pid_started)) or self._told.get(thread_key(row.runtime_session))
        return dict(told.fired) if told is not None else {}

    def of(self, agent_id: str, row: AgentRow | None) -> Reachable:
        """The runtime of an agent as of now; `row`: its record, None where there is none."""
        if row is not None and row.runtime == "codex" and (found := self._of_thread(agent_id, row)) is not None:
            return found
        if row is not None and not row.agent_pid:
            return self._reachable(agent_id, row, None, "unknown")  # registered from a plain shell
        if row is None or not owner_alive(row, self.processes, self.runtime_names()):
            last_seen_ms = clock.parse_ms(row.last_seen_at) if row is not None and row.last_seen_at else 0.0
            return self._reachable(agent_id, row, None, "gone", last_seen_ms)
        process = self._process_of(row)
        told = self._told.get(process)
        if row.runtime == "claude" and (found := claude.read_session(self._home(process), process)) is not None:
            return self._reachable(agent_id, row, process, found.state, found.since_ms, found.session)
        state: State = _AFTER.get(told.kind, "unknown") if told else "unknown"
        pane = self.panes.last(process)
        if pane is not None and pane.state != "unknown" and (told is None or pane.since > told.at):
            state = pane.state
        return self._reachable(agent_id, row, process, state, session=told.session if told else "")

    def _of_thread(self, agent_id: str, row: AgentRow) -> Reachable | None:
        """Of an agent in a thread that a server has loaded, as long as its terminal is open: the server keeps the
        thread when that closes."""
        thread = self.threads.thread(row.runtime_session)
        if thread is None:
            return None
        process = self._process_of(row) if owner_alive(row, self.processes, self.runtime_names()) else None
        if process is None and (row.agent_pid or not self.threads.has_terminal(row.worktree_path)):
            return None if row.agent_pid else self._reachable(agent_id, row, None, "gone")
        found = self._reachable(agent_id, row, process, thread.state, thread.since_ms, row.runtime_session)
        return replace(found, hooks_fired=found.hooks_fired or thread.hooks)

    def _process_of(self, row: AgentRow) -> Process:
        seen = None if row.agent_pid_started else self.processes.read(row.agent_pid)
        return row.agent_pid, row.agent_pid_started or (seen.started if seen else "")

    def _home(self, process: Process) -> str:
        home = self._homes.get(process)
        if home is None:
            try:
                home = claude.config_dir(self.processes.environ(process[0]))
            except OSError:
                home = ""
            self._homes[process] = home
        return home

    def _reachable(
        self,
        agent_id: str,
        row: AgentRow | None,
        process: Process | None,
        state: State,
        since_ms: float = 0.0,
        session: str = "",
    ) -> Reachable:
        """Since when: as its registry tells, else since it was first seen so; `since_ms` of one that is gone is when it
        was last seen, which counts if no look found it alive.
        """
        seen = self._seen.get(agent_id)
        if state == "gone" and seen is not None:
            since_ms = seen.since_ms if seen.state == "gone" else 0.0
        if seen is None or not seen.is_same(process, state, since_ms):
            ago = max(0.0, self.now_ms() - since_ms) / 1000 if since_ms else 0.0
            seen = self._seen[agent_id] = _Seen(process, state, since_ms, self.now() - ago)
        return Reachable(
            agent_id=agent_id,
            state=state,
            state_since=seen.since,
            process=process,
            runtime=row.runtime if row else "",
            session=session,
            worktree=row.worktree_path if row else "",
            pane=place.pane if (place := self.panes.place(process)) is not None else "",
            hooks_fired=self._have_hooks_fired(process, row),
        )
