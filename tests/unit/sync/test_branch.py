"""Which paths of the branch are journals."""

from __future__ import annotations

import pytest

from thrum.model.ids import file_stem
from thrum.sync.branch import JOURNAL_FILE

_ODD_IDS = (
    "",
    "%",
    ".",
    "..",
    "../x",
    "a/b",
    ".hidden",
    "-x",
    "Ärger",
    "x.y:z",
    "user:leon",
    "q" * 101,
    "%" * 60,
    "é" * 33,
)


@pytest.mark.parametrize("actor_id", ["nux", "coordinator_1B9K33T6RK", *_ODD_IDS])
def test_the_journal_of_every_actor_is_taken_from_the_branch(actor_id: str) -> None:
    assert JOURNAL_FILE.fullmatch(f"messages/{file_stem(actor_id)}.jsonl".encode())


@pytest.mark.parametrize(
    "name",
    [
        "messages/.x.jsonl",
        "messages/..jsonl",
        "messages/../x.jsonl",
        "messages/a/b.jsonl",
        "messages/a\n.jsonl",
        "messages/@a.jsonl",
        "messages/%2e.jsonl",
        "messages/%2.jsonl",
        "messages/%%.jsonl",
        "messages/.jsonl",
        "messages/" + "q" * 101 + ".jsonl",
        "messages/" + "%41" * 40 + ".jsonl",
        "messages/x.json",
        "events.jsonl.jsonl",
    ],
)
def test_no_other_name_is_taken_for_a_journal(name: str) -> None:
    assert not JOURNAL_FILE.fullmatch(name.encode())
