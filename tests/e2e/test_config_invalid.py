"""Settings that `config set` would refuse, written into the file that counts: nothing starts, what runs goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon.repo import Repo, open_repo
from thrum.model.methods.daemon import HEALTH

ALICE = {"THRUM_NAME": "alice"}
NINES = "9" * 400
COMMANDS = (
    ("daemon", "start"),
    ("send", "hi", "--to", "@bob"),
    ("inbox",),
    ("sent",),
    ("wait", "--timeout", "1s"),
    ("team",),
    ("overview",),
    ("agent", "list"),
    ("session", "list"),
    ("group", "list"),
    ("who-has", "x.py"),
    ("sync", "status"),
    ("backup",),
    ("backup", "config"),
    ("init",),
)
"""Some of every family: what asks the daemon, and what works on the files itself."""


@pytest.fixture(scope="module")
def repo() -> Iterator[Repo]:
    with open_repo("alice", "bob") as opened:
        yield opened


def written(repo: Repo, **values: Any) -> dict[str, Any]:
    """The file that counts, with these settings of sync in place of what it said; what it said."""
    before: dict[str, Any] = json.loads(repo.settings.read_text())
    repo.settings.write_text(json.dumps({"sync": values, **before}, indent=1))
    return before


def test_no_command_goes_on_with_broken_settings_and_each_names_key_line_and_fix(repo: Repo) -> None:
    repo.thrum("daemon", "stop")
    before = written(repo, interval="0s", debounce=f"{NINES}d", remote="origin")
    for words in COMMANDS:
        done = repo.run(*words, "--json", env=ALICE)
        assert done.status == (2 if words[0] == "wait" else 1), (words, done)
        assert done.json["error"] == {
            "kind": "config_invalid",
            "message": "thrum-sync/config.json is not valid:"
            " sync.interval must be a duration above 0, e.g. 15s at line 3;"
            " sync.debounce must be a duration, e.g. 30s, 5m, 1h30m or seconds at line 4",
            "remedy": "thrum config set sync.interval VALUE, or: thrum config unset sync.interval",
        }, words
    assert not repo.daemon
    found = {each["name"]: each for each in repo.run("doctor", "--json").json["checks"]}
    assert (found["config"]["status"], "sync.interval" in found["config"]["detail"]) == ("fail", True)
    said = repo.run("config", "show")
    assert (said.status, "sync.interval must be a duration above 0, e.g. 15s at line 3" in said.err) == (0, True)
    assert repo.run("config", "set", "sync.interval", "0s").err.startswith("Error: sync.interval must be a duration ab")

    repo.thrum("config", "set", "sync.interval", "20s")
    assert repo.run("team", "--json").json["error"]["message"].count(" must be ") == 1, "one is fixed, one is left"
    repo.thrum("config", "unset", "sync.debounce")
    for words in COMMANDS[1:3]:
        repo.thrum(*words, env=ALICE)
    assert json.loads(repo.settings.read_text()) == {"sync": {"interval": "20s", "remote": "origin"}, **before}


def test_a_daemon_that_runs_goes_on_with_what_counted_and_says_so(repo: Repo) -> None:
    repo.thrum("team")
    pid = repo.daemon
    text = repo.settings.read_text()
    repo.settings.write_text(text.replace('"20s"', '"３０s"'))
    done = repo.run("inbox", env=ALICE)
    reason = "thrum-sync/config.json is not valid: sync.interval must be a duration above 0, e.g. 15s at line "
    assert (done.status, done.err.count(f"warning: {reason}")) == (0, 1), done
    assert "previous settings" in done.err
    with repo.client() as client:
        health = client.call(HEALTH)
        assert (health.status, health.problems[0].startswith(reason)) == ("degraded", True), health
    assert repo.run("doctor", "--json").status == 1
    repo.thrum("send", "still here", "--to", "@bob", env=ALICE)
    refused = repo.run("daemon", "restart", "--json")
    assert refused.kind == "config_invalid"
    assert repo.daemon == pid, "a restart that cannot start again leaves what runs"
    repo.settings.write_text(text)
    with repo.client() as client:
        assert client.call(HEALTH).status == "ok"
