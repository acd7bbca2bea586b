"""What `thrum verify --repair` repairs, and how to fix the rest (cli.md 3.16). Pure."""

from __future__ import annotations

from typing import Final

from thrum.model.errors import in_shell
from thrum.model.methods.admin import VerifyCheck, VerifyDifference, VerifyResult

FIXABLE: Final = ("torn", "shorter", "changed", "bad_line", "two_contents")
"""What reopening the store cuts off, quarantines or takes as it is; the rest stays: no whole line is rewritten."""


def is_fixable(found: VerifyResult) -> bool:
    """Whether a repair would change anything: a projection that differs, a truncated last line, a line for the
    quarantine.
    """
    for check in found.checks:
        if not check.ok and check.name == "database":
            return True
        if check.name == "journal" and any(kind_of(each) in FIXABLE for each in check.differences):
            return True
    return False


def as_fixed(found: VerifyResult) -> VerifyResult:
    """What will be true once the daemon has reopened its store: it cuts, quarantines and rebuilds as it does so."""
    checks: list[VerifyCheck] = []
    for check in found.checks:
        left = tuple(each for each in check.differences if kind_of(each) not in FIXABLE)
        ok = check.ok or check.name == "database" or (check.name == "journal" and not left)
        differences = () if check.name == "database" else left
        detail = check.detail if check.ok or not ok else f"fixed: {check.detail}"
        checks.append(VerifyCheck(name=check.name, ok=ok, detail=detail, differences=differences))
    found.checks = tuple(checks)
    found.ok = all(check.ok for check in checks)
    return as_repaired(found)


def as_repaired(found: VerifyResult) -> VerifyResult:
    found.repaired = True
    found.remedy = remedy_of(found)
    return found


def kind_of(difference: VerifyDifference) -> str:
    """The word that the reason of a journal's difference begins with."""
    return difference.reason.partition(":")[0]


def remedy_of(found: VerifyResult) -> str:
    """What fixes the first thing that is wrong; `""` if all agrees."""
    failing = {check.name: check.differences for check in found.checks if not check.ok}
    if not failing:
        return ""
    if not found.repaired and is_fixable(found):
        return "thrum verify --repair"
    if "branch" in failing:
        unreadable = any(each.reason for each in failing["branch"])
        return "git fsck" if unreadable else "thrum sync force --wait; thrum verify"
    if "identities" in failing:
        return _identity_remedy(failing["identities"][0])
    if any(each.ids for each in failing.get("signatures", ())):
        return (
            "nothing to do here: the smaller line counts everywhere; tell the owner of that daemon that its key is used"
            " elsewhere"
        )
    kinds = {kind_of(each) for each in failing.get("journal", ())}
    if "waits" in kinds:
        return "thrum sync force --wait"
    if kinds and kinds <= {"wrong_file", "future"}:
        return "nothing to do: facts in another file count all the same, facts ahead of the clock wait"
    return "thrum daemon restart; thrum verify"


def _identity_remedy(difference: VerifyDifference) -> str:
    if not difference.ids or "is registered in" in difference.reason:
        return f"rm {in_shell(difference.file)}"
    return f"thrum quickstart {difference.ids[0]} --role ROLE --module MODULE, in its worktree"
