"""Whose terminal a new thread of an app-server is in, as far as that is certain. Pure bookkeeping of one worktree.

The server tells that a thread began, not where. A terminal that opened and has none yet gets it; else one of the
terminals that have an agent began a new one (`/new`). Which of several that was is known once the others were seen to
go on in theirs: until then none of them is certain, for the old threads stay loaded and would take mail unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Opened:
    """A terminal that is open. `agent`: whose process it is recorded as, empty for none's; `began_ms`: since 1970."""

    terminal: tuple[int, str]
    began_ms: float
    agent: str = ""


@dataclass(slots=True)
class Whose:
    """What is known of the threads of all worktrees. A thread is judged once, when it begins."""

    _judged: set[str] = field(default_factory=set[str])
    _has_thread: set[tuple[int, str]] = field(default_factory=set[tuple[int, str]])
    """Terminals that had their first thread."""
    _open: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """By thread: the agents that may have begun it."""

    def began(self, thread: str, created_ms: float, terminals: Sequence[Opened], threads: Mapping[str, str]) -> str:
        """A thread began in a worktree with these terminals; the agent that it is certainly of, else empty.

        `threads`: of each agent of Codex there that lives, the thread that it is bound to; empty for none.
        """
        if thread in self._judged:
            return ""
        self._judged.add(thread)
        if not terminals:
            return ""
        new = [
            each
            for each in terminals
            if each.terminal not in self._has_thread and not threads.get(each.agent) and each.began_ms <= created_ms
        ]
        if new:
            if len(new) == 1:
                self._has_thread.add(new[0].terminal)
                return new[0].agent
            return ""  # which of them, `runtime.thread` and the first hook tell
        may = {agent for agent, bound in threads.items() if bound}
        may &= {each.agent for each in terminals}
        if len(may) == 1 and all(each.agent in may for each in terminals):
            return may.pop()
        self._open[thread] = may
        return ""

    def bound(self, agent: str, thread: str, terminal: tuple[int, str] | None) -> None:
        """An agent is in that thread, by whatever evidence: what was open about it is settled."""
        self._judged.add(thread)
        self._open.pop(thread, None)
        if terminal is not None:
            self._has_thread.add(terminal)
        for may in self._open.values():
            may.discard(agent)

    def prompted(self, agent: str) -> list[tuple[str, str]]:
        """A person spoke in the thread that an agent is bound to: no newer one is its. What is certain by that, as
        threads with their agents."""
        certain: list[tuple[str, str]] = []
        for thread, may in list(self._open.items()):
            may.discard(agent)
            if len(may) == 1:
                certain.append((thread, next(iter(may))))
            if len(may) <= 1:
                del self._open[thread]
        return certain

    def closed(self, thread: str) -> None:
        """A thread is not loaded any more."""
        self._open.pop(thread, None)
        self._judged.discard(thread)

    def is_judged(self, thread: str) -> bool:
        """Whether it was seen to begin among terminals that were known then."""
        return thread in self._judged

    def is_uncertain(self, agent: str) -> bool:
        """Whether its terminal may show another thread than the one that it is bound to."""
        return any(agent in may for may in self._open.values())
