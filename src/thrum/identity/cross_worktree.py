"""The guard `cross_worktree`: may a caller use an identity? One judgement for both callers. Pure.

The command line asks before it sends anything (`cli.guard_check`), with what it sees of the processes itself; the
daemon asks for every call (`identity.caller`) and before it records a process (`ops.pid_binding`, `ops.quickstart`),
with the kernel's evidence and its records. Source: identity.md §12.
"""

from __future__ import annotations

from dataclasses import dataclass

from thrum.identity.processes import OwnerState
from thrum.model.guards import Mode, Refusal, Variant


@dataclass(frozen=True, slots=True)
class Passed:
    """A guard that let pass. `adopt`: try to record the caller's binding pid (identity.md §7)."""

    adopt: bool = False


def cross_worktree(
    selected: str,
    *,
    explicit: bool,
    owner: str | None,
    state: OwnerState,
    runtime: bool,
    same_root: bool,
    reclaim: Mode = "warn",
    expected_pid: int = 0,
) -> Passed | Refusal:
    """Whether a caller may use the identity `selected`.

    `owner` is the agent that the caller's processes prove, `state` the owner state of `selected` seen from it,
    `runtime` whether its chain has one, `same_root` whether both agents have one root, `explicit` whether a variable
    named `selected`, `reclaim` the mode of `dead_pid_auto_reclaim`.
    """
    if owner == selected or (owner is None and state == "chain"):
        return Passed()

    def fired(variant: Variant, detected: str = "") -> Refusal:
        pid = expected_pid if state != "none" else 0
        return Refusal("cross_worktree", "pid_mismatch", variant, selected, detected, pid)

    if owner is not None:
        return Passed() if explicit and same_root and state != "elsewhere" else fired("owner", owner)
    if state == "elsewhere":
        if runtime:
            return fired("runtime")
        return Passed() if explicit else fired("shell")
    if not runtime:
        return Passed()
    if state == "dead" and reclaim == "off":
        return fired("dead")
    return Passed(adopt=True)


def may_not_adopt(agent_id: str, state: OwnerState, pid: int, reclaim: Mode = "warn") -> Refusal | None:
    """The same for a runtime without an identity that is to be recorded as `agent_id`, in that agent's root: why not.

    `pid` is the process recorded now.
    """
    judged = cross_worktree(
        agent_id,
        explicit=False,
        owner=None,
        state=state,
        runtime=True,
        same_root=True,
        reclaim=reclaim,
        expected_pid=pid,
    )
    return judged if isinstance(judged, Refusal) else None
