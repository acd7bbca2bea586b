"""Settings by their dotted key: rules, sources, changes (cli.md 3.19, rpc.md §5)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from thrum.model import config, errors, settings
from thrum.model.guards import DEFAULT_MODES, GUARDS
from thrum.model.paths import Layout


def test_every_default_follows_its_own_rule() -> None:
    for key in settings.SETTINGS:
        found = settings.setting_value({}, key)
        assert found.source == "default"
        settings.check_value(key, found.value)


def test_a_setting_is_read_exactly_if_its_row_says_that_it_is_built() -> None:
    rows = {name: row for name, row in vars(settings).items() if isinstance(row, settings.Setting)}
    package = Path(settings.__file__).parent.parent
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path != Path(settings.__file__)]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    read = {row.key for name, row in rows.items() if name in words}
    # These two `identity.guard_modes` reads from the file itself.
    read |= {key for key in settings.SETTINGS if key == "runtime.processes" or key.startswith("identity_guard.")}
    assert read == {key for key, row in settings.SETTINGS.items() if row.built}


def test_every_guard_is_a_setting_with_its_own_default() -> None:
    found = {name: settings.setting_value({}, f"identity_guard.{name}") for name in GUARDS}
    assert {name: value.value for name, value in found.items()} == dict(DEFAULT_MODES)
    assert {name for name in settings.SETTINGS if name.startswith("identity_guard.")} == {
        f"identity_guard.{name}" for name in GUARDS
    }


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("daemon.local_only", ["true", "false"], ["1", "yes", "null", '"true"']),
        ("daemon.ws_port", ["auto", "9999", '"auto"'], ["0", "65536", "soon", "80.5", "true"]),
        ("daemon.log_level", ["debug", '"warn"'], ["loud", "1", ""]),
        ("daemon.max_message_body_bytes", ["1", "1048576"], ["0", "1048577", "1e3", "true", "big"]),
        ("daemon.stale_session_end", ["24h", "90", "1h30m"], ["0", "0s", "-1", "later", "1e999", "true"]),
        ("sync.debounce", ["300ms", "0"], ["-1", "x", "NaN", "9" * 400, "9" * 400 + "d", "３０s"]),
        ("sync.remote", ["origin", "2026"], ["", " origin", "--upload-pack=x", '"a\\nb"']),
        ("runtime.processes", ['{"mytool": ["mytool"]}', '{"aider": []}', "{}"], ["[]", '{"a": "b"}', '{"a": [1]}']),
        ("worktrees.base_path", ["/tmp/x", "~/w", ""], ["here", "~x", "1"]),
        ("backup.retention.daily", ["-1", "0", "7"], ["-2", "many", "9" * 30]),
        ("restart.silence_watchdog_seconds", ["0", "1.5"], ["-1", "Infinity", '"30"']),
        ("identity_guard.cross_worktree", ["off", "warn", "strict"], ["false", "lax"]),
        ("permission_supervisors", ['["a", "b"]', "[]"], ["a", '[""]', "[1]"]),
        ("project_name", ["shop", "2026", ""], ['"a\\u0007"']),
    ],
)
def test_values_are_json_else_text_and_follow_the_rule(key: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        settings.check_value(key, settings.parse_value(key, text))
    for text in bad:
        with pytest.raises(errors.BadConfigValue, match=f"^{key} must be "):
            settings.check_value(key, settings.parse_value(key, text))


def test_what_is_text_stays_text() -> None:
    assert settings.parse_value("project_name", "2026") == "2026"
    assert settings.parse_value("project_name", '"2026"') == "2026"
    assert settings.parse_value("daemon.ws_port", "2026") == 2026


@pytest.mark.parametrize(
    ("key", "suggested"),
    [
        ("daemon.loglevel", "daemon.log_level"),
        ("daemon", "daemon.local_only"),
        ("backup.retention", "backup.retention.daily"),
        ("identity_guard.cross_worktre", "identity_guard.cross_worktree"),
        ("zzz", None),
        ("", None),
        ("daemon.local_only.x", "daemon.local_only"),
    ],
)
def test_an_unknown_key_is_refused_with_what_is_close(key: str, suggested: str | None) -> None:
    with pytest.raises(errors.BadConfigKey) as refused:
        settings.find(key)
    assert suggested in refused.value.details.get("suggestions", [None])


def test_the_identity_is_read_only() -> None:
    raw = {"identity": {"daemon_id": "d_1"}}
    assert settings.setting_value(raw, "identity.daemon_id") == ("d_1", "config.json")
    for key in ("identity", "identity.daemon_id"):
        with pytest.raises(errors.BadConfigKey, match="read-only"):
            settings.check_value(key, "d_2")
    with pytest.raises(errors.BadConfigKey):
        settings.setting_value(raw, "identity.nothing")


def test_the_environment_comes_first_then_the_file_then_the_default() -> None:
    raw = {"daemon": {"ws_port": 80}}
    assert settings.setting_value(raw, "daemon.ws_port", {"daemon.ws_port": 90}) == (90, "environment")
    assert settings.setting_value(raw, "daemon.ws_port") == (80, "config.json")
    assert settings.setting_value({}, "daemon.ws_port") == ("auto", "default")
    assert settings.setting_value({"daemon": 3}, "daemon.ws_port") == ("auto", "default")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / ".thrum").mkdir()
    (tmp_path / ".git" / "thrum-sync").mkdir(parents=True)
    return Layout(tmp_path, tmp_path / ".thrum", tmp_path, tmp_path / ".git")


@pytest.mark.spec("ID-78")
def test_a_change_touches_nothing_else_and_unsetting_leaves_no_empty_object(layout: Layout) -> None:
    file = layout.config_file
    raw = {"later": {"x": [1]}, "daemon": {"local_only": True}}
    file.write_text(json.dumps(raw))
    config.change(layout, "backup.retention.daily", 9)
    config.change(layout, "daemon.ws_port", 9999)
    changed = json.loads(file.read_text())
    assert changed == {
        "later": {"x": [1]},
        "daemon": {"local_only": True, "ws_port": 9999},
        "backup": {"retention": {"daily": 9}},
    }
    assert config.unset(layout, "backup.retention.daily") == (5, "default")
    config.unset(layout, "daemon.ws_port")
    config.unset(layout, "sync.interval")
    assert json.loads(file.read_text()) == json.loads(layout.config_copy.read_text()) == raw


def test_a_file_that_keeps_the_daemon_from_starting_can_be_fixed_by_set(layout: Layout) -> None:
    file = layout.config_file
    file.write_text('{"daemon": {"log_level": "loud"}, "wing": {"x": 1}, "identity": {"repo_id": "r"}}')
    with pytest.raises(errors.ConfigInvalid):
        config.load_config(file)
    config.change(layout, "daemon.log_level", "info")
    assert config.load_config(file)[settings.LOG_LEVEL] == "info"


# -- over RPC
