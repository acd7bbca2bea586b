"""The modes of the guards: two files, looked at for each decision (identity.md §12)."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from thrum.identity import guard_modes
from thrum.identity.guard_modes import LiveSettings, fire
from thrum.identity.processes import Program
from thrum.identity.runtimes import runtime_of_process
from thrum.model.errors import CrossWorktree, IdentityMismatch
from thrum.model.guards import DEFAULT_MODES, Refusal
from thrum.model.paths import Layout

ELSEWHERE = Refusal("cross_worktree", "pid_mismatch", "shell", "furiosa", expected_pid=98412)
FORGED = Refusal("unauthenticated_rpc", "identity_mismatch", "chain", "furiosa", "nux")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the settings that count lie."""
    (tmp_path / ".git" / "thrum-sync").mkdir(parents=True)
    return tmp_path / ".git" / "thrum-sync"


def live(state: Path, runtimes_file: Path | None = None) -> LiveSettings:
    root = state.parents[1]
    layout = Layout(root=root, state_dir=root / ".thrum", main_root=root, common_dir=root / ".git")
    return LiveSettings(layout, runtimes_file)


def write(path: Path, document: Any) -> None:
    path.write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.spec("ID-71")
def test_daemon_file_beats_config_beats_default_key_by_key_without_a_restart(state: Path) -> None:
    settings = live(state)
    assert settings.modes() == DEFAULT_MODES
    write(state / "config.json", {"identity_guard": {"cross_worktree": "warn", "prime_ownership": "off"}})
    assert (settings.modes()["cross_worktree"], settings.modes()["prime_ownership"]) == ("warn", "off")
    write(state / "guard-daemon.json", {"cross_worktree": "off"})
    assert (settings.modes()["cross_worktree"], settings.modes()["prime_ownership"]) == ("off", "off")
    write(state / "guard-daemon.json", {"identity_guard": {"prime_ownership": "strict"}})
    assert (settings.modes()["cross_worktree"], settings.modes()["prime_ownership"]) == ("warn", "strict")
    (state / "guard-daemon.json").unlink()
    (state / "config.json").unlink()
    assert settings.modes() == DEFAULT_MODES
    assert settings.warnings == ()


