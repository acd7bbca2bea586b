"""The table of identity.md §8.1."""

from __future__ import annotations

from typing import Any

import pytest

from thrum.identity.registration import Existing, Verdict, judge_registration

HERE, THERE = "/w/here", "/w/there"


def existing(**change: Any) -> Existing:
    fields: dict[str, Any] = {
        "root": HERE, "root_has_file": True, "local": True, "state": "none", "same_fields": True
    }  # fmt: skip
    return Existing(**fields | change)


CONFLICT = {"writes_fact": False}
TABLE = [
    ("new", None, False, Verdict("registered"), Verdict("registered"), Verdict("registered")),
    (
        "new, same role and module as another",
        None,
        True,
        Verdict("conflict", "same_role_module", writes_fact=False),
        Verdict("registered", warns_of_rival=True),
        Verdict("registered", displaces_rival=True),
    ),
    ("again", existing(), False, Verdict("registered", writes_fact=False), Verdict("updated"), Verdict("updated")),
    (
        "again, its process dead",
        existing(state="dead"),
        True,
        Verdict("registered", writes_fact=False),
        Verdict("updated"),
        Verdict("updated"),
    ),
    ("changed", existing(same_fields=False, state="chain"), False, *[Verdict("updated")] * 3),
    (
        "held by a live process",
        existing(state="elsewhere"),
        False,
        Verdict("conflict", "name_held", writes_fact=False),
        Verdict("conflict", "name_held", writes_fact=False),
        Verdict("updated", retires_file=True, ends_session=True),
    ),
    (
        "of another root",
        existing(root=THERE),
        False,
        Verdict("conflict", "other_worktree", writes_fact=False),
        Verdict("conflict", "other_worktree", writes_fact=False),
        Verdict("updated", retires_file=True),
    ),
    ("of a root that is gone", existing(root=THERE, root_has_file=False), False, *[Verdict("updated")] * 3),
    (
        "of another daemon",
        existing(root="", local=False),
        False,
        Verdict("conflict", "other_daemon", writes_fact=False),
        Verdict("conflict", "other_daemon", writes_fact=False),
        Verdict("conflict", "other_daemon", writes_fact=False),
    ),
]


@pytest.mark.spec("ID-43", "ID-44", "ID-45", "ID-46", "ID-47", "ID-48")
@pytest.mark.parametrize(("about", "record", "rival", "plain", "again", "force"), TABLE, ids=[row[0] for row in TABLE])
def test_every_row_of_the_registration_table(
    about: str, record: Existing | None, rival: bool, plain: Verdict, again: Verdict, force: Verdict
) -> None:
    del about
    assert judge_registration(HERE, record, rival, re_register=False, force=False) == plain
    assert judge_registration(HERE, record, rival, re_register=True, force=False) == again
    assert judge_registration(HERE, record, rival, re_register=False, force=True) == force
