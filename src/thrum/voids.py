"""Which lines of a journal may go: those that cleanups and purges made void, and what a later line replaced. Pure.

A line may go only if the picture is the same without it, also for whoever never saw it (events.md §11 "Compaction"). So
every rule here looks at the line itself, at the lines of the same journal, and at horizons, which only ever rise: all
clones that hold the same facts drop the same lines, whenever they look. Used by compaction (`store`) and for the files
of the branch (`sync`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from thrum import clock, events, ids
from thrum.events import (
    AgentContextSaved,
    AgentExited,
    AgentPlaced,
    AgentRegistered,
    AgentSeen,
    AgentStatusSet,
    AgentUpdated,
    AnyFact,
    GroupMemberAdded,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    MessageReceipt,
    Sealed,
    SessionItemsChanged,
    SessionStarted,
    Work,
)

Order = tuple[str, str]
"""`(normalised time, event id)`: the order of facts, compared as text."""

_OF_AN_AGENT = (
    AgentRegistered,
    SessionStarted,
    AgentUpdated,
    AgentContextSaved,
    AgentPlaced,
    AgentExited,
    AgentSeen,
    AgentStatusSet,
)


def _nothing(_session_id: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Voids:
    """What cleanups and purges made void (events.md §7, "Horizons").

    `agents` and `authors`: the horizon of each id that was cleaned up, or cleaned up with its messages. `purge`: the
    greatest cutoff, `""` without one. `session_purged(session_id)`: whether a session is known that ended before it.
    """

    agents: Mapping[str, Order] = field(default_factory=dict[str, Order])
    authors: Mapping[str, Order] = field(default_factory=dict[str, Order])
    purge: str = ""
    session_purged: Callable[[str], bool] = _nothing

    def __bool__(self) -> bool:
        """Whether anything was ever cleaned up or purged."""
        return bool(self.agents or self.authors or self.purge)

    def mark(self) -> str:
        """A text that differs as soon as more is void."""
        return repr((sorted(self.agents.items()), sorted(self.authors.items()), self.purge)) if self else ""


def void_ids(facts: Sequence[tuple[Order, AnyFact]], voids: Voids) -> set[str]:
    """The event ids of facts that are void, of all facts of one journal.

    A `agent.session.end` is never void: what it ended must not come back to life when its start arrives late.
    """
    if not voids:
        return set()
    void: set[str] = set()
    cutoff_ms = clock.parse_ms(voids.purge) if voids.purge else 0
    standing: set[str] = set()
    """Messages whose create stays: what was done to them stays too."""
    for order, fact in facts:
        if _is_void(fact, order, voids, cutoff_ms):
            void.add(fact.event_id)
        elif isinstance(fact, MessageCreated):
            standing.add(fact.message_id)
    if voids.authors:
        for order, fact in facts:
            if isinstance(fact, MessageEdited | MessageDeleted) and fact.message_id not in standing:
                horizon = voids.authors.get(fact.agent_id)
                # Of the same millisecond the create alone says on which side of the horizon it lies.
                if horizon and message_ms(fact.message_id, order[0]) < clock.parse_ms(horizon[0]):
                    void.add(fact.event_id)
    return void


def is_void(fact: AnyFact, order: Order, voids: Voids) -> bool:
    """Whether a fact is void for what its own line says; one that is not may still be, by others of its journal."""
    return bool(voids) and _is_void(fact, order, voids, clock.parse_ms(voids.purge) if voids.purge else 0)


def message_ms(message_id: str, at: str) -> int:
    """A message's time in milliseconds since 1970: that inside its ULID, else `at`, the time of what speaks of it."""
    ms = ids.ulid_ms(message_id)
    return clock.parse_ms(at) if ms is None else ms


def _is_void(fact: AnyFact, order: Order, voids: Voids, cutoff_ms: int) -> bool:
    """By the line itself."""
    if isinstance(fact, MessageCreated | MessageEdited | MessageDeleted | MessageReceipt):
        if isinstance(fact, MessageCreated) and order <= voids.authors.get(fact.agent_id, ("", "")):
            return True
        if not isinstance(fact, MessageCreated) and ids.ulid_ms(fact.message_id) is None:
            # Its create says when such a message was, and that may lie in another journal, and later.
            return False
        return bool(cutoff_ms) and message_ms(fact.message_id, order[0]) < cutoff_ms
    if isinstance(fact, _OF_AN_AGENT) and order <= voids.agents.get(fact.agent_id, ("", "")):
        return True
    if isinstance(fact, GroupMemberAdded):
        return fact.member_type == "agent" and order <= voids.agents.get(fact.member_value, ("", ""))
    if not voids.purge:
        return False
    if isinstance(fact, SessionStarted | SessionItemsChanged):
        return voids.session_purged(fact.session_id)
    if isinstance(fact, AgentUpdated):
        return bool(fact.work_contexts) and all(voids.session_purged(work.session_id) for work in fact.work_contexts)
    return False


def superseded_ids(facts: Iterable[tuple[Order, AnyFact | Sealed]]) -> set[str]:
    """The event ids of `agent.update`s whose registers are all set anew by later ones that stay."""
    updates = sorted(
        ((order, fact) for order, fact in facts if isinstance(fact, AgentUpdated)),
        key=lambda entry: entry[0],
        reverse=True,
    )
    # Only what is later by order *and* by the register's time replaces: of the two it is never the one that a cleanup
    # between them makes void.
    latest: dict[tuple[str, str, str], str] = {}
    gone: set[str] = set()
    for _, fact in updates:
        registers = _registers(fact)
        if registers and all(at <= latest.get(register, "") for register, at in registers):
            gone.add(fact.event_id)
            continue
        for register, at in registers:
            latest[register] = max(latest.get(register, ""), at)
    return gone


def _registers(fact: AgentUpdated) -> list[tuple[tuple[str, str, str], str]]:
    """Every register that an update sets, with its time."""
    found: list[tuple[tuple[str, str, str], str]] = []
    for work in fact.work_contexts:
        for name, text in _times(work):
            try:
                found.append(((fact.agent_id, work.session_id, name), clock.normalise(text)))
            except ValueError:
                continue  # it sets nothing
    return found


def _times(work: Work) -> list[tuple[str, str]]:
    named = (("git", work.git_updated_at), ("task", work.task_updated_at), ("intent", work.intent_updated_at))
    return [(name, text) for name, text in named if text]


def branch_file_of(fact: AnyFact, found: str = "") -> str:
    """The journal of the branch that a fact belongs into; `""` for what never travels. Receipts do, as their
    recipient's (events.md §5). An older edit names nobody: the owner of the journal in which it was `found` is meant.
    """
    if isinstance(fact, MessageEdited | MessageDeleted) and not fact.agent_id:
        return found
    if isinstance(fact, MessageReceipt):
        return f"{events.MESSAGES_DIR}/{ids.file_stem(fact.agent_id)}.jsonl"
    file = events.file_of(fact)
    return "" if file == events.LOCAL_FILE else file
