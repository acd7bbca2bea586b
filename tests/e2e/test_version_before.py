"""What the version before the house was rebuilt left on disk is opened, read with the same bytes, and gone on with.

`tests/data/version_before` is a repository as that version left it, and what its commands printed of it
(`tests/support/daemon/version_before_maker.py` makes both). Its tests go on with one repository, one after the other.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from tests.support.daemon.repo import Repo
from tests.support.daemon.version_before import (
    ACTS,
    DATA,
    NOT_ASKED,
    About,
    Asked,
    answers,
    come_to_rest,
    lay_out,
    reads,
    recorded,
)
from thrum.cli.table import ALL
from thrum.store import database
from thrum.store.schema import SCHEMA_VERSION

ON_PURPOSE = {
    "nux $ context show --session": "prints notes alone (CHANGELOG)",
    "nux $ who-has .": "takes a directory (CHANGELOG)",
    "nux $ purge accept": "the words of a refusal (glossary)",
    "nux $ sync accept": "the words of a refusal (glossary)",
    "nux $ verify": "what a purge took is no longer said to be waited for (CHANGELOG)",
    "nux $ inbox": "selects what it does without --json (0062)",
    "toast $ inbox": "the same",
}
"""What is answered differently since, and why."""


@pytest.fixture(scope="module")
def about() -> About:
    return About.read()


@pytest.fixture(scope="module")
def repo(about: About) -> Iterator[Repo]:
    laid_out = lay_out(about)
    try:
        yield laid_out
    finally:
        laid_out.close()


def columns(repo: Repo) -> dict[str, list[str]]:
    """The names of each table's columns, as `Repo.projection` has them."""
    with closing(database.connect(repo.var / "messages.db")) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        names = {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}
    kept = database.BOOKKEEPING_COLUMNS
    return {table: [name for name in some if (table, name) not in kept] for table, some in names.items()}


def assert_same(repo: Repo, about: About, commands: Sequence[Asked]) -> None:
    before = recorded()
    now = dict(answers(repo, about, commands))
    assert len(now) == len(commands)
    for title, answer in now.items():
        if title in ON_PURPOSE:
            assert answer != before[title], f"{title} is as it was: ON_PURPOSE need not name it"
        else:
            assert answer == before[title], title


def test_its_database_is_rebuilt_with_the_same_rows_also_where_its_daemon_was_killed(repo: Repo) -> None:
    with closing(database.connect(repo.var / "messages.db")) as db:
        assert database.get_meta(db, "schema_version") not in ("", str(SCHEMA_VERSION))
    left, before = repo.projection(), columns(repo)
    (repo.main / ".git/thrum-sync/daemon.lock").write_text(f"{2**22 + 1}\n")
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(repo.socket))
    remote = repo.top / "remote.git"
    away = remote.rename(repo.top / "away")  # nothing comes in meanwhile
    repo.thrum("daemon", "start")
    repo.thrum("daemon", "stop")
    away.rename(remote)
    opened = repo.projection()
    # The daemon tells others its project by its path too, and that is another one than where the data were made.
    assert {*left.pop("daemon_projects")} < {*opened["daemon_projects"]}
    assert len(left["messages"]) > 10
    now = columns(repo)
    for table, rows in left.items():
        kept = [
            now[table].index(name) for name in before[table]
        ]  # columns that came since are of nothing that it wrote
        assert sorted(tuple(row[at] for at in kept) for row in opened[table]) == sorted(rows), table


def test_every_command_that_reads_prints_the_same_bytes(repo: Repo, about: About) -> None:
    come_to_rest(repo)
    assert_same(repo, about, reads())


def test_every_command_that_only_looks_is_asked() -> None:
    asked = {asked.words for asked in (*reads(), *ACTS)}
    for command in ALL:
        words = " ".join(command.path)
        if command.use in ("look", "prime") or command.look_with or command.look_without:
            found = any(f"{each} ".startswith(f"{words} ") for each in asked)
            assert found != (words in NOT_ASKED), words


def test_who_goes_on_with_it_is_answered_with_the_same_bytes(repo: Repo, about: About) -> None:
    assert_same(repo, about, ACTS)


def test_it_goes_on_talking_with_other_clones_and_what_it_wrote_stands_as_it_wrote_it(repo: Repo) -> None:
    nux = repo.top / "nux"
    gamma = Repo(clone_of=repo.top / "remote.git")
    try:
        gamma.env["THRUM_HOSTNAME"] = "gamma"
        gamma.thrum("init", "--sync")
        gamma.agent("eye", at=gamma.main)
        gamma.thrum("send", "I am new here", "--to", "@nux")
        gamma.thrum("sync", "force")
        repo.thrum("sync", "force")
        (message,) = repo.json("inbox", at=nux)["messages"]
        assert message["body"]["content"] == "I am new here"
        repo.thrum("reply", message["message_id"], "Welcome", at=nux)
        repo.thrum("sync", "force")
        gamma.thrum("sync", "force")
        assert [each["body"]["content"] for each in gamma.json("inbox")["messages"]] == ["Welcome"]
    finally:
        gamma.close()
    for written in sorted((DATA / "tree/main/dot_git/thrum-sync/a-sync/messages").iterdir()):
        now = {*(repo.journals / "messages" / written.name).read_bytes().splitlines()}
        assert {*written.read_bytes().splitlines()} <= now, written.name


def test_row_for_row_it_is_what_a_rebuild_makes_of_it_also_after_a_purge(repo: Repo) -> None:
    repo.assert_projection_is_as_rebuilt()
    assert repo.json("sync", "force") and repo.json("verify")["ok"]
    repo.thrum("purge", "--all", "--yes", env={"THRUM_NAME": "furiosa"})
    repo.assert_projection_is_as_rebuilt()
    assert repo.json("sync", "force") and repo.json("verify")["ok"]
