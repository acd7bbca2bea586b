"""What identity guards refuse, in which words, and with which remedy (identity.md §12). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from thrum.errors import (
    AnonymousCaller,
    CallerUnproved,
    CrossWorktree,
    DaemonWriterLiveness,
    ForeignUser,
    IdentityMismatch,
    NotARepository,
    PrimeOwnership,
    QuickstartNameCollision,
    QuickstartSelfRename,
    SeveralIdentities,
    ThrumError,
)
from thrum.identity.process import OwnerState
from thrum.settings import GUARD_MODES

Mode = Literal["strict", "warn", "off"]

CANNOT_TELL: Final = "  cannot tell who is calling:"
"""How the line of a refusal begins whose details are in no field of it."""

DEFAULT_MODES: Final[Mapping[str, Mode]] = GUARD_MODES
"""Every guard and its mode when nothing is configured."""

UNCONDITIONAL: Final = frozenset(
    {"identity_mismatch", "anonymous_mutating_rpc", "introspection_failed", "ambiguous_worktree", "foreign_uid"}
)
"""Reasons that no mode switches off."""

Variant = Literal["", "owner", "dead", "shell", "runtime", "worktree", "chain", "user", "nobody"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard that fired. `refusal_error` makes the error of it."""

    guard: str
    reason: str
    variant: Variant = ""
    """Which of the reason's remedies fits."""
    expected: str = ""
    detected: str = ""
    expected_pid: int = 0
    step: str = ""
    cause: str = ""
    """Why the step failed."""
    candidates: tuple[str, ...] = ()
    quickstart_helps: bool = False
    """The root holds an unbound identity file."""
    owner_uid: int = -1
    home: str = ""
    """Where the agent detected lives."""
    runtime: str = ""
    """The program that the agent expected is, as far as it is known."""

    @property
    def by_mode(self) -> bool:
        """Whether the guard's mode may let it pass."""
        return self.reason not in UNCONDITIONAL


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


_ERRORS: Final[Mapping[str, type[ThrumError]]] = {
    "pid_mismatch": CrossWorktree,
    "identity_mismatch": IdentityMismatch,
    "anonymous_mutating_rpc": AnonymousCaller,
    "no_caller_agent_id": AnonymousCaller,
    "ambiguous_worktree": SeveralIdentities,
    "introspection_failed": CallerUnproved,
    "foreign_uid": ForeignUser,
    "not_a_git_repo": NotARepository,
    "subject_pid_dead": DaemonWriterLiveness,
    "caller_not_topmost_runtime": PrimeOwnership,
    "caller_already_owns_identity": QuickstartSelfRename,
    "name_held_by_live_foreign_pid": QuickstartNameCollision,
}

_NEW_NAME: Final = "thrum quickstart NEWNAME --role ROLE --module MODULE"

_REMEDIES: Final[Mapping[str, str]] = {
    "no_caller_agent_id": "register first: user.register on this connection; CLI users: run 'thrum quickstart' to "
    "register an identity",
    "not_a_git_repo": "run from a git-anchored directory, or pass --force for ephemeral non-anchored use",
    "subject_pid_dead": "daemon refusing to write to dead agent's identity file; "
    "run 'thrum quickstart' in its worktree",
    "caller_not_topmost_runtime": "you appear to be running inside a sub-agent; "
    "the parent runtime owns this identity — run prime from the top-level runtime instead",
    "introspection_failed": "retry; if it stays, run from a process of the same user and pid namespace; "
    "thrum daemon logs",
}


def remedy_of(refusal: Refusal) -> str:
    """The words that mend a refusal, in the state in which it is printed (docs/decisions/0051)."""
    reason, expected, detected = refusal.reason, refusal.expected, refusal.detected
    alive = _alive(refusal)
    if reason == "pid_mismatch":
        return _of_pid_mismatch(refusal, alive)
    if reason == "name_held_by_live_foreign_pid":
        return f"{alive}; you are another: {_NEW_NAME}"
    if reason == "caller_not_topmost_runtime" and refusal.variant == "runtime":
        return f"{alive}; you are another: {_NEW_NAME}"
    if reason == "caller_already_owns_identity":
        keep = f"you are {detected}; to be called {expected} and keep your mail: thrum agent rename {expected}"
        return f"{keep}; --force sets {detected} aside and registers afresh"
    if reason == "identity_mismatch" and refusal.variant == "user":
        who = f'act as "{detected}", who registered on this connection' if detected else "register a user"
        return f"no agent can be claimed over this transport: drop the identity claim and {who}"
    if reason == "identity_mismatch" and refusal.variant == "nobody":
        return f'nothing here confirms that. cd into "{expected}"\'s worktree and retry, or drop the identity claim.'
    if reason == "identity_mismatch":
        drop = f'or drop the identity claim to act as "{detected}".'
        if refusal.variant == "chain":
            where = f'your process ancestor chain belongs to "{detected}".'
            return f'{where} retry from "{detected}"\'s worktree or tmux pane, {drop}'
        where = f'your current directory is inside "{detected}"\'s worktree.'
        return f'{where} cd into "{expected}"\'s worktree and retry, {drop}'
    if reason == "anonymous_mutating_rpc":
        quickstart = " or run 'thrum quickstart' here" if refusal.quickstart_helps else ""
        return f"cd into a registered agent worktree and retry;{quickstart}".removesuffix(";")
    if reason == "ambiguous_worktree":
        return f"several agents live here: {', '.join(refusal.candidates)}; set THRUM_NAME"
    if reason == "foreign_uid":
        owner = f"the daemon belongs to uid {refusal.owner_uid}; " if refusal.owner_uid >= 0 else ""
        return f"{owner}run thrum as that user"
    return _REMEDIES[reason]


