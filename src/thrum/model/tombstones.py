"""Which lines of a journal may go: those that cleanups and purges tombstoned, and what a later line replaced. Pure.

A line may go only if the projection is the same without it, also in clones that never saw it (events.md §11
"Compaction"). So every rule here looks at the line itself, at the lines of the same journal, and at watermarks, which
only ever rise: all clones that hold the same facts drop the same lines, whenever they look. Used by compaction
(`store`) and for the files of the branch (`sync`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from thrum.model import clock, events, ids, signatures
from thrum.model.events import (
    SPECS,
    AgentRegistered,
    AgentUpdated,
    AnyFact,
    GroupMemberAdded,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    MessageFact,
    MessageReceipt,
    SessionFact,
    UnknownEvent,
    Work,
)
from thrum.model.origins import BEFORE, HIDDEN, OLD_REALM, OURS, Origins, Provenance, may_say_of_session, sweeps_of_mark

Order = tuple[str, str]
"""`(normalised time, event id)`: the order of facts, compared as text."""

Fact = tuple[Order, AnyFact, Provenance]
"""A fact of a journal, and the provenance of its line for the caller."""

Ends = Sequence[tuple[Provenance, str]]
"""What is known of the ends of one session: what each line is, and its time."""


def _no_ends(_session_id: str) -> Ends:
    return ()


@dataclass(frozen=True, slots=True)
class Tombstones:
    """What cleanups and purges tombstoned (events.md §7, "Horizons"): by realm (see `origins`).

    `agents` and `authors`: by id, the watermarks of what was cleaned up, or cleaned up with its messages. `purges`: the
    greatest cutoffs. `ends` of a session are asked for when something was purged.
    """

    origins: Origins = field(default_factory=Origins)
    agents: Mapping[str, Mapping[str, Order]] = field(default_factory=dict[str, Mapping[str, Order]])
    authors: Mapping[str, Mapping[str, Order]] = field(default_factory=dict[str, Mapping[str, Order]])
    purges: Mapping[str, str] = field(default_factory=dict[str, str])
    ends: Callable[[str], Ends] = _no_ends

    def __bool__(self) -> bool:
        """Whether anything was ever cleaned up or purged."""
        return bool(self.agents or self.authors or self.purges)

    def fingerprint(self) -> str:
        """A text that differs as soon as more is tombstoned."""
        if not self:
            return ""
        watermarks = [(id, sorted(found.items())) for some in (self.agents, self.authors) for id, found in some.items()]
        return repr((sorted(watermarks), sorted(self.purges.items())))

    def provenance(self, raw: bytes, fact: AnyFact | UnknownEvent) -> Provenance:
        """What a line of the branch is; looked at closely only if that decides anything."""
        if not self:
            return _ANYBODY
        return self.origins.judge(raw, fact.origin_daemon, signed=signatures.is_signed(raw, fact.origin_daemon))

    def cutoff(self, realms: Iterable[str]) -> str:
        """The greatest one of these realms, `""` without any."""
        return max((self.purges.get(realm, "") for realm in realms), default="")

    def covers_agent(self, agent_id: str, order: Order, realms: Iterable[str]) -> bool:
        """Whether a cleanup of the agent in one of these realms tombstones what has that order."""
        return _covers(self.agents.get(agent_id), order, realms)

    def covers_author(self, agent_id: str, order: Order, realms: Iterable[str]) -> bool:
        """The same for a cleanup with its messages."""
        return _covers(self.authors.get(agent_id), order, realms)


_ANYBODY: Final = Provenance(HIDDEN, OURS, "", ())


def _covers(watermarks: Mapping[str, Order] | None, order: Order, realms: Iterable[str]) -> bool:
    return bool(watermarks) and any(order <= watermarks.get(realm, ("", "")) for realm in realms)


def tombstoned_ids(facts: Sequence[Fact], tombstones: Tombstones) -> set[str]:
    """The event ids of facts that are tombstoned, of all facts of one journal.

    A `agent.session.end` is never tombstoned: what it ended must not come back to life when its start arrives late.
    """
    if not tombstones:
        return set()
    tombstoned: set[str] = set()
    remaining: set[str] = set()
    """Messages whose create stays: what was done to them stays too."""
    for order, fact, who in facts:
        if _is_tombstoned(fact, order, who, tombstones):
            tombstoned.add(fact.event_id)
        elif isinstance(fact, MessageCreated):
            remaining.add(fact.message_id)
    if tombstones.authors:
        for order, fact, who in facts:
            if isinstance(fact, MessageEdited | MessageDeleted) and fact.message_id not in remaining:
                watermarks = tombstones.authors.get(fact.agent_id, {})
                watermark = max(watermarks.get(realm, ("", ""))[0] for realm in sweeps_of_mark(who))
                # Of the same millisecond the create alone says on which side of the watermark it lies.
                if watermark and message_ms(fact.message_id, order[0]) < clock.parse_ms(watermark):
                    tombstoned.add(fact.event_id)
    return tombstoned


def is_tombstoned(fact: AnyFact, order: Order, who: Provenance, tombstones: Tombstones) -> bool:
    """Whether a fact is tombstoned for what its own line says; one that is not may still be, by others of its
    journal.
    """
    return bool(tombstones) and _is_tombstoned(fact, order, who, tombstones)


def message_ms(message_id: str, at: str) -> int:
    """A message's time in milliseconds since 1970: that inside its ULID, else `at`, the time of what speaks of it."""
    ms = ids.ulid_ms(message_id)
    return clock.parse_ms(at) if ms is None else ms


