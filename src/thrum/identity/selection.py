"""Which identity a command has: the file (phase 1), then the values (phase 2) (identity.md §6). Pure.

The outcome is a claim, never a proof: `caller.py` decides.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from thrum.identity.processes import same_process
from thrum.identity.runtimes import Link, proving
from thrum.model.errors import (
    IdentityEnvConflict,
    IdentityInvalid,
    IdentityNotFound,
    InvalidName,
    NoIdentity,
    SeveralIdentities,
    ThrumError,
    in_shell,
)
from thrum.model.ids import ParsedAgent, parse_agent_id

SelectedBy = Literal["thrum_name", "agent_id", "only_file", "pid", "worktree"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An identity file of the root, as far as the choice needs it."""

    name: str
    worktree: str = ""
    updated_at: float = 0.0
    """Seconds since 1970."""
    agent_pid: int = 0
    agent_pid_started: str = ""
    broken: str = ""
    """Why the file is no identity; empty if it is one."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The identity chosen, and the row of identity.md §6 that chose it."""

    agent_id: str
    rule: str
    selected_by: SelectedBy
    warnings: tuple[str, ...] = ()

    @property
    def explicit(self) -> bool:
        """Whether a variable named it."""
        return self.selected_by in ("thrum_name", "agent_id")


def select(
    candidates: Sequence[Candidate],
    chain: Sequence[Link],
    root: str,
    *,
    thrum_name: str | None = None,
    thrum_agent_id: str | None = None,
    proven_elsewhere: str | None = None,
    known_roots: Mapping[str, str] | None = None,
) -> Selection:
    """Phase 1: the first row of the table that applies.

    `root` is the absolute root of the files; `proven_elsewhere` the agent of another root that the chain proves;
    `known_roots` tells where other agents live, for the remedy. Raises InvalidName, IdentityEnvConflict,
    IdentityNotFound, IdentityInvalid, NoIdentity or SeveralIdentities, with `rule` in the details.
    """
    wanted = _wanted("THRUM_NAME", thrum_name)
    pinned = _wanted("THRUM_AGENT_ID", thrum_agent_id)
    if wanted and pinned and wanted.canonical != pinned.canonical:
        raise IdentityEnvConflict(f"THRUM_NAME={thrum_name} but THRUM_AGENT_ID={thrum_agent_id}", rule="P1")
    if wanted and thrum_name:
        return _by_name(thrum_name, wanted.canonical, candidates, known_roots or {})
    if pinned and thrum_agent_id:
        agent_id = thrum_agent_id if pinned.kind == "unnamed" and _has(thrum_agent_id, candidates) else pinned.canonical
        return Selection(agent_id, "P4", "agent_id")
    if not candidates:
        if proven_elsewhere:
            return Selection(proven_elsewhere, "P5", "pid")
        remedy = f"{NoIdentity.default_remedy}; a person: thrum quickstart YOURNAME --role developer --module all"
        raise NoIdentity("no agent identities registered in this worktree", remedy=remedy, rule="P6")
    sound = [candidate for candidate in candidates if not candidate.broken]
    if not sound:
        raise _invalid(candidates[0], "P7")
    warnings = tuple(f"skipped: {_invalid(each, 'P7').message}" for each in candidates if each.broken)
    if len(sound) == 1:
        return Selection(sound[0].name, "P7", "only_file", warnings)
    return _among_several(sound, chain, root, warnings)


def _wanted(variable: str, text: str | None) -> ParsedAgent | None:
    if not text:
        return None
    parsed = parse_agent_id(text)
    if not parsed.is_local_agent:
        shown = text if text.isprintable() else text.encode("unicode_escape").decode()
        message = f'{variable}: agent name "{shown}" has invalid characters: only a-z, 0-9 and _'
        raise InvalidName(message, remedy=f"correct or unset {variable}", cause="characters", rule="P1")
    return parsed


def _has(name: str, candidates: Sequence[Candidate]) -> bool:
    return any(candidate.name == name for candidate in candidates)