@pytest.mark.spec("ID-71")
@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        '"off"',
        "null",
        "\ud800",
        "",
        {"identity_guard": []},
        {"cross_worktree": "lax"},
        {"cross_worktree": 0},
    ],
    ids=str,
)
def test_a_malformed_file_loosens_nothing_and_warns(state: Path, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    write(state / "config.json", {"identity_guard": {"cross_worktree": "warn"}})
    path = state / "guard-daemon.json"
    path.write_bytes(broken.encode("utf-8", "surrogatepass")) if isinstance(broken, str) else write(path, broken)
    settings = live(state)
    with caplog.at_level(logging.WARNING, "thrum"):
        assert settings.modes() == {**DEFAULT_MODES, "cross_worktree": "warn"}
    assert len(settings.warnings) == 1 and "guard-daemon.json" in settings.warnings[0]
    assert [record.getMessage() for record in caplog.records] == [f"identity guards: {settings.warnings[0]}"]
    settings.modes()
    assert len(caplog.records) == 1, "said once, not for each decision"


@pytest.mark.spec("ID-71")
def test_unknown_keys_warn_and_the_others_count(state: Path) -> None:
    write(state / "config.json", {"identity_guard": {"cross_worktre": "off", "cross_worktree": "warn"}})
    settings = live(state)
    assert settings.modes()["cross_worktree"] == "warn"
    assert settings.warnings == ('config.json: unknown guard "cross_worktre"',)


@pytest.mark.parametrize("kind", ["directory", "fifo", "link to nothing"])
def test_what_is_no_file_is_none(state: Path, kind: str) -> None:
    path = state / "guard-daemon.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(state / "nothing")
    assert live(state).modes() == DEFAULT_MODES


def test_nothing_is_read_again_while_nothing_changed(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(state / "config.json", {"identity_guard": {"cross_worktree": "warn"}})
    settings = live(state)
    assert settings.modes()["cross_worktree"] == "warn"
    monkeypatch.setattr(guard_modes, "guard_modes", None)
    assert settings.modes()["cross_worktree"] == "warn"


@pytest.mark.spec("ID-25")
def test_runtime_processes_add_and_remove_names_without_a_restart(state: Path) -> None:
    settings = live(state)

    def runtime(name: str) -> str | None:
        return runtime_of_process(Program(exe=f"/usr/bin/{name}"), settings.runtime_names())

    assert (runtime("mytool"), runtime("aider")) == (None, "aider")
    write(state / "config.json", {"runtime": {"processes": {"mytool": ["mytool"], "aider": []}}})
    assert (runtime("mytool"), runtime("aider")) == ("mytool", None)
    write(state / "config.json", {"runtime": {"processes": {"mytool": [], "odd": 3}}})
    assert (runtime("mytool"), runtime("aider")) == ("mytool", None), "a file that is refused changes nothing"
    write(state / "config.json", {"runtime": {}})
    assert (runtime("mytool"), runtime("aider")) == (None, "aider")


def test_runtimes_of_the_users_own_count_without_a_restart(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = state / "runtimes.json"
    settings = live(state, path)

    def runtime(*argv: str) -> str | None:
        return runtime_of_process(Program(exe=f"/usr/bin/{argv[0]}", argv=argv), settings.runtime_names())

    assert runtime("mytool") is None
    own = {"mine": {"command": "/opt/bin/mytool --fast"}, "scripted": {"command": "python3 /opt/agent.py --loud"}}
    write(path, {"default_runtime": "mine", "custom_runtimes": own})
    assert runtime("mytool", "-x") == "mine"
    assert (runtime("python3", "/opt/agent.py"), runtime("python3", "/opt/other.py")) == ("scripted", None)
    write(state / "config.json", {"runtime": {"processes": {"mine": [], "mytool2": ["mytool2"]}}})
    assert (runtime("mytool"), runtime("mytool2")) == (None, "mytool2"), "the repository's word counts more"
    (state / "config.json").unlink()
    assert runtime("mytool") == "mine"
    with caplog.at_level(logging.WARNING, "thrum"):
        write(path, "{")
        assert (runtime("mytool"), runtime("claude")) == (None, "claude")
        settings.modes()
    assert [record.getMessage() for record in caplog.records] == [
        "runtimes: runtimes.json: Expecting property name enclosed in double quotes at line 1"
    ]
    path.unlink()
    assert runtime("claude") == "claude"


@pytest.mark.parametrize(
    "broken",
    [
        "[]",
        {"custom_runtimes": []},
        {"custom_runtimes": {"mine": "mytool", "other": {"command": 3}, "third": {}, "fourth": None}},
        {"custom_runtimes": {"mine": {"command": ""}, "blank": {"command": "  "}, "torn": {"command": "mytool 'x"}}},
        {
            "custom_runtimes": {
                "": {"command": "mytool"},
                "a\nb": {"command": "mytool"},
                "x" * 65: {"command": "mytool"},
            }
        },
        {"custom_runtimes": {"shell": {"command": "bash mytool"}, "all": {"command": "python3 -c 'pass'"}}},
    ],
    ids=str,
)
def test_a_malformed_runtime_makes_nothing_one_and_spares_the_known_ones(state: Path, broken: Any) -> None:
    write(state / "runtimes.json", broken)
    names = live(state, state / "runtimes.json").runtime_names()
    for exe in ("mytool", "bash", "python3"):
        assert runtime_of_process(Program(exe=f"/usr/bin/{exe}", argv=(exe, "script")), names) is None
    assert runtime_of_process(Program(exe="/usr/bin/claude"), names) == "claude"


@pytest.mark.spec("ID-69", "ID-73")
@pytest.mark.parametrize(("mode", "outcome"), [("strict", "denied"), ("warn", "allowed"), ("off", None)])
def test_a_guard_refuses_warns_or_is_silent(mode: Any, outcome: str | None, caplog: pytest.LogCaptureFixture) -> None:
    modes = {**DEFAULT_MODES, "cross_worktree": mode}
    line = ""
    with caplog.at_level(logging.INFO, "thrum"):
        if mode == "strict":
            with pytest.raises(CrossWorktree) as caught:
                fire(ELSEWHERE, modes, caller_pid=4711, caller_cwd="/src", method="send")
            assert caught.value.details["mode"] == "strict"
        else:
            line = fire(ELSEWHERE, modes, caller_pid=4711, caller_cwd="/src", method="send")
    assert bool(line) == (mode == "warn")
    assert "\n" not in line
    records = [getattr(record, "fields") for record in caplog.records]  # noqa: B009
    expected = {
        "guard": "cross_worktree",
        "mode": mode,
        "outcome": outcome,
        "reason": "pid_mismatch",
        "caller_pid": 4711,
        "caller_cwd": "/src",
        "expected_agent": "furiosa",
        "expected_pid": 98412,
        "method": "send",
    }
    assert records == ([expected] if outcome else [])
    assert all(record.getMessage() == "identity_guard_fire" for record in caplog.records)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.spec("ID-58")
@pytest.mark.parametrize("mode", ["strict", "warn", "off"])
def test_no_mode_lets_a_forged_claim_pass(mode: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "thrum"), pytest.raises(IdentityMismatch):
        fire(FORGED, {**DEFAULT_MODES, "unauthenticated_rpc": mode})
    assert getattr(caplog.records[0], "fields")["outcome"] == "denied"  # noqa: B009
