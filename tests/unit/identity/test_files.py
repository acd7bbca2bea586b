"""Identity files: reading every version, writing whole or not at all, retiring, and the one writer of the pid."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import thrum
from thrum.identity.files import (
    Identity,
    Pid,
    identity_path,
    list_identities,
    read_identity,
    retire_identity,
    update_identity,
    write_pid,
)
from thrum.identity.processes import Process
from thrum.model.errors import IdentityInvalid, IdentityNotFound, ThrumError
from thrum.model.ids import agent_id_of

NOW = 1_770_141_730_000
NOW_TEXT = "2026-02-03T18:02:10.000Z"

FULL: dict[str, Any] = {
    "version": 5,
    "repo_id": "r_7K2Q1X9M3P0B",
    "agent": {
        "kind": "agent",
        "name": "furiosa",
        "role": "implementer",
        "module": "auth",
        "display": "Auth Implementer",
        "pronouns": "she",
    },
    "worktree": "auth",
    "branch": "feature/auth",
    "intent": "Fixing töken refresh",
    "session_id": "ses_01HXE8Z7R9K3Q6M2W8F4VYABCD",
    "agent_pid": 12345,
    "agent_pid_started": "boot/9",
    "preferred_runtime": "claude",
    "runtime": "claude",
    "tmux_session": "implementer-auth:0.0",
    "agent_status": "working",
    "agent_status_updated_at": "2026-02-03T18:05:00.000Z",
    "confirmed_by": "human:leon",
    "context_file": "context/furiosa.md",
    "reserved": True,
    "updated_at": "2026-02-03T18:00:00.000Z",
    "zeta": {"b": 1, "a": 12345678901234567890123},
    "alpha": [None, 1.5],
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / ".thrum" / "identities"
    path.mkdir(parents=True)
    return path


def put(directory: Path, stem: str, fields: object) -> Path:
    path = directory / f"{stem}.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields, ensure_ascii=False, indent=2))
    return path


def text_of(path: Path) -> str:
    return path.read_text()


def with_intent(intent: str) -> Callable[[Identity | None], Identity]:
    def change(identity: Identity | None) -> Identity:
        assert identity is not None
        return replace(identity, intent=intent)

    return change


def make(directory: Path, name: str = "furiosa", **fields: Any) -> Path:
    identity = Identity(name=name, role="implementer", module="auth", **fields)
    update_identity(directory, name, lambda _: identity, now_ms=NOW)
    return identity_path(directory, name)


@pytest.mark.spec("ID-17")
@pytest.mark.parametrize("version", [5, 6])
def test_a_rewrite_changes_only_what_changed(directory: Path, version: int) -> None:
    fields = FULL | {"version": version}
    path = put(directory, "furiosa", fields)
    update_identity(directory, "furiosa", with_intent("Something else"), now_ms=NOW)
    expected = fields | {"intent": "Something else", "updated_at": NOW_TEXT}
    assert text_of(path) == json.dumps(expected, ensure_ascii=False, indent=2) + "\n"


@pytest.mark.spec("ID-18")
@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_older_versions_are_read_unchanged_and_made_5_by_the_first_write(directory: Path, version: int) -> None:
    agent = {"Kind": "agent", "Name": "furiosa", "ROLE": "implementer", "Module": "auth", "Extra": 1}
    old = {"version": version, "agent": agent, "claude_pid": 99, "worktree": "/src/auth", "later": True}
    path = put(directory, "furiosa", old)
    before = path.read_bytes()
    identity = read_identity(path)
    assert (identity.name, identity.role, identity.module) == ("furiosa", "implementer", "auth")
    assert (identity.version, identity.worktree, identity.agent_pid) == (version, "/src/auth", 0)
    assert list_identities(directory)[0].identity == identity
    assert path.read_bytes() == before
    update_identity(directory, "furiosa", lambda each: each, now_ms=NOW)
    assert json.loads(text_of(path)) == {
        "version": 5,
        "repo_id": "",
        "agent": {"kind": "agent", "name": "furiosa", "role": "implementer", "module": "auth", "Extra": 1},
        "worktree": "/src/auth",
        "updated_at": NOW_TEXT,
        "later": True,
    }


@pytest.mark.spec("ID-19")
def test_a_new_file_is_private_and_holds_no_empty_fields(directory: Path) -> None:
    previous = os.umask(0)
    try:
        path = make(directory)
    finally:
        os.umask(previous)
    assert json.loads(text_of(path)) == {
        "version": 5,
        "repo_id": "",
        "agent": {"kind": "agent", "name": "furiosa", "role": "implementer", "module": "auth"},
        "worktree": "",
        "updated_at": NOW_TEXT,
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_write_that_would_change_only_the_time_is_not_made(directory: Path) -> None:
    path = make(directory)
    before = path.stat()
    identity = update_identity(directory, "furiosa", lambda each: each, now_ms=NOW + 5000)
    assert identity is not None and identity.updated_at == NOW_TEXT
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.spec("ID-20")
@pytest.mark.parametrize("call", ["open", "write", "fchmod", "fsync", "replace"])
def test_a_write_cut_off_anywhere_leaves_the_old_file_whole(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = put(directory, "furiosa", FULL)
    before = path.read_bytes()
    (directory / ".lock").touch()
    real: Callable[..., Any] = getattr(os, call)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if call == "open" and ".tmp" not in str(args[0]):
            return real(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, dying)
    with pytest.raises(KeyboardInterrupt):
        update_identity(directory, "furiosa", with_intent("x"), now_ms=NOW)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [listed.path for listed in list_identities(directory)] == [path]


@pytest.mark.spec("ID-22")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("", "no JSON"),
        ("[1]", "no JSON object"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "no JSON"),
        ({"agent": {"name": "furiosa"}}, "agent.role is missing"),
        ({"agent": "furiosa"}, "agent.role is missing"),
        ({"agent": {"name": "nux", "role": "tester"}}, 'agent.name is "nux"'),
        ({"agent": {"role": "tester", "module": "all"}}, "agent.name is missing"),
    ],
)
def test_a_broken_file_says_why(directory: Path, fields: object, reason: str) -> None:
    path = put(directory, "furiosa", fields)
    with pytest.raises(IdentityInvalid, match=r"\.thrum/identities/furiosa\.json is not a valid identity: "):
        read_identity(path)
    (listed,) = list_identities(directory)
    assert listed.identity is None and reason in listed.broken
    assert listed.candidate.broken == listed.broken
    with pytest.raises(IdentityInvalid):
        update_identity(directory, "furiosa", with_intent("x"), now_ms=NOW)


def test_an_identity_of_gigabytes_is_broken_and_not_read(directory: Path) -> None:
    path = put(directory, "furiosa", FULL)
    os.truncate(path, 1 << 40)
    with pytest.raises(IdentityInvalid, match="larger than"):
        read_identity(path)


def test_values_of_a_wrong_type_count_as_absent(directory: Path) -> None:
    path = put(directory, "furiosa", FULL | {"agent_pid": "12", "intent": 7, "reserved": "yes", "updated_at": None})
    identity = read_identity(path)
    assert (identity.agent_pid, identity.intent, identity.reserved, identity.updated_seconds) == (0, "", False, 0.0)


@pytest.mark.spec("ID-21")
def test_only_plain_visible_json_files_count(directory: Path, tmp_path: Path) -> None:
    path = put(directory, "furiosa", FULL)
    put(directory, ".hidden", FULL)
    (directory / "furiosa.json.deleted").write_text("{}")
    (directory / ".furiosa.json.tmp").write_text("{}")
    (directory / "dir.json").mkdir()
    (directory / "linked.json").symlink_to(path)
    assert [listed.path.name for listed in list_identities(directory)] == ["furiosa.json"]
    with pytest.raises(IdentityNotFound):
        read_identity(directory / "linked.json")
    assert list_identities(tmp_path / "nowhere") == []


@pytest.mark.spec("ID-21")
def test_retiring_overwrites_nothing(directory: Path) -> None:
    for number in range(3):
        retired = retire_identity(put(directory, "furiosa", FULL | {"intent": str(number)}))
        assert retired is not None
    kept = {path.name: json.loads(text_of(path))["intent"] for path in directory.glob("*.deleted*")}
    assert kept == {"furiosa.json.deleted": "0", "furiosa.json.deleted.2": "1", "furiosa.json.deleted.3": "2"}
    assert retire_identity(directory / "furiosa.json") is None


def test_an_old_file_of_an_unnamed_agent_moves_to_its_id_with_the_next_write(directory: Path) -> None:
    repo_id = "r_7K2Q1X9M3P0B"
    agent_id = agent_id_of(repo_id, "tester", "all")
    agent = {"kind": "agent", "name": "", "role": "tester", "module": "all"}
    put(directory, "tester_all", {"version": 3, "repo_id": repo_id, "agent": agent})
    (listed,) = list_identities(directory)
    assert listed.identity is not None and listed.identity.name == agent_id
    update_identity(directory, agent_id, with_intent("x"), now_ms=NOW)
    assert sorted(path.name for path in directory.glob("*.json*")) == [f"{agent_id}.json", "tester_all.json.deleted"]
    assert read_identity(directory / f"{agent_id}.json").intent == "x"


def test_the_candidate_of_a_file_holds_what_the_choice_needs(directory: Path) -> None:
    put(directory, "furiosa", FULL)
    candidate = list_identities(directory)[0].candidate
    assert (candidate.name, candidate.worktree, candidate.agent_pid) == ("furiosa", "auth", 12345)
    assert candidate.updated_at == 1_770_141_600.0


# -- write_pid


CLAUDE = Process(4711, 1, "boot/4711", 1000.0)


def record(path: Path, expected: Pid, process: Process | None, owner: str | None = None) -> Pid:
    return write_pid(
        path, expected, process, runtime_of=lambda _: "claude", owner_of=lambda _: owner, now_ms=NOW + 1000
    )


@pytest.mark.spec("ID-41")
def test_pid_and_start_are_written_together_and_nothing_else_changes(directory: Path) -> None:
    path = put(directory, "furiosa", FULL)
    assert record(path, Pid(12345, "boot/9"), CLAUDE) == Pid(4711, "boot/4711")
    changed = {"agent_pid": 4711, "agent_pid_started": "boot/4711", "updated_at": "2026-02-03T18:02:11.000Z"}
    assert json.loads(text_of(path)) == FULL | changed
    assert record(path, Pid(4711, "boot/4711"), None) == Pid()
    left = json.loads(text_of(path))
    assert "agent_pid" not in left and "agent_pid_started" not in left


@pytest.mark.spec("ID-39", "ID-40")
def test_another_owner_meanwhile_wins(directory: Path) -> None:
    path = put(directory, "furiosa", FULL)
    assert record(path, Pid(), CLAUDE) == Pid(12345, "boot/9")
    assert json.loads(text_of(path)) == FULL


@pytest.mark.spec("ID-39")
def test_what_must_not_be_recorded_is_refused(directory: Path) -> None:
    path = make(directory)
    other = make(directory, "nux")
    with pytest.raises(ValueError, match="is not a runtime"):
        record(path, Pid(), Process(1, 0, "boot/1", 1.0))
    with pytest.raises(ValueError, match="is not a runtime"):
        write_pid(path, Pid(), CLAUDE, runtime_of=lambda _: None, owner_of=lambda _: None, now_ms=NOW)
    with pytest.raises(ThrumError, match="is already max"):
        record(path, Pid(), CLAUDE, owner="max")
    with pytest.raises(IdentityNotFound):
        record(directory / "ghost.json", Pid(), CLAUDE)
    record(other, Pid(), CLAUDE)
    with pytest.raises(ThrumError, match="already nux"):
        record(path, Pid(), CLAUDE)
    assert read_identity(path).owner == Pid()


@pytest.mark.spec("ID-41")
def test_no_other_change_touches_the_recorded_pid(directory: Path) -> None:
    path = put(directory, "furiosa", FULL)

    def meddle(identity: Identity | None) -> Identity:
        assert identity is not None
        return replace(identity, agent_pid=7, agent_pid_started="boot/7", intent="x")

    update_identity(directory, "furiosa", meddle, now_ms=NOW)
    assert read_identity(path).owner == Pid(12345, "boot/9")


@pytest.mark.spec("ID-41")
def test_only_one_module_writes_identity_files() -> None:
    """`agent_pid` is set on an Identity in `identity/files.py` alone."""
    writers: set[str] = set()
    package = Path(thrum.__file__).parent if thrum.__file__ else Path(next(iter(thrum.__path__)))
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("replace", "Identity")
                and any(word.arg == "agent_pid" for word in node.keywords)
            ):
                writers.add(path.name)
    assert writers == {"files.py"}