def _is_tombstoned(fact: AnyFact, order: Order, who: Provenance, tombstones: Tombstones) -> bool:
    """By the line itself."""
    if isinstance(fact, MessageCreated):
        if tombstones.covers_author(fact.agent_id, order, who.under):
            return True
        cutoff = tombstones.cutoff(who.under)
        return bool(cutoff) and message_ms(fact.message_id, order[0]) < clock.parse_ms(cutoff)
    if isinstance(fact, MessageFact):
        return bool(tombstones.purges) and _is_about_purged(fact, order[0], who, tombstones)
    if isinstance(fact, AgentRegistered) and BEFORE <= who.trust <= HIDDEN:
        # Once registered there, for ever: what others may say for the agent must not hang on a line that went.
        return False
    spec = SPECS[type(fact)]
    names_an_agent = not isinstance(fact, GroupMemberAdded) or fact.member_type == "agent"
    if spec.cleanup and names_an_agent and tombstones.covers_agent(getattr(fact, spec.cleanup), order, who.under):
        return True
    if spec.purge == "itself":
        return order[0] < tombstones.cutoff(who.under)
    if not tombstones.purges or spec.purge != "session" or not isinstance(fact, SessionFact):
        return False
    if isinstance(fact, AgentUpdated):
        return bool(fact.work_contexts) and all(
            _is_purged(work.session_id, who, tombstones) for work in fact.work_contexts
        )
    return _is_purged(fact.session_id, who, tombstones)


def _is_about_purged(
    fact: MessageEdited | MessageDeleted | MessageReceipt, at: str, who: Provenance, tombstones: Tombstones
) -> bool:
    """Facts about a message are tombstoned with it. If its id gives no time, or no origin, only its create
    can say, and that may lie in another journal, and come later.
    """
    ms = ids.ulid_ms(fact.message_id)
    if ms is None:
        return False
    if not isinstance(fact, MessageReceipt):
        cutoff = tombstones.cutoff(sweeps_of_mark(who))
        return bool(cutoff) and ms < clock.parse_ms(cutoff)
    for realm, cutoff in tombstones.purges.items():
        if realm != OLD_REALM and ms < clock.parse_ms(cutoff) and signatures.id_fits(fact.message_id, realm):
            return True
    # What was read here before the cutoff was here, and if it is unsigned, it predates signing.
    old, origins = tombstones.purges.get(OLD_REALM, ""), tombstones.origins
    is_old = not who.acts and old != "" and at < old and ms < clock.parse_ms(old)
    known = (*origins.projects, *origins.own)
    return is_old and not any(signatures.id_fits(fact.message_id, origin) for origin in known)


def _is_purged(session_id: str, who: Provenance, tombstones: Tombstones) -> bool:
    """Whether an end of the session before the cutoff of a purge is known."""
    for end, at in tombstones.ends(session_id):
        if may_say_of_session(end, who) or (not who.acts and end.home == OURS):
            cutoff = tombstones.cutoff(realm for realm in end.under if realm in who.under)
            if cutoff and at < cutoff:
                return True
    return False


def superseded_ids(facts: Iterable[tuple[Order, AnyFact | UnknownEvent, bool]]) -> set[str]:
    """The event ids of `agent.update`s whose registers are all overwritten by later ones that stay, and that the same
    origin wrote, both `signed` or neither: no daemon replaces what another said. A line that occurs twice is one fact.
    """
    once = {fact.event_id: (order, fact, signed) for order, fact, signed in facts if isinstance(fact, AgentUpdated)}
    updates = sorted(once.values(), key=lambda entry: entry[0], reverse=True)
    # Only what is later by order *and* by the register's time replaces: of the two it is never the one that a cleanup
    # between them tombstones.
    latest: dict[tuple[str | bool, ...], str] = {}
    gone: set[str] = set()
    for _, fact, signed in updates:
        registers = [((*register, fact.origin_daemon, signed), at) for register, at in _registers(fact)]
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
    recipient's (events.md §5). An older edit names no author: then the owner of the journal in which it was `found`
    counts.
    """
    if isinstance(fact, MessageEdited | MessageDeleted) and not fact.agent_id:
        return found
    if isinstance(fact, MessageReceipt):
        return f"{events.MESSAGES_DIR}/{ids.file_stem(fact.agent_id)}.jsonl"
    file = events.file_of(fact)
    return "" if file == events.LOCAL_FILE else file
