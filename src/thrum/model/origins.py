"""Which daemon a line is from and what it may change: the judgement of every fact. Pure.

Source: events.md §11 "Signatures", "Who may change what", "Project". A line is of one *trust*:

- `SIGNED`: its origin signed it, and is of this project; or it is in the local journal
- `BEFORE`: unsigned, and was here before there were signatures; until that time was closed, every unsigned line
- `LOOSE`: unsigned, later, of an origin that counts here all the same
- `HIDDEN`: any other unsigned line: it stays in the journal and is synced, but is shown nowhere
- `STRANGE`: signed, by an origin that is not known to be of this project; it waits until that is known

*Home* is who an origin is to this machine: `OURS` for the ids that this daemon has or had, the successor of one that
was succeeded, else the origin itself. A *realm* is the reach of a cleanup or purge: facts of others are outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from thrum.model import ids, signatures
from thrum.model.errors import ThrumError
from thrum.model.events import AgentRegistered, AnyFact, GroupCreated, GroupUpdated, bare

SIGNED: Final = 0
BEFORE: Final = 1
LOOSE: Final = 2
HIDDEN: Final = 3
STRANGE: Final = 4

OURS: Final = ""
"""The home of this daemon's own facts, whatever its id."""
OLD_REALM: Final = "before"
"""The one realm of all lines from before signing: among themselves the old rules apply."""
_LOOSE_REALM: Final = "u:"


class Provenance(NamedTuple):
    """What a line is to this machine. `acts`: the realm that it sweeps in; sweeps of the realms `under`
    tombstoned it.
    """

    trust: int
    home: str
    acts: str
    under: tuple[str, ...]


def may_change(fact: Provenance, entity: Provenance) -> bool:
    """Whether a fact may change what another one made (events.md §11 "Who may change what")."""
    if fact.trust == entity.trust:
        return fact.trust == BEFORE or fact.home == entity.home
    return fact.trust == SIGNED and fact.home == entity.home


def sweeps_of_mark(fact: Provenance) -> tuple[str, ...]:
    """The realms whose sweeps tombstoned an edit or delete of a message that is not there: its own, and if no one
    signed it the realm of lines from before signing.
    """
    return (fact.acts, OLD_REALM) if BEFORE <= fact.trust <= HIDDEN else (fact.acts,)


def may_say_of_session(fact: Provenance, start: Provenance) -> bool:
    """The same for facts about a session: an older daemon continues the sessions that it had, and a session that
    ended before does not come back when its start comes late.
    """
    if fact.trust == BEFORE and start.trust == LOOSE:
        return True
    return may_change(fact, start) or (fact.home == start.home and fact.trust == LOOSE and start.trust == BEFORE)


Rank = tuple[int, bytes]


def rank(raw: bytes, trust: int) -> Rank:
    """Of lines of one event id, given what each is to this machine, that of least rank is the fact: a signed one before
    any that is not, one from before signing before unsigned ones that came later (anyone may push one), then the one
    that is smaller without signature. Of equal rank they are the same fact. What all clones agree on is
    `signatures.rank`.
    """
    return (0 if trust in (SIGNED, STRANGE) else 1 if trust == BEFORE else 2, signatures.unsigned(raw))


def line_hash(raw: bytes) -> str:
    """What `accept before` knows an unsigned line by."""
    return hashlib.sha256(raw).hexdigest()[:16]


def is_well_named(fact: AnyFact) -> bool:
    """Whether what another daemon names obeys the name rules: else an agent or a group could pass for a role, an option
    or a path (events.md §4, identity.md §2).
    """
    if isinstance(fact, GroupCreated):
        return _may_name_a_group(fact.name)
    if isinstance(fact, GroupUpdated):
        return fact.fields.name is None or _may_name_a_group(fact.fields.name)
    return not isinstance(fact, AgentRegistered) or _is_well_registered(fact)


def _may_name_a_group(name: str) -> bool:
    try:
        ids.check_group_name(name)
    except ThrumError:
        return False
    return True


def _is_well_registered(fact: AgentRegistered) -> bool:
    try:
        ids.check_module(fact.module)
        ids.check_display(fact.display)
        if fact.kind == "user":
            ids.check_user_name(fact.agent_id.removeprefix("user:"))
            return fact.agent_id.startswith("user:")
        ids.check_role(fact.role)
        if fact.name:
            ids.check_agent_name(fact.name, fact.role)
            return fact.agent_id == fact.name
    except ThrumError:
        return False
    parsed = ids.parse_agent_id(fact.agent_id)
    if parsed.kind == "named":
        return fact.agent_id != fact.role
    return parsed.canonical == fact.agent_id and parsed.role == fact.role != ""


