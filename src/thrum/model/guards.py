"""The guards: a row each, with what its reasons refuse, in which words, and with which remedy (identity.md §12). Pure.

Settings (`identity_guard.NAME`), modes, errors and log know a guard by its row; a new guard only needs its check, which
makes a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from thrum.model.errors import (
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

Mode = Literal["strict", "warn", "off"]

CANNOT_TELL: Final = "  cannot tell who is calling:"
"""How the line of a refusal begins whose details are in no field of it."""

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
        return _reason_of(self).by_mode


# -- remedies


_NEW_NAME: Final = "thrum quickstart NEWNAME --role ROLE --module MODULE"


def _alive(refusal: Refusal) -> str:
    """`@ua is claude, pid 12705, alive in this worktree`."""
    runtime = f"{refusal.runtime}, " if refusal.runtime else ""
    pid = f"pid {refusal.expected_pid}, " if refusal.expected_pid else ""
    return f"@{refusal.expected} is {runtime}{pid}alive in this worktree"


def _of_pid_mismatch(refusal: Refusal) -> str:
    expected, detected, alive = refusal.expected, refusal.detected, _alive(refusal)
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


def _of_identity_mismatch(refusal: Refusal) -> str:
    expected, detected = refusal.expected, refusal.detected
    drop = f'or drop the identity claim to act as "{detected}".'
    match refusal.variant:
        case "user":
            who = f'act as "{detected}", who registered on this connection' if detected else "register a user"
            return f"no agent can be claimed over this transport: drop the identity claim and {who}"
        case "nobody":
            return (
                f'nothing here confirms that. cd into "{expected}"\'s worktree and retry, or drop the identity claim.'
            )
        case "chain":
            where = f'your process ancestor chain belongs to "{detected}".'
            return f'{where} retry from "{detected}"\'s worktree or tmux pane, {drop}'
        case _:
            where = f'your current directory is inside "{detected}"\'s worktree.'
            return f'{where} cd into "{expected}"\'s worktree and retry, {drop}'


def _of_anonymous(refusal: Refusal) -> str:
    quickstart = " or run 'thrum quickstart' here" if refusal.quickstart_helps else ""
    return f"cd into a registered agent worktree and retry;{quickstart}".removesuffix(";")


def _of_several(refusal: Refusal) -> str:
    return f"several agents live here: {', '.join(refusal.candidates)}; set THRUM_NAME"


def _of_foreign_uid(refusal: Refusal) -> str:
    owner = f"the daemon belongs to uid {refusal.owner_uid}; " if refusal.owner_uid >= 0 else ""
    return f"{owner}run thrum as that user"


def _of_second_prime(refusal: Refusal) -> str:
    if refusal.variant == "runtime":
        return _of_taken_name(refusal)
    return (
        "you appear to be running inside a sub-agent; "
        "the parent runtime owns this identity — run prime from the top-level runtime instead"
    )


def _of_self_rename(refusal: Refusal) -> str:
    expected, detected = refusal.expected, refusal.detected
    keep = f"you are {detected}; to be called {expected} and keep your mail: thrum agent rename {expected}"
    return f"{keep}; --force moves {detected} away and registers afresh"


def _of_taken_name(refusal: Refusal) -> str:
    return f"{_alive(refusal)}; you are another: {_NEW_NAME}"


# -- the table


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason to refuse."""

    error: type[ThrumError]
    """Its kind is that of cli.md §6."""
    remedy: str | Callable[[Refusal], str]
    """The words that fix it, in the state in which they are printed (docs/decisions/0051)."""
    by_mode: bool = True
    """Whether the guard's mode may let it pass."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard. Without reasons it refuses nothing, and its mode says how what it saw is logged."""

    mode: Mode
    """When nothing is configured."""
    about: str
    """What it looks at, in a few words for people."""
    reasons: Mapping[str, Reason] = field(default_factory=dict[str, Reason])


GUARDS: Final[Mapping[str, Guard]] = {
    "cross_worktree": Guard(
        "strict",
        "a command in the name of another worktree's agent",
        {"pid_mismatch": Reason(CrossWorktree, _of_pid_mismatch)},
    ),
    "unauthenticated_rpc": Guard(
        "strict",
        "a caller that is not the agent it claims to be",
        {
            "identity_mismatch": Reason(IdentityMismatch, _of_identity_mismatch, by_mode=False),
            "anonymous_mutating_rpc": Reason(AnonymousCaller, _of_anonymous, by_mode=False),
            "introspection_failed": Reason(
                CallerUnproved,
                "retry; if it stays, run from a process of the same user and pid namespace; thrum daemon logs",
                by_mode=False,
            ),
            "ambiguous_worktree": Reason(SeveralIdentities, _of_several, by_mode=False),
            "foreign_uid": Reason(ForeignUser, _of_foreign_uid, by_mode=False),
            "no_caller_agent_id": Reason(
                AnonymousCaller,
                "register first: user.register on this connection; CLI users: run 'thrum quickstart' to "
                "register an identity",
            ),
        },
    ),
    "non_git_bootstrap": Guard(
        "strict",
        "init or a daemon outside git",
        {
            "not_a_git_repo": Reason(
                NotARepository,
                "run from a git-anchored directory, or pass --force for ephemeral non-anchored use",
            )
        },
    ),
    "daemon_writer_liveness": Guard(
        "strict",
        "a write to the identity file of a dead agent",
        {
            "subject_pid_dead": Reason(
                DaemonWriterLiveness,
                "daemon refusing to write to dead agent's identity file; run 'thrum quickstart' in its worktree",
            )
        },
    ),
    "prime_ownership": Guard(
        "strict",
        "prime below another agent's runtime",
        {"caller_not_topmost_runtime": Reason(PrimeOwnership, _of_second_prime)},
    ),
    "quickstart_self_rename": Guard(
        "strict",
        "quickstart under a name other than one's own",
        {"caller_already_owns_identity": Reason(QuickstartSelfRename, _of_self_rename)},
    ),
    "quickstart_name_collision": Guard(
        "strict",
        "quickstart under the name of a live agent",
        {"name_held_by_live_foreign_pid": Reason(QuickstartNameCollision, _of_taken_name)},
    ),
    "dead_pid_auto_reclaim": Guard("warn", "taking over the identity of a dead agent"),
}
"""Every guard."""

DEFAULT_MODES: Final[Mapping[str, Mode]] = {name: guard.mode for name, guard in GUARDS.items()}
"""Every guard and its mode when nothing is configured."""


# -- what a refusal becomes


def remedy_of(refusal: Refusal) -> str:
    """The words that fix a refusal, in the state in which it is printed (docs/decisions/0051)."""
    remedy = _reason_of(refusal).remedy
    return remedy if isinstance(remedy, str) else remedy(refusal)


def _reason_of(refusal: Refusal) -> Reason:
    return GUARDS[refusal.guard].reasons[refusal.reason]


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
    error = _reason_of(refusal).error(message, remedy=remedy, **fields)
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