def _alive(refusal: Refusal) -> str:
    """`@ua is claude, pid 12705, alive in this worktree`."""
    runtime = f"{refusal.runtime}, " if refusal.runtime else ""
    pid = f"pid {refusal.expected_pid}, " if refusal.expected_pid else ""
    return f"@{refusal.expected} is {runtime}{pid}alive in this worktree"


def _of_pid_mismatch(refusal: Refusal, alive: str) -> str:
    expected, detected = refusal.expected, refusal.detected
    match refusal.variant:
        case "shell":
            how = f"set THRUM_NAME={expected} to act as it on purpose"
            return f"{alive}; {how}, or register yourself: thrum quickstart NAME --role ROLE --module MODULE"
        case "runtime":
            return f"{alive}; you are another: {_NEW_NAME}"
        case "dead":
            return f"the process of {expected} is gone, and dead_pid_auto_reclaim is off: thrum quickstart {expected}"
        case _:
            home = f" ({refusal.home})" if refusal.home else ""
            return f"you are {detected}: cd to its worktree{home}, or unset THRUM_NAME where that is set"


def refusal_error(
    refusal: Refusal, *, caller_pid: int = 0, caller_cwd: str = "", mode: Mode = "strict", method: str = ""
) -> ThrumError:
    """The error of a refusal: its `str` is the whole block, the message the block without the remedy.

    The kind is that of cli.md §6; all known fields are in the details.
    """
    fields = refusal_fields(refusal, caller_pid=caller_pid, caller_cwd=caller_cwd, mode=mode, method=method)
    message = f'identity guard "{refusal.guard}" fired: {refusal.reason}'
    for label in ("expected_agent", "detected_agent", "expected_pid", "caller_pid", "caller_cwd"):
        if label in fields:
            message += f"\n  {label.replace('_', ' ')}: {fields[label]}"
    if refusal.reason == "introspection_failed":
        cause = f" ({refusal.cause})" if refusal.cause else ""
        message += f"\n{CANNOT_TELL} step {refusal.step} failed for pid {caller_pid}{cause}"
    remedy = remedy_of(refusal)
    error = _ERRORS[refusal.reason](message, remedy=remedy, **fields)
    error.args = (f"{message}\n  remediation: {remedy}",)
    return error


def refusal_fields(
    refusal: Refusal, *, caller_pid: int = 0, caller_cwd: str = "", mode: Mode = "strict", method: str = ""
) -> dict[str, Any]:
    """The known fields of a refusal, for the error's details and the log record `identity_guard_fire`."""
    fields: dict[str, Any] = {
        "guard": refusal.guard,
        "reason": refusal.reason,
        "mode": mode,
        "expected_agent": refusal.expected,
        "detected_agent": refusal.detected,
        "expected_pid": refusal.expected_pid,
        "caller_pid": caller_pid,
        "caller_cwd": caller_cwd,
        "step": refusal.step,
        "method": method,
        "candidates": list(refusal.candidates),
    }
    return {key: value for key, value in fields.items() if value}


def guard_modes(
    daemon_file: Mapping[str, Any] | None, repository: Mapping[str, Any] | None
) -> tuple[dict[str, Mode], list[str]]:
    """The mode of every guard, and warnings: the daemon's file goes before the configuration, that before the default.

    Both are the decoded objects; the first may hold the keys bare or under `identity_guard`, the second is that object
    of `config.json`. What is malformed counts as missing, never as laxer.
    """
    modes: dict[str, Mode] = dict(DEFAULT_MODES)
    warnings: list[str] = []
    inner = (daemon_file or {}).get("identity_guard", daemon_file)
    layers: Sequence[tuple[str, Any]] = (("config.json", repository), ("guard-daemon.json", inner))
    for name, layer in layers:
        if layer is None:
            continue
        if not isinstance(layer, Mapping):
            warnings.append(f"{name}: identity_guard is not an object")
            continue
        for key, value in layer.items():  # pyright: ignore[reportUnknownVariableType]
            if key not in DEFAULT_MODES:
                warnings.append(f'{name}: unknown guard "{key}"')
            elif value not in ("strict", "warn", "off"):
                warnings.append(f"{name}: {key} must be strict, warn or off")
            else:
                modes[str(key)] = value  # pyright: ignore[reportUnknownArgumentType]
    return modes, warnings
