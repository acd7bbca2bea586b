"""What guards refuse, and in which words."""

from __future__ import annotations

import pytest

from thrum.model.guards import Refusal, refusal_error


@pytest.mark.spec("ID-72")
def test_the_message_is_the_fixed_block_and_the_details_carry_the_same() -> None:
    refusal = Refusal("cross_worktree", "pid_mismatch", "owner", "furiosa", "coord_main", 98412)
    error = refusal_error(refusal, caller_pid=12050, caller_cwd="/src/app-auth", method="message.send")
    assert str(error) == (
        'identity guard "cross_worktree" fired: pid_mismatch\n'
        "  expected agent: furiosa\n"
        "  detected agent: coord_main\n"
        "  expected pid: 98412\n"
        "  caller pid: 12050\n"
        "  caller cwd: /src/app-auth\n"
        "  remediation: you are coord_main: cd to its worktree, or unset THRUM_NAME where that is set"
    )
    assert error.message == str(error).rpartition("\n")[0]
    assert error.kind == "cross_worktree"
    assert error.details == {
        "guard": "cross_worktree",
        "reason": "pid_mismatch",
        "mode": "strict",
        "expected_agent": "furiosa",
        "detected_agent": "coord_main",
        "expected_pid": 98412,
        "caller_pid": 12050,
        "caller_cwd": "/src/app-auth",
        "method": "message.send",
    }


@pytest.mark.parametrize(
    ("refusal", "kind", "remedy"),
    [
        (
            Refusal("cross_worktree", "pid_mismatch", "shell", "max", expected_pid=7),
            "cross_worktree",
            "@max is pid 7, alive in this worktree; set THRUM_NAME=max to act as it on purpose, or register yourself: "
            "thrum quickstart NAME --role ROLE --module MODULE",
        ),
        (
            Refusal("cross_worktree", "pid_mismatch", "runtime", "max", expected_pid=7, runtime="claude"),
            "cross_worktree",
            "@max is claude, pid 7, alive in this worktree; you are another: "
            "thrum quickstart NEWNAME --role ROLE --module MODULE",
        ),
        (
            Refusal("unauthenticated_rpc", "identity_mismatch", "worktree", "max", "nux"),
            "identity_mismatch",
            'your current directory is inside "nux"\'s worktree. cd into "max"\'s worktree and retry, '
            'or drop the identity claim to act as "nux".',
        ),
        (
            Refusal("unauthenticated_rpc", "identity_mismatch", "chain", "max", "nux"),
            "identity_mismatch",
            'your process ancestor chain belongs to "nux". retry from "nux"\'s worktree or tmux pane, '
            'or drop the identity claim to act as "nux".',
        ),
        (
            Refusal("unauthenticated_rpc", "anonymous_mutating_rpc"),
            "anonymous_caller",
            "cd into a registered agent worktree and retry",
        ),
        (
            Refusal("unauthenticated_rpc", "anonymous_mutating_rpc", quickstart_helps=True),
            "anonymous_caller",
            "cd into a registered agent worktree and retry; or run 'thrum quickstart' here",
        ),
        (
            Refusal("unauthenticated_rpc", "ambiguous_worktree", candidates=("a", "b")),
            "several_identities",
            "several agents live here: a, b; set THRUM_NAME",
        ),
        (
            Refusal("unauthenticated_rpc", "foreign_uid", owner_uid=501),
            "foreign_user",
            "the daemon belongs to uid 501; run thrum as that user",
        ),
    ],
)
def test_every_reason_has_its_kind_and_its_remedy(refusal: Refusal, kind: str, remedy: str) -> None:
    error = refusal_error(refusal)
    assert (error.kind, error.remedy) == (kind, remedy)
    assert str(error).endswith(f"\n  remediation: {remedy}")


@pytest.mark.parametrize(
    ("guard", "reason", "kind"),
    [
        ("unauthenticated_rpc", "no_caller_agent_id", "anonymous_caller"),
        ("unauthenticated_rpc", "introspection_failed", "caller_unproved"),
        ("non_git_bootstrap", "not_a_git_repo", "not_a_repository"),
        ("daemon_writer_liveness", "subject_pid_dead", "daemon_writer_liveness"),
        ("prime_ownership", "caller_not_topmost_runtime", "prime_ownership"),
        ("quickstart_self_rename", "caller_already_owns_identity", "quickstart_self_rename"),
        ("quickstart_name_collision", "name_held_by_live_foreign_pid", "quickstart_name_collision"),
    ],
)
def test_every_guard_has_an_error(guard: str, reason: str, kind: str) -> None:
    error = refusal_error(Refusal(guard, reason))
    assert (error.kind, error.details["guard"]) == (kind, guard)
    assert error.remedy


@pytest.mark.spec("ID-64")
def test_a_failed_step_is_named_with_pid_and_cause() -> None:
    refusal = Refusal("unauthenticated_rpc", "introspection_failed", step="cwd", cause="permission denied")
    error = refusal_error(refusal, caller_pid=4711)
    assert "cannot tell who is calling: step cwd failed for pid 4711 (permission denied)" in str(error)
    assert error.details["step"] == "cwd"
