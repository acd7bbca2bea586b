"""The guard `cross_worktree`: before a command uses an identity, is it the caller's to use? Source: identity.md §12.

An act is refused with nothing written; a look runs, with a warning, and marks nothing. The daemon's own refusals do
not depend on the mode (identity.md §11): this check only saves the round trip, and gives a better message.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final, NamedTuple

from thrum.cli.acting import Chosen
from thrum.cli.parser import Use
from thrum.cli.session import CallerProbe, Session
from thrum.identity.cross_worktree import cross_worktree
from thrum.identity.guard_modes import LiveSettings, fire, fire_line
from thrum.model.errors import ThrumError
from thrum.model.guards import Refusal, refusal_fields
from thrum.model.paths import Layout


class Judged(NamedTuple):
    """What came of it: a line to print, and whom the daemon will see instead of the chosen one."""

    warning: str = ""
    fired: bool = False
    claimed: bool = True
    """Whether calls may still name the chosen identity."""
    reader: str = ""
    """The agent that the caller's processes prove, when that is another one."""


NOTHING: Final = Judged()


def may_use(session: Session, layout: Layout, chosen: Chosen, use: Use, command: str) -> Judged:
    """Whether the caller may use the identity chosen. Raises CrossWorktree for an act that the mode forbids.

    Where the kernel gives no answer nothing is said here: the daemon fails closed.
    """
    caller_probe = None if use == "unguarded" else session.caller_probe(layout)
    if caller_probe is None:
        return NOTHING
    refusal = _refusal(caller_probe, layout, chosen, use)
    if refusal is None:
        return Judged(claimed=False) if use == "prime" and _is_stray(caller_probe, chosen) else NOTHING
    modes = LiveSettings(layout).modes()
    mode = modes["cross_worktree"]
    if mode == "off":
        return NOTHING
    other = refusal.variant == "owner" and bool(refusal.detected)
    if use != "look":
        warning = fire(
            refusal,
            modes,
            caller_pid=caller_probe.pid,
            caller_cwd=session.cwd,
            method=command,
            record=caller_probe.record,
        )
        return Judged(warning, fired=True)
    fields = refusal_fields(refusal, caller_pid=caller_probe.pid, caller_cwd=session.cwd, mode=mode, method=command)
    caller_probe.record("allowed", fields)
    # In warn a claim for an agent that lives elsewhere is let pass; one for another's, never.
    claimed = not other and (mode == "warn" or (refusal.variant == "shell" and _is_deliberate(caller_probe, chosen)))
    # A person at an agent's desk looks again and again, and has read it.
    said = refusal.variant == "shell" and not caller_probe.is_news(f"{refusal.guard} {refusal.expected}")
    return Judged("" if said else fire_line(refusal), fired=True, claimed=claimed, reader=refusal.detected)


def _is_stray(caller_probe: CallerProbe, chosen: Chosen) -> bool:
    """Whether a shell stands where an agent lives that runs elsewhere, and does not mean to be it: it may look."""
    with suppress(OSError):
        elsewhere = (
            caller_probe.owner() is None and caller_probe.state_of(chosen.agent_id, chosen.identity) == "elsewhere"
        )
        return elsewhere and not caller_probe.has_runtime() and not caller_probe.is_deliberate(chosen.agent_id)
    return False


def _is_deliberate(caller_probe: CallerProbe, chosen: Chosen) -> bool:
    """Whether the daemon will take a claim for an agent that runs elsewhere."""
    with suppress(OSError):
        return caller_probe.is_deliberate(chosen.agent_id)
    return False


def _refusal(caller_probe: CallerProbe, layout: Layout, chosen: Chosen, use: Use) -> Refusal | None:
    explicit = chosen.selected_by in ("thrum_name", "agent_id")
    with suppress(OSError, ThrumError):
        owner = caller_probe.owner()
        if use == "prime" and owner is None:
            return None
        agent_id, identity = chosen.agent_id, chosen.identity
        owner_id, owner_root = owner or (None, "")
        if owner_id == agent_id:
            return None
        state = caller_probe.state_of(agent_id, identity)
        # Only these rows ask for it, and to read every program of a chain takes a while.
        if owner_id is None and state == "elsewhere" and not caller_probe.has_runtime():
            explicit = explicit and caller_probe.is_deliberate(agent_id)
        dead = state == "dead" and LiveSettings(layout).modes()["dead_pid_auto_reclaim"] == "off"
        judged = cross_worktree(
            agent_id,
            explicit=explicit,
            owner=owner_id,
            state=state,
            runtime=owner_id is None and (state == "elsewhere" or dead) and caller_probe.has_runtime(),
            same_root=identity is not None and owner_root == str(layout.root),
            reclaim="off" if dead else "warn",
            expected_pid=identity.agent_pid if identity is not None else 0,
        )
        runtime = identity.runtime if identity is not None else ""
        return replace(judged, home=owner_root, runtime=runtime) if isinstance(judged, Refusal) else None
    return None
