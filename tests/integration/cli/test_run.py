"""Commands that look at a file or write one, against a daemon that only remembers what it was asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli.fake_daemon import (
    QUICK,
    FakeDaemon,
    always,
    conflict,
    go,
    make_root,
    registering,
    sent,
)
from thrum.model.methods.agents import RegisterResult


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_root(tmp_path)


async def test_a_file_is_the_body(repository: Path) -> None:
    (repository / "note.md").write_text("from a file\n")
    daemon = FakeDaemon(always(sent(quiet=True)))
    await go(daemon, repository, "send", "--file", "note.md", local=True)
    assert daemon.asked("message.send")[0]["content"] == "from a file"


async def test_quickstart_registers_starts_and_sets_the_intent(repository: Path) -> None:
    daemon = registering(RegisterResult(agent_id="max", status="registered"))
    status, out, _ = await go(daemon, repository, *QUICK)
    assert status == 0
    assert out == "✓ Registered as @max (tester, auth)\n✓ Session started: ses_1\n✓ Intent set: T\n"
    assert [name for name, _ in daemon.calls] == ["agent.register", "session.start", "session.setIntent"]
    assert [params["client_key"] for _, params in daemon.calls] == ["KEY.1", "KEY.2", "KEY.3"]


async def test_quickstart_meets_a_conflict_by_saying_that_it_is_back(repository: Path) -> None:
    daemon = registering(conflict("same_role_module"), RegisterResult(agent_id="max", status="registered"))
    assert (await go(daemon, repository, *QUICK))[0] == 0
    assert [each.get("re_register", False) for each in daemon.asked("agent.register")] == [False, True]


@pytest.mark.parametrize(
    ("file", "kind"), [("none.md", "file_not_found"), (".", "file_unreadable"), ("big", "file_too_large")]
)
async def test_a_file_that_is_no_body_is_refused_before_the_daemon_hears_of_it(
    repository: Path, file: str, kind: str
) -> None:
    (repository / "big").write_bytes(b"x" * 1_048_578)
    daemon = FakeDaemon(always(None))
    status, out, err = await go(daemon, repository, "send", "--body-file", file, "--json", local=True)
    error = json.loads(out)["error"]
    assert (status, error["kind"], err, daemon.calls) == (1, kind, "", [])
    assert error["remedy"]