def _by_name(name: str, canonical: str, candidates: Sequence[Candidate], known_roots: Mapping[str, str]) -> Selection:
    # What is there under that very name comes first: a name may look like an unnamed id.
    for spelling in dict.fromkeys((name, canonical)):
        for candidate in candidates:
            if candidate.name == spelling:
                if candidate.broken:
                    raise _invalid(candidate, "P2")
                return Selection(candidate.name, "P2", "thrum_name")
    home = known_roots.get(name) or known_roots.get(canonical)
    remedy = f"{canonical} lives in {home}: cd there, or correct or unset THRUM_NAME" if home else None
    remedy = remedy or (
        f"correct or unset THRUM_NAME, or register it here: thrum quickstart {canonical} --role ROLE --module MODULE"
    )
    message = f"THRUM_NAME={name}, but .thrum/identities/{canonical}.json does not exist"
    raise IdentityNotFound(message, remedy=remedy, rule="P3")


def _invalid(candidate: Candidate, rule: str) -> ThrumError:
    message = f".thrum/identities/{candidate.name}.json is not a valid identity: {candidate.broken}"
    file = f".thrum/identities/{candidate.name}.json"
    remedy = f"fix it, or: rm {in_shell(file)}, then thrum quickstart NAME --role ROLE --module MODULE"
    return IdentityInvalid(message, remedy=remedy, rule=rule)


def _among_several(
    candidates: list[Candidate], chain: Sequence[Link], root: str, warnings: tuple[str, ...]
) -> Selection:
    for link in proving(chain):
        owners = [candidate for candidate in candidates if _owns(candidate, link)]
        if owners:
            chosen = _latest(owners, candidates)
            return Selection(chosen.name, "P8", "pid", warnings)
    name = os.path.basename(root)
    here = [candidate for candidate in candidates if candidate.worktree and candidate.worktree in (name, root)]
    if not here:
        raise _several(candidates)
    chosen = _latest(here, candidates)
    return Selection(chosen.name, "P9" if len(here) == 1 else "P10", "worktree", warnings)


def _owns(candidate: Candidate, link: Link) -> bool:
    return candidate.agent_pid == link.pid and same_process(
        candidate.agent_pid_started, candidate.updated_at, link, lambda: link.runtime is not None
    )


def _latest(some: list[Candidate], candidates: list[Candidate]) -> Candidate:
    latest = max(candidate.updated_at for candidate in some)
    chosen = [candidate for candidate in some if candidate.updated_at == latest]
    if len(chosen) > 1:
        raise _several(candidates)
    return chosen[0]


def _several(candidates: list[Candidate]) -> SeveralIdentities:
    names = sorted(candidate.name for candidate in candidates)
    return SeveralIdentities(
        f"multiple identity files found: cannot auto-select identity ({', '.join(names)})",
        remedy=f"export THRUM_NAME={names[0]}",
        candidates=names,
        rule="P11",
    )


# -- phase 2: the values

Source = Literal["flags", "environment", "identity_file"]


@dataclass(frozen=True, slots=True)
class Given:
    """Role, module and display as one source gives them; empty is not given."""

    role: str = ""
    module: str = ""
    display: str = ""


@dataclass(frozen=True, slots=True)
class Values:
    """What counts for this command alone; no file changes."""

    role: str
    module: str
    display: str
    source: Source
    """`flags` if one changed a value, else `environment` if a variable chose or changed anything (identity.md §10)."""


def resolve_values(flags: Given, environment: Given, file: Given, *, explicit: bool = False) -> Values:
    """Phase 2, for each value by itself: flag before variable before file.

    `explicit`: a variable chose the identity.
    """

    def over(upper: Given, lower: Given) -> Given:
        return Given(upper.role or lower.role, upper.module or lower.module, upper.display or lower.display)

    without_flags = over(environment, file)
    result = over(flags, without_flags)
    source: Source = "identity_file"
    if result != without_flags:
        source = "flags"
    elif explicit or without_flags != file:
        source = "environment"
    return Values(result.role, result.module, result.display, source)


def wanted_name(
    thrum_name: str | None, flag: str | None = None, positional: str | None = None, file: str | None = None
) -> tuple[str, str]:
    """The name to register, and a warning or an empty text.

    THRUM_NAME goes before --name, that before the argument, that before the file; none of them: unnamed, empty.
    """
    given = flag or positional
    if thrum_name:
        warning = f"THRUM_NAME={thrum_name} overrides the name {given}" if given and given != thrum_name else ""
        return thrum_name, warning
    return given or file or "", ""
