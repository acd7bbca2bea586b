"""The guard `cross_worktree`: before a command uses an identity, is it the caller's to use? Source: identity.md §12.

An act is refused with nothing written; a look runs, with a warning, and leaves no mark. What the daemon refuses it
refuses in any mode (identity.md §11): this only spares the detour, and says it in better words.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from thrum.cli.acting import Chosen
from thrum.cli.parser import Use
from thrum.cli.session import Session, Witness
from thrum.identity.cross_worktree import cross_worktree
from thrum.identity.guard_modes import LiveSettings, fire, fire_line
from thrum.model.errors import ThrumError
from thrum.model.guards import Refusal, refusal_fields
from thrum.model.paths import Places


class Judged(NamedTuple):
    """What came of it: a line to print, and whom the daemon will see instead of the chosen one."""

    warning: str = ""
    fired: bool = False
    claimed: bool = True
    """Whether calls may still name the chosen identity."""
    reader: str = ""
    """The agent that the caller's processes prove, when that is another one."""


NOTHING: Final = Judged()


def judge(session: Session, places: Places, chosen: Chosen, use: Use, command: str) -> Judged:
    """Whether the caller may use the identity chosen. Raises CrossWorktree for an act that the mode forbids.

    Where the kernel gives no answer nothing is said here: the daemon fails closed.
    """
    witness = None if use == "never" else session.witness(places)
    if witness is None:
        return NOTHING
    refusal = _refusal(witness, places, chosen, use)
    if refusal is None:
        return Judged(claimed=False) if use == "prime" and _is_stray(witness, chosen) else NOTHING
    modes = LiveSettings(places).modes()
    mode = modes["cross_worktree"]
    if mode == "off":
        return NOTHING
    other = refusal.variant == "owner" and bool(refusal.detected)
    if use != "look":
        warning = fire(
            refusal,
            modes,
            caller_pid=witness.pid,
            caller_cwd=session.cwd,
            method=command,
            record=witness.record,
        )
        return Judged(warning, fired=True)
    fields = refusal_fields(refusal, caller_pid=witness.pid, caller_cwd=session.cwd, mode=mode, method=command)
    witness.record("allowed", fields)
    # In warn a claim for an agent that lives elsewhere is let pass; one for another's, never.
    claimed = not other and (mode == "warn" or (refusal.variant == "shell" and _is_meant(witness, chosen)))
    # A person at an agent's desk looks again and again, and has read it.
    said = refusal.variant == "shell" and not witness.is_news(f"{refusal.guard} {refusal.expected}")
    return Judged("" if said else fire_line(refusal), fired=True, claimed=claimed, reader=refusal.detected)


def _is_stray(witness: Witness, chosen: Chosen) -> bool:
    """Whether a shell stands where an agent lives that runs elsewhere, and does not mean to be it: it may look."""
    with suppress(OSError):
        elsewhere = witness.owner() is None and witness.state_of(chosen.agent_id, chosen.identity) == "elsewhere"
        return elsewhere and not witness.has_runtime() and not witness.is_meant(chosen.agent_id)
    return False


def _is_meant(witness: Witness, chosen: Chosen) -> bool:
    """Whether the daemon will take a claim for an agent that runs elsewhere."""
    with suppress(OSError):
        return witness.is_meant(chosen.agent_id)
    return False


def _refusal(witness: Witness, places: Places, chosen: Chosen, use: Use) -> Refusal | None:
    explicit = chosen.selected_by in ("thrum_name", "agent_id")
    with suppress(OSError, ThrumError):
        owner = witness.owner()
        if use == "prime" and owner is None:
            return None
        agent_id, identity = chosen.agent_id, chosen.identity
        owner_id, owner_root = owner or (None, "")
        if owner_id == agent_id:
            return None
        state = witness.state_of(agent_id, identity)
        # Only these rows ask for it, and to read every program of a chain takes a while.
        if owner_id is None and state == "elsewhere" and not witness.has_runtime():
            explicit = explicit and witness.is_meant(agent_id)
        dead = state == "dead" and LiveSettings(places).modes()["dead_pid_auto_reclaim"] == "off"
        judged = cross_worktree(
            agent_id,
            explicit=explicit,
            owner=owner_id,
            state=state,
            runtime=owner_id is None and (state == "elsewhere" or dead) and witness.has_runtime(),
            same_root=identity is not None and owner_root == str(places.root),
            reclaim="off" if dead else "warn",
            expected_pid=identity.agent_pid if identity is not None else 0,
        )
        runtime = identity.runtime if identity is not None else ""
        return replace(judged, home=owner_root, runtime=runtime) if isinstance(judged, Refusal) else None
    return None
