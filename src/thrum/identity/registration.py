"""May this agent register here, and what follows from it? The table of identity.md §8.1. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thrum.identity.processes import OwnerState

Status = Literal["registered", "updated", "conflict"]
Reason = Literal["", "same_role_module", "name_held", "other_worktree", "other_daemon"]


@dataclass(frozen=True, slots=True)
class Existing:
    """The record with the wanted id, as it stands."""

    root: str
    """Absolute root it is bound to; empty when it has no place on this machine."""
    root_has_file: bool
    """That root is still there and holds its identity file."""
    local: bool
    """Registered with this daemon, or placed here."""
    state: OwnerState
    same_fields: bool
    """Role, module and display are the ones wanted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a registration does."""

    status: Status
    reason: Reason = ""
    writes_fact: bool = True
    displaces_rival: bool = False
    retires_file: bool = False
    """The existing identity file is moved away: another live process or another root had it."""
    ends_session: bool = False
    warns_of_rival: bool = False


def judge_registration(
    root: str, existing: Existing | None, has_rival: bool, *, re_register: bool, force: bool
) -> Verdict:
    """The row that applies. `has_rival`: another local agent has the same role and module."""
    if existing is None:
        if not has_rival or force:
            return Verdict("registered", displaces_rival=has_rival)
        if re_register:
            return Verdict("registered", warns_of_rival=True)
        return Verdict("conflict", "same_role_module", writes_fact=False)
    if not existing.local:
        # A name is not taken over from another machine: it is free once that one is gone, or its agent hidden here.
        return Verdict("conflict", "other_daemon", writes_fact=False)
    if existing.state == "elsewhere":
        if force:
            return Verdict("updated", retires_file=True, ends_session=True)
        return Verdict("conflict", "name_held", writes_fact=False)
    if existing.root and existing.root != root:
        if not existing.root_has_file:
            return Verdict("updated")
        if force:
            return Verdict("updated", retires_file=True)
        return Verdict("conflict", "other_worktree", writes_fact=False)
    if existing.same_fields and not re_register and not force:
        return Verdict("registered", writes_fact=False)
    return Verdict("updated")