def _never(_hash: str) -> bool:
    return False


@dataclass(slots=True)
class Origins:
    """Everything that a judgement rests on, as of one moment. `own`: this daemon's ids, `""` among them.

    `closed`: no lines count as from before signing any more, except those that `is_before` (by their hash). `accepted`:
    origins whose later unsigned lines count. `projects`: the repository ids of each origin that has a signed
    `daemon.key`; `ours` are those of this project. `successors`: by the former id.
    """

    own: Set[str] = frozenset({""})
    closed: bool = False
    is_before: Callable[[str], bool] = _never
    accepted: Set[str] = frozenset()
    projects: Mapping[str, Set[str]] = field(default_factory=dict[str, Set[str]])
    ours: Set[str] = frozenset()
    successors: Mapping[str, str] = field(default_factory=dict[str, str])
    exact: bool = False
    """Every origin is judged by itself, as all clones do: what goes onto the branch may not hang on one's own word."""
    _provenances: dict[tuple[str, int], Provenance] = field(
        default_factory=dict[tuple[str, int], Provenance], init=False
    )
    _signed: dict[str, Provenance] = field(default_factory=dict[str, Provenance], init=False)

    def judge(self, raw: bytes, origin: str, *, signed: bool) -> Provenance:
        """What a line of the branch is. `raw` is looked at only if it is not signed."""
        if not signed:
            return self.provenance(origin, self._trust_unsigned(raw, origin))
        found = self._signed.get(origin)
        if found is None:
            found = self._signed[origin] = self.provenance(origin, SIGNED if self.is_of_project(origin) else STRANGE)
        return found

    def provenance(self, origin: str, trust: int) -> Provenance:
        """Of an origin's lines of that trust."""
        found = self._provenances.get((origin, trust))
        if found is None:
            found = self._provenances[origin, trust] = self._make(origin, trust)
        return found

    def local(self) -> Provenance:
        """Of every fact of the local journal."""
        return Provenance(SIGNED, OURS, "", (OLD_REALM, *self.family(OURS)))

    def home(self, origin: str) -> str:
        """Who that is to this machine."""
        if origin in self.own or not origin:
            return OURS
        return self.successors.get(origin, origin)

    def family(self, home: str) -> tuple[str, ...]:
        """The origins of one home."""
        if home == OURS:
            return tuple(sorted(origin for origin in self.own if origin))
        return (home, *sorted(old for old, new in self.successors.items() if new == home))

    def under(self, realm: str) -> tuple[str, ...] | None:
        """All origins whose lines may be in a realm; None where those of any may: the realm from before
        signing."""
        if realm == OLD_REALM:
            return None
        origin = realm.removeprefix(_LOOSE_REALM)
        home = self.home(origin)
        olds = (old for old, new in self.successors.items() if new in (origin, home))
        return (origin, *self.family(home), *olds, *(("",) if home == OURS else ()))

    def is_of_project(self, origin: str) -> bool:
        """Whether an origin has said, signed, that it is of this project. Own ones are."""
        return origin in self.own or not self.ours.isdisjoint(self.projects.get(origin, ()))

    def _trust_unsigned(self, raw: bytes, origin: str) -> int:
        if origin in self.projects:
            return HIDDEN
        if not self.closed or self.is_before(line_hash(bare(raw))):
            return BEFORE
        return LOOSE if origin in self.accepted and self.home(origin) == origin != OURS else HIDDEN

    def _make(self, origin: str, trust: int) -> Provenance:
        home = self.home(origin)
        family = (origin,) if self.exact else self.family(home)
        if trust == BEFORE:
            return Provenance(trust, home, OLD_REALM, (OLD_REALM, *(() if self.exact else family)))
        if trust in (LOOSE, HIDDEN):
            # What was swept as a line from before signing stays so, whatever such a line is when it comes late.
            realm = _LOOSE_REALM + origin
            return Provenance(
                trust, home, realm, (realm, OLD_REALM, *(() if self.exact and trust == LOOSE else family))
            )
        return Provenance(trust, home, origin, family)
